//! Local accounts, as the name service knew them last. They are on record, so that a name service that fails after a
//! death, or is not up yet when the machine is, keeps nobody from what was theirs before.

use super::files::FileSystem;
use super::machine::Machine;

impl<F: FileSystem> Machine<F> {
    /// After the fold, before anything is done for a user: says what the name service has answered before.
    pub(super) fn know_accounts(&mut self) {
        for (name, ids) in &self.journal.global().accounts {
            self.fs.expect_account(name, ids);
        }
    }

    /// Puts on record what it has answered since.
    pub(super) fn note_accounts(&mut self) {
        for (name, ids) in self.fs.learnt_accounts() {
            self.journal.note_account(name, ids);
        }
    }
}
