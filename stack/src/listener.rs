//! LISTEN: the connection that a SYN asks for, and SYN-ACKs with cookies (RFC 9293, section 3.10.7.2; RFC 4987).

use std::time::Duration;

use crate::tcp::conn::largest_mss;
use crate::tcp::segment::{Header, Received};
use crate::tcp::{cookie, isn::Isn};
use crate::{Checkpoint, Config, Options, Path, Seq, State};

/// The send MSS of a peer without MSS option (RFC 9293, section 3.7.1).
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;
/// The largest window scale shift (RFC 7323, section 2.3).
const MAX_SHIFT: u8 = 14;

/// The segment size of a peer without MSS option.
//= rfc9293 MUST-15
pub(crate) fn default_mss(path: &Path) -> u16 {
    if path.remote.is_ipv6() {
        DEFAULT_MSS_V6
    } else {
        DEFAULT_MSS_V4
    }
}

/// Makes the connection that a SYN asks for (RFC 9293, section 3.10.7.2, third), with a window of this many bytes.
pub(crate) fn half_open(
    syn: &Received<'_>,
    iss: Seq,
    path: Path,
    isn: &Isn,
    config: &Config,
    window: usize,
) -> Checkpoint {
    let shift = window_shift(config);
    //= rfc7323 2.2a, 2.3d
    let window_scale = syn.window_scale.map(|peer| (peer.min(MAX_SHIFT), shift));
    let rcv_nxt = syn.seq + 1;
    let unit = 1 << window_scale.map_or(0, |(_, ours)| ours);
    let window = window.min(0xffff) / unit * unit;
    Checkpoint {
        path,
        state: State::SynReceived,
        options: Options {
            peer_mss: syn.mss.unwrap_or(default_mss(&path)),
            window_scale,
            //= rfc2018 4a
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

/// Makes the SYN-ACK that answers a flood: its sequence number is a cookie.
pub(crate) fn cookie_answer(
    syn: &Received<'_>,
    path: &Path,
    isn: &Isn,
    config: &Config,
    window: usize,
    now: Duration,
) -> Header {
    let iss = cookie::make(isn, path, syn, default_mss(path), now);
    let mut header = Header::new(path.local.port(), path.remote.port(), iss);
    header.syn = true;
    header.ack = Some(syn.seq + 1);
    header.window = window.min(0xffff) as u16;
    header.mss = Some(largest_mss(path, config.mtu).min(0xffff) as u16);
    header.window_scale = syn.window_scale.map(|_| window_shift(config));
    header.sack_permitted = syn.sack_permitted;
    header.timestamp = syn.timestamp.map(|(tsval, _)| {
        let clock = now.as_millis() as u32;
        (clock.wrapping_add(isn.timestamp_offset(path)), tsval)
    });
    header
}

/// The shift with which our largest window fits into its field.
fn window_shift(config: &Config) -> u8 {
    //= rfc7323 2.3a
    (0..MAX_SHIFT)
        .find(|shift| 0xffff << shift >= config.window_max())
        .unwrap_or(MAX_SHIFT)
}

#[cfg(test)]
mod tests;
