//! TCP/IP whose connections can be saved and restored.
//!
//! Pure: `(frame, now) -> (records, frames)`. No I/O, no clock, no randomness, no globals. smoltcp provides the wire
//! formats and everything that is not TCP (`link`); the TCP is our own (`tcp`), since its state has to be the fold of
//! its records.
//!
//! Time is *service time*: it stands still during an outage and never runs backwards.

pub mod addressing;
mod config;
pub mod device;
mod event;
mod frame;
mod journal;
mod link;
mod listener;
mod stack;
mod tcp;

pub use config::Config;
pub use event::{ConnStatus, Event, Standing, Trouble, Usage, Why};
pub use frame::{Capabilities, Offload, Path, RxChecksum, RxFrame, TxFrame};
pub use journal::{ConnId, Journal};
pub use link::{Counters, Datagram, MAX_ADDRESSES};
pub use stack::{Lost, Stack};
pub use tcp::record::{Checkpoint, Options, Promise, Record, State};
pub use tcp::seq::Seq;
pub use tcp::tcb::Durable;
pub use tcp::window::Holding;
