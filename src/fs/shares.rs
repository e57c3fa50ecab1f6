//! The directories of the shares. One that is not there, or is not the one that was served before, is offline: requests for it are refused
//! until it is back.

use log::{error, info};
use outlast_fsa::fileop::{FileKey, ShareId};
use outlast_fsa::status::NtStatus;
use rustix::fs::{Mode, OFlags, Statx};

use super::path::{self, Root};
use super::{ShareRoot, attributes, volume};

/// All shares, by their ids.
pub struct Shares {
    all: Vec<Place>,
    /// Directories that have been opened, until the log has them.
    found: Vec<(ShareId, FileKey)>,
}

struct Place {
    share: ShareRoot,
    /// `None`: it is offline.
    root: Option<Root>,
    /// The directory that was served before.
    expected: Option<FileKey>,
    /// Why it is offline, as the server's log says.
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
            all.mark_ready(share);
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

    /// Which directories have been opened since the last call.
    pub fn take_found(&mut self) -> Vec<(ShareId, FileKey)> {
        std::mem::take(&mut self.found)
    }

    /// This directory was served before, and no other is to be served.
    pub fn expect(&mut self, share: ShareId, key: FileKey) {
        let Some(place) = self.all.get_mut(share as usize) else {
            return;
        };
        place.expected = Some(key);
        place.root = place.root.take().filter(|root| is_the_one(root, &key));
        if place.root.is_none() {
            self.mark_ready(share);
        }
    }

    /// Opens the directory of a share that is offline, if it is there again. True: it has just come.
    pub fn mark_ready(&mut self, share: ShareId) -> bool {
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
                self.set_aside(share, &format!("{why:#}"));
                false
            }
        }
    }

    /// Does the path of a share lead to the directory that is open, but by another mount than that?
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

    /// A share that was offline is served again.
    pub fn welcome(&mut self, share: ShareId) {
        let place = self.all.get_mut(share as usize);
        if let Some(place) = place.filter(|place| place.logged.is_some()) {
            place.logged = None;
            info!("{}: the share is there again", place.share.path.display());
        }
    }

    /// A share is offline, for this reason.
    pub fn set_aside(&mut self, share: ShareId, why: &str) {
        let Some(place) = self.all.get_mut(share as usize) else {
            return;
        };
        place.root = None;
        if place.logged.as_deref() != Some(why) {
            error!("{why}; requests for this share are refused until that is right");
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
        // It can be entered, and has a parent by which it is there: a directory that was removed has none.
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

/// Is it the directory with this key? Where inode numbers do not last, its file system has to do.
fn is_the_one(root: &Root, key: &FileKey) -> bool {
    use std::os::fd::AsFd as _;
    root.key == *key || root.key.dev == key.dev && !volume::keeps_inodes(root.dir.as_fd())
}
