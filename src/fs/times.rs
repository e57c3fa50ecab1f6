//! Times that operations on an open do not change, because its client has set or frozen them (MS-FSA 2.1.4.17).
//!
//! LastWriteTime and ChangeTime are restored after the operation; their former values are part of its intent, so a redo
//! restores the same. LastAccessTime does not change at all, by a descriptor with O_NOATIME.

use std::os::fd::AsFd;

use outlast_fsa::fileop::{FileOp, Intent, KeptTimes, OpenId, SetBasic, Times};
use outlast_fsa::status::NtStatus;
use rustix::fs::{AtFlags, CWD, OFlags, Timestamps};

use super::attributes::{self, from_file_time};
use super::errno::status;
use super::opens::OpenFile;
use super::path::fd_path;
use super::set::OMIT;
use super::{Fs, Opens};

impl Fs {
    /// Adds to the intent the times that the operation has to preserve.
    ///
    /// # Errors
    /// As `statx`.
    pub(super) fn keeping(&self, op: &FileOp, intent: Intent) -> Result<Intent, NtStatus> {
        if !op.moves_times() {
            return Ok(intent);
        }
        let open = self.open_file(op.open())?;
        let stopped = match op {
            // It sets what it sets; of the others only ChangeTime changes.
            FileOp::SetBasic { basic, .. } => Times {
                change: basic.stopped(open.stopped).change && basic.change_time.is_none(),
                ..Times::default()
            },
            _ => open.stopped,
        };
        if !stopped.write && !stopped.change {
            return Ok(intent);
        }
        let now = open.metadata()?;
        Ok(Intent::Keeping {
            times: KeptTimes {
                write: stopped.write.then_some(now.last_write_time),
                change: stopped.change.then_some(now.change_time),
            },
            intent: Box::new(intent),
        })
    }
}

impl Opens {
    /// Notes the times that operations on this open no longer change.
    pub(super) fn stop_times(&mut self, id: OpenId, basic: &SetBasic) {
        if let Some(file) = self.known_mut(id) {
            file.stopped = basic.stopped(file.stopped);
        }
        if let Ok(file) = self.get(id) {
            stop_access(file);
        }
    }
}

/// Sets whether the kernel updates the access time on reading.
pub(super) fn stop_access(open: &OpenFile) {
    let Ok(flags) = rustix::fs::fcntl_getfl(&open.fd) else {
        return;
    };
    let mut wanted = flags;
    wanted.set(OFlags::NOATIME, open.stopped.access);
    if wanted != flags
        && !flags.contains(OFlags::PATH)
        && let Err(error) = rustix::fs::fcntl_setfl(&open.fd, wanted)
    {
        // fcntl(2): neither its owner nor privileged.
        log::debug!("{}: its access time cannot be frozen: {error}", open.path);
    }
}

/// Restores the times that an operation has changed, with the server's own rights: setting them was permitted before.
///
/// # Errors
/// As `utimensat` and `setxattr`.
pub(super) fn keep(open: &OpenFile, times: &KeptTimes) -> Result<(), NtStatus> {
    let fd = open.fd.as_fd();
    if let Some(write) = times.write {
        let times = Timestamps {
            last_access: OMIT,
            last_modification: from_file_time(write),
        };
        rustix::fs::utimensat(CWD, fd_path(fd), &times, AtFlags::empty()).map_err(status)?;
    }
    match times.change {
        Some(change) => attributes::write_change(fd, change).map_err(status),
        None => Ok(()),
    }
}
