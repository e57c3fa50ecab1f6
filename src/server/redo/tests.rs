//! Tests that a file system that was reset to any point since the last consistency point has, after the redo, every
//! effect that clients received a reply for.

mod model;
mod streams;

use std::collections::BTreeMap;

use outlast_fsa::fileop::{CreateOp, DeleteTarget, Disposition, WriteAt};
use outlast_smb::{Planned, Task};

use super::*;
use crate::server::effect;
use model::{Model, Random, Seen};

const SHARE: &str = "pub";

fn actor() -> Actor {
    Actor {
        share: 0,
        user: None,
    }
}

/// A server as far as files are concerned: its effects and its records.
struct Run {
    random: Random,
    fs: Model,
    next: u64,
    effects: Vec<(Effect, Vec<Bytes>, String)>,
    /// Number of effects at the beginning of the current generation, and number of steps of the file system.
    generation: (usize, usize),
    last_open: OpenId,
}

/// An operation that was done and whose result is not recorded.
struct InDoubt {
    op: FileOp,
    intent: Intent,
}

impl Run {
    fn new(seed: u64) -> Run {
        Run {
            random: Random(seed),
            fs: Model::new(),
            next: 1,
            effects: Vec::new(),
            generation: (0, 0),
            last_open: 0,
        }
    }

    /// Does an operation. `recorded` says what is recorded.
    fn run(&mut self, op: FileOp, info: Option<&OpenInfo>) -> Result<(Outcome, InDoubt), NtStatus> {
        let intent = self.fs.prepare(&actor(), &op)?;
        let outcome = self.fs.perform(&actor(), &op, &intent)?;
        let planned = Planned {
            task: Task::Message(1),
            actor: actor(),
            op: op.clone(),
            intent: None,
        };
        for draft in effect::of(&planned, &intent, &outcome, info, Vec::new()) {
            let modified = match (&draft.op, info) {
                (FileOp::Create(_) | FileOp::Close { .. } | FileOp::Rename { .. }, _) => 0,
                (op, _) => {
                    let open = op.open();
                    match self
                        .fs
                        .perform(&actor(), &FileOp::Stat { open }, &Intent::None)?
                    {
                        Outcome::Metadata(metadata) => metadata.last_write_time,
                        _ => 0,
                    }
                }
            };
            let effect = Effect {
                number: self.next,
                actor: actor(),
                op: draft.op,
                intent: draft.intent,
                target: draft.target,
                made: draft.made,
                modified: draft.modified.max(modified),
                created: draft.created,
                places: Vec::new(),
            };
            self.next += 1;
            if effect.is_of_names() {
                self.fs.mark(0, effect.number).unwrap();
            }
            // In pieces, as it was received.
            let pieces = draft
                .data
                .together()
                .chunks(7)
                .map(Bytes::copy_from_slice)
                .collect();
            self.effects.push((effect, pieces, SHARE.to_owned()));
        }
        Ok((outcome, InDoubt { op, intent }))
    }

    fn path(&mut self) -> String {
        let name = |random: &mut Random| ["a", "b", "c", "d"][random.below(4) as usize];
        let name_ = name(&mut self.random);
        match self.random.below(3) {
            0 => format!("x/{name_}"),
            1 => format!("x/y/{name_}"),
            _ => name_.to_owned(),
        }
    }

