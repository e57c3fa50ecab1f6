//! Wipes what is given up: secrets in the meta of records (session keys) do not stay in the memory.

use super::Log;
use crate::layout::{HEAD_AT, HEADER_LEN, Header, RING_AT, TAIL_AT};
use crate::sink::Batch;
use bytes::Bytes;

/// Bytes that are written at a time.
const PIECE: u64 = 64 << 10;
static ZEROES: [u8; PIECE as usize] = [0; PIECE as usize];

impl Log {
    /// Has the tail pass all that is committed now, by relocation, little by little: what ended objects and replaced
    /// snapshots held is wiped then.
    pub fn give_up(&mut self) {
        self.give_up_to = self.committed;
    }

    /// Whether there is still something to pass.
    pub fn is_giving_up(&self) -> bool {
        self.tail < self.give_up_to
    }

    /// Empties a log whose state nobody takes up: with [`crate::Flag::Clean`], after the last commit. No bytes over it
    /// are held.
    pub fn erase(&mut self) {
        self.tail = self.committed;
        self.memory.store(TAIL_AT, self.memory.load(HEAD_AT));
        self.zero(RING_AT, self.superblock.ring_len);
    }

    /// What makes a sink's ring as empty as the log's own, after [`Log::erase`].
    pub fn erased(&self) -> Batch {
        let zeroes = Bytes::from_static(&ZEROES);
        let (whole, rest) = (
            self.superblock.ring_len / PIECE,
            self.superblock.ring_len % PIECE,
        );
        let pieces = (0..whole).map(|piece| (RING_AT + piece * PIECE, zeroes.clone()));
        let last = (RING_AT + whole * PIECE, zeroes.slice(..rest as usize));
        Batch {
            writes: pieces.chain([last]).collect(),
        }
    }

    /// Overwrites the meta of the records between two positions, which the tail has just passed: the stores come after
    /// that of the tail word, so that a recovery never meets them.
    pub(super) fn wipe(&self, from: u64, to: u64) {
        let mut position = from;
        while position < to {
            let to_end = self.superblock.ring_len - position % self.superblock.ring_len;
            if to_end < HEADER_LEN as u64 {
                position += to_end;
                continue;
            }
            let at = self.address(position);
            let mut bytes = [0; HEADER_LEN];
            self.memory.read(at, &mut bytes);
            let Some((header, _)) = Header::from_bytes(&bytes) else {
                debug_assert!(false, "what the tail has passed was verified or appended");
                return;
            };
            self.zero(at + HEADER_LEN as u64, u64::from(header.meta_len));
            position += header.whole_len();
        }
    }

    fn zero(&self, mut at: u64, mut len: u64) {
        while len > 0 {
            let piece = len.min(PIECE);
            self.memory.write(at, &ZEROES[..piece as usize]);
            at += piece;
            len -= piece;
        }
    }
}
