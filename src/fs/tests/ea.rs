//! Extended attributes of clients, in those of the file system.

use super::*;
use outlast_fsa::ea::Ea;
use rustix::fs::{XattrFlags, getxattr, setxattr};

fn ea(name: &str, value: &[u8]) -> Ea {
    Ea {
        name: name.to_owned(),
        value: value.to_vec(),
    }
}

/// The attributes of a file as a client sees them, by name.
fn seen(b: &mut Bench, open: OpenId) -> Vec<(String, Vec<u8>)> {
    match b.run(&FileOp::QueryEas { open }).unwrap() {
        Outcome::Eas { eas, .. } => {
            let mut eas: Vec<_> = eas.into_iter().map(|ea| (ea.name, ea.value)).collect();
            eas.sort();
            eas
        }
        other => panic!("{other:?}"),
    }
}

fn set(open: OpenId, eas: &[Ea]) -> FileOp {
    let eas = eas.to_vec();
    FileOp::SetEas { open, eas }
}

#[test]
fn attributes_are_set_and_removed() {
    everywhere(|b| {
        let open = b.file("f");
        b.run_twice(&set(open, &[ea("One", b"1"), ea("two", b"2")]))
            .unwrap();
        let mut value = [0; 9];
        let length = getxattr(b.dir.join("f"), "user.One", &mut value).unwrap();
        assert_eq!(&value[..length], b"1");
        // A name is found without regard to case.
        b.run_twice(&set(open, &[ea("ONE", b"eins"), ea("TWO", b"")]))
            .unwrap();
        assert_eq!(seen(b, open), [("One".to_owned(), b"eins".to_vec())]);
        // The worker is killed between intent and operation.
        let op = set(open, &[ea("one", b""), ea("three", b"3")]);
        let created = b.try_open("f").unwrap();
        let intent = b.prepare(&op).unwrap();
        for _ in 0..2 {
            b.restart();
            b.fs.remember(info(open, &created, 0x3));
            b.perform(&op, &intent).unwrap();
        }
        assert_eq!(seen(b, open), [("three".to_owned(), b"3".to_vec())]);
        let large = vec![7; 65_536];
        let refused = b.run(&set(open, &[ea("large", &large)]));
        assert!(matches!(
            refused,
            Err(NtStatus::EA_TOO_LARGE | NtStatus::DISK_FULL)
        ));
    });
}

#[test]
fn the_servers_own_attributes_are_hidden() {
    everywhere(|b| {
        let open = b.file("f:stream");
        let mut op = b.op("f", Disposition::Open);
        op.attributes = outlast_fsa::attributes::HIDDEN;
        b.create(op).unwrap();
        let basic = outlast_fsa::fileop::SetBasic {
            attributes: Some(outlast_fsa::attributes::HIDDEN),
            ..Default::default()
        };
        b.run(&FileOp::SetBasic { open, basic }).unwrap();
        setxattr(b.dir.join("f"), "user.mine", b"shown", XattrFlags::empty()).unwrap();
        assert_eq!(seen(b, open), [("mine".to_owned(), b"shown".to_vec())]);
        for name in [
            "DOSATTRIB",
            "dosattrib",
            "DosStream.s:$DATA",
            "outlast.stamp",
            "SAMBA_PAI",
        ] {
            let refused = b.run(&set(open, &[ea("other", b"1"), ea(name, b"x")]));
            assert_eq!(refused, Err(NtStatus::ACCESS_DENIED), "{name}");
        }
        assert_eq!(seen(b, open).len(), 1);
        let long = ea(&"n".repeat(251), b"x");
        assert_eq!(b.run(&set(open, &[long])), Err(NtStatus::INVALID_EA_NAME));
    });
}

#[test]
fn a_new_or_overwritten_file_has_those_of_its_create() {
    everywhere(|b| {
        for (disposition, name) in [
            (Disposition::Create, "first"),
            (Disposition::OverwriteIf, "second"),
            (Disposition::Supersede, "third"),
        ] {
            let mut op = b.op("f", disposition);
            op.eas = vec![ea(name, b"x")];
            let op = FileOp::Create(op);
            let intent = b.prepare(&op).unwrap();
            for _ in 0..2 {
                b.perform(&op, &intent).unwrap();
            }
            let open = b.last;
            assert_eq!(seen(b, open), [(name.to_owned(), b"x".to_vec())]);
        }
        let mut op = b.op("f", Disposition::OpenIf);
        op.eas = vec![ea("ignored", b"x")];
        b.create(op).unwrap();
        let open = b.last;
        assert_eq!(seen(b, open)[0].0, "third");
        let mut op = b.op("g", Disposition::Create);
        op.eas = vec![ea("outlast.stamp", b"x")];
        assert_eq!(b.create(op).err(), Some(NtStatus::ACCESS_DENIED));
        assert_eq!(b.on_disk(), ["f"]);
    });
}
