use super::*;
use crate::fs::create;
use crate::fs::lookup::Lookup;
use crate::fs::path::open_root;
use outlast_fsa::attributes as flag;
use std::os::unix::fs::PermissionsExt;

#[test]
fn dispositions_on_existing_and_missing_files() {
    use Disposition::*;
    everywhere(|b| {
        let cases = [
            (
                Open,
                Err(NtStatus::OBJECT_NAME_NOT_FOUND),
                Ok(CreateAction::Opened),
            ),
            (
                Create,
                Ok(CreateAction::Created),
                Err(NtStatus::OBJECT_NAME_COLLISION),
            ),
            (OpenIf, Ok(CreateAction::Created), Ok(CreateAction::Opened)),
            (
                Overwrite,
                Err(NtStatus::OBJECT_NAME_NOT_FOUND),
                Ok(CreateAction::Overwritten),
            ),
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
        for (disposition, missing, there) in cases {
            let op = FileOp::Create(b.op("new", disposition));
            assert_eq!(action(&b.run(&op)), missing, "{disposition:?}");
            let _ = std::fs::remove_file(b.dir.join("new"));
            std::fs::write(b.dir.join("old"), "data").unwrap();
            let op = FileOp::Create(b.op("old", disposition));
            assert_eq!(action(&b.run(&op)), there, "{disposition:?}");
            let emptied = matches!(disposition, Overwrite | OverwriteIf | Supersede);
            let left = std::fs::read(b.dir.join("old")).unwrap();
            assert_eq!(left.is_empty(), emptied, "{disposition:?}");
        }
    });
}

#[test]
fn missing_parent_and_file_as_parent() {
    everywhere(|b| {
        b.file("file");
        for path in ["none/x", "none/deep/x", "file/x", "file/deep/x"] {
            let op = b.op(path, Disposition::OpenIf);
            assert_eq!(
                b.create(op).err(),
                Some(NtStatus::OBJECT_PATH_NOT_FOUND),
                "{path}"
            );
        }
        for path in ["..", "a/../b", "/etc", "a//b", "."] {
            let op = b.op(path, Disposition::OpenIf);
            assert_eq!(
                b.create(op).err(),
                Some(NtStatus::OBJECT_NAME_INVALID),
                "{path}"
            );
        }
    });
}

#[test]
fn kinds_must_fit() {
    everywhere(|b| {
        b.file("file");
        b.directory("dir");
        let mut op = b.op("file", Disposition::Open);
        op.must_be_dir = true;
        assert_eq!(b.create(op).err(), Some(NtStatus::NOT_A_DIRECTORY));
        let mut op = b.op("dir", Disposition::Open);
        op.must_be_file = true;
        assert_eq!(b.create(op).err(), Some(NtStatus::FILE_IS_A_DIRECTORY));
        let op = b.op("dir", Disposition::OverwriteIf);
        assert_eq!(b.create(op).err(), Some(NtStatus::OBJECT_NAME_COLLISION));
    });
}

/// An exclusive create that a crash interrupted after it had its effect is still a success; one that met another's file
/// never is.
#[test]
fn redo_of_a_create_tells_ours_from_theirs() {
    everywhere(|b| {
        for is_dir in [false, true] {
            for disposition in [Disposition::Create, Disposition::OpenIf] {
                let mut create = b.op("thing", disposition);
                create.must_be_dir = is_dir;
                create.attributes = flag::HIDDEN;
                let op = FileOp::Create(create);
                let intent = b.prepare(&op).unwrap();
                let Ok(Outcome::Created(first)) = b.perform(&op, &intent) else {
                    panic!()
                };
                b.restart();
                let Ok(Outcome::Created(again)) = b.perform(&op, &intent) else {
                    panic!()
                };
                assert_eq!(again, first);
                assert_eq!(again.action, CreateAction::Created);
                assert_ne!(again.metadata.attributes & flag::HIDDEN, 0);
                // A third time, with another id: another open's file.
                let FileOp::Create(mut other) = op.clone() else {
                    panic!()
                };
                b.last += 1;
                other.open = b.last;
                let expected = match disposition {
                    Disposition::Create => Err(NtStatus::OBJECT_NAME_COLLISION),
                    _ => Ok(CreateAction::Opened),
                };
                let outcome = b.perform(&FileOp::Create(other), &intent);
                assert_eq!(action(&outcome), expected);
                assert_eq!(b.on_disk(), ["thing"]);
                b.restart();
                let thing = b.dir.join("thing");
                if is_dir {
                    std::fs::remove_dir(thing).unwrap();
                } else {
                    std::fs::remove_file(thing).unwrap();
                }
            }
        }
    });
}

/// A crash between any two of the calls that make a directory, or a file where there is no O_TMPFILE.
#[test]
fn what_a_crash_leaves_is_hidden_and_cleaned() {
    everywhere(|b| {
        let mut create = b.op("dir", Disposition::Create);
        create.must_be_dir = true;
        let private = b.dir.join(crate::fs::names::private(create.open));
        let op = FileOp::Create(create);
        let intent = b.prepare(&op).unwrap();
        std::fs::create_dir(&private).unwrap();
        b.restart();
        let root = b.directory("");
        let list = FileOp::QueryDirectory {
            open: root,
            pattern: ".outlast*".into(),
            after: None,
            limit: 10,
        };
        let Ok(Outcome::Entries { entries, .. }) = b.run(&list) else {
            panic!()
        };
        assert!(entries.is_empty());
        assert_eq!(action(&b.perform(&op, &intent)), Ok(CreateAction::Created));
        assert_eq!(b.on_disk(), ["dir"]);
    });
}

#[test]
fn without_o_tmpfile_a_private_name_serves() {
    everywhere(|b| {
        let op = b.op("file", Disposition::Create);
        let entry = || b.fs.roots.get(0).unwrap().entry("file").unwrap();
        let private = b.dir.join(crate::fs::names::private(op.open));
        std::fs::write(&private, "half").unwrap();
        crate::fs::create::create_private(&entry(), &op).unwrap();
        assert_eq!(b.on_disk(), ["file"]);
        assert_eq!(std::fs::read(b.dir.join("file")).unwrap(), b"");
        let again = crate::fs::create::create_private(&entry(), &op);
        assert_eq!(again.err(), Some(rustix::io::Errno::EXIST));
        assert_eq!(b.on_disk(), ["file"]);
    });
}

#[test]
fn a_copy_with_its_attributes_is_not_ours() {
    everywhere(|b| {
        let op = FileOp::Create(b.op("original", Disposition::Create));
        let intent = b.prepare(&op).unwrap();
        b.perform(&op, &intent).unwrap();
        let stamp = {
            let mut value = [0; 16];
            rustix::fs::getxattr(b.dir.join("original"), "user.outlast.stamp", &mut value).unwrap();
            value
        };
        std::fs::remove_file(b.dir.join("original")).unwrap();
        // Another file keeps the inode number from being used again.
        let other = b.dir.join("x");
        std::fs::write(&other, "").unwrap();
        std::fs::write(b.dir.join("original"), "copy").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(b.dir.join("original"), "user.outlast.stamp", &stamp, flags).unwrap();
        b.restart();
        let outcome = b.perform(&op, &intent);
        assert_eq!(action(&outcome), Err(NtStatus::OBJECT_NAME_COLLISION));
    });
}

#[test]
fn the_file_of_the_intent_and_no_other() {
    everywhere(|b| {
        b.file("file");
        let op = FileOp::Create(b.op("file", Disposition::Overwrite));
        let intent = b.prepare(&op).unwrap();
        std::fs::write(b.dir.join("other"), "theirs").unwrap();
        std::fs::rename(b.dir.join("other"), b.dir.join("file")).unwrap();
        let outcome = b.perform(&op, &intent);
        assert_eq!(action(&outcome), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!(std::fs::read(b.dir.join("file")).unwrap(), b"theirs");
    });
}

#[test]
fn special_files_do_not_hold_the_server_up() {
    everywhere(|b| {
        let fifo = b.dir.join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            0o666.into(),
            0,
        )
        .unwrap();
        assert_eq!(b.try_open("fifo").err(), Some(NtStatus::ACCESS_DENIED));
        let mut op = b.op("fifo", Disposition::Open);
        (op.read_data, op.write_data, op.maximum_allowed) = (false, false, true);
        b.create(op).unwrap();
    });
}

#[test]
fn a_read_only_share_stays_as_it_is() {
    everywhere(|b| {
        std::fs::write(b.dir.join("file"), "data").unwrap();
        b.read_only = true;
        b.restart();
        assert_eq!(b.try_open("file").err(), Some(NtStatus::ACCESS_DENIED));
        let op = b.op("new", Disposition::Create);
        assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
        let mut op = b.op("file", Disposition::Open);
        op.write_data = false;
        b.create(op).unwrap();
        let open = b.last;
        assert_eq!(b.read(open, 0, 10), b"data");
        assert_eq!(b.write(open, 0, b"x"), Err(NtStatus::ACCESS_DENIED));
        let basic = outlast_fsa::fileop::SetBasic {
            attributes: Some(flag::HIDDEN),
            ..Default::default()
        };
        assert_eq!(
            b.run(&FileOp::SetBasic { open, basic }),
            Err(NtStatus::ACCESS_DENIED)
        );
    });
}

#[test]
fn attributes_and_times_are_kept() {
    everywhere(|b| {
        let open = b.file("file");
        assert_eq!(b.stat(open).attributes, flag::ARCHIVE);
        let basic = outlast_fsa::fileop::SetBasic {
            creation_time: Some(133_000_000_001_234_567),
            last_access_time: Some(133_000_000_011_234_567),
            last_write_time: Some(133_000_000_021_234_567),
            change_time: None,
            attributes: Some(flag::READONLY | flag::SYSTEM),
            ..Default::default()
        };
        b.run_twice(&FileOp::SetBasic { open, basic }).unwrap();
        b.close(open);
        let mut op = b.op("FILE", Disposition::Open);
        op.write_data = false;
        let found = b.create(op).unwrap().metadata;
        assert_eq!(found.creation_time, 133_000_000_001_234_567);
        assert_eq!(found.last_access_time, 133_000_000_011_234_567);
        assert_eq!(found.last_write_time, 133_000_000_021_234_567);
        assert_eq!(found.attributes, flag::READONLY | flag::SYSTEM);
        // MS-FSA 2.1.5.1.2.1
        assert_eq!(b.try_open("file").err(), Some(NtStatus::ACCESS_DENIED));
        let check = FileOp::CheckDelete {
            open: b.last - 1,
            path: "file".into(),
        };
        assert_eq!(b.run(&check), Err(NtStatus::CANNOT_DELETE));
        let basic = outlast_fsa::fileop::SetBasic {
            attributes: Some(flag::NORMAL),
            ..Default::default()
        };
        let open = b.last - 1;
        b.run(&FileOp::SetBasic { open, basic }).unwrap();
        let now = b.stat(open);
        assert_eq!(now.attributes, flag::NORMAL);
        assert_eq!(now.creation_time, 133_000_000_001_234_567);
        let basic = outlast_fsa::fileop::SetBasic {
            attributes: Some(flag::DIRECTORY),
            ..Default::default()
        };
        assert_eq!(
            b.run(&FileOp::SetBasic { open, basic }),
            Err(NtStatus::INVALID_PARAMETER)
        );
    });
}

#[test]
fn a_hidden_file_is_not_overwritten_by_one_that_is_not() {
    everywhere(|b| {
        let mut op = b.op("file", Disposition::Create);
        op.attributes = flag::HIDDEN;
        b.create(op).unwrap();
        let op = b.op("file", Disposition::OverwriteIf);
        assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
        let mut op = b.op("file", Disposition::OverwriteIf);
        op.attributes = flag::HIDDEN;
        assert_eq!(b.create(op).unwrap().action, CreateAction::Overwritten);
        b.file(".profile");
        let op = b.op(".profile", Disposition::OverwriteIf);
        let created = b.create(op).unwrap();
        assert_eq!(created.metadata.attributes, flag::HIDDEN | flag::ARCHIVE);
    });
}

#[test]
fn opened_again_by_handle_after_a_rename_and_never_another_file() {
    everywhere(|b| {
        let op = b.op("file", Disposition::Create);
        let created = b.create(op).unwrap();
        let open = b.last;
        b.write(open, 0, b"mine").unwrap();
        std::fs::rename(b.dir.join("file"), b.dir.join("renamed")).unwrap();
        std::fs::write(b.dir.join("file"), "theirs").unwrap();
        b.restart();
        let again = info(open, &created, 0x3);
        if is_root() {
            b.fs.reopen(&again).unwrap();
            assert_eq!(b.read(open, 0, 10), b"mine");
        }
        // By path: another file has the name meanwhile.
        let handle = outlast_fsa::fileop::FileHandle::default();
        let by_path = OpenInfo {
            handle,
            ..again.clone()
        };
        assert_eq!(b.fs.reopen(&by_path), Err(NtStatus::FILE_CLOSED));
        let path = "renamed".to_owned();
        let by_path = OpenInfo { path, ..by_path };
        b.fs.reopen(&by_path).unwrap();
        assert_eq!(b.read(open, 0, 10), b"mine");
        b.fs.reopen(&OpenInfo {
            granted_access: 0,
            path: by_path.path,
            ..again
        })
        .unwrap();
        assert_eq!(b.stat(open).key, created.metadata.key);
    });
}

#[test]
fn maximal_access_is_what_the_account_may() {
    everywhere(|b| {
        std::fs::write(b.dir.join("file"), "").unwrap();
        let op = FileOp::Create(b.op("file", Disposition::Open));
        let Ok(Intent::Create(intent)) = b.prepare(&op) else {
            panic!()
        };
        assert_eq!(
            intent.maximal_access, 0x1F_01FF,
            "{:x}",
            intent.maximal_access
        );
        if !is_root() {
            return;
        }
        b.run_as = Some("nobody".into());
        b.restart();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&b.dir, mode).unwrap();
        let mut op = b.op("file", Disposition::Open);
        op.write_data = false;
        let Ok(Intent::Create(intent)) = b.prepare(&FileOp::Create(op)) else {
            panic!()
        };
        assert_eq!(
            intent.maximal_access, 0x12_00A9,
            "{:x}",
            intent.maximal_access
        );
    });
}

/// Where a file gets its name first, a worker may die right then. The create that finds it finishes it.
#[test]
fn a_file_that_had_its_name_only_is_finished() {
    everywhere(|b| {
        let mut root = open_root(0, &b.dir, false, None).unwrap();
        root.features.hard_links = false;
        root.features.rename_noreplace = false;
        let uid = rustix::process::geteuid().as_raw();
        let mut op = b.op("new", Disposition::Create);
        op.attributes = flag::HIDDEN;
        let intent = create::prepare(&root, &mut Lookup::default(), uid, &op).unwrap();
        std::fs::write(b.dir.join("new"), "").unwrap();
        for _ in 0..2 {
            let (_, created) = create::perform(&root, uid, &op, &intent).unwrap();
            assert_eq!(created.action, CreateAction::Created);
            let attributes = created.metadata.attributes;
            assert_eq!(attributes, flag::HIDDEN | flag::ARCHIVE);
        }
        // It is stamped now, so another open's create finds it there.
        let other = b.op("new", Disposition::Create);
        let refused = create::perform(&root, uid, &other, &intent).err();
        assert_eq!(refused, Some(NtStatus::OBJECT_NAME_COLLISION));
    });
}
