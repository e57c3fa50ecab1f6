//! Decides the role of a node of a pair, without executing the decisions: inputs are events and the time, outputs are
//! actions.
//!
//! A node without the service is on standby. It reads the record, asks the arbiter when it may take the service, and
//! takes it in an order that never has two senders: admitted by the arbiter, then the other node fenced (if it did not
//! end in order), then the epoch raised in the record, then the mass storage mounted, and only then a server started. A
//! holder that ends does the reverse: server ended and reaped, mass storage unmounted, record written, lock released.
//! So a node that may have mounted the mass storage is always the recorded one.

use std::time::Duration;

use super::arbiter::{Rest, Seen, Term};

/// The interval at which the record is read.
pub const PACE: Duration = Duration::from_millis(20);
/// The delay after a failed attempt to take the service.
const PAUSE: Duration = Duration::from_secs(5);
/// The time within which the node to which the service was handed over must take it; then the former holder takes it
/// back.
const HANDOVER: Duration = Duration::from_secs(10);
/// The time for which a forced node waits for the fenced node's lock.
const FORCED: Duration = Duration::from_secs(30);

/// An event of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The record, as requested by [`Action::Look`].
    Looked(Seen),
    /// The arbiter's answer to [`Action::Ask`]: admitted, with the record, or not.
    Asked(Option<Term>),
    /// The result of [`Action::Fence`].
    Fenced(Result<(), String>),
    /// The result of [`Action::Mount`].
    Mounted(Result<(), String>),
    /// The result of [`Action::Take`].
    Taken(Result<(), String>),
    /// The arbiter cannot be used now.
    Failed(String),
    /// The server has ended and is reaped.
    Left(Leaving),
    /// The result of [`Action::Unmount`].
    Unmounted(Result<(), String>),
    /// Time has passed.
    Tick,
}

/// How a server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leaving {
    /// Its state is saved for the other node.
    HandedOver {
        /// The service returns to the node that had it before.
        is_return: bool,
    },
    /// Its state is saved for this node's next start.
    Rebooting,
    /// Its sessions are closed.
    Stopped,
    /// It cannot continue; its state is unchanged.
    Died,
}

/// An action of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the record.
    Look,
    /// Ask the arbiter for admission.
    Ask,
    /// Make sure that this node can no longer send or write.
    Fence {
        /// The node.
        node: String,
    },
    /// Mount the mass storage.
    Mount,
    /// Write the term, which raises the epoch.
    Take(Term),
    /// Start a server.
    Serve,
    /// Unmount the mass storage.
    Unmount,
    /// Let another node be admitted; first record how this one has ended.
    Release(Option<Rest>),
    /// End.
    End,
}

/// Names of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nodes {
    /// This one.
    pub own: String,
    /// The other one.
    pub partner: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Standing,
    Asking,
    /// This node is not admitted yet: the other node holds the lock.
    FencingHolder,
    Fencing(Term),
    Taking,
    Mounting,
    Serving,
    Unmounting(Leaving),
    /// After a failed attempt to mount.
    Clearing,
    Over,
}

/// Whether this node may take the service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It may; if `fence`, the other node must be fenced before.
    Take {
        fence: bool,
    },
    Wait,
    /// The other node should take it.
    PassOn,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    nodes: Nodes,
    /// It takes the service only upon an order: a cluster manager decides.
    by_order: bool,
    state: State,
    next_look: Duration,
    /// The last epoch in which this process has seen a holder, including itself.
    held_epoch: Option<u64>,
    /// The holder of this epoch is fenced.
    fenced_epoch: Option<u64>,
    /// The time since which the service has had no holder, and the epoch.
    free_since: Option<(u64, Duration)>,
    /// The time until which this node takes the service, whatever the record contains.
    forced_until: Option<Duration>,
    /// The reason that prevents this node from taking the service.
    trouble: Option<String>,
    /// This node has the state of the term on record.
    has_state: bool,
}

impl Role {
    /// Makes the state of a node that starts.
    #[must_use]
    pub fn new(nodes: Nodes) -> Role {
        Role {
            nodes,
            by_order: false,
            state: State::Standing,
            next_look: Duration::ZERO,
            held_epoch: None,
            fenced_epoch: None,
            free_since: None,
            forced_until: None,
            trouble: None,
            has_state: true,
        }
    }

    /// Sets whether this node has the state of the term that it reads next, or is admitted in. It always has if both
    /// nodes reach the same storage.
    pub fn set_has_state(&mut self, yes: bool) {
        self.has_state = yes;
    }

    /// Makes a node that takes the service only upon an order ([`Role::force`]): a cluster manager decides, and fences.
    #[must_use]
    pub fn by_order(nodes: Nodes) -> Role {
        Role {
            by_order: true,
            ..Role::new(nodes)
        }
    }

