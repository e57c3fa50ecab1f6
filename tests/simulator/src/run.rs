//! Runs a scenario from beginning to end, with crashes at given steps, and checks everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outlast_stack::device::pair;
use outlast_stack::{Capabilities, Lost};

use crate::board::{Board, Seen};
use crate::branches;
use crate::clock::Speed;
use crate::configuration;
use crate::failing::What;
use crate::faults::Call;
use crate::fuse::Step;
use crate::image::Look;
use crate::judge::{Contents, judge};
use crate::net::Net;
use crate::player::{BREAK, Player};
use crate::revocation::Revocation;
use crate::scenario::Scenario;
use crate::server::Server;
use crate::status;
use crate::workload::{Handle, Op, Verb};

/// The length of the end of a run in which syncs fail: it covers some consistency points.
const FAILING: Duration = Duration::from_secs(60);
/// Simulated time after which a run counts as stuck.
const LIMIT: Duration = Duration::from_secs(3600);
/// Events after which a run counts as stuck.
const EVENTS: usize = 100_000;
/// Events at one instant after which time is advanced.
const SPINS: usize = 100;

/// What the clients of a run have observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    seen: BTreeMap<usize, Seen>,
    credits: BTreeMap<usize, u32>,
    breaks: BTreeMap<Handle, Vec<u8>>,
    looks: BTreeMap<String, Look>,
}

impl Transcript {
    /// Returns the transcript of all clients but the victim.
    fn without_victim(&self, revocation: &Revocation, ops: &[Op]) -> Transcript {
        let mut rest = self.clone();
        for op in ops.iter().filter(|op| op.client == revocation.victim) {
            rest.seen.remove(&op.id);
            rest.credits.remove(&op.id);
        }
        rest.looks.retain(|path, _| !revocation.is_of_victim(path));
        rest
    }
}

/// Returns the operations that were answered, or that are not sent at all.
fn answered(board: &Board) -> BTreeSet<usize> {
    let expected = board.expected.iter();
    let idle = expected.filter(|(_, expected)| expected.verdicts.is_empty());
    let seen = board.seen.keys();
    seen.chain(idle.map(|(id, _)| id)).copied().collect()
}

/// Returns the found contents if they are among the permitted outcomes; otherwise the first outcome.
fn one_of(found: &Contents, outcomes: Vec<Contents>) -> Contents {
    let mut outcomes = outcomes.into_iter();
    let first = outcomes.next().unwrap_or_default();
    match first == *found {
        true => first,
        false => outcomes.find(|outcome| outcome == found).unwrap_or(first),
    }
}

/// The report of a successful run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The number of the server's steps.
    pub steps: u64,
    /// Their kinds.
    pub kinds: Vec<Step>,
    /// The number of steps before each turn.
    pub turns: Vec<u64>,
    /// Crashes that occurred.
    pub crashes: u32,
    /// The power cuts among them.
    pub cuts: u32,
    /// Elective reboots.
    pub reboots: u32,
    /// The log's ring was filled and used again.
    pub wrapped: bool,
    /// The number of requests that have failed once, by the part that failed.
    pub failed: BTreeMap<What, u32>,
    /// The number of failures of a redo, by the call that failed, and whether it failed midway.
    pub redo_failures: BTreeMap<(Call, bool), u32>,
    /// The number of requests that were refused because their share's file system was sick.
    pub refused: u32,
    /// A client has lost something by a new configuration.
    pub revoked: bool,
    /// What the clients have observed.
    pub transcript: Transcript,
}

/// Runs a scenario in which the server crashes at these steps. `reference`: what the clients observe if it does not.
///
/// # Errors
/// The fault, in one line or more.
pub fn run(
    scenario: &Scenario,
    crashes: &[u64],
    reference: Option<&Transcript>,
) -> Result<Report, String> {
    branches::prepare();
    branches::attempt(|| {
        let mut world = World::new(scenario);
        world.plan(crashes);
        world.run_to_end(reference)
    })
}

/// A run in progress.
pub struct World {
    scenario: Scenario,
    server: Server,
    net: Net,
    board: Board,
    /// The files that must exist at the end.
    files: Contents,
    /// The time until which syncs fail, at the end of the run.
    failing_until: Option<Duration>,
    now: Duration,
    /// The number of turns at this instant.
    spins: usize,
    /// The number of the server's steps before each turn.
    turns: Vec<u64>,
}

