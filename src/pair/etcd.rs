//! Implements the arbiter `etcd`: a lease of etcd admits one node at a time.
//!
//! Each running node has a lease, which a thread of its supervisor renews. The holder is the node that has created the
//! key `holder`, which is deleted when its lease ends. A transaction creates the key only if it does not exist, and the
//! record is written by transactions that require the same key, so etcd accepts no write of a node whose lease has
//! ended. etcd cannot prevent such a node from sending: the timers of [`super::lease`] end it before its key is
//! deleted.
//!
//! | key, below the prefix | value | goes with the lease |
//! |---|---|---|
//! | `term` | the record | no |
//! | `holder` | the node that is admitted | yes |
//! | `running/NODE` | the node runs | yes |
//! | `node/NODE` | the machine and boot it was last started on | no |

mod api;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, warn};
use outlast_nvram::Incarnation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::api::{Api, Outcome, Pair, delete, get, is_of_revision, is_unchanged, put};
use super::arbiter::{Arbiter, ArbiterError, Running, Seen, Term};
use super::lease::{self, Lease, margin};
use super::role::Nodes;
use crate::config::Etcd;

const VERSION: u32 = 1;
/// The timeout of a request: the supervisor waits for some of them.
const PATIENCE: Duration = Duration::from_secs(1);
/// The interval of reads on a standby node, on a serving node, and after a failure.
const LOOK_STANDING: Duration = Duration::from_millis(50);
const LOOK_SERVING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The delay before a failed renewal is retried.
const RENEW_AGAIN: Duration = Duration::from_millis(200);
/// The keys of a killed server of the same node remain until its lease ends, and this much longer (etcd looks for ended
/// leases twice a second).
const AFTER_LEASE: Duration = Duration::from_secs(3);

/// The record, as etcd stores it.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    term: Term,
}

/// The arbiter of one node.
#[derive(Debug)]
pub struct EtcdArbiter {
    shared: Arc<Shared>,
}

/// The state that the arbiter shares with its threads.
#[derive(Debug)]
struct Shared {
    api: Api,
    prefix: String,
    nodes: Nodes,
    /// The requested duration of a lease.
    length: Duration,
    lease: Arc<Lease>,
    state: Mutex<State>,
    /// Notified when the state has changed so that a thread must not wait.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Session>,
    /// This node is admitted.
    held: Option<Held>,
    /// The keys as last read.
    view: Option<View>,
    /// The reason why they cannot be read now.
    trouble: Option<String>,
    /// The arbiter is no longer needed.
    is_over: bool,
}

/// A lease of etcd.
#[derive(Clone, Copy, Debug)]
struct Session {
    id: i64,
    /// Its end on the clock of [`lease::now`], less the margin.
    until: Duration,
}

#[derive(Clone, Debug)]
struct Held {
    /// The revision in which this node created the key `holder`.
    since: i64,
    term: Term,
    /// The revision in which the term was last written.
    written: i64,
}

#[derive(Clone, Debug)]
struct View {
    term: Term,
    /// The lease of the key `holder`, if the key exists.
    holder: Option<i64>,
    partner_runs: bool,
    partner: Option<Incarnation>,
}

