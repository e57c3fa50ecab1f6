use super::*;
use outlast_fsa::fileop::{Change, ChangeKind, FileTime};
use outlast_smb::WatchInfo;
use std::os::unix::fs::MetadataExt;

fn watch(b: &mut Bench, path: &str, recursive: bool) -> OpenId {
    let open = b.directory(path);
    b.run_twice(&FileOp::Watch { open, recursive }).unwrap();
    open
}

fn change(path: &str, is_dir: bool, kind: ChangeKind) -> Change {
    Change {
        share: 0,
        path: path.into(),
        is_dir,
        kind,
    }
}

#[test]
fn changes_by_others_are_reported() {
    everywhere(|b| {
        watch(b, "", false);
        std::fs::write(b.dir.join("a"), "").unwrap();
        std::fs::rename(b.dir.join("a"), b.dir.join("b")).unwrap();
        std::fs::rename(b.dir.join("b"), b.outside.join("b")).unwrap();
        std::fs::rename(b.outside.join("b"), b.dir.join("c")).unwrap();
        std::fs::write(b.dir.join("c"), "data").unwrap();
        std::fs::remove_file(b.dir.join("c")).unwrap();
        std::fs::write(b.dir.join(".outlast-1"), "").unwrap();
        std::fs::create_dir(b.dir.join("d")).unwrap();
        std::fs::write(b.dir.join("d/unseen"), "").unwrap();
        let changes = b.fs.changes();
        let expected = [
            change("a", false, ChangeKind::Added),
            change("a", false, ChangeKind::RenamedTo("b".into())),
            change("b", false, ChangeKind::Removed),
            change("c", false, ChangeKind::Added),
            change("c", false, ChangeKind::Modified(0x18)),
            change("c", false, ChangeKind::Removed),
            change("d", true, ChangeKind::Added),
        ];
        assert_eq!(changes, expected);
        assert!(b.fs.changes().is_empty());
    });
}

#[test]
fn trees_are_followed() {
    everywhere(|b| {
        std::fs::create_dir_all(b.dir.join("top/x/y")).unwrap();
        let open = watch(b, "top", true);
        std::fs::write(b.dir.join("top/x/y/deep"), "").unwrap();
        std::fs::create_dir(b.dir.join("top/new")).unwrap();
        let mut changes = b.fs.changes();
        std::fs::write(b.dir.join("top/new/file"), "").unwrap();
        std::fs::rename(b.dir.join("top/x"), b.dir.join("top/z")).unwrap();
        std::fs::write(b.dir.join("top/z/y/deeper"), "").unwrap();
        changes.extend(b.fs.changes());
        std::fs::rename(b.dir.join("top/z"), b.dir.join("gone")).unwrap();
        changes.extend(b.fs.changes());
        std::fs::write(b.dir.join("gone/y/unseen"), "").unwrap();
        changes.extend(b.fs.changes());
        let expected = [
            change("top/x/y/deep", false, ChangeKind::Added),
            change("top/new", true, ChangeKind::Added),
            change("top/new/file", false, ChangeKind::Added),
            change("top/x", true, ChangeKind::RenamedTo("top/z".into())),
            change("top/z/y/deeper", false, ChangeKind::Added),
            change("top/z", true, ChangeKind::Removed),
        ];
        assert_eq!(changes, expected);
        b.close(open);
        std::fs::write(b.dir.join("top/late"), "").unwrap();
        assert!(b.fs.changes().is_empty());
    });
}

#[test]
fn our_own_changes_are_dropped_and_no_others() {
    everywhere(|b| {
        watch(b, "", false);
        std::fs::write(b.dir.join("theirs"), "").unwrap();
        let open = b.file("ours");
        b.fs.discard_changes();
        b.write(open, 0, b"data").unwrap();
        b.fs.discard_changes();
        let changes = b.fs.changes();
        assert_eq!(changes, [change("theirs", false, ChangeKind::Added)]);
    });
}

#[test]
fn what_was_just_created_is_known_by_its_name() {
    everywhere(|b| {
        let open = b.file("new");
        let file = b.fs.opens.get(open).unwrap();
        let root = b.fs.roots.get(0).unwrap();
        let path = root.current_path(std::os::fd::AsFd::as_fd(&file.fd));
        assert_eq!(path.as_deref(), Some("new"));
    });
}

