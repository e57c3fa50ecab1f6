//! Keeps the last segments that a node on standby has received, for the worker that takes the service.
//!
//! The network may deliver the clients' frames to both nodes of a pair. What the serving node had received and not
//! recorded when it died, and what was sent to it afterwards, is then here. A client repeats such a segment after
//! 200 ms at the earliest.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::received::{self, Source};

/// The time for which a segment is kept. A client that has waited for longer has repeated it, and a connection that
/// resumes has the client repeat it again (RFC 6069).
const AGE: Duration = Duration::from_secs(1);

/// More frames than a queue has room for.
const QUEUE_MAX: usize = 1 << 16;

/// The segments of the last second, or those of them for which there is room.
#[derive(Debug, Default)]
pub struct Kept {
    buffer: Vec<u8>,
    /// When each was received, and its bytes with the kernel's header; the oldest first.
    frames: VecDeque<(Duration, Vec<u8>)>,
    /// What they occupy in the memory for received frames.
    bytes: usize,
}

impl Kept {
    /// Reads a queue to its end. It ends even if other processes fill the queue meanwhile.
    ///
    /// # Errors
    /// The source's.
    pub fn receive(&mut self, source: &impl Source, now: Duration) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(received::RAW_MAX, 0);
        let mut read = Ok(());
        for _ in 0..QUEUE_MAX {
            match source.read(&mut buffer) {
                Ok(Some(length)) => self.put(&buffer[..length], source.header_len(), now),
                Ok(None) => break,
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
        self.buffer = buffer;
        read
    }

    /// Keeps a frame that was read at `now`, if it carries TCP. `header_len`: length of the kernel's header.
    fn put(&mut self, raw: &[u8], header_len: usize, now: Duration) {
        if !raw.get(header_len..).is_some_and(carries_tcp) {
            return;
        }
        self.bytes += received::occupied_by(raw);
        self.frames.push_back((now, raw.to_vec()));
        self.forget_old(now);
        while self.bytes > received::ROOM {
            self.forget_first();
        }
    }

    /// Returns those that are not too old, in the order of their arrival.
    pub fn take(mut self, now: Duration) -> impl Iterator<Item = Vec<u8>> {
        self.forget_old(now);
        self.frames.into_iter().map(|(_, raw)| raw)
    }

    fn forget_old(&mut self, now: Duration) {
        let is_old = |(at, _): &(Duration, Vec<u8>)| *at + AGE < now;
        while self.frames.front().is_some_and(is_old) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, raw)) = self.frames.pop_front() {
            self.bytes -= received::occupied_by(&raw);
        }
    }
}

/// Returns whether a frame carries TCP, without extension headers before it. Everything else is as if it were lost: a
/// question about an address is asked again, and an answer to a second copy of a ping would be one too many.
fn carries_tcp(frame: &[u8]) -> bool {
    /// TCP, as a protocol of IPv4 (RFC 791) and as a next header of IPv6 (RFC 8200).
    const TCP: u8 = 6;
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(23) == Some(&TCP),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&TCP),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
