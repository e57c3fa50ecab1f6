//! Initial sequence numbers (RFC 6528) and timestamp offsets (RFC 7323, section 5.4), keyed by the instance's secret.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::{Path, Seq};

/// Draws initial sequence numbers; none twice for the same pair of sockets.
#[derive(Debug)]
pub(crate) struct Isn {
    keys: [(u64, u64); 2],
    /// Ticks of the 4-microsecond clock that have been used.
    used: u64,
}

impl Isn {
    pub(crate) fn new(secret: [u8; 32]) -> Isn {
        let word = |at: usize| {
            secret
                .iter()
                .skip(at)
                .take(8)
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        Isn {
            keys: [(word(0), word(8)), (word(16), word(24))],
            used: 0,
        }
    }

    /// RFC 6528, section 3: ISN = M + F(localip, localport, remoteip, remoteport, secretkey). No value of M is used
    /// twice, not even within one tick; this holds across an outage, since service time continues.
    //= rfc9293 MUST-8, MUST-9, SHLD-1
    //= rfc6528 3a, 3b, 3c
    pub(crate) fn draw(&mut self, path: &Path, now: Duration) -> Seq {
        let clock = now.as_micros() as u64 / 4;
        self.used = clock.max(self.used + 1);
        Seq((self.hash(0, path) as u32).wrapping_add(self.used as u32))
    }

    /// The offset of a connection's timestamp clock.
    //= rfc7323 7.1a
    pub(crate) fn timestamp_offset(&self, path: &Path) -> u32 {
        self.hash(1, path) as u32
    }

    /// Returns a keyed proof that this instance saw a SYN (the upper bits of a cookie; here in the lower bits).
    pub(crate) fn proof(&self, path: &Path, irs: Seq, period: u64, content: u32) -> u32 {
        let mut hasher = self.hasher(0, path);
        hasher.write(&irs.0.to_be_bytes());
        hasher.write(&period.to_be_bytes());
        hasher.write(&content.to_be_bytes());
        hasher.finish() as u32 & (u32::MAX >> 7)
    }

    fn hash(&self, which: usize, path: &Path) -> u64 {
        self.hasher(which, path).finish()
    }

    // SipHash-2-4, as Linux uses for the same purpose. It is deprecated only in favour of hashers that do not name
    // their function.
    #[allow(deprecated)]
    fn hasher(&self, which: usize, path: &Path) -> impl Hasher {
        let (k0, k1) = self.keys[which & 1];
        let mut hasher = std::hash::SipHasher::new_with_keys(k0, k1);
        for end in [path.local, path.remote] {
            write_socket(&mut hasher, end);
        }
        hasher
    }
}

fn write_socket(hasher: &mut impl Hasher, socket: SocketAddr) {
    match socket.ip() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write(&socket.port().to_be_bytes());
}

#[cfg(test)]
mod tests;
