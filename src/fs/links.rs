//! Absolute symbolic links, which the kernel does not follow beneath a share's directory.
//!
//! `openat2` with RESOLVE_BENEATH refuses an absolute link wherever it leads. This module only finds a path without
//! links, which is opened by the same `openat2`, so that no concurrent change can lead outside the share.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::attributes::file_type;
use super::path::{Root, fd_path, open_beneath, stat};

/// The largest number of links in one path, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The names of a path, without empty ones and ".".
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    let names = path.split(|&byte| byte == b'/');
    names
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
}

impl Root {
    /// Resolves a path beneath the share to one without links, following absolute links that stay in the share.
    ///
    /// # Errors
    /// XDEV if it leads outside the share; LOOP if there are too many links; as `openat2`.
    pub(super) fn without_links(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut left: VecDeque<Vec<u8>> = components(path).collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == b".." {
                done.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            done.push(name);
            let Some(target) = self.link_at(&done.join(&b'/'))? else {
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP);
            }
            done.pop();
            let relative = if target.starts_with(b"/") {
                done.clear();
                self.beneath(&target).ok_or(Errno::XDEV)?
            } else {
                target.as_slice()
            };
            for name in components(relative).rev() {
                left.push_front(name);
            }
        }
        Ok(done.join(&b'/'))
    }

    /// The target of the symbolic link at a path without links before it; `None` if something else or nothing is there.
    fn link_at(&self, path: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let found = match open_beneath(self.dir.as_fd(), path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            found => found?,
        };
        if file_type(&stat(&found)?) != FileType::Symlink {
            return Ok(None);
        }
        let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
        Ok(Some(target.into_bytes()))
    }

    /// The part of an absolute path that is beneath the share's directory, as the configuration or the kernel names it.
    fn beneath<'a>(&self, target: &'a [u8]) -> Option<&'a [u8]> {
        let named = self.path.as_os_str().as_bytes().to_vec();
        let real = rustix::fs::readlink(fd_path(self.dir.as_fd()), Vec::new());
        let real = real.map(std::ffi::CString::into_bytes).unwrap_or_default();
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        [named, real]
            .iter()
            .filter(|root| !root.is_empty())
            .find_map(|root| {
                let rest = target
                    .strip_prefix(std::ffi::OsStr::from_bytes(root))
                    .ok()?;
                Some(rest.as_os_str().as_bytes())
            })
    }
}