    /// Does one operation on an open of its own. Returns the last effect.
    fn operation(&mut self) -> Option<InDoubt> {
        self.last_open += 1;
        let open = self.last_open;
        let directory = self.random.below(8) == 0;
        let path = if directory {
            ["x", "x/y", "z"][self.random.below(3) as usize].to_owned()
        } else {
            self.path()
        };
        let disposition = [
            Disposition::Create,
            Disposition::OpenIf,
            Disposition::Open,
            Disposition::OverwriteIf,
        ][self.random.below(4) as usize];
        let create = FileOp::Create(CreateOp {
            open,
            path: path.clone(),
            disposition,
            must_be_dir: directory && disposition != Disposition::OverwriteIf,
            must_be_file: false,
            open_reparse: false,
            read_data: true,
            write_data: true,
            delete: false,
            maximum_allowed: false,
            attributes: self.random.below(8) as u32,
            allocation_size: 0,
            eas: Vec::new(),
        });
        let (outcome, mut last) = self.run(create, None).ok()?;
        let Outcome::Created(created) = outcome else {
            panic!("a create gives what it has created");
        };
        let info = OpenInfo {
            conn: 1,
            open,
            actor: actor(),
            path: path.clone(),
            moved_to: None,
            key: created.metadata.key,
            handle: created.handle,
            is_dir: created.metadata.is_dir,
            granted_access: 3,
            stopped: outlast_fsa::fileop::Times::default(),
            watch: None,
        };
        let is_dir = info.is_dir;
        for _ in 0..self.random.below(3) {
            let value = self.random.below(20);
            let op = match self.random.below(6) {
                0 | 1 if !is_dir => FileOp::Write {
                    open,
                    at: if value < 10 {
                        WriteAt::Offset(value)
                    } else {
                        WriteAt::End
                    },
                    data: vec![value as u8; 1 + value as usize].into(),
                    write_through: false,
                },
                2 if !is_dir => FileOp::SetEndOfFile {
                    open,
                    end_of_file: value,
                },
                3 => FileOp::SetBasic {
                    open,
                    basic: SetBasic {
                        attributes: Some(value as u32 + 1),
                        last_write_time: (value.is_multiple_of(2) && !is_dir)
                            .then_some(10_000 + value),
                        creation_time: (value.is_multiple_of(3)).then_some(20_000 + value),
                        ..SetBasic::default()
                    },
                },
                4 => FileOp::Rename {
                    open,
                    from: path.clone(),
                    to: self.path(),
                    replace: value.is_multiple_of(2),
                },
                _ => FileOp::Close {
                    open,
                    delete: Some(DeleteTarget {
                        path: path.clone(),
                        key: info.key,
                    }),
                },
            };
            let ends = matches!(op, FileOp::Close { .. } | FileOp::Rename { .. });
            if let Ok((_, done)) = self.run(op, Some(&info)) {
                last = done;
            }
            if ends {
                break;
            }
        }
        self.fs.forget(open);
        Some(last)
    }

    /// A consistency point during which work continues.
    fn consistency_point(&mut self) {
        let (effects, steps) = (self.effects.len(), self.fs.steps());
        for _ in 0..self.random.below(4) {
            self.operation();
        }
        self.fs.sync_up_to(steps);
        self.effects.drain(..effects);
        self.generation = (0, 0);
    }

    fn files(&self, remade: &[(FileKey, Identity)]) -> Files {
        Files {
            generations: Vec::new(),
            effects: self.effects.clone(),
            remade: remade.to_vec(),
            ..Files::default()
        }
    }
}

/// The records of a redo, each with the number of steps done before it.
type OnRecord = Vec<(usize, FileKey, Identity)>;

fn redone(mut fs: Model, files: Files) -> (Model, OnRecord) {
    let mut recorded = Vec::new();
    // The steps are counted in a copy of the calls, so that the record's callback can read the number.
    let steps = std::cell::Cell::new(0);
    let mut counted = Lent {
        fs: &mut fs,
        steps: &steps,
        calls: 0,
        fails: None,
    };
    let failed = redo(
        &mut counted,
        files,
        &[SHARE.to_owned()],
        &BTreeSet::new(),
        &mut |keys, now| {
            recorded.extend(keys.iter().map(|key| (steps.get(), *key, now.clone())));
        },
        &mut || (),
    );
    assert_eq!(failed, BTreeMap::new());
    (fs, recorded)
}

/// The model as a redo uses it: its steps can be counted meanwhile, and one of the redo's calls may fail.
struct Lent<'a> {
    fs: &'a mut Model,
    steps: &'a std::cell::Cell<usize>,
    calls: usize,
    /// The call that fails, and its error.
    fails: Option<(usize, NtStatus)>,
}

