//! Simulates a pair: two nodes with the roles of production, of which one serves, and an arbiter that may stall or be
//! unreachable. The serving node runs the whole server of [`crate::server`], either over an NVRAM and a disk that both
//! reach, or over an NVRAM of its own and a sink that both reach.
//!
//! A node dies as a whole, or its worker alone, or it is stopped while its frames leave and continues later. It must
//! never send while the arbiter has admitted the other node.

use std::time::Duration;

use outlast::pair::arbiter::{Rest, Seen, Term};
use outlast::pair::lease::margin;
use outlast::pair::role::{Action, Event, Leaving, Nodes, Role};

use crate::random::Random;

/// The time that mounting or fencing takes.
const HOOK: Duration = Duration::from_millis(1);
/// The delay before a failed renewal is repeated.
const AGAIN: Duration = Duration::from_millis(50);
/// The maximum number of rounds at one instant.
const ROUNDS: usize = 1000;
/// The end of the time in which the arbiter stalls, in milliseconds.
const STALLING: u64 = 40_000;

/// The properties of a pair, and its mutation.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The duration of a lease. `None`: the arbiter admits a node as long as one of its processes lives.
    pub lease: Option<Duration>,
    /// Each node is a machine with an NVRAM of its own.
    pub machines: bool,
    /// The committed records of one node reach the other one.
    pub is_shared: bool,
    /// The network delivers the clients' frames to both nodes.
    pub both_receive: bool,
    /// The mutation of the pair.
    pub broken: Option<Broken>,
}

/// The mutations of a pair, each of which must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The record says that the other node has all, though it has not.
    BitNotCleared,
    /// A node continues to send when its lease has ended.
    LeaseNotChecked,
    /// A node takes the service in the epoch of its predecessor.
    EpochNotRaised,
}

/// A failure of the node that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeFailure {
    /// Its worker dies, and its supervisor starts the next one.
    Worker,
    /// All of it dies.
    Node,
    /// It is stopped for this time.
    Stopped(Duration),
}

/// An order to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// This node starts a server.
    Serve(usize),
    /// The lease of this node has ended, and its timers have ended its processes.
    Killed(usize),
}

/// The state of the pair.
#[derive(Debug)]
pub struct Pair {
    plan: Plan,
    random: Random,
    term: Term,
    /// The admitted node, and the end of its admission by the arbiter's clock.
    holder: Option<(usize, Duration)>,
    /// Rises with each change of the holder or the record.
    changes: u64,
    nodes: [Node; 2],
    /// The times in which the arbiter does not answer, for one node or for both.
    stalls: Vec<(Option<usize>, Duration, Duration)>,
    /// The epochs in which a node has served.
    served: Vec<u64>,
}

#[derive(Debug, Default)]
struct Node {
    /// The role. `None`: the node does not run.
    role: Option<Role>,
    starts_at: Duration,
    /// The event that the node waits for, and its time.
    awaits: Option<(Duration, Event)>,
    /// The time at which the lease timers end its processes.
    deadline: Duration,
    renews_at: Duration,
    /// The value of `changes` when it last read the record.
    looked: u64,
    stopped_until: Option<Duration>,
}

impl Plan {
    /// Derives the pair of a seed. `has_sink`: durability `power`.
    #[must_use]
    pub fn of(seed: u64, has_sink: bool) -> Plan {
        let mut random = Random::new(seed, "pair");
        let machines = has_sink || random.percent(20);
        Plan {
            lease: random.percent(60).then(|| Duration::from_millis(1000)),
            machines,
            is_shared: has_sink || !machines,
            both_receive: random.percent(50),
            broken: None,
        }
    }
}

