//! Makes requests fail once, at moments drawn from the seed; their clients send them again.
//!
//! A failure belongs to a request and not to a step, so that a run with a crash and one without are answered alike.
//! Until the client has received the error, the disk fails each time that the request needs it, in any life of the
//! server. Then the client sends the same request again, and the judge's verdict on it must be right, as if nothing had
//! failed. The client sends nothing else meanwhile, so that it is certain which request is meant.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use outlast_fsa::fileop::FileOp;

use crate::faults;
use crate::random::Random;
use crate::status;
use crate::workload::Verb;

/// The part of a request that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The look before the intent is on record (`prepare`).
    Prepare,
    /// The operation itself, after its intent is on record (`perform`).
    Perform,
    /// A copy of several chunks, after its first chunk.
    Rest,
    /// The opening of a file that was open before a crash, if it has not been opened again yet.
    Reopen,
    /// The name service. The server needs no name service for an account that it has looked up since it began.
    NameService,
}

/// A failure of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFailure {
    /// The part that fails.
    pub what: What,
    /// The error.
    pub status: u32,
}

/// Returns whether requests of this seed's clients fail once: in one of twelve usual scenarios and one of four small
/// ones.
#[must_use]
pub fn is_of(seed: u64) -> bool {
    matches!(seed % 16, 0 | 3)
}

impl RequestFailure {
    /// Draws the failure of this request, if it has one.
    #[must_use]
    pub fn pick(verb: &Verb, random: &mut Random) -> Option<RequestFailure> {
        use What::{NameService, Perform, Prepare, Reopen, Rest};
        let (drawn, is_chosen) = (random.draw(), random.percent(40));
        let is_new = matches!(verb, Verb::Create { .. });
        let by_account = is_new || matches!(verb, Verb::Rename { .. } | Verb::Link { .. });
        let can_fail = by_account
            || matches!(
                verb,
                Verb::Read { .. }
                    | Verb::Write { .. }
                    | Verb::SetEnd { .. }
                    | Verb::SetTime { .. }
                    | Verb::Walk { .. }
                    | Verb::Stat { .. }
                    | Verb::Copy { .. }
                    | Verb::Dispose { .. }
            );
        let what = match random.below(4) {
            _ if !(is_chosen && can_fail) => return None,
            _ if has_chunks_of_another_file(verb) => Rest,
            0 => Prepare,
            1 => Perform,
            2 if by_account => NameService,
            _ if is_new => NameService,
            // After a crash the first page may have been sent already, and the client would repeat the request for the
            // rest only.
            _ if matches!(verb, Verb::Walk { .. }) => Prepare,
            _ => Reopen,
        };
        let index = drawn as usize;
        let transient = [
            status::IO_DEVICE_ERROR,
            status::TOO_MANY_OPENED_FILES,
            status::ACCESS_DENIED,
        ];
        let status = match what {
            NameService => status::ACCESS_DENIED,
            // FILE_CLOSED is left out: the server correctly treats such a file as deleted.
            Reopen => transient[index % transient.len()],
            Prepare | Perform | Rest => faults::STATUSES[index % faults::STATUSES.len()],
        };
        Some(RequestFailure { what, status })
    }
}

#[derive(Debug)]
struct Request {
    verb: Verb,
    failure: RequestFailure,
    has_failed: bool,
    /// It has failed in this life of the server.
    has_just_failed: bool,
    /// The number of failures of its redo in this life.
    redo_failures: u32,
}

/// The maximum number of failures of a redo after a crash: the server repeats the redo, and the client does not notice.
const REDO_FAILURES: u32 = 2;

/// The failure of a request, as the disk has recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The error.
    pub status: u32,
    /// The client must receive the error. Otherwise the server may have recovered from it: the request failed in an
    /// earlier life, and by now the file may be open, or the account known.
    pub must_be_reported: bool,
}

/// The requests in progress that fail once, by client. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct FailingRequests(Rc<RefCell<BTreeMap<usize, Request>>>);

