//! Named streams on file systems with extended attributes of users.

use super::*;
use crate::fs::create;
use crate::fs::lookup::Lookup;
use crate::fs::path::open_root;
use outlast_fsa::attributes as flag;
use outlast_fsa::fileop::{Chunk, DeleteTarget, SetBasic};
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;

/// The extended attribute of the stream "s", as Samba names it.
const ATTRIBUTE: &str = "user.DosStream.s:$DATA";
const READ_WRITE: u32 = 0x3;

/// The value of the attribute of "s" of the file "f", with the byte that follows the content.
fn stored(b: &Bench) -> Option<Vec<u8>> {
    let mut value = vec![0; 65_536];
    match getxattr(b.dir.join("f"), ATTRIBUTE, &mut value) {
        Ok(length) => Some(value[..length].to_vec()),
        Err(Errno::NODATA) => None,
        Err(error) => panic!("{error}"),
    }
}

fn store(b: &Bench, value: &[u8]) {
    setxattr(b.dir.join("f"), ATTRIBUTE, value, XattrFlags::empty()).unwrap();
}

fn unstore(b: &Bench) {
    removexattr(b.dir.join("f"), ATTRIBUTE).unwrap();
}

fn names(b: &mut Bench, open: OpenId) -> Vec<(String, u64)> {
    match b.run(&FileOp::QueryStreams { open }).unwrap() {
        Outcome::Streams(entries) => {
            let mut names: Vec<_> = entries
                .into_iter()
                .map(|entry| (entry.name, entry.end_of_file))
                .collect();
            names.sort();
            names
        }
        other => panic!("{other:?}"),
    }
}

/// Performs a create and its redo; their times may differ.
fn create_twice(b: &mut Bench, op: CreateOp) -> Result<CreateAction, NtStatus> {
    let op = FileOp::Create(op);
    let intent = b.prepare(&op)?;
    let once = action(&b.perform(&op, &intent));
    assert_eq!(action(&b.perform(&op, &intent)), once);
    once
}

fn delete(open: OpenId, created: &Created) -> FileOp {
    FileOp::Close {
        open,
        delete: Some(DeleteTarget {
            path: created.path.clone(),
            key: created.metadata.key,
        }),
    }
}

fn rename(open: OpenId, from: &str, to: &str, replace: bool) -> FileOp {
    FileOp::Rename {
        open,
        from: from.to_owned(),
        to: to.to_owned(),
        replace,
    }
}

#[test]
fn dispositions_on_existing_and_missing_streams() {
    use Disposition::*;
    let none = Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    let cases = [
        (Open, none, Ok(CreateAction::Opened)),
        (
            Create,
            Ok(CreateAction::Created),
            Err(NtStatus::OBJECT_NAME_COLLISION),
        ),
        (OpenIf, Ok(CreateAction::Created), Ok(CreateAction::Opened)),
        (Overwrite, none, Ok(CreateAction::Overwritten)),
        (
            OverwriteIf,
            Ok(CreateAction::Created),
            Ok(CreateAction::Overwritten),
        ),
        (
            Supersede,
            Ok(CreateAction::Created),
            Ok(CreateAction::Superseded),
        ),
    ];
    everywhere(|b| {
        for has_file in [false, true] {
            for (disposition, missing, there) in cases {
                if has_file {
                    std::fs::write(b.dir.join("f"), "data").unwrap();
                }
                let op = b.op("f:s", disposition);
                assert_eq!(create_twice(b, op), missing, "{disposition:?}");
                if missing.is_ok() {
                    assert_eq!(stored(b), Some(vec![0]));
                    store(b, b"text\0");
                } else {
                    assert_eq!(b.dir.join("f").exists(), has_file);
                    std::fs::write(b.dir.join("f"), "data").unwrap();
                    store(b, b"text\0");
                }
                let length = std::fs::metadata(b.dir.join("f")).unwrap().len();
                assert_eq!(length, if has_file || missing.is_err() { 4 } else { 0 });
                let op = b.op("F:S", disposition);
                assert_eq!(create_twice(b, op), there, "{disposition:?}");
                let emptied = matches!(disposition, Overwrite | OverwriteIf | Supersede);
                let left = if emptied { &b"\0"[..] } else { b"text\0" };
                assert_eq!(stored(b).unwrap(), left, "{disposition:?}");
                std::fs::remove_file(b.dir.join("f")).unwrap();
            }
        }
    });
}

