//! Keeps the frames of a turn in memory that outlives the worker.
//!
//! A frame that a worker has read from the TAP is in no queue any more. If the worker dies before the frame is on
//! record, the client sends it again only when its timer says so, after 200 ms or more. So the frames of a turn are
//! read into a memfd, which the supervisor gives to each worker in turn, and the next worker takes them as if they had
//! just come. It does so once: a frame that ends a worker is not given to a third one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapMut, MmapOptions};
use outlast_stack::device::{Device, MAX_FRAME_LEN};
use outlast_stack::{RxChecksum, RxFrame};
use rustix::fs::{MemfdFlags, SealFlags};

/// Bytes of the memory: a turn of 15 frames of 64 KiB, or of many small ones.
const BYTES: usize = 1 << 20;
/// How many bytes of frames there are, the first thing in the memory.
const USED: Range<usize> = 0..8;
/// Before each frame: its length, and whether its checksum is to be verified.
const HEADER: usize = 8;

/// Makes the memory, which the supervisor keeps.
///
/// # Errors
/// There is none to be had.
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
    /// Where the next frame begins.
    next: usize,
}

impl Received {
    /// Frames in the supervisor's memory. `None`, or a memory of another supervisor's: frames are lost with the worker.
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

    /// Reads a frame from the device. `None`: there is none, or no room for another in this turn.
    ///
    /// # Errors
    /// The device's.
    pub fn receive(&mut self, device: &mut impl Device) -> io::Result<Option<RxFrame<'_>>> {
        let begin = self.next + HEADER;
        let Some(room) = self.memory.get_mut(begin..begin + MAX_FRAME_LEN) else {
            return Ok(None);
        };
        let Some((length, checksum)) = device.receive(room)? else {
            return Ok(None);
        };
        let is_trusted = u32::from(checksum == RxChecksum::Trusted);
        let header = (length as u64) | u64::from(is_trusted) << 32;
        self.memory[self.next..begin].copy_from_slice(&header.to_ne_bytes());
        self.next = (begin + length).next_multiple_of(8);
        self.set_used(self.next - USED.end);
        Ok(Some(RxFrame {
            bytes: &self.memory[begin..begin + length],
            checksum,
        }))
    }

    /// Forgets the frames: what they brought is on record.
    pub fn forget(&mut self) {
        if self.next != USED.end {
            self.next = USED.end;
            self.set_used(0);
        }
    }

    /// Takes the frames that the worker before this one has left, and forgets them.
    pub fn take_left(&mut self) -> Vec<(Vec<u8>, RxChecksum)> {
        let used = word(&self.memory, 0).unwrap_or_default();
        let end = USED.end.saturating_add(used as usize);
        let mut left = Vec::new();
        let mut at = USED.end;
        while at < end {
            let Some((length, checksum)) = word(&self.memory, at).map(header) else {
                break;
            };
            let begin = at + HEADER;
            // A damaged memory says anything.
            let frame = self.memory.get(begin..begin.saturating_add(length));
            let Some(frame) = frame.filter(|frame| !frame.is_empty()) else {
                break;
            };
            left.push((frame.to_vec(), checksum));
            at = (begin + length).next_multiple_of(8);
        }
        self.set_used(0);
        left
    }

    /// After what it counts.
    fn set_used(&mut self, bytes: usize) {
        fence(Ordering::Release);
        self.memory[USED].copy_from_slice(&(bytes as u64).to_ne_bytes());
    }
}

fn word(memory: &[u8], at: usize) -> Option<u64> {
    let bytes = memory.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

fn header(word: u64) -> (usize, RxChecksum) {
    let checksum = match word >> 32 {
        0 => RxChecksum::Verify,
        _ => RxChecksum::Trusted,
    };
    (word as u32 as usize, checksum)
}

#[cfg(test)]
mod tests;
