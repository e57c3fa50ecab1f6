//! Reads an input as a sequence of choices. It never ends: past its end every choice is the first.

/// The rest of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Less than `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number in one byte if it is small, in nine if it is not: small ones are likelier.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => small.into(),
            power @ 200..=231 => 1 << (power - 200 + 8),
            232..=239 => 0_u64.wrapping_sub(self.byte().into()),
            _ => self.u64(),
        }
    }

    /// Takes this many bytes, or as many as are left.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their length before them, 64 KiB at most.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let len = self.number() as u16;
        self.take(len.into())
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// Edits some bytes: overwrites, inserts, removes, duplicates.
    pub(crate) fn edit(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(8) {
            // As few bytes of input as possible: each is one more that a mutation has to hit.
            let at = match bytes.len() {
                0 => 0,
                len @ 1..=256 => self.below(len),
                len => self.u16() as usize % len,
            };
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => {
                    let piece = self.take(8).to_vec();
                    bytes.splice(at..at, piece);
                }
                2 => drop(bytes.drain(at..(at + self.below(16)).min(bytes.len()))),
                3 => {
                    let end = (at + 1 + self.below(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                width => {
                    let value = self.number().to_le_bytes();
                    let width = if width == 4 { 1 } else { 4 };
                    for (to, from) in bytes[at..].iter_mut().zip(&value[..width]) {
                        *to = *from;
                    }
                }
            }
        }
    }
}
