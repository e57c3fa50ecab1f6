//! The supervisor: holds the TAP and the control socket, starts the worker again when it ends. It never sends a frame.

pub mod worker;

pub use worker::{End, PreviousEnd, Report, Worker, WorkerArgs};
