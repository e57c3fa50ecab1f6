use crate::command::Reply;
use crate::record::Record;
use crate::tests::fixture::{DISK, Fixture, IPC, file_id, metadata};
use crate::wire::query_info::{self, info_type};
use crate::wire::{self, Dialect, error};
use bytes::Bytes;
use outlast_fsa::fileop::{FileOp, Outcome, Volume};
use outlast_fsa::status::NtStatus;

fn fixture() -> Fixture {
    let mut fixture = Fixture::new(Dialect::Smb311);
    fixture.open_file(10, "d/file", false, 0x0012_0089);
    fixture.open_file(11, "d/file", false, 0x0001_0000);
    fixture.open_pipe(20, "srvsvc");
    fixture
}

fn query(open: u64, info_type: u8, class: u8, length: u32) -> wire::Request {
    wire::Request::QueryInfo(query_info::Request {
        info_type,
        file_info_class: class,
        output_buffer_length: length,
        additional_information: 7,
        flags: 0,
        file_id: file_id(open),
        input: Bytes::new(),
    })
}

fn file(op: &FileOp) -> Result<Outcome, NtStatus> {
    assert!(matches!(op, FileOp::Stat { .. }));
    Ok(Outcome::Metadata(metadata("d/file", false)))
}

fn data(reply: Reply) -> (NtStatus, Bytes) {
    match reply.response {
        wire::Response::QueryInfo(response) => (reply.status, response.data),
        other => panic!("{other:?}"),
    }
}

#[test]
fn delete_pending_is_of_the_file_not_of_the_open() {
    let mut fixture = fixture();
    let standard = query(10, info_type::FILE, 5, 24);
    let (_, bytes) = data(fixture.run(&standard, file).unwrap());
    assert_eq!(bytes[16..22], [1, 0, 0, 0, 0, 0]);
    fixture.emit(Record::DeletePending { open: 11, on: true });
    let (_, bytes) = data(fixture.run(&standard, file).unwrap());
    assert_eq!(bytes[16..22], [0, 0, 0, 0, 1, 0]);
}

#[test]
fn what_is_cut_says_so() {
    let mut fixture = fixture();
    let (status, bytes) = data(
        fixture
            .run(&query(10, info_type::FILE, 9, 8), file)
            .unwrap(),
    );
    assert_eq!(status, NtStatus::BUFFER_OVERFLOW);
    assert_eq!(bytes[..], [14, 0, 0, 0, b'\\', 0, b'd', 0]);
    assert_eq!(
        fixture.run(&query(10, info_type::FILE, 4, 39), file),
        Err(NtStatus::INFO_LENGTH_MISMATCH)
    );
}

#[test]
fn rights() {
    let mut fixture = fixture();
    for class in [4, 18, 34, 35] {
        let basic = query(11, info_type::FILE, class, 200);
        assert_eq!(fixture.run(&basic, file), Err(NtStatus::ACCESS_DENIED));
    }
    assert!(
        fixture
            .run(&query(11, info_type::FILE, 5, 200), file)
            .is_ok()
    );
    let security = query(11, info_type::SECURITY, 0, 200);
    assert_eq!(fixture.run(&security, file), Err(NtStatus::ACCESS_DENIED));
}

#[test]
fn a_descriptor_that_does_not_fit_tells_its_length() {
    let descriptor = |op: &FileOp| {
        assert!(matches!(
            op,
            FileOp::QuerySecurity {
                open: 10,
                information: 7
            }
        ));
        Ok(Outcome::Data(Bytes::from_static(&[9; 100])))
    };
    for (dialect, in_context) in [(Dialect::Smb302, false), (Dialect::Smb311, true)] {
        let mut fixture = Fixture::new(dialect);
        fixture.open_file(10, "d/file", false, 0x0012_0089);
        let whole = fixture.run(&query(10, info_type::SECURITY, 0, 100), descriptor);
        assert_eq!(data(whole.unwrap()).1.len(), 100);
        let short = fixture
            .run(&query(10, info_type::SECURITY, 0, 99), descriptor)
            .unwrap();
        assert_eq!(short.status, NtStatus::BUFFER_TOO_SMALL);
        let data = Bytes::from_static(&[100, 0, 0, 0]);
        let want = error::Response { data, in_context };
        assert_eq!(short.response, wire::Response::Error(want));
    }
}

#[test]
fn a_volume_has_the_name_of_the_share() {
    let mut fixture = fixture();
    let volume = |op: &FileOp| {
        assert!(matches!(op, FileOp::QueryVolume { open: 10 }));
        Ok(Outcome::Volume(Volume {
            total_bytes: 0,
            available_bytes: 0,
            free_bytes: 0,
            unit_bytes: 512,
            serial: 1,
            creation_time: 0,
            extended_attributes: false,
        }))
    };
    let (_, bytes) = data(
        fixture
            .run(&query(10, info_type::FILESYSTEM, 1, 100), volume)
            .unwrap(),
    );
    assert_eq!(&bytes[18..], b"p\0u\0b\0");
}

#[test]
fn pipes_have_levels_of_their_own() {
    let mut fixture = fixture();
    let local = fixture
        .reply(IPC, &query(20, info_type::FILE, 24, 40))
        .unwrap();
    assert_eq!(data(local).1.len(), 40);
    for (info_type, class, status) in [
        (info_type::FILE, 34, NtStatus::NOT_SUPPORTED),
        (info_type::FILESYSTEM, 1, NtStatus::INVALID_DEVICE_REQUEST),
    ] {
        let request = query(20, info_type, class, 100);
        assert_eq!(fixture.reply(IPC, &request), Err(status));
    }
    // Not through another tree.
    let request = query(20, info_type::FILE, 24, 40);
    assert_eq!(fixture.reply(DISK, &request), Err(NtStatus::FILE_CLOSED));
}

#[test]
fn classes_of_newer_dialects() {
    let mut fixture = Fixture::new(Dialect::Smb210);
    fixture.open_file(10, "d/file", false, 0x0012_0089);
    for class in [48, 59] {
        let request = query(10, info_type::FILE, class, 100);
        assert_eq!(fixture.run(&request, file), Err(NtStatus::NOT_SUPPORTED));
    }
    let quota = query(10, info_type::QUOTA, 0, 100);
    assert_eq!(fixture.run(&quota, file), Err(NtStatus::NOT_SUPPORTED));
    let unknown = query(10, 9, 0, 100);
    assert_eq!(
        fixture.run(&unknown, file),
        Err(NtStatus::INVALID_PARAMETER)
    );
}
