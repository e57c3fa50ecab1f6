//! Processing of requests: points 2 and 3.

use std::time::Duration;

use bytes::Bytes;
use outlast_fsa::fileop::{FileOp, Intent, Outcome};
use outlast_fsa::status::NtStatus;
use outlast_nvram::Handled;
use outlast_smb::{Admit, Output, Planned, Step, Task};

use super::clock::Time;
use super::fault::{Point, When};
use super::files::FileSystem;
use super::inbound::Message;
use super::machine::{Machine, clock};
use super::set_aside;
use super::turns::SLICE;
use crate::metrics::Eviction;

/// The work in progress.
pub(super) enum Work {
    /// A client's oldest message.
    Message(u64, Message),
    Task(Task),
}

impl Work {
    /// The message that it processes, if that is in the receive queue.
    fn message(&self) -> Option<&Message> {
        match self {
            Work::Message(_, message) => Some(message),
            Work::Task(_) => None,
        }
    }

    /// The [`Handled`] that is recorded, in case the worker dies of it.
    pub(super) fn handled(&self) -> Handled {
        set_aside::handled(match self {
            Work::Message(conn, _) => Task::Message(*conn),
            Work::Task(task) => *task,
        })
    }

    /// The connection for which it is done.
    pub(super) fn conn(&self) -> u64 {
        match self {
            Work::Message(conn, _) | Work::Task(Task::Message(conn)) => *conn,
            Work::Task(Task::Parked(conn, _) | Task::Close(conn, _) | Task::Break(conn, _)) => {
                *conn
            }
        }
    }
}

/// An operation that the file system is still performing. No other file operation starts before it ends (law 5), but
/// frames are received and acknowledged.
pub(super) struct UnderWay {
    pub(super) work: Work,
    /// The client has left meanwhile: it is torn down afterwards.
    pub(super) tear_down: bool,
    planned: Planned,
    intent: Intent,
    out: Output,
}

impl<F: FileSystem> Machine<F> {
    /// Processes a client's oldest message until it is answered or waits, its time slice is used up, or an operation of
    /// it is under way.
    pub(super) fn run_message(&mut self, conn: u64, message: Message, time: Time) {
        self.run(Work::Message(conn, message), time);
    }

    /// Processes a task until it is done or waits again, its time slice is used up, or an operation of it is under way.
    pub(super) fn run_task(&mut self, task: Task, time: Time) {
        self.run(Work::Task(task), time);
    }

    fn run(&mut self, work: Work, time: Time) {
        let (conn, begun) = (work.conn(), self.stopwatch.read());
        self.journal.handle(Some(work.handled()));
        self.run_slice(work, begun, time);
        self.end_work();
        self.charge(conn, begun);
    }

    /// Records that the worker is not processing anything, unless an operation is under way.
    fn end_work(&self) {
        if self.under_way.is_none() {
            self.journal.handle(None);
        }
    }

    fn run_slice(&mut self, mut work: Work, begun: Duration, time: Time) {
        loop {
            let mut out = Output::default();
            let (clock, entropy) = (clock(time), &mut *self.entropy);
            let step = match &work {
                Work::Message(conn, message) => self.smb.step(
                    *conn,
                    &message.bytes,
                    clock,
                    entropy,
                    &mut self.journal,
                    &mut out,
                ),
                Work::Task(task) => {
                    self.smb
                        .step_task(*task, clock, entropy, &mut self.journal, &mut out)
                }
            };
            match self.advance(work, step, "none", out, time) {
                Some(rest) => work = rest,
                None => return,
            }
            if self.stopwatch.read().saturating_sub(begun) >= SLICE {
                return self.put_back(work);
            }
        }
    }

    /// Continues the work whose operation has ended.
    pub(super) fn finish_under_way(&mut self, time: Time) {
        let Some(outcome) = self.under_way.as_ref().and_then(|_| self.fs.finished()) else {
            return;
        };
        let Some(UnderWay {
            work,
            tear_down,
            planned,
            intent,
            mut out,
        }) = self.under_way.take()
        else {
            return;
        };
        self.sum_unread();
        let (conn, begun) = (work.conn(), self.stopwatch.read());
        self.count_operation(conn, begun);
        let outcome = self.record_outcome(&planned, &intent, outcome);
        let step = self.complete(&planned, outcome, &mut out, time);
        if let Some(rest) = self.advance(work, step, operation_name(&planned.op), out, time) {
            self.run_slice(rest, begun, time);
        }
        self.end_work();
        self.charge(conn, begun);
        if tear_down {
            self.tear_down(conn);
        }
    }

