//! Errors at seeded moments: a request fails once, and its client asks again.
//!
//! A trouble belongs to a request and not to a step, so that a run with a crash and one without are answered alike.
//! Until the client has been told of the error, the disk fails each time that it is asked for what the request needs,
//! in whatever life of the server that is. Then the client sends the same request again, and the judge's verdict on it
//! must be right, as if nothing had failed. A client sends nothing else meanwhile, so there is no doubt about which
//! request is meant.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use outlast_fsa::fileop::FileOp;

use crate::faults;
use crate::random::Random;
use crate::status;
use crate::workload::Verb;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The look before the intent is on record.
    Prepare,
    /// The operation itself, when its intent is on record.
    Perform,
    /// A copy of several chunks, when the first one has been copied.
    Rest,
    /// The opening of a file that was open before a crash, if it has not been opened again yet.
    Reopen,
    /// The name service. An account that has been looked up since the server began is known without it.
    NameService,
}

/// A failure of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What fails.
    pub what: What,
    /// With which error.
    pub status: u32,
}

/// Do requests of this seed's clients fail once? Of sixteen usual scenarios one is so, and one of four small ones.
#[must_use]
pub fn is_of(seed: u64) -> bool {
    matches!(seed % 16, 0 | 3)
}

impl Trouble {
    /// One for this request, or none.
    #[must_use]
    pub fn pick(verb: &Verb, random: &mut Random) -> Option<Trouble> {
        use What::{NameService, Perform, Prepare, Reopen, Rest};
        let (drawn, is_struck) = (random.draw(), random.percent(40));
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
            _ if !(is_struck && can_fail) => return None,
            _ if has_chunks_of_another_file(verb) => Rest,
            0 => Prepare,
            1 => Perform,
            2 if by_account => NameService,
            _ if is_new => NameService,
            // After a crash its first page may have come by then, and the client would ask for the rest only.
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
            // A file that is said to be gone is taken for gone, and rightly so.
            Reopen => transient[index % transient.len()],
            Prepare | Perform | Rest => faults::STATUSES[index % faults::STATUSES.len()],
        };
        Some(Trouble { what, status })
    }
}

#[derive(Debug)]
struct Request {
    verb: Verb,
    trouble: Trouble,
    has_failed: bool,
    /// In this life of the server.
    has_just_failed: bool,
    /// So often what was under way when the server died has failed in this life.
    redo_failures: u32,
}

/// What was under way when the server died fails so often, at most: it is tried again, and its client is not told.
const REDO_FAILURES: u32 = 2;

/// A request that has failed, as the disk knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// With which error.
    pub status: u32,
    /// Its client must be told. Else a file may be open, or an account known, that was not when it failed, in a life
    /// before.
    pub must_be_told: bool,
}

/// The requests that are on their way and are to fail, by their clients. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Rc<RefCell<BTreeMap<usize, Request>>>);

impl Troubles {
    /// A client sends a request that is to fail.
    pub fn begin(&self, client: usize, verb: Verb, trouble: Trouble) {
        let request = Request {
            verb,
            trouble,
            has_failed: false,
            has_just_failed: false,
            redo_failures: 0,
        };
        self.0.borrow_mut().insert(client, request);
    }

    /// It has been answered. Has it failed?
    #[must_use]
    pub fn end(&self, client: usize) -> Option<Failed> {
        let request = self.0.borrow_mut().remove(&client)?;
        let always = !matches!(request.trouble.what, What::Reopen | What::NameService);
        request.has_failed.then_some(Failed {
            status: request.trouble.status,
            must_be_told: always || request.has_just_failed,
        })
    }

    /// The server has died.
    pub fn killed(&self) {
        for request in self.0.borrow_mut().values_mut() {
            request.has_just_failed = false;
            request.redo_failures = 0;
        }
    }

    /// Does a copy to this file come no further than to the end of its first chunk?
    #[must_use]
    pub fn stops_after_a_chunk(&self, path: Option<&str>) -> bool {
        let requests = self.0.borrow();
        let request = path.and_then(client_of).and_then(|it| requests.get(&it));
        request.is_some_and(|request| request.trouble.what == What::Rest)
    }

    /// What this part of an operation meets. `path`: of the file that it is about. `is_redo`: its intent is on record
    /// from a life before.
    #[must_use]
    pub fn meet(&self, what: What, op: &FileOp, path: &str, is_redo: bool) -> Option<u32> {
        let mut requests = self.0.borrow_mut();
        let request = requests.get_mut(&client_of(path)?)?;
        if request.trouble.what != what || !needs(op, &request.verb) {
            return None;
        }
        if what == What::Rest && !is_rest(op, &request.verb) {
            return None;
        }
        if is_redo {
            request.redo_failures += 1;
            return (request.redo_failures <= REDO_FAILURES).then_some(request.trouble.status);
        }
        request.has_failed = true;
        request.has_just_failed = true;
        Some(request.trouble.status)
    }
}

/// Is it a part of a copy, and not its beginning?
fn is_rest(op: &FileOp, verb: &Verb) -> bool {
    match (verb, op) {
        (Verb::Copy { chunks: all, .. }, FileOp::CopyChunks { chunks, .. }) => {
            chunks.len() < all.len()
        }
        _ => false,
    }
}

/// Whose directory a path is in.
fn client_of(path: &str) -> Option<usize> {
    let home = path.split('/').next()?;
    home.strip_prefix('c')?.parse().ok()
}

/// Is it a copy of several chunks from another file? Within a file, it could not be repeated: a part of its source may
/// have been overwritten.
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

/// Does the request need this operation?
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
