//! Checks every turn: that the state is the fold of the committed records, and each frame that leaves.

use std::time::Duration;

use outlast_stack::device::Device;
use outlast_stack::{State, TxFrame};

use super::Server;
use crate::configuration::receive_total;
use crate::fuse::Step;
use crate::inspect::Known;
use crate::mutation::Mutation;
use crate::net::{FIRST_PORT, Net};
use crate::revocation::Revocation;
use crate::trace;

/// The time for which a mutated server is silent after a restart.
const SILENCE: Duration = Duration::from_secs(5);

impl Server {
    /// Law 8: checks that all windows together do not exceed the room reserved for them.
    pub(super) fn check_promises(&self) {
        let Some(life) = &self.life else { return };
        let usage = life.machine.stack().usage();
        let (held, dropped) = (usage.receive_held, usage.in_window_dropped);
        assert_eq!(
            dropped, 0,
            "the server has dropped segments within a window"
        );
        let may_send = |state| {
            matches!(
                state,
                State::SynReceived | State::Established | State::FinWait1 | State::FinWait2
            )
        };
        let connections = life.machine.stack().connections();
        let ports = connections
            .filter(|(.., state)| may_send(*state))
            .map(|(_, remote, _)| remote.port());
        let promised = self.inspector.promises.promised(&ports.collect());
        let room = receive_total(&self.scenario);
        assert!(
            promised <= room && held <= room,
            "the windows offer {promised} bytes (the server counts {held} with its queues), but {room} are reserved"
        );
    }

    /// Laws 1 and 2: checks that the state is the fold of the committed records.
    pub(super) fn check_state(&mut self) {
        self.follow();
        if let Some(life) = &self.life {
            let dropped = life.machine.stack().usage().in_window_dropped;
            assert_eq!(
                dropped, 0,
                "segments within a window are dropped for lack of room in the log"
            );
        }
        if let Some(life) = self.life.as_ref().filter(|_| self.scenario.sees_inside) {
            self.shadow.compare(&life.machine);
        }
    }

    /// Returns the port of the client whose connection the server may have ended.
    fn port_cut(&self) -> Option<u16> {
        let revocation = self.scenario.rules.revocation.filter(|_| self.has_revoked);
        let victim = revocation.filter(Revocation::ends_connection)?.victim;
        Some(FIRST_PORT + u16::try_from(victim).ok()?)
    }

    pub(super) fn send(&mut self, frames: &[TxFrame], net: &Net) {
        if self.pair.is_some() {
            self.outbox.extend(frames.iter().cloned());
        }
        let returned = self.life.as_ref().filter(|_| self.lives() > 0);
        let is_silent = returned.is_some_and(|life| self.clock.now() < life.began + SILENCE);
        if is_silent && self.is(Mutation::SilentAfterRestart) {
            return;
        }
        for frame in frames {
            self.fuse.step(Step::Frame);
            self.assert_admitted(self.node);
            self.outbox.pop_front();
            self.leaves(frame, net);
        }
    }

    /// Sends a frame to the wire, and checks it.
    pub(super) fn leaves(&mut self, frame: &TxFrame, net: &Net) {
        let cut = self.port_cut();
        let forgotten = self.reneging.as_mut().and_then(|it| it.forget(frame));
        let frame = forgotten.as_ref().unwrap_or(frame);
        let known = |port| Known {
            may_end: net.may_end(port) || cut == Some(port),
            may_reset: cut == Some(port),
            draining: self.draining,
            at_once: self.sink.is_none(),
        };
        trace::frame(
            "server to client",
            self.clock.now(),
            &frame.header,
            &frame.payload,
        );
        let on_record = self.shipped.as_ref().unwrap_or(&self.shadow);
        let committed = self.scenario.sees_inside.then_some(&on_record.stack);
        self.inspector.look(frame, committed, known);
        // The wire takes every frame; a loss is one of its faults.
        let _ = self.device.send(frame);
    }
}
