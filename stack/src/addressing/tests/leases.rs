//! Tests the DHCP client: each transition of RFC 2131, figure 5, and what it refuses.

use super::*;

#[test]
fn an_address_is_acquired_and_probed_before_it_is_used() {
    let mut world = World::dhcp();
    let discover = world.asked();
    assert_eq!(discover.kind, DhcpMessageType::Discover);
    assert_eq!(discover.to, (Ipv4Addr::BROADCAST, [0xff; 6]));
    world.now += seconds(3);
    assert!(world.deliver(&Answer::offer(discover.xid).frame()));
    let request = world.asked();
    assert_eq!(request.kind, DhcpMessageType::Request);
    assert_eq!(request.xid, discover.xid);
    assert_eq!(request.secs, discover.secs, "RFC 2131, section 4.4.1");
    assert_eq!(
        (request.requested, request.server),
        (Some(ADDRESS), Some(SERVER))
    );
    assert_eq!(request.client_ip, Ipv4Addr::UNSPECIFIED);
    let requested = world.now;
    world.now += seconds(2);
    world.deliver(&Answer::ack(request.xid).lease(800).frame());
    world.probe();
    let lease = world.client.acquired().lease.unwrap();
    assert_eq!((lease.address, lease.prefix_bits), (ADDRESS, 24));
    assert_eq!(lease.router, Some(SERVER));
    assert_eq!(lease.server_mac, SERVER_MAC);
    // It counts from the request (RFC 2131, section 4.4.1).
    assert_eq!(lease.renew_at, requested + seconds(400));
    assert_eq!(lease.rebind_at, requested + seconds(700));
    assert_eq!(lease.expires_at, requested + seconds(800));
    assert_eq!(world.client.addresses(), [(ADDRESS.into(), 24)]);
    assert_eq!(world.client.gateways(), [IpAddr::from(SERVER)]);
    assert_eq!(world.records, [Record::Leased(lease)]);
}

#[test]
fn messages_are_repeated_with_doubled_delays() {
    let mut world = World::dhcp();
    world.asked();
    for base in [4, 8, 16, 32, 64, 64] {
        let begun = world.now;
        world.asked();
        let waited = world.now - begun;
        let range = seconds(base - 1)..=seconds(base + 1);
        assert!(range.contains(&waited), "{waited:?} {base}");
    }
}

#[test]
fn an_offer_without_an_acknowledgement_is_given_up() {
    let mut world = World::dhcp();
    let discover = world.asked();
    world.deliver(&Answer::offer(discover.xid).frame());
    for _ in 0..4 {
        assert_eq!(world.asked().kind, DhcpMessageType::Request);
    }
    assert_eq!(world.asked().kind, DhcpMessageType::Discover);
}

#[test]
fn an_acknowledgement_of_another_address_is_ignored() {
    let mut world = World::dhcp();
    let discover = world.asked();
    world.deliver(&Answer::offer(discover.xid).frame());
    let request = world.asked();
    let address = Ipv4Addr::new(10, 0, 0, 78);
    let answer = Answer {
        address,
        ..Answer::ack(request.xid)
    };
    world.deliver(&answer.frame());
    assert_eq!(world.asked().kind, DhcpMessageType::Request);
    assert_eq!(world.records, []);
}

#[test]
fn a_refused_request_begins_again_after_a_pause() {
    let mut world = World::dhcp();
    let discover = world.asked();
    world.deliver(&Answer::offer(discover.xid).frame());
    let request = world.asked();
    world.deliver(&Answer::new(DhcpMessageType::Nak, request.xid).frame());
    assert_eq!(world.poll(), Vec::<Vec<u8>>::new());
    let begun = world.now;
    assert_eq!(world.asked().kind, DhcpMessageType::Discover);
    assert!(world.now - begun >= seconds(10));
}

