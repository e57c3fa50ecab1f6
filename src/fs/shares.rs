//! Opens the directories of the shares. A share whose directory is missing, or is not the one that was served before,
//! is offline: requests for it are refused until it is available again.

use log::{error, info};
use outlast_fsa::fileop::{FileKey, ShareId};
use outlast_fsa::status::NtStatus;
use rustix::fs::{Mode, OFlags, Statx};

use super::path::{self, Root};
use super::{ShareRoot, attributes, volume};

/// All shares, by their ids.
pub struct Shares {
    all: Vec<Place>,
    /// Directories that have been opened, until they are in the log.
    found: Vec<(ShareId, FileKey)>,
}

struct Place {
    share: ShareRoot,
    /// `None`: the share is offline.
    root: Option<Root>,
    /// The directory that was served before.
    expected: Option<FileKey>,
    /// The logged reason why it is offline.
    logged: Option<String>,
}

impl Shares {
    /// Opens the shares' directories; a [`ShareId`] is the index in `shares`.
    #[must_use]
    pub fn open(shares: &[ShareRoot]) -> Shares {
        let place = |share: &ShareRoot| Place {
            share: share.clone(),
            root: None,
            expected: None,
            logged: None,
        };
        let mut all = Shares {
            all: shares.iter().map(place).collect(),
            found: Vec::new(),
        };
        for share in all.ids() {
            all.retry_offline(share);
        }
        all
    }

    /// Every share.
    pub fn ids(&self) -> impl Iterator<Item = ShareId> + use<> {
        0..ShareId::try_from(self.all.len()).unwrap_or(ShareId::MAX)
    }

    /// A share's directory.
    ///
    /// # Errors
    /// BAD_NETWORK_NAME: there is no such share. IO_DEVICE_ERROR: it is offline.
    pub fn get(&self, share: ShareId) -> Result<&Root, NtStatus> {
        let place = self.all.get(share as usize);
        let place = place.ok_or(NtStatus::BAD_NETWORK_NAME)?;
        place.root.as_ref().ok_or(NtStatus::IO_DEVICE_ERROR)
    }

    /// The shares that are offline.
    pub fn offline(&self) -> impl Iterator<Item = ShareId> {
        let all = self.ids().zip(&self.all);
        all.filter(|(_, place)| place.root.is_none())
            .map(|(share, _)| share)
    }

    /// Returns the directories that have been opened since the last call.
    pub fn take_found(&mut self) -> Vec<(ShareId, FileKey)> {
        std::mem::take(&mut self.found)
    }

    /// Notes that this directory was served before, so that no other is served.
    pub fn expect(&mut self, share: ShareId, key: FileKey) {
        let Some(place) = self.all.get_mut(share as usize) else {
            return;
        };
        place.expected = Some(key);
        place.root = place.root.take().filter(|root| is_the_one(root, &key));
        if place.root.is_none() {
            self.retry_offline(share);
        }
    }

    /// Opens the directory of an offline share, if it is available again. True: it is now.
    pub fn retry_offline(&mut self, share: ShareId) -> bool {
        let Some(place) = self.all.get_mut(share as usize) else {
            return false;
        };
        if place.root.is_some() {
            return false;
        }
        match place.open(share) {
            Ok(root) => {
                root.weaker().for_each(|line| info!("{line}"));
                self.found.push((share, root.key));
                place.root = Some(root);
                true
            }
            Err(why) => {
                self.take_offline(share, &format!("{why:#}"));
                false
            }
        }
    }

    /// Returns whether the path of a share leads to the open directory by another mount than the open one.
    #[must_use]
    pub fn is_mounted_again(&self, share: ShareId) -> bool {
        let Ok(root) = self.get(share) else {
            return false;
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let there = rustix::fs::open(&root.path, flags, Mode::empty());
        let there = there.and_then(|dir| path::stat(&dir));
        let open = path::stat(&root.dir);
        let is_other = |there: &Statx| {
            open.is_ok_and(|open| volume::place(&open) != volume::place(there))
                && attributes::key(there) == root.key
        };
        there.is_ok_and(|there| is_other(&there))
    }

    /// Notes that an offline share is served again.
    pub fn note_available(&mut self, share: ShareId) {
        let place = self.all.get_mut(share as usize);
        if let Some(place) = place.filter(|place| place.logged.is_some()) {
            place.logged = None;
            info!(
                "{}: the share is available again",
                place.share.path.display()
            );
        }
    }

    /// Takes a share offline, for this reason.
    pub fn take_offline(&mut self, share: ShareId, why: &str) {
        let Some(place) = self.all.get_mut(share as usize) else {
            return;
        };
        place.root = None;
        if place.logged.as_deref() != Some(why) {
            error!("{why}; requests for this share are refused until this is fixed");
            place.logged = Some(why.to_owned());
        }
    }
}

impl Place {
    fn open(&self, share: ShareId) -> anyhow::Result<Root> {
        let ShareRoot {
            path,
            read_only,
            run_as,
        } = &self.share;
        let root = path::open_root(share, path, *read_only, run_as.clone())?;
        // It can be entered, and has a parent: a directory that was removed has none.
        root.open_disk(b"", OFlags::PATH)?;
        anyhow::ensure!(
            self.expected.is_none_or(|key| is_the_one(&root, &key)),
            "{} is not the directory that was served before, nor on its file system if that is not mounted (to serve \
             it all the same, end the sessions with `outlast stop` and start the server again)",
            path.display()
        );
        Ok(root)
    }
}

/// Returns whether it is the directory with this key. Where inode numbers are not stable, only its file system is
/// compared.
fn is_the_one(root: &Root, key: &FileKey) -> bool {
    use std::os::fd::AsFd as _;
    root.key == *key || root.key.dev == key.dev && !volume::keeps_inodes(root.dir.as_fd())
}
