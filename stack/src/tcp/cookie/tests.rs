use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;

fn path(port: u16) -> Path {
    Path {
        local: SocketAddr::from(([10, 0, 0, 1], 445)),
        remote: SocketAddr::from(([10, 0, 0, 2], port)),
        remote_mac: [0; 6],
    }
}

fn syn(
    seq: u32,
    mss: Option<u16>,
    window_scale: Option<u8>,
    sack_permitted: bool,
) -> Received<'static> {
    Received {
        seq: Seq(seq),
        ack: None,
        syn: true,
        fin: false,
        rst: false,
        window: 1000,
        mss,
        window_scale,
        sack_permitted,
        sack: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

fn answer(seq: u32, cookie: Seq) -> Received<'static> {
    Received {
        ack: Some(cookie + 1),
        syn: false,
        ..syn(seq.wrapping_add(1), None, None, false)
    }
}

proptest! {
    #[test]
    fn a_cookie_round_trips(
        seq: u32,
        mss: Option<u16>,
        shift in proptest::option::of(0u8..15),
        sack: bool,
        at in 0u64..1_000_000,
        late in 0u64..64,
        other in 1u32..,
    ) {
        let isn = Isn::new([7; 32]);
        let at = Duration::from_secs(at);
        let cookie = make(&isn, &path(1), &syn(seq, mss, shift, sack), 536, at);
        let (iss, back) = open(&isn, &path(1), &answer(seq, cookie), at + Duration::from_secs(late)).unwrap();
        prop_assert_eq!((iss, back.seq, back.sack_permitted), (cookie, Seq(seq), sack));
        prop_assert!(back.mss.unwrap() <= mss.unwrap_or(536).max(536));
        prop_assert_eq!(back.window_scale.is_some(), shift.is_some());
        prop_assert!(back.window_scale <= shift);
        // not in time, for another socket, another SYN, another instance
        prop_assert!(open(&isn, &path(1), &answer(seq, cookie), at + LIFE).is_none());
        prop_assert!(open(&isn, &path(2), &answer(seq, cookie), at).is_none());
        prop_assert!(open(&isn, &path(1), &answer(seq.wrapping_add(other), cookie), at).is_none());
        prop_assert!(open(&Isn::new([8; 32]), &path(1), &answer(seq, cookie), at).is_none());
        prop_assert!(open(&isn, &path(1), &answer(seq, cookie + 1), at).is_none());
    }
}
