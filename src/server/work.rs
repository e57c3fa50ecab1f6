//! How a request is done: points 2 and 3.

use bytes::Bytes;
use outlast_smb::fileop::{FileOp, Intent};
use outlast_smb::{Admit, Output, Planned, Step, Task};

use super::clock::Time;
use super::fault::{Point, When};
use super::files::FileSystem;
use super::inbound::Message;
use super::machine::{Machine, clock};

/// Steps of one message before the rest has to wait for the next turn: no client's compound holds up the others.
const STEPS: usize = 1024;

impl<F: FileSystem> Machine<F> {
    /// Works on a client's oldest message until it is answered or waits.
    pub(super) fn run_message(&mut self, conn: u64, message: &Message, time: Time) {
        for _ in 0..STEPS {
            let mut out = Output::default();
            let mut step = self.smb.step(
                conn,
                &message.bytes,
                clock(time),
                &mut *self.entropy,
                &mut self.journal,
                &mut out,
            );
            let operation = self.operate(&mut step, &mut out, time);
            let done = matches!(step, Step::Done);
            if done {
                self.stack
                    .consume(conn, message.stream_bytes, &mut self.journal);
            }
            self.finish_step(operation, out, time);
            match step {
                Step::Again => {}
                Step::Done => {
                    if let Some(client) = self.clients.get_mut(&conn) {
                        client.look = true;
                        client.active = time.now;
                    }
                    return;
                }
                Step::Idle | Step::Op(_) => break,
            }
        }
        if let Some(client) = self.clients.get_mut(&conn).filter(|client| !client.leaving) {
            client.message = Some(message.clone());
        }
    }

    /// Works on a task until it is done or waits again.
    pub(super) fn run_task(&mut self, task: Task, time: Time) {
        for _ in 0..STEPS {
            let mut out = Output::default();
            let mut step = self.smb.step_task(
                task,
                clock(time),
                &mut *self.entropy,
                &mut self.journal,
                &mut out,
            );
            let operation = self.operate(&mut step, &mut out, time);
            self.finish_step(operation, out, time);
            if !matches!(step, Step::Again) {
                return;
            }
        }
    }

    /// Does the operation that a step asks for, if it asks for one; `step` becomes what follows. Gives the operation's name.
    fn operate(&mut self, step: &mut Step, out: &mut Output, time: Time) -> &'static str {
        let mut name = "none";
        while let Step::Op(planned) = step {
            name = operation_name(&planned.op);
            let planned = planned.clone();
            *step = match self.intend(&planned, out, time) {
                Ok(intent) => self.perform(&planned, &intent, out, time),
                // its request waits now, and its message is done with
                Err(Admit::Wait) => Step::Done,
                Err(Admit::Go | Admit::Done) => Step::Again,
            };
        }
        name
    }

    /// Point 2: the intent is committed. Or why the operation is not to be done.
    fn intend(&mut self, planned: &Planned, out: &mut Output, time: Time) -> Result<Intent, Admit> {
        // the intent of an operation under way when the server went down: it is redone (law 5)
        if let Some(intent) = &planned.intent {
            return Ok(intent.clone());
        }
        let prepared = self.fs.prepare(&planned.actor, &planned.op);
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
                self.probe.at(Point::Two, When::After, name);
                Ok(intent)
            }
            (refused, _) => Err(refused),
        }
    }

    fn perform(
        &mut self,
        planned: &Planned,
        intent: &Intent,
        out: &mut Output,
        time: Time,
    ) -> Step {
        let outcome = self.fs.perform(&planned.actor, &planned.op, intent);
        self.fs.discard_changes();
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
    fn finish_step(&mut self, operation: &str, out: Output, time: Time) {
        self.probe.at(Point::Three, When::Before, operation);
        self.deliver(out);
        self.journal.commit(time.now);
        self.probe.at(Point::Three, When::After, operation);
    }

    /// Puts final bytes on record and into the send queues.
    pub(super) fn deliver(&mut self, out: Output) {
        for (conn, parts) in out.sends {
            let parts: Vec<&[u8]> = parts.iter().map(Bytes::as_ref).collect();
            self.stack.send(conn, &parts, &mut self.journal);
        }
        for conn in out.drop {
            self.abort(conn);
        }
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
    }
}
