//! Records what the players share: what was sent, what was answered, and what the judge expects.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::failing::{FailingRequests, What};
use crate::judge::Expected;
use crate::request::FileId;
use crate::workload::{Handle, Op};

/// The service time that a crash may skip.
const SKIP: Duration = Duration::from_millis(4);

/// What a client has received for an operation: status and body of each response, without ids, which differ between
/// runs.
pub type Seen = Vec<(u32, Vec<u8>)>;

/// The state that the players share.
pub struct Board {
    pub(crate) expected: BTreeMap<usize, Expected>,
    /// A request that no longer has to wait must be answered before the next operation is sent: a slow server may do
    /// the two in either order.
    pub(crate) in_turn: bool,
    /// Operations that were sent and are not done, by id. True: the operation waits, as an interim response says.
    pub(crate) under_way: BTreeMap<usize, bool>,
    pub(crate) done: BTreeSet<usize>,
    /// All shared operations before this place of the list are done.
    first_undone: Cell<usize>,
    /// CANCELs that were sent, by the operation that they cancel. They are done when that operation is.
    pub(crate) cancels: BTreeMap<usize, usize>,
    pub(crate) handles: BTreeMap<Handle, FileId>,
    /// Every FileId that the server has assigned.
    pub(crate) file_ids: BTreeSet<FileId>,
    pub(crate) resume_keys: BTreeMap<Handle, Vec<u8>>,
    /// The breaks that were received, by handle, with their levels.
    pub(crate) breaks: BTreeMap<Handle, Vec<u8>>,
    /// Handles of the leases that have been broken.
    pub(crate) leases: BTreeSet<Handle>,
    /// Handles whose oplock break was acknowledged too late, because of the client's TCP.
    pub late: BTreeSet<Handle>,
    /// The responses, by operation.
    pub seen: BTreeMap<usize, Seen>,
    /// Credits granted, by operation.
    pub credits: BTreeMap<usize, u32>,
    /// Operations that were answered only because time passed, with the times of request and response.
    pub waits: Vec<(usize, Duration, Duration)>,
    /// The beginning and end of each outage of the server.
    pub outages: Vec<(Duration, Duration)>,
    /// The beginnings of those outages in which a server was only stopped: it does not notice that, so its service time
    /// continues.
    pub stops: Vec<Duration>,
    /// The times at which the share was missing: the beginning, and the end if that is over.
    pub away: Vec<(Duration, Option<Duration>)>,
    /// Frames that arrive during an outage are lost.
    pub frames_lost: bool,
    /// The server has no state of any client.
    pub vacant: bool,
    /// The number of requests that have failed once, by the part that failed.
    pub failed: BTreeMap<What, u32>,
    /// The number of requests that were refused because their share's file system was sick.
    pub refused: u32,
    /// The server runs with the configuration that takes something from a client.
    pub revoked: bool,
    /// The requests that fail once.
    pub(crate) failing: FailingRequests,
    /// A watched directory may have changed during an outage, so that STATUS_NOTIFY_ENUM_DIR is permitted.
    pub may_send_enum_dir: bool,
}

impl Board {
    /// Makes the board before the first event.
    #[must_use]
    pub fn new(
        expected: BTreeMap<usize, Expected>,
        in_turn: bool,
        failing: FailingRequests,
    ) -> Board {
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
            refused: 0,
            revoked: false,
            failing,
            may_send_enum_dir: false,
        }
    }

    /// Returns the levels of the breaks that were received, by handle.
    #[must_use]
    pub fn breaks(&self) -> &BTreeMap<Handle, Vec<u8>> {
        &self.breaks
    }

    /// Returns whether the share was missing at some time since `since`.
    #[must_use]
    pub fn was_away(&self, since: Duration) -> bool {
        let mut away = self.away.iter();
        away.any(|(_, end)| end.is_none_or(|end| end >= since))
    }

    /// Returns the maximum service time that may have passed between two moments.
    #[must_use]
    pub fn served(&self, from: Duration, to: Duration) -> Duration {
        let outages = self.outages.iter();
        let down: Duration = outages
            .filter(|(begin, _)| !self.stops.contains(begin))
            .map(|(begin, end)| (*end.min(&to)).saturating_sub(*begin.max(&from)))
            .sum();
        (to - from).saturating_sub(down) + SKIP * self.outages.len() as u32
    }

    /// Returns whether all shared operations before this one are done or wait.
    pub(crate) fn are_settled_before(&self, op: &Op, ops: &[Op]) -> bool {
        let mut first = self.first_undone.get();
        while ops
            .get(first)
            .is_some_and(|it| !it.shared || self.done.contains(&it.id))
        {
            first += 1;
        }
        self.first_undone.set(first);
        // Done operations stay done, and this operation is not done, so it is among the rest.
        let rest = ops.get(first..).unwrap_or_default().iter();
        let before = rest.take_while(|other| other.id != op.id);
        let mut before = before.filter(|other| other.shared);
        before.all(|other| self.is_settled(other.id, op.id))
    }

    /// Returns whether this operation is done, or waits so that a later one can be sent.
    pub(crate) fn is_settled(&self, op: usize, later: usize) -> bool {
        let ended_by = self.expected[&op].ended_by.filter(|_| self.in_turn);
        let waits = self.under_way.get(&op) == Some(&true) && ended_by.is_none_or(|by| by >= later);
        self.done.contains(&op) || waits
    }
}
