//! Encodes and parses the frames of the interconnect.
//!
//! A frame is its length (4 bytes, little-endian, of all that follows), its kind (1 byte), and its content. A greeting
//! begins with a magic and the version, in every version; an unknown version is refused before more of the frame is
//! read.

use std::io::{self, ErrorKind, Read, Write};

use bytes::Bytes;
use outlast_nvram::codec;
use serde::{Deserialize, Serialize};

/// The version that this binary implements.
pub const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"OUTLLINK";
/// The largest number of bytes of the log in one frame.
pub const PIECE: usize = 256 << 10;
/// The longest frame: a piece and its offset, with room for the answer to a greeting.
const LEN_MAX: usize = PIECE + 64;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The leader greets.
    Hello(Hello),
    /// The partner accepts the leader's log.
    Welcome {
        /// The beginning of its copy ([`outlast_nvram::copy::Copy::beginning`]).
        beginning: Vec<u8>,
    },
    /// The partner refuses, for this reason.
    Refused(Refusal),
    /// A part of a batch.
    Write {
        /// Offset in the memory.
        at: u64,
        /// The bytes to write there.
        bytes: Bytes,
    },
    /// The batch is complete, and must be acknowledged.
    Complete {
        /// The leader's number of the batch.
        number: u64,
    },
    /// The batch is in the copy.
    Done {
        /// The number in `Complete`.
        number: u64,
    },
    /// The copy must be made blank; answered by `Welcome`.
    Anew,
    /// The leader serves; answered by `Heard`.
    Beat(Beat),
    /// The partner is alive.
    Heard,
}

/// A leader's greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its node.
    pub node: String,
    /// The arbiter's epoch of its admission.
    pub epoch: u64,
    /// Bytes of its NVRAM.
    pub memory_len: u64,
}

/// The leader's progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The end of its committed log.
    pub committed: u64,
    /// The round trip of the last batch, in microseconds.
    pub round_trip_us: u64,
}

/// The reason why a partner refuses a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It implements this version.
    Version(u16),
    /// The greeting's epoch has ended; the partner knows this one.
    Epoch(u64),
    /// It is not on standby now, or has not read yet that the leader is admitted.
    NotNow,
    /// Its NVRAM has another length, in bytes.
    Length(u64),
    /// It is unable to, for this reason.
    Cannot(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Version(known) => write!(
                f,
                "it speaks version {known} of the interconnect and this node {VERSION}: run the same release on both"
            ),
            Refusal::Epoch(epoch) => write!(
                f,
                "it knows of epoch {epoch}, which is newer: this node may not serve any more"
            ),
            Refusal::NotNow => f.write_str("it does not stand by"),
            Refusal::Length(len) => write!(
                f,
                "its NVRAM has {len} bytes: set nvram.size to the same on both nodes"
            ),
            Refusal::Cannot(why) => f.write_str(why),
        }
    }
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const WRITE: u8 = 4;
const COMPLETE: u8 = 5;
const DONE: u8 = 6;
const ANEW: u8 = 7;
const BEAT: u8 = 8;
const HEARD: u8 = 9;

impl Frame {
    fn encode(&self) -> (u8, Vec<u8>) {
        let mut content = Vec::new();
        let kind = match self {
            Frame::Hello(hello) => {
                content.extend_from_slice(&MAGIC);
                content.extend_from_slice(&VERSION.to_le_bytes());
                codec::encode(hello, &mut content);
                HELLO
            }
            Frame::Welcome { beginning } => {
                content.extend_from_slice(beginning);
                WELCOME
            }
            Frame::Refused(refusal) => {
                codec::encode(refusal, &mut content);
                REFUSED
            }
            Frame::Write { at, .. } => {
                content.extend_from_slice(&at.to_le_bytes());
                WRITE
            }
            Frame::Complete { number } => {
                content.extend_from_slice(&number.to_le_bytes());
                COMPLETE
            }
            Frame::Done { number } => {
                content.extend_from_slice(&number.to_le_bytes());
                DONE
            }
            Frame::Anew => ANEW,
            Frame::Beat(beat) => {
                codec::encode(beat, &mut content);
                BEAT
            }
            Frame::Heard => HEARD,
        };
        (kind, content)
    }

    /// Writes the frame. The caller must flush the writer before it waits for an answer.
    ///
    /// # Errors
    /// The writer's.
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, content) = self.encode();
        let bytes = match self {
            Frame::Write { bytes, .. } => &**bytes,
            _ => &[],
        };
        let len = 1 + content.len() + bytes.len();
        if len > LEN_MAX {
            return Err(io::Error::other("a frame of the interconnect is too long"));
        }
        to.write_all(&(len as u32).to_le_bytes())?;
        to.write_all(&[kind])?;
        to.write_all(&content)?;
        to.write_all(bytes)
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// The reader's; [`ErrorKind::InvalidData`] for an invalid frame; [`ErrorKind::Unsupported`] for a greeting of
    /// another version.
    pub fn receive(from: &mut impl Read) -> io::Result<Frame> {
        let mut len = [0; 4];
        from.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if !(1..=LEN_MAX).contains(&len) {
            return Err(malformed("a frame of impossible length"));
        }
        let mut frame = vec![0; len];
        from.read_exact(&mut frame)?;
        Frame::decode(Bytes::from(frame))
    }

    fn decode(frame: Bytes) -> io::Result<Frame> {
        let kind = frame.first().copied().unwrap_or_default();
        let content = frame.slice(1.min(frame.len())..);
        Ok(match kind {
            HELLO => Frame::Hello(hello(&content)?),
            WELCOME => Frame::Welcome {
                beginning: content.to_vec(),
            },
            REFUSED => Frame::Refused(decoded(&content)?),
            WRITE => {
                let (at, _) = number(&content)?;
                let bytes = content.slice(size_of::<u64>()..);
                Frame::Write { at, bytes }
            }
            COMPLETE => Frame::Complete {
                number: alone(&content)?,
            },
            DONE => Frame::Done {
                number: alone(&content)?,
            },
            ANEW if content.is_empty() => Frame::Anew,
            BEAT => Frame::Beat(decoded(&content)?),
            HEARD if content.is_empty() => Frame::Heard,
            _ => return Err(malformed("a frame of unknown kind")),
        })
    }
}

fn hello(content: &[u8]) -> io::Result<Hello> {
    let rest = content.strip_prefix(&MAGIC);
    let rest = rest.ok_or_else(|| malformed("not a greeting of Outlast"))?;
    let (version, rest) = rest
        .split_first_chunk()
        .ok_or_else(|| malformed("a greeting that is cut off"))?;
    match u16::from_le_bytes(*version) {
        VERSION => decoded(rest),
        other => Err(io::Error::new(
            ErrorKind::Unsupported,
            format!("version {other} of the interconnect; this binary speaks {VERSION}"),
        )),
    }
}

fn decoded<T: serde::de::DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    codec::decode(content).map_err(|_| malformed("a frame whose content cannot be read"))
}

fn number(content: &[u8]) -> io::Result<(u64, &[u8])> {
    let (number, rest) = content
        .split_first_chunk()
        .ok_or_else(|| malformed("a frame that is cut off"))?;
    Ok((u64::from_le_bytes(*number), rest))
}

fn alone(content: &[u8]) -> io::Result<u64> {
    match number(content)? {
        (number, []) => Ok(number),
        _ => Err(malformed("a frame that is too long")),
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the peer sends {what}"))
}

#[cfg(test)]
mod tests;
