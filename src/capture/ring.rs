//! Passes frames from the serving worker to the supervisor's thread, through a ring in shared memory.
//!
//! Two positions count all bytes that were put in and taken out. The worker moves the first one after a frame is
//! complete, so an incomplete frame of a crashed worker is not in the ring. Only one process writes each position.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{MemfdFlags, SealFlags};

use super::headers;
use crate::shared_page::SharedPage;

/// The environment variable with the descriptor.
pub const VARIABLE: &str = "OUTLAST_CAPTURE_FD";

/// Size of the ring: more than a slow disk needs. Unused memory is not allocated.
const ROOM: u64 = 64 << 20;
/// The offsets of the words and of the frames.
const PUT_AT: u64 = 0;
const TAKEN_AT: u64 = 8;
const MODE_AT: u64 = 16;
const LOST_AT: u64 = 24;
const FRAMES_AT: u64 = 64;
const LEN: u64 = FRAMES_AT + ROOM;
/// Length of the header of each frame: its length in the ring, its length on the link, its time and its direction.
const HEAD: u64 = 24;

/// The mode of the ring: whether frames are put into it, and with how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Off = 0,
    Whole = 1,
    Headers = 2,
}

/// The direction of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client.
    Received,
    /// To a client.
    Sent,
}

/// A frame in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    pub direction: Direction,
    /// Its length on the link.
    pub original_len: u32,
    pub bytes: Vec<u8>,
}

/// The worker's side.
#[derive(Debug)]
pub struct Ring {
    memory: MmapMut,
}

impl Ring {
    /// Maps the supervisor's memory; `None`: it is of another version.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn inherited(memory: OwnedFd) -> io::Result<Option<Ring>> {
        if rustix::fs::fstat(&memory)?.st_size != LEN as i64 {
            return Ok(None);
        }
        // SAFETY: the memory is sealed against shrinking. Only the serving worker writes frames and the position of the
        // last one; the supervisor writes other words, which are read as volatile.
        let memory = unsafe { MmapOptions::new().len(LEN as usize).map_mut(&memory)? };
        Ok(Some(Ring { memory }))
    }

    fn word(&self, at: u64) -> u64 {
        let Some(bytes) = self.memory.get(at as usize..at as usize + 8) else {
            return 0;
        };
        // SAFETY: eight bytes that are mapped, aligned as the mapping and all places of words are. Another process may
        // change them.
        unsafe { bytes.as_ptr().cast::<u64>().read_volatile() }
    }

    fn set_word(&mut self, at: u64, word: u64) {
        self.write(at, &word.to_ne_bytes());
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let room = self.memory.get_mut(at as usize..).unwrap_or_default();
        if let Some(into) = room.get_mut(..bytes.len()) {
            into.copy_from_slice(bytes);
        }
    }

    fn mode(&self) -> Mode {
        match self.word(MODE_AT) {
            1 => Mode::Whole,
            2 => Mode::Headers,
            _ => Mode::Off,
        }
    }

    /// Returns whether a capture is running.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mode() != Mode::Off
    }

    /// Puts a frame into the ring, if a capture is running. Frames without room are counted.
    pub fn put(&mut self, direction: Direction, parts: &[&[u8]]) {
        let mode = self.mode();
        if mode == Mode::Off {
            return;
        }
        let original: usize = parts.iter().map(|part| part.len()).sum();
        let len = match mode {
            Mode::Headers => parts.first().map_or(0, |first| headers::len(first)),
            _ => original,
        };
        let put = self.word(PUT_AT);
        let needed = HEAD + (len as u64).next_multiple_of(8);
        let free = ROOM.saturating_sub(put.saturating_sub(self.word(TAKEN_AT)));
        if needed > free {
            let lost = self.word(LOST_AT);
            self.set_word(LOST_AT, lost + 1);
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ns = u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        let lengths = (len as u64) << 32 | original as u64;
        let words = [lengths, unix_ns, direction as u64].map(u64::to_ne_bytes);
        self.copy_in(put, words.as_flattened());
        let mut at = put + HEAD;
        let mut left = len;
        for part in parts {
            let part = part.get(..left.min(part.len())).unwrap_or_default();
            self.copy_in(at, part);
            at += part.len() as u64;
            left -= part.len();
        }
        // The bytes of a frame are stored before its position.
        fence(Ordering::Release);
        self.set_word(PUT_AT, put + needed);
    }

    /// Copies bytes to a position, around the end of the ring.
    fn copy_in(&mut self, position: u64, bytes: &[u8]) {
        let at = position % ROOM;
        let before_the_end = ((ROOM - at) as usize).min(bytes.len());
        let (first, rest) = bytes.split_at(before_the_end);
        self.write(FRAMES_AT + at, first);
        self.write(FRAMES_AT, rest);
    }
}

/// The supervisor's side.
#[derive(Clone, Debug)]
pub(super) struct Reader(SharedPage);

impl Reader {
    /// Makes an empty ring.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn new() -> io::Result<Reader> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("outlast-capture", flags)?;
        rustix::fs::ftruncate(&memory, LEN)?;
        // Access to a mapping of a file that has shrunk would end the process.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memory, seals)?;
        Ok(Reader(memory.into()))
    }

    /// Begins or ends a capture.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn set(&self, mode: Mode) -> io::Result<()> {
        self.0.set_words(MODE_AT, [mode as u64])
    }

    /// Discards the frames in the ring.
    ///
    /// # Errors
    /// The kernel provides no memory.
    pub fn skip(&self) -> io::Result<()> {
        self.0.set_words(TAKEN_AT, self.0.words::<1>(PUT_AT))
    }

    /// Returns the number of frames without room since the server began.
    pub fn lost(&self) -> u64 {
        let [lost] = self.0.words(LOST_AT);
        lost
    }

    /// Takes the next frame, if there is one.
    ///
    /// # Errors
    /// The memory contains data that no worker puts there.
    pub fn take(&self) -> io::Result<Option<Frame>> {
        let [put, taken] = self.0.words(PUT_AT);
        fence(Ordering::Acquire);
        if put == taken {
            return Ok(None);
        }
        let mut head = [0; HEAD as usize];
        self.copy_out(taken, &mut head)?;
        let (words, _) = head.as_chunks::<8>();
        let [lengths, unix_ns, direction] = [0, 1, 2].map(|n| u64::from_ne_bytes(words[n]));
        let len = lengths >> 32;
        let next = taken + HEAD + len.next_multiple_of(8);
        if put - taken > ROOM || next > put {
            self.skip()?;
            return Err(io::Error::other("the frames in memory are damaged"));
        }
        let mut bytes = vec![0; len as usize];
        self.copy_out(taken + HEAD, &mut bytes)?;
        self.0.set_words(TAKEN_AT, [next])?;
        Ok(Some(Frame {
            unix_ns,
            direction: match direction {
                0 => Direction::Received,
                _ => Direction::Sent,
            },
            original_len: lengths as u32,
            bytes,
        }))
    }

    fn copy_out(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        let at = position % ROOM;
        let before_the_end = ((ROOM - at) as usize).min(into.len());
        let (first, rest) = into.split_at_mut(before_the_end);
        self.0.read(FRAMES_AT + at, first)?;
        self.0.read(FRAMES_AT, rest)
    }
}

impl AsRawFd for Reader {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
