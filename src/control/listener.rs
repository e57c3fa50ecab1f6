//! Binding the socket: mode 0600, one server at a time, what a dead server left is removed.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::Mode;

/// The bound socket; its name goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`. To be called while there is one thread: the file mode mask is the process's.
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
                .with_context(|| format!("server.control_socket: {} cannot be made", directory.display()))?;
        }
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                bail!("server.control_socket: {shown} exists and is not a socket; remove it or name another path")
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => bail!(
                    "server.control_socket: a server is already running on {shown}; stop it or name another socket"
                ),
                // Nobody listens any more: what a killed server left.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
                    .with_context(|| format!("server.control_socket: the old {shown} cannot be removed"))?,
                Err(error) => bail!("server.control_socket: {shown} cannot be used: {error}; name another path"),
            },
            Err(_) => {}
        }
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let socket = UnixListener::bind(path);
        rustix::process::umask(before);
        Ok(Listener {
            socket: socket.with_context(|| {
                format!("server.control_socket: {shown} cannot be bound; name a path in a directory the server may write to")
            })?,
            path: path.to_owned(),
        })
    }
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
