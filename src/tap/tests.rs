//! Real TAP devices, in a network namespace of the test's own: each test runs itself again under `unshare`, as root or
//! in a user namespace. Where the machine permits neither, it is skipped with a message.

mod faults;
mod line;
mod peer;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use outlast_stack::Capabilities;

use super::{Tap, TapError};
use peer::{DISCARD, ECHO, Host, SERVER_V4, SERVER_V6, SOURCE, pattern};

const IN_NAMESPACE: &str = "OUTLAST_TEST_NAMESPACE";

/// Runs `body` in a fresh network namespace with the rights to configure it. `name` is the calling test's.
fn in_namespace(name: &str, body: fn()) {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        return body();
    }
    let namespace = if rustix::process::geteuid().is_root() {
        "-n"
    } else {
        "-Urn"
    };
    let probe = "ip tuntap add dev probe mode tap && ip link del dev probe";
    let allowed = Command::new("unshare")
        .args([namespace, "sh", "-c", probe])
        .output();
    match allowed {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!(
                "SKIPPED {name}: no TAP in a namespace here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return;
        }
        Err(error) => {
            eprintln!("SKIPPED {name}: no unshare here: {error}");
            return;
        }
    }
    let output = Command::new("unshare")
        .arg(namespace)
        .arg(std::env::current_exe().expect("a test has a path"))
        .args([
            "--exact",
            &format!("tap::tests::{name}"),
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(IN_NAMESPACE, "1")
        .output()
        .expect("unshare was there before");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}\n{stderr}"
    );
    eprint!("{stderr}");
}

fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect(command);
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A persistent TAP with the host's addresses on it.
fn make_tap(name: &str) {
    run(&format!("ip tuntap add dev {name} mode tap"));
    run(&format!("ip address add 10.77.0.2/24 dev {name}"));
    run(&format!("ip address add fd77::2/64 dev {name} nodad"));
    run(&format!("ip address add fe80::2/64 dev {name} nodad"));
    run(&format!("ip link set dev {name} up"));
}

#[test]
fn errors_of_a_tap_are_reported() {
    in_namespace("errors_of_a_tap_are_reported", || {
        for offload in [false, true] {
            let error = |name: &str| Tap::open(name, offload).expect_err(name);
            assert!(matches!(error("tap9"), TapError::Missing { name } if name == "tap9"));
            assert!(matches!(
                error("much-too-long-a-name"),
                TapError::Name { .. }
            ));
            assert!(matches!(error(""), TapError::Name { .. }));
            assert!(matches!(
                error("lo"),
                TapError::NotATap {
                    what: "another kind of network interface",
                    ..
                }
            ));

            run("ip tuntap add dev tun0 mode tun");
            assert!(matches!(
                error("tun0"),
                TapError::NotATap {
                    what: "a TUN device",
                    ..
                }
            ));
            run("ip link del dev tun0");

            run("ip tuntap add dev tap1 mode tap multi_queue");
            assert!(matches!(
                error("tap1"),
                TapError::NotATap {
                    what: "a TAP device with several queues",
                    ..
                }
            ));
            run("ip link del dev tap1");

            run("ip tuntap add dev tap2 mode tap");
            let held = Tap::open("tap2", offload).expect("a TAP");
            assert!(matches!(error("tap2"), TapError::Busy { name } if name == "tap2"));
            drop(held);
            Tap::open("tap2", offload).expect("a TAP again");
            run("ip link del dev tap2");
        }
        let file: OwnedFd = std::fs::File::open("/dev/null").expect("a file").into();
        assert!(matches!(Tap::inherit(file), Err(TapError::NotInherited)));
        // The check made nothing.
        assert!(matches!(
            Tap::open("tap9", true),
            Err(TapError::Missing { .. })
        ));
    });
}

