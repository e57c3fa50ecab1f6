//! The control socket: how `outlast status`, `reboot` and `stop` talk to the running worker. One connection carries one request
//! and one answer, each a line of JSON.

mod protocol;

pub use protocol::{Command, ConnectionStatus, Reply, SmbStatus, Status, TcpStatus};

use crossbeam::channel::Sender;

/// A request on its way to the event loop, with the way back. A dropped `reply` is answered as an error.
#[derive(Debug)]
pub struct ControlRequest {
    /// What is asked.
    pub command: Command,
    /// Where the answer goes: exactly one.
    pub reply: Sender<Reply>,
}
