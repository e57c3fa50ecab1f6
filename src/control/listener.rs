//! Binding the socket: mode 0600, one server at a time, what a dead server left is removed.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Requests that wait while the worker is away.
const BACKLOG: i32 = 64;

/// The bound socket; its name goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`.
    ///
    /// # Errors
    /// A live server has it, something else is there, or the directory cannot be used.
    pub fn bind(path: &Path) -> anyhow::Result<Listener> {
        let shown = path.display();
        if let Some(directory) = path.parent()
            && !directory.exists()
        {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .with_context(|| {
                    format!(
                        "server.control_socket: {} cannot be made",
                        directory.display()
                    )
                })?;
        }
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                bail!(
                    "server.control_socket: {shown} exists and is not a socket; remove it or name another path"
                )
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => bail!(
                    "server.control_socket: a server is already running on {shown}; stop it or name another socket"
                ),
                // Nobody listens any more: what a killed server left.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).with_context(|| {
                        format!("server.control_socket: the old {shown} cannot be removed")
                    })?
                }
                Err(error) => bail!(
                    "server.control_socket: {shown} cannot be used: {error}; name another path"
                ),
            },
            Err(_) => {}
        }
        let socket = bind_private(path).with_context(|| {
            format!(
                "server.control_socket: {shown} cannot be bound; name a path in a directory the server may write to"
            )
        })?;
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
        SocketFlags::CLOEXEC,
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
