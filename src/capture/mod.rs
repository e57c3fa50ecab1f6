//! Implements `outlast capture`: writes the frames that the server receives and sends to a pcapng file, across crashes
//! of its workers.
//!
//! The serving worker puts frames into a ring in shared memory ([`Ring`]), which costs it a copy and no system call.
//! The supervisor owns the ring and the file, and a thread of it writes the frames to the file ([`Capture`]). So a
//! frame in the ring reaches the file even if the worker crashes, and a slow disk does not delay the worker: frames for
//! which the ring has no room are counted, and the file contains their number.

mod file;
mod headers;
mod ring;
mod writer;

pub use ring::{Direction, Ring, VARIABLE};
pub use writer::{Capture, Wanted};
