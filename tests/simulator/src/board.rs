//! What the players know together: what was asked, what was answered, and what that was to be.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::judge::Expected;
use crate::request::FileId;
use crate::trouble::{Troubles, What};
use crate::workload::{Handle, Op};

/// What service time may skip at a crash.
const SKIP: Duration = Duration::from_millis(4);

/// What a client saw of an operation, without what may differ from one run to the next: ids.
pub type Seen = Vec<(u32, Vec<u8>)>;

/// What the players know together.
pub struct Board {
    pub(crate) expected: BTreeMap<usize, Expected>,
    /// Who no longer has to wait is answered before the next operation is sent: a slow server may do the two in either
    /// order.
    pub(crate) in_turn: bool,
    /// Operations sent and not done, by id; true: waits, by an interim response.
    pub(crate) under_way: BTreeMap<usize, bool>,
    pub(crate) done: BTreeSet<usize>,
    /// Of the list of operations all shared ones before this place are done.
    first_undone: Cell<usize>,
    /// Cancels that were sent, by what they cancel: done when that is.
    pub(crate) cancels: BTreeMap<usize, usize>,
    pub(crate) handles: BTreeMap<Handle, FileId>,
    /// Every FileId there was.
    pub(crate) file_ids: BTreeSet<FileId>,
    pub(crate) resume_keys: BTreeMap<Handle, Vec<u8>>,
    /// Breaks that came, by handle, with their levels.
    pub(crate) breaks: BTreeMap<Handle, Vec<u8>>,
    /// Handles of the leases whose breaks came.
    pub(crate) leases: BTreeSet<Handle>,
    /// Handles whose oplock break the client's TCP brought an acknowledgement of too late.
    pub late: BTreeSet<Handle>,
    /// What was seen, by operation.
    pub seen: BTreeMap<usize, Seen>,
    /// Credits granted, by operation.
    pub credits: BTreeMap<usize, u32>,
    /// Operations that were answered by the passing of time only, and how long they took.
    pub waits: Vec<(usize, Duration, Duration)>,
    /// When the server was not there.
    pub outages: Vec<(Duration, Duration)>,
    /// When those of them began in which a server was stopped: it does not know that, and counts the time.
    pub stops: Vec<Duration>,
    /// When the share was not there: from when, and until when if that is over.
    pub away: Vec<(Duration, Option<Duration>)>,
    /// What comes while it is not there is lost.
    pub frames_lost: bool,
    /// The server has nothing of any client.
    pub vacant: bool,
    /// Requests that have failed once, by what failed.
    pub failed: BTreeMap<What, u32>,
    /// The server has come up with the configuration that takes something from a client.
    pub revoked: bool,
    /// Requests that are to fail.
    pub(crate) troubles: Troubles,
    /// In an outage a directory may have changed without the server.
    pub may_be_told_to_look: bool,
}

impl Board {
    /// Nothing has happened.
    #[must_use]
    pub fn new(expected: BTreeMap<usize, Expected>, in_turn: bool, troubles: Troubles) -> Board {
        Board {
            expected,
            in_turn,
            under_way: BTreeMap::new(),
            done: BTreeSet::new(),
            first_undone: Cell::new(0),
            cancels: BTreeMap::new(),
            handles: BTreeMap::new(),
            file_ids: BTreeSet::new(),
            resume_keys: BTreeMap::new(),
            breaks: BTreeMap::new(),
            leases: BTreeSet::new(),
            late: BTreeSet::new(),
            seen: BTreeMap::new(),
            credits: BTreeMap::new(),
            waits: Vec::new(),
            outages: Vec::new(),
            stops: Vec::new(),
            away: Vec::new(),
            frames_lost: false,
            vacant: false,
            failed: BTreeMap::new(),
            revoked: false,
            troubles,
            may_be_told_to_look: false,
        }
    }

    /// Levels of the breaks that came, by handle.
    #[must_use]
    pub fn breaks(&self) -> &BTreeMap<Handle, Vec<u8>> {
        &self.breaks
    }

    /// Was the share away at some time since then?
    #[must_use]
    pub fn was_away(&self, since: Duration) -> bool {
        let mut away = self.away.iter();
        away.any(|(_, end)| end.is_none_or(|end| end >= since))
    }

    /// The most service time that may have passed between two moments.
    #[must_use]
    pub fn served(&self, from: Duration, to: Duration) -> Duration {
        let outages = self.outages.iter();
        let down: Duration = outages
            .filter(|(begin, _)| !self.stops.contains(begin))
            .map(|(begin, end)| (*end.min(&to)).saturating_sub(*begin.max(&from)))
            .sum();
        (to - from).saturating_sub(down) + SKIP * self.outages.len() as u32
    }

    /// Are the shared operations before this one done, or do they wait?
    pub(crate) fn are_settled_before(&self, op: &Op, ops: &[Op]) -> bool {
        let mut first = self.first_undone.get();
        while ops
            .get(first)
            .is_some_and(|it| !it.shared || self.done.contains(&it.id))
        {
            first += 1;
        }
        self.first_undone.set(first);
        // What is done stays done, and this operation is not: it is one of the rest.
        let rest = ops.get(first..).unwrap_or_default().iter();
        let before = rest.take_while(|other| other.id != op.id);
        let mut before = before.filter(|other| other.shared);
        before.all(|other| self.is_settled(other.id, op.id))
    }

    /// Is this operation done, or does it wait, so that a later one can be sent?
    pub(crate) fn is_settled(&self, op: usize, later: usize) -> bool {
        let ended_by = self.expected[&op].ended_by.filter(|_| self.in_turn);
        let waits = self.under_way.get(&op) == Some(&true) && ended_by.is_none_or(|by| by >= later);
        self.done.contains(&op) || waits
    }
}
