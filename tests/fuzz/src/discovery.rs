//! Sends multicast DNS and NetBIOS name service messages that another host on the link may send.

use crate::input::Input;
use outlast::config::Cidr;
use outlast::discovery::{mdns, netbios};
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

/// Questions and claims of the NetBIOS name service.
fn netbios_messages() -> Vec<Vec<u8>> {
    // LAB, as a file server's name; and the name that stands for any.
    let names: [&[u8]; 2] = [
        b"\x20EMEBECCACACACACACACACACACACACACA\x00",
        b"\x20CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\x00",
    ];
    let claim = [
        0xc0, 0x0c, 0, 0x20, 0, 1, 0, 4, 0, 0, 0, 6, 0, 0, 10, 0, 0, 2,
    ];
    let mut all = Vec::new();
    for name in names {
        for (flags, kind) in [(0x01, 0x20), (0x00, 0x21)] {
            let question = [
                &[0, 1, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
                name,
                &[0, kind, 0, 1],
            ];
            all.push(question.concat());
        }
        for flags in [0x29, 0x28, 0xad] {
            let head = [0, 7, flags, 0x16, 0, 1, 0, 0, 0, 0, 0, 1];
            all.push([&head[..], name, &[0, 0x20, 0, 1], &claim].concat());
        }
    }
    all
}

/// Makes a frame as another host would send it to the group or the subnet, with any damage.
fn frame(
    input: &mut Input<'_>,
    messages: &[Vec<u8>],
    source: u16,
    to: [u8; 4],
    port: u16,
) -> Vec<u8> {
    let mut payload = messages[input.below(messages.len())].clone();
    if input.below(3) > 0 {
        input.edit(&mut payload);
    }
    let heard = Datagram {
        source_mac: [2; 6],
        source: SocketAddr::new(IpAddr::from([10, 0, 0, 2]), source),
        destination: SocketAddr::new(IpAddr::from(to), port),
        payload: &payload,
    };
    let frame = heard.frame([0xff; 6], 255);
    let mut frame = frame.map_or(Vec::new(), |frame| frame.header);
    if input.below(4) == 0 {
        input.edit(&mut frame);
    }
    frame
}

/// Checks that only the server's own datagrams are sent, from their ports, few for each received one, and that the
/// responders become idle.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let addresses = [
        (IpAddr::from([10, 0, 0, 1]), 24),
        (IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 1]), 64),
    ];
    let addresses = addresses.map(|(address, prefix_bits)| Cidr {
        address,
        prefix_bits,
    });
    let own: Vec<IpAddr> = addresses.iter().map(|own| own.address).collect();
    let mut now = Duration::from_secs(1);
    let mut mdns = mdns::Responder::new("LAB", OWN, own.clone(), 7, now).expect("a name");
    let mut netbios = netbios::Responder::new("LAB", OWN, &addresses, 7, now);
    let (of_mdns, of_netbios) = (messages(), netbios_messages());
    let mut sent = 0;
    for _ in 0..STEPS {
        now += Duration::from_millis(input.below(LONGEST_WAIT_MS) as u64);
        let frame = match input.below(2) {
            0 => {
                let source = input.pick(&[5353, 40_000]);
                frame(&mut input, &of_mdns, source, [224, 0, 0, 251], 5353)
            }
            _ => {
                let to = input.pick(&[[10, 0, 0, 255], [10, 0, 0, 1]]);
                frame(&mut input, &of_netbios, 137, to, 137)
            }
        };
        mdns.receive(&frame, now);
        netbios.receive(&frame);
        for frame in mdns.poll(now).into_iter().chain(netbios.poll(now)) {
            let datagram = Datagram::parse(&frame.header).expect("a datagram");
            assert!(own.contains(&datagram.source.ip()));
            assert!([5353, 137].contains(&datagram.source.port()));
            assert!(datagram.payload.len() < 1400, "longer than a packet");
            sent += 1;
        }
    }
    // Each step answers one host, or all of them over two families; names are claimed four times, two at once.
    assert!(sent <= 4 * STEPS + 8, "{sent} frames");
    for _ in 0..64 {
        let Some(due) = mdns.deadline().into_iter().chain(netbios.deadline()).min() else {
            return;
        };
        now = now.max(due);
        mdns.poll(now);
        netbios.poll(now);
    }
    panic!("it never becomes idle");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), (0..=255).collect(), vec![0; 200], vec![7; 300]]
}