/// The record of a watched directory.
fn watched(b: &mut Bench, path: &str, filter: u32, recursive: bool) -> OpenInfo {
    let mut op = b.op(path, Disposition::Open);
    op.must_be_dir = true;
    op.write_data = false;
    let created = b.create(op).unwrap();
    OpenInfo {
        watch: Some(WatchInfo { recursive, filter }),
        ..info(b.last, &created, 0x1)
    }
}

/// The last change time in a tree, and a recorded time by which all changes had been reported.
fn reported(dir: &Path) -> FileTime {
    let changed = |path: &Path| {
        let stat = std::fs::symlink_metadata(path).unwrap();
        116_444_736_000_000_000 + stat.ctime() as u64 * 10_000_000 + stat.ctime_nsec() as u64 / 100
    };
    let mut last = changed(dir);
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        last = last.max(match entry.file_type().unwrap().is_dir() {
            true => reported(&entry.path()),
            false => changed(&entry.path()),
        });
    }
    last
}

/// Waits until the kernel's change time has advanced, by more than the server's tolerance.
fn let_time_pass(b: &Bench) {
    let before = reported(&b.outside);
    for round in 0.. {
        assert!(round < 100_000_000, "time does not advance");
        std::fs::write(b.outside.join("clock"), "").unwrap();
        if reported(&b.outside) > before + 500_000 {
            return;
        }
    }
}

#[test]
fn after_a_restart_change_times_show_missed_changes() {
    let names = 0x3;
    let size = 0x8;
    type Act = fn(&Path);
    let acts: [(&str, Act); 5] = [
        ("nothing", |_| {}),
        ("a name", |dir| std::fs::write(dir.join("new"), "").unwrap()),
        ("bytes", |dir| {
            std::fs::write(dir.join("old"), "more").unwrap()
        }),
        ("a name beneath", |dir| {
            std::fs::remove_file(dir.join("sub/sub/old")).unwrap()
        }),
        ("bytes beneath", |dir| {
            std::fs::write(dir.join("sub/sub/old"), "more").unwrap()
        }),
    ];
    let watches = [
        (names, false, [false, true, false, false, false]),
        (names, true, [false, true, false, true, false]),
        (size, false, [false, true, true, false, false]),
        (size, true, [false, true, true, true, true]),
    ];
    everywhere(|b| {
        for (filter, recursive, expected) in watches {
            for ((what, act), expected) in acts.iter().zip(expected) {
                let top = b.dir.join("top");
                let _ = std::fs::remove_dir_all(&top);
                std::fs::create_dir_all(top.join("sub/sub")).unwrap();
                for path in ["old", "sub/sub/old"] {
                    std::fs::write(top.join(path), "").unwrap();
                }
                let open = watched(b, "top", filter, recursive);
                let since = reported(&top) + 200_000;
                let_time_pass(b);
                act(&top);
                b.restart();
                b.fs.remember(open.clone());
                assert_eq!(
                    b.fs.may_have_changed(open.open, open.watch.expect("a watch"), since),
                    expected,
                    "{what}, filter {filter:#x}, recursive: {recursive}"
                );
                // And it is watched again.
                std::fs::write(top.join("later"), "").unwrap();
                let changes = b.fs.changes();
                assert_eq!(changes[0], change("top/later", false, ChangeKind::Added));
            }
        }
    });
}

#[test]
fn too_many_entries_count_as_changed() {
    let mut b = Bench::at(Path::new("/dev/shm"));
    for number in 0..9000 {
        std::fs::write(b.dir.join(number.to_string()), "").unwrap();
    }
    let since = reported(&b.dir) + 200_000;
    let by_names = watched(&mut b, "", 0x3, false);
    let by_size = watched(&mut b, "", 0x8, false);
    b.restart();
    b.fs.remember(by_names.clone());
    b.fs.remember(by_size.clone());
    assert!(
        !b.fs
            .may_have_changed(by_names.open, by_names.watch.expect("a watch"), since)
    );
    assert!(b.fs.may_have_changed(by_size.open, by_size.watch.expect("a watch"), since));
}
