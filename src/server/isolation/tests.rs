//! Two shares, each on a file system of its own: one of them fails or does not answer, and the other is served.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use outlast_fsa::fileop::{
    Actor, Change, CreateAction, CreateOp, Created, Disposition, FileHandle, FileKey, Intent,
    Metadata, OpenId, Outcome, WriteAt,
};
use outlast_nvram::sink::Batch;
use outlast_nvram::{Incarnation, VecMemory};
use outlast_smb::Task;
use outlast_smb::{Entropy, OpenInfo};
use outlast_stack::addressing::Sources;

use super::*;
use crate::server::clock::{Stopwatch, Time};
use crate::server::eviction::EvictionLimits;
use crate::server::fault::Unarmed;
use crate::server::medium::Medium;
use crate::server::open::Sink;
use crate::server::recover::{Parts, recover};

/// The behaviour of the file systems, and the requests they received.
#[derive(Default)]
struct Disks {
    /// The shares with a sync under way, and whether it is waited for.
    under_way: BTreeMap<ShareId, bool>,
    /// The shares whose syncs end when polled; the others hang.
    answers: BTreeSet<ShareId>,
    /// The shares on which syncs and operations fail.
    fails: BTreeSet<ShareId>,
    /// The shares of which the next sync fails.
    fails_next: BTreeSet<ShareId>,
    /// The shares on which operations fail, but syncs do not.
    has_bad_places: BTreeSet<ShareId>,
    failed: Vec<ShareId>,
    /// The markers at the start.
    markers: BTreeMap<ShareId, u64>,
    /// The last numbers that markers were set to. They are not read, as a failed sync may have lost any effect.
    marks: BTreeMap<ShareId, u64>,
    /// Markers cannot be read.
    hides_markers: bool,
    /// The effects that were done once more: share and name.
    redone: Vec<(ShareId, String)>,
}

impl Disks {
    fn end(&mut self, waited_for: bool) -> Vec<(ShareId, bool)> {
        let under_way = self.under_way.iter();
        let ended =
            under_way.filter(|(share, is)| **is == waited_for && self.answers.contains(share));
        let ended: Vec<ShareId> = ended.map(|(share, _)| *share).collect();
        self.under_way.retain(|share, _| !ended.contains(share));
        let mut fails =
            |share: &ShareId| self.fails.contains(share) | self.fails_next.remove(share);
        let result = |share: ShareId| (share, !fails(&share));
        ended.into_iter().map(result).collect()
    }
}

#[derive(Clone, Default)]
struct Model(Rc<RefCell<Disks>>);

impl FileSystem for Model {
    fn prepare(&mut self, _: &Actor, _: &FileOp) -> Result<Intent, NtStatus> {
        Ok(Intent::None)
    }
    fn perform(&mut self, actor: &Actor, op: &FileOp, _: &Intent) -> Result<Outcome, NtStatus> {
        let mut disks = self.0.borrow_mut();
        if disks.fails.contains(&actor.share) || disks.has_bad_places.contains(&actor.share) {
            return Err(NtStatus::IO_DEVICE_ERROR);
        }
        let FileOp::Create(create) = op else {
            return Ok(Outcome::Unit);
        };
        disks.redone.push((actor.share, create.path.clone()));
        Ok(Outcome::Created(created(create)))
    }
    fn reopen(&mut self, _: &OpenInfo) -> Result<(), NtStatus> {
        Ok(())
    }
    fn forget(&mut self, _: OpenId) {}
    fn changes(&mut self) -> Vec<Change> {
        Vec::new()
    }
    fn discard_changes(&mut self) {}
    fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        self.0.borrow_mut().marks.insert(share, number);
        Ok(())
    }
    fn marked(&mut self, share: ShareId) -> std::io::Result<u64> {
        let disks = self.0.borrow();
        match disks.hides_markers {
            true => Err(std::io::Error::other("EIO")),
            false => Ok(disks.markers.get(&share).copied().unwrap_or(0)),
        }
    }
    fn begin_sync(&mut self) {
        let mut disks = self.0.borrow_mut();
        for share in 0..2 {
            disks.under_way.entry(share).or_insert(true);
        }
    }
    fn synced(&mut self) -> Option<Vec<ShareId>> {
        let mut disks = self.0.borrow_mut();
        let failed = disks
            .end(true)
            .into_iter()
            .filter(|(_, is_synced)| !is_synced);
        let failed: Vec<ShareId> = failed.map(|(share, _)| share).collect();
        disks.failed.extend(failed);
        let is_through = !disks.under_way.values().any(|waited_for| *waited_for);
        is_through.then(|| std::mem::take(&mut disks.failed))
    }
    fn under_sync(&self) -> Vec<ShareId> {
        let disks = self.0.borrow();
        let waited_for = disks.under_way.iter().filter(|(_, is)| **is);
        waited_for.map(|(share, _)| *share).collect()
    }
    fn leave_sync(&mut self) {
        self.0
            .borrow_mut()
            .under_way
            .values_mut()
            .for_each(|is| *is = false);
    }
    fn late(&mut self) -> Vec<(ShareId, bool)> {
        self.0.borrow_mut().end(false)
    }
}

