//! Implements the players: each sends one client's part of the workload, and compares every answer with the judge's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::board::{Board, Seen};
use crate::client::{Client, Profile, Response};
use crate::failing::{Failed, What};
use crate::judge::{Content, Verdict};
use crate::request::{self, Body, FileId, command};
use crate::scenario::Scenario;
use crate::status;
use crate::workload::{Handle, Op, Verb};

mod bodies;
mod loss;
mod outages;

use bodies::{PAGE_BYTES, body, masked, names, text};
use loss::Loss;

/// The share that the clients use.
pub const SHARE: &str = "pub";
/// The share of some of them, on another file system.
pub const SECOND_SHARE: &str = "apart";
/// Login name.
pub const USER: &str = "ann";
/// Password.
pub const PASSWORD: &str = "Sesame";
/// The timeout of an oplock break (MS-SMB2 3.3.2.1).
pub const BREAK: Duration = Duration::from_secs(35);

/// The stage of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Negotiating,
    LoggingIn,
    Proving,
    Mounting,
    Working,
    LoggingOff,
    Leaving,
}

/// A second session's stages, within its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    LoggingIn,
    Proving,
    LoggingOff,
}

/// The operation that a request belongs to.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Stage,
    Part(usize, usize),
}

/// A client and its part of the workload.
pub struct Player {
    index: usize,
    /// The client.
    pub client: Client,
    stage: Stage,
    /// The operations that have not been sent.
    todo: VecDeque<Op>,
    /// The operations in progress.
    ops: BTreeMap<usize, Op>,
    purposes: BTreeMap<u64, Purpose>,
    first_message: BTreeMap<usize, u64>,
    answers: BTreeMap<usize, BTreeMap<usize, Response>>,
    names: Vec<String>,
    second: Option<Second>,
    sent_at: BTreeMap<usize, Duration>,
    /// The minimum time between two operations of the list.
    pause: Duration,
    /// The number of done operations at which it leaves: its own and those of the others, except for a newcomer's.
    awaited: usize,
    trees: Vec<u32>,
    user: String,
    /// The share that it uses.
    share: &'static str,
    /// The time from which its share may refuse requests because its file system is sick.
    sick_from: Option<Duration>,
    /// The state of a client that loses something by a new configuration.
    loss: Option<Loss>,
    /// The time at which it repeats a request that was refused because the share was missing, or sick.
    repeats_at: Option<Duration>,
    /// The time at which its present stage began.
    stage_since: Duration,
}

impl Player {
    /// Makes the player of a client, with its operations of the list.
    #[must_use]
    pub fn new(index: usize, profile: Profile, scenario: &Scenario, pause: Duration) -> Player {
        let ops = &scenario.ops;
        let own = ops.iter().filter(|op| op.client == index);
        let newcomer = scenario.kind.limits().map(|limits| limits.newcomer);
        let later = ops
            .iter()
            .filter(|op| Some(op.client) == newcomer && op.client != index);
        Player {
            index,
            client: Client::new(profile),
            stage: Stage::Connecting,
            todo: own.cloned().collect(),
            ops: BTreeMap::new(),
            purposes: BTreeMap::new(),
            first_message: BTreeMap::new(),
            answers: BTreeMap::new(),
            names: Vec::new(),
            second: None,
            sent_at: BTreeMap::new(),
            pause,
            awaited: ops.len() - later.count(),
            trees: Vec::new(),
            user: scenario.users()[index].clone(),
            share: scenario.share_of(index),
            sick_from: (scenario.sickness)
                .filter(|_| scenario.uses_second_share(index))
                .map(|sickness| sickness.from),
            loss: Loss::of(scenario, index),
            repeats_at: None,
            stage_since: Duration::ZERO,
        }
    }

