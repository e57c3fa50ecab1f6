//! Bytes that lie in several places of the log, as they were received.
//!
//! A large message arrives in many segments. The data of a write go from there to the file, without being copied
//! together first.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A sequence of bytes in pieces. Its value is the sequence, however it is cut.
#[derive(Clone, Debug, Default)]
pub struct Pieces(Vec<Bytes>);

impl Pieces {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pieces, in order; none is empty.
    #[must_use]
    pub fn as_slice(&self) -> &[Bytes] {
        &self.0
    }

    /// The bytes of this range, as far as there are any, in place.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Pieces {
        let (mut skip, mut left) = (range.start, range.end.saturating_sub(range.start));
        let mut pieces = Vec::new();
        for piece in &self.0 {
            if left == 0 {
                break;
            }
            let from = skip.min(piece.len());
            let to = (from + left).min(piece.len());
            skip -= from;
            left -= to - from;
            if from < to {
                pieces.push(piece.slice(from..to));
            }
        }
        Pieces(pieces)
    }

    /// All bytes in one piece: in place if they lie in one piece, otherwise copied.
    #[must_use]
    pub fn together(&self) -> Bytes {
        match &self.0[..] {
            [] => Bytes::new(),
            [only] => only.clone(),
            several => {
                let mut together = BytesMut::with_capacity(self.len());
                several
                    .iter()
                    .for_each(|piece| together.extend_from_slice(piece));
                together.freeze()
            }
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Pieces {
        [bytes].into_iter().collect()
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Pieces {
        Bytes::from(bytes).into()
    }
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Pieces {
        let pieces = pieces.into_iter();
        Pieces(pieces.filter(|piece| !piece.is_empty()).collect())
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Pieces) -> bool {
        self.len() == other.len() && self.0.iter().flatten().eq(other.0.iter().flatten())
    }
}

impl Eq for Pieces {}

impl Serialize for Pieces {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.together())
    }
}

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pieces, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Pieces::from)
    }
}

#[cfg(test)]
mod tests;
