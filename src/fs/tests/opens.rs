use super::*;
use crate::fs::opens::Opens;
use outlast_fsa::fileop::{Chunk, DeleteTarget};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::os::unix::fs::PermissionsExt;

const READ_WRITE: u32 = 0x3;

fn name(number: u64) -> String {
    format!("file {number}")
}

/// Makes files, each open for writing, and writes its name into each.
fn many(b: &mut Bench, count: u64) -> Vec<(OpenId, Created)> {
    (0..count)
        .map(|number| {
            let op = b.op(&name(number), Disposition::Create);
            let created = b.create(op).unwrap();
            let open = b.last;
            b.write(open, 0, name(number).as_bytes()).unwrap();
            (open, created)
        })
        .collect()
}

fn read_all(b: &mut Bench, opens: &[(OpenId, Created)]) {
    for (number, (open, created)) in (0..).zip(opens) {
        assert_eq!(b.read(*open, 0, 100), name(number).as_bytes());
        assert_eq!(b.stat(*open).key, created.metadata.key);
    }
}

#[test]
fn descriptors_are_bounded_and_no_open_is_lost() {
    if !is_root() {
        return;
    }
    everywhere(|b| {
        b.fs.opens = Opens::limited(8);
        let opens = many(b, 100);
        assert_eq!(b.fs.opens.descriptors(), 8);
        // A local process renames all, and removes the rights that the clients have had.
        for number in 0..100 {
            let (from, to) = (b.dir.join(name(number)), format!("renamed {number}"));
            std::fs::set_permissions(&from, PermissionsExt::from_mode(0o000)).unwrap();
            std::fs::rename(from, b.dir.join(to)).unwrap();
        }
        read_all(b, &opens);
        let chunks = vec![Chunk {
            source_offset: 0,
            target_offset: 100,
            length: 4,
        }];
        b.run_twice(&FileOp::CopyChunks {
            source: opens[0].0,
            target: opens[1].0,
            chunks,
        })
        .unwrap();
        assert_eq!(b.read(opens[1].0, 100, 10), b"file");
        assert_eq!(b.fs.opens.descriptors(), 8);
        for (open, _) in &opens {
            b.close(*open);
        }
        assert_eq!(b.fs.opens.all().count(), 0);
    });
}

#[test]
fn a_file_that_has_lost_its_name_keeps_its_descriptor() {
    if !is_root() {
        return;
    }
    everywhere(|b| {
        b.fs.opens = Opens::limited(4);
        let opens = many(b, 2);
        std::fs::remove_file(b.dir.join(name(0))).unwrap();
        for number in 2..40 {
            b.file(&name(number));
        }
        assert_eq!(b.read(opens[0].0, 0, 100), b"file 0");
        assert_eq!(b.read(opens[1].0, 0, 100), b"file 1");
    });
}

#[test]
fn after_a_restart_files_are_opened_when_they_are_used() {
    everywhere(|b| {
        let opens = many(b, 20);
        b.restart();
        for (open, created) in &opens {
            b.fs.remember(info(*open, created, READ_WRITE));
        }
        assert_eq!(b.fs.opens.descriptors(), 0);
        assert_eq!(b.read(opens[3].0, 0, 100), b"file 3");
        assert_eq!(b.fs.opens.descriptors(), 1);
        // An open file keeps its directory in place, with or without a descriptor.
        std::fs::create_dir(b.dir.join("dir")).unwrap();
        let (dir, inner) = (b.directory("dir"), b.file("dir/inner"));
        let inner_info = {
            let created = b.try_open("dir/inner").unwrap();
            let again = b.last;
            b.close(again);
            info(inner, &created, READ_WRITE)
        };
        b.fs.remember(inner_info.clone());
        let rename = FileOp::Rename {
            open: dir,
            from: "dir".into(),
            to: "elsewhere".into(),
            replace: false,
        };
        assert_eq!(b.run(&rename), Err(NtStatus::ACCESS_DENIED));
        b.close(inner);
        b.run(&rename).unwrap();
        read_all(b, &opens);
    });
}

#[test]
fn a_rename_updates_opens_without_a_descriptor_too() {
    everywhere(|b| {
        let (first, created) = many(b, 1).remove(0);
        b.restart();
        let handle = outlast_fsa::fileop::FileHandle::default();
        let by_path = OpenInfo {
            handle,
            ..info(first, &created, READ_WRITE)
        };
        let second = first + 100;
        b.fs.remember(by_path.clone());
        b.fs.remember(OpenInfo {
            open: second,
            ..by_path
        });
        b.run(&FileOp::Rename {
            open: first,
            from: name(0),
            to: "renamed".into(),
            replace: false,
        })
        .unwrap();
        assert_eq!(b.read(second, 0, 100), b"file 0");
    });
}

#[test]
fn only_an_open_whose_file_is_certainly_deleted_is_given_up() {
    if !is_alone("opens::only_an_open_whose_file_is_certainly_deleted_is_given_up") {
        return;
    }
    everywhere(|b| {
        let opens = many(b, 3);
        let mut known: Vec<OpenInfo> = opens
            .iter()
            .map(|(open, created)| info(*open, created, READ_WRITE))
            .collect();
        b.restart();
        std::fs::remove_file(b.dir.join(name(0))).unwrap();
        // As if its file system were not mounted.
        known[1].key.dev += 1;
        for open in &known {
            b.fs.remember(open.clone());
        }
        let read = |b: &mut Bench, at: usize| {
            b.run(&FileOp::Read {
                open: opens[at].0,
                offset: 0,
                length: 10,
            })
        };
        assert_eq!(read(b, 0), Err(NtStatus::FILE_CLOSED));
        assert_eq!(read(b, 0), Err(NtStatus::FILE_CLOSED));
        assert_eq!(b.fs.opens.all().count(), 2);
        for _ in 0..2 {
            assert_eq!(read(b, 1), Err(NtStatus::IO_DEVICE_ERROR));
        }
        assert_eq!(b.fs.opens.all().count(), 2);
        // A close ends an open whatever happened to its file.
        let open = opens[1].0;
        assert!(b.run(&FileOp::Close { open, delete: None }).is_err());
        assert_eq!(b.fs.opens.all().count(), 1);
    });
}

#[test]
fn a_delete_done_before_a_crash_is_done() {
    everywhere(|b| {
        let (open, created) = many(b, 1).remove(0);
        let delete = FileOp::Close {
            open,
            delete: Some(DeleteTarget {
                path: name(0),
                key: created.metadata.key,
            }),
        };
        let intent = b.prepare(&delete).unwrap();
        let done = b.perform(&delete, &intent).unwrap();
        b.restart();
        b.fs.remember(info(open, &created, READ_WRITE));
        assert_eq!(b.perform(&delete, &intent), Ok(done));
    });
}

#[test]
fn five_thousand_opens_with_sixty_four_descriptors() {
    if !is_alone("opens::five_thousand_opens_with_sixty_four_descriptors") {
        return;
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut b = Bench::at(Path::new("/dev/shm"));
    let opens = many(&mut b, 5000);
    read_all(&mut b, &opens);
    assert!(b.fs.opens.descriptors() < 64);
    b.restart();
    // The same if the server does not know that there are so few.
    b.fs.opens = Opens::limited(usize::MAX);
    for (open, created) in &opens {
        b.fs.remember(info(*open, created, READ_WRITE));
    }
    read_all(&mut b, &opens);
    assert!(b.fs.opens.descriptors() < 64);
}
