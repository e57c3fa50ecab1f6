//! Keeps the frames of a turn in memory that outlives the worker.
//!
//! A frame that a worker has read from the TAP is in no queue any more. If the worker dies before the frame is
//! recorded, the client sends it again only when its timer expires, after 200 ms or more. So the frames of a turn are
//! read into a memfd, which the supervisor gives to each worker in turn, and the next worker processes them as if they
//! had just arrived. It does so once: a frame that kills a worker is not given to a third one.
//!
//! A worker may die between the kernel's copy of a frame and its own note of it: most of the time for reading a frame
//! is spent in the kernel. At the place of the next frame the EtherType is 0 until there is one; the frame's own
//! headers give its length.
//!
//! A node of a pair that takes the service finds there what it has received while it was on standby
//! ([`Kept`](super::Kept)).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapMut, MmapOptions};
use outlast_stack::device::MAX_FRAME_LEN;
use outlast_stack::{RxChecksum, RxFrame};
use rustix::fs::{MemfdFlags, SealFlags};

use super::offload::VNET_HEADER_LEN;

/// Length of the longest frame with the kernel's header, in bytes.
pub(super) const RAW_MAX: usize = VNET_HEADER_LEN + MAX_FRAME_LEN;
/// Size of the memory in bytes: a turn of 15 frames of 64 KiB, or of many small ones.
const BYTES: usize = 1 << 20;
/// The number of bytes of frames, the first word in the memory.
const USED: Range<usize> = 0..8;
/// The word before each frame: its length.
const LENGTH: usize = 8;
/// The place of the EtherType in a frame (IEEE 802.3, clause 3.2.6).
const ETHER_TYPE: Range<usize> = 12..14;
const ETHERNET_HEADER: usize = 14;
/// The size of the frames that can be left for a worker ([`Received::leave`]), as [`occupied_by`] them.
pub(super) const ROOM: usize = BYTES - USED.end - LENGTH - HEADERS;
/// The number of bytes that include a frame's EtherType, whatever the source.
const HEADERS: usize = VNET_HEADER_LEN + ETHERNET_HEADER;

/// A source of frames, each with the kernel's header.
pub trait Source {
    /// Length of the kernel's header.
    fn header_len(&self) -> usize;

    /// The state of the checksum by these bytes.
    fn checksum(&self, header: &[u8]) -> RxChecksum;

    /// Reads the next frame with its header, by one system call into one buffer. `None`: there is none.
    ///
    /// # Errors
    /// The device is gone, or its driver fails.
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>>;
}

/// Makes the memory, which the supervisor keeps.
///
/// # Errors
/// The kernel provides none.
pub fn memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("outlast-received", flags)?;
    rustix::fs::ftruncate(&memory, BYTES as u64)?;
    // A mapping of a file that shrinks ends its process.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

/// The frames of a turn.
#[derive(Debug)]
pub struct Received {
    memory: MmapMut,
    /// The place of the next frame.
    next: usize,
}

