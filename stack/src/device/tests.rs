use std::time::Duration;

use bytes::Bytes;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::{Device, Faults, MAX_FRAME_LEN, MemoryDevice, SmoltcpPort, pair, segment};
use crate::{Capabilities, Offload, RxChecksum, TxFrame};

const EACH_WAY: [Capabilities; 2] = [Capabilities::NONE, Capabilities::NONE];

fn ip_frame(number: u32) -> TxFrame {
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&[0x08, 0x00]);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend_from_slice(&[0; 40]);
    TxFrame::plain(frame)
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]])
}

fn receive_all(device: &mut MemoryDevice) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; MAX_FRAME_LEN];
    let mut frames = Vec::new();
    while let Some((len, checksum)) = device.receive(&mut buffer).expect("memory does not fail") {
        assert_eq!(checksum, RxChecksum::Verify);
        frames.push(buffer[..len].to_vec());
    }
    frames
}

#[test]
fn a_wire_without_faults_keeps_everything_in_order() {
    let (mut a, mut b) = pair(
        EACH_WAY,
        Faults {
            delay: Duration::from_millis(5),
            ..Faults::default()
        },
        1,
    );
    for at in 0..100 {
        a.send(&ip_frame(at)).expect("sent");
    }
    b.advance(Duration::from_micros(4_999));
    assert!(receive_all(&mut b).is_empty());
    assert_eq!(b.next_arrival(), Some(Duration::from_millis(5)));
    assert_eq!(a.next_arrival(), None);
    b.advance(Duration::from_millis(5));
    let numbers: Vec<u32> = receive_all(&mut b)
        .iter()
        .map(|frame| number(frame))
        .collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!(b.next_arrival(), None);
    assert!(receive_all(&mut a).is_empty());
}

fn faulty_run(seed: u64) -> (Vec<Vec<u8>>, super::Transit) {
    let faults = Faults {
        loss_ppm: 100_000,
        duplicate_ppm: 50_000,
        reorder_ppm: 50_000,
        corrupt_ppm: 20_000,
        delay: Duration::from_millis(1),
        jitter: Duration::from_micros(100),
        reorder_delay: Duration::from_millis(3),
        queue_limit: 0,
    };
    let (mut a, mut b) = pair(EACH_WAY, faults, seed);
    let mut frames = Vec::new();
    for at in 0..10_000 {
        a.advance(Duration::from_micros(u64::from(at) * 200));
        a.send(&ip_frame(at)).expect("sent");
        frames.extend(receive_all(&mut b));
    }
    b.advance(Duration::from_secs(10));
    frames.extend(receive_all(&mut b));
    (frames, a.transit())
}

#[test]
fn faults_occur_as_often_as_requested_and_depend_on_the_seed_alone() {
    let (frames, transit) = faulty_run(42);
    assert_eq!(transit.sent, 10_000);
    assert!((900..1100).contains(&transit.lost), "{transit:?}");
    assert!((380..520).contains(&transit.duplicated), "{transit:?}");
    assert!((380..520).contains(&transit.reordered), "{transit:?}");
    assert!((130..230).contains(&transit.corrupted), "{transit:?}");
    assert_eq!(
        frames.len() as u64,
        transit.sent - transit.lost + transit.duplicated
    );
    let overtaken = frames
        .windows(2)
        .filter(|pair| number(&pair[0]) > number(&pair[1]))
        .count();
    assert!(overtaken > 200, "{overtaken}");

    assert_eq!((frames, transit), faulty_run(42));
    assert_ne!(transit, faulty_run(43).1);
}

#[test]
fn damage_is_one_bit_above_ethernet() {
    let (mut a, mut b) = pair(
        EACH_WAY,
        Faults {
            corrupt_ppm: 1_000_000,
            ..Faults::default()
        },
        3,
    );
    let sent = ip_frame(0);
    for _ in 0..500 {
        a.send(&sent).expect("sent");
    }
    for frame in receive_all(&mut b) {
        assert_eq!(frame[..14], sent.header[..14]);
        let flipped: u32 = frame
            .iter()
            .zip(&sent.header)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert_eq!(flipped, 1);
    }
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    a.send(&TxFrame::plain(arp.clone())).expect("sent");
    assert_eq!(receive_all(&mut b), [arp]);
}

