use std::net::SocketAddr;

use super::*;
use crate::tcp::segment::Header;

//= rfc9293 MUST-15
//= rfc8200 8.3a
#[test]
fn a_peer_that_names_no_mss_gets_the_default() {
    let config = Config::default();
    let bytes = Header::new(50_000, 445, Seq(1)).emit();
    let syn = Received::parse(&bytes).unwrap();
    for (local, remote, default, ours) in [
        ("10.0.0.1:445", "10.0.0.2:50000", 536, 1460),
        ("[fd77::1]:445", "[fd77::2]:50000", 1220, 1440),
    ] {
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let path = Path {
            local: socket(local),
            remote: socket(remote),
            remote_mac: [2, 0, 0, 0, 0, 1],
        };
        let isn = Isn::new([0; 32]);
        for (mss, expected) in [(None, default), (Some(9000), 9000)] {
            let syn = Received { mss, ..syn };
            let opened = half_open(&syn, Seq(1), path, &isn, &config, 60_000);
            assert_eq!(opened.options.peer_mss, expected);
        }
        assert_eq!(largest_mss(&path, 1500), ours);
    }
}
