//! Markers of the last name change that reached a file system (durability `power`).
//!
//! Each share's directory holds a hidden file whose extended attribute is set to an effect's number right after the
//! effect. A journalling file system keeps the order of such changes, so after a power cut the marker tells which
//! effects are still there.

use std::io;
use std::os::fd::OwnedFd;

use outlast_fsa::fileop::ShareId;
use rustix::fs::{
    FlockOperation, Mode, OFlags, XattrFlags, fgetxattr, flock, fsetxattr, fstat, openat,
};
use rustix::io::Errno;

use super::names;
use super::path::Root;
use super::shares::Shares;

/// The number, 8 bytes, little-endian.
const ATTRIBUTE: &str = "user.outlast.marker";

struct Marker {
    file: OwnedFd,
    /// Device and inode.
    which: (u64, u64),
    number: u64,
}

/// The markers of all shares, each opened on first use. Shares of one directory have one.
#[derive(Default)]
pub struct Markers {
    all: Vec<Marker>,
    of_share: Vec<Option<usize>>,
}

impl Markers {
    /// Records that every effect of `share` on names up to this number has been done.
    ///
    /// # Errors
    /// The file cannot be made, is another server's, or the file system has no extended attributes.
    pub fn set(&mut self, roots: &Shares, share: ShareId, number: u64) -> io::Result<()> {
        let marker = self.of(roots, share)?;
        if number > marker.number {
            fsetxattr(
                &marker.file,
                ATTRIBUTE,
                &number.to_le_bytes(),
                XattrFlags::empty(),
            )?;
            marker.number = number;
        }
        Ok(())
    }

    /// Returns the number; 0 if there is none.
    ///
    /// # Errors
    /// As [`Markers::set`].
    pub fn get(&mut self, roots: &Shares, share: ShareId) -> io::Result<u64> {
        Ok(self.of(roots, share)?.number)
    }

    /// Forgets the marker of a share whose file system was mounted again, and that of any share with the same one.
    pub fn forget(&mut self, share: ShareId) {
        let of_share = self.of_share.get(share as usize).copied().flatten();
        let Some(gone) = of_share else { return };
        self.all.remove(gone);
        for at in &mut self.of_share {
            *at = match *at {
                Some(at) if at > gone => Some(at - 1),
                Some(at) if at == gone => None,
                at => at,
            };
        }
    }

    fn of(&mut self, roots: &Shares, share: ShareId) -> Result<&mut Marker, Errno> {
        let index = share as usize;
        if self.of_share.len() <= index {
            self.of_share.resize(index + 1, None);
        }
        let at = match self.of_share.get(index) {
            Some(Some(at)) => *at,
            _ => {
                let at = self.open(roots.get(share).map_err(|_| Errno::IO)?)?;
                self.of_share[index] = Some(at);
                at
            }
        };
        self.all.get_mut(at).ok_or(Errno::NOENT)
    }

    fn open(&mut self, root: &Root) -> Result<usize, Errno> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&root.dir, names::MARKER, flags, mode)?;
        let stat = fstat(&file)?;
        let which = (stat.st_dev, stat.st_ino);
        if let Some(at) = self.all.iter().position(|marker| marker.which == which) {
            return Ok(at);
        }
        // Two servers that number their effects independently would spoil each other's markers.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut number = [0; 8];
        let number = match fgetxattr(&file, ATTRIBUTE, &mut number) {
            Ok(8) => u64::from_le_bytes(number),
            Ok(_) | Err(Errno::NODATA) => 0,
            Err(error) => return Err(error),
        };
        self.all.push(Marker {
            file,
            which,
            number,
        });
        Ok(self.all.len() - 1)
    }
}
