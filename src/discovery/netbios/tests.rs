use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x20];

fn responder() -> Responder {
    let addresses = [("10.77.0.1", 24), ("fd77::1", 64)].map(|(address, prefix_bits)| Cidr {
        address: address.parse().unwrap(),
        prefix_bits,
    });
    Responder::new("Lab", MAC, &addresses, 4711, Duration::ZERO)
}

/// A node that owns its names, and the frames that it has sent to claim them, with the times.
fn settled() -> (Responder, Vec<(Duration, TxFrame)>) {
    let mut responder = responder();
    let mut sent = Vec::new();
    while let Some(due) = responder.deadline() {
        sent.extend(responder.poll(due).into_iter().map(|frame| (due, frame)));
    }
    (responder, sent)
}

fn padded(name: &str, suffix: u8) -> NetbiosName {
    let mut padded = [b' '; 16];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    padded[15] = suffix;
    padded
}

fn question(name: &NetbiosName, flags: u16, kind: u16) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [99, flags, 1, 0, 0, 0] {
        message.extend_from_slice(&u16::to_be_bytes(word));
    }
    message.extend_from_slice(&encode(name));
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&IN.to_be_bytes());
    message
}

fn answer_to(responder: &mut Responder, to: &str, payload: &[u8]) -> Vec<u8> {
    let datagram = Datagram {
        source_mac: OTHER_MAC,
        source: "10.77.0.2:1137".parse().unwrap(),
        destination: SocketAddr::new(to.parse().unwrap(), PORT),
        payload,
    };
    responder.receive(&datagram.frame(MAC, 64).unwrap().header);
    let frames = responder.poll(Duration::from_secs(100));
    assert!(frames.len() < 2);
    let Some(frame) = frames.first() else {
        return Vec::new();
    };
    let answer = Datagram::parse(&frame.header).unwrap();
    assert_eq!(answer.source, "10.77.0.1:137".parse().unwrap());
    assert_eq!(answer.destination, "10.77.0.2:1137".parse().unwrap());
    assert_eq!(frame.header[..6], OTHER_MAC);
    answer.payload.to_vec()
}

#[test]
fn a_name_is_written_as_the_rfc_has_it() {
    // RFC 1001, section 14.1: "The NetBIOS name".
    let written = encode(b"FRED            ");
    assert_eq!(written, b"\x20EGFCEFEECACACACACACACACACACACACA\0");
    assert_eq!(
        name(&written),
        Ok((&[][..], (*b"FRED            ", written.clone())))
    );
    let scoped = [&written[..33], b"\x07NETBIOS\x03COM\0", b"rest"].concat();
    let (rest, (read, with_scope)) = name(&scoped).unwrap();
    assert_eq!((rest, read), (&b"rest"[..], *b"FRED            "));
    assert_eq!(with_scope, scoped[..scoped.len() - 4]);
}

#[test]
fn names_are_asked_for_three_times_and_then_demanded() {
    let (_, sent) = settled();
    let mut flags = Vec::new();
    for (_, frame) in &sent {
        let datagram = Datagram::parse(&frame.header).unwrap();
        assert_eq!(datagram.destination, "10.77.0.255:137".parse().unwrap());
        assert_eq!(frame.header[..6], BROADCAST_MAC);
        let (rest, read) = message(datagram.payload).unwrap();
        assert!(!rest.is_empty());
        assert_eq!(read.claim, Some((0, Ipv4Addr::new(10, 77, 0, 1))));
        assert!([padded("LAB", 0), padded("LAB", 0x20)].contains(&read.name));
        flags.push(read.flags);
    }
    assert_eq!(flags, [vec![0x2910; 6], vec![0x2810; 2]].concat());
    let times: Vec<u128> = sent.iter().map(|(due, _)| due.as_millis()).collect();
    assert_eq!(times, [0, 0, 250, 250, 500, 500, 750, 750]);
}

