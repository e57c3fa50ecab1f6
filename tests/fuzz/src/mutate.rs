//! Mutates the inputs of the short run, reproducibly by seed.

/// A seeded mutator (SplitMix64).
pub struct Mutator(u64);

/// The longest mutated input, in bytes.
const LONGEST: usize = 4096;

impl Mutator {
    /// Makes one from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// Draws a number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// Changes a few bytes of one of the inputs; `others` are spliced in.
    pub fn mutate(&mut self, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => {
                    let end = (at + self.below(32)).min(bytes.len());
                    bytes.drain(at..end);
                }
                2 => {
                    let piece: Vec<u8> =
                        (0..self.below(16)).map(|_| self.below(256) as u8).collect();
                    bytes.splice(at..at, piece);
                }
                3 if !others.is_empty() => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len() + 1);
                    let piece = &other[from..(from + self.below(256)).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                4 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = [0, 1, 0x7f, 0x80, 0xff][self.below(5)];
                    }
                }
                5 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = self.below(256) as u8;
                    }
                }
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }
}
