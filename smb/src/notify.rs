//! Puts changes on record for the directory watches that report them (MS-FSA 2.1.4.1).

use crate::held::Held;
use crate::record::Record;
use crate::server::{Journal, Smb};
use crate::size;
use outlast_fsa::fileop::{Change, ChangeKind};
use outlast_fsa::notify::{MAX_NOTICES, action, notices};
use outlast_fsa::path;

impl Smb {
    /// Adds a change to every watch that reports it.
    pub(crate) fn publish(&mut self, change: &Change, journal: &mut dyn Journal) {
        if !self.files.has_watches() {
            return;
        }
        let watches: Vec<_> = self.files.watches().collect();
        for (conn, id) in watches {
            let Some(open) = self.connection(conn).opens.get(&id) else {
                continue;
            };
            let Some(file) = self.file(conn, id) else {
                continue;
            };
            let Some(watch) = &file.watch else { continue };
            if open.actor.share != change.share || watch.overflow {
                continue;
            }
            let lost = matches!(change.kind, ChangeKind::Overflow)
                && (path::below(&file.path, &change.path).is_some()
                    || path::below(&change.path, &file.path).is_some()
                    || change.path == file.path);
            let mut notices = notices(watch, &file.path, change);
            if let (Some(last), [only]) = (watch.notices.back(), notices.as_slice())
                && last == only
                && only.action == action::MODIFIED
            {
                // An equal notice that is still unreported makes this one redundant.
                notices.clear();
            }
            let count = watch.notices.len() + notices.len();
            let more = Held::bytes(notices.iter().map(size::notice).sum());
            let overflow =
                lost || count > MAX_NOTICES || !notices.is_empty() && !self.may_take(conn, more);
            if overflow || !notices.is_empty() {
                let record = Record::Noticed {
                    open: id,
                    notices,
                    overflow,
                };
                self.emit(conn, record, journal);
            }
        }
    }
}
