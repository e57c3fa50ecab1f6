//! Records the directories of the shares. They are recorded, so that no other directory is served in place of a missing
//! one, such as an empty mount point.

use log::info;
use outlast_fsa::fileop::FileKey;
use outlast_smb::{FormerShare, Share, Smb};

use super::files::FileSystem;
use super::machine::Machine;
use super::record::Root;

impl<F: FileSystem> Machine<F> {
    /// Restores, after the fold and before object 0 is written, the directories that were served before, and notes the
    /// new ones. Returns the shares of the run before.
    pub(super) fn load_roots(&mut self) -> Vec<Root> {
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
            known.push(Root {
                name: share.name.clone(),
                directory: share.directory,
                key,
            });
        }
        // The directories found in the meantime are the recorded ones.
        self.fs.found_roots();
        self.smb.set_offline(self.fs.offline());
        self.journal.set_roots(known)
    }

    /// Records directories that have been found for the first time.
    pub(super) fn note_roots(&mut self) {
        for (share, key) in self.fs.found_roots() {
            let root = self.journal.global().roots.get(share as usize);
            if root.is_some_and(|root| root.key.is_none()) {
                self.journal.note_root(share, key);
            }
        }
    }
}

/// The shares of the run before, for the SMB core.
pub(super) fn former(roots: &[Root]) -> Vec<FormerShare> {
    let former = |root: &Root| FormerShare {
        name: root.name.clone(),
        directory: root.directory,
    };
    roots.iter().map(former).collect()
}

/// Returns whether a share of the run before has another path now.
pub(super) fn has_moved(smb: &Smb, former: &[Root], name: &str) -> bool {
    let before = former.iter().find(|root| root.name == name);
    let now = smb.shares().iter().find(|share| share.name == name);
    before
        .zip(now)
        .is_some_and(|(before, now)| before.directory != now.directory)
}

/// Returns whether another directory may replace the recorded one: nothing of the share is open, and both are on one
/// file system, so that a missing mount cannot be the reason.
fn may_change(smb: &Smb, share: &Share, before: FileKey, there: FileKey) -> bool {
    there != before && there.dev == before.dev && !smb.uses_share(share)
}
