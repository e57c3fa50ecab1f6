use super::*;
use outlast_fsa::fileop::Chunk;

#[test]
fn what_is_written_is_read() {
    everywhere(|b| {
        let open = b.file("file");
        let op = FileOp::Write {
            open,
            at: WriteAt::End,
            data: b"end".to_vec().into(),
            write_through: true,
        };
        b.write(open, 0, b"the ").unwrap();
        let Ok(Outcome::Written { count, offset }) = b.run_twice(&op) else {
            panic!()
        };
        assert_eq!((count, offset), (3, 4));
        assert_eq!(b.read(open, 0, 100), b"the end");
        assert_eq!(b.read(open, 7, 100), b"");
        assert_eq!(b.read(open, 1 << 40, 1 << 20), b"");
        let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        b.write(open, 0, &big).unwrap();
        for _ in 0..3 {
            assert_eq!(b.read(open, 0, 8 << 20), big);
            assert_eq!(b.read(open, 1, 70_000), big[1..70_001]);
        }
        b.run_twice(&FileOp::Flush { open }).unwrap();
        let too_far = b.write(open, u64::MAX - 1, b"xx");
        assert_eq!(too_far, Err(NtStatus::INVALID_PARAMETER));
    });
}

#[test]
fn large_reads_use_their_memory_again() {
    let mut b = Bench::at(&std::env::temp_dir());
    let open = b.file("file");
    b.write(open, 0, &vec![7; 1 << 20]).unwrap();
    let op = FileOp::Read {
        open,
        offset: 0,
        length: 1 << 20,
    };
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10 {
        let Ok(Outcome::Data(data)) = b.run(&op) else {
            panic!()
        };
        seen.insert(data.as_ptr() as usize);
    }
    assert_eq!(seen.len(), 1);
}

#[test]
fn length_allocation_and_holes() {
    everywhere(|b| {
        let open = b.file("file");
        b.write(open, 0, &[1; 65_536]).unwrap();
        b.run_twice(&FileOp::ZeroData {
            open,
            from: 4096,
            beyond: 32_768,
        })
        .unwrap();
        assert_eq!(b.read(open, 4095, 3), [1, 0, 0]);
        let op = FileOp::QueryAllocatedRanges {
            open,
            offset: 0,
            length: 1 << 20,
        };
        let ranges = |b: &mut Bench| match b.run(&op) {
            Ok(Outcome::Ranges(ranges)) => ranges,
            other => panic!("{other:?}"),
        };
        // MS-FSA 2.1.5.10.22: in a file that is not sparse everything is allocated.
        assert_eq!(ranges(b), [(0, 65_536)]);
        b.run_twice(&FileOp::SetSparse { open, sparse: true })
            .unwrap();
        assert_eq!(ranges(b), [(0, 4096), (32_768, 32_768)]);
        let blocks = b.stat(open).allocation_size;
        b.run_twice(&FileOp::SetSparse {
            open,
            sparse: false,
        })
        .unwrap();
        assert_eq!(ranges(b), [(0, 65_536)]);
        assert!(b.stat(open).allocation_size > blocks);
        assert_eq!(b.read(open, 4095, 3), [1, 0, 0]);
        b.run_twice(&FileOp::SetEndOfFile {
            open,
            end_of_file: 100_000,
        })
        .unwrap();
        assert_eq!(b.stat(open).end_of_file, 100_000);
        b.run_twice(&FileOp::SetAllocation {
            open,
            allocation_size: 1 << 20,
        })
        .unwrap();
        assert_eq!(b.stat(open).end_of_file, 100_000);
        assert!(b.stat(open).allocation_size >= 1 << 20);
        b.run_twice(&FileOp::SetAllocation {
            open,
            allocation_size: 10,
        })
        .unwrap();
        assert_eq!(b.stat(open).end_of_file, 10);
        b.run_twice(&FileOp::SetSparse { open, sparse: true })
            .unwrap();
        assert_ne!(b.stat(open).attributes & 0x200, 0);
        b.run_twice(&FileOp::SetSparse {
            open,
            sparse: false,
        })
        .unwrap();
        assert_eq!(b.stat(open).attributes & 0x200, 0);
        let upside_down = FileOp::ZeroData {
            open,
            from: 2,
            beyond: 1,
        };
        assert_eq!(b.run(&upside_down), Err(NtStatus::INVALID_PARAMETER));
    });
}