impl World {
    /// Makes the world at the beginning of a run.
    #[must_use]
    pub fn new(scenario: &Scenario) -> World {
        let capabilities = [
            configuration::capabilities(scenario),
            Capabilities::default(),
        ];
        let (ours, theirs) = pair(capabilities, scenario.faults, scenario.seed);
        let server = Server::new(scenario, ours);
        let (expected, files) = judge(&scenario.ops, scenario.rules);
        let is_slow = scenario.speed != Speed::Fast;
        let mut board = Board::new(expected, is_slow, server.failing.clone());
        board.frames_lost = scenario.lost == Lost::Frames;
        let profiles = scenario.profiles.iter().enumerate();
        let pause = scenario.power.map_or(Duration::ZERO, |power| power.pause);
        let players = profiles
            .map(|(index, profile)| Player::new(index, *profile, scenario, pause))
            .collect();
        World {
            scenario: scenario.clone(),
            net: Net::new(theirs, players, scenario),
            server,
            board,
            files,
            failing_until: None,
            now: Duration::ZERO,
            spins: 0,
            turns: Vec::new(),
        }
    }

    /// Plans crashes at those of these steps that are still ahead.
    pub fn plan(&mut self, crashes: &[u64]) {
        self.server.fuse.plan(crashes);
    }

    /// Returns the number of the server's steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.server.fuse.steps()
    }

    /// Continues to the end.
    ///
    /// # Panics
    /// A check fails, or the run does not end.
    pub fn run_to_end(&mut self, reference: Option<&Transcript>) -> Report {
        while !self.turn() {}
        self.finish(reference)
    }

    /// Processes all events of the next instant. Returns whether the run is over.
    ///
    /// # Panics
    /// A check fails, or the run does not end.
    pub fn turn(&mut self) -> bool {
        let World {
            scenario,
            server,
            net,
            board,
            now,
            ..
        } = self;
        self.turns.push(server.fuse.steps());
        net.turn(*now, &scenario.ops, board);
        if scenario.sickness.is_some() {
            server.disks.last().is_in_doubt = scenario.is_in_doubt(&board.under_way);
        }
        server.turn(*now, net);
        board.outages.clone_from(&server.outages);
        board.stops.clone_from(&server.stops);
        if scenario.has_outages_of_share {
            board.away = server.disks.first().away().to_vec();
        }
        board.revoked = server.has_revoked;
        board.vacant = server.is_empty();
        board.may_send_enum_dir = server.disks.may_send_enum_dir();
        net.turn(*now, &scenario.ops, board);
        self.is_over() || {
            self.pass_time();
            false
        }
    }

    fn is_over(&mut self) -> bool {
        if !(self.net.is_done() && self.server.is_empty()) {
            return false;
        }
        let Scenario {
            power, sickness, ..
        } = self.scenario;
        let fails_twice = power.is_some_and(|power| power.fails_twice);
        if (fails_twice || sickness.is_some()) && self.failing_until.is_none() {
            let is_well_from = sickness.map_or(Duration::ZERO, |sickness| sickness.until);
            self.failing_until = Some(self.now.max(is_well_from) + FAILING);
            if fails_twice {
                self.server.disks.last().fail_two_syncs();
            }
        }
        let is_past = self.failing_until.is_none_or(|until| self.now >= until);
        // A share that is isolated must be served again some time.
        is_past && (sickness.is_none() || self.server.serves_all_shares())
    }

    fn pass_time(&mut self) {
        let now = self.now;
        let waits = self.failing_until.filter(|until| *until > now);
        let next = [self.server.next(now), self.net.next(now), waits];
        let next = next.into_iter().flatten().min();
        if self.turns.len() >= EVENTS {
            panic!(
                "the run does not end: {now:?}, next {next:?}\n{}",
                self.state()
            );
        }
        (self.now, self.spins) = match next {
            // smoltcp 0.14 can ask endlessly to be polled now, and then do nothing.
            Some(at) if at == now && self.spins > SPINS => {
                (now + Duration::from_millis(1), self.spins)
            }
            Some(at) if at == now => (now, self.spins + 1),
            Some(at) if at < LIMIT => (at, 0),
            _ => panic!("stuck at {now:?}\n{}", self.state()),
        };
    }

    fn state(&self) -> String {
        format!("{}\n{}", self.net.state(), self.server.state())
    }

    fn finish(&mut self, reference: Option<&Transcript>) -> Report {
        let World {
            scenario,
            server,
            net,
            board,
            files,
            ..
        } = self;
        let revocation = scenario.rules.revocation.filter(|_| board.revoked);
        let of_revocation = revocation.map(|revocation| {
            let outcomes = revocation.outcomes(&scenario.ops, &answered(board), scenario.rules);
            one_of(&server.disks.contents(), outcomes)
        });
        let files = of_revocation.as_ref().unwrap_or(files);
        compare_files(&server.disks.contents(), files, "");
        for (op, from, to) in &board.waits {
            let served = board.served(*from, *to);
            assert!(
                served >= BREAK,
                "operation {op} waited only {served:?} of service time: outages do not count"
            );
        }
        // Only object 0 is left: the rest of the log is free, or is freed when it is needed.
        let (used, capacity, wrapped) = server.log_space();
        assert!(
            used <= capacity / 4 * 3,
            "{used} bytes of {capacity} of the log are in use at the end"
        );
        let (kinds, turns) = (server.fuse.take_kinds(), std::mem::take(&mut self.turns));
        let (crashes, cuts, reboots) = (server.crashes, server.cuts, server.reboots);
        server.cut_at_the_end(net);
        compare_files(&server.disks.contents(), files, " after the last power cut");
        let transcript = Transcript {
            breaks: board.breaks().clone(),
            seen: std::mem::take(&mut board.seen),
            credits: std::mem::take(&mut board.credits),
            looks: server.disks.looks(),
        };
        if let Some(reference) = reference {
            match revocation {
                Some(revocation) => {
                    let without = |it: &Transcript| it.without_victim(&revocation, &scenario.ops);
                    let (found, wanted) = (without(&transcript), without(reference));
                    compare(&found, &wanted, &scenario.ops, &board.late);
                }
                None => compare(&transcript, reference, &scenario.ops, &board.late),
            }
        }
        Report {
            steps: kinds.len() as u64,
            kinds,
            turns,
            crashes,
            cuts,
            reboots,
            wrapped,
            failed: std::mem::take(&mut board.failed),
            redo_failures: server.disks.redo_failures(),
            refused: board.refused,
            revoked: board.revoked,
            transcript,
        }
    }
}

