//! Counts the machine's own work. The counts are not part of the state, and nothing depends on them.

use std::time::Duration;

use outlast_nvram::Home;
use outlast_smb::Answered;

use super::files::FileSystem;
use super::machine::Machine;
use crate::metrics::{Counts, Gauges};

/// The counts, and the state of the work in progress.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub counts: Counts,
    /// The last answered command of the work in progress.
    answered: Option<u16>,
    /// The work in progress is done.
    is_done: bool,
    /// The time since which an operation of it is in progress, by the stopwatch.
    left_at: Option<Duration>,
}

impl Counting {
    /// Counts answered requests.
    pub fn note(&mut self, answered: &[Answered]) {
        for answered in answered {
            self.counts.answer(answered);
            self.answered = Some(answered.command);
        }
    }

    /// Notes that the work in progress is done, answered or not.
    pub fn end_work(&mut self) {
        self.is_done = true;
    }
}

impl<F: FileSystem> Machine<F> {
    /// Returns the counts, to continue earlier ones.
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.counting.counts
    }

    /// Notes the end of the operation in progress, whose time belongs to its message.
    pub(super) fn count_operation(&mut self, conn: u64, now: Duration) {
        let left_at = self.counting.left_at.take();
        if let (Some(left_at), Some(client)) = (left_at, self.clients.get_mut(&conn)) {
            client.spent += now.saturating_sub(left_at);
        }
    }

    /// Notes that a client's work has ended for this turn.
    pub(super) fn count_work(&mut self, conn: u64, spent: Duration, now: Duration) {
        if self.under_way.is_some() {
            self.counting.left_at = Some(now);
        }
        let answered = self.counting.answered.take();
        let is_done = std::mem::take(&mut self.counting.is_done);
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        client.spent += spent;
        if let Some(command) = answered {
            self.counting.counts.take(command, client.spent);
        }
        if is_done || answered.is_some() {
            client.spent = Duration::ZERO;
        }
    }

    /// Measures the gauges, which takes some time with many connections.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let usage = self.stack.usage();
        let conns = || self.stack.connections().map(|(conn, ..)| conn);
        let held = self.smb.totals(conns());
        let unacked = conns().map(|conn| self.stack.send_queued(conn) as u64);
        let mut gauges = Gauges {
            connections: usage.connections as u64,
            unauthenticated_connections: self.unauthenticated() as u64,
            unacknowledged_bytes: unacked.sum(),
            opens: held.opens as u64,
            locks: held.locks as u64,
            tree_connects: held.trees as u64,
            in_window_dropped_segments: usage.in_window_dropped,
            receive_room_bytes: self.stack.config().receive_total as u64,
            receive_held_bytes: usage.receive_held as u64,
            ..Gauges::default()
        };
        if let Some(log) = self.journal.log() {
            let replay = log.replay_cost();
            gauges.log_size_bytes = log.capacity();
            gauges.log_used_bytes = log.used();
            gauges.replay_records = replay.records;
            gauges.replay_bytes = replay.bytes;
            gauges.replay_deltas = replay.deltas;
            gauges.epoch = u64::from(log.superblock().epoch);
            gauges.recoveries = u64::from(log.superblock().recoveries);
            let lag = |home| {
                let durable = log.durable(home);
                durable.map_or(0, |durable| log.committed().0.saturating_sub(durable.0))
            };
            gauges.sink_lag_bytes = lag(Home::Sink);
            gauges.partner_lag_bytes = lag(Home::Partner);
        }
        gauges
    }

    fn unauthenticated(&self) -> usize {
        let is_unknown = |conn: &&u64| !self.smb.has_session(**conn);
        self.clients.keys().filter(is_unknown).count()
    }
}