fn created(create: &CreateOp) -> Created {
    let key = FileKey {
        dev: 1,
        ino: create.open,
        birth_ns: 0,
    };
    Created {
        action: CreateAction::Created,
        metadata: Metadata {
            key,
            creation_time: 1,
            last_access_time: 1,
            last_write_time: 1,
            change_time: 1,
            end_of_file: 0,
            allocation_size: 0,
            attributes: 0x20,
            links: 1,
            is_dir: false,
        },
        handle: FileHandle {
            kind: 1,
            bytes: create.open.to_le_bytes().to_vec(),
        },
        path: create.path.clone(),
        made_file: false,
    }
}

/// A sink that has everything at once.
struct AtOnce;

impl Medium for AtOnce {
    fn begin(&mut self, _: Batch) {}
    fn poll(&mut self) -> bool {
        true
    }
    fn wait(&mut self) {}
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

struct Still;

impl Stopwatch for Still {
    fn read(&mut self) -> Duration {
        Duration::ZERO
    }
}

const MEMORY: usize = 64 << 20;
const A: ShareId = 0;
const B: ShareId = 1;

/// A server without clients, whose operations the test does itself.
struct World {
    machine: Machine<Model>,
    disks: Model,
    now: Duration,
    opens: OpenId,
}

impl World {
    fn new() -> World {
        World::over(Model::default())
    }

    fn over(disks: Model) -> World {
        disks.0.borrow_mut().answers.extend([A, B]);
        let share = |name: &str| outlast_smb::Share {
            name: name.into(),
            comment: String::new(),
            read_only: false,
            guest: true,
            users: Vec::new(),
            directory: 0,
            continuous_availability: true,
            encryption: outlast_smb::Requirement::Enabled,
        };
        let sink = Sink {
            image: Arc::new(VecMemory::new(MEMORY)),
            medium: Box::new(AtOnce),
            name: "the sink".to_owned(),
            in_use: true,
        };
        let recovered = recover(Parts {
            memory: Some(Arc::new(VecMemory::new(MEMORY))),
            follower: None,
            sink: Some(sink),
            partner: None,
            reply_room: 1 << 20,
            effect_room: 1 << 20,
            wall: 1,
            uptime: Duration::ZERO,
            sources: Sources::default(),
            incarnation: Incarnation {
                host: [1; 16],
                boot: [2; 16],
            },
            company: crate::server::open::Company::Alone,
            takes_over: false,
            stack: outlast_stack::Config {
                receive_buffer: 64 << 10,
                receive_total: 1 << 20,
                ..outlast_stack::Config::default()
            },
            smb: outlast_smb::Config {
                name: "OUTLAST".into(),
                guid: [0; 16],
                min_dialect: outlast_smb::Dialect::Smb202,
                max_dialect: outlast_smb::Dialect::Smb311,
                signing: outlast_smb::Requirement::Enabled,
                encryption: outlast_smb::Requirement::Enabled,
                oplocks: outlast_smb::Oplocks::On,
                shares: ["a", "b"].map(share).into(),
                users: Vec::new(),
                limits: outlast_smb::Limits::default(),
            },
            fs: disks.clone(),
            entropy: Box::new(Zeros),
            probe: Box::new(Unarmed),
            copy_units: 1 << 20,
            sets_apart: true,
            stopwatch: Box::new(Still),
            crashed: false,
            eviction: EvictionLimits {
                login: Duration::from_secs(60),
                idle: None,
                stalled: Duration::from_secs(60),
                stalled_when_short: Duration::from_secs(60),
                unauthenticated: 16,
                connections: 64,
                unread: 16 << 20,
            },
            lost: outlast_stack::Lost::Nothing,
        })
        .expect("a new server");
        World {
            machine: recovered.machine,
            disks,
            now: recovered.service_time,
            opens: 100,
        }
    }

    fn disks(&self) -> std::cell::RefMut<'_, Disks> {
        self.disks.0.borrow_mut()
    }

