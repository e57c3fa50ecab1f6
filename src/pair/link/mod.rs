//! The interconnect of a pair: TCP between the hosts' own kernels, encrypted, each side with a key that the other one
//! knows. The node that serves connects; the one that stands by listens.
//!
//! The leader asks and the partner answers, one thing at a time: a greeting, then batches of the log and heartbeats.
//! [`frame`] has the format, [`keys`] who may connect, [`sender`] and [`receiver`] the two ends.

pub mod frame;
pub mod keys;
pub mod receiver;
pub mod sender;

use std::time::Duration;

/// So often the partner hears of the leader when there is nothing to ship.
pub const BEAT: Duration = Duration::from_millis(100);
