//! Which directories the shares lead to. They are on record, so that no other directory is served in the place of one that is not there, be it
//! an empty mount point.

use log::info;
use outlast_fsa::fileop::FileKey;
use outlast_smb::{FormerShare, Share, Smb};

use super::files::FileSystem;
use super::machine::Machine;
use super::record::Root;

impl<F: FileSystem> Machine<F> {
    /// After the fold, before object 0 is written: says which directories were served before, and takes note of the new ones. Gives the
    /// shares of the life before.
    pub(super) fn know_roots(&mut self) -> Vec<Root> {
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
        // Those that came in the meantime are the ones on record.
        self.fs.found_roots();
        self.smb.set_offline(self.fs.offline());
        self.journal.set_roots(known)
    }

    /// Puts directories on record that have just been found for the first time.
    pub(super) fn note_roots(&mut self) {
        for (share, key) in self.fs.found_roots() {
            let root = self.journal.global().roots.get(share as usize);
            if root.is_some_and(|root| root.key.is_none()) {
                self.journal.note_root(share, key);
            }
        }
    }
}

/// Shares of the life before as the SMB core knows them.
pub(super) fn former(roots: &[Root]) -> Vec<FormerShare> {
    let former = |root: &Root| FormerShare {
        name: root.name.clone(),
        directory: root.directory,
    };
    roots.iter().map(former).collect()
}

/// Does a share of the life before have another path now?
pub(super) fn has_moved(smb: &Smb, former: &[Root], name: &str) -> bool {
    let before = former.iter().find(|root| root.name == name);
    let now = smb.shares().iter().find(|share| share.name == name);
    before
        .zip(now)
        .is_some_and(|(before, now)| before.directory != now.directory)
}

/// May another directory take the place of the one on record? If nobody uses the share, and both are on one file system: then it is not that
/// the file system is not mounted.
fn may_change(smb: &Smb, share: &Share, before: FileKey, there: FileKey) -> bool {
    there != before && there.dev == before.dev && !smb.uses_share(share)
}
