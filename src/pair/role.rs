//! What a node of a pair decides, apart from how it does it: what happens and what time it is go in, what to do comes
//! out.
//!
//! A node that has not the service stands by. It looks at the record, asks the arbiter when it may take the service,
//! and takes it in an order that never has two speakers: admitted by the arbiter, then the other node fenced (if it did
//! not leave in order), then the epoch raised on record, then the mass storage mounted, and only then a server started.
//! A holder that leaves goes the other way: server ended and reaped, mass storage unmounted, record written, lock
//! released. So a node that may have the mass storage mounted is always the one on record.

use std::time::Duration;

use super::arbiter::{Rest, Seen, Term};

/// Between two looks at the record.
pub const PACE: Duration = Duration::from_millis(20);
/// After an attempt to take the service has failed.
const PAUSE: Duration = Duration::from_secs(5);
/// The node that the service was handed to has so long; then the one that left takes it back.
const HANDOVER: Duration = Duration::from_secs(10);
/// A node that was forced waits so long for the fenced node's lock.
const FORCED: Duration = Duration::from_secs(30);

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The record, as [`Action::Look`] asked for.
    Looked(Seen),
    /// The arbiter's answer to [`Action::Ask`]: admitted, with what is on record, or not.
    Asked(Option<Term>),
    /// How [`Action::Fence`] has ended.
    Fenced(Result<(), String>),
    /// How [`Action::Mount`] has ended.
    Mounted(Result<(), String>),
    /// How [`Action::Take`] has ended.
    Taken(Result<(), String>),
    /// The arbiter cannot be used now.
    Failed(String),
    /// The server has ended and is reaped.
    Left(Leaving),
    /// How [`Action::Unmount`] has ended.
    Unmounted(Result<(), String>),
    /// Time has passed.
    Tick,
}

/// How a server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leaving {
    /// Its state is saved for the other node.
    HandedOver {
        /// The service is given back to where it was before.
        is_return: bool,
    },
    /// Its state is saved for this node's next start.
    Rebooting,
    /// Its sessions are closed.
    Stopped,
    /// It cannot go on; its state is as it was.
    Died,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the record.
    Look,
    /// Ask the arbiter to be admitted.
    Ask,
    /// Make sure that this node cannot speak or write any more.
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
    /// Let another node be admitted; first write how this one has left.
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
    /// The service is not admitted yet: the other node holds the lock.
    FencingHolder,
    Fencing(Term),
    Taking,
    Mounting,
    Serving,
    Unmounting(Leaving),
    /// After an attempt to mount that has failed.
    Clearing,
    Over,
}

/// May this node take the service?
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It may; the other node has to be fenced before.
    Take {
        fence: bool,
    },
    Wait,
    /// The other node is to take it.
    PassOn,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    nodes: Nodes,
    /// It takes the service only when it is ordered to: a cluster manager decides.
    by_order: bool,
    state: State,
    next_look: Duration,
    /// The last epoch in which this process has seen a holder, be it itself.
    held_epoch: Option<u64>,
    /// The holder of this epoch is fenced.
    fenced_epoch: Option<u64>,
    /// Since when nobody holds the service, and in which epoch.
    free_since: Option<(u64, Duration)>,
    /// Until when this node takes the service whatever the record says.
    forced_until: Option<Duration>,
    /// What keeps this node from taking the service.
    trouble: Option<String>,
    /// This node has the state of the term on record.
    has_state: bool,
}

impl Role {
    /// A node that begins.
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

    /// Whether this node has the state of the term that it looks at next, or is admitted in. It has, if both nodes reach
    /// the same storage.
    pub fn set_has_state(&mut self, yes: bool) {
        self.has_state = yes;
    }

    /// A node that takes the service only when it is ordered to ([`Role::force`]): a cluster manager decides,
    /// and fences.
    #[must_use]
    pub fn by_order(nodes: Nodes) -> Role {
        Role {
            by_order: true,
            ..Role::new(nodes)
        }
    }

    /// When [`Event::Tick`] is wanted; `None`: something else is awaited.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        (self.state == State::Standing).then_some(self.next_look)
    }

    /// What keeps this node from taking the service, if something does.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// It serves, or may begin to.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.state == State::Serving
    }

    /// `outlast takeover --force`: takes the service as soon as the arbiter admits this node, whatever the record says.
    /// `seen`: what is on record now. `can_fence`: a holder that does not let go can be fenced.
    ///
    /// # Errors
    /// Why not, and the remedy.
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

    /// Takes an event at the time `now`.
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
        // One that has left in order does not speak, so there is nobody to fence.
        let is_fenced = self.fenced_epoch == Some(term.epoch);
        let fence = !is_own && term.rest == Rest::Not && !is_fenced;
        let may = match &term.rest {
            _ if self.forced_until.is_some() => true,
            _ if self.by_order => false,
            Rest::Not if self.has_state => is_own || term.in_step,
            // Then it is the other node that may have it.
            Rest::Not => is_own && !term.in_step,
            Rest::HandedTo { node, .. } if *node == self.nodes.own => self.has_state,
            Rest::HandedTo { .. } => {
                let since = self.free_since.filter(|(epoch, _)| *epoch == term.epoch);
                is_own && since.is_some_and(|(_, since)| now >= since + HANDOVER)
            }
            // Its NVRAM was lost meanwhile, and the other node has all of it.
            Rest::Rebooting if is_own && term.in_step && !self.has_state => {
                return Verdict::PassOn;
            }
            Rest::Rebooting => is_own,
            // A server that is started now is wanted; one that stood by when the service was stopped is not.
            Rest::Stopped => self.held_epoch != Some(term.epoch),
        };
        match may {
            true => Verdict::Take { fence },
            false => Verdict::Wait,
        }
    }

    fn admitted(&mut self, term: Term, now: Duration) -> Option<Action> {
        // What was looked at may have changed before this node was admitted.
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

    /// The arbiter or the fence does not do what it should; nothing is held.
    fn fail(&mut self, why: String, now: Duration) -> Option<Action> {
        self.trouble = Some(why);
        self.forced_until = None;
        self.next_look = now + PAUSE;
        self.stand_by()
    }

    /// This node is admitted, and does not serve.
    fn give_up(&mut self, rest: Option<Rest>, why: String, now: Duration) -> Option<Action> {
        self.fail(why, now);
        Some(Action::Release(rest))
    }

    /// Nothing is mounted here, so the other node may try; if that is not sure, it fences this node first.
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
            // Mounted by two nodes, a file system is destroyed: the service stays here.
            (Some(_), Err(why)) => {
                self.trouble = Some(why);
                self.state = State::Serving;
                Some(Action::Serve)
            }
            (None, Ok(())) if leaving == Leaving::Stopped => self.end(Some(Rest::Stopped)),
            (None, Ok(())) => self.end(Some(Rest::Rebooting)),
            // As one that died: who takes over fences this node first.
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
