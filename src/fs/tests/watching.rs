use super::*;
use outlast_smb::fileop::{Change, ChangeKind};

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
fn what_others_do_is_told() {
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
        let file = &b.fs.opens[&open];
        let root = &b.fs.roots[0];
        let path = root.current_path(std::os::fd::AsFd::as_fd(&file.fd));
        assert_eq!(path.as_deref(), Some("new"));
    });
}