#[test]
fn a_full_queue_loses_its_tail_and_a_dead_machine_its_queue() {
    let (mut a, mut b) = pair(
        EACH_WAY,
        Faults {
            queue_limit: 10,
            ..Faults::default()
        },
        4,
    );
    for at in 0..15 {
        a.send(&ip_frame(at)).expect("sent");
    }
    assert_eq!(a.transit().lost, 5);
    let numbers: Vec<u32> = receive_all(&mut b)
        .iter()
        .map(|frame| number(frame))
        .collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());

    a.send(&ip_frame(20)).expect("sent");
    b.send(&ip_frame(21)).expect("sent");
    b.discard();
    assert!(receive_all(&mut b).is_empty());
    assert_eq!(receive_all(&mut a).len(), 1);
    assert_eq!(a.transit().lost, 6);
}

#[test]
fn offloads_that_contradict_the_frame_send_nothing() {
    let header = vec![0; 54];
    let payload = vec![Bytes::from(vec![1; 3000])];
    let tso = |header_len, mss, start, offset| Offload::Tso {
        v6: false,
        mss,
        header_len,
        start,
        offset,
    };
    for offload in [
        tso(54, 0, 34, 16),
        tso(50, 1000, 34, 16),
        tso(54, 1000, 4000, 16),
        tso(54, 1000, 10, 16),
        tso(54, 1000, 34, 5000),
        Offload::Checksum {
            start: 4000,
            offset: 16,
        },
        Offload::Checksum {
            start: 34,
            offset: 5000,
        },
    ] {
        assert!(
            segment(&TxFrame {
                header: header.clone(),
                payload: payload.clone(),
                offload
            })
            .is_empty(),
            "{offload:?}"
        );
    }
}

/// smoltcp's TCP at both ends receives what was sent, over a faulty wire.
#[test]
fn smoltcp_talks_over_a_faulty_wire() {
    let faults = Faults {
        loss_ppm: 20_000,
        duplicate_ppm: 20_000,
        reorder_ppm: 20_000,
        corrupt_ppm: 20_000,
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(1),
        reorder_delay: Duration::from_millis(4),
        queue_limit: 0,
    };
    let (a, b) = pair(EACH_WAY, faults, 5);
    let mut ports = [SmoltcpPort::new(a, 1500), SmoltcpPort::new(b, 1500)];
    let mut interfaces: Vec<Interface> = (1..=2u8)
        .zip(&mut ports)
        .map(|(host, port)| {
            let hardware = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, host]));
            let mut interface = Interface::new(Config::new(hardware), port, Instant::ZERO);
            interface.update_ip_addrs(|own| {
                own.push(IpCidr::new(IpAddress::v4(10, 0, 0, host), 24))
                    .expect("room");
            });
            interface
        })
        .collect();
    let mut sets = [SocketSet::new(vec![]), SocketSet::new(vec![])];
    let socket = || {
        tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; 32_768]),
            tcp::SocketBuffer::new(vec![0; 32_768]),
        )
    };
    let handles = [sets[0].add(socket()), sets[1].add(socket())];
    sets[1]
        .get_mut::<tcp::Socket>(handles[1])
        .listen(445)
        .expect("listening");
    let context = interfaces[0].context();
    sets[0]
        .get_mut::<tcp::Socket>(handles[0])
        .connect(context, (IpAddress::v4(10, 0, 0, 2), 445), 40_000)
        .expect("connecting");

    let data: Vec<u8> = (0..200_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut sent = 0;
    let mut received = Vec::new();
    for step in 0..200_000u64 {
        let now = Duration::from_micros(step * 500);
        for end in 0..2 {
            ports[end].device().advance(now);
            interfaces[end].poll(
                Instant::from_micros(now.as_micros() as i64),
                &mut ports[end],
                &mut sets[end],
            );
        }
        let sender = sets[0].get_mut::<tcp::Socket>(handles[0]);
        if sender.can_send() {
            sent += sender.send_slice(&data[sent..]).expect("open");
        }
        let receiver = sets[1].get_mut::<tcp::Socket>(handles[1]);
        if receiver.can_recv() {
            receiver
                .recv(|bytes| (bytes.len(), received.extend_from_slice(bytes)))
                .expect("open");
        }
        if received.len() == data.len() {
            break;
        }
    }
    assert!(
        received == data,
        "{} of {} bytes",
        received.len(),
        data.len()
    );
    let transit = ports[0].device().transit();
    assert!(
        transit.lost > 0 && transit.corrupted > 0 && transit.duplicated > 0,
        "{transit:?}"
    );
}