#[test]
fn an_inherited_tap_is_what_it_was_opened_as() {
    in_namespace("an_inherited_tap_is_what_it_was_opened_as", || {
        make_tap("tap0");
        for (offload, capabilities) in [(true, Capabilities::ALL), (false, Capabilities::NONE)] {
            let opened = Tap::open("tap0", offload).expect("a TAP");
            assert_eq!(opened.capabilities(), capabilities);
            let inherited =
                Tap::inherit(opened.as_fd().try_clone_to_owned().expect("a copy")).expect("a TAP");
            assert_eq!(
                (inherited.capabilities(), inherited.name()),
                (capabilities, "tap0")
            );
            // The copy holds the device.
            drop(opened);
            assert!(matches!(
                Tap::open("tap0", offload),
                Err(TapError::Busy { .. })
            ));
        }
    });
}

#[test]
fn a_tap_that_is_down_loses_frames_and_one_that_is_gone_is_an_error() {
    in_namespace(
        "a_tap_that_is_down_loses_frames_and_one_that_is_gone_is_an_error",
        || {
            make_tap("tap0");
            let mut tap = Tap::open("tap0", true).expect("a TAP");
            let frame = outlast_stack::TxFrame::plain(vec![0xff; 60]);
            run("ip link set dev tap0 down");
            tap.send(&frame).expect("a lost frame");
            run("ip link set dev tap0 up");
            tap.send(&frame).expect("a frame");
            run("ip link del dev tap0");
            let error = tap.send(&frame).expect_err("no device");
            assert!(error.to_string().contains("tap0"), "{error}");
        },
    );
}

#[test]
fn the_kernel_pings_us() {
    in_namespace("the_kernel_pings_us", || {
        make_tap("tap0");
        for offload in [true, false] {
            let host = Host::start(Tap::open("tap0", offload).expect("a TAP"));
            for len in [0, 56, 1000, 1452] {
                peer::ping(SERVER_V6.into(), len);
                peer::ping(SERVER_V4.into(), len + if len > 1000 { 20 } else { 0 });
            }
            host.stop();
        }
    });
}

fn connect(address: IpAddr, port: u16) -> TcpStream {
    let stream =
        TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(10))
            .expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    stream
}

/// The kernel sends `len` bytes, half-closes, and learns how many arrived (their content is checked there).
fn upload(address: IpAddr, len: usize) {
    let mut stream = connect(address, DISCARD);
    stream.write_all(&pattern(0, len)).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert_eq!(answer, (len as u64).to_be_bytes());
}

/// The kernel asks for `len` bytes and half-closes before they come.
fn download(address: IpAddr, len: usize) {
    let mut stream = connect(address, SOURCE);
    stream.write_all(&(len as u64).to_be_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("the bytes");
    assert!(
        received == pattern(0, len),
        "{} of {len} bytes",
        received.len()
    );
}

/// Both directions at once: `len` bytes there and back.
fn echo(mut stream: TcpStream, len: usize, meanwhile: impl Fn(usize)) {
    let mut writer = stream.try_clone().expect("a copy");
    let sender = std::thread::spawn(move || {
        writer.write_all(&pattern(0, len)).expect("sent");
        writer.shutdown(Shutdown::Write).expect("half-closed");
    });
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer).expect("the bytes") {
            0 => break,
            read => received.extend_from_slice(&buffer[..read]),
        }
        meanwhile(received.len());
    }
    sender.join().expect("the sender");
    assert!(
        received == pattern(0, len),
        "{} of {len} bytes",
        received.len()
    );
}

#[test]
fn the_kernels_tcp_talks_to_ours() {
    in_namespace("the_kernels_tcp_talks_to_ours", || {
        make_tap("tap0");
        // Plain comes second: no offload may be left on the device.
        for offload in [true, false] {
            let host = Host::start(Tap::open("tap0", offload).expect("a TAP"));
            for address in [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)] {
                upload(address, 0);
                upload(address, 20_000_000);
                download(address, 1);
                download(address, 20_000_000);
                echo(connect(address, ECHO), 10_000_000, |_| ());
            }
            let counters = host.stop();
            assert_eq!(
                (
                    counters.malformed,
                    counters.bad_checksum,
                    counters.fragments
                ),
                (0, 0, 0),
                "offload {offload}"
            );
        }
    });
}

