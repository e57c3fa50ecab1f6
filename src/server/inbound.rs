//! Extracts whole messages from a connection's received bytes.
//!
//! The bytes stay in place, in the log, until the message has been answered. Nothing here survives: after a recovery
//! the same messages are found in the same bytes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use outlast_smb::wire::Malformed;
use outlast_smb::wire::frame::{self, Frame};

/// The oldest unconsumed message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Without the direct-TCP header.
    pub bytes: Bytes,
    /// The bytes that it occupies in the stream.
    pub stream_bytes: usize,
}

/// The front of a connection's received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Nothing, or an incomplete message.
    Partial,
    /// A whole message.
    Whole(Message),
    /// A NetBIOS keep-alive of this many bytes, which is skipped.
    KeepAlive(usize),
    /// Not a message: the connection has to be dropped.
    Malformed(Malformed),
    /// A message of this many bytes, more than permitted: the connection has to be dropped.
    TooLong(usize),
}

/// Examines the front of the received bytes, `queued` of them. `longest`: bytes that a message may have.
#[must_use]
pub fn front(received: &VecDeque<Bytes>, queued: usize, longest: usize) -> Inbound {
    let Some(header) = header_at(received, 0) else {
        return Inbound::Partial;
    };
    match frame::parse(header) {
        Err(malformed) => Inbound::Malformed(malformed),
        Ok(Frame::KeepAlive) => Inbound::KeepAlive(frame::LEN),
        Ok(Frame::Message(length)) if length > longest => Inbound::TooLong(length),
        Ok(Frame::Message(length)) if queued < frame::LEN + length => Inbound::Partial,
        Ok(Frame::Message(length)) => Inbound::Whole(Message {
            bytes: gather(received, frame::LEN, length),
            stream_bytes: frame::LEN + length,
        }),
    }
}

/// The pieces of the received bytes of which `part`, a slice of `message`, consists; `None`: it does not consist of
/// this message's bytes (it was encrypted).
#[must_use]
pub fn pieces_of(received: &VecDeque<Bytes>, message: &Message, part: &[u8]) -> Option<Vec<Bytes>> {
    let offset = part
        .as_ptr()
        .addr()
        .checked_sub(message.bytes.as_ptr().addr())?;
    if offset.checked_add(part.len())? > message.bytes.len() {
        return None;
    }
    let (mut skip, mut left) = (frame::LEN + offset, part.len());
    let mut pieces = Vec::new();
    for piece in received {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let take = left.min(piece.len() - skip);
        pieces.push(piece.slice(skip..skip + take));
        (skip, left) = (0, left - take);
        if left == 0 {
            return Some(pieces);
        }
    }
    None
}

/// The bytes that the message at `offset` of the received bytes occupies in the stream; `None`: its header is
/// incomplete, or it is malformed.
#[must_use]
pub fn length_at(received: &VecDeque<Bytes>, offset: usize) -> Option<usize> {
    match frame::parse(header_at(received, offset)?).ok()? {
        Frame::KeepAlive => Some(frame::LEN),
        Frame::Message(length) => Some(frame::LEN + length),
    }
}

/// The direct-TCP header at `offset` of the received bytes, if it is complete.
fn header_at(received: &VecDeque<Bytes>, offset: usize) -> Option<[u8; frame::LEN]> {
    let mut header = [0; frame::LEN];
    let (mut skip, mut filled) = (offset, 0);
    for piece in received {
        let fresh = piece.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(piece.len());
        let take = fresh.len().min(header.len() - filled);
        header[filled..filled + take].copy_from_slice(&fresh[..take]);
        filled += take;
        if filled == header.len() {
            return Some(header);
        }
    }
    None
}

/// Returns `length` bytes from `start` in one piece: in place if they lie in one piece, otherwise copied.
fn gather(received: &VecDeque<Bytes>, start: usize, length: usize) -> Bytes {
    let mut skip = start;
    let mut together = BytesMut::new();
    for piece in received {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let rest = &piece[skip..];
        let take = rest.len().min(length - together.len());
        if take == length {
            return piece.slice(skip..skip + take);
        }
        if together.is_empty() {
            together.reserve(length);
        }
        together.extend_from_slice(&rest[..take]);
        skip = 0;
        if together.len() == length {
            break;
        }
    }
    together.freeze()
}

#[cfg(test)]
mod tests;
