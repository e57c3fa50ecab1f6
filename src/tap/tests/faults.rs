//! Tests the stack with the kernel's TCP over a line that loses, duplicates, reorders, damages and delays frames, with
//! small and closed windows, sequence numbers that wrap, and restores in between.

use outlast_stack::device::Faults;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::line::Line;
use super::peer::{Setup, View};
use super::*;

const SERVERS: [IpAddr; 2] = [IpAddr::V4(SERVER_V4), IpAddr::V6(SERVER_V6)];

fn bad_wire() -> Faults {
    Faults {
        loss_ppm: 15_000,
        duplicate_ppm: 20_000,
        reorder_ppm: 30_000,
        corrupt_ppm: 5_000,
        delay: Duration::from_micros(300),
        jitter: Duration::from_micros(200),
        reorder_delay: Duration::from_millis(2),
        queue_limit: 0,
    }
}

fn host(faults: Faults, seed: u64, setup: Setup) -> Host {
    let tap = Tap::open("tap0", false).expect("a TAP");
    Host::start_on(Line::faulty(tap, faults, seed), setup)
}

/// Sends and receives `len` bytes, and makes the host lose everything except its journal after every `every` bytes.
fn echo_through_crashes(host: &Host, stream: TcpStream, len: usize, every: usize) {
    let next = std::cell::Cell::new(every);
    echo(stream, len, |received| {
        if received >= next.get() {
            next.set(next.get() + every);
            host.crash();
        }
    });
    assert!(next.get() > every, "no crash has hit the transfer");
}

#[test]
fn the_kernels_tcp_over_a_bad_wire() {
    in_namespace("faults::the_kernels_tcp_over_a_bad_wire", || {
        make_tap("tap0");
        for seed in 0..3 {
            eprintln!("seed {seed}");
            let host = host(bad_wire(), seed, Setup::default());
            std::thread::scope(|scope| {
                for address in SERVERS {
                    scope.spawn(move || upload(address, 1_000_000));
                    scope.spawn(move || download(address, 1_000_000));
                    scope.spawn(move || echo(connect(address, ECHO), 500_000, |_| ()));
                }
            });
            let counters = host.stop();
            assert!(counters.bad_checksum > 0, "the wire damaged nothing");
        }
    });
}

#[test]
fn the_kernels_tcp_over_a_bad_wire_with_restores() {
    in_namespace(
        "faults::the_kernels_tcp_over_a_bad_wire_with_restores",
        || {
            make_tap("tap0");
            for seed in 10..13 {
                eprintln!("seed {seed}");
                let host = host(bad_wire(), seed, Setup::default());
                for address in SERVERS {
                    echo_through_crashes(&host, connect(address, ECHO), 600_000, 150_000);
                }
                host.stop();
            }
        },
    );
}

#[test]
fn small_and_closed_windows_of_the_kernel_and_of_ours() {
    in_namespace(
        "faults::small_and_closed_windows_of_the_kernel_and_of_ours",
        || {
            make_tap("tap0");
            for (faults, seed) in [(Faults::default(), 20), (bad_wire(), 21)] {
                let small = Setup {
                    receive_buffer: 8 << 10,
                };
                let host = host(faults, seed, small);
                for address in SERVERS {
                    upload(address, 200_000);
                    let mut stream = connect(address, ECHO);
                    set_socket_recv_buffer_size(&stream, 4 << 10).expect("a small buffer");
                    // The data are not read: the kernel closes its window, then we close ours.
                    let mut writer = stream.try_clone().expect("a copy");
                    let len = 6 << 20;
                    let sender = std::thread::spawn(move || {
                        writer.write_all(&pattern(0, len)).expect("sent");
                        writer.shutdown(Shutdown::Write).expect("half-closed");
                    });
                    let closed = |view: View| view.snd_wnd < 1000 && view.rcv_wnd < 1000;
                    for _ in 0..2 {
                        let limit = std::time::Instant::now() + Duration::from_secs(20);
                        while !host.newest().is_some_and(closed) {
                            assert!(std::time::Instant::now() < limit, "{:?}", host.newest());
                        }
                        host.crash();
                    }
                    set_socket_recv_buffer_size(&stream, 1 << 20).expect("a large buffer");
                    let mut received = Vec::new();
                    stream.read_to_end(&mut received).expect("the bytes");
                    sender.join().expect("the sender");
                    assert!(
                        received == pattern(0, len),
                        "{} of {len} bytes",
                        received.len()
                    );
                }
                host.stop();
            }
        },
    );
}

#[test]
fn sequence_numbers_wrap_on_either_side() {
    in_namespace("faults::sequence_numbers_wrap_on_either_side", || {
        const LEN: usize = 30_000_000;
        make_tap("tap0");
        let host = host(Faults::default(), 30, Setup::default());
        let ours: fn(View) -> u32 = |view| view.snd_nxt;
        let kernels: fn(View) -> u32 = |view| view.rcv_nxt;
        for sequence in [ours, kernels] {
            let is_near_the_end = |host: &Host| {
                let sequence = host.newest().map(sequence);
                sequence.is_some_and(|sequence| sequence > u32::MAX - LEN as u32)
            };
            // One connection in 140 begins so near.
            let stream = (0..5000)
                .map(|_| connect(SERVER_V4.into(), ECHO))
                .find(|_| is_near_the_end(&host))
                .expect("a connection near the end of the sequence numbers");
            echo_through_crashes(&host, stream, LEN, LEN / 4);
        }
        host.stop();
    });
}