/// The kernel ignores the window in a segment that it already has: it would wait for its next probe, which is postponed
/// further the longer the outage was.
#[test]
fn the_kernel_sends_at_once_after_a_planned_outage_although_our_last_reply_was_not_acknowledged() {
    in_namespace(
        "the_kernel_sends_at_once_after_a_planned_outage_although_our_last_reply_was_not_acknowledged",
        || {
            make_tap("tap0");
            let host = Host::start(Tap::open("tap0", true).expect("a TAP"));
            let mut stream = connect(SERVER_V4.into(), ECHO);
            let left = host.leave();
            let mut answer = [0; 6];
            stream.write_all(b"first").expect("sent");
            stream.read_exact(&mut answer[..5]).expect("the answer");
            left.recv().expect("the host lives");
            stream.write_all(b"second").expect("queued");
            let before = window_probes(3);
            host.recover();
            stream.read_exact(&mut answer).expect("the answer");
            assert_eq!(&answer, b"second");
            assert_eq!(window_probes(0), before, "it had to probe");
            host.stop();
        },
    );
}

/// The number of window probes that the kernel has sent in this namespace, as soon as there are `least`.
fn window_probes(least: u64) -> u64 {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let text = std::fs::read_to_string("/proc/net/netstat").expect("counters");
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let mut words = || lines.next().expect("counters").split(' ');
        let at = words().position(|name| name == "TCPWinProbe");
        let value = words().nth(at.expect("a counter")).expect("its value");
        let probes = value.parse().expect("a number");
        if probes >= least {
            return probes;
        }
        assert!(std::time::Instant::now() < limit, "{probes} of {least}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_kernels_tcp_does_not_notice_a_restore() {
    in_namespace("the_kernels_tcp_does_not_notice_a_restore", || {
        make_tap("tap0");
        for offload in [true, false] {
            let host = Host::start(Tap::open("tap0", offload).expect("a TAP"));
            let streams = [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)]
                .map(|address| connect(address, ECHO));
            for stream in streams {
                let next = std::cell::Cell::new(1_000_000);
                echo(stream, 8_000_000, |received| {
                    if received >= next.get() {
                        next.set(next.get() + 1_000_000);
                        host.crash();
                    }
                });
                assert!(next.get() >= 8_000_000);
            }
            host.stop();
        }
    });
}

/// A measurement, not a test: `cargo test --release tap::tests::throughput -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    in_namespace("throughput", || {
        make_tap("tap0");
        let address = IpAddr::from(SERVER_V4);
        for offload in [true, false] {
            let host = Host::start_forgetful(Tap::open("tap0", offload).expect("a TAP"));
            let len: usize = if offload { 4 << 30 } else { 1 << 30 };
            let rate = |what: &str, took: Duration| {
                eprintln!(
                    "offload {offload}: {what} {:.1} Gbit/s",
                    len as f64 * 8e-9 / took.as_secs_f64()
                );
            };
            let chunk = vec![0u8; 1 << 20];
            for _ in 0..3 {
                let start = std::time::Instant::now();
                let mut stream = connect(address, DISCARD);
                for _ in 0..len >> 20 {
                    stream.write_all(&chunk).expect("sent");
                }
                stream.shutdown(Shutdown::Write).expect("half-closed");
                stream.read_to_end(&mut Vec::new()).expect("an answer");
                rate("in", start.elapsed());

                let start = std::time::Instant::now();
                let mut stream = connect(address, SOURCE);
                stream.write_all(&(len as u64).to_be_bytes()).expect("sent");
                let mut buffer = vec![0; 1 << 20];
                let mut received = 0;
                while received < len {
                    received += stream.read(&mut buffer).expect("the bytes");
                }
                rate("out", start.elapsed());
            }
            host.stop();
        }
    });
}

#[test]
fn the_link_local_address_is_ours_too() {
    in_namespace("the_link_local_address_is_ours_too", || {
        make_tap("tap0");
        let host = Host::start(Tap::open("tap0", true).expect("a TAP"));
        let index = rustix::net::netdevice::name_to_index(
            rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                None,
            )
            .expect("a socket"),
            "tap0",
        )
        .expect("an index");
        let ours: Ipv6Addr = "fe80::ff:fe00:10".parse().expect("an address");
        let address = std::net::SocketAddrV6::new(ours, ECHO, 0, index);
        let stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(10))
            .expect("a connection");
        echo(stream, 100_000, |_| ());
        host.stop();
    });
}
