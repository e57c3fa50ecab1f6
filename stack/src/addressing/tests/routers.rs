//! Tests router advertisements: addresses, default routers, lifetimes, and what is ignored.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscOptionRepr, NdiscPrefixInfoFlags,
    NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};

use super::*;

const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 0);

fn world() -> World {
    World::new(Sources {
        dhcp: false,
        router_advertisements: true,
    })
}

/// An advertisement; each field can be made wrong.
#[derive(Clone, Copy)]
struct Advert {
    source: Ipv6Addr,
    hop_limit: u8,
    router: u64,
    prefix: Ipv6Addr,
    bits: u8,
    flags: NdiscPrefixInfoFlags,
    valid: u64,
    preferred: u64,
    /// The length of the option, in units of eight bytes.
    units: u8,
    damage: bool,
}

const GOOD: Advert = Advert {
    source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2),
    hop_limit: 255,
    router: 1800,
    prefix: PREFIX,
    bits: 64,
    flags: NdiscPrefixInfoFlags::all(),
    valid: 86_400,
    preferred: 14_400,
    units: 4,
    damage: false,
};

fn all_nodes() -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
}

/// Puts an ICMPv6 message into a frame, with a correct checksum.
fn frame(source: Ipv6Addr, to: Ipv6Addr, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&source, &to);
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(ROUTER_MAC);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, hop_limit]);
    frame.extend(source.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

fn bytes(source: Ipv6Addr, message: NdiscRepr<'_>) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(message);
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(
        &source,
        &all_nodes(),
        &mut Icmpv6Packet::new_unchecked(&mut bytes[..]),
        &ChecksumCapabilities::default(),
    );
    bytes
}

impl Advert {
    fn frame(self) -> Vec<u8> {
        let prefix = NdiscPrefixInformation {
            prefix_len: self.bits,
            flags: self.flags,
            valid_lifetime: smoltcp::time::Duration::from_secs(self.valid),
            preferred_lifetime: smoltcp::time::Duration::from_secs(self.preferred),
            prefix: self.prefix,
        };
        let message = NdiscRepr::RouterAdvert {
            hop_limit: 64,
            flags: NdiscRouterFlags::empty(),
            router_lifetime: smoltcp::time::Duration::from_secs(self.router),
            reachable_time: smoltcp::time::Duration::ZERO,
            retrans_time: smoltcp::time::Duration::ZERO,
            lladdr: None,
            mtu: None,
            prefix_info: Some(prefix),
        };
        let option = NdiscOptionRepr::PrefixInformation(prefix).buffer_len();
        let mut message = bytes(self.source, message);
        let at = message.len() - option;
        message[at + 1] = self.units;
        let mut frame = frame(self.source, all_nodes(), self.hop_limit, message);
        if self.damage {
            *frame.last_mut().unwrap() ^= 1;
        }
        frame
    }
}

fn own() -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0x0000, 0x00ff, 0xfe00, 0x0010)
}

impl World {
    fn has(&self, address: Ipv6Addr) -> bool {
        self.client.addresses().contains(&(address.into(), 64))
    }

    /// Processes an advertisement, and waits until its address has been checked.
    fn advertise(&mut self, advert: Advert) {
        self.deliver(&advert.frame());
        self.poll();
        self.now += seconds(1);
        self.poll();
    }
}

#[test]
fn routers_are_solicited_three_times() {
    let mut world = world();
    let begun = world.now;
    for n in 0..3 {
        let frames = if n == 0 { world.poll() } else { world.next() };
        assert_eq!(world.now - begun, seconds(4 * n));
        let [frame] = &frames[..] else {
            panic!("{frames:?}")
        };
        // To all routers, from the link-local address: type 133.
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 2]);
        assert_eq!(frame[22..38], link_local_of(MAC).octets());
        assert_eq!((frame[21], frame[54]), (255, 133));
    }
    assert_eq!(world.client.next_deadline(), None);
    assert_eq!(world.client.addresses(), [(link_local_of(MAC).into(), 64)]);
}

#[test]
fn an_address_is_made_and_checked_before_it_is_used() {
    let mut world = world();
    world.poll();
    world.deliver(&GOOD.frame());
    assert!(!world.has(own()));
    let frames = world.poll();
    let [probe] = &frames[..] else {
        panic!("{frames:?}")
    };
    // A neighbour solicitation from the unspecified address.
    assert_eq!((probe[54], &probe[22..38]), (135, &[0; 16][..]));
    assert_eq!(probe[62..78], own().octets());
    assert_eq!(
        probe.len(),
        78,
        "RFC 4861, section 4.3: no Ethernet address"
    );
    world.now += seconds(1);
    assert!(
        world.poll().is_empty(),
        "the router has answered: it is solicited no more"
    );
    assert!(world.has(own()));
    assert_eq!(world.client.gateways(), [IpAddr::from(GOOD.source)]);
    let expires_at = BEGIN + seconds(86_400);
    let advertised = Advertised {
        prefix: PREFIX,
        expires_at,
    };
    assert_eq!(world.records.last(), Some(&Record::Advertised(advertised)));
    assert_eq!(world.fold(), *world.client.acquired());
}

