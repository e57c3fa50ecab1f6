//! Ends a server: data in flight is acknowledged or sessions are closed, and the state is saved.

use std::time::Duration;

use outlast_nvram::Flag;
use outlast_stack::TxFrame;

use super::clock::Time;
use super::files::FileSystem;
use super::machine::Machine;

/// The longest time that an elective reboot waits for data in flight; the stack itself gives up a little earlier.
const DRAIN: Duration = Duration::from_secs(4);

/// How long `outlast stop` waits for the clients to acknowledge their last replies.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether requests are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Yes.
    Open,
    /// An elective reboot has begun: data in flight is acknowledged, no request is started.
    Draining {
        /// The end of the wait.
        until: Duration,
    },
    /// The server is ending: sessions are being closed.
    Closing {
        /// The end of the wait.
        until: Duration,
    },
}

impl<F: FileSystem> Machine<F> {
    /// Begins an elective reboot (patent, Fig. 2): no more requests are processed; data in flight is still
    /// acknowledged.
    //= patent fig2-213
    pub fn begin_drain(&mut self, time: Time) {
        if self.gate == Gate::Open {
            self.gate = Gate::Draining {
                until: time.now + DRAIN,
            };
            self.stack.drain(true);
        }
    }

    /// Begins the end: every session is closed.
    pub fn begin_closing(&mut self, time: Time) {
        self.gate = Gate::Closing {
            until: time.now + CLOSE_TIMEOUT,
        };
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.tear_down(conn);
            self.stack.close(conn, &mut self.journal);
        }
    }

    /// Returns whether the drain or the closing is finished.
    #[must_use]
    //= patent fig2-215
    pub fn at_rest(&self, time: Time) -> bool {
        match self.gate {
            Gate::Open => false,
            Gate::Draining { until } => {
                (self.stack.drained() && self.under_way.is_none()) || time.now >= until
            }
            Gate::Closing { until } => self.clients.is_empty() || time.now >= until,
        }
    }

    /// Makes the last commit of an elective end (patent, Fig. 2, step 219), and sets the flag that says who recovers
    /// its state. Returns the last frames. `machine_too`: the machine may be switched off next. `is_followed`: the next
    /// server has the state, so nothing is written again to make its recovery shorter.
    //= patent fig2-219
    pub fn save(
        &mut self,
        time: Time,
        flag: Flag,
        machine_too: bool,
        is_followed: bool,
    ) -> Vec<TxFrame> {
        // What may be missing on the media is done once more by the next start, whatever clients are still connected.
        let is_consistent = !machine_too || self.make_consistent(time);
        let flag = match flag {
            Flag::Clean if !is_consistent => Flag::ElectiveReboot,
            flag => flag,
        };
        if flag != Flag::Clean && !is_followed {
            self.renew(time.now);
        }
        self.report_local_changes(time);
        self.journal.end(time.now, flag, machine_too);
        self.hold_back(Vec::new())
    }
}
