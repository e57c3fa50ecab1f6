use super::*;
use outlast_fsa::fileop::DeleteTarget;
use std::os::unix::fs::symlink;

#[test]
fn case_does_not_count_and_is_kept() {
    everywhere(|b| {
        b.directory("Dir");
        b.file("Dir/Grün.TXT");
        let found = b.try_open("dIR/gRÜN.txt").unwrap();
        assert_eq!(found.path, "Dir/Grün.TXT");
        let op = b.op("DIR/new", Disposition::Create);
        assert_eq!(b.create(op).unwrap().path, "Dir/new");
        let op = b.op("dir/NEW", Disposition::Create);
        assert_eq!(b.create(op).err(), Some(NtStatus::OBJECT_NAME_COLLISION));
        // Two that differ only in case: each under its own name.
        std::fs::write(b.dir.join("two"), "").unwrap();
        std::fs::write(b.dir.join("TWO"), "").unwrap();
        assert_eq!(b.try_open("two").unwrap().path, "two");
        assert_eq!(b.try_open("TWO").unwrap().path, "TWO");
        assert_eq!(b.try_open("Two").unwrap().path, "TWO");
    });
}

/// The remembered names of a large directory follow every change, our own and others'.
#[test]
fn large_directories_are_known_and_followed() {
    everywhere(|b| {
        for i in 0..200 {
            std::fs::write(b.dir.join(format!("File{i}")), "").unwrap();
        }
        assert_eq!(b.try_open("fILE7").unwrap().path, "File7");
        assert_eq!(b.fs.lookup.known(), 1);
        std::fs::remove_file(b.dir.join("File7")).unwrap();
        assert_eq!(
            b.try_open("fILE7").err(),
            Some(NtStatus::OBJECT_NAME_NOT_FOUND)
        );
        std::fs::rename(b.dir.join("File8"), b.dir.join("File7")).unwrap();
        assert_eq!(b.try_open("fILE7").unwrap().path, "File7");
        assert_eq!(
            b.try_open("fILE8").err(),
            Some(NtStatus::OBJECT_NAME_NOT_FOUND)
        );
        std::fs::write(b.dir.join("Late"), "").unwrap();
        assert_eq!(b.try_open("LATE").unwrap().path, "Late");
        b.file("Ours");
        assert_eq!(b.try_open("OURS").unwrap().path, "Ours");
        // The first of two was deleted: the other one is found.
        std::fs::write(b.dir.join("PAIR"), "").unwrap();
        std::fs::write(b.dir.join("pair"), "").unwrap();
        assert_eq!(b.try_open("Pair").unwrap().path, "PAIR");
        std::fs::remove_file(b.dir.join("PAIR")).unwrap();
        assert_eq!(b.try_open("Pair").unwrap().path, "pair");
    });
}

