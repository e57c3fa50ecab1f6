//! Which directories the shares lead to. They are on record, so that no other directory is served in the place of one that is not there, be it
//! an empty mount point.

use log::info;
use outlast_nvram::Kind;
use outlast_smb::fileop::FileKey;
use outlast_smb::{Share, Smb};

use super::files::FileSystem;
use super::machine::Machine;
use super::record::{GLOBAL, Record, Root};

impl<F: FileSystem> Machine<F> {
    /// After the fold, before object 0 is written: says which directories were served before, and takes note of the new ones. Gives the
    /// shares whose path is another one now.
    pub(super) fn know_roots(&mut self) -> Vec<String> {
        let found = self.fs.found_roots();
        let mut known = Vec::new();
        for (id, share) in (0..).zip(self.smb.shares()) {
            let there = found.iter().find(|(found, _)| *found == id);
            let there = there.map(|(_, key)| *key);
            let before = self.journal.global().root(&share.name, share.directory);
            let key = match (before, there) {
                (Some(before), Some(there)) if may_change(&self.smb, share, before, there) => {
                    info!("share {:?}: another directory has its path now", share.name);
                    Some(there)
                }
                (Some(before), _) => {
                    self.fs.expect_root(id, before);
                    Some(before)
                }
                (None, there) => there,
            };
            known.extend(key.map(|key| root(share, key)));
        }
        // Those that came in the meantime are the ones on record.
        self.fs.found_roots();
        let roots = &self.journal.global().roots;
        let is_elsewhere = |before: &&Root| {
            let mut shares = self.smb.shares().iter();
            shares.any(|now| now.name == before.name && now.directory != before.directory)
        };
        let moved = roots.iter().filter(is_elsewhere);
        let moved = moved.map(|root| root.name.clone()).collect();
        self.journal.set_roots(known);
        moved
    }

    /// Puts directories on record that have just been found.
    pub(super) fn note_roots(&mut self) {
        for (id, key) in self.fs.found_roots() {
            let share = self.smb.shares().get(id as usize);
            let Some(share) = share.map(|share| root(share, key)) else {
                continue;
            };
            if self
                .journal
                .global()
                .root(&share.name, share.directory)
                .is_none()
            {
                self.journal
                    .put(GLOBAL, Kind::Delta, &Record::Root(share.clone()), &[]);
                self.journal.note_root(share);
            }
        }
    }
}

fn root(share: &Share, key: FileKey) -> Root {
    Root {
        name: share.name.clone(),
        directory: share.directory,
        key,
    }
}

/// May another directory take the place of the one on record? If nobody uses the share, and both are on one file system: then it is not that
/// the file system is not mounted.
fn may_change(smb: &Smb, share: &Share, before: FileKey, there: FileKey) -> bool {
    there != before && there.dev == before.dev && !smb.uses_share(share)
}