#[test]
fn an_address_that_another_host_has_is_not_used() {
    let advertisement = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: own(),
        lladdr: None,
    };
    let probe = NdiscRepr::NeighborSolicit {
        target_addr: own(),
        lladdr: None,
    };
    for (source, message) in [(own(), advertisement), (Ipv6Addr::UNSPECIFIED, probe)] {
        let mut world = world();
        world.poll();
        world.deliver(&GOOD.frame());
        world.poll();
        world.deliver(&frame(source, all_nodes(), 255, bytes(source, message)));
        world.now += seconds(1);
        world.poll();
        assert!(!world.has(own()));
    }
}

#[test]
fn what_is_advertised_ends_with_its_lifetime() {
    let mut world = world();
    world.advertise(GOOD);
    world.now = BEGIN + seconds(1800);
    world.poll();
    assert_eq!(world.client.gateways(), Vec::<IpAddr>::new());
    assert!(world.has(own()));
    assert_eq!(world.client.next_deadline(), Some(BEGIN + seconds(86_400)));
    world.crash(seconds(86_400));
    world.poll();
    assert!(!world.has(own()));
    assert_eq!(world.fold(), Acquired::default());
}

#[test]
fn a_router_that_says_so_is_used_no_more() {
    let mut world = world();
    world.advertise(GOOD);
    world.advertise(Advert { router: 0, ..GOOD });
    assert_eq!(world.client.gateways(), Vec::<IpAddr>::new());
    assert!(world.has(own()));
}

#[test]
fn a_lifetime_is_shortened_to_two_hours_at_the_least() {
    let valid = |valid| Advert {
        valid,
        preferred: 0,
        ..GOOD
    };
    let mut world = world();
    world.advertise(GOOD);
    let left = |world: &World| world.client.acquired().prefixes[0].expires_at - world.now;
    world.deliver(&valid(8000).frame());
    assert_eq!(left(&world), seconds(8000), "more than two hours");
    world.deliver(&valid(60).frame());
    assert_eq!(left(&world), seconds(7200));
    world.now += seconds(3600);
    world.deliver(&valid(0).frame());
    assert_eq!(left(&world), seconds(3600), "it is ignored");
    world.deliver(&valid(5000).frame());
    assert_eq!(left(&world), seconds(5000), "longer than what is left");
    world.deliver(&valid(0xffff_ffff).frame());
    assert_eq!(world.client.acquired().prefixes[0].expires_at, FOREVER);
}

#[test]
fn invalid_advertisements_are_ignored() {
    let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let bad = [
        (
            "no router",
            Advert {
                source: global,
                ..GOOD
            },
        ),
        (
            "forwarded",
            Advert {
                hop_limit: 254,
                ..GOOD
            },
        ),
        (
            "damaged",
            Advert {
                damage: true,
                ..GOOD
            },
        ),
        ("an empty option", Advert { units: 0, ..GOOD }),
        ("a long option", Advert { units: 5, ..GOOD }),
        ("a short option", Advert { units: 1, ..GOOD }),
    ];
    for (why, advert) in bad {
        let mut world = world();
        world.advertise(advert);
        assert_eq!(world.records, [], "{why}");
    }
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let no_address = [
        (
            "not autonomous",
            Advert {
                flags: NdiscPrefixInfoFlags::ON_LINK,
                ..GOOD
            },
        ),
        ("another length", Advert { bits: 63, ..GOOD }),
        (
            "link-local",
            Advert {
                prefix: link_local,
                ..GOOD
            },
        ),
        (
            "a group",
            Advert {
                prefix: all_nodes(),
                ..GOOD
            },
        ),
        (
            "preferred for longer",
            Advert {
                preferred: 86_401,
                ..GOOD
            },
        ),
        (
            "no lifetime",
            Advert {
                valid: 0,
                preferred: 0,
                ..GOOD
            },
        ),
    ];
    for (why, advert) in no_address {
        let mut world = world();
        world.advertise(advert);
        assert_eq!(world.client.acquired().prefixes, [], "{why}");
        assert_eq!(world.client.acquired().routers.len(), 1, "{why}");
    }
}

#[test]
fn a_flood_of_routers_and_prefixes_is_bounded() {
    let mut world = world();
    let mut probes = 0;
    for n in 1..1000_u16 {
        let prefix = Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 0);
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n);
        world.deliver(
            &Advert {
                prefix,
                source,
                ..GOOD
            }
            .frame(),
        );
        world.now += Duration::from_millis(20);
        let frames = world.poll();
        probes += frames.iter().filter(|frame| frame[54] == 135).count();
    }
    assert_eq!(world.client.acquired().routers.len(), 3);
    assert_eq!(world.client.acquired().prefixes.len(), 3);
    assert_eq!(probes, 3);
    // From one router, ten a second.
    let before = world.records.len();
    world.now = seconds(world.now.as_secs() + 1);
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let prefix = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0);
    (0..1000).for_each(|_| {
        world.deliver(
            &Advert {
                prefix,
                source,
                ..GOOD
            }
            .frame(),
        );
    });
    assert!(world.records.len() - before <= 20);
}