    /// Waits for the operation under way, and finishes its work.
    pub(super) fn wait_for_operation(&mut self, time: Time) {
        while self.under_way.is_some() {
            self.probe.at_disk(true);
            self.fs.wait();
            self.probe.at_disk(false);
            self.finish_under_way(time);
        }
    }

    /// Continues from a step: performs its operations, and commits their results. Returns the remaining work, if any.
    fn advance(
        &mut self,
        work: Work,
        mut step: Step,
        mut operation: &'static str,
        mut out: Output,
        time: Time,
    ) -> Option<Work> {
        while let Step::Op(planned) = step {
            operation = operation_name(&planned.op);
            if let (Work::Message(conn, _), wanted) = (&work, reply_bytes(&planned.op))
                && wanted > 0
                && !self.has_reply_room(*conn, wanted)
            {
                self.wait_for_room(*conn, wanted, time.now);
                step = Step::Idle;
                break;
            }
            if let Work::Message(conn, _) = &work
                && self.has_to_wait(&planned)
            {
                if let Some(client) = self.clients.get_mut(conn) {
                    client.waits_for = Some(planned.actor.share);
                }
                step = Step::Idle;
                break;
            }
            self.probe.at_disk(true);
            step = match self.intend(&planned, &mut out, time) {
                Ok(intent) => match self.begin(&planned, &intent) {
                    Some(outcome) => {
                        let outcome = self.record_outcome(&planned, &intent, outcome);
                        self.complete(&planned, outcome, &mut out, time)
                    }
                    None => {
                        self.probe.at_disk(false);
                        self.under_way = Some(UnderWay {
                            work,
                            tear_down: false,
                            planned,
                            intent,
                            out,
                        });
                        return None;
                    }
                },
                // its request waits now, and its message is finished
                Err(Admit::Wait) => Step::Done,
                Err(Admit::Go | Admit::Done) => Step::Again,
            };
            self.probe.at_disk(false);
        }
        let is_done = matches!(step, Step::Done);
        if let (true, Work::Message(conn, message)) = (is_done, &work) {
            self.stack
                .consume(*conn, message.stream_bytes, &mut self.journal);
            if let Some(client) = self.clients.get_mut(conn) {
                client.framing.consumed(message.stream_bytes);
            }
        }
        self.finish_step(operation, out, time);
        match step {
            // law 7: where the log has no room for the next component, it waits
            Step::Again if work.message().is_some() && !self.can_work() => {
                self.put_back(work);
            }
            Step::Again => return Some(work),
            Step::Done => {
                self.counting.end_work();
                if let Work::Message(conn, _) = work {
                    self.smb.release_message(conn);
                    self.refresh_principal(conn, time.now);
                    if let Some(client) = self.clients.get_mut(&conn) {
                        client.look = true;
                        client.waits_for = None;
                        client.active = time.now;
                    }
                }
            }
            Step::Idle | Step::Op(_) => self.put_back(work),
        }
        None
    }

    /// Puts unfinished work back for another turn. Until then no bytes of its message are held: they pin the log, which
    /// might then never have the room that the message waits for. Intermediate results are kept, so that each turn
    /// makes progress however slow the processor is.
    fn put_back(&mut self, work: Work) {
        match work {
            Work::Message(conn, _) => {
                self.smb.release_message(conn);
                self.mark_ready(conn);
            }
            Work::Task(task) => self.smb.keep_runnable(task),
        }
    }

    /// Waits until all that is committed would be found again. A medium, or the partner, may take long.
    fn await_homes(&mut self) {
        if self.journal.durable() < self.journal.committed() {
            self.probe.at_disk(true);
            self.journal.wait_durable();
            self.probe.at_disk(false);
        }
    }