#[test]
fn links_that_stay_inside_are_followed_and_no_others() {
    everywhere(|b| {
        std::fs::write(b.outside.join("secret"), "secret").unwrap();
        std::fs::write(b.dir.join("real"), "real").unwrap();
        b.directory("dir");
        symlink("../real", b.dir.join("dir/inside")).unwrap();
        symlink("../outside/secret", b.dir.join("out")).unwrap();
        symlink(b.outside.join("secret"), b.dir.join("absolute")).unwrap();
        symlink("../outside", b.dir.join("outdir")).unwrap();
        symlink("loop", b.dir.join("loop")).unwrap();
        symlink("/proc/self/root", b.dir.join("magic")).unwrap();
        symlink(b.dir.join("dir"), b.dir.join("to-dir")).unwrap();
        symlink(b.dir.join("to-dir/inside"), b.dir.join("far")).unwrap();
        for path in ["dir/inside", "to-dir/inside", "TO-DIR/inside", "far"] {
            assert_eq!(b.try_open(path).unwrap().metadata.end_of_file, 4, "{path}");
        }
        for path in [
            "out",
            "absolute",
            "outdir/secret",
            "outdir/new",
            "loop",
            "magic/etc/passwd",
        ] {
            for disposition in [
                Disposition::Open,
                Disposition::OpenIf,
                Disposition::OverwriteIf,
            ] {
                let op = b.op(path, disposition);
                assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED), "{path}");
            }
        }
        let open = b.file("real");
        let rename = FileOp::Rename {
            open,
            from: "real".into(),
            to: "outdir/real".into(),
            replace: true,
        };
        assert_eq!(b.run(&rename), Err(NtStatus::ACCESS_DENIED));
        assert_eq!(std::fs::read(b.outside.join("secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(&b.outside).unwrap().count(), 1);
    });
}

#[test]
fn a_link_that_is_not_followed_can_be_renamed_and_deleted() {
    everywhere(|b| {
        let made = [
            ("nothing", "dangling"),
            ("/no/such/place", "absolute"),
            ("../outside", "out"),
            ("loop", "loop"),
        ];
        for (target, name) in made {
            symlink(target, b.dir.join(name)).unwrap();
            let looks = |b: &mut Bench, path: &str| {
                let mut op = b.op(path, Disposition::Open);
                (op.read_data, op.write_data, op.delete) = (false, false, true);
                let created = b.create(op).unwrap();
                assert!(!created.metadata.is_dir);
                b.last
            };
            let op = b.op(name, Disposition::Create);
            assert_eq!(b.create(op).err(), Some(NtStatus::OBJECT_NAME_COLLISION));
            let open = looks(b, name);
            let rename = FileOp::Rename {
                open,
                from: name.into(),
                to: "moved".into(),
                replace: false,
            };
            b.run_twice(&rename).unwrap();
            b.close(open);
            let open = looks(b, "MOVED");
            // It leads to a file now.
            std::fs::write(b.dir.join("nothing"), "").unwrap();
            let op = delete(b, open, "moved");
            b.run(&op).unwrap();
            std::fs::remove_file(b.dir.join("nothing")).unwrap();
            assert!(b.on_disk().is_empty(), "{name}: {:?}", b.on_disk());
        }
    });
}

#[test]
fn a_computed_short_name_leads_to_the_file() {
    everywhere(|b| {
        b.file("a long name.txt");
        assert_eq!(b.try_open("aa2nt9~l.txt").unwrap().path, "a long name.txt");
        // Also in a directory whose names are kept.
        for number in 0..100 {
            std::fs::write(b.dir.join(format!("another long name {number}")), "").unwrap();
        }
        for _ in 0..2 {
            assert_eq!(b.try_open("AA2NT9~L.TXT").unwrap().path, "a long name.txt");
        }
        // A period at the end is one, sent as it is or not.
        let created = b.op("ends with dot.", Disposition::Create);
        assert_eq!(b.create(created).unwrap().path, "ends with dot\u{F029}");
        assert_eq!(
            b.try_open("E9RD9K~M").unwrap().path,
            "ends with dot\u{F029}"
        );
        // A file of that exact name has priority.
        b.file("AA2NT9~L.txt2");
        std::fs::write(b.dir.join("Aa2NT9~L.TXT"), "").unwrap();
        assert_eq!(b.try_open("aa2nt9~l.txt").unwrap().path, "Aa2NT9~L.TXT");
    });
}

#[test]
fn names_as_macos_and_linux_send_them_are_different_files() {
    everywhere(|b| {
        let sent = [
            "a\u{F021}b",
            "q\u{F020}x",
            "q x",
            "10\u{F022}30",
            "10\u{F03A}30",
            "ü",
            "\u{F7C3}\u{F7BC}",
        ];
        for name in sent {
            let open = b.file(name);
            b.write(open, 0, name.as_bytes()).unwrap();
        }
        assert_eq!(
            std::fs::read(b.dir.join("10:30")).unwrap(),
            "10\u{F022}30".as_bytes()
        );
        for name in sent {
            let open = b.file(name);
            assert_eq!(b.read(open, 0, 100), name.as_bytes());
        }
        assert_eq!(b.on_disk().len(), sent.len());
    });
}

#[test]
fn renames() {
    everywhere(|b| {
        let open = b.file("Old");
        b.directory("dir");
        let rename = |from: &str, to: &str, replace| FileOp::Rename {
            open,
            from: from.into(),
            to: to.into(),
            replace,
        };
        let path_of = |outcome: Result<Outcome, NtStatus>| -> Result<String, NtStatus> {
            match outcome? {
                Outcome::Renamed { path, .. } => Ok(path),
                other => panic!("{other:?}"),
            }
        };
        let renamed = |path: &str| Ok(path.to_string());
        assert_eq!(
            path_of(b.run_twice(&rename("Old", "OLD", false))),
            renamed("OLD")
        );
        assert_eq!(
            path_of(b.run_twice(&rename("OLD", "DIR/new", false))),
            renamed("dir/new")
        );
        assert_eq!(b.on_disk(), ["dir"]);
        std::fs::write(b.dir.join("Taken"), "theirs").unwrap();
        assert_eq!(
            b.run(&rename("dir/new", "taken", false)),
            Err(NtStatus::OBJECT_NAME_COLLISION)
        );
        assert_eq!(
            path_of(b.run_twice(&rename("dir/new", "taken", true))),
            renamed("Taken")
        );
        assert_eq!(b.on_disk(), ["Taken", "dir"]);
        assert_eq!(b.stat(open).end_of_file, 0);
        // Not over a directory, nor over a file that is open.
        assert_eq!(
            b.run(&rename("Taken", "dir", true)),
            Err(NtStatus::ACCESS_DENIED)
        );
        b.file("busy");
        assert_eq!(
            b.run(&rename("Taken", "busy", true)),
            Err(NtStatus::ACCESS_DENIED)
        );
        assert_eq!(
            b.run(&rename("Taken", "none/x", true)),
            Err(NtStatus::OBJECT_PATH_NOT_FOUND)
        );
        // After a rename by another process the open file is meant.
        std::fs::rename(b.dir.join("Taken"), b.dir.join("elsewhere")).unwrap();
        assert_eq!(
            path_of(b.run_twice(&rename("Taken", "here", false))),
            renamed("here")
        );
        assert_eq!(b.on_disk(), ["busy", "dir", "here"]);
    });
}

#[test]
fn redo_of_a_rename_leaves_what_came_after_it() {
    everywhere(|b| {
        let open = b.file("a");
        let rename = FileOp::Rename {
            open,
            from: "a".into(),
            to: "b".into(),
            replace: true,
        };
        let intent = b.prepare(&rename).unwrap();
        b.perform(&rename, &intent).unwrap();
        std::fs::write(b.dir.join("a"), "later").unwrap();
        b.perform(&rename, &intent).unwrap();
        assert_eq!(std::fs::read(b.dir.join("a")).unwrap(), b"later");
        assert_eq!(b.stat(open).links, 1);
        // Another process took the name between intent and rename: it must not be replaced.
        let open = b.file("c");
        let rename = FileOp::Rename {
            open,
            from: "c".into(),
            to: "d".into(),
            replace: true,
        };
        let intent = b.prepare(&rename).unwrap();
        std::fs::write(b.dir.join("d"), "theirs").unwrap();
        assert_eq!(
            b.perform(&rename, &intent),
            Err(NtStatus::OBJECT_NAME_COLLISION)
        );
        assert_eq!(std::fs::read(b.dir.join("d")).unwrap(), b"theirs");
    });
}

#[test]
fn directories_move_unless_something_in_them_is_open() {
    everywhere(|b| {
        let dir = b.directory("dir");
        let file = b.file("dir/file");
        let rename = FileOp::Rename {
            open: dir,
            from: "dir".into(),
            to: "moved".into(),
            replace: false,
        };
        assert_eq!(b.run(&rename), Err(NtStatus::ACCESS_DENIED));
        b.close(file);
        b.run_twice(&rename).unwrap();
        assert_eq!(b.on_disk(), ["moved"]);
        let into_itself = FileOp::Rename {
            open: dir,
            from: "moved".into(),
            to: "moved/deeper".into(),
            replace: false,
        };
        assert_eq!(b.run(&into_itself), Err(NtStatus::INVALID_PARAMETER));
    });
}

#[test]
fn hard_links() {
    everywhere(|b| {
        let open = b.file("a");
        let link = |to: &str, replace| FileOp::Link {
            open,
            to: to.into(),
            replace,
        };
        b.run_twice(&link("b", false)).unwrap();
        assert_eq!(b.stat(open).links, 2);
        std::fs::write(b.dir.join("c"), "theirs").unwrap();
        assert_eq!(
            b.run(&link("C", false)),
            Err(NtStatus::OBJECT_NAME_COLLISION)
        );
        b.run_twice(&link("C", true)).unwrap();
        assert_eq!(b.stat(open).links, 3);
        assert_eq!(b.on_disk(), ["a", "b", "c"]);
        // Renamed over another link to itself: one name goes.
        let rename = FileOp::Rename {
            open,
            from: "a".into(),
            to: "b".into(),
            replace: true,
        };
        b.run_twice(&rename).unwrap();
        assert_eq!(b.on_disk(), ["b", "c"]);
    });
}

fn delete(b: &mut Bench, open: OpenId, path: &str) -> FileOp {
    let key = b.stat(open).key;
    FileOp::Close {
        open,
        delete: Some(DeleteTarget {
            path: path.into(),
            key,
        }),
    }
}

#[test]
fn delete_on_close() {
    everywhere(|b| {
        let open = b.file("file");
        let op = delete(b, open, "file");
        let intent = b.prepare(&op).unwrap();
        let once = b.perform(&op, &intent);
        assert!(matches!(once, Ok(Outcome::Closed(_))));
        // A crash, and meanwhile another process makes a file of that name: it must not be deleted.
        b.restart();
        std::fs::write(b.dir.join("file"), "theirs").unwrap();
        assert_eq!(b.perform(&op, &intent), once);
        assert_eq!(b.on_disk(), ["file"]);
        // Renamed by another process: the opened file is deleted.
        let open = b.file("other");
        let op = delete(b, open, "other");
        std::fs::rename(b.dir.join("other"), b.dir.join("renamed")).unwrap();
        b.run(&op).unwrap();
        assert_eq!(b.on_disk(), ["file"]);
        // A symbolic link is deleted itself.
        symlink("file", b.dir.join("link")).unwrap();
        let open = b.file("link");
        let op = delete(b, open, "link");
        b.run(&op).unwrap();
        assert_eq!(b.on_disk(), ["file"]);
    });
}

/// A file that was opened again by its handle is known to the kernel by any of its names.
#[test]
fn redo_of_a_delete_leaves_the_other_links_alone() {
    everywhere(|b| {
        let op = b.op("drop", Disposition::OpenIf);
        let created = b.create(op).unwrap();
        let open = b.last;
        std::fs::hard_link(b.dir.join("drop"), b.dir.join("keep")).unwrap();
        let op = delete(b, open, "drop");
        let intent = b.prepare(&op).unwrap();
        b.perform(&op, &intent).unwrap();
        assert_eq!(b.on_disk(), ["keep"]);
        for _ in 0..2 {
            b.restart();
            b.fs.remember(info(open, &created, 3));
            b.perform(&op, &intent).unwrap();
            assert_eq!(b.on_disk(), ["keep"]);
        }
        // One of two links was renamed by another process: which one is unknown, so neither is deleted.
        std::fs::hard_link(b.dir.join("keep"), b.dir.join("drop")).unwrap();
        let op = b.op("drop", Disposition::Open);
        b.create(op).unwrap();
        let op = delete(b, b.last, "drop");
        std::fs::rename(b.dir.join("drop"), b.dir.join("moved")).unwrap();
        b.run(&op).unwrap();
        assert_eq!(b.on_disk(), ["keep", "moved"]);
    });
}

/// The client is notified when it opens the file: a CLOSE always succeeds.
#[test]
fn what_is_immutable_cannot_be_opened_for_deletion() {
    everywhere(|b| {
        let open = b.file("file");
        let path = b.dir.join("file");
        let chattr = |how: &str| {
            let done = std::process::Command::new("chattr")
                .arg(how)
                .arg(&path)
                .output();
            done.is_ok_and(|done| done.status.success())
        };
        if !chattr("+i") {
            eprintln!(
                "skipped: {} has no immutable files, or is not ours",
                path.display()
            );
            return;
        }
        let mut op = b.op("file", Disposition::Open);
        (op.write_data, op.delete) = (false, true);
        let opened = b.create(op).map(|created| created.action);
        let check = FileOp::CheckDelete {
            open,
            path: "file".into(),
        };
        let checked = b.run(&check);
        assert!(chattr("-i"));
        assert_eq!(opened, Err(NtStatus::ACCESS_DENIED));
        assert_eq!(checked, Err(NtStatus::ACCESS_DENIED));
        b.run(&check).unwrap();
    });
}

#[test]
fn directories_go_only_when_empty() {
    everywhere(|b| {
        let dir = b.directory("dir");
        let inner = b.file("dir/file");
        b.close(inner);
        let check = FileOp::CheckDelete {
            open: dir,
            path: "dir".into(),
        };
        assert_eq!(b.run(&check), Err(NtStatus::DIRECTORY_NOT_EMPTY));
        let op = delete(b, dir, "dir");
        assert_eq!(b.run(&op), Err(NtStatus::DIRECTORY_NOT_EMPTY));
        // It is closed without deletion.
        b.close(dir);
        std::fs::remove_file(b.dir.join("dir/file")).unwrap();
        let dir = b.directory("dir");
        let check = FileOp::CheckDelete {
            open: dir,
            path: "dir".into(),
        };
        b.run_twice(&check).unwrap();
        let op = delete(b, dir, "dir");
        b.run(&op).unwrap();
        assert!(b.on_disk().is_empty());
        let root = b.directory("");
        let check = FileOp::CheckDelete {
            open: root,
            path: String::new(),
        };
        assert_eq!(b.run(&check), Err(NtStatus::ACCESS_DENIED));
    });
}
