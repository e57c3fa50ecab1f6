use simple_dns::TYPE;
use simple_dns::rdata::{A, RData};

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn responder() -> Responder {
    let addresses = ["10.77.0.1", "fd77::1"].map(|it| it.parse().unwrap());
    Responder::new("LAB", MAC, addresses.to_vec(), 7, ms(0)).unwrap()
}

/// A responder that has announced its names, and the time.
fn settled() -> (Responder, Duration) {
    let mut responder = responder();
    let mut now = ms(0);
    while let Some(due) = responder.deadline() {
        now = due;
        responder.poll(now);
        assert!(now < ms(10_000), "it does not settle");
    }
    (responder, now + ms(5000))
}

fn name(text: &str) -> Name<'static> {
    Name::new(text).unwrap().into_owned()
}

fn question(text: &str, kind: TYPE, is_unicast: bool) -> Packet<'static> {
    let mut query = Packet::new_query(0);
    let class = QCLASS::CLASS(CLASS::IN);
    query.questions.push(Question::new(
        name(text),
        QTYPE::TYPE(kind),
        class,
        is_unicast,
    ));
    query
}

/// A frame of another host to the multicast group.
fn frame(packet: &Packet<'_>, port: u16) -> Vec<u8> {
    let payload = packet.build_bytes_vec().unwrap();
    let datagram = Datagram {
        source_mac: OTHER_MAC,
        source: SocketAddr::new("10.77.0.2".parse().unwrap(), port),
        destination: SocketAddr::new(GROUP_V4.into(), PORT),
        payload: &payload,
    };
    datagram.frame(GROUP_MAC_V4, HOP_LIMIT).unwrap().header
}

/// The messages sent over IPv4, and their destinations.
fn sent(frames: &[TxFrame]) -> Vec<(SocketAddr, Packet<'static>)> {
    let read = |frame: &TxFrame| {
        let bytes: &'static [u8] = frame.header.clone().leak();
        let datagram = Datagram::parse(bytes).unwrap();
        assert_eq!(datagram.source_mac, MAC);
        (
            datagram.destination,
            Packet::parse(datagram.payload).unwrap(),
        )
    };
    let all = frames.iter().map(read);
    all.filter(|(to, _)| to.is_ipv4()).collect()
}