    /// Plans an operation as a client's request does.
    fn planned(&mut self, share: ShareId, name: &str) -> Planned {
        self.opens += 1;
        let create = CreateOp {
            open: self.opens,
            path: name.to_owned(),
            disposition: Disposition::Create,
            must_be_dir: false,
            must_be_file: true,
            open_reparse: false,
            read_data: true,
            write_data: true,
            delete: false,
            maximum_allowed: false,
            attributes: 0,
            allocation_size: 0,
            eas: Vec::new(),
        };
        Planned {
            task: Task::Message(1),
            actor: Actor { share, user: None },
            op: FileOp::Create(create),
            intent: None,
        }
    }

    /// Makes a file, and records that.
    fn make(&mut self, share: ShareId, name: &str) {
        let planned = self.planned(share, name);
        assert!(!self.refuses(share) && !self.waits(share), "it is served");
        let outcome = self
            .machine
            .fs
            .perform(&planned.actor, &planned.op, &Intent::None);
        let machine = &mut self.machine;
        machine
            .record_outcome(&planned, &Intent::None, outcome)
            .expect("it is made");
        machine.journal.commit(self.now);
    }

    /// Writes to an open file, and records that.
    fn write(&mut self, share: ShareId, length: usize) {
        let write = FileOp::Write {
            open: 1,
            at: WriteAt::Offset(0),
            data: Bytes::from(vec![7; length]).into(),
            write_through: false,
        };
        let planned = Planned {
            op: write,
            ..self.planned(share, "")
        };
        let intent = Intent::Write { offset: 0 };
        let written = Outcome::Written {
            count: length as u32,
            offset: 0,
        };
        let recorded = self.machine.record_outcome(&planned, &intent, Ok(written));
        recorded.expect("it is written");
        self.machine.journal.commit(self.now);
    }

    /// Lets this many seconds pass, with some turns.
    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        let wall = 1 + self.now.as_micros() as u64 * 10;
        let time = Time {
            now: self.now,
            wall,
            uptime: self.now,
        };
        for _ in 0..3 {
            self.machine.turn(time, &mut Vec::new());
        }
    }

    /// Makes the log short of room.
    fn want_room(&mut self) {
        self.machine.effects.as_mut().expect("power").wanted = true;
    }

    /// Names of shares and files that would be made again.
    fn kept(&mut self) -> Vec<(String, String)> {
        let files = self.machine.read_back(|_| true, self.now).expect("the log");
        let mut kept: Vec<_> = files
            .effects
            .into_iter()
            .filter_map(|(effect, _, share)| match effect.op {
                FileOp::Create(create) => Some((share, create.path)),
                _ => None,
            })
            .collect();
        kept.sort();
        kept.dedup();
        kept
    }

    fn refuses(&mut self, share: ShareId) -> bool {
        let planned = self.planned(share, "x");
        self.machine.refusal(&planned) == Some(NtStatus::IO_DEVICE_ERROR)
    }

    fn waits(&mut self, share: ShareId) -> bool {
        let planned = self.planned(share, "x");
        self.machine.has_to_wait(&planned)
    }

    fn times_made(&self, share: ShareId, name: &str) -> usize {
        let made = &self.disks().redone;
        made.iter()
            .filter(|made| **made == (share, name.to_owned()))
            .count()
    }
}

fn named(names: &[(&str, &str)]) -> Vec<(String, String)> {
    let names = names.iter();
    names
        .map(|(share, name)| (share.to_string(), name.to_string()))
        .collect()
}

#[test]
fn a_hanging_share_holds_up_no_other() {
    let mut world = World::new();
    world.disks().answers.remove(&B);
    world.make(A, "one");
    world.make(B, "two");
    world.pass(10);
    assert_eq!(world.disks().under_way, BTreeMap::from([(B, true)]));
    world.pass(60);
    let all = named(&[("a", "one"), ("b", "two")]);
    assert_eq!(
        world.kept(),
        all,
        "no client needs room: a slow disk has its time"
    );
    world.want_room();
    world.pass(0);
    assert_eq!(world.kept(), named(&[("b", "two")]));
    assert!(world.waits(B) && !world.refuses(B) && !world.waits(A));
    assert!(world.machine.share_problems()[0].contains("share b"));
    for name in ["three", "four"] {
        world.make(A, name);
        world.pass(10);
        assert_eq!(world.kept(), named(&[("b", "two")]), "the other is served");
    }
    world.disks().answers.insert(B);
    world.pass(1);
    assert_eq!(world.kept(), []);
    assert!(!world.waits(B) && world.machine.share_problems().is_empty());
    assert_eq!(
        world.times_made(B, "two"),
        1,
        "there was no need to do it again"
    );
    world.make(B, "five");
    world.pass(10);
    assert_eq!(world.kept(), []);
}