impl Received {
    /// Keeps frames in the supervisor's memory. `None`, or another supervisor's memory: frames are lost with the
    /// worker.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn new(memory: Option<OwnedFd>) -> io::Result<Received> {
        let file = memory.map(File::from).filter(|file| {
            let length = file.metadata().map(|metadata| metadata.len());
            length.is_ok_and(|length| length == BYTES as u64)
        });
        let memory = match file {
            // SAFETY: the file is sealed against shrinking, and of all processes that have it only the serving worker
            // writes: the one before it is dead and reaped.
            Some(file) => unsafe { MmapOptions::new().len(BYTES).map_mut(&file)? },
            None => MmapMut::map_anon(BYTES)?,
        };
        Ok(Received {
            memory,
            next: USED.end,
        })
    }

    /// Reads a frame. `None`: there is none, or no room for another in this turn.
    ///
    /// # Errors
    /// The source's.
    pub fn receive(&mut self, source: &impl Source) -> io::Result<Option<RxFrame<'_>>> {
        let begin = self.next + LENGTH;
        let Some(room) = self.memory.get_mut(begin..begin + RAW_MAX) else {
            return Ok(None);
        };
        room[..HEADERS].fill(0);
        fence(Ordering::Release);
        let Some(length) = source.read(room)? else {
            return Ok(None);
        };
        self.note(length);
        Ok(frame(source, &self.memory[begin..begin + length]))
    }

    /// Leaves these frames, each with the kernel's header, for the next worker, and nothing else. Returns the number of
    /// them; the others have no room.
    pub fn leave<'a>(&mut self, frames: impl Iterator<Item = &'a Vec<u8>>) -> usize {
        self.clear();
        let mut left = 0;
        for raw in frames {
            let begin = self.next + LENGTH;
            let end = (begin + raw.len()).next_multiple_of(8);
            let Some(room) = self.memory.get_mut(begin..end + LENGTH + HEADERS) else {
                break;
            };
            let (room, next) = room.split_at_mut(raw.len());
            room.copy_from_slice(raw);
            next.fill(0);
            self.note(raw.len());
            left += 1;
        }
        left
    }

    /// Notes that the next frame is there.
    fn note(&mut self, length: usize) {
        let begin = self.next + LENGTH;
        self.memory[self.next..begin].copy_from_slice(&(length as u64).to_ne_bytes());
        self.next = (begin + length).next_multiple_of(8);
        self.set_used(self.next - USED.end);
    }

    /// Forgets the frames, whose content has been recorded.
    pub fn forget(&mut self) {
        if self.next != USED.end {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.next = USED.end;
        self.set_used(0);
        self.memory[USED.end + LENGTH..][..HEADERS].fill(0);
    }

    /// Returns and forgets the frames that the worker before this one has left.
    pub fn take_left(&mut self, source: &impl Source) -> Vec<(Vec<u8>, RxChecksum)> {
        let used = word(&self.memory, USED.start).unwrap_or_default();
        let end = USED.end.saturating_add(used as usize);
        let mut left = Vec::new();
        let mut at = USED.end;
        // A damaged memory may contain anything.
        while at < end
            && let Some(length) = word(&self.memory, at)
            && let Some(raw) = self.memory.get(at + LENGTH..)
            && let Some(raw) = raw.get(..length as usize)
            && let Some(frame) = frame(source, raw)
        {
            left.push((frame.bytes.to_vec(), frame.checksum));
            at = (at + LENGTH + raw.len()).next_multiple_of(8);
        }
        let unnoted = self.memory.get(at + LENGTH..).unwrap_or_default();
        if at == end
            && let Some(frame) = unnoted_frame(source, unnoted)
        {
            left.push((frame.bytes.to_vec(), frame.checksum));
        }
        self.clear();
        left
    }

    /// Stored after the frames that it counts.
    fn set_used(&mut self, bytes: usize) {
        fence(Ordering::Release);
        self.memory[USED].copy_from_slice(&(bytes as u64).to_ne_bytes());
    }
}

/// Bytes that a frame occupies in the memory.
pub(super) fn occupied_by(raw: &[u8]) -> usize {
    (LENGTH + raw.len()).next_multiple_of(8)
}

fn word(memory: &[u8], at: usize) -> Option<u64> {
    let bytes = memory.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// Makes a frame from the bytes that were read.
fn frame<'a>(source: &impl Source, raw: &'a [u8]) -> Option<RxFrame<'a>> {
    let (header, bytes) = raw.split_at_checked(source.header_len())?;
    let checksum = source.checksum(header);
    Some(RxFrame { bytes, checksum })
}

/// Returns the frame that is there and was not noted, if any.
fn unnoted_frame<'a>(source: &impl Source, raw: &'a [u8]) -> Option<RxFrame<'a>> {
    let bytes = raw.get(source.header_len()..)?;
    let number = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *bytes.get(at)?,
            *bytes.get(at + 1)?,
        ])))
    };
    let length = match number(ETHER_TYPE.start)? {
        // RFC 791, section 3.1: total length.
        0x0800 => number(ETHERNET_HEADER + 2)?,
        // RFC 8200, section 3: payload length.
        0x86dd => number(ETHERNET_HEADER + 4)? + 40,
        // RFC 826, for IPv4 over Ethernet.
        0x0806 => 28,
        _ => return None,
    };
    frame(
        source,
        raw.get(..source.header_len() + ETHERNET_HEADER + length)?,
    )
}

#[cfg(test)]
mod tests;