    /// Point 2: the intent is committed. Or why the operation is not to be done.
    //= patent fig5-2
    fn intend(&mut self, planned: &Planned, out: &mut Output, time: Time) -> Result<Intent, Admit> {
        // the intent of an operation under way when the server went down: it is redone (law 5)
        if let Some(intent) = &planned.intent {
            self.await_homes();
            return Ok(intent.clone());
        }
        let prepared = match self.refusal(planned) {
            Some(status) => Err(status),
            None => self.fs.prepare(&planned.actor, &planned.op),
        };
        let admitted = self.smb.admit(
            planned,
            prepared.clone(),
            clock(time),
            &mut *self.entropy,
            &mut self.journal,
            out,
        );
        match (admitted, prepared) {
            (Admit::Go, Ok(intent)) => {
                let name = operation_name(&planned.op);
                self.probe.at(Point::Two, When::Before, name);
                self.deliver(std::mem::take(out));
                self.journal.commit(time.now);
                self.counting.counts.pass(Point::Two);
                if planned.op.has_effect() {
                    // law 5: what a power cut may undo must be known to be under way
                    self.await_homes();
                }
                self.probe.at(Point::Two, When::After, name);
                Ok(intent)
            }
            (refused, _) => Err(refused),
        }
    }

    fn complete(
        &mut self,
        planned: &Planned,
        outcome: Result<Outcome, NtStatus>,
        out: &mut Output,
        time: Time,
    ) -> Step {
        self.fs.discard_changes();
        match planned.op {
            FileOp::Watch { .. } => self.journal.watched.begin(time),
            _ if planned.op.has_effect() => self.journal.watched.effect(time.now),
            _ => {}
        }
        self.smb.complete(
            planned,
            outcome,
            clock(time),
            &mut *self.entropy,
            &mut self.journal,
            out,
        )
    }

    /// Point 3: state, reply bytes and what is consumed of the request are committed together.
    //= patent fig5-3
    fn finish_step(&mut self, operation: &str, out: Output, time: Time) {
        self.probe.at(Point::Three, When::Before, operation);
        self.deliver(out);
        self.journal.commit(time.now);
        self.counting.counts.pass(Point::Three);
        self.probe.at(Point::Three, When::After, operation);
    }

    /// Records final bytes and puts them into the send queues.
    pub(super) fn deliver(&mut self, out: Output) {
        self.counting.note(&out.answered);
        for (conn, parts) in out.sends {
            let parts: Vec<&[u8]> = parts.iter().map(Bytes::as_ref).collect();
            self.stack.send(conn, &parts, &mut self.journal);
        }
        for conn in out.drop {
            self.counting.counts.evict(Eviction::Protocol);
            self.abort(conn);
        }
    }
}

/// The number of bytes that an operation may add to a reply.
fn reply_bytes(op: &FileOp) -> u64 {
    match op {
        FileOp::Read { length, .. } => (*length).into(),
        _ => 0,
    }
}

/// The operation's name, as the fault probe and the log of the server use it.
pub(super) fn operation_name(op: &FileOp) -> &'static str {
    match op {
        FileOp::Create(_) => "create",
        FileOp::Close { delete: None, .. } => "close",
        FileOp::Close {
            delete: Some(_), ..
        } => "delete",
        FileOp::Flush { .. } => "flush",
        FileOp::Read { .. } => "read",
        FileOp::Write { .. } => "write",
        FileOp::QueryDirectory { .. } => "query-directory",
        FileOp::Stat { .. } => "stat",
        FileOp::QueryVolume { .. } => "query-volume",
        FileOp::SetBasic { .. } => "set-basic",
        FileOp::SetEndOfFile { .. } => "set-end-of-file",
        FileOp::SetAllocation { .. } => "set-allocation",
        FileOp::Rename { .. } => "rename",
        FileOp::Link { .. } => "link",
        FileOp::CheckDelete { .. } => "check-delete",
        FileOp::QuerySecurity { .. } => "query-security",
        FileOp::SetSecurity { .. } => "set-security",
        FileOp::CopyChunks { .. } => "copy-chunks",
        FileOp::ZeroData { .. } => "zero-data",
        FileOp::SetSparse { .. } => "set-sparse",
        FileOp::QueryAllocatedRanges { .. } => "query-allocated-ranges",
        FileOp::Watch { .. } => "watch",
        FileOp::QueryStreams { .. } => "query-streams",
        FileOp::Strip { .. } => "strip",
        FileOp::QueryEas { .. } => "query-eas",
        FileOp::SetEas { .. } => "set-eas",
    }
}
