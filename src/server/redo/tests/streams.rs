//! Tests that named streams are done again from whatever a power cut has left of them, on a real file system.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use outlast_fsa::fileop::{Created, SetBasic};
use outlast_fsa::stream;
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use super::*;
use crate::fs::{Fs, ShareRoot};
use crate::job_thread::wake;

/// The attributes of the file's streams, by name.
type Streams = BTreeMap<Vec<u8>, Vec<u8>>;

struct Server {
    dir: PathBuf,
    fs: Fs,
    effects: Vec<(Effect, Vec<Bytes>, String)>,
    opens: BTreeMap<OpenId, Created>,
    /// The streams after each effect.
    states: Vec<Streams>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Server {
    fn at(place: PathBuf) -> Server {
        let dir = place.join(format!("outlast-redo-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("f"), "data").unwrap();
        Server {
            fs: Server::start(&dir),
            dir,
            effects: Vec::new(),
            opens: BTreeMap::new(),
            states: vec![Streams::new()],
        }
    }

    fn start(dir: &std::path::Path) -> Fs {
        let root = ShareRoot {
            path: dir.to_owned(),
            read_only: false,
            run_as: None,
        };
        Fs::new(&[root], wake().unwrap()).unwrap()
    }

    fn streams(&self) -> Streams {
        let file = self.dir.join("f");
        let mut list = vec![0; 65_536];
        let length = listxattr(&file, &mut list).unwrap();
        let names = list[..length].split(|byte| *byte == 0);
        let streams = names.filter(|name| name.starts_with(b"user.DosStream."));
        let value = |name: &[u8]| {
            let mut value = vec![0; 65_536];
            let length = getxattr(&file, std::ffi::OsStr::from_bytes(name), &mut value).unwrap();
            value[..length].to_vec()
        };
        streams.map(|name| (name.to_vec(), value(name))).collect()
    }

    fn set_streams(&self, streams: &Streams) {
        let file = self.dir.join("f");
        for name in self.streams().keys() {
            removexattr(&file, std::ffi::OsStr::from_bytes(name)).unwrap();
        }
        for (name, value) in streams {
            let name = std::ffi::OsStr::from_bytes(name);
            setxattr(&file, name, value, XattrFlags::empty()).unwrap();
        }
    }

    fn info(&self, open: OpenId) -> Option<OpenInfo> {
        let created = self.opens.get(&open)?;
        let target = Target {
            path: created.path.clone(),
            identity: Identity {
                key: created.metadata.key,
                handle: created.handle.clone(),
            },
            is_dir: false,
        };
        Some(open_info(open, &root(), &target, true))
    }

    fn run(&mut self, op: FileOp) {
        let intent = self.fs.prepare(&root(), &op).unwrap();
        let info = self.info(op.open());
        let outcome = self.fs.perform(&root(), &op, &intent).unwrap();
        let planned = Planned {
            task: Task::Message(1),
            actor: root(),
            op: op.clone(),
            intent: None,
        };
        for draft in effect::of(&planned, &intent, &outcome, info.as_ref(), Vec::new()) {
            let effect = Effect {
                number: self.effects.len() as u64 + 1,
                actor: root(),
                op: draft.op,
                intent: draft.intent,
                target: draft.target,
                made: draft.made,
                modified: draft.modified,
                created: draft.created,
                places: Vec::new(),
            };
            assert!(!effect.is_of_names(), "{effect:?}");
            let pieces = vec![draft.data.together()];
            self.effects.push((effect, pieces, SHARE.to_owned()));
        }
        match outcome {
            Outcome::Created(created) => drop(self.opens.insert(op.open(), created)),
            Outcome::Renamed { path, .. } => {
                for created in self.opens.values_mut() {
                    if stream::has_same_name(&created.path, op_from(&op)) {
                        created.path.clone_from(&path);
                    }
                }
            }
            _ => {}
        }
        self.states.push(self.streams());
    }

    fn open(&mut self, open: OpenId, path: &str, disposition: Disposition) {
        self.run(FileOp::Create(CreateOp {
            open,
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
        }));
    }

    fn write(&mut self, open: OpenId, offset: u64, data: &'static [u8]) {
        self.run(FileOp::Write {
            open,
            at: WriteAt::Offset(offset),
            data: Bytes::from_static(data).into(),
            write_through: false,
        });
    }

    fn delete(&mut self, open: OpenId) {
        let created = &self.opens[&open];
        let delete = Some(DeleteTarget {
            path: created.path.clone(),
            key: created.metadata.key,
        });
        self.run(FileOp::Close { open, delete });
    }

    /// Does the effects again with the streams in this state.
    fn redo_from(&mut self, state: &Streams) -> Streams {
        self.set_streams(state);
        self.fs = Server::start(&self.dir);
        let files = Files {
            effects: self.effects.clone(),
            ..Files::default()
        };
        let failed = redo(
            &mut self.fs,
            files,
            &[SHARE.to_owned()],
            &BTreeSet::new(),
            &mut |_, _| panic!("nothing is made again"),
            &mut || {},
        );
        assert_eq!(failed, BTreeMap::new());
        self.streams()
    }
}

fn root() -> Actor {
    Actor {
        share: 0,
        user: Some("root".to_owned()),
    }
}

fn op_from(op: &FileOp) -> &str {
    match op {
        FileOp::Rename { from, .. } => from,
        _ => "",
    }
}

#[test]
fn streams_have_all_effects_whatever_was_lost() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for place in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let mut server = Server::at(place);
        server.open(1, "f:s", Disposition::Create);
        server.write(1, 0, b"first");
        server.write(1, 7, b"far");
        server.run(FileOp::Rename {
            open: 1,
            from: "f:s".to_owned(),
            to: "f:t".to_owned(),
            replace: false,
        });
        server.open(2, "f:s", Disposition::OpenIf);
        server.write(2, 0, b"another");
        server.run(FileOp::SetEndOfFile {
            open: 2,
            end_of_file: 4,
        });
        server.open(3, "f:gone", Disposition::OverwriteIf);
        server.write(3, 0, b"gone");
        server.delete(3);
        let attributes = Some(attributes());
        server.run(FileOp::SetBasic {
            open: 2,
            basic: SetBasic {
                attributes,
                ..SetBasic::default()
            },
        });
        server.open(4, "f:s", Disposition::Overwrite);
        server.write(4, 1, b"again");
        let before = server.states.last().unwrap().clone();
        assert_eq!(before.len(), 2);
        for state in server.states.clone() {
            assert_eq!(server.redo_from(&state), before);
        }
        // The file is overwritten, and has another stream.
        server.open(5, "f", Disposition::OverwriteIf);
        server.open(6, "f:u", Disposition::Create);
        server.write(6, 0, b"new");
        let after = server.states.last().unwrap().clone();
        assert_eq!(after.len(), 1);
        for state in server.states.clone() {
            assert_eq!(server.redo_from(&state), after);
        }
    }
}

/// FILE_ATTRIBUTE_ARCHIVE.
fn attributes() -> u32 {
    outlast_fsa::attributes::ARCHIVE
}