#[test]
fn a_stream_is_read_and_written_like_a_file() {
    everywhere(|b| {
        let open = b.file("f:s");
        let file = b.file("f");
        b.write(file, 0, b"the file").unwrap();
        let write = |offset, data: &[u8]| FileOp::Write {
            open,
            at: offset,
            data: data.to_vec().into(),
            write_through: true,
        };
        b.run_twice(&write(WriteAt::Offset(2), b"abc")).unwrap();
        assert_eq!(stored(b).unwrap(), b"\0\0abc\0");
        b.run_twice(&write(WriteAt::End, b"de")).unwrap();
        assert_eq!(b.read(open, 1, 100), b"\0abcde");
        assert_eq!(b.read(open, 4, 1), b"c");
        assert_eq!(b.read(open, 7, 1), b"");
        assert_eq!(b.stat(open).end_of_file, 7);
        assert_eq!(b.stat(open).key, b.stat(file).key);
        let (from, beyond) = (1, 4);
        b.run_twice(&FileOp::ZeroData { open, from, beyond })
            .unwrap();
        assert_eq!(b.read(open, 0, 100), b"\0\0\0\0cde");
        let end = |end_of_file| FileOp::SetEndOfFile { open, end_of_file };
        b.run_twice(&end(5)).unwrap();
        b.run_twice(&end(6)).unwrap();
        assert_eq!(b.read(open, 3, 100), b"\0c\0");
        for allocation_size in [100, 5] {
            b.run_twice(&FileOp::SetAllocation {
                open,
                allocation_size,
            })
            .unwrap();
        }
        assert_eq!(b.read(open, 3, 100), b"\0c");
        let ranges = FileOp::QueryAllocatedRanges {
            open,
            offset: 1,
            length: 100,
        };
        assert_eq!(b.run(&ranges), Ok(Outcome::Ranges(vec![(1, 4)])));
        b.run(&FileOp::Flush { open }).unwrap();
        assert_eq!(b.read(file, 0, 100), b"the file");
        let lists = [("::$DATA".to_owned(), 8), (":s:$DATA".to_owned(), 5)];
        assert_eq!(names(b, open), lists);
        assert_eq!(names(b, file), lists);
    });
}

#[test]
fn chunks_are_copied_between_streams_and_files() {
    everywhere(|b| {
        let (stream, file, other) = (b.file("f:s"), b.file("f"), b.file("g:t"));
        b.write(stream, 0, b"0123456789").unwrap();
        let copy = |source, target, offset| FileOp::CopyChunks {
            source,
            target,
            chunks: vec![Chunk {
                source_offset: 0,
                target_offset: offset,
                length: 4,
            }],
        };
        for (source, target, offset) in [(stream, file, 1), (file, other, 0), (stream, stream, 2)] {
            let copied = b.run_twice(&copy(source, target, offset)).unwrap();
            assert_eq!(copied, Outcome::Copied { written: vec![4] });
        }
        assert_eq!(b.read(file, 0, 100), b"\x000123");
        assert_eq!(b.read(other, 0, 100), b"\x00012");
        assert_eq!(b.read(stream, 0, 100), b"0101236789");
        b.run(&FileOp::SetEndOfFile {
            open: stream,
            end_of_file: 3,
        })
        .unwrap();
        let beyond = b.run(&copy(stream, file, 0));
        assert_eq!(beyond, Err(NtStatus::INVALID_VIEW_SIZE));
    });
}

/// The largest content that the file system stores is written, one byte more is refused and changes nothing.
#[test]
fn a_stream_that_is_too_long_is_refused() {
    everywhere(|b| {
        let open = b.file("f:s");
        let longest = (0..16).rev().fold(0, |known: usize, bit| {
            let tried = known + (1 << bit);
            match b.write(open, 0, &vec![7; tried]) {
                Ok(_) => {
                    b.run(&FileOp::SetEndOfFile {
                        open,
                        end_of_file: 0,
                    })
                    .unwrap();
                    tried
                }
                Err(status) => {
                    assert_eq!(status, NtStatus::DISK_FULL);
                    known
                }
            }
        });
        assert!(longest >= 3000, "{longest}");
        b.write(open, 0, &vec![7; longest]).unwrap();
        let one_more = b.write(open, longest as u64, b"x");
        assert_eq!(one_more, Err(NtStatus::DISK_FULL));
        for offset in [65_535, 1 << 40, u64::MAX] {
            assert_eq!(b.write(open, offset, b"x"), Err(NtStatus::DISK_FULL));
        }
        let large = FileOp::Write {
            open,
            at: WriteAt::Offset(0),
            data: vec![1; crate::fs::writer::LARGE_BYTES].into(),
            write_through: false,
        };
        let intent = b.prepare(&large).unwrap();
        let begun = b.fs.begin(&b.actor, &large, &intent);
        assert_eq!(begun, Some(Err(NtStatus::DISK_FULL)));
        assert_eq!(b.read(open, 0, 65_536), vec![7; longest]);
        let name = "n".repeat(235);
        let op = b.op(&format!("f:{name}"), Disposition::OpenIf);
        assert_eq!(b.create(op).err(), Some(NtStatus::OBJECT_NAME_INVALID));
    });
}

