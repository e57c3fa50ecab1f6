//! Every operation and every redo, on the disk's file system and on tmpfs.

mod accounts;
mod bytes;
mod create;
mod ea;
mod listing;
mod names;
mod opens;
mod outages;
mod overlay;
mod sandboxed;
mod streams;
mod times;
mod watching;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use outlast_fsa::fileop::{
    Actor, CreateAction, CreateOp, Created, Disposition, FileOp, Intent, OpenId, Outcome, WriteAt,
};
use outlast_fsa::status::NtStatus;
use outlast_smb::OpenInfo;

use super::{Fs, ShareRoot};
use crate::job_thread::wake;

/// A share in a directory of its own, which is removed with it.
struct Bench {
    dir: PathBuf,
    outside: PathBuf,
    fs: Fs,
    actor: Actor,
    last: OpenId,
    read_only: bool,
    run_as: Option<String>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.outside.parent().unwrap());
    }
}

/// Runs the test on the disk's file system and on tmpfs.
fn everywhere(test: impl Fn(&mut Bench)) {
    for place in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        test(&mut Bench::at(&place));
    }
}

/// Runs a test of this module again in a process of its own, and returns false; in that process it returns true. There
/// the test may lower limits, and no child of another test has its descriptors between fork and exec, so that a file it
/// unlinks is really gone.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "OUTLAST_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return true;
    }
    let inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("fs::tests::{test}"), "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let [said, complained] =
        [inner.stdout, inner.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        inner.status.success() && said.contains("1 passed"),
        "{said}{complained}"
    );
    false
}

fn start(dir: &Path, read_only: bool, run_as: Option<&str>) -> Fs {
    let root = ShareRoot {
        path: dir.to_owned(),
        read_only,
        run_as: run_as.map(str::to_owned),
    };
    Fs::new(&[root], wake().unwrap()).unwrap()
}

impl Bench {
    fn at(place: &Path) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let top = place.join(format!("outlast-fs-{}-{number}", std::process::id()));
        let (dir, outside) = (top.join("share"), top.join("outside"));
        Bench::serving(dir, outside)
    }

    /// Makes a bench with this directory as its share, and one beside it.
    fn serving(dir: PathBuf, outside: PathBuf) -> Bench {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        Bench {
            fs: start(&dir, false, None),
            dir,
            outside,
            actor: Actor {
                share: 0,
                user: Some("root".to_owned()),
            },
            last: 0,
            read_only: false,
            run_as: None,
        }
    }

    /// Ends the server and starts it again.
    fn restart(&mut self) {
        self.fs = start(&self.dir, self.read_only, self.run_as.as_deref());
    }

    fn op(&mut self, path: &str, disposition: Disposition) -> CreateOp {
        self.last += 1;
        CreateOp {
            open: self.last,
            path: path.to_owned(),
            disposition,
            must_be_dir: false,
            must_be_file: false,
            open_reparse: false,
            read_data: true,
            write_data: true,
            delete: false,
            maximum_allowed: false,
            attributes: 0,
            allocation_size: 0,
            eas: Vec::new(),
        }
    }

    fn prepare(&mut self, op: &FileOp) -> Result<Intent, NtStatus> {
        self.fs.prepare(&self.actor, op)
    }

    fn perform(&mut self, op: &FileOp, intent: &Intent) -> Result<Outcome, NtStatus> {
        self.fs.perform(&self.actor, op, intent)
    }

    fn run(&mut self, op: &FileOp) -> Result<Outcome, NtStatus> {
        let intent = self.prepare(op)?;
        self.perform(op, &intent)
    }

    /// Performs it twice with the same intent, as a redo does, and checks that the results are the same.
    fn run_twice(&mut self, op: &FileOp) -> Result<Outcome, NtStatus> {
        let intent = self.prepare(op)?;
        let once = self.perform(op, &intent);
        let twice = self.perform(op, &intent);
        assert_eq!(once, twice);
        twice
    }

    fn create(&mut self, op: CreateOp) -> Result<Created, NtStatus> {
        match self.run(&FileOp::Create(op))? {
            Outcome::Created(created) => Ok(created),
            other => panic!("{other:?}"),
        }
    }

    /// Opens or creates a file; its open's id.
    fn file(&mut self, path: &str) -> OpenId {
        let op = self.op(path, Disposition::OpenIf);
        self.create(op).unwrap();
        self.last
    }

    /// Opens or creates a directory; its open's id.
    fn directory(&mut self, path: &str) -> OpenId {
        let mut op = self.op(path, Disposition::OpenIf);
        op.must_be_dir = true;
        op.write_data = false;
        self.create(op).unwrap();
        self.last
    }

    fn try_open(&mut self, path: &str) -> Result<Created, NtStatus> {
        let op = self.op(path, Disposition::Open);
        self.create(op)
    }

    fn close(&mut self, open: OpenId) {
        self.run(&FileOp::Close { open, delete: None }).unwrap();
    }

    fn write(&mut self, open: OpenId, offset: u64, data: &[u8]) -> Result<Outcome, NtStatus> {
        self.run(&FileOp::Write {
            open,
            at: WriteAt::Offset(offset),
            data: data.to_vec().into(),
            write_through: false,
        })
    }

    fn read(&mut self, open: OpenId, offset: u64, length: u32) -> Vec<u8> {
        let op = FileOp::Read {
            open,
            offset,
            length,
        };
        match self.run(&op).unwrap() {
            Outcome::Data(data) => data.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn stat(&mut self, open: OpenId) -> outlast_fsa::fileop::Metadata {
        match self.run(&FileOp::Stat { open }).unwrap() {
            Outcome::Metadata(metadata) => metadata,
            other => panic!("{other:?}"),
        }
    }

    fn on_disk(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn action(outcome: &Result<Outcome, NtStatus>) -> Result<CreateAction, NtStatus> {
    match outcome {
        Ok(Outcome::Created(created)) => Ok(created.action),
        Ok(other) => panic!("{other:?}"),
        Err(status) => Err(*status),
    }
}

/// The record of an open with these rights (MS-SMB2 2.2.13.1).
fn info(open: OpenId, created: &Created, granted_access: u32) -> OpenInfo {
    OpenInfo {
        conn: 1,
        open,
        actor: Actor {
            share: 0,
            user: Some("root".to_owned()),
        },
        path: created.path.clone(),
        moved_to: None,
        key: created.metadata.key,
        handle: created.handle.clone(),
        is_dir: created.metadata.is_dir,
        granted_access,
        stopped: outlast_fsa::fileop::Times::default(),
        watch: None,
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
