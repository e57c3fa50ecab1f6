//! Implements the interconnect of a pair: TCP between the hosts' own kernels, encrypted, each side with a key that the
//! other one knows. The serving node connects; the standby node listens.
//!
//! The leader sends a request and the partner answers it before the next one: a greeting, then batches of the log and
//! heartbeats. [`frame`] defines the format, [`keys`] the authentication, [`sender`] and [`receiver`] the two ends.

pub mod frame;
pub mod keys;
pub mod receiver;
pub mod sender;

use std::time::Duration;

/// The interval of heartbeats of a leader that has nothing to ship.
pub const BEAT: Duration = Duration::from_millis(100);