#[test]
fn a_stream_is_deleted_once() {
    everywhere(|b| {
        let op = b.op("f:s", Disposition::Create);
        let created = b.create(op).unwrap();
        let open = b.last;
        b.write(open, 0, b"mine").unwrap();
        let close = delete(open, &created);
        let intent = b.prepare(&close).unwrap();
        let done = b.perform(&close, &intent).unwrap();
        assert!(matches!(&done, Outcome::Closed(metadata) if metadata.end_of_file == 4));
        assert_eq!(stored(b), None);
        assert!(b.dir.join("f").exists());
        // A local process makes another stream of that name before the redo.
        store(b, b"theirs\0");
        b.fs.remember(info(open, &created, READ_WRITE));
        assert_eq!(b.perform(&close, &intent), Ok(done.clone()));
        assert_eq!(stored(b).unwrap(), b"theirs\0");
        std::fs::remove_file(b.dir.join("f")).unwrap();
        b.fs.remember(info(open, &created, READ_WRITE));
        assert_eq!(b.perform(&close, &intent), Ok(done));
    });
}

#[test]
fn a_renamed_stream_keeps_its_content_wherever_a_redo_begins() {
    everywhere(|b| {
        // Begun, half done, done.
        for step in 0..3 {
            let op = b.op("f:s", Disposition::OpenIf);
            let created = b.create(op).unwrap();
            let open = b.last;
            b.write(open, 0, b"data").unwrap();
            let other = b.file("f:t");
            let op = rename(open, "f:s", "f:T", false);
            assert_eq!(b.prepare(&op), Err(NtStatus::OBJECT_NAME_COLLISION));
            b.close(other);
            let op = rename(open, "f:s", "f:T", true);
            let intent = b.prepare(&op).unwrap();
            let done = b.perform(&op, &intent).unwrap();
            assert!(matches!(&done, Outcome::Renamed { path, .. } if path == "f:t"));
            assert_eq!(b.read(open, 0, 9), b"data");
            match step {
                0 => {
                    store(b, b"data\0");
                    removexattr(b.dir.join("f"), "user.DosStream.t:$DATA").unwrap();
                }
                1 => store(b, b"data\0"),
                _ => {}
            }
            b.restart();
            b.fs.remember(info(open, &created, READ_WRITE));
            assert_eq!(b.perform(&op, &intent), Ok(done), "{step}");
            assert_eq!(b.read(open, 0, 9), b"data");
            let lists = [("::$DATA".to_owned(), 0), (":t:$DATA".to_owned(), 4)];
            assert_eq!(names(b, open), lists);
            // Another case of its own name.
            let op = rename(open, "f:t", "f:T", false);
            b.run_twice(&op).unwrap();
            assert_eq!(names(b, open)[1].0, ":T:$DATA");
            std::fs::remove_file(b.dir.join("f")).unwrap();
        }
    });
}

/// A redo finds its own stream, which is empty, and not the one of a local process.
#[test]
fn a_stream_that_was_created_meanwhile_is_another() {
    everywhere(|b| {
        std::fs::write(b.dir.join("f"), "").unwrap();
        let create = FileOp::Create(b.op("f:s", Disposition::Create));
        let intent = b.prepare(&create).unwrap();
        store(b, b"theirs\0");
        let collides = b.perform(&create, &intent);
        assert_eq!(collides, Err(NtStatus::OBJECT_NAME_COLLISION));
        unstore(b);
        b.perform(&create, &intent).unwrap();
        b.restart();
        assert_eq!(
            action(&b.perform(&create, &intent)),
            Ok(CreateAction::Created)
        );
        // The file itself.
        std::fs::remove_file(b.dir.join("f")).unwrap();
        let create = FileOp::Create(b.op("f:s", Disposition::OpenIf));
        let intent = b.prepare(&create).unwrap();
        let Ok(Outcome::Created(created)) = b.perform(&create, &intent) else {
            panic!("the file is not created");
        };
        assert!(created.made_file);
        b.restart();
        assert_eq!(b.perform(&create, &intent), Ok(Outcome::Created(created)));
        std::fs::remove_file(b.dir.join("f")).unwrap();
        std::fs::write(b.dir.join("f"), "theirs").unwrap();
        let Ok(Outcome::Created(created)) = b.perform(&create, &intent) else {
            panic!("the stream is not created");
        };
        assert!(!created.made_file && created.action == CreateAction::Created);
        assert_eq!(std::fs::read(b.dir.join("f")).unwrap(), b"theirs");
    });
}