#[test]
fn an_open_without_the_right_changes_no_data() {
    everywhere(|b| {
        std::fs::write(b.dir.join("file"), "data").unwrap();
        let mut op = b.op("file", Disposition::Open);
        op.write_data = false;
        b.create(op).unwrap();
        let open = b.last;
        assert_eq!(b.write(open, 0, b"x"), Err(NtStatus::ACCESS_DENIED));
        let cut = FileOp::SetEndOfFile {
            open,
            end_of_file: 0,
        };
        assert_eq!(b.run(&cut), Err(NtStatus::ACCESS_DENIED));
        let mut op = b.op("file", Disposition::Open);
        (op.read_data, op.write_data) = (false, false);
        b.create(op).unwrap();
        let read = FileOp::Read {
            open: b.last,
            offset: 0,
            length: 1,
        };
        assert_eq!(b.run(&read), Err(NtStatus::ACCESS_DENIED));
        b.run(&FileOp::Flush { open: b.last }).unwrap();
    });
}

#[test]
fn copies_within_the_server() {
    everywhere(|b| {
        let source = b.file("source");
        let target = b.file("target");
        let data: Vec<u8> = (0..200_000_u32).map(|i| (i % 253) as u8).collect();
        b.write(source, 0, &data).unwrap();
        let chunk = |source_offset, target_offset, length| Chunk {
            source_offset,
            target_offset,
            length,
        };
        let chunks = vec![chunk(0, 10, 100_000), chunk(150_000, 200_000, 50_000)];
        let op = FileOp::CopyChunks {
            source,
            target,
            chunks,
        };
        let Ok(Outcome::Copied { written }) = b.run_twice(&op) else {
            panic!()
        };
        assert_eq!(written, [100_000, 50_000]);
        let copy = b.read(target, 0, 1 << 20);
        assert_eq!(copy[10..100_010], data[..100_000]);
        assert_eq!(copy[200_000..], data[150_000..]);
        let beyond = FileOp::CopyChunks {
            source,
            target,
            chunks: vec![chunk(199_999, 0, 2)],
        };
        assert_eq!(b.run(&beyond), Err(NtStatus(0xC000_001F)));
        // The chunks before a failing one are copied.
        let midway = FileOp::CopyChunks {
            source,
            target,
            chunks: vec![chunk(0, 0, 2), chunk(199_999, 2, 2), chunk(0, 4, 2)],
        };
        assert_eq!(
            b.run_twice(&midway),
            Ok(Outcome::Copied { written: vec![2] })
        );
        assert_eq!(b.read(target, 0, 2), data[..2]);
        let within = FileOp::CopyChunks {
            source: target,
            target,
            chunks: vec![chunk(0, 1, 2), chunk(1 << 30, 2, 2)],
        };
        assert_eq!(
            b.run_twice(&within),
            Ok(Outcome::Copied { written: vec![2] })
        );
    });
}

/// Chunks that copy what earlier ones, or they themselves in a first attempt, have written.
#[test]
fn overlapping_copies_can_be_redone() {
    everywhere(|b| {
        let open = b.file("file");
        let data: Vec<u8> = (0..100).collect();
        b.write(open, 0, &data).unwrap();
        let chunks = vec![
            Chunk {
                source_offset: 0,
                target_offset: 10,
                length: 20,
            },
            Chunk {
                source_offset: 20,
                target_offset: 90,
                length: 30,
            },
        ];
        let op = FileOp::CopyChunks {
            source: open,
            target: open,
            chunks,
        };
        let intent = b.prepare(&op).unwrap();
        assert!(matches!(intent, Intent::CopyChunks { .. }));
        let mut expected = data.clone();
        expected.resize(120, 0);
        expected.copy_within(0..20, 10);
        expected.copy_within(20..50, 90);
        for _ in 0..3 {
            b.perform(&op, &intent).unwrap();
            assert_eq!(b.read(open, 0, 200), expected);
        }
    });
}