#[test]
fn effects_after_a_hanging_sync_need_another() {
    let mut world = World::new();
    world.disks().answers.remove(&B);
    world.make(B, "one");
    world.pass(10);
    world.make(B, "two");
    world.want_room();
    world.pass(20);
    world.make(A, "three");
    world.pass(10);
    world.pass(10);
    assert_eq!(world.kept(), named(&[("b", "one"), ("b", "two")]));
    world.disks().answers.insert(B);
    world.pass(1);
    assert!(world.waits(B), "the second is not known to be there");
    assert_eq!(world.kept(), named(&[("b", "one"), ("b", "two")]));
    world.pass(10);
    assert!(!world.waits(B));
    assert_eq!(world.kept(), []);
}

#[test]
fn one_that_hangs_and_then_fails_is_refused_and_done_again() {
    let mut world = World::new();
    world.disks().answers.remove(&B);
    world.make(B, "one");
    world.pass(10);
    world.want_room();
    world.pass(20);
    assert!(world.waits(B));
    world.disks().fails.insert(B);
    world.disks().answers.insert(B);
    world.pass(1);
    assert!(world.refuses(B) && !world.waits(B));
    world.pass(10);
    assert_eq!(world.kept(), named(&[("b", "one")]));
    world.disks().fails.clear();
    world.pass(10);
    assert!(!world.refuses(B));
    assert_eq!(world.kept(), []);
    assert_eq!(world.times_made(B, "one"), 2);
}

#[test]
fn two_failing_shares_recover_independently() {
    let mut world = World::new();
    world.make(A, "one");
    world.make(B, "two");
    world.disks().fails.extend([A, B]);
    world.pass(10);
    world.pass(10);
    assert!(world.refuses(A) && world.refuses(B));
    world.disks().fails.remove(&A);
    world.pass(10);
    assert!(!world.refuses(A) && world.refuses(B));
    assert_eq!(world.kept(), named(&[("b", "two")]));
    world.make(A, "three");
    world.pass(10);
    assert_eq!(world.kept(), named(&[("b", "two")]));
    world.disks().fails.clear();
    world.pass(10);
    assert_eq!(world.kept(), []);
    assert_eq!(
        (world.times_made(A, "one"), world.times_made(B, "two")),
        (2, 2)
    );
}

/// What was written is lost at the failed sync, and cannot be written again. The next sync succeeds, without it.
#[test]
fn a_sync_does_not_cover_what_could_not_be_done_again() {
    let mut world = World::new();
    world.make(B, "one");
    world.disks().fails_next.insert(B);
    world.disks().has_bad_places.insert(B);
    for _ in 0..2 {
        world.pass(10);
        assert!(world.refuses(B) && !world.refuses(A));
        assert_eq!(world.kept(), named(&[("b", "one")]));
    }
    world.disks().has_bad_places.clear();
    world.pass(10);
    assert!(!world.refuses(B));
    assert_eq!(world.kept(), []);
    assert_eq!(world.times_made(B, "one"), 2);
}

/// A share may show only a part of what was acknowledged, and the log has no room for what its isolation takes.
#[test]
fn what_cannot_be_done_again_is_refused_where_nothing_can_be_isolated() {
    let mut world = World::new();
    for _ in 0..4 {
        world.write(B, MEMORY / 6);
    }
    world.disks().fails_next.insert(B);
    world.disks().has_bad_places.insert(B);
    world.pass(10);
    assert_eq!(
        world.machine.effects.as_ref().map(|of| of.isolated.len()),
        Some(0)
    );
    assert!(world.refuses(B) && !world.refuses(A));
    assert!(world.machine.share_problems()[0].contains("share b"));
    world.disks().has_bad_places.clear();
    world.pass(10);
    assert!(!world.refuses(B) && world.machine.share_problems().is_empty());
}

/// An effect with a number below the marker would be taken for one that has been done.
#[test]
fn effects_are_numbered_above_a_marker_that_could_not_be_read_at_the_start() {
    let disks = Model::default();
    disks.0.borrow_mut().markers.insert(B, 1000);
    disks.0.borrow_mut().hides_markers = true;
    let mut world = World::over(disks);
    world.disks().hides_markers = false;
    world.make(B, "one");
    assert_eq!(world.disks().marks[&B], 1001);
}
