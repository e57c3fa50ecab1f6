//! Shares that are temporarily missing, and directories that cannot be watched then.

use std::path::Path;

use outlast_fsa::fileop::ChangeKind;
use outlast_smb::WatchInfo;

use super::*;

/// A server of two shares: the one of the bench, and one in `other`.
fn with_other(b: &Bench, other: &Path) -> Fs {
    let root = |path: &Path| ShareRoot {
        path: path.to_owned(),
        read_only: false,
        run_as: None,
    };
    Fs::new(&[root(&b.dir), root(other)], wake().unwrap()).unwrap()
}

fn other(b: &Bench) -> Actor {
    Actor {
        share: 1,
        ..b.actor.clone()
    }
}

#[test]
fn a_missing_share_goes_offline_alone() {
    everywhere(|b| {
        let dir = b.outside.join("late");
        b.fs = with_other(b, &dir);
        let here = FileOp::Create(b.op("here", Disposition::Create));
        b.run(&here).unwrap();
        let actor = other(b);
        let create = FileOp::Create(b.op("there", Disposition::Create));
        let refused = Err(NtStatus::IO_DEVICE_ERROR);
        assert_eq!(b.fs.prepare(&actor, &create), refused);
        assert_eq!(b.fs.prepare(&actor, &create), refused);
        std::fs::create_dir(&dir).unwrap();
        let intent = b.fs.prepare(&actor, &create).unwrap();
        b.fs.perform(&actor, &create, &intent).unwrap();
        assert!(dir.join("there").exists());
        let found: Vec<_> = b.fs.found_roots().iter().map(|(share, _)| *share).collect();
        assert_eq!(found, [0, 1]);
    });
}

#[test]
fn no_other_directory_is_served_in_place_of_a_share() {
    everywhere(|b| {
        let (dir, away) = (b.outside.join("share"), b.outside.join("away"));
        std::fs::create_dir(&dir).unwrap();
        b.fs = with_other(b, &dir);
        let found = b.fs.found_roots();
        let (_, key) = found[1];
        std::fs::rename(&dir, &away).unwrap();
        std::fs::create_dir(&dir).unwrap();
        // After a restart the path leads elsewhere.
        b.fs = with_other(b, &dir);
        b.fs.expect_root(1, key);
        let actor = other(b);
        let create = FileOp::Create(b.op("there", Disposition::Create));
        assert_eq!(
            b.fs.prepare(&actor, &create),
            Err(NtStatus::IO_DEVICE_ERROR)
        );
        std::fs::remove_dir(&dir).unwrap();
        std::fs::rename(&away, &dir).unwrap();
        let intent = b.fs.prepare(&actor, &create).unwrap();
        b.fs.perform(&actor, &create, &intent).unwrap();
        assert!(dir.join("there").exists());
    });
}

#[test]
fn a_directory_that_cannot_be_watched_now_stays_open_and_is_watched_later() {
    everywhere(|b| {
        let (dir, away) = (b.outside.join("share"), b.outside.join("away"));
        std::fs::create_dir_all(dir.join("d")).unwrap();
        b.fs = with_other(b, &dir);
        let actor = other(b);
        let mut create = b.op("d", Disposition::Open);
        create.must_be_dir = true;
        let open = create.open;
        let op = FileOp::Create(create);
        let intent = b.fs.prepare(&actor, &op).unwrap();
        let Ok(Outcome::Created(created)) = b.fs.perform(&actor, &op, &intent) else {
            panic!("it cannot be opened");
        };
        std::fs::rename(&dir, &away).unwrap();
        b.fs = with_other(b, &dir);
        let info = OpenInfo {
            conn: 1,
            open,
            actor: actor.clone(),
            path: "d".to_owned(),
            moved_to: None,
            key: created.metadata.key,
            handle: created.handle,
            is_dir: true,
            granted_access: 1,
            stopped: Default::default(),
            watch: Some(WatchInfo {
                recursive: false,
                filter: 1,
            }),
        };
        b.fs.remember(info.clone());
        assert!(b.fs.next_look().is_some());
        let stat = FileOp::Stat { open };
        let refused = b.fs.perform(&actor, &stat, &Intent::None);
        assert_eq!(refused, Err(NtStatus::IO_DEVICE_ERROR));
        std::fs::rename(&away, &dir).unwrap();
        b.fs.perform(&actor, &stat, &Intent::None).unwrap();
        std::fs::write(dir.join("d/new"), "").unwrap();
        let changes = b.fs.changes();
        let kinds: Vec<_> = changes.iter().map(|change| change.kind.clone()).collect();
        assert!(kinds.contains(&ChangeKind::Overflow), "{kinds:?}");
        assert!(kinds.contains(&ChangeKind::Added), "{kinds:?}");
    });
}