impl EtcdArbiter {
    /// Connects to etcd, and records there that this node runs.
    ///
    /// # Errors
    /// etcd cannot be reached or used, or the node already runs.
    pub fn open(
        etcd: &Etcd,
        nodes: &Nodes,
        incarnation: Incarnation,
    ) -> Result<EtcdArbiter, ArbiterError> {
        let api = Api::new(etcd, PATIENCE).map_err(|why| wrong(&why))?;
        let lease = Lease::new().map_err(|error| wrong(&error.into()))?;
        let shared = Arc::new(Shared {
            api,
            prefix: etcd.prefix.clone(),
            nodes: nodes.clone(),
            length: etcd.lease,
            lease,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        shared.begin(incarnation)?;
        for (name, work) in [
            ("etcd lease", Shared::renew as fn(&Shared) -> Duration),
            ("etcd look", Shared::look),
        ] {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(name.into());
            let started = thread.spawn(move || shared.repeat(work));
            started.map_err(|error| wrong(&error.into()))?;
        }
        Ok(EtcdArbiter { shared })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn key_of(&self, kind: &str, node: &str) -> String {
        format!("{}{kind}/{node}", self.prefix)
    }

    /// Repeats `work`, which returns the time until its next call, until the arbiter is dropped.
    fn repeat(&self, work: fn(&Shared) -> Duration) {
        while !self.state().is_over {
            let pause = work(self);
            let state = self.state();
            if !state.is_over {
                // An early wake-up costs one more request.
                drop(self.changed.wait_timeout(state, pause));
            }
        }
    }

    /// Tries again while etcd cannot be reached, and while a server of this node that was killed may keep its keys.
    fn begin(&self, incarnation: Incarnation) -> Result<(), ArbiterError> {
        let begun = Instant::now();
        loop {
            let problem = match self.try_to_begin(incarnation) {
                Ok(true) => return Ok(()),
                Ok(false) => ArbiterError::Wrong(format!(
                    "etcd: a server runs as node {} already: end it, or give this one the other node's name \
                     (partner.node)",
                    self.nodes.own
                )),
                Err(why) => unavailable(&why),
            };
            if begun.elapsed() >= self.length + AFTER_LEASE {
                return Err(problem);
            }
            std::thread::sleep(RENEW_AGAIN);
        }
    }

    /// False: another server says that it is this node.
    fn try_to_begin(&self, incarnation: Incarnation) -> anyhow::Result<bool> {
        let has_session = self.state().session.is_some();
        if !has_session && !self.begin_session()? {
            return Ok(false);
        }
        let first = Kept {
            version: VERSION,
            term: Term::first(),
        };
        let running = serde_json::to_string(&Running::new(incarnation))?;
        let term = self.key("term");
        let node = put(&self.key_of("node", &self.nodes.own), &running, 0);
        let make = [put(&term, &serde_json::to_string(&first)?, 0), node.clone()];
        self.api
            .transact(&[is_of_revision(&term, 0)], &make, &[node])?;
        self.see()?;
        Ok(true)
    }

    /// Requests a lease, and records that this node runs. Returns false if another server is recorded.
    fn begin_session(&self) -> anyhow::Result<bool> {
        let asked = lease::now();
        let (id, length) = self.api.grant(self.length)?;
        let running = self.key_of("running", &self.nodes.own);
        let process = std::process::id().to_string();
        let made = self.api.transact(
            &[is_of_revision(&running, 0)],
            &[put(&running, &process, id)],
            &[],
        );
        if !made.as_ref().is_ok_and(|outcome| outcome.succeeded) {
            // The lease also ends by itself.
            let _ = self.api.revoke(id);
            return made.map(|_| false);
        }
        let until = asked + length.saturating_sub(margin(length));
        self.state().session = Some(Session { id, until });
        Ok(true)
    }

    /// Renews the lease; returns the time until the next renewal.
    fn renew(&self) -> Duration {
        let session = self.state().session;
        let Some(Session { id, .. }) = session else {
            return match self.begin_session() {
                Ok(true) => self.length / 3,
                Ok(false) => RENEW_AGAIN,
                Err(why) => self.missed(&why),
            };
        };
        // The duration counts from the time before the request.
        let asked = lease::now();
        match self.api.keep_alive(id) {
            Ok(Some(left)) => {
                self.extend(id, asked + left.saturating_sub(margin(left)));
                self.length / 3
            }
            Ok(None) => {
                let mut state = self.state();
                if state.session.is_some_and(|session| session.id == id) {
                    state.session = None;
                    if state.held.take().is_some() {
                        warn!("etcd has given this node's lease up");
                    }
                }
                Duration::ZERO
            }
            Err(why) => self.missed(&why),
        }
    }

    fn extend(&self, id: i64, until: Duration) {
        let mut state = self.state();
        let Some(session) = state.session.as_mut().filter(|session| session.id == id) else {
            return;
        };
        session.until = until;
        if state.held.is_some()
            && let Err(error) = self.lease.extend(until)
        {
            // The timer is unchanged, and ends this node in time.
            warn!("the timer of the lease cannot be set: {error}");
        }
    }

    fn missed(&self, why: &anyhow::Error) -> Duration {
        debug!("the lease is not renewed: {why:#}");
        RENEW_AGAIN
    }

    /// Reads the keys; returns the time until the next read.
    fn look(&self) -> Duration {
        let seen = self.see();
        let mut state = self.state();
        state.trouble = seen.err().map(|why| unavailable(&why).to_string());
        match (&state.trouble, &state.held) {
            (Some(_), _) => LOOK_AGAIN,
            (None, Some(_)) => LOOK_SERVING,
            (None, None) => LOOK_STANDING,
        }
    }

    fn see(&self) -> anyhow::Result<()> {
        let pairs = self.api.beneath(&self.prefix)?;
        let find = |key: &str| pairs.iter().find(|pair| pair.key == key.as_bytes());
        let partner = &self.nodes.partner;
        let node = find(&self.key_of("node", partner));
        let running = node.and_then(|pair| serde_json::from_slice::<Running>(&pair.value).ok());
        let view = View {
            term: term(find(&self.key("term")))?.0,
            holder: find(&self.key("holder")).map(|pair| pair.lease),
            partner_runs: find(&self.key_of("running", partner)).is_some(),
            partner: running.and_then(|running| running.incarnation()),
        };
        self.state().view = Some(view);
        Ok(())
    }

    /// Returns the lease, if there is one that has not ended.
    fn session(&self) -> Result<Session, ArbiterError> {
        let session = self.state().session;
        session
            .filter(|session| lease::now() < session.until)
            .ok_or_else(|| ArbiterError::Unavailable("etcd: this node has no lease now".to_owned()))
    }

    /// Records the admission of this node, which created the key `holder` in the revision `since`.
    fn admit(&self, session: Session, since: i64, found: &[Pair]) -> Result<Term, ArbiterError> {
        let key = self.key("term");
        let (term, written) = term(found.iter().find(|pair| pair.key == key.as_bytes()))
            .map_err(|why| wrong(&why))?;
        let mut state = self.state();
        // The lease may have been renewed or lost meanwhile.
        let session = state.session.filter(|known| known.id == session.id);
        let begun = session.map(|session| self.lease.begin(session.until));
        match begun {
            Some(Ok(())) => {
                state.held = Some(Held {
                    since,
                    term: term.clone(),
                    written,
                });
                Ok(term)
            }
            Some(Err(error)) => Err(wrong(&error.into())),
            None => Err(lost()),
        }
    }

    /// Runs a transaction that succeeds only for the holder.
    fn as_holder(
        &self,
        held: &Held,
        also: &[Value],
        then: &[Value],
    ) -> Result<Outcome, ArbiterError> {
        let holder = self.key("holder");
        let mut compare = vec![is_of_revision(&holder, held.since)];
        compare.extend_from_slice(also);
        let otherwise = [get(&holder), get(&self.key("term"))];
        let ended = self.api.transact(&compare, then, &otherwise);
        ended.map_err(|why| unavailable(&why))
    }

    /// Writes the term if it is unchanged since this node's last write; the inner error: it is not.
    fn write(&self, held: &Held, term: &Term) -> Result<Result<i64, Vec<Pair>>, ArbiterError> {
        let kept = Kept {
            version: VERSION,
            term: term.clone(),
        };
        let text = serde_json::to_string(&kept).map_err(|error| wrong(&error.into()))?;
        let key = self.key("term");
        let is_known = [is_unchanged(&key, held.written)];
        let outcome = self.as_holder(held, &is_known, &[put(&key, &text, 0)])?;
        Ok(match outcome.succeeded {
            true => Ok(outcome.revision),
            false => Err(outcome.found),
        })
    }

    fn held(&self) -> Result<Held, ArbiterError> {
        let held = self.state().held.clone();
        held.filter(|_| self.lease.is_valid_for(self.length / 8))
            .ok_or_else(lost)
    }
}

impl Arbiter for EtcdArbiter {
    fn look(&mut self) -> Result<Seen, ArbiterError> {
        let state = self.shared.state();
        if let Some(why) = &state.trouble {
            return Err(ArbiterError::Unavailable(why.clone()));
        }
        let Some(view) = state.view.clone() else {
            return Err(ArbiterError::Unavailable("etcd: not looked at yet".into()));
        };
        // An unknown key of this node is from a request whose answer was lost: it asks again.
        let own = state.session.map(|session| session.id);
        let is_held = state.held.is_some() || view.holder.is_some_and(|lease| Some(lease) != own);
        Ok(Seen {
            term: state
                .held
                .as_ref()
                .map_or(view.term, |held| held.term.clone()),
            is_held,
            partner_runs: view.partner_runs,
            partner: view.partner,
        })
    }

    fn ask(&mut self) -> Result<Option<Term>, ArbiterError> {
        let shared = &self.shared;
        let session = shared.session()?;
        let (holder, term) = (shared.key("holder"), shared.key("term"));
        let outcome = shared.api.transact(
            &[is_of_revision(&holder, 0)],
            &[put(&holder, &shared.nodes.own, session.id), get(&term)],
            &[get(&holder), get(&term)],
        );
        let outcome = outcome.map_err(|why| unavailable(&why))?;
        let since = match outcome.succeeded {
            true => Some(outcome.revision),
            false => {
                let key = outcome.found.iter();
                let mut key = key.filter(|pair| pair.key == holder.as_bytes());
                let own = key.find(|pair| pair.lease == session.id);
                own.map(|pair| pair.create_revision)
            }
        };
        let admitted = since.map(|since| shared.admit(session, since, &outcome.found));
        if let Some(Err(_)) = admitted {
            self.release();
        }
        admitted.transpose()
    }

    fn write(&mut self, term: &Term) -> Result<(), ArbiterError> {
        let shared = &self.shared;
        let mut held = shared.held()?;
        if term.epoch < held.term.epoch {
            return Err(ArbiterError::Lost(format!(
                "etcd: epoch {} is over, it is {} now",
                term.epoch, held.term.epoch
            )));
        }
        let mut written = shared.write(&held, term)?;
        if let Err(found) = &written {
            // If the node is still the holder, its own earlier write has succeeded and the answer was lost.
            let own = found.iter().find(|pair| pair.create_revision == held.since);
            let is_holder = own.is_some_and(|pair| pair.key == shared.key("holder").as_bytes());
            let key = shared.key("term");
            let known = found.iter().find(|pair| pair.key == key.as_bytes());
            match known {
                Some(known) if is_holder => held.written = known.mod_revision,
                _ => return Err(lost()),
            }
            written = shared.write(&held, term)?;
        }
        held.written = written.map_err(|_| lost())?;
        held.term = term.clone();
        let mut state = shared.state();
        match &mut state.held {
            Some(known) if known.since == held.since => *known = held,
            _ => return Err(lost()),
        }
        Ok(())
    }

    fn renew(&mut self) -> Result<(), ArbiterError> {
        self.shared.held().map(drop)
    }

    fn release(&mut self) {
        let shared = &self.shared;
        shared.lease.end();
        let mut state = shared.state();
        let (held, session) = (state.held.take(), state.session);
        if let (Some(held), Some(view)) = (&held, &mut state.view) {
            // This term counts until the next read.
            view.term = held.term.clone();
            view.holder = None;
        }
        drop(state);
        let holder = shared.key("holder");
        let own = held.map(|held| is_of_revision(&holder, held.since));
        let removed = own.map(|own| shared.api.transact(&[own], &[delete(&holder)], &[]));
        if !matches!(removed, Some(Ok(_))) {
            // Then the key is deleted with the lease, and the next lease is a new one.
            let mut state = shared.state();
            if state.session.map(|known| known.id) == session.map(|known| known.id) {
                state.session = None;
            }
        }
        shared.changed.notify_all();
    }

    fn lease(&self) -> Option<Arc<Lease>> {
        Some(Arc::clone(&self.shared.lease))
    }
}

impl Drop for EtcdArbiter {
    /// Every process that may send has ended: the other node need not wait for the end of the lease.
    fn drop(&mut self) {
        let session = {
            let mut state = self.shared.state();
            state.is_over = true;
            state.held = None;
            state.session.take()
        };
        self.shared.changed.notify_all();
        self.shared.lease.end();
        if let Some(Session { id, .. }) = session
            && let Err(why) = self.shared.api.revoke(id)
        {
            debug!("the lease ends by itself: {why:#}");
        }
    }
}

/// Parses the term, and returns it and the revision in which it was written.
fn term(pair: Option<&Pair>) -> anyhow::Result<(Term, i64)> {
    let pair = pair.ok_or_else(|| anyhow::anyhow!("etcd has no record of the pair any more"))?;
    let kept: Kept = serde_json::from_slice(&pair.value).map_err(|error| {
        anyhow::anyhow!(
            "the key {} is not understood ({error}): end both nodes, remove it, and start first the node that served \
             last",
            String::from_utf8_lossy(&pair.key)
        )
    })?;
    anyhow::ensure!(
        kept.version == VERSION,
        "the record in etcd is of version {}, and this binary knows {VERSION}: run the newer binary on both nodes",
        kept.version
    );
    Ok((kept.term, pair.mod_revision))
}

fn unavailable(why: &anyhow::Error) -> ArbiterError {
    ArbiterError::Unavailable(format!("{why:#}"))
}

fn wrong(why: &anyhow::Error) -> ArbiterError {
    ArbiterError::Wrong(format!("{why:#}"))
}

fn lost() -> ArbiterError {
    ArbiterError::Lost("etcd does not admit this node any more".to_owned())
}