#[test]
fn an_address_that_another_host_has_is_declined() {
    let other = [2, 0, 0, 0, 0, 0x99];
    let claims = [
        arp(ArpOperation::Reply, other, ADDRESS, Ipv4Addr::UNSPECIFIED),
        arp(ArpOperation::Request, other, Ipv4Addr::UNSPECIFIED, ADDRESS),
    ];
    for claim in claims {
        let mut world = World::dhcp();
        let discover = world.asked();
        world.deliver(&Answer::offer(discover.xid).frame());
        let request = world.asked();
        world.deliver(&Answer::ack(request.xid).frame());
        world.next();
        world.deliver(&claim);
        let declined = world.asked();
        assert_eq!(declined.kind, DhcpMessageType::Decline);
        assert_eq!(
            (declined.requested, declined.server),
            (Some(ADDRESS), Some(SERVER))
        );
        assert_eq!(world.records, []);
        assert_eq!(world.asked().kind, DhcpMessageType::Discover);
    }
}

#[test]
fn own_probes_and_other_addresses_are_no_conflict() {
    let mut world = World::dhcp();
    let discover = world.asked();
    world.deliver(&Answer::offer(discover.xid).frame());
    let request = world.asked();
    world.deliver(&Answer::ack(request.xid).frame());
    world.next();
    world.deliver(&arp(
        ArpOperation::Request,
        MAC,
        Ipv4Addr::UNSPECIFIED,
        ADDRESS,
    ));
    // Another host asks for the address, but does not claim it.
    world.deliver(&arp(ArpOperation::Request, SERVER_MAC, SERVER, ADDRESS));
    (0..3).for_each(|_| drop(world.next()));
    assert!(world.client.acquired().lease.is_some());
}

#[test]
fn a_lease_is_renewed_by_its_server() {
    let mut world = World::dhcp();
    let lease = world.acquire(800);
    let request = world.asked();
    assert_eq!(world.now, lease.renew_at);
    assert_eq!(request.kind, DhcpMessageType::Request);
    assert_eq!(request.to, (SERVER, SERVER_MAC));
    assert_eq!(request.client_ip, ADDRESS);
    // RFC 2131, section 4.3.2: neither is sent in RENEWING.
    assert_eq!((request.requested, request.server), (None, None));
    world.deliver(&Answer::ack(request.xid).lease(800).frame());
    let renewed = world.client.acquired().lease.unwrap();
    assert_eq!(renewed.expires_at, world.now + seconds(800));
    assert_eq!(world.client.next_deadline(), Some(renewed.renew_at));
}

#[test]
fn without_an_answer_any_server_is_asked_and_then_the_lease_ends() {
    let mut world = World::dhcp();
    let lease = world.acquire(800);
    let mut requests = Vec::new();
    while world.client.acquired().lease.is_some() {
        for frame in world.next() {
            requests.extend(parse(&frame).map(|of| (world.now, of.kind, of.to.1)));
        }
    }
    assert_eq!(world.now, lease.expires_at);
    assert_eq!(world.records.last(), Some(&Record::LeaseEnded));
    assert_eq!(world.client.addresses(), []);
    let (last, requests) = requests.split_last().unwrap();
    assert_eq!(
        (last.0, last.1),
        (lease.expires_at, DhcpMessageType::Discover)
    );
    let (renewing, rebinding): (Vec<_>, Vec<_>) =
        requests.iter().partition(|(_, _, to)| *to == SERVER_MAC);
    // RFC 2131, section 4.4.5: half of the time that is left, at least a minute.
    let times = |of: &[&(Duration, DhcpMessageType, [u8; 6])]| {
        let times = of.iter().map(|(at, ..)| (*at - lease.renew_at).as_secs());
        times.collect::<Vec<_>>()
    };
    assert_eq!(times(&renewing), [0, 150, 225, 285]);
    assert_eq!(times(&rebinding), [300, 360]);
    assert!(world.records.len() == 2);
}

#[test]
fn a_refused_extension_ends_the_lease() {
    let mut world = World::dhcp();
    world.acquire(800);
    let request = world.asked();
    world.deliver(&Answer::new(DhcpMessageType::Nak, request.xid).frame());
    assert_eq!(world.client.acquired().lease, None);
    assert_eq!(world.asked().kind, DhcpMessageType::Discover);
}

