use crate::record::Record;
use crate::tests::fixture::{Fixture, IPC, file_id};
use crate::wire::query_info::info_type;
use crate::wire::{self, Dialect, set_info, utf16};
use outlast_fsa::fileop::{FileOp, Outcome};
use outlast_fsa::status::NtStatus;

const ALL: u32 = 0x001F_01FF;

fn fixture() -> Fixture {
    let mut fixture = Fixture::new(Dialect::Smb311);
    fixture.open_file(10, "d/file", false, ALL);
    fixture.open_file(11, "d/file", false, 0x0012_0089);
    fixture.open_file(12, "", true, ALL);
    fixture.open_pipe(20, "srvsvc");
    fixture
}

fn set(open: u64, class: u8, data: &[u8]) -> wire::Request {
    wire::Request::SetInfo(set_info::Request {
        info_type: info_type::FILE,
        file_info_class: class,
        additional_information: 0,
        file_id: file_id(open),
        data: data.to_vec().into(),
    })
}

fn target(replace: bool, name: &str) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[0] = u8::from(replace);
    bytes.extend_from_slice(&(utf16::len(name) as u32).to_le_bytes());
    utf16::push(name, &mut bytes);
    bytes
}

/// The operation that a request needs; it succeeds.
fn operation(fixture: &mut Fixture, request: &wire::Request) -> Result<Option<FileOp>, NtStatus> {
    let mut seen = None;
    let reply = fixture.run(request, |op| {
        seen = Some(op.clone());
        Ok(Outcome::Unit)
    })?;
    assert_eq!(reply.response, wire::Response::SetInfo);
    assert_eq!(reply.status, NtStatus::SUCCESS);
    Ok(seen)
}

#[test]
fn rename_and_link_go_to_paths_beneath_the_share() {
    let mut fixture = fixture();
    let op = operation(&mut fixture, &set(10, 10, &target(true, "e\\new"))).unwrap();
    let want = FileOp::Rename {
        open: 10,
        from: "d/file".into(),
        to: "e/new".into(),
        replace: true,
    };
    assert_eq!(op, Some(want));
    let op = operation(&mut fixture, &set(10, 11, &target(false, "e\\link"))).unwrap();
    let want = FileOp::Link {
        open: 10,
        to: "e/link".into(),
        replace: false,
    };
    assert_eq!(op, Some(want));
    // The form that Samba's clients send.
    let op = operation(&mut fixture, &set(10, 11, &target(false, "\\e\\link"))).unwrap();
    assert!(matches!(op, Some(FileOp::Link { to, .. }) if to == "e/link"));
    // The name is unchanged, and no operation is needed.
    let op = operation(&mut fixture, &set(10, 10, &target(false, "d\\file")));
    assert_eq!(op, Ok(None));
    for (open, name, status) in [
        (10, "..\\x", NtStatus::OBJECT_PATH_SYNTAX_BAD),
        (10, "a:stream", NtStatus::OBJECT_NAME_INVALID),
        (12, "x", NtStatus::ACCESS_DENIED),
        (11, "x", NtStatus::ACCESS_DENIED),
    ] {
        let request = set(open, 10, &target(false, name));
        assert_eq!(operation(&mut fixture, &request), Err(status), "{name}");
    }
}

#[test]
fn deleting_waits_for_the_last_close_and_can_be_taken_back() {
    let mut fixture = fixture();
    let op = operation(&mut fixture, &set(10, 13, &[1])).unwrap();
    assert!(matches!(op, Some(FileOp::CheckDelete { open: 10, .. })));
    assert!(fixture.file(10).delete_pending);

    // Through another open of the file.
    fixture.open_file(13, "d/file", false, ALL);
    assert_eq!(operation(&mut fixture, &set(13, 13, &[0])), Ok(None));
    assert!(!fixture.file(10).delete_pending);

    let refused = fixture.run(&set(10, 13, &[1]), |_| Err(NtStatus::DIRECTORY_NOT_EMPTY));
    assert_eq!(refused, Err(NtStatus::DIRECTORY_NOT_EMPTY));
    assert!(!fixture.file(10).delete_pending);
    let root = operation(&mut fixture, &set(12, 13, &[1]));
    assert_eq!(root, Err(NtStatus::CANNOT_DELETE));
}

#[test]
fn sizes_and_rights() {
    let mut fixture = fixture();
    let size = 77u64.to_le_bytes();
    let op = operation(&mut fixture, &set(10, 20, &size)).unwrap();
    let want = FileOp::SetEndOfFile {
        open: 10,
        end_of_file: 77,
    };
    assert_eq!(op, Some(want));
    let op = operation(&mut fixture, &set(10, 19, &size)).unwrap();
    assert!(matches!(
        op,
        Some(FileOp::SetAllocation {
            open: 10,
            allocation_size: 77
        })
    ));
    for class in [19, 20] {
        let request = set(11, class, &size);
        assert_eq!(
            operation(&mut fixture, &request),
            Err(NtStatus::ACCESS_DENIED)
        );
        let request = set(12, class, &size);
        assert_eq!(
            operation(&mut fixture, &request),
            Err(NtStatus::INVALID_PARAMETER)
        );
    }
    assert_eq!(
        operation(&mut fixture, &set(11, 4, &[0; 40])),
        Err(NtStatus::ACCESS_DENIED)
    );
    assert_eq!(
        operation(&mut fixture, &set(10, 15, &[1])),
        Err(NtStatus::EA_LIST_INCONSISTENT)
    );
}

#[test]
fn position_and_mode_stay_with_the_open() {
    let mut fixture = fixture();
    assert_eq!(
        operation(&mut fixture, &set(10, 14, &9u64.to_le_bytes())),
        Ok(None)
    );
    assert_eq!(
        operation(&mut fixture, &set(10, 16, &2u32.to_le_bytes())),
        Ok(None)
    );
    assert_eq!((fixture.file(10).position, fixture.file(10).mode), (9, 2));
    assert_eq!(fixture.file(11).position, 0);
}

#[test]
fn security_needs_the_right_to_the_part() {
    let mut fixture = fixture();
    fixture.open_file(14, "d/file", false, 0x0004_0000); // WRITE_DAC
    let request = |information| {
        wire::Request::SetInfo(set_info::Request {
            info_type: info_type::SECURITY,
            file_info_class: 0,
            additional_information: information,
            file_id: file_id(14),
            data: vec![1, 2].into(),
        })
    };
    let op = operation(&mut fixture, &request(4)).unwrap();
    assert!(matches!(
        op,
        Some(FileOp::SetSecurity {
            open: 14,
            information: 4,
            ..
        })
    ));
    assert_eq!(
        operation(&mut fixture, &request(5)),
        Err(NtStatus::ACCESS_DENIED)
    );
}

#[test]
fn pipes() {
    let mut fixture = fixture();
    let mode = [1, 0, 0, 0, 0, 0, 0, 0];
    assert!(fixture.reply(IPC, &set(20, 23, &mode)).is_ok());
    assert_eq!(
        fixture.reply(IPC, &set(20, 20, &mode)),
        Err(NtStatus::NOT_SUPPORTED)
    );
    assert_eq!(
        operation(&mut fixture, &set(10, 23, &mode)),
        Err(NtStatus::INVALID_PARAMETER)
    );
    fixture.emit(Record::Closed { open: 20 });
    assert_eq!(
        fixture.reply(IPC, &set(20, 23, &mode)),
        Err(NtStatus::FILE_CLOSED)
    );
}