fn compare_files(found: &Contents, wanted: &Contents, when: &str) {
    let names = |of: &Contents| of.keys().cloned().collect::<Vec<_>>();
    let mut wanted_ones = wanted.iter();
    let differing = wanted_ones.find(|(path, bytes)| found.get(*path) != Some(*bytes));
    assert!(
        found == wanted,
        "the files are wrong{when}: {:?} instead of {:?}; {differing:?}",
        names(found),
        names(wanted)
    );
}

/// Checks that the clients of a server that crashed have observed the same as those of a server that did not.
fn compare(transcript: &Transcript, reference: &Transcript, ops: &[Op], late: &BTreeSet<Handle>) {
    for op in ops {
        let (seen, before) = (transcript.seen.get(&op.id), reference.seen.get(&op.id));
        let is_notice = matches!(op.verbs[0], Verb::Notify { .. });
        let is_enum_dir = seen.is_some_and(|seen| seen[0].0 == status::NOTIFY_ENUM_DIR);
        let is_late = |verb: &Verb| match verb {
            Verb::Acknowledge { handle, .. } => late.contains(handle),
            _ => false,
        };
        if (is_notice && is_enum_dir) || op.verbs.iter().any(is_late) {
            continue;
        }
        assert_eq!(
            seen, before,
            "{op:?} was answered differently without a crash"
        );
    }
    assert_eq!(
        transcript.credits, reference.credits,
        "credits granted, with and without a crash"
    );
    assert_eq!(
        transcript.looks, reference.looks,
        "attributes and times of the files, with and without a crash"
    );
    let in_time = |breaks: &BTreeMap<Handle, Vec<u8>>| {
        let mut breaks = breaks.clone();
        breaks.retain(|handle, _| !late.contains(handle));
        breaks
    };
    assert_eq!(
        in_time(&transcript.breaks),
        in_time(&reference.breaks),
        "oplock breaks, with and without a crash"
    );
}
