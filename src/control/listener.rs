//! Binds the socket: mode 0600, one server at a time; a dead server's socket is removed.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

/// The number of requests that wait while no worker runs.
const BACKLOG: i32 = 64;

/// The bound socket; its name is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

/// Why the socket cannot be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// A running server has it.
    #[error("a server is already running on {}; stop it or name another socket", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The file is not a socket.
    #[error("{} exists and is not a socket; remove it or name another path", .path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Another error.
    #[error("{} {problem}: {cause}; name a path in a directory the server may write to", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The failed action.
        problem: &'static str,
        /// Its cause.
        cause: io::Error,
    },
}

impl Listener {
    /// Binds `path`.
    ///
    /// # Errors
    /// A running server has it, another file is there, or the directory cannot be used.
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
                // Nothing listens any more: it is a killed server's.
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

/// On Linux the name gets the mode that the socket has when it is bound: at no instant can others connect.
fn bind_private(path: &Path) -> io::Result<OwnedFd> {
    let socket = net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        // Supervisor and worker may both accept, and neither may keep the other waiting.
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