/// The only such message.
fn one(frames: &[TxFrame]) -> (SocketAddr, Packet<'static>) {
    let mut all = sent(frames);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Sends a query, and returns the frames sent until no deadline is left.
fn ask(
    responder: &mut Responder,
    packet: &Packet<'_>,
    port: u16,
    mut now: Duration,
) -> Vec<TxFrame> {
    responder.receive(&frame(packet, port), now);
    let mut frames = responder.poll(now);
    while let Some(due) = responder.deadline() {
        now = now.max(due);
        frames.extend(responder.poll(now));
    }
    frames
}

#[test]
fn names_are_asked_for_three_times_and_announced_twice() {
    let mut responder = responder();
    let mut messages = Vec::new();
    let mut times = Vec::new();
    while let Some(due) = responder.deadline() {
        let frames = responder.poll(due);
        // Each message is sent over both address families.
        assert!(frames.is_empty() || frames.len() == 2, "{}", frames.len());
        for message in sent(&frames) {
            messages.push(message);
            times.push(due);
        }
    }
    let group = SocketAddr::new(GROUP_V4.into(), PORT);
    assert!(messages.iter().all(|(to, _)| *to == group));
    let is_answer = |(_, packet): &(_, Packet<'_>)| packet.has_flags(PacketFlag::RESPONSE);
    let kinds: Vec<bool> = messages.iter().map(is_answer).collect();
    assert_eq!(kinds, [false, false, false, true, true]);
    assert!(times[0] < ms(250));
    assert_eq!(
        [times[1] - times[0], times[2] - times[1]],
        [PROBE_INTERVAL; 2]
    );
    assert_eq!(times[4] - times[3], ANNOUNCEMENT_INTERVAL);
    let probe = &messages[0].1;
    assert_eq!(probe.questions.len(), 2);
    assert!(
        probe
            .questions
            .iter()
            .all(|question| question.unicast_response)
    );
    assert_eq!(probe.name_servers.len(), 5, "SRV, two TXT, A and AAAA");
    let announced = &messages[3].1;
    assert_eq!(announced.answers.len(), 7);
    let flushed = announced.answers.iter().filter(|record| record.cache_flush);
    assert_eq!(flushed.count(), 5, "those that are the server's alone");
}

#[test]
fn a_browser_finds_the_service_its_host_and_its_address() {
    let (mut responder, now) = settled();
    for (asked, kind, found) in [
        ("_smb._tcp.local", TYPE::PTR, "LAB._smb._tcp.local"),
        ("lab._SMB._tcp.local", TYPE::SRV, "lab.local"),
        ("LAB.local", TYPE::A, "10.77.0.1"),
        ("_services._dns-sd._udp.local", TYPE::PTR, "_smb._tcp.local"),
    ] {
        let (to, reply) = one(&ask(
            &mut responder,
            &question(asked, kind, false),
            PORT,
            now,
        ));
        assert_eq!(to.ip(), IpAddr::from(GROUP_V4));
        assert_eq!(reply.answers.len(), 1, "{asked}");
        let heard = match &reply.answers[0].rdata {
            RData::PTR(name) => name.0.to_string(),
            RData::SRV(server) => {
                assert_eq!(server.port, 445);
                server.target.to_string()
            }
            RData::A(A { address }) => Ipv4Addr::from(*address).to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(heard, found);
    }
    let text = question("LAB._device-info._tcp.local", TYPE::TXT, false);
    let (_, reply) = one(&ask(&mut responder, &text, PORT, now));
    assert!(
        format!("{:?}", reply.answers).contains("RackMac"),
        "{reply:?}"
    );
    for (asked, kind) in [
        ("other.local", TYPE::A),
        ("lab.local", TYPE::PTR),
        ("_ipp._tcp.local", TYPE::PTR),
    ] {
        let frames = ask(&mut responder, &question(asked, kind, false), PORT, now);
        assert!(frames.is_empty(), "{asked}");
    }
}

#[test]
fn known_answers_and_recent_answers_are_not_repeated() {
    let (mut responder, now) = settled();
    let mut query = question("_smb._tcp.local", TYPE::PTR, false);
    let (_, reply) = one(&ask(&mut responder, &query, PORT, now));
    // A second query at once: the answer waits until a second has passed.
    responder.receive(&frame(&query, PORT), now + ms(150));
    assert!(responder.deadline().unwrap() >= now + PAUSE);
    let due = responder.deadline().unwrap();
    assert_eq!(sent(&responder.poll(due)).len(), 1);

    query.answers = reply.answers;
    let later = now + ms(60_000);
    assert!(
        ask(&mut responder, &query, PORT, later).is_empty(),
        "it is known"
    );
    query.answers[0].ttl = 100;
    assert_eq!(
        sent(&ask(&mut responder, &query, PORT, later)).len(),
        1,
        "but not for long"
    );
}

#[test]
fn a_unicast_question_is_answered_by_unicast() {
    let (mut responder, now) = settled();
    let alone = question("lab.local", TYPE::A, true);
    let (to, reply) = one(&ask(&mut responder, &alone, PORT, now));
    assert_eq!(to, "10.77.0.2:5353".parse().unwrap());
    assert!(reply.answers[0].cache_flush && reply.questions.is_empty());
    // A resolver without multicast DNS.
    let mut plain = question("lab.local", TYPE::A, false);
    plain.set_id(4711);
    let (to, reply) = one(&ask(&mut responder, &plain, 40_000, now));
    assert_eq!(to, "10.77.0.2:40000".parse().unwrap());
    assert_eq!((reply.id(), reply.questions.len()), (4711, 1));
    assert!(!reply.answers[0].cache_flush && reply.answers[0].ttl <= 10);
}

fn claim(name_of: &str, address: [u8; 4]) -> ResourceRecord<'static> {
    let data = RData::A(A::from(Ipv4Addr::from(address)));
    ResourceRecord::new(name(name_of), CLASS::IN, 120, data)
}

#[test]
fn a_name_that_another_host_has_is_not_used() {
    let (mut responder, now) = settled();
    let mut other = new_answer();
    other.answers.push(claim("lab.local", [10, 77, 0, 1]));
    responder.receive(&frame(&other, PORT), now);
    assert_eq!(responder.host(), "lab.local", "it says the same");
    other.answers[0] = claim("LAB.local", [10, 77, 0, 9]);
    responder.receive(&frame(&other, 40_000), now);
    assert_eq!(responder.host(), "lab.local", "it is no answer");
    responder.receive(&frame(&other, PORT), now);
    assert_eq!(responder.host(), "lab-2.local");
    let frames = ask(
        &mut responder,
        &question("lab.local", TYPE::A, false),
        PORT,
        now,
    );
    let is_about_it = |(_, packet): &(SocketAddr, Packet<'_>)| {
        let mut names = packet.questions.iter().map(|question| &question.qname);
        let mut records = packet.answers.iter().map(|record| &record.name);
        let it = name("lab.local");
        names.any(|name| *name == it) || records.any(|name| *name == it)
    };
    assert!(!sent(&frames).iter().any(is_about_it));
    let (_, reply) = one(&ask(
        &mut responder,
        &question("lab-2.local", TYPE::A, false),
        PORT,
        now + ms(9000),
    ));
    assert_eq!(reply.answers.len(), 1);
    // On a hostile link the attempts end.
    for number in 2..=NAMES_MAX + 1 {
        other.answers[0] = claim(&format!("lab-{number}.local"), [10, 77, 0, 9]);
        responder.receive(&frame(&other, PORT), now);
    }
    assert_eq!(responder.deadline(), None);
}

#[test]
fn of_two_simultaneous_requests_one_waits() {
    let mut responder = responder();
    let begun = responder.deadline().unwrap();
    responder.poll(begun);
    let mut probe = Packet::new_query(0);
    probe.questions.push(Question::new(
        name("lab.local"),
        QTYPE::ANY,
        QCLASS::CLASS(CLASS::IN),
        true,
    ));
    probe.name_servers.push(claim("lab.local", [10, 0, 0, 1]));
    responder.receive(&frame(&probe, PORT), begun);
    assert_eq!(
        responder.deadline(),
        Some(begun + PROBE_INTERVAL),
        "ours are later"
    );
    probe.name_servers[0] = claim("lab.local", [250, 0, 0, 1]);
    responder.receive(&frame(&probe, PORT), begun);
    assert_eq!(responder.deadline(), Some(begun + DEFERENCE));
    assert_eq!(responder.phase, Phase::Probing { asked: 0 });
}

#[test]
fn a_goodbye_withdraws_every_record() {
    let (mut responder, _) = settled();
    let (_, reply) = one(&responder.goodbye());
    assert_eq!(reply.answers.len(), 7);
    assert!(reply.answers.iter().all(|record| record.ttl == 0));
    assert!(responder.goodbye().is_empty());
}

#[test]
fn hostile_frames_do_no_harm() {
    let (mut responder, now) = settled();
    let good = frame(&question("_smb._tcp.local", TYPE::PTR, false), PORT);
    let mut random = 1_u64;
    for _ in 0..20_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mut bad = good.clone();
        let at = 42 + (random >> 33) as usize % (bad.len() - 42);
        bad[at] = (random >> 20) as u8;
        responder.receive(&bad, now);
    }
    for end in 0..good.len() {
        responder.receive(&good[..end], now);
    }
}