    /// Returns the time of the next [`Event::Tick`]; `None`: another event is awaited.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        (self.state == State::Standing).then_some(self.next_look)
    }

    /// Returns the reason that prevents this node from taking the service, if any.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Returns whether it serves, or may begin to.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.state == State::Serving
    }

    /// Executes `outlast takeover --force`: takes the service as soon as the arbiter admits this node, whatever the
    /// record contains. `seen`: the current record. `can_fence`: a holder that does not release the lock can be fenced.
    ///
    /// # Errors
    /// The reason for the refusal, and the remedy.
    pub fn force(
        &mut self,
        seen: &Seen,
        can_fence: bool,
        now: Duration,
    ) -> Result<Option<Action>, String> {
        let partner = &self.nodes.partner;
        if self.state != State::Standing {
            return Err("this node is taking the service over already".to_owned());
        }
        if seen.is_held {
            self.held_epoch = Some(seen.term.epoch);
        }
        let is_own = seen.term.holder == self.nodes.own || seen.term.holder.is_empty();
        if self.by_order && seen.term.rest == Rest::Not && !is_own && !seen.term.in_step {
            return Err(format!(
                "node {partner} has died, and what it had committed is not all here: start it again, and promote it"
            ));
        }
        if seen.is_held && !can_fence {
            return Err(format!(
                "node {partner} holds the lock and may still serve: run `outlast takeover` there, end its server, or \
                 set partner.fence_command"
            ));
        }
        self.trouble = None;
        self.forced_until = Some(now + FORCED);
        self.next_look = now;
        if seen.is_held {
            self.state = State::FencingHolder;
            let node = partner.clone();
            return Ok(Some(Action::Fence { node }));
        }
        Ok(None)
    }

    /// Processes an event at the time `now`.
    //= patent fig4-411
    pub fn handle(&mut self, event: Event, now: Duration) -> Option<Action> {
        match (self.state.clone(), event) {
            (State::Standing, Event::Tick) if now >= self.next_look => {
                self.next_look = now + PACE;
                Some(Action::Look)
            }
            (State::Standing, Event::Looked(seen)) => self.looked(&seen, now),
            (State::Standing, Event::Failed(why)) => self.fail(why, now),
            (State::Asking, Event::Asked(Some(term))) => self.admitted(term, now),
            (State::Asking, Event::Asked(None)) => self.stand_by(),
            (State::Asking, Event::Failed(why)) => self.fail(why, now),
            (State::FencingHolder, Event::Fenced(Ok(()))) => {
                self.fenced_epoch = self.held_epoch;
                self.forced_until = Some(now + FORCED);
                self.next_look = now;
                self.stand_by()
            }
            (State::FencingHolder, Event::Fenced(Err(why))) => self.fail(why, now),
            (State::Fencing(term), Event::Fenced(Ok(()))) => self.take(&term),
            (State::Taking, Event::Taken(Ok(()))) => {
                self.state = State::Mounting;
                Some(Action::Mount)
            }
            (State::Mounting, Event::Mounted(Ok(()))) => {
                self.state = State::Serving;
                self.forced_until = None;
                self.trouble = None;
                Some(Action::Serve)
            }
            (State::Fencing(_), Event::Fenced(Err(why)))
            | (State::Taking, Event::Taken(Err(why))) => self.give_up(None, why, now),
            (State::Mounting, Event::Mounted(Err(why))) => {
                self.trouble = Some(why);
                self.state = State::Clearing;
                Some(Action::Unmount)
            }
            (State::Clearing, Event::Unmounted(ended)) => self.cleared(ended, now),
            (State::Serving, Event::Left(Leaving::Died)) => self.end(None),
            (State::Serving, Event::Left(leaving)) => {
                self.state = State::Unmounting(leaving);
                Some(Action::Unmount)
            }
            (State::Unmounting(leaving), Event::Unmounted(ended)) => {
                self.unmounted(leaving, ended, now)
            }
            _ => None,
        }
    }

    fn looked(&mut self, seen: &Seen, now: Duration) -> Option<Action> {
        if self.forced_until.is_some_and(|until| now >= until) {
            self.forced_until = None;
        }
        let epoch = seen.term.epoch;
        match self.free_since {
            _ if seen.is_held => self.free_since = None,
            Some((of, _)) if of == epoch => {}
            _ => self.free_since = Some((epoch, now)),
        }
        if seen.is_held {
            self.held_epoch = Some(epoch);
            return None;
        }
        match self.verdict(&seen.term, now) {
            Verdict::Take { .. } | Verdict::PassOn => {
                self.state = State::Asking;
                Some(Action::Ask)
            }
            Verdict::Wait => None,
        }
    }

    //= patent claim-16, claim-17
    fn verdict(&self, term: &Term, now: Duration) -> Verdict {
        let is_own = term.holder == self.nodes.own || term.holder.is_empty();
        // A node that has ended in order does not send and need not be fenced.
        let is_fenced = self.fenced_epoch == Some(term.epoch);
        let fence = !is_own && term.rest == Rest::Not && !is_fenced;
        let may = match &term.rest {
            _ if self.forced_until.is_some() => true,
            _ if self.by_order => false,
            Rest::Not if self.has_state => is_own || term.in_step,
            // Then the other node may take it.
            Rest::Not => is_own && !term.in_step,
            Rest::HandedTo { node, .. } if *node == self.nodes.own => self.has_state,
            Rest::HandedTo { .. } => {
                let since = self.free_since.filter(|(epoch, _)| *epoch == term.epoch);
                is_own && since.is_some_and(|(_, since)| now >= since + HANDOVER)
            }
            // Its NVRAM was lost meanwhile, and the other node has the whole state.
            Rest::Rebooting if is_own && term.in_step && !self.has_state => {
                return Verdict::PassOn;
            }
            Rest::Rebooting => is_own,
            // A node that is started now serves; one that was on standby when the service was stopped does not.
            Rest::Stopped => self.held_epoch != Some(term.epoch),
        };
        match may {
            true => Verdict::Take { fence },
            false => Verdict::Wait,
        }
    }

    fn admitted(&mut self, term: Term, now: Duration) -> Option<Action> {
        // The record may have changed before this node was admitted.
        match self.verdict(&term, now) {
            Verdict::Take { fence: true } => {
                let node = term.holder.clone();
                self.state = State::Fencing(term);
                Some(Action::Fence { node })
            }
            Verdict::Take { fence: false } => self.take(&term),
            Verdict::PassOn => {
                self.state = State::Standing;
                Some(Action::Release(Some(self.handed(false))))
            }
            Verdict::Wait => {
                self.state = State::Standing;
                Some(Action::Release(None))
            }
        }
    }

    fn take(&mut self, term: &Term) -> Option<Action> {
        self.state = State::Taking;
        Some(Action::Take(term.next(&self.nodes.own)))
    }

    fn stand_by(&mut self) -> Option<Action> {
        self.state = State::Standing;
        None
    }

    /// Handles a failure of the arbiter or the fence; nothing is held.
    fn fail(&mut self, why: String, now: Duration) -> Option<Action> {
        self.trouble = Some(why);
        self.forced_until = None;
        self.next_look = now + PAUSE;
        self.stand_by()
    }

    /// Releases the admission without having served.
    fn give_up(&mut self, rest: Option<Rest>, why: String, now: Duration) -> Option<Action> {
        self.fail(why, now);
        Some(Action::Release(rest))
    }

    /// This node has nothing mounted, so the other node may try; if that is not certain, it fences this node first.
    fn cleared(&mut self, ended: Result<(), String>, now: Duration) -> Option<Action> {
        let why = self.trouble.take().unwrap_or_default();
        match ended {
            Ok(()) => self.give_up(Some(self.handed(false)), why, now),
            Err(also) => self.give_up(None, format!("{why}; {also}"), now),
        }
    }

    fn handed(&self, is_return: bool) -> Rest {
        Rest::HandedTo {
            node: self.nodes.partner.clone(),
            is_return,
        }
    }

    fn unmounted(
        &mut self,
        leaving: Leaving,
        ended: Result<(), String>,
        now: Duration,
    ) -> Option<Action> {
        let handed = match leaving {
            Leaving::HandedOver { is_return } => Some(self.handed(is_return)),
            _ => None,
        };
        match (handed, ended) {
            (Some(rest), Ok(())) => {
                self.state = State::Standing;
                self.free_since = None;
                self.next_look = now + PACE;
                Some(Action::Release(Some(rest)))
            }
            // A file system mounted by two nodes is destroyed: the service stays here.
            (Some(_), Err(why)) => {
                self.trouble = Some(why);
                self.state = State::Serving;
                Some(Action::Serve)
            }
            (None, Ok(())) if leaving == Leaving::Stopped => self.end(Some(Rest::Stopped)),
            (None, Ok(())) => self.end(Some(Rest::Rebooting)),
            // As after a crash: the node that takes over fences this node first.
            (None, Err(why)) => {
                self.trouble = Some(why);
                self.end(None)
            }
        }
    }

    fn end(&mut self, rest: Option<Rest>) -> Option<Action> {
        self.state = State::Over;
        Some(rest.map_or(Action::End, |rest| Action::Release(Some(rest))))
    }
}

#[cfg(test)]
mod tests;
