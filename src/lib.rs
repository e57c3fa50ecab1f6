//! An SMB file server whose sessions outlast the server: command line, configuration, supervisor, event loop, file
//! system access, TAP, control socket. `docs/architecture.md` describes how the parts fit together.

pub mod account;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod discovery;
pub mod fs;
pub mod job_thread;
pub mod logging;
pub mod metrics;
pub mod one_line;
pub mod packet_socket;
pub mod pair;
mod predecessor;
pub mod preflight;
pub mod sandbox;
pub mod server;
mod shared_page;
pub mod supervisor;
pub mod system;
pub mod tap;
pub mod temporary;
pub mod top;
pub mod trace;
pub mod users;