/// The server is killed between intent and operation, and the file is opened again by its handle.
#[test]
fn opens_of_streams_are_opened_again() {
    everywhere(|b| {
        let op = b.op("f:s", Disposition::Create);
        let created = b.create(op).unwrap();
        let open = b.last;
        let write = FileOp::Write {
            open,
            at: WriteAt::End,
            data: b"data".to_vec().into(),
            write_through: false,
        };
        let intent = b.prepare(&write).unwrap();
        for _ in 0..2 {
            b.restart();
            b.fs.remember(info(open, &created, READ_WRITE));
            b.perform(&write, &intent).unwrap();
        }
        assert_eq!(stored(b).unwrap(), b"data\0");
        // A local process removes the stream.
        unstore(b);
        let read = FileOp::Read {
            open,
            offset: 0,
            length: 9,
        };
        assert_eq!(b.run(&read), Err(NtStatus::FILE_CLOSED));
        assert_eq!(b.prepare(&write), Err(NtStatus::FILE_CLOSED));
        assert_eq!(b.run(&FileOp::Stat { open }), Err(NtStatus::FILE_CLOSED));
        b.close(open);
    });
}

#[test]
fn an_overwritten_file_loses_its_streams() {
    everywhere(|b| {
        let stream = b.file("f:s");
        b.close(stream);
        let file = b.file("f");
        b.close(file);
        let op = b.op("f", Disposition::OverwriteIf);
        assert_eq!(create_twice(b, op), Ok(CreateAction::Overwritten));
        assert_eq!(stored(b), None);
    });
}

#[test]
fn attributes_and_times_are_those_of_the_file() {
    everywhere(|b| {
        let (stream, file) = (b.file("f:s"), b.file("f"));
        let basic = |open, basic| FileOp::SetBasic { open, basic };
        let attributes = Some(flag::HIDDEN);
        b.run(&basic(
            stream,
            SetBasic {
                attributes,
                ..SetBasic::default()
            },
        ))
        .unwrap();
        assert_eq!(b.stat(file).attributes, flag::HIDDEN);
        let last_write_time = Some(133_000_000_000_000_000);
        b.run(&basic(
            file,
            SetBasic {
                last_write_time,
                ..SetBasic::default()
            },
        ))
        .unwrap();
        assert_eq!(Some(b.stat(stream).last_write_time), last_write_time);
        b.write(stream, 0, b"x").unwrap();
        let after = b.stat(file);
        assert!(Some(after.last_write_time) > last_write_time);
        assert_eq!(after.attributes, flag::HIDDEN | flag::ARCHIVE);
        let attributes = Some(flag::READONLY);
        b.run(&basic(
            file,
            SetBasic {
                attributes,
                ..SetBasic::default()
            },
        ))
        .unwrap();
        let op = b.op("f:new", Disposition::OpenIf);
        assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
        let path = "f:s".to_owned();
        let check = FileOp::CheckDelete { open: stream, path };
        assert_eq!(b.run(&check), Err(NtStatus::CANNOT_DELETE));
    });
}

#[test]
fn a_directory_has_named_streams_only() {
    everywhere(|b| {
        let directory = b.directory("d");
        let stream = b.file("d:s");
        b.write(stream, 0, b"of a directory").unwrap();
        let found = b.stat(stream);
        assert!(!found.is_dir && found.attributes & flag::DIRECTORY == 0);
        assert_eq!(names(b, directory), [(":s:$DATA".to_owned(), 14)]);
        assert!(b.stat(directory).is_dir);
        assert_eq!(b.on_disk(), ["d"]);
    });
}

/// Without extended attributes there are no streams.
#[test]
fn a_share_without_extended_attributes_has_no_streams() {
    everywhere(|b| {
        std::fs::write(b.dir.join("f"), "").unwrap();
        let mut root = open_root(0, &b.dir, false, None).unwrap();
        root.features.xattrs = false;
        for path in ["f:s", "new:s"] {
            let op = b.op(path, Disposition::OpenIf);
            let refused = create::prepare(&root, &mut Lookup::default(), 0, &op);
            assert_eq!(refused.err(), Some(NtStatus::OBJECT_NAME_INVALID));
        }
        let weaker: Vec<String> = root.weaker().collect();
        assert!(
            weaker.iter().any(|line| line.contains("no named streams")),
            "{weaker:?}"
        );
    });
}