impl FailingRequests {
    /// Notes that a client sends a request that fails once.
    pub fn begin(&self, client: usize, verb: Verb, failure: RequestFailure) {
        let request = Request {
            verb,
            failure,
            has_failed: false,
            has_just_failed: false,
            redo_failures: 0,
        };
        self.0.borrow_mut().insert(client, request);
    }

    /// Removes a request that has been answered, and returns its failure, if it has failed.
    #[must_use]
    pub fn end(&self, client: usize) -> Option<Failed> {
        let request = self.0.borrow_mut().remove(&client)?;
        let always = !matches!(request.failure.what, What::Reopen | What::NameService);
        request.has_failed.then_some(Failed {
            status: request.failure.status,
            must_be_reported: always || request.has_just_failed,
        })
    }

    /// Notes the death of the server.
    pub fn killed(&self) {
        for request in self.0.borrow_mut().values_mut() {
            request.has_just_failed = false;
            request.redo_failures = 0;
        }
    }

    /// Returns whether a copy to this file stops after its first chunk.
    #[must_use]
    pub fn stops_after_a_chunk(&self, path: Option<&str>) -> bool {
        let requests = self.0.borrow();
        let request = path.and_then(client_of).and_then(|it| requests.get(&it));
        request.is_some_and(|request| request.failure.what == What::Rest)
    }

    /// Returns the error of this part of an operation, if it fails. `path`: the path of its file. `is_redo`: its intent
    /// is on record from an earlier life.
    #[must_use]
    pub fn meet(&self, what: What, op: &FileOp, path: &str, is_redo: bool) -> Option<u32> {
        let mut requests = self.0.borrow_mut();
        let request = requests.get_mut(&client_of(path)?)?;
        if request.failure.what != what || !needs(op, &request.verb) {
            return None;
        }
        if what == What::Rest && !is_rest(op, &request.verb) {
            return None;
        }
        if is_redo {
            request.redo_failures += 1;
            return (request.redo_failures <= REDO_FAILURES).then_some(request.failure.status);
        }
        request.has_failed = true;
        request.has_just_failed = true;
        Some(request.failure.status)
    }
}

/// Returns whether it is a part of a copy that is not its beginning.
fn is_rest(op: &FileOp, verb: &Verb) -> bool {
    match (verb, op) {
        (Verb::Copy { chunks: all, .. }, FileOp::CopyChunks { chunks, .. }) => {
            chunks.len() < all.len()
        }
        _ => false,
    }
}

/// Returns the client in whose directory a path is.
fn client_of(path: &str) -> Option<usize> {
    let home = path.split('/').next()?;
    home.strip_prefix('c')?.parse().ok()
}

/// Returns whether it is a copy of several chunks from another file. A copy within one file could not be repeated: a
/// part of its source may have been overwritten.
fn has_chunks_of_another_file(verb: &Verb) -> bool {
    match verb {
        Verb::Copy {
            source,
            target,
            chunks,
        } => source != target && chunks.len() > 1,
        _ => false,
    }
}

/// Returns whether the request needs this operation.
fn needs(op: &FileOp, verb: &Verb) -> bool {
    match (verb, op) {
        (Verb::Create { path, .. }, FileOp::Create(create)) => create.path == *path,
        (Verb::Read { .. }, FileOp::Read { .. })
        | (Verb::Write { .. }, FileOp::Write { .. })
        | (Verb::SetEnd { .. }, FileOp::SetEndOfFile { .. })
        | (Verb::SetTime { .. }, FileOp::SetBasic { .. })
        | (Verb::Rename { .. }, FileOp::Rename { .. })
        | (Verb::Link { .. }, FileOp::Link { .. })
        | (Verb::Walk { .. }, FileOp::QueryDirectory { .. })
        | (Verb::Stat { .. }, FileOp::Stat { .. })
        | (Verb::Copy { .. }, FileOp::CopyChunks { .. })
        | (Verb::Dispose { .. }, FileOp::CheckDelete { .. }) => true,
        _ => false,
    }
}
