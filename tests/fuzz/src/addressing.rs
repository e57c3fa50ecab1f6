//! Sends DHCP messages, router advertisements and ARP messages of hostile hosts on the link to the client that acquires
//! addresses.

use crate::input::Input;
use outlast_stack::addressing::{Acquired, Client, Context, Record, Sources};
use outlast_stack::{Datagram, MAX_ADDRESSES};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 1];
const STEPS: usize = 24;
/// Real time at the beginning.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);
const SOURCES: Sources = Sources {
    dhcp: true,
    router_advertisements: true,
};

/// Makes a server's message (RFC 2131, section 2) for this transaction.
fn dhcp(input: &mut Input<'_>, xid: u32) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[2, 1, 6, 0]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[16..20].copy_from_slice(&[10, 0, 0, input.pick(&[77, 78, 0, 255])]);
    message[28..34].copy_from_slice(&OWN);
    message[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message.extend([53, 1, input.pick(&[2, 5, 6])]);
    message.extend([54, 4]);
    message.extend(SERVER);
    message.extend([1, 4, 255, 255, 255, 0, 3, 4]);
    message.extend(SERVER);
    for option in [51, 58, 59] {
        let seconds = input.pick(&[600, 60, 1, u32::MAX, 0]);
        message.extend([option, 4]);
        message.extend(seconds.to_be_bytes());
    }
    message.push(255);
    if input.below(3) == 0 {
        input.edit(&mut message);
    }
    let datagram = Datagram {
        source_mac: OTHER,
        source: SocketAddr::new(SERVER.into(), 67),
        destination: SocketAddr::new(IpAddr::from([255; 4]), 68),
        payload: &message,
    };
    let frame = datagram.frame([0xff; 6], 64);
    frame.map_or(Vec::new(), |frame| frame.header)
}

/// Makes a router advertisement (RFC 4861, section 4.2) with two prefixes, and a correct checksum.
fn advertisement(input: &mut Input<'_>) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(input.pick(&[1800_u16, 0, 1, 9000]).to_be_bytes());
    message.extend([0; 8]);
    for _ in 0..2 {
        let valid = input.pick(&[86_400, 0, 7200, u32::MAX, 30]);
        message.extend([3, 4, 64, 0xc0]);
        message.extend(valid.to_be_bytes());
        message.extend(input.pick(&[0, valid, 1]).to_be_bytes());
        message.extend([0; 4]);
        message.extend([0xfd, 0, 0, 0, 0, 0, 0, input.byte() & 7]);
        message.extend([0; 8]);
    }
    if input.below(3) == 0 {
        input.edit(&mut message);
    }
    let source = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        input.byte() & 7,
    ];
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
    }
    let sum = checksum(&[
        &source,
        &group,
        &(message.len() as u32).to_be_bytes(),
        &[0, 0, 0, 58],
        &message,
    ]);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(OTHER);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source);
    frame.extend(group);
    frame.extend(message);
    frame
}

/// The Internet checksum (RFC 1071); all parts except the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let words =
        words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Makes an ARP request of a host that has an address, or probes for it.
fn arp(input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(OTHER);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(OTHER);
    frame.extend(input.pick(&[[10, 0, 0, 77], [0; 4]]));
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 77]);
    frame
}

struct World {
    client: Client,
    records: Vec<Record>,
    now: Duration,
    xid: u32,
    sent: usize,
}

impl World {
    fn with<R>(&mut self, f: impl FnOnce(&mut Client, &mut Context<'_>) -> R) -> R {
        let records = &mut self.records;
        let mut random = || 7;
        let mut cx = Context {
            now: self.now,
            random: &mut random,
            journal: &mut |record| records.push(*record),
        };
        f(&mut self.client, &mut cx)
    }

    fn fold(&self) -> Acquired {
        let mut acquired = Acquired::default();
        self.records
            .iter()
            .for_each(|record| acquired.apply(record));
        acquired
    }

    fn poll(&mut self) {
        let mut out = Vec::new();
        self.with(|client, cx| client.poll(cx, &mut out));
        self.sent += out.len();
        for frame in out {
            if let Some(datagram) = Datagram::parse(&frame.header) {
                assert_eq!(
                    (datagram.source.port(), datagram.destination.port()),
                    (68, 67)
                );
                let xid = datagram.payload.get(4..8).and_then(|xid| xid.first_chunk());
                self.xid = xid.map_or(0, |xid| u32::from_be_bytes(*xid));
            }
        }
        assert_eq!(self.fold(), *self.client.acquired());
        assert!(self.client.addresses().len() <= MAX_ADDRESSES);
        assert!(self.client.gateways().len() <= 2);
        let deadline = self.client.next_deadline();
        assert!(
            deadline.is_none_or(|at| at > self.now),
            "it is not idle after a poll"
        );
    }
}

/// Checks that the state is the fold of its records, that it is bounded, and that the client becomes idle.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World {
        client: Client::new(SOURCES, OWN, Acquired::default()),
        records: Vec::new(),
        now: BEGIN,
        xid: 0,
        sent: 0,
    };
    world.poll();
    for _ in 0..STEPS {
        let mut frame = match input.below(4) {
            0 => arp(&mut input),
            1 => advertisement(&mut input),
            _ => dhcp(&mut input, world.xid),
        };
        if input.below(8) == 0 {
            input.edit(&mut frame);
        }
        world.with(|client, cx| client.ingest(&frame, cx));
        world.poll();
        match input.below(8) {
            0 => world.client = Client::new(SOURCES, OWN, world.fold()),
            1..=3 => world.now += Duration::from_millis(input.number().min(1 << 34)),
            _ => {
                world.now = world
                    .client
                    .next_deadline()
                    .unwrap_or(world.now)
                    .max(world.now)
            }
        }
        world.poll();
    }
    // A solicitation, a probe for each prefix, and one message of DHCP in each poll.
    assert!(world.sent <= 10 * STEPS, "{} frames", world.sent);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), (0..=255).collect(), vec![2; 200], vec![7; 300]]
}
