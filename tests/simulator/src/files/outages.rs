//! Simulates the share's directory, which may be missing for a while.

use std::time::Duration;

use outlast_fsa::fileop::{FileKey, FileOp, ShareId};
use outlast_fsa::status::NtStatus;

use super::Files;
use crate::away::{Away, Instead, OTHER, OWN};
use crate::mutation::Mutation;

/// The state of the share's directory.
#[derive(Debug)]
pub(super) struct Place {
    /// What its path leads to instead, and the end of that time.
    away: Option<(Instead, Duration)>,
    /// The directory that has been opened since the server last asked.
    found: Option<FileKey>,
    /// The directory that was served before.
    expected: Option<FileKey>,
}

impl Place {
    /// Makes the state at the beginning of a life. `is_on_record`: the share's own directory is on record.
    pub(super) fn new(away: Option<Away>, now: Duration, is_on_record: bool) -> Place {
        let away = away.map(|away| {
            let instead = match is_on_record {
                true => away.instead,
                false => Instead::Nothing,
            };
            (instead, now + away.lasts)
        });
        Place {
            away,
            found: leads_to(away),
            expected: None,
        }
    }

    /// Returns whether there is no directory, or another one than the share's own.
    fn is_offline(&self) -> bool {
        let root = leads_to(self.away);
        root.is_none() || (self.expected.is_some() && root != self.expected)
    }
}

/// Returns the directory that the share's path leads to, if there is one.
fn leads_to(away: Option<(Instead, Duration)>) -> Option<FileKey> {
    match away {
        None => Some(OWN),
        Some((Instead::Another, _)) => Some(OTHER),
        Some((Instead::Nothing, _)) => None,
    }
}

impl Files {
    pub(crate) fn is_offline(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_offline)
    }

    /// Looks for the share's directory, as each operation does.
    pub(crate) fn look_for_share(&mut self) {
        let mut disk = self.disk.borrow_mut();
        let Some(place) = &mut self.place else { return };
        if place.away.is_some_and(|(_, until)| disk.time() >= until) {
            place.away = None;
            place.found = Some(OWN);
            disk.share_is_back();
        }
    }

    /// Refuses an operation on a missing share. A CLOSE does not need the directory.
    pub(super) fn is_there(&mut self, op: &FileOp) -> Result<(), NtStatus> {
        self.look_for_share();
        let Some(place) = &self.place else {
            return Ok(());
        };
        if place.away.is_none() {
            self.disk.borrow_mut().serves();
            return Ok(());
        }
        match place.is_offline() {
            _ if matches!(op, FileOp::Close { .. }) => Ok(()),
            // The other directory is empty.
            false => Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            true if self.mutation == Some(Mutation::MissingShareTreatedAsDeleted) => {
                Err(NtStatus::FILE_CLOSED)
            }
            true => Err(NtStatus::IO_DEVICE_ERROR),
        }
    }

    pub(crate) fn take_found(&mut self) -> Option<(ShareId, FileKey)> {
        let found = self.place.as_mut()?.found.take()?;
        Some((self.share, found))
    }

    pub(crate) fn expect(&mut self, share: ShareId, key: FileKey) {
        if let Some(place) = self.place.as_mut().filter(|_| share == self.share) {
            place.expected = Some(key);
            place.found = place.found.filter(|found| *found == key);
        }
    }
}
