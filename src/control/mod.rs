//! Implements the control socket, by which `outlast status`, `reboot` and `stop` communicate with the running worker.
//! One connection carries one request and one answer, each a line of JSON.
//!
//! The supervisor binds the [`Listener`] and keeps it, so that requests wait while no worker runs. The worker
//! [`serve`]s it on a thread, which passes requests to the event loop. [`client`] is the command line's side.

pub mod client;
mod listener;
pub(crate) mod probe;
mod protocol;
mod server;
#[cfg(test)]
mod tests;

pub use listener::{BindError, Listener};
pub use probe::PROBE_ANSWER;
pub use protocol::{
    ActivityStatus, AssignedStatus, Command, ComparedStatus, ConnectionStatus, LinkStatus,
    LogStatus, Outage, PairStatus, ReceiveStatus, Reply, Serves, SmbStatus, StandbyStatus, Status,
    TcpStatus,
};
pub use server::{
    Answers, ControlRequest, Gate, Submit, answer, metrics_of, relay, serve, stand_in,
};

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Reads one line, without its end: at most `limit_bytes`, and before `deadline`.
fn read_line(
    stream: &mut UnixStream,
    limit_bytes: usize,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        };
        let got = buffer.get(..n).unwrap_or_default();
        match got.iter().position(|byte| *byte == b'\n') {
            Some(end) => line.extend_from_slice(got.get(..end).unwrap_or_default()),
            None => line.extend_from_slice(got),
        }
        if line.len() > limit_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the line is too long",
            ));
        }
        if got.contains(&b'\n') {
            return Ok(line);
        }
    }
}

/// Writes one line before `deadline`.
fn write_line(stream: &mut UnixStream, mut line: Vec<u8>, deadline: Instant) -> io::Result<()> {
    line.push(b'\n');
    let mut left = line.as_slice();
    while !left.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => left = left.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The remaining time; never zero, which a socket takes for "no timeout".
fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}
