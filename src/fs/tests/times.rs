//! Times that are set and stay (MS-FSA 2.1.4.17), ARCHIVE, and the redo of both.

use super::*;
use outlast_fsa::attributes as flag;
use outlast_fsa::fileop::{Chunk, SetBasic, Times};

const SET: u64 = 126_000_000_000_000_000;
const OTHER: u64 = 127_000_000_000_000_000;

fn set(b: &mut Bench, open: OpenId, basic: SetBasic) {
    b.run_twice(&FileOp::SetBasic { open, basic }).unwrap();
}

fn stop(write: bool, change: bool) -> Times {
    Times {
        access: false,
        write,
        change,
    }
}

/// All operations on this open that change the times of a file.
fn changes(open: OpenId) -> Vec<FileOp> {
    let chunk = Chunk {
        source_offset: 0,
        target_offset: 100,
        length: 1,
    };
    vec![
        FileOp::Write {
            open,
            at: WriteAt::End,
            data: vec![7; 9].into(),
            write_through: false,
        },
        FileOp::SetEndOfFile {
            open,
            end_of_file: 50,
        },
        FileOp::ZeroData {
            open,
            from: 1,
            beyond: 3,
        },
        FileOp::SetAllocation {
            open,
            allocation_size: 10,
        },
        FileOp::CopyChunks {
            source: open,
            target: open,
            chunks: vec![chunk],
        },
    ]
}

#[test]
fn a_time_that_was_set_is_not_moved_by_its_open() {
    everywhere(|b| {
        let (open, other) = (b.file("file"), b.file("file"));
        let basic = SetBasic {
            last_write_time: Some(SET),
            stop: stop(true, false),
            ..SetBasic::default()
        };
        set(b, open, basic);
        for op in changes(open) {
            b.run_twice(&op).unwrap();
            assert_eq!(b.stat(open).last_write_time, SET, "{op:?}");
        }
        // Operations on another open change it, and the new value is preserved.
        b.write(other, 0, b"x").unwrap();
        let moved = b.stat(open).last_write_time;
        assert!(moved > OTHER);
        b.write(open, 0, b"y").unwrap();
        assert_eq!(b.stat(open).last_write_time, moved);
        let resumed = SetBasic {
            last_write_time: Some(SET),
            ..SetBasic::default()
        };
        set(b, other, resumed);
        let resumed = SetBasic {
            resume: stop(true, false),
            ..SetBasic::default()
        };
        set(b, open, resumed);
        b.write(open, 0, b"z").unwrap();
        assert!(b.stat(open).last_write_time > OTHER);
    });
}

#[test]
fn the_redo_of_a_write_puts_the_time_back_that_was_there_before_it() {
    everywhere(|b| {
        let op = b.op("file", Disposition::OpenIf);
        let created = b.create(op).unwrap();
        let open = b.last;
        let basic = SetBasic {
            last_write_time: Some(SET),
            stop: stop(true, false),
            ..SetBasic::default()
        };
        set(b, open, basic);
        let append = changes(open).swap_remove(0);
        let intent = b.prepare(&append).unwrap();
        // Killed between the write and the time.
        std::fs::write(b.dir.join("file"), [7; 9]).unwrap();
        b.restart();
        let mut known = info(open, &created, 3);
        known.stopped = stop(true, false);
        b.fs.remember(known.clone());
        b.perform(&append, &intent).unwrap();
        assert_eq!(b.stat(open).last_write_time, SET);
        assert_eq!(b.stat(open).end_of_file, 9);
        // Frozen times are known again.
        b.write(open, 0, b"more").unwrap();
        assert_eq!(b.stat(open).last_write_time, SET);
    });
}

#[test]
fn the_time_of_change_can_be_set_and_stopped() {
    everywhere(|b| {
        let (open, other) = (b.file("file"), b.file("file"));
        let basic = SetBasic {
            creation_time: Some(OTHER),
            last_write_time: Some(OTHER),
            change_time: Some(SET),
            attributes: Some(flag::HIDDEN),
            stop: stop(false, true),
            ..SetBasic::default()
        };
        set(b, open, basic);
        let shown = b.stat(other);
        assert_eq!((shown.change_time, shown.creation_time), (SET, OTHER));
        assert_eq!(shown.attributes, flag::HIDDEN);
        for op in changes(open) {
            b.run_twice(&op).unwrap();
            assert_eq!(b.stat(open).change_time, SET, "{op:?}");
        }
        // It is valid until an operation changes it; the kernel's clock for files ticks every few milliseconds.
        let mut moved = false;
        for _ in 0..2000 {
            b.write(other, 0, b"x").unwrap();
            moved = b.stat(open).change_time > OTHER;
            if moved {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(moved);
    });
}

#[test]
fn reading_does_not_move_a_time_of_access_that_is_stopped() {
    everywhere(|b| {
        let open = b.file("file");
        b.write(open, 0, b"data").unwrap();
        let basic = SetBasic {
            last_access_time: Some(SET),
            stop: Times {
                access: true,
                ..Times::default()
            },
            ..SetBasic::default()
        };
        set(b, open, basic);
        assert_eq!(b.read(open, 0, 4), b"data");
        assert_eq!(b.stat(open).last_access_time, SET);
    });
}

#[test]
fn a_written_file_has_the_archive_attribute() {
    everywhere(|b| {
        for index in 0..changes(0).len() {
            let open = b.file("file");
            b.write(open, 0, &[1; 200]).unwrap();
            let basic = SetBasic {
                attributes: Some(flag::NORMAL),
                ..SetBasic::default()
            };
            set(b, open, basic);
            assert_eq!(b.stat(open).attributes, flag::NORMAL);
            let op = changes(open).swap_remove(index);
            b.run_twice(&op).unwrap();
            assert_eq!(b.stat(open).attributes, flag::ARCHIVE, "{op:?}");
        }
    });
}

/// Large writes have a thread of their own.
#[test]
fn a_large_write_sets_the_archive_attribute_too() {
    everywhere(|b| {
        let open = b.file("file");
        let basic = SetBasic {
            attributes: Some(flag::NORMAL),
            ..SetBasic::default()
        };
        set(b, open, basic);
        let op = FileOp::Write {
            open,
            at: WriteAt::Offset(0),
            data: vec![1; crate::fs::writer::LARGE_BYTES].into(),
            write_through: false,
        };
        let intent = b.prepare(&op).unwrap();
        let actor = b.actor.clone();
        assert!(b.fs.begin(&actor, &op, &intent).is_none());
        b.fs.wait();
        b.fs.finished().unwrap().unwrap();
        assert_eq!(b.stat(open).attributes, flag::ARCHIVE);
    });
}

/// FILE_ALL_ACCESS, which GENERIC_ALL includes, has a right that only applies to directories.
#[test]
fn write_access_to_a_file_includes_all_rights_on_it() {
    if !is_root() {
        return;
    }
    everywhere(|b| {
        b.file("file");
        let op = FileOp::Create(b.op("file", Disposition::Open));
        let Ok(Intent::Create(found)) = b.prepare(&op) else {
            panic!("it is there");
        };
        assert_eq!(found.maximal_access, 0x001F_01FF);
    });
}