impl Lent<'_> {
    fn call<T, E>(
        &mut self,
        failure: impl FnOnce(NtStatus) -> E,
        call: impl FnOnce(&mut Model) -> Result<T, E>,
    ) -> Result<T, E> {
        self.calls += 1;
        if let Some((_, status)) = self.fails.filter(|(at, _)| *at == self.calls) {
            return Err(failure(status));
        }
        let outcome = call(self.fs);
        self.steps.set(self.fs.steps());
        outcome
    }
}

fn disk_fails(_: NtStatus) -> std::io::Error {
    std::io::Error::other("a disk")
}

impl FileSystem for Lent<'_> {
    fn prepare(&mut self, actor: &Actor, op: &FileOp) -> Result<Intent, NtStatus> {
        self.fs.prepare(actor, op)
    }
    fn perform(
        &mut self,
        actor: &Actor,
        op: &FileOp,
        intent: &Intent,
    ) -> Result<Outcome, NtStatus> {
        self.call(|status| status, |fs| fs.perform(actor, op, intent))
    }
    fn reopen(&mut self, open: &OpenInfo) -> Result<(), NtStatus> {
        self.call(|status| status, |fs| fs.reopen(open))
    }
    fn forget(&mut self, open: OpenId) {
        self.fs.forget(open);
    }
    fn changes(&mut self) -> Vec<outlast_fsa::fileop::Change> {
        self.fs.changes()
    }
    fn discard_changes(&mut self) {
        self.fs.discard_changes();
    }
    fn mark(&mut self, share: ShareId, number: u64) -> std::io::Result<()> {
        self.call(disk_fails, |fs| fs.mark(share, number))
    }
    fn marked(&mut self, share: ShareId) -> std::io::Result<u64> {
        self.call(disk_fails, |fs| fs.marked(share))
    }
}

/// Law 10: an error of the disk is not read as "deleted". Operations that could not be redone are refused, and redone
/// when the disk works again.
#[test]
fn a_disk_error_is_not_treated_as_a_deleted_file() {
    let statuses = [
        NtStatus::IO_DEVICE_ERROR,
        NtStatus::DISK_FULL,
        NtStatus::QUOTA_EXCEEDED,
        NtStatus::TOO_MANY_OPENED_FILES,
        NtStatus::ACCESS_DENIED,
        NtStatus::MEDIA_WRITE_PROTECTED,
        NtStatus::INSUFFICIENT_RESOURCES,
    ];
    let mut refused = 0;
    for seed in 0..150 {
        let mut run = Run::new(seed);
        for _ in 0..12 {
            run.operation();
        }
        let wanted = run.fs.tree();
        let mut random = Random(seed ^ 0xbad_d15c);
        let steps = run.fs.steps();
        let kept = random.below(steps as u64 + 1) as usize;
        let mut fs = run.fs.cut(steps, kept, &mut random);
        let shares = [SHARE.to_owned()];
        let mut known = Vec::new();
        for fails_at in 1.. {
            let status = statuses[random.below(statuses.len() as u64) as usize];
            let mut failing = Lent {
                fs: &mut fs,
                steps: &std::cell::Cell::default(),
                calls: 0,
                fails: Some((fails_at, status)),
            };
            let files = run.files(&known);
            let mut recorded = Vec::new();
            let redone = redo(
                &mut failing,
                files,
                &shares,
                &BTreeSet::new(),
                &mut |keys, now| {
                    recorded.extend(keys.iter().map(|key| (*key, now.clone())));
                },
                &mut || (),
            );
            let is_through = failing.calls < fails_at;
            known.extend(recorded);
            assert_eq!(
                redone.is_empty(),
                is_through,
                "seed {seed}, call {fails_at}"
            );
            if is_through {
                break;
            }
            refused += 1;
        }
        assert_same(&fs, &wanted, seed, "the disk is well again");
    }
    println!("{refused} times the disk failed");
    assert!(refused > 1000);
}

fn assert_same(found: &Model, wanted: &BTreeMap<String, Seen>, seed: u64, what: &str) {
    let found = found.tree();
    for (path, seen) in wanted {
        assert_eq!(found.get(path), Some(seen), "seed {seed}, {what}: {path}");
    }
    for path in found.keys() {
        assert!(
            wanted.contains_key(path),
            "seed {seed}, {what}: {path} is too many"
        );
    }
}