#[test]
fn a_full_disk_says_so() {
    if !is_root() {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    }
    // A mount namespace of this test's own thread.
    std::thread::spawn(|| {
        // SAFETY: a thread of this test alone, which ends with its namespace; no descriptors are unshared.
        let unshared =
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
        if let Err(error) = unshared {
            eprintln!("skipped: no mount namespace: {error}");
            return;
        }
        let mut b = Bench::at(&std::env::temp_dir());
        let private = rustix::mount::MountPropagationFlags::PRIVATE
            | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("small", &b.dir, "tmpfs", flags, Some(c"size=256k")).unwrap();
        b.restart();
        let open = b.file("file");
        assert_eq!(b.write(open, 0, &[1; 1 << 20]), Err(NtStatus::DISK_FULL));
        let mut op = b.op("other", Disposition::Create);
        op.allocation_size = 1 << 20;
        assert_eq!(b.create(op).err(), Some(NtStatus::DISK_FULL));
        assert_eq!(b.on_disk(), ["file"]);
        let Ok(Outcome::Volume(volume)) = b.run(&FileOp::QueryVolume { open }) else {
            panic!()
        };
        assert_eq!((volume.total_bytes, volume.available_bytes), (256 << 10, 0));
        let read_only = rustix::mount::MountFlags::RDONLY;
        b.fs.forget(open);
        rustix::mount::mount_remount(&b.dir, read_only, c"").unwrap();
        let op = b.op("third", Disposition::Create);
        assert_eq!(b.create(op).err(), Some(NtStatus::MEDIA_WRITE_PROTECTED));
        b.fs = start(&b.outside, false, None);
        rustix::mount::unmount(&b.dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    })
    .join()
    .unwrap();
}

/// Begins an operation as the loop does, and waits for it if it is under way; returns whether it was.
fn begin(b: &mut Bench, op: &FileOp) -> (bool, Result<Outcome, NtStatus>) {
    let intent = b.prepare(op).unwrap();
    match b.fs.begin(&b.actor, op, &intent) {
        Some(outcome) => (false, outcome),
        None => {
            b.fs.wait();
            (true, b.fs.finished().unwrap())
        }
    }
}

#[test]
fn a_large_write_is_done_on_a_thread_and_reported_once() {
    everywhere(|b| {
        let open = b.file("file");
        let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 253) as u8).collect();
        for (offset, length, is_large) in [(0, 1_000_000, true), (1_000_000, 1000, false)] {
            let op = FileOp::Write {
                open,
                at: WriteAt::Offset(offset),
                data: data[..length].to_vec().into(),
                write_through: true,
            };
            let count = length as u32;
            assert_eq!(
                begin(b, &op),
                (is_large, Ok(Outcome::Written { count, offset }))
            );
            assert_eq!(b.fs.finished(), None);
            assert_eq!(b.read(open, offset, 2_000_000), data[..length]);
            // the redo
            assert_eq!(b.run_twice(&op), Ok(Outcome::Written { count, offset }));
        }
        assert_eq!(b.read(open, 0, 2_000_000).len(), 1_001_000);
    });
}

#[test]
fn a_write_in_many_pieces_is_one_write() {
    everywhere(|b| {
        let open = b.file("file");
        let data: Vec<u8> = (0..600_000_u32).map(|i| (i % 251) as u8).collect();
        // More pieces than one system call takes; some end within a page.
        for length in [100, 4096, 599_999] {
            let pieces = data.chunks(length);
            let op = FileOp::Write {
                open,
                at: WriteAt::Offset(7),
                data: pieces.map(::bytes::Bytes::copy_from_slice).collect(),
                write_through: false,
            };
            let written = Ok(Outcome::Written {
                count: 600_000,
                offset: 7,
            });
            assert_eq!(begin(b, &op), (true, written));
            assert_eq!(b.read(open, 7, 1_000_000), data);
        }
    });
}

#[test]
fn a_large_write_without_the_right_is_refused() {
    everywhere(|b| {
        b.file("file");
        let mut op = b.op("file", Disposition::Open);
        op.write_data = false;
        let open = b.create(op).map(|_| b.last).unwrap();
        let op = FileOp::Write {
            open,
            at: WriteAt::Offset(0),
            data: vec![1; 1 << 20].into(),
            write_through: false,
        };
        assert_eq!(begin(b, &op), (false, Err(NtStatus::ACCESS_DENIED)));
    });
}