    /// Returns the earliest time of its next operation.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        if self.repeats_at.is_some() {
            return self.repeats_at;
        }
        let op = self.todo.front().filter(|_| self.stage == Stage::Working)?;
        let hurries = |verb: &Verb| matches!(verb, Verb::Acknowledge { .. });
        (!op.verbs.iter().any(hurries)).then(|| self.pause * op.id as u32)
    }

    /// Returns whether it has sent everything, so that its connection is closed next.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.stage == Stage::Leaving && self.client.outbox.is_empty()
    }

    /// Describes what it waits for, for the report of a run that is stuck.
    #[must_use]
    pub fn state(&self) -> String {
        format!(
            "client {}: {:?}, in progress {:?}, next {:?}, unanswered {}",
            self.index,
            self.stage,
            self.ops.values().collect::<Vec<_>>(),
            self.todo.front(),
            self.client.unanswered()
        )
    }

    /// Begins the protocol when the connection is established.
    pub fn connected(&mut self, board: &Board) {
        if self.stage == Stage::Connecting {
            self.stage = Stage::Negotiating;
            self.note_late_stage(board);
            let message = self.client.negotiate(self.index as u8 + 1);
            self.purposes.insert(message, Purpose::Stage);
        }
    }

    /// Processes received bytes.
    pub fn receive(&mut self, bytes: &[u8], board: &mut Board, now: Duration) {
        for response in self.client.receive(bytes) {
            log::debug!(
                "client {}: response to {} of message {}: {:#x}",
                self.index,
                response.command,
                response.message_id,
                response.status
            );
            self.take(response, board, now);
        }
    }

    fn take(&mut self, response: Response, board: &mut Board, now: Duration) {
        if response.message_id == u64::MAX {
            return note_break(&response, board);
        }
        let purpose = self.purposes[&response.message_id];
        let is_interim = response.status == status::PENDING && response.is_async;
        match purpose {
            Purpose::Stage if self.is_refused_at_stage(&response, board) => {
                self.stage = Stage::Leaving;
                self.give_up(board);
            }
            Purpose::Stage if self.is_tree_missing(&response, board, now) => {}
            Purpose::Stage => {
                self.next_stage(&response);
                self.stage_since = now;
                self.note_late_stage(board);
            }
            Purpose::Part(op, _) if is_interim => {
                let expected = &board.expected[&op];
                assert!(expected.waits, "operation {op} must not wait");
                *board.credits.entry(op).or_default() += u32::from(response.credits);
                board.under_way.insert(op, true);
            }
            Purpose::Part(op, part) => self.part_answered(op, part, response, board, now),
        }
    }

    fn next_stage(&mut self, response: &Response) {
        let message = match self.stage {
            Stage::Negotiating => {
                assert_eq!(response.status, status::SUCCESS, "negotiate: {response:x?}");
                self.stage = Stage::LoggingIn;
                self.client.begin_login()
            }
            Stage::LoggingIn => {
                self.stage = Stage::Proving;
                self.client.answer_challenge(response, &self.user, PASSWORD)
            }
            Stage::Proving => {
                self.client.logged_in(response);
                self.stage = Stage::Mounting;
                self.client.connect_tree(self.share)
            }
            Stage::Mounting => {
                self.client.tree_connected(response);
                self.stage = Stage::Working;
                return;
            }
            Stage::LoggingOff => {
                assert_eq!(response.status, status::SUCCESS, "log-off: {response:x?}");
                self.stage = Stage::Leaving;
                return;
            }
            Stage::Connecting | Stage::Working | Stage::Leaving => {
                panic!("an answer without a request: {response:x?}")
            }
        };
        self.purposes.insert(message, Purpose::Stage);
    }

    fn part_answered(
        &mut self,
        id: usize,
        part: usize,
        response: Response,
        board: &mut Board,
        now: Duration,
    ) {
        let op = self.ops[&id].clone();
        *board.credits.entry(id).or_default() += u32::from(response.credits);
        // A request that waited may be answered meanwhile.
        let is_setup = op.verbs[0] == Verb::SecondSession;
        if let Some(second) = self.second.filter(|_| is_setup) {
            return self.second_session(second, id, &response, board);
        }
        if let Verb::Walk { handle } = &op.verbs[part]
            && response.status == status::SUCCESS
        {
            self.names.extend(names(&response.body));
            let file = board.handles[handle];
            let message = self
                .client
                .ask(&[request::query_directory(file, PAGE_BYTES)]);
            self.purposes.insert(message, Purpose::Part(id, part));
            return;
        }
        let answers = self.answers.entry(id).or_default();
        assert!(answers.insert(part, response).is_none(), "answered twice");
        if answers.len() < op.verbs.len() {
            return;
        }
        let answers = self.answers.remove(&id).unwrap_or_default();
        if let Some(failed) = board.failing.end(self.index)
            && is_reported(&op, &answers, failed)
        {
            return self.forget(op, board);
        }
        if let Some(delay) = self.is_refused_for_now(&op, &answers, board, now) {
            self.repeats_at = Some(now + delay);
            return self.forget(op, board);
        }
        if self.is_refused(&op, &answers) {
            self.drop_what_cannot_be_asked(board);
            return self.finished(id, board);
        }
        let expected = &board.expected[&id];
        if expected.by_time {
            let sent = self.sent_at[&id];
            board.waits.push((id, sent, now));
        }
        let verdicts = expected.verdicts.clone();
        let mut seen = Seen::new();
        for (part, response) in &answers {
            let took = board.served(self.sent_at[&id], now);
            if let Some(handle) = late(&op.verbs[*part], response, took) {
                board.late.insert(handle);
            } else if let Some(verdict) = verdicts.get(*part) {
                self.check(&op, *part, response, verdict, board.may_send_enum_dir);
            }
            self.learn(&op.verbs[*part], response, board);
            let verb = &op.verbs[*part];
            // MS-SMB2 3.3.5.10: a CLOSE has no attributes if they cannot be read, as while the share is isolated.
            let body = match self.sick_from.is_some() && matches!(verb, Verb::Close { .. }) {
                true => Vec::new(),
                false => masked(response),
            };
            seen.push((response.status, body));
        }
        self.names.clear();
        board.seen.insert(id, seen);
        self.finished(id, board);
    }

    /// Puts an operation back, so that it is sent again.
    fn forget(&mut self, mut op: Op, board: &mut Board) {
        let id = op.id;
        self.ops.remove(&id);
        self.names.clear();
        board.under_way.remove(&id);
        board.credits.remove(&id);
        if let Some(failure) = op.failure.take() {
            *board.failed.entry(failure.what).or_default() += 1;
        }
        self.todo.push_front(op);
    }

    fn finished(&mut self, id: usize, board: &mut Board) {
        self.ops.remove(&id);
        board.under_way.remove(&id);
        board.done.insert(id);
        board.done.extend(board.cancels.remove(&id));
    }

    fn second_session(
        &mut self,
        second: Second,
        id: usize,
        response: &Response,
        board: &mut Board,
    ) {
        let is_refused = response.status == status::REQUEST_NOT_ACCEPTED;
        let may_be_refused = board.expected[&id].verdicts[0].status == status::REQUEST_NOT_ACCEPTED;
        let message = match second {
            Second::LoggingIn if may_be_refused => {
                assert!(
                    is_refused,
                    "a session beyond the limit is not refused: {response:x?}"
                );
                self.client.refused();
                self.second = None;
                return self.finished(id, board);
            }
            Second::LoggingIn => {
                self.second = Some(Second::Proving);
                self.client.answer_challenge(response, &self.user, PASSWORD)
            }
            Second::Proving => {
                self.client.logged_in(response);
                self.second = Some(Second::LoggingOff);
                self.client.log_off_second()
            }
            Second::LoggingOff => {
                assert_eq!(response.status, status::SUCCESS, "log-off: {response:x?}");
                self.client.second_ended();
                self.second = None;
                return self.finished(id, board);
            }
        };
        self.purposes.insert(message, Purpose::Part(id, 0));
    }

    /// Checks an answer against the judge's verdict.
    fn check(
        &self,
        op: &Op,
        part: usize,
        response: &Response,
        verdict: &Verdict,
        may_send_enum_dir: bool,
    ) {
        let verb = &op.verbs[part];
        // An outage may have hidden a local change; then the watching client receives STATUS_NOTIFY_ENUM_DIR.
        let is_notice = matches!(verb, Verb::Notify { .. });
        if is_notice && may_send_enum_dir && response.status == status::NOTIFY_ENUM_DIR {
            return;
        }
        let is_walk = matches!(verb, Verb::Walk { .. });
        let status = match response.status {
            status::NO_MORE_FILES if is_walk => status::SUCCESS,
            status => status,
        };
        assert_eq!(
            status, verdict.status,
            "operation {op:?}, component {part}: status {status:#x} instead of {:#x}",
            verdict.status
        );
        let body = &response.body;
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("four"));
        let long = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight"));
        let found = match &verdict.content {
            Content::Any => Content::Any,
            Content::Bytes(_) => {
                let from = usize::from(body[2]) - 64;
                Content::Bytes(body[from..from + word(4) as usize].to_vec())
            }
            Content::Written(_) => Content::Written(word(4)),
            Content::Created(..) => Content::Created(word(4), long(48), body[2]),
            Content::Standard(..) => Content::Standard(long(16), word(24), body[28] != 0),
            Content::Names(_) => Content::Names(self.names.clone()),
            Content::Notice(..) => {
                let name = &body[20..20 + word(16) as usize];
                Content::Notice(word(12), text(name))
            }
        };
        assert_eq!(found, verdict.content, "operation {op:?}, component {part}");
    }

    fn learn(&mut self, verb: &Verb, response: &Response, board: &mut Board) {
        if response.status != status::SUCCESS {
            return;
        }
        match verb {
            Verb::Create { handle, .. } => {
                let id: FileId = response.body[64..80].try_into().expect("a FileId");
                assert!(board.file_ids.insert(id), "a FileId is used twice: {id:x?}");
                board.handles.insert(*handle, id);
            }
            Verb::Tree => self.trees.push(response.tree),
            Verb::ResumeKey { handle } => {
                let from = u32::from_le_bytes(response.body[32..36].try_into().expect("four"));
                let from = from as usize - 64;
                let key = response.body[from..from + 24].to_vec();
                board.resume_keys.insert(*handle, key);
            }
            _ => {}
        }
    }

    /// Sends all that may be sent now.
    pub fn play(&mut self, ops: &[Op], board: &mut Board, now: Duration) {
        if self.repeats_at.is_some_and(|at| now < at) {
            return;
        }
        let repeats = self.repeats_at.take().is_some();
        if repeats && self.stage == Stage::Mounting {
            let message = self.client.connect_tree(self.share);
            self.purposes.insert(message, Purpose::Stage);
            self.stage_since = now;
        }
        if self.stage != Stage::Working {
            return;
        }
        while let Some(op) = self.todo.front() {
            if !self.may_send(op, ops, board) || self.next().is_some_and(|at| now < at) {
                break;
            }
            let Some(op) = self.todo.pop_front() else {
                break;
            };
            self.send(op, board, now);
        }
        // A client that leaves closes its opens, so it leaves only when the others have done their operations.
        if board.done.len() >= self.awaited {
            if self.client.profile().logs_off {
                self.stage = Stage::LoggingOff;
                let message = self.client.ask(&[request::bare(command::LOGOFF)]);
                self.purposes.insert(message, Purpose::Stage);
            } else {
                self.stage = Stage::Leaving;
            }
        }
    }

    fn may_send(&self, op: &Op, ops: &[Op], board: &Board) -> bool {
        let expected = &board.expected[&op.id];
        if expected.verdicts.is_empty() && !expected.waits {
            return true;
        }
        let busy = self
            .ops
            .keys()
            .filter(|id| board.under_way.get(id) != Some(&true))
            .count();
        let alone = |op: &Op| {
            let is_alone = |verb: &Verb| matches!(verb, Verb::Walk { .. } | Verb::SecondSession);
            op.failure.is_some() || op.verbs.iter().any(is_alone)
        };
        if busy >= self.client.profile().depth
            || (busy > 0 && alone(op))
            || self.ops.values().any(alone)
            || !self.client.may_send(op.verbs.len())
        {
            return false;
        }
        let mut made = BTreeSet::new();
        for verb in &op.verbs {
            if let Verb::Create { handle, .. } = verb {
                made.insert(*handle);
            }
            let known =
                |handle: &Handle| made.contains(handle) || board.handles.contains_key(handle);
            if !verb.handles().iter().all(known) {
                return false;
            }
            match verb {
                Verb::Acknowledge { handle, .. } if !board.breaks.contains_key(handle) => {
                    return false;
                }
                Verb::Copy { source, .. } if !board.resume_keys.contains_key(source) => {
                    return false;
                }
                _ => {}
            }
        }
        !op.shared || board.are_settled_before(op, ops)
    }

    fn send(&mut self, op: Op, board: &mut Board, now: Duration) {
        let id = op.id;
        let expected = &board.expected[&id];
        if expected.verdicts.is_empty() && !expected.waits {
            board.done.insert(id);
            return;
        }
        log::debug!("client {}: sends {op:?}", self.index);
        if let Verb::Cancel { op: target } = op.verbs[0] {
            if board.done.contains(&target) {
                // The request was answered with STATUS_NOTIFY_ENUM_DIR after an outage: there is nothing to cancel any
                // more.
                board.done.insert(id);
                return;
            }
            self.client.cancel(self.first_message[&target]);
            board.cancels.insert(target, id);
            return;
        }
        if let Some(loss) = self.loss.as_mut().filter(|_| board.revoked) {
            loss.late.insert(id);
        }
        self.sent_at.insert(id, now);
        board.under_way.insert(id, false);
        if let Some(failure) = op.failure {
            let verb = op.verbs[0].clone();
            board.failing.begin(self.index, verb, failure);
        }
        let first = if op.verbs[0] == Verb::SecondSession {
            self.second = Some(Second::LoggingIn);
            self.client.begin_login()
        } else if op.verbs[0] == Verb::Untree {
            let tree = self.trees.pop().expect("a tree that was connected");
            self.client.disconnect_tree(tree)
        } else {
            let related = op.verbs.len() > 1;
            let bodies: Vec<Body> = op
                .verbs
                .iter()
                .map(|verb| body(verb, related, board))
                .collect();
            self.client.ask(&bodies)
        };
        for part in 0..op.verbs.len() {
            self.purposes
                .insert(first + part as u64, Purpose::Part(id, part));
        }
        self.first_message.insert(id, first);
        self.ops.insert(id, op);
    }
}