#[test]
fn whatever_a_power_cut_takes_is_put_back() {
    let (mut cuts, mut made_again) = (0, 0);
    for seed in 0..1000 {
        let mut run = Run::new(seed);
        for _ in 0..25 {
            if run.random.below(12) == 0 {
                run.consistency_point();
            } else {
                run.operation();
            }
        }
        let wanted = run.fs.tree();
        let steps = run.fs.steps();
        let mut random = Random(seed ^ 0xc0ff_ee00);
        for kept in 0..=steps {
            let fs = run.fs.cut(steps, kept, &mut random);
            let (once, recorded) = redone(fs, run.files(&[]));
            assert_same(&once, &wanted, seed, &format!("{kept} of {steps} kept"));
            cuts += 1;
            made_again += recorded.len();
            // And again, in the middle of the redo or after it.
            let redo_steps = once.steps();
            let steps = random.below(redo_steps as u64 + 1) as usize;
            let kept = random.below(steps as u64 + 1) as usize;
            let known: Vec<_> = recorded
                .into_iter()
                .filter(|(at, ..)| *at <= steps)
                .map(|(_, from, now)| (from, now))
                .collect();
            let fs = once.cut(steps, kept, &mut random);
            let (twice, _) = redone(fs, run.files(&known));
            assert_same(&twice, &wanted, seed, "the power was cut twice");
        }
    }
    println!("{cuts} cuts, {made_again} files made again");
    assert!(cuts > 10_000 && made_again > 10_000);
}

#[test]
fn an_operation_in_doubt_is_done_once() {
    for seed in 0..400 {
        let mut run = Run::new(seed);
        for _ in 0..12 {
            run.operation();
        }
        let before = run.effects.len();
        let Some(in_doubt) = run.operation() else {
            continue;
        };
        // At most one effect is in doubt: of an operation with several, only the last.
        let effects = run.effects.len();
        if effects != before + 1 {
            continue;
        }
        run.effects.pop();
        let wanted = run.fs.tree();
        let steps = run.fs.steps();
        let mut random = Random(seed);
        for kept in 0..=steps {
            let fs = run.fs.cut(steps, kept, &mut random);
            let (mut fs, recorded) = redone(fs, run.files(&[]));
            let mut intent = in_doubt.intent.clone();
            for key in intent.keys_mut() {
                let now = recorded.iter().rfind(|(_, from, _)| from == key);
                *key = now.map_or(*key, |(_, _, now)| now.key);
            }
            if let FileOp::Create(_) = in_doubt.op {
                fs.perform(&actor(), &in_doubt.op, &intent).unwrap();
                let names: Vec<_> = fs.tree().into_keys().collect();
                let expected: Vec<_> = wanted.keys().cloned().collect();
                assert_eq!(names, expected, "seed {seed}, {kept} of {steps} kept");
            }
        }
    }
}

/// Operations between two power cuts refer to the file as the first redo made it; and there may be a third power cut.
#[test]
fn a_file_made_again_and_again_is_known_by_every_key_it_had() {
    let identity = |ino: u64| Identity {
        key: Model::key(ino),
        handle: outlast_fsa::fileop::FileHandle {
            kind: 1,
            bytes: ino.to_le_bytes().to_vec(),
        },
    };
    let key = Model::key;
    let mut running = Remade::default();
    let mut recorded = Vec::new();
    for now in 2..6 {
        // The server starts again, and makes the file that it first made as 1.
        let mut known = Remade::default();
        for (from, now) in &recorded {
            known.insert(*from, now);
        }
        let now = identity(now);
        let keys = known.insert(key(1), &now);
        recorded.extend(keys.into_iter().map(|from| (from, now.clone())));
        running.insert(key(1), &now);
        for earlier in 1..=now.key.ino {
            assert_eq!(known.now(key(earlier)), now.key);
            assert_eq!(running.now(key(earlier)), now.key);
        }
    }
    assert_eq!(running.now(key(9)), key(9));
}
