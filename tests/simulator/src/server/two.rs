//! Runs the server as one node of a pair ([`crate::pair`]).

use std::collections::VecDeque;

use outlast::server::open::Company;
use outlast_stack::RxChecksum;
use outlast_stack::device::Device as _;

use super::{Duration, End, NodeFailure, Order, Pair, Server, new_shadow};
use crate::net::Net;
use crate::pair::Plan;

/// The time for which a node on standby keeps frames.
const AGE: Duration = Duration::from_secs(1);

/// The frames of the last second, if the network delivers them to the node on standby.
#[derive(Default)]
pub(super) struct Kept(VecDeque<(Duration, Vec<u8>, RxChecksum)>);

impl Kept {
    pub(super) fn put(
        &mut self,
        plan: Option<Plan>,
        now: Duration,
        bytes: &[u8],
        checksum: RxChecksum,
    ) {
        if plan.is_some_and(|plan| plan.both_receive) {
            self.0.push_back((now, bytes.to_vec(), checksum));
            self.forget_old(now);
        }
    }

    fn take(&mut self, now: Duration) -> Vec<(Vec<u8>, RxChecksum)> {
        self.forget_old(now);
        let frames = self.0.drain(..);
        frames
            .map(|(_, bytes, checksum)| (bytes, checksum))
            .collect()
    }

    fn forget_old(&mut self, now: Duration) {
        while self.0.front().is_some_and(|(at, ..)| *at + AGE < now) {
            self.0.pop_front();
        }
    }
}

impl Server {
    /// Gives the arbiter and both nodes their turn. Returns whether a server has a turn now.
    pub(super) fn turn_of_pair(&mut self, now: Duration, net: &Net) -> bool {
        let Some(pair) = &mut self.pair else {
            return true;
        };
        match pair.turn(now) {
            Some(Order::Killed(node)) if node == self.node => {
                self.outbox.clear();
                if self.stopped.take().is_some() {
                    self.is_back_at(now);
                }
                if self.life.is_some() {
                    self.crashes += 1;
                    self.end(now, End::Killed);
                }
            }
            Some(Order::Serve(node)) => self.move_to(node, now),
            Some(Order::Killed(_)) | None => {}
        }
        if self.stopped.is_some_and(|(_, until)| until <= now) {
            self.wake(net);
        }
        let serves = self
            .pair
            .as_ref()
            .is_some_and(|pair| pair.serving().is_some());
        if !serves && self.life.is_none() {
            self.is_away_until(now);
        }
        serves && self.stopped.is_none_or(|(node, _)| node != self.node)
    }

    /// Extends the present outage at least to `now`.
    fn is_away_until(&mut self, now: Duration) {
        if let Some(outage) = self.outages.last_mut() {
            outage.1 = outage.1.max(now);
        }
    }

    /// Moves the service to this node.
    fn move_to(&mut self, node: usize, now: Duration) {
        // A stopped worker that was not killed only sends its remaining frames; nothing else of it counts.
        self.life = None;
        if node != self.node && self.are_machines() {
            self.standby.take();
            self.nvram = self.nvrams[node].clone();
            // The other machine has not watched the directories.
            self.disks.first().may_send_enum_dir = true;
        }
        self.received = match node == self.node {
            true => Vec::new(),
            false => self.take_kept(now),
        };
        self.node = node;
        self.takes_over = true;
        self.device.discard();
        self.down_until = now;
        self.is_back_at(now);
    }

    fn are_machines(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.plan().machines)
    }

    /// Prepares for the first server of a machine that takes the service. It recovers from the sink, which lacks what a
    /// server before it has committed and not shipped: nobody has seen that.
    pub(super) fn prepare_to_take_over(&mut self) {
        if self.takes_over && self.are_machines() {
            self.shadow = new_shadow(&self.scenario);
            self.nvram.read_from_tail();
        }
    }

    /// Returns what the other node has received in the last second, also while no server received it.
    fn take_kept(&mut self, now: Duration) -> Vec<(Vec<u8>, RxChecksum)> {
        while let Ok(Some((length, checksum))) = self.device.receive(&mut self.buffer) {
            let bytes = &self.buffer[..length];
            self.kept.put(self.scenario.pair, now, bytes, checksum);
        }
        self.kept.take(now)
    }

    /// Ends the present outage.
    fn is_back_at(&mut self, now: Duration) {
        if let Some(outage) = self.outages.last_mut() {
            outage.1 = now.max(outage.0);
        }
    }

    /// Continues the stopped node: it sends its remaining frames.
    fn wake(&mut self, net: &Net) {
        let Some((node, _)) = self.stopped.take() else {
            return;
        };
        self.fuse.replace();
        for frame in std::mem::take(&mut self.outbox) {
            self.assert_admitted(node);
            self.leaves(&frame, net);
        }
    }

    /// Checks that the arbiter has admitted the node that sends.
    pub(super) fn assert_admitted(&self, node: usize) {
        if let Some(pair) = &self.pair {
            assert!(
                pair.is_admitted(node),
                "two senders: a frame leaves node {node}, but the arbiter has admitted the other one, or none"
            );
        }
    }

    /// Returns whether a crash of a pair is only a stop. If not, it determines what dies.
    pub(super) fn is_only_stopped(&mut self) -> bool {
        let sends = !self.outbox.is_empty() && self.life.is_some() && !self.draining;
        let now = self.clock.now();
        let Some(pair) = &mut self.pair else {
            return false;
        };
        self.loses_its_worker = false;
        match pair.draw_failure(sends) {
            NodeFailure::Stopped(time) => {
                pair.stop(self.node, now + time);
                self.stopped = Some((self.node, now + time));
                self.outages.push((now, now + time));
                self.stops.push(now);
                return true;
            }
            NodeFailure::Worker => self.loses_its_worker = true,
            NodeFailure::Node => {}
        }
        self.outbox.clear();
        false
    }

    /// Ends the whole node after a crash, unless only its worker died.
    pub(super) fn node_died(&mut self) {
        let now = self.clock.now();
        if let Some(pair) = self.pair.as_mut().filter(|_| !self.loses_its_worker) {
            pair.died(self.node, now);
        }
    }

    /// Returns whether the server is alone, and if not, whether the record says that the serving node has the whole
    /// state.
    pub(super) fn company(&self) -> Company {
        let Some(plan) = self.scenario.pair else {
            return Company::Alone;
        };
        let in_step = self.pair.as_ref().map_or(plan.is_shared, Pair::in_step);
        Company::Pair { in_step }
    }

    /// Returns the boot id of the machine. No two machines have the same.
    pub(super) fn boot(&self) -> u8 {
        self.boots[self.node] + 100 * (self.machine() - 1)
    }

    /// Returns the number of the machine that the server runs on.
    pub(super) fn machine(&self) -> u8 {
        let is_other = self.node == 1 && self.pair.as_ref().is_some_and(|it| it.plan().machines);
        1 + u8::from(is_other)
    }
}
