//! Multicast DNS: what another host on the link may send to the group.

use crate::input::Input;
use outlast::discovery::mdns::Responder;
use outlast_stack::Datagram;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Messages of one input, and the longest wait between two.
const STEPS: usize = 16;
const LONGEST_WAIT_MS: usize = 3_000;

/// Questions and answers about the names of the server and others.
fn messages() -> Vec<Vec<u8>> {
    let names: [&[u8]; 4] = [
        b"\x04_smb\x04_tcp\x05local\x00",
        b"\x03LAB\x05local\x00",
        b"\x03LAB\x04_smb\x04_tcp\x05local\x00",
        b"\x09_services\x07_dns-sd\x04_udp\x05local\x00",
    ];
    let mut all = Vec::new();
    for name in names {
        for kind in [1, 12, 16, 28, 33, 255] {
            let question = [
                &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
                name,
                &[0, kind, 0, 1],
            ];
            all.push(question.concat());
        }
        let data = [0, 1, 0, 1, 0, 0, 0, 120, 0, 4, 10, 0, 0, 9];
        let answer = [&[0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0][..], name, &data];
        all.push(answer.concat());
        let probe = [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0][..], name, &data];
        all.push(probe.concat());
    }
    all
}

/// Nothing is sent but datagrams of the server's own from its port, and few for what was heard; it comes to rest.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let own: Vec<IpAddr> = vec![
        IpAddr::from([10, 0, 0, 1]),
        IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 1]),
    ];
    let mut now = Duration::from_secs(1);
    let mut responder = Responder::new("LAB", OWN, own.clone(), 7, now).expect("a name");
    let messages = messages();
    let mut sent = 0;
    for _ in 0..STEPS {
        now += Duration::from_millis(input.below(LONGEST_WAIT_MS) as u64);
        let mut payload = messages[input.below(messages.len())].clone();
        if input.below(3) > 0 {
            input.edit(&mut payload);
        }
        let port = [5353, 40_000][input.below(2)];
        let heard = Datagram {
            source_mac: [2; 6],
            source: SocketAddr::new(IpAddr::from([10, 0, 0, 2]), port),
            destination: SocketAddr::new(IpAddr::from([224, 0, 0, 251]), 5353),
            payload: &payload,
        };
        let mut frame = heard
            .frame([1, 0, 0x5e, 0, 0, 0xfb], 255)
            .map_or(Vec::new(), |it| it.header);
        if input.below(4) == 0 {
            input.edit(&mut frame);
        }
        responder.hear(&frame, now);
        for frame in responder.poll(now) {
            let datagram = Datagram::parse(&frame.header).expect("a datagram");
            assert!(own.contains(&datagram.source.ip()) && datagram.source.port() == 5353);
            assert!(datagram.payload.len() < 1400, "longer than a packet");
            sent += 1;
        }
    }
    // Each step answers one host, or all of them over two families.
    assert!(sent <= 4 * STEPS, "{sent} frames");
    for _ in 0..64 {
        let Some(due) = responder.deadline() else {
            return;
        };
        now = now.max(due);
        responder.poll(now);
    }
    panic!("it does not come to rest");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), (0..=255).collect(), vec![0; 200], vec![7; 300]]
}
