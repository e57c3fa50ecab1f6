//! Extracts whole messages from a connection's received bytes.
//!
//! The bytes stay in place, in the log, until the message has been answered. Nothing here survives: after a recovery
//! the same messages are found in the same bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use outlast_fsa::Pieces;
use outlast_smb::wire::Malformed;
use outlast_smb::wire::frame::{self, Frame};

/// The oldest unconsumed message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Without the direct-TCP header, where it was received.
    pub bytes: Pieces,
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
            bytes: part(received, frame::LEN, length),
            stream_bytes: frame::LEN + length,
        }),
    }
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

/// Returns `length` bytes from `start`, in place.
fn part(received: &VecDeque<Bytes>, start: usize, length: usize) -> Pieces {
    let (mut skip, mut left) = (start, length);
    let mut pieces = Vec::new();
    for piece in received {
        let from = skip.min(piece.len());
        let to = (from + left).min(piece.len());
        skip -= from;
        left -= to - from;
        pieces.push(piece.slice(from..to));
        if left == 0 {
            break;
        }
    }
    pieces.into_iter().collect()
}

#[cfg(test)]
mod tests;
