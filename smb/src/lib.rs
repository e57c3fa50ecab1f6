//! Implements an SMB2 and SMB3 server whose sessions can be saved and restored.
//!
//! [`Smb`] holds the durable state of every connection. It changes only through [`Record`]s, each handed to the
//! [`Journal`] and applied by the one `apply`; recovery applies the same records again. [`Smb::step`] takes messages;
//! file operations leave as [`Planned`], final wire bytes as [`Output::sends`].

mod accounts;
mod admission;
mod answered;
pub mod auth;
mod caching;
pub mod command;
pub mod config;
mod conn_status;
pub mod context;
pub mod copying;
pub mod crypto;
mod effects;
mod engine;
pub mod entropy;
mod file_table;
mod held;
pub mod info;
pub mod ioctl;
mod notify;
mod policy;
mod readmission;
pub mod record;
mod recovery;
pub mod rpc;
pub mod server;
mod size;
pub mod state;
mod streams;
pub mod wire;

pub use answered::{Answered, command_name};
pub use config::{Config, FormerShare, Limits, Oplocks, Requirement, Share, User};
pub use conn_status::{ConnStatus, Totals};
pub use context::Context;
pub use engine::ATTEMPTS;
pub use entropy::Entropy;
pub use held::Held;
pub use record::Record;
pub use server::{
    Admit, Clock, ConnId, Journal, OpenInfo, Output, Planned, Principal, Smb, Step, Task, WatchInfo,
};
pub use state::Checkpoint;
pub use wire::Dialect;

#[cfg(test)]
mod tests;
