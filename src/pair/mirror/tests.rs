//! Explores every interleaving up to a depth of a leader, its partner, a link that fails and recovers, and a supervisor
//! that answers at any time. The partner may take over at any instant at which the bit is on record: then it must have
//! everything that was sent.

use std::collections::HashSet;

use super::*;

#[derive(Clone, Debug)]
struct World {
    mirror: Mirror,
    committed: u64,
    shown: u64,
    /// The end of the partner's copy.
    copy: u64,
    is_connected: bool,
    is_overdue: bool,
    /// Unanswered requests.
    asked: Vec<(u64, bool)>,
    answered: u64,
    in_step: bool,
    flag: bool,
    is_wanted: bool,
    now: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Commit,
    Receive,
    Connect,
    Cut,
    Overdue,
    Answer,
    Restart,
    Want,
}

const STEPS: [Step; 8] = [
    Step::Commit,
    Step::Receive,
    Step::Connect,
    Step::Cut,
    Step::Overdue,
    Step::Answer,
    Step::Restart,
    Step::Want,
];

impl World {
    fn new() -> World {
        World {
            mirror: Mirror::new(false, 0),
            committed: 1,
            shown: 1,
            copy: 0,
            is_connected: false,
            is_overdue: false,
            asked: Vec::new(),
            answered: 0,
            in_step: false,
            flag: false,
            is_wanted: true,
            now: Duration::ZERO,
        }
    }

    fn step(&mut self, step: Step) {
        self.now += PAUSE;
        match step {
            Step::Commit => self.committed += 1,
            Step::Receive if self.is_connected => {
                self.copy = self.committed;
                self.is_overdue = false;
            }
            Step::Connect => (self.is_connected, self.is_overdue) = (true, false),
            Step::Cut => self.is_connected = false,
            Step::Overdue => self.is_overdue = true,
            Step::Answer if !self.asked.is_empty() => {
                (self.answered, self.in_step) = self.asked.remove(0);
            }
            Step::Restart => {
                // The supervisor executes the worker's requests before it starts the next worker.
                for (number, in_step) in std::mem::take(&mut self.asked) {
                    (self.answered, self.in_step) = (number, in_step);
                }
                self.mirror = Mirror::new(self.in_step, self.answered);
                self.is_overdue = false;
            }
            Step::Want => self.is_wanted = !self.is_wanted,
            Step::Receive | Step::Answer => {}
        }
        self.turn();
    }

    fn turn(&mut self) {
        let facts = Facts {
            committed: self.committed,
            received: self.is_connected.then_some(self.copy),
            is_overdue: self.is_overdue,
            answered: self.answered,
            in_step: self.in_step,
            is_wanted: self.is_wanted,
            now: self.now,
        };
        let mut last = None;
        // The largest number of changes of state within a turn.
        for _ in 0..4 {
            match self.mirror.turn(&facts) {
                Some(Action::Ask { number, in_step }) => {
                    assert!(last.replace(number) < Some(number));
                    self.asked.push((number, in_step));
                }
                Some(Action::Flag { in_step }) => self.flag = in_step,
                None => {}
            }
        }
        let may_show = match self.mirror.is_required() {
            true if self.is_connected || self.copy > 0 => self.copy,
            true => 0,
            false => self.committed,
        };
        self.shown = self.shown.max(may_show.min(self.committed));
    }

    fn check(&self, path: &[Step]) {
        if self.in_step {
            assert!(
                self.copy >= self.shown,
                "the partner would take over without what was shown: {path:?}: {self:?}"
            );
        }
        let may_be_set = self.in_step || self.asked.iter().any(|(_, in_step)| *in_step);
        assert!(
            self.mirror.is_required() || !may_be_set,
            "it continues alone, and the bit may be set: {path:?}: {self:?}"
        );
    }

    fn key(&self) -> String {
        let behind = [self.shown, self.copy].map(|at| self.committed - at.min(self.committed));
        let asked: Vec<_> = self
            .asked
            .iter()
            .map(|(number, is)| (number - self.answered, is))
            .collect();
        let state = match self.mirror.state {
            State::Alone { .. } => "alone".to_owned(),
            State::Filling { from } => format!("filling {}", self.committed - from),
            State::Clearing(number) => format!("clearing {}", number - self.answered),
            State::Raising(number) => format!("raising {}", number - self.answered),
            State::InStep => "in step".to_owned(),
        };
        let facts = [
            self.is_connected,
            self.is_overdue,
            self.in_step,
            self.is_wanted,
        ];
        format!("{behind:?} {asked:?} {state} {facts:?}")
    }
}

#[test]
fn the_partner_never_takes_over_without_what_was_shown() {
    let mut seen = HashSet::new();
    let mut worlds = vec![(World::new(), Vec::new())];
    let mut were_in_step = 0;
    for _ in 0..12 {
        let mut next = Vec::new();
        for (world, path) in worlds {
            for step in STEPS {
                let (mut world, mut path) = (world.clone(), path.clone());
                path.push(step);
                world.step(step);
                world.check(&path);
                were_in_step += usize::from(world.mirror.is_in_step());
                if seen.insert(world.key()) {
                    next.push((world, path));
                }
            }
        }
        worlds = next;
    }
    assert!(were_in_step > 50, "{were_in_step}");
}

#[test]
fn a_partner_that_connects_gets_in_step_and_one_that_disconnects_is_dropped() {
    let mut world = World::new();
    for step in [Step::Connect, Step::Receive, Step::Commit, Step::Receive] {
        world.step(step);
    }
    assert_eq!(world.asked, [(1, true)]);
    assert!(!world.flag);
    world.step(Step::Answer);
    assert!(world.flag && world.mirror.is_in_step());
    // The link fails, and recovers in time.
    world.step(Step::Cut);
    world.step(Step::Commit);
    assert!(world.shown < world.committed && world.asked.is_empty());
    world.step(Step::Connect);
    world.step(Step::Receive);
    assert_eq!(world.shown, world.committed);
    // The link fails, and does not recover in time.
    world.step(Step::Cut);
    world.step(Step::Commit);
    world.step(Step::Overdue);
    assert_eq!(world.asked, [(2, false)]);
    assert!(world.shown < world.committed && world.flag, "the bit first");
    world.step(Step::Answer);
    assert!(world.shown == world.committed && !world.flag);
}

#[test]
fn what_an_earlier_worker_has_requested_is_completed() {
    let mut mirror = Mirror::new(true, 5);
    let mut facts = Facts {
        committed: 10,
        received: Some(10),
        is_overdue: false,
        answered: 5,
        in_step: false,
        is_wanted: true,
        now: PAUSE,
    };
    assert_eq!(mirror.turn(&facts), None);
    let ask = Action::Ask {
        number: 6,
        in_step: true,
    };
    assert_eq!(mirror.turn(&facts), Some(ask));
    (facts.answered, facts.in_step) = (6, true);
    assert_eq!(mirror.turn(&facts), Some(Action::Flag { in_step: true }));
}
