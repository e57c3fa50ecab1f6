//! Binding the socket: mode 0600, one server at a time, what a dead server left is removed.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

/// Requests that wait while the worker is away.
const BACKLOG: i32 = 64;

/// The bound socket; its name goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

/// Why the socket cannot be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// A live server has it.
    #[error("a server is already running on {}; stop it or name another socket", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no socket.
    #[error("{} exists and is not a socket; remove it or name another path", .path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{} {problem}: {cause}; name a path in a directory the server may write to", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        problem: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
}

impl Listener {
    /// Binds `path`.
    ///
    /// # Errors
    /// A live server has it, something else is there, or the directory cannot be used.
    pub fn bind(path: &Path) -> Result<Listener, BindError> {
        let failed = |problem| {
            move |cause| BindError::Io {
                path: path.to_owned(),
                problem,
                cause,
            }
        };
        if let Some(directory) = path.parent()
            && !directory.exists()
        {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory);
            made.map_err(failed("lies in a directory that cannot be made"))?;
        }
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(BindError::NotASocket {
                    path: path.to_owned(),
                });
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => {
                    return Err(BindError::InUse {
                        path: path.to_owned(),
                    });
                }
                // Nobody listens any more: what a killed server left.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)
                        .map_err(failed("is an old one and cannot be removed"))?;
                }
                Err(error) => return Err(failed("cannot be used")(error)),
            },
            Err(_) => {}
        }
        let socket = bind_private(path).map_err(failed("cannot be bound"))?;
        Ok(Listener {
            socket,
            path: path.to_owned(),
        })
    }
}

/// On Linux the name gets the mode the socket has when it is bound: at no instant can others connect.
fn bind_private(path: &Path) -> io::Result<OwnedFd> {
    let socket = net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        // Supervisor and worker may both accept: neither may be kept waiting by the other.
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
}