impl Pair {
    /// Makes a pair of which neither node runs yet.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Pair {
        let mut random = Random::new(seed, "arbiter");
        let number = if plan.lease.is_some() {
            random.index(4)
        } else {
            0
        };
        let stalls = (0..number).map(|_| {
            let whom = *random.pick(&[None, Some(0), Some(1)]);
            let from = Duration::from_millis(random.below(STALLING));
            (whom, from, from + Duration::from_millis(random.below(2500)))
        });
        let stalls = stalls.collect();
        let late = Node {
            starts_at: Duration::from_millis(1),
            ..Node::default()
        };
        Pair {
            plan,
            random,
            term: Term::first(),
            holder: None,
            changes: 1,
            nodes: [Node::default(), late],
            stalls,
            served: Vec::new(),
        }
    }

    /// Returns the plan.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Returns whether the record says that the other node has all.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.term.in_step
    }

    /// Draws the failure of the node that serves. `can_stop`: it is between two of its frames.
    pub fn draw_failure(&mut self, can_stop: bool) -> NodeFailure {
        match self.random.below(10) {
            0..3 => NodeFailure::Worker,
            3..6 if can_stop => {
                NodeFailure::Stopped(Duration::from_millis(self.random.below(2000)))
            }
            _ => NodeFailure::Node,
        }
    }

    /// Returns whether the other node could take the service now.
    #[must_use]
    pub fn may_hand_over(&self, node: usize) -> bool {
        self.plan.is_shared && self.nodes[1 - node].role.is_some()
    }

    /// Ends all processes of a node, which is started again later.
    pub fn died(&mut self, node: usize, now: Duration) {
        let pause = Duration::from_millis(1 + self.random.below(3000));
        self.nodes[node] = Node {
            starts_at: now + pause,
            ..Node::default()
        };
        // A lock ends with the last process, but a lease continues.
        if self.plan.lease.is_none() {
            self.release(node);
        }
    }

    /// Stops a node until a time.
    pub fn stop(&mut self, node: usize, until: Duration) {
        self.nodes[node].stopped_until = Some(until);
    }

    /// Notes that the server of a node has handed the service over.
    pub fn left(&mut self, node: usize, now: Duration) {
        let leaving = Leaving::HandedOver { is_return: false };
        self.nodes[node].awaits = Some((now, Event::Left(leaving)));
    }

    /// Returns whether the arbiter has admitted the node.
    #[must_use]
    pub fn is_admitted(&self, node: usize) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == node)
    }

    /// Returns the node that must run a server, if there is one.
    #[must_use]
    pub fn serving(&self) -> Option<usize> {
        let serves = |node: &Node| node.role.as_ref().is_some_and(Role::serves);
        (0..2).find(|node| serves(&self.nodes[*node]))
    }

    fn release(&mut self, node: usize) {
        self.holder = self.holder.filter(|(holder, _)| *holder != node);
        self.changes += 1;
    }

    fn reaches(&self, node: usize, now: Duration) -> bool {
        let is_cut = |(whom, from, to): &(Option<usize>, Duration, Duration)| {
            whom.is_none_or(|whom| whom == node) && (*from..*to).contains(&now)
        };
        !self.stalls.iter().any(is_cut)
    }

    /// Processes all events of this instant, up to the first order.
    ///
    /// # Panics
    /// A node takes over without the whole state, or two servers have one epoch.
    pub fn turn(&mut self, now: Duration) -> Option<Order> {
        for _ in 0..ROUNDS {
            if self.holder.is_some_and(|(_, until)| until <= now) {
                self.holder = None;
                self.changes += 1;
            }
            let mut is_quiet = true;
            for node in 0..2 {
                if let Some(order) = self.look_after(node, now) {
                    return Some(order);
                }
                let Some(event) = self.event(node, now) else {
                    continue;
                };
                is_quiet = false;
                let role = self.nodes[node].role.as_mut();
                let action = role.and_then(|role| role.handle(event, now));
                if let Some(order) = action.and_then(|action| self.act(node, action, now)) {
                    return Some(order);
                }
            }
            if is_quiet {
                return None;
            }
        }
        panic!("the nodes never become quiet")
    }

    /// Starts, continues and ends a node, and renews its lease.
    fn look_after(&mut self, node: usize, now: Duration) -> Option<Order> {
        let reaches = self.reaches(node, now);
        let it = &mut self.nodes[node];
        if it.role.is_none() && it.starts_at <= now {
            it.role = Some(Role::new(names(node)));
        }
        it.stopped_until = it.stopped_until.filter(|until| now < *until);
        let lease = self.plan.lease?;
        if !it.role.as_ref().is_some_and(Role::serves) {
            return None;
        }
        let holds = self.holder.is_some_and(|(holder, _)| holder == node);
        if it.stopped_until.is_none() && it.renews_at <= now {
            it.renews_at = now + AGAIN;
            if reaches && holds {
                self.holder = Some((node, now + lease));
                (it.deadline, it.renews_at) = (now + lease - margin(lease), now + lease / 3);
            }
        }
        let is_over = it.deadline <= now && self.plan.broken != Some(Broken::LeaseNotChecked);
        if is_over {
            self.died(node, now);
        }
        is_over.then_some(Order::Killed(node))
    }

    fn event(&mut self, node: usize, now: Duration) -> Option<Event> {
        let is_free = self.holder.is_none();
        let changes = self.changes;
        let it = &mut self.nodes[node];
        if it.stopped_until.is_some() {
            return None;
        }
        if let Some((at, _)) = it.awaits {
            return (at <= now)
                .then(|| it.awaits.take())?
                .map(|(_, event)| event);
        }
        let due = it.role.as_ref()?.deadline()? <= now;
        // While the other node serves and nothing changes, there is nothing to read.
        let is_news = is_free || it.looked != changes;
        (due && is_news).then_some(Event::Tick)
    }

    fn act(&mut self, node: usize, action: Action, now: Duration) -> Option<Order> {
        let reaches = self.reaches(node, now);
        let away = || Event::Failed("the arbiter does not answer".to_owned());
        let (delay, event) = match action {
            Action::Look | Action::Ask if !reaches => (Duration::ZERO, away()),
            Action::Look => {
                self.nodes[node].looked = self.changes;
                (Duration::ZERO, Event::Looked(self.seen(node)))
            }
            Action::Ask => (Duration::ZERO, Event::Asked(self.ask(node, now))),
            Action::Fence { .. } => (HOOK, Event::Fenced(Ok(()))),
            Action::Take(term) => (Duration::ZERO, Event::Taken(self.take(node, term))),
            Action::Mount => (HOOK, Event::Mounted(Ok(()))),
            Action::Unmount => (HOOK, Event::Unmounted(Ok(()))),
            Action::Serve => {
                let epoch = self.term.epoch;
                assert!(
                    !self.served.contains(&epoch),
                    "two servers in epoch {epoch}"
                );
                self.served.push(epoch);
                return Some(Order::Serve(node));
            }
            Action::Release(rest) => {
                if let Some(rest) = rest.filter(|_| self.is_admitted(node)) {
                    self.term.rest = rest;
                }
                self.release(node);
                return None;
            }
            Action::End => {
                self.died(node, now);
                self.release(node);
                return None;
            }
        };
        self.nodes[node].awaits = Some((now + delay, event));
        None
    }

    fn seen(&self, node: usize) -> Seen {
        Seen {
            term: self.term.clone(),
            is_held: self.holder.is_some(),
            partner_runs: self.nodes[1 - node].role.is_some(),
            partner: None,
        }
    }

    fn ask(&mut self, node: usize, now: Duration) -> Option<Term> {
        if self.holder.is_some_and(|(holder, _)| holder != node) {
            return None;
        }
        let lease = self.plan.lease;
        self.holder = Some((node, lease.map_or(Duration::MAX, |lease| now + lease)));
        self.changes += 1;
        if let Some(lease) = lease {
            let it = &mut self.nodes[node];
            (it.deadline, it.renews_at) = (now + lease - margin(lease), now + lease / 3);
        }
        Some(self.term.clone())
    }

    fn take(&mut self, node: usize, term: Term) -> Result<(), String> {
        if !self.is_admitted(node) {
            return Err("not admitted any more".to_owned());
        }
        let is_of_another = self.term.epoch > 0 && self.term.holder != term.holder;
        let has_died = self.term.rest == Rest::Not;
        assert!(
            !(is_of_another && has_died) || self.term.in_step,
            "a node without the whole state takes over"
        );
        let broken = self.plan.broken;
        self.term = Term {
            in_step: self.plan.is_shared || broken == Some(Broken::BitNotCleared),
            epoch: term.epoch - u64::from(broken == Some(Broken::EpochNotRaised)),
            ..term
        };
        self.changes += 1;
        Ok(())
    }

    /// Returns the time of the next event.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let is_free = self.holder.is_none();
        let is_timed =
            self.plan.lease.is_some() && self.plan.broken != Some(Broken::LeaseNotChecked);
        let times = self.nodes.iter().flat_map(|node| {
            let Some(role) = &node.role else {
                return vec![node.starts_at];
            };
            if let Some(until) = node.stopped_until {
                let deadline = (role.serves() && is_timed).then_some(node.deadline);
                return deadline.into_iter().chain([until]).collect();
            }
            let awaits = node.awaits.as_ref().map(|(at, _)| *at);
            let is_news = is_free || node.looked != self.changes;
            let tick = role.deadline().filter(|_| is_news && awaits.is_none());
            let leased = role.serves() && self.plan.lease.is_some();
            let renewal = leased.then_some(node.renews_at);
            let deadline = (leased && is_timed).then_some(node.deadline);
            let all = [awaits, tick, renewal, deadline];
            all.into_iter().flatten().collect()
        });
        let ends = self.holder.map(|(_, until)| until);
        let ends = ends.filter(|until| *until < Duration::MAX);
        times.chain(ends).min()
    }
}

fn names(node: usize) -> Nodes {
    let name = |node: usize| ["a", "b"][node].to_owned();
    Nodes {
        own: name(node),
        partner: name(1 - node),
    }
}
