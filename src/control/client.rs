//! Implements the command line's side of the control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::protocol::{Command, Reply};
use super::{read_line, write_line};

/// The longest answer, in bytes: the status of very many connections.
const REPLY_MAX_BYTES: usize = 256 << 20;

/// Why there was no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// Nothing listens.
    #[error("no server is running on {}; start it with `outlast serve`, or name its configuration with \
        --config", .0.display())]
    NotRunning(PathBuf),
    /// This account has no access.
    #[error("{} may not be used by this account; run as the account the server runs as", .0.display())]
    NoPermission(PathBuf),
    /// No answer in time.
    #[error("the server on {} does not answer; see its log", .0.display())]
    NoAnswer(PathBuf),
    /// The connection ended before the answer was complete.
    #[error("the server ended the connection: {0}; see its log")]
    Ended(io::Error),
    /// The answer is malformed.
    #[error(
        "the server's answer is unknown to this version: {0}; use the server's own version of this command"
    )]
    NotUnderstood(#[from] serde_json::Error),
    /// The server refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends a request and waits for the answer. [`Reply::Refused`] becomes an error.
///
/// # Errors
/// There was no answer, or it was a refusal.
pub fn request(socket: &Path, command: &Command, timeout: Duration) -> Result<Reply, Error> {
    let deadline = Instant::now() + timeout;
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::NotRunning(socket.to_owned())
        }
        io::ErrorKind::PermissionDenied => Error::NoPermission(socket.to_owned()),
        _ => Error::Ended(error),
    })?;
    let talk = |stream: &mut UnixStream| -> io::Result<Vec<u8>> {
        write_line(stream, serde_json::to_vec(command)?, deadline)?;
        read_line(stream, REPLY_MAX_BYTES, deadline)
    };
    let line = talk(&mut stream).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Error::NoAnswer(socket.to_owned()),
        _ => Error::Ended(error),
    })?;
    match serde_json::from_slice(&line)? {
        Reply::Refused { reason } => Err(Error::Refused(reason)),
        reply => Ok(reply),
    }
}