#[test]
fn a_question_for_the_name_is_answered_with_the_address() {
    let (mut responder, _) = settled();
    let asked = question(&padded("LAB", 0x20), 0x0110, NB);
    for to in ["10.77.0.255", "255.255.255.255", "10.77.0.1"] {
        let answer = answer_to(&mut responder, to, &asked);
        assert_eq!(answer[..12], [0, 99, 0x85, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..46], encode(&padded("LAB", 0x20)));
        assert_eq!(answer[46..50], [0, 0x20, 0, 1]);
        assert_eq!(answer[54..], [0, 6, 0, 0, 10, 77, 0, 1]);
    }
    for (name, to) in [
        ("OTHER", "10.77.0.255"),
        ("LAB", "10.77.0.9"),
        ("LAB", "10.78.0.255"),
    ] {
        let asked = question(&padded(name, 0x20), 0x0110, NB);
        assert!(
            answer_to(&mut responder, to, &asked).is_empty(),
            "{name} at {to}"
        );
    }
    let group = question(&padded("LAB", 0x1c), 0x0110, NB);
    assert!(answer_to(&mut responder, "10.77.0.255", &group).is_empty());
    let mut early = self::responder();
    early.poll(Duration::ZERO);
    early.receive(&[]);
    assert!(
        early
            .query(&message(&asked).unwrap().1, Ipv4Addr::LOCALHOST)
            .is_none(),
        "not its own yet"
    );
}

#[test]
fn a_node_status_request_is_answered_with_names_and_ethernet_address() {
    let (mut responder, _) = settled();
    let mut all = [0; 16];
    all[0] = b'*';
    let answer = answer_to(&mut responder, "10.77.0.1", &question(&all, 0, NBSTAT));
    let data = &answer[12 + 34 + 10..];
    assert_eq!(data[0], 2);
    assert_eq!(data[1..19], [&padded("LAB", 0)[..], &[4, 0]].concat());
    assert_eq!(data[19..37], [&padded("LAB", 0x20)[..], &[4, 0]].concat());
    assert_eq!(data[37..43], MAC);
    assert_eq!(data.len(), 1 + 2 * 18 + 46);
}

/// A registration of this name by another node: this server's message with another address.
fn claim_of_another(address: [u8; 4]) -> Vec<u8> {
    let mut other = responder();
    let frame = other.poll(Duration::ZERO).remove(1);
    let mut payload = Datagram::parse(&frame.header).unwrap().payload.to_vec();
    let end = payload.len();
    payload[end - 4..].copy_from_slice(&address);
    payload
}

#[test]
fn a_name_is_defended_and_one_that_is_taken_is_not_used() {
    let (mut responder, _) = settled();
    let claim = claim_of_another([10, 77, 0, 2]);
    let refusal = answer_to(&mut responder, "10.77.0.255", &claim);
    let (_, read) = message(&refusal).unwrap();
    assert_eq!(read.flags, 0xad86, "negative, by its owner");
    assert_eq!(read.name, padded("LAB", 0x20));
    let mut group = claim.clone();
    let end = group.len();
    group[end - 6] = 0x80;
    assert!(answer_to(&mut responder, "10.77.0.255", &group).is_empty());

    let mut second = self::responder();
    second.poll(Duration::ZERO);
    let mut stranger = refusal.clone();
    stranger[1] ^= 1;
    second.process_refusal(&message(&stranger).unwrap().1);
    assert!(second.deadline().is_some(), "of another transaction");
    second.process_refusal(&message(&refusal).unwrap().1);
    assert_eq!(second.deadline(), None);
    assert!(
        answer_to(
            &mut second,
            "10.77.0.255",
            &question(&padded("LAB", 0x20), 0x0110, NB)
        )
        .is_empty()
    );
}

#[test]
fn at_the_end_the_names_are_given_back() {
    let (mut responder, _) = settled();
    let frames = responder.goodbye();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        let datagram = Datagram::parse(&frame.header).unwrap();
        assert_eq!(message(datagram.payload).unwrap().1.flags, 0x3010);
    }
    assert!(responder.goodbye().is_empty());
}

#[test]
fn hostile_messages_do_no_harm() {
    let (mut responder, _) = settled();
    for good in [
        question(&padded("LAB", 0x20), 0x0110, NB),
        claim_of_another([1, 2, 3, 4]),
    ] {
        for end in 0..good.len() {
            answer_to(&mut responder, "10.77.0.255", &good[..end]);
        }
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let mut bad = good.clone();
            let at = (random >> 33) as usize % bad.len();
            bad[at] = (random >> 20) as u8;
            answer_to(&mut responder, "10.77.0.255", &bad);
        }
    }
}
