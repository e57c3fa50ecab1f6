//! LISTEN: half-open connections and their limits (RFC 9293, section 3.10.7.2; RFC 4987).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::tcp::isn::Isn;
use crate::tcp::segment::Received;
use crate::{Checkpoint, Config, ConnId, Options, Path, State};

/// RFC 9293, section 3.7.1: of a peer that says nothing.
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;
/// RFC 7323, section 2.3.
const MAX_SHIFT: u8 = 14;

/// Connections in SYN-RECEIVED, oldest first, with their ports.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen(BTreeMap<ConnId, u16>);

impl HalfOpen {
    pub(crate) fn add(&mut self, conn: ConnId, port: u16) {
        self.0.insert(conn, port);
    }

    pub(crate) fn remove(&mut self, conn: ConnId) {
        self.0.remove(&conn);
    }

    /// The connection that gives way to a new one on `port`, if a limit is reached.
    pub(crate) fn displaced(&self, port: u16, config: &Config) -> Option<ConnId> {
        let mut on_port = self.0.iter().filter(|(_, other)| **other == port);
        if on_port.clone().count() >= config.max_half_open_per_port {
            return on_port.next().map(|(conn, _)| *conn);
        }
        if self.0.len() >= config.max_half_open {
            return self.oldest();
        }
        None
    }

    pub(crate) fn oldest(&self) -> Option<ConnId> {
        self.0.keys().next().copied()
    }
}

/// The connection a SYN asks for (RFC 9293, section 3.10.7.2, third).
pub(crate) fn half_open(
    syn: &Received<'_>,
    path: Path,
    isn: &mut Isn,
    config: &Config,
    now: Duration,
) -> Checkpoint {
    //= rfc9293 MUST-15
    let default_mss = if path.remote.is_ipv6() {
        DEFAULT_MSS_V6
    } else {
        DEFAULT_MSS_V4
    };
    //= rfc7323 2.3a
    let shift = (0..MAX_SHIFT)
        .find(|shift| 0xffff << shift >= config.receive_buffer)
        .unwrap_or(MAX_SHIFT);
    //= rfc7323 2.2a, 2.3d
    let window_scale = syn.window_scale.map(|peer| (peer.min(MAX_SHIFT), shift));
    let rcv_nxt = syn.seq + 1;
    let unit = 1 << window_scale.map_or(0, |(_, ours)| ours);
    let window = config.receive_buffer.min(0xffff) / unit * unit;
    let iss = isn.draw(&path, now);
    Checkpoint {
        path,
        state: State::SynReceived,
        options: Options {
            peer_mss: syn.mss.unwrap_or(default_mss),
            window_scale,
            //= rfc2018 3a
            sack: syn.sack_permitted,
            //= rfc7323 3.2a
            timestamps: syn.timestamp.is_some(),
        },
        ts_offset: isn.timestamp_offset(&path),
        iss,
        irs: syn.seq,
        snd_una: iss,
        snd_wnd: u32::from(syn.window),
        snd_wl1: syn.seq,
        snd_wl2: iss,
        rcv_nxt,
        rcv_edge: rcv_nxt + window,
        last_ack_sent: rcv_nxt,
        prior_ack_sent: rcv_nxt,
        ts_recent: syn.timestamp.map_or(0, |(tsval, _)| tsval),
        fin_queued: false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::Seq;
    use crate::tcp::segment::Header;

    //= rfc9293 MUST-15
    #[test]
    fn a_peer_that_names_no_mss_gets_the_default() {
        let config = Config::default();
        let bytes = Header::new(50_000, 445, Seq(1)).emit();
        let syn = Received::parse(&bytes).unwrap();
        for (local, remote, default) in [
            ("10.0.0.1:445", "10.0.0.2:50000", 536),
            ("[fd77::1]:445", "[fd77::2]:50000", 1220),
        ] {
            let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
            let path = Path {
                local: socket(local),
                remote: socket(remote),
                remote_mac: [2, 0, 0, 0, 0, 1],
            };
            let mut isn = Isn::new([0; 32]);
            for (mss, expected) in [(None, default), (Some(9000), 9000)] {
                let opened = half_open(
                    &Received { mss, ..syn },
                    path,
                    &mut isn,
                    &config,
                    Duration::ZERO,
                );
                assert_eq!(opened.options.peer_mss, expected);
            }
        }
    }
}
