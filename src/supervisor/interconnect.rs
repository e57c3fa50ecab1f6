//! Runs the supervisor's side of the interconnect: receives the log of the serving node, and reports its progress.

use std::path::PathBuf;

use anyhow::Context as _;
use outlast_nvram::Incarnation;

use crate::config::{Config, Partner};
use crate::control::LinkStatus;
use crate::pair::arbiter::{Seen, Term};
use crate::pair::basis;
use crate::pair::link::keys::Keys;
use crate::pair::link::receiver::{Place, Receiver, View};

/// The receiver, and the NVRAM that it writes.
pub(super) struct Interconnect {
    receiver: Receiver,
    own: String,
    partner: String,
    incarnation: Incarnation,
    nvram: PathBuf,
    sink: Option<PathBuf>,
}

impl Interconnect {
    /// Starts to listen; `None`: the nodes have no interconnect.
    ///
    /// # Errors
    /// The key is invalid, or the address cannot be listened on.
    pub(super) fn open(
        config: &Config,
        partner: &Partner,
        incarnation: Incarnation,
    ) -> anyhow::Result<Option<Interconnect>> {
        let Some(of) = &partner.interconnect else {
            return Ok(None);
        };
        let named = |key: &str| format!("{}: partner.{key}", config.path.display());
        let keys = Keys::load(&of.key, &partner.nodes).with_context(|| named("key"))?;
        let receiver = Receiver::start(Place {
            address: of.own,
            keys,
            partner: partner.nodes.partner.clone(),
            nvram: config.nvram.path.clone(),
            size_bytes: config.nvram.size_bytes,
            incarnation,
        });
        let nvram = &config.nvram;
        Ok(Some(Interconnect {
            receiver: receiver.with_context(|| config.path.display().to_string())?,
            own: partner.nodes.own.clone(),
            partner: partner.nodes.partner.clone(),
            incarnation,
            nvram: nvram.path.clone(),
            sink: nvram.durability.has_sink().then(|| nvram.sink.clone()),
        }))
    }

    /// Accepts the log of the admitted node, and of no other. `stands_by`: this node has not asked for the service.
    pub(super) fn admit(&self, seen: &Seen, stands_by: bool) {
        let holds = stands_by && seen.is_held && seen.term.holder == self.partner;
        self.receiver.admit(holds.then_some(seen.term.epoch));
    }

    /// Refuses every log from now on, and acknowledges nothing.
    pub(super) fn close(&self) {
        self.receiver.admit(None);
    }

    /// Returns the term of the state that this node may resume after `last`.
    pub(super) fn resumes(&self, last: &Term) -> Option<u64> {
        let held = basis::held(&self.nvram, self.sink.as_deref(), self.incarnation);
        basis::resumes(last, &self.own, &held)
    }

    /// Returns whether there is a copy that a worker may follow.
    pub(super) fn is_followed(&self, seen: &Seen) -> bool {
        seen.term.in_step && self.receiver.view().is_connected
    }

    /// Returns the status of the interconnect on a standby node.
    pub(super) fn status(&self) -> LinkStatus {
        let View {
            is_connected,
            heard,
            beat,
            received,
        } = self.receiver.view();
        LinkStatus {
            is_connected,
            problem: (!is_connected).then(|| format!("node {} is not connected", self.partner)),
            lag_bytes: is_connected.then(|| beat.committed.saturating_sub(received)),
            round_trip_us: beat.round_trip_us,
            heard_ms_ago: heard.map(|at| at.elapsed().as_millis() as u64),
        }
    }
}
