//! Judges requests that reach a limit.

use super::{Judge, Verdict, Waiting, plain};
use crate::limits::Limits;
use crate::rules::Rules;
use crate::status;
use crate::workload::{Handle, Op};

impl Judge {
    /// Makes a judge that applies these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Judge {
        Judge {
            rules,
            ..Judge::default()
        }
    }

    /// Returns whether the limits are small enough to be reached.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.rules.limits.is_some()
    }

    /// Returns all open handles of a client.
    #[must_use]
    pub fn all_handles_of(&self, client: usize) -> Vec<Handle> {
        let own = self.opens.iter().filter(|(_, open)| open.client == client);
        own.map(|(handle, _)| *handle).collect()
    }

    /// Returns whether one more than `held` is too many.
    fn exceeds(&self, held: usize, limit: impl Fn(&Limits) -> usize) -> bool {
        let limit = self.rules.limits.as_ref().map(limit);
        limit.is_some_and(|limit| held >= limit)
    }

    /// Closes everything that the others have held, before the newcomer's first request.
    pub(super) fn note_newcomer(&mut self, op: &Op) {
        let newcomer = self.rules.limits.map(|limits| limits.newcomer);
        if newcomer == Some(op.client) && !std::mem::replace(&mut self.newcomer_is_there, true) {
            self.close_all();
        }
    }

    pub(super) fn close_all(&mut self) {
        self.give_up_waiting();
        for handle in self.opens.keys().copied().collect::<Vec<_>>() {
            self.close(handle);
        }
    }

    /// Refuses an open that is one too many with STATUS_TOO_MANY_OPENED_FILES (MS-SMB2 3.3.5.9).
    pub(super) fn too_many_opens(&self, client: usize) -> Option<Verdict> {
        let own = self.all_handles_of(client).len();
        let is_too_many = self.exceeds(own, |limits| limits.opens)
            || self.exceeds(self.opens.len(), Limits::all_opens);
        is_too_many.then(|| plain(status::TOO_MANY_OPENED_FILES))
    }

    pub(super) fn too_many_locks(&self, handle: Handle) -> Option<Verdict> {
        let held = self.opens[&handle].locks.len();
        refused(self.exceeds(held, |limits| limits.locks))
    }

    /// Refuses a request that would have to wait, if too many of the client's requests wait already.
    pub(super) fn too_many_wait(&self, client: usize) -> Option<Verdict> {
        let of_client = |handle: &Handle| self.opens.get(handle).map(|open| open.client);
        let waiting = self.waiting.values().filter(|waiting| match waiting {
            Waiting::Lock(handle, ..) => of_client(handle) == Some(client),
            Waiting::Create(op) => op.client == client,
        });
        let opens = self.opens.values().filter(|open| open.client == client);
        let watching = opens.filter(|open| open.notify.is_some()).count();
        refused(self.exceeds(waiting.count() + watching, |limits| limits.pending))
    }

    /// Judges a CHANGE_NOTIFY: the directory is watched as long as its handle is open.
    pub(super) fn notify(&mut self, op: &Op, handle: Handle) -> Option<Verdict> {
        // MS-FSA 2.1.5.11: no request may wait for changes of a directory with delete pending.
        if self.doomed.contains(&self.opens[&handle].path) {
            return Some(plain(status::DELETE_PENDING));
        }
        let own = self.opens.values().filter(|open| open.client == op.client);
        let watches = own.filter(|open| open.watched).count();
        let is_new = !self.opens[&handle].watched;
        if is_new && self.exceeds(watches, |limits| limits.watches) {
            return refused(true);
        }
        self.opens.get_mut(&handle)?.watched = true;
        let refusal = self.too_many_wait(op.client);
        if refusal.is_none() {
            self.opens.get_mut(&handle)?.notify = Some(op.id);
        }
        refusal
    }

    /// Judges another TREE_CONNECT.
    pub(super) fn connect_tree(&mut self, client: usize) -> Verdict {
        let more = self.trees.get(&client).copied().unwrap_or(0);
        // The client has its first tree from the beginning.
        if let Some(refusal) = refused(self.exceeds(1 + more, |limits| limits.trees)) {
            return refusal;
        }
        *self.trees.entry(client).or_default() += 1;
        plain(status::SUCCESS)
    }

    pub(super) fn second_session(&self) -> Verdict {
        plain(match self.exceeds(1, |limits| limits.sessions) {
            true => status::REQUEST_NOT_ACCEPTED,
            false => status::SUCCESS,
        })
    }
}

fn refused(is_too_many: bool) -> Option<Verdict> {
    is_too_many.then(|| plain(status::INSUFFICIENT_RESOURCES))
}
