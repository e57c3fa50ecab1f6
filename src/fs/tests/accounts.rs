use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

/// A share that `nobody` may write to, with a file of root's in it; `None` without root.
fn as_nobody() -> Option<Bench> {
    if !is_root() {
        eprintln!("skipped: taking on other accounts needs root");
        return None;
    }
    let mut b = Bench::at(&std::env::temp_dir());
    std::fs::write(b.dir.join("roots"), "secret").unwrap();
    std::fs::set_permissions(b.dir.join("roots"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&b.dir, std::fs::Permissions::from_mode(0o1777)).unwrap();
    b.run_as = Some("nobody".into());
    b.restart();
    Some(b)
}

#[test]
fn a_guest_of_a_server_that_is_root_has_nobodys_rights() {
    if !is_root() {
        eprintln!("skipped: taking on other accounts needs root");
        return;
    }
    let mut b = Bench::at(&std::env::temp_dir());
    b.actor.user = None;
    let op = b.op("new", Disposition::Create);
    assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
    b.actor.user = Some("root".to_owned());
    let op = b.op("new", Disposition::Create);
    b.create(op).unwrap();
}

#[test]
fn the_accounts_rights_apply_and_the_servers_are_restored() {
    let Some(mut b) = as_nobody() else { return };
    assert_eq!(b.try_open("roots").err(), Some(NtStatus::ACCESS_DENIED));
    let open = b.file("own");
    let nobody = crate::account::lookup("nobody").unwrap().unwrap();
    let meta = std::fs::metadata(b.dir.join("own")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (nobody.uid, nobody.gid));
    // Root's again: this would fail otherwise.
    assert_eq!(std::fs::read(b.dir.join("roots")).unwrap(), b"secret");
    // The sticky bit protects root's file.
    let mut op = b.op("roots", Disposition::Open);
    (op.read_data, op.write_data, op.delete) = (false, false, true);
    assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
    // An open for attributes takes no rights on the data.
    let mut op = b.op("roots", Disposition::Open);
    (op.read_data, op.write_data) = (false, false);
    b.create(op).unwrap();
    let basic = outlast_fsa::fileop::SetBasic {
        last_write_time: Some(133_000_000_000_000_000),
        ..Default::default()
    };
    let roots = b.last;
    let set = |open| FileOp::SetBasic {
        open,
        basic: basic.clone(),
    };
    assert_eq!(b.run(&set(roots)), Err(NtStatus::ACCESS_DENIED));
    b.run(&set(open)).unwrap();
    // An account that may write may set times, also of another's file.
    chown(b.dir.join("own"), Some(0), None).unwrap();
    std::fs::set_permissions(b.dir.join("own"), std::fs::Permissions::from_mode(0o666)).unwrap();
    b.run(&set(open)).unwrap();
    // But permissions are the owner's.
    let Ok(Outcome::Data(descriptor)) = b.run(&FileOp::QuerySecurity {
        open,
        information: 7,
    }) else {
        panic!()
    };
    std::fs::set_permissions(b.dir.join("own"), std::fs::Permissions::from_mode(0o662)).unwrap();
    let chmod = FileOp::SetSecurity {
        open,
        information: 4,
        descriptor,
    };
    assert_eq!(b.run(&chmod), Err(NtStatus::ACCESS_DENIED));
}

#[test]
fn a_redo_knows_the_accounts_own_work() {
    let Some(mut b) = as_nobody() else { return };
    for is_dir in [false, true] {
        let mut create = b.op(if is_dir { "dir" } else { "file" }, Disposition::Create);
        create.must_be_dir = is_dir;
        let op = FileOp::Create(create);
        let intent = b.prepare(&op).unwrap();
        b.perform(&op, &intent).unwrap();
        b.restart();
        assert_eq!(action(&b.perform(&op, &intent)), Ok(CreateAction::Created));
    }
}

#[test]
fn logins_and_accounts_that_do_not_exist() {
    if !is_root() {
        eprintln!("skipped: taking on other accounts needs root");
        return;
    }
    let mut b = Bench::at(&std::env::temp_dir());
    std::fs::set_permissions(&b.dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    b.actor.user = Some("Nobody".into());
    b.file("logins");
    let owner = std::fs::metadata(b.dir.join("logins")).unwrap().uid();
    let nobody = crate::account::lookup("nobody").unwrap().unwrap();
    assert_eq!(owner, nobody.uid);
    b.actor.user = Some("no-such-account".into());
    let op = b.op("x", Disposition::OpenIf);
    assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
    b.run_as = Some("root".into());
    b.restart();
    let op = b.op("x", Disposition::OpenIf);
    b.create(op).unwrap();
    b.run_as = Some("no-such-account".into());
    b.restart();
    let op = b.op("x", Disposition::OpenIf);
    assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
}

/// The supervisor's death must end the worker also after it has taken on an account.
#[test]
fn the_parent_death_signal_stays() {
    use rustix::process::{Signal, parent_process_death_signal, set_parent_process_death_signal};
    let Some(mut b) = as_nobody() else { return };
    let before = parent_process_death_signal().unwrap();
    set_parent_process_death_signal(Some(Signal::USR2)).unwrap();
    b.file("file");
    let after = parent_process_death_signal().unwrap();
    set_parent_process_death_signal(before).unwrap();
    assert_eq!(after, Some(Signal::USR2));
}
