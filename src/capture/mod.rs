//! `outlast capture`: the frames that the server receives and sends, as a pcapng file, across all of its deaths.
//!
//! The worker that serves puts frames into a ring of shared memory ([`Ring`]), which costs it a copy and no system
//! call. The supervisor keeps the ring and the file, and a thread of it writes the one into the other
//! ([`Capture`]). So a frame that a worker has put there is in the file whatever becomes of the worker, and a slow disk
//! does not keep the worker waiting: frames for which the ring has no room are counted, and the file says so.

mod file;
mod headers;
mod ring;
mod writer;

pub use ring::{Direction, Ring, VARIABLE};
pub use writer::{Capture, Wanted};