#[test]
fn an_extension_with_another_address_replaces_the_lease() {
    let mut world = World::dhcp();
    world.acquire(800);
    let request = world.asked();
    let address = Ipv4Addr::new(10, 0, 0, 78);
    world.deliver(
        &Answer {
            address,
            ..Answer::ack(request.xid)
        }
        .frame(),
    );
    world.probe();
    assert_eq!(world.client.addresses(), [(address.into(), 24)]);
}

#[test]
fn the_server_chooses_the_times() {
    let mut world = World::dhcp();
    let discover = world.asked();
    world.deliver(&Answer::offer(discover.xid).frame());
    let request = world.asked();
    let requested = world.now;
    let times = (Some(100), Some(200));
    world.deliver(
        &Answer {
            times,
            ..Answer::ack(request.xid)
        }
        .frame(),
    );
    world.probe();
    let lease = world.client.acquired().lease.unwrap();
    assert_eq!(lease.renew_at, requested + seconds(100));
    assert_eq!(lease.rebind_at, requested + seconds(200));
}

#[test]
fn an_infinite_lease_does_not_end() {
    let mut world = World::dhcp();
    world.acquire(u32::MAX);
    assert_eq!(world.client.next_deadline(), None);
    world.now += seconds(1 << 40);
    assert!(world.poll().is_empty());
    assert_eq!(world.client.addresses().len(), 1);
}

#[test]
fn unusable_offers_are_ignored() {
    let [zero, group, network] = [[0, 0, 0, 0], [224, 0, 0, 9], [10, 0, 0, 0]].map(Ipv4Addr::from);
    let bad: [fn(&mut Answer, [Ipv4Addr; 3]); 8] = [
        |answer, _| answer.xid ^= 1,
        |answer, _| answer.mask = None,
        |answer, _| answer.mask = Some(Ipv4Addr::new(255, 0, 255, 0)),
        |answer, _| answer.lease = None,
        |answer, _| answer.lease = Some(0),
        |answer, [zero, ..]| answer.address = zero,
        |answer, [_, group, _]| answer.address = group,
        |answer, [.., network]| answer.address = network,
    ];
    for (index, change) in bad.iter().enumerate() {
        let mut world = World::dhcp();
        let discover = world.asked();
        let mut answer = Answer::offer(discover.xid);
        change(&mut answer, [zero, group, network]);
        world.deliver(&answer.frame());
        assert_eq!(world.asked().kind, DhcpMessageType::Discover, "{index}");
    }
}

#[test]
fn a_router_outside_the_subnet_is_not_used() {
    let mut world = World::dhcp();
    let discover = world.asked();
    world.deliver(&Answer::offer(discover.xid).frame());
    let request = world.asked();
    let router = Some(Ipv4Addr::new(10, 0, 1, 1));
    world.deliver(
        &Answer {
            router,
            ..Answer::ack(request.xid)
        }
        .frame(),
    );
    world.probe();
    assert_eq!(world.client.gateways(), Vec::<IpAddr>::new());
}

#[test]
fn the_lease_passes_during_an_outage() {
    let mut world = World::dhcp();
    let lease = world.acquire(800);
    world.crash(seconds(100));
    assert!(world.poll().is_empty(), "it is still valid");
    assert_eq!(world.client.addresses().len(), 1);
    world.crash(seconds(400));
    let request = world.asked();
    assert_eq!(
        (request.kind, request.to.0),
        (DhcpMessageType::Request, SERVER)
    );
    world.crash(seconds(220));
    assert_eq!(world.asked().to.0, Ipv4Addr::BROADCAST);
    world.crash(lease.expires_at - world.now);
    assert_eq!(world.asked().kind, DhcpMessageType::Discover);
    assert_eq!(world.client.addresses(), []);
}

#[test]
fn hostile_messages_do_no_harm() {
    let mut world = World::dhcp();
    let discover = world.asked();
    let good = Answer::offer(discover.xid).frame();
    let mut random = 7_u64;
    for _ in 0..20_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mut bad = good.clone();
        let at = 42 + (random >> 33) as usize % (bad.len() - 42);
        bad[at] = (random >> 20) as u8;
        world.deliver(&bad[..]);
        world.deliver(&good[..at]);
    }
    assert_eq!(world.records, []);
}
