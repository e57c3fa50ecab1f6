//! Local accounts, as the name service last knew them. They are recorded, so that a name service that fails after a
//! crash, or is not running yet when the machine is, denies no user what was theirs before.

use super::files::FileSystem;
use super::machine::Machine;

impl<F: FileSystem> Machine<F> {
    /// Restores the recorded answers of the name service, after the fold and before anything is done for a user.
    pub(super) fn load_accounts(&mut self) {
        for (name, ids) in &self.journal.global().accounts {
            self.fs.expect_account(name, ids);
        }
    }

    /// Records the answers since.
    pub(super) fn note_accounts(&mut self) {
        for (name, ids) in self.fs.learnt_accounts() {
            self.journal.note_account(name, ids);
        }
    }
}
