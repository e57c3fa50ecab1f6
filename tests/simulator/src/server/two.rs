//! What becomes of the server where it is one node of a pair ([`crate::pair`]).

use outlast::server::open::Company;

use super::{Blow, Duration, End, Order, Pair, Server, new_shadow};
use crate::net::Net;

impl Server {
    /// The arbiter and both nodes have their turn. False: no server is to have one now.
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

    /// The outage that is under way lasts until then at least.
    fn is_away_until(&mut self, now: Duration) {
        if let Some(outage) = self.outages.last_mut() {
            outage.1 = outage.1.max(now);
        }
    }

    /// This node has the service now.
    fn move_to(&mut self, node: usize, now: Duration) {
        let is_machine = self.pair.as_ref().is_some_and(|pair| pair.plan().machines);
        // One that is stopped and was not killed has its frames yet, and nothing else of it counts.
        self.life = None;
        if node != self.node && is_machine {
            self.standby.take();
            self.shadow = new_shadow(&self.scenario);
            self.nvram = self.nvrams[node].clone();
            self.nvram.is_read_anew();
            // Another machine has not watched the directories.
            self.disk.borrow_mut().may_tell_to_look = true;
        }
        self.node = node;
        self.received.clear();
        self.device.discard();
        self.down_until = now;
        self.is_back_at(now);
    }

    /// The outage that was under way is over.
    fn is_back_at(&mut self, now: Duration) {
        if let Some(outage) = self.outages.last_mut() {
            outage.1 = now.max(outage.0);
        }
    }

    /// What was stopped goes on, where it was.
    fn wake(&mut self, net: &Net) {
        let Some((node, _)) = self.stopped.take() else {
            return;
        };
        self.fuse.replace();
        for frame in std::mem::take(&mut self.outbox) {
            self.assert_may_speak(node);
            self.leaves(&frame, net);
        }
    }

    /// No node speaks that the arbiter has not admitted.
    pub(super) fn assert_may_speak(&self, node: usize) {
        if let Some(pair) = &self.pair {
            assert!(
                pair.may_speak(node),
                "two speakers: a frame leaves node {node}, and the arbiter has admitted the other one, or none"
            );
        }
    }

    /// A crash of a pair may be no more than a stop. Else it is settled what dies.
    pub(super) fn is_only_stopped(&mut self) -> bool {
        let sends = !self.outbox.is_empty() && self.life.is_some() && !self.draining;
        let now = self.clock.now();
        let Some(pair) = &mut self.pair else {
            return false;
        };
        self.loses_its_worker = false;
        match pair.blow(sends) {
            Blow::Stopped(time) => {
                pair.stop(self.node, now + time);
                self.stopped = Some((self.node, now + time));
                self.outages.push((now, now + time));
                self.stops.push(now);
                return true;
            }
            Blow::Worker => self.loses_its_worker = true,
            Blow::Node => {}
        }
        self.outbox.clear();
        false
    }

    /// After a crash: all of the node has died, unless it was its worker alone.
    pub(super) fn node_died(&mut self) {
        let now = self.clock.now();
        if let Some(pair) = self.pair.as_mut().filter(|_| !self.loses_its_worker) {
            pair.died(self.node, now);
        }
    }

    /// Whether it is alone, and whether the node that serves has the whole state.
    pub(super) fn company(&self) -> Company {
        let Some(plan) = self.scenario.pair else {
            return Company::Alone;
        };
        let in_step = self.pair.as_ref().map_or(plan.is_shared, Pair::in_step);
        Company::Pair { in_step }
    }

    /// The boot of that machine: no two machines have the same.
    pub(super) fn boot(&self) -> u8 {
        self.boots[self.node] + 100 * (self.machine() - 1)
    }

    /// The machine that the server runs on.
    pub(super) fn machine(&self) -> u8 {
        let is_other = self.node == 1 && self.pair.as_ref().is_some_and(|it| it.plan().machines);
        1 + u8::from(is_other)
    }
}
