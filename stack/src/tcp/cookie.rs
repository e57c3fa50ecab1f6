//! SYN cookies (RFC 4987, section 3.6). During a flood of SYNs no state is kept for a SYN: its contents are encoded in
//! the initial sequence number of our SYN-ACK and return with the client's acknowledgement.
//!
//! A crash in between costs nothing: the cookie is checked with the instance's secret, which is the same after a
//! recovery. So no record is needed before such a SYN-ACK leaves, unlike for a connection in SYN-RECEIVED.

use std::time::Duration;

use super::isn::Isn;
use super::segment::Received;
use crate::{Path, Seq};

/// A cookie is valid in the period in which it was made, and in the next.
const PERIOD_SECONDS: u64 = 64;
/// How long after its creation a cookie is accepted.
pub(crate) const LIFE: Duration = Duration::from_secs(2 * PERIOD_SECONDS);
/// Segment sizes that a cookie can encode (the defaults of RFC 9293 and of IPv6, Ethernet's, jumbo frames'). It encodes
/// the largest that the client accepts.
const SIZES: [u16; 4] = [536, 1220, 1440, 8940];
/// Window scale shifts that a cookie can encode; a shift smaller than the client's only understates its window. Linux
/// uses 7, Windows 8, macOS 6.
const SHIFTS: [Option<u8>; 8] = [
    None,
    Some(0),
    Some(2),
    Some(4),
    Some(6),
    Some(7),
    Some(8),
    Some(10),
];
/// Bits of a cookie that hold sizes, shifts, SACK and period; the bits above are the proof.
const CONTENT_BITS: u32 = 7;

/// Returns the initial sequence number that answers `syn`. The same SYN always has the same answer; a SYN with another
/// sequence number has another.
pub(crate) fn make(
    isn: &Isn,
    path: &Path,
    syn: &Received<'_>,
    default_mss: u16,
    now: Duration,
) -> Seq {
    let mss = syn.mss.unwrap_or(default_mss);
    let size = SIZES.iter().rposition(|size| *size <= mss).unwrap_or(0);
    let shift = SHIFTS.iter().rposition(|shift| *shift <= syn.window_scale);
    let period = now.as_secs() / PERIOD_SECONDS;
    let content = size as u32
        | (shift.unwrap_or(0) as u32) << 2
        | u32::from(syn.sack_permitted) << 5
        | (period as u32 & 1) << 6;
    Seq(content | isn.proof(path, syn.seq, period, content) << CONTENT_BITS)
}

/// Decodes the SYN from an acknowledgement of our cookie; `None` if it is no cookie of ours, or too old.
pub(crate) fn open(
    isn: &Isn,
    path: &Path,
    ack: &Received<'_>,
    now: Duration,
) -> Option<(Seq, Received<'static>)> {
    let cookie = ack.ack? - 1;
    let irs = ack.seq - 1;
    let content = cookie.0 & ((1 << CONTENT_BITS) - 1);
    let current = now.as_secs() / PERIOD_SECONDS;
    let period = match (content >> 6 ^ current as u32) & 1 {
        0 => current,
        _ => current.checked_sub(1)?,
    };
    if isn.proof(path, irs, period, content) << CONTENT_BITS | content != cookie.0 {
        return None;
    }
    let syn = Received {
        seq: irs,
        ack: None,
        syn: true,
        fin: false,
        rst: false,
        window: ack.window,
        mss: SIZES.get(content as usize & 3).copied(),
        window_scale: SHIFTS.get(content as usize >> 2 & 7).copied().flatten(),
        sack_permitted: content >> 5 & 1 != 0,
        sack: [None; 3],
        // RFC 7323, section 3.2: a peer that agreed to timestamps sends them in every segment.
        timestamp: ack.timestamp,
        payload: &[],
    };
    Some((cookie, syn))
}

#[cfg(test)]
mod tests;