/// Returns whether the client has received the error of its failed request.
fn is_reported(op: &Op, answers: &BTreeMap<usize, Response>, failed: Failed) -> bool {
    let all = answers.values();
    let reported = all.clone().all(|response| response.status == failed.status);
    let statuses: Vec<u32> = all.map(|response| response.status).collect();
    assert!(
        reported || !failed.must_be_reported,
        "{op:?}: the disk has failed with {:#x}, but the client receives {statuses:x?}",
        failed.status
    );
    let is_of_rest = op.failure.is_some_and(|failure| failure.what == What::Rest);
    if reported && is_of_rest {
        let copied = answers.get(&0).and_then(bodies::chunks_copied);
        assert_eq!(copied, Some(1), "{op:?} fails after one chunk");
    }
    reported
}

/// Returns the handle of an oplock break whose acknowledgement arrived after the break's timeout, outages not counted:
/// the network lost it, and the client's TCP repeated it late.
fn late(verb: &Verb, response: &Response, took: Duration) -> Option<Handle> {
    match verb {
        Verb::Acknowledge { handle, .. }
            if took >= BREAK
                && matches!(
                    response.status,
                    status::INVALID_OPLOCK_PROTOCOL | status::UNSUCCESSFUL
                ) =>
        {
            Some(*handle)
        }
        _ => None,
    }
}

fn note_break(response: &Response, board: &mut Board) {
    if response.body.len() == 44 {
        // LEASE_BREAK (2.2.23.2)
        let key = response.body[8..24].try_into().expect("a lease key");
        let handle = bodies::leased(key);
        board.leases.insert(handle);
        board
            .breaks
            .entry(handle)
            .or_default()
            .push(response.body[28]);
        return;
    }
    let level = response.body[2];
    let id: FileId = response.body[8..24].try_into().expect("a FileId");
    let handle = board.handles.iter().find(|(_, known)| **known == id);
    let handle = *handle.expect("a break of a known FileId").0;
    board.breaks.entry(handle).or_default().push(level);
}
