use crate::command::{Handled, Reply};
use crate::ioctl::code;
use crate::tests::bytes::hex;
use crate::tests::fixture::{DISK, Fixture, IPC, file_id, metadata};
use crate::wire::{self, Dialect, FileId, ioctl};
use outlast_fsa::fileop::{Chunk, FileOp, Outcome};
use outlast_fsa::status::NtStatus;

const SOURCE: u64 = 10;
const TARGET: u64 = 11;

fn fixture(dialect: Dialect) -> Fixture {
    let mut fixture = Fixture::new(dialect);
    fixture.open_file(SOURCE, "source", false, 0x0012_0089);
    fixture.open_file(TARGET, "target", false, 0x001F_01FF);
    fixture.open_file(12, "target", false, 0x0000_0002); // FILE_WRITE_DATA alone
    fixture.open_file(13, "dir", true, 0x001F_01FF);
    fixture
}

fn control(ctl_code: u32, open: u64, input: &[u8], max_output_response: u32) -> ioctl::Request {
    ioctl::Request {
        ctl_code,
        file_id: if open == 0 {
            FileId::ANY
        } else {
            file_id(open)
        },
        input: input.to_vec().into(),
        max_input_response: 0,
        max_output_response,
        flags: 1,
    }
}

fn output(reply: Reply) -> (NtStatus, Vec<u8>) {
    match reply.response {
        wire::Response::Ioctl(response) => (reply.status, response.output.to_vec()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn negotiation_is_validated() {
    let claim = hex("7f000000 cccccccccccccccccccccccccccccccc 0100 0200 0202 0203");
    let mut fixture = fixture(Dialect::Smb302);
    let asked = |input: &[u8], room| {
        wire::Request::Ioctl(control(code::VALIDATE_NEGOTIATE_INFO, 0, input, room))
    };
    let (status, answer) = output(fixture.reply(IPC, &asked(&claim, 24)).unwrap());
    assert_eq!(status, NtStatus::SUCCESS);
    assert_eq!(
        answer,
        hex("04000000 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0100 0203")
    );

    let dropped = |fixture: &mut Fixture, input: &[u8], room| {
        matches!(fixture.start(IPC, &asked(input, room)), Ok(Handled::Drop))
    };
    // capabilities, ClientGuid, SecurityMode, the number of dialects, the greatest one
    for at in (0..24).chain([26, 27]) {
        let mut other = claim.clone();
        other[at] ^= 1;
        assert!(dropped(&mut fixture, &other, 24), "byte {at}");
    }
    // 3.3.5.15.12: the greatest common dialect is compared
    let also = hex("7f000000 cccccccccccccccccccccccccccccccc 0100 0200 0302 0203");
    assert!(!dropped(&mut fixture, &also, 24));
    let greater = hex("7f000000 cccccccccccccccccccccccccccccccc 0100 0200 0203 1103");
    assert!(dropped(&mut fixture, &greater, 24));
    assert!(dropped(&mut fixture, &claim[..20], 24));
    assert!(dropped(&mut fixture, &claim, 23));
    let newest = hex("7f000000 cccccccccccccccccccccccccccccccc 0100 0200 0202 1103");
    assert!(dropped(&mut self::fixture(Dialect::Smb311), &newest, 24));
}

/// The input of a copy of `lengths` from SOURCE, with its resume key.
fn copy(fixture: &mut Fixture, lengths: &[u32]) -> Vec<u8> {
    let asked = control(code::SRV_REQUEST_RESUME_KEY, SOURCE, &[], 32);
    let (_, key) = output(fixture.reply(DISK, &wire::Request::Ioctl(asked)).unwrap());
    let mut input = key[..24].to_vec();
    input.extend_from_slice(&(lengths.len() as u32).to_le_bytes());
    input.extend_from_slice(&[0; 4]);
    for length in lengths {
        input.extend_from_slice(&[0; 16]);
        input.extend_from_slice(&length.to_le_bytes());
        input.extend_from_slice(&[0; 4]);
    }
    input
}

#[test]
fn copies_within_the_server() {
    let mut fixture = fixture(Dialect::Smb311);
    let input = copy(&mut fixture, &[5, 6]);
    let perform = |op: &FileOp| {
        let chunk = |length| Chunk {
            source_offset: 0,
            target_offset: 0,
            length,
        };
        let want = FileOp::CopyChunks {
            source: SOURCE,
            target: TARGET,
            chunks: vec![chunk(5), chunk(6)],
        };
        assert_eq!(*op, want);
        Ok(Outcome::Copied {
            written: vec![5, 6],
        })
    };
    let asked = control(code::SRV_COPYCHUNK, TARGET, &input, 12);
    let (status, answer) = output(fixture.run(&wire::Request::Ioctl(asked), perform).unwrap());
    assert_eq!(status, NtStatus::SUCCESS);
    assert_eq!(answer, hex("02000000 00000000 0b000000"));
}

#[test]
fn copies_need_rights_and_keep_to_limits() {
    let mut fixture = fixture(Dialect::Smb311);
    let input = copy(&mut fixture, &[5]);
    let mut unknown = input.clone();
    unknown[0] ^= 0x40;
    unknown[8] ^= 0x40;
    for (ctl_code, open, input, room, status) in [
        (code::SRV_COPYCHUNK, 12, &input, 12, NtStatus::ACCESS_DENIED), // not readable
        (
            code::SRV_COPYCHUNK_WRITE,
            SOURCE,
            &input,
            12,
            NtStatus::ACCESS_DENIED,
        ), // not writable
        (
            code::SRV_COPYCHUNK,
            13,
            &input,
            12,
            NtStatus::INVALID_DEVICE_REQUEST,
        ), // a directory
        (
            code::SRV_COPYCHUNK,
            TARGET,
            &input,
            11,
            NtStatus::INVALID_PARAMETER,
        ),
        (
            code::SRV_COPYCHUNK,
            TARGET,
            &unknown,
            12,
            NtStatus::OBJECT_NAME_NOT_FOUND,
        ),
    ] {
        let asked = wire::Request::Ioctl(control(ctl_code, open, input, room));
        assert_eq!(fixture.reply(DISK, &asked), Err(status));
    }
    let asked = wire::Request::Ioctl(control(code::SRV_COPYCHUNK_WRITE, 12, &input, 12));
    assert!(matches!(fixture.start(DISK, &asked), Ok(Handled::Op(_))));

    let input = copy(&mut fixture, &[1 << 21]);
    let asked = wire::Request::Ioctl(control(code::SRV_COPYCHUNK, TARGET, &input, 12));
    let (status, answer) = output(fixture.reply(DISK, &asked).unwrap());
    assert_eq!(status, NtStatus::INVALID_PARAMETER);
    assert_eq!(answer, hex("00010000 00001000 00000001"));
}

#[test]
fn ranges_sparse_and_zero() {
    let mut fixture = fixture(Dialect::Smb311);
    let mut range = 0u64.to_le_bytes().to_vec();
    range.extend_from_slice(&100u64.to_le_bytes());
    let ranges = |_: &FileOp| Ok(Outcome::Ranges(vec![(0, 10), (50, 10)]));
    let asked =
        |room| wire::Request::Ioctl(control(code::QUERY_ALLOCATED_RANGES, TARGET, &range, room));
    let (status, answer) = output(fixture.run(&asked(32), ranges).unwrap());
    assert_eq!((status, answer.len()), (NtStatus::SUCCESS, 32));
    let (status, answer) = output(fixture.run(&asked(31), ranges).unwrap());
    assert_eq!((status, answer.len()), (NtStatus::BUFFER_OVERFLOW, 16));

    let unit = |_: &FileOp| Ok(Outcome::Unit);
    for (ctl_code, input) in [
        (code::SET_SPARSE, &[][..]),
        (code::SET_ZERO_DATA, &range[..]),
    ] {
        let on = |open| wire::Request::Ioctl(control(ctl_code, open, input, 0));
        assert!(fixture.run(&on(TARGET), unit).is_ok());
        assert_eq!(fixture.run(&on(SOURCE), unit), Err(NtStatus::ACCESS_DENIED));
        assert_eq!(fixture.run(&on(13), unit), Err(NtStatus::INVALID_PARAMETER));
    }
}

#[test]
fn identities_snapshots_and_refusals() {
    let mut fixture = fixture(Dialect::Smb311);
    let id = wire::Request::Ioctl(control(code::CREATE_OR_GET_OBJECT_ID, SOURCE, &[], 64));
    let found = fixture.run(&id, |_| Ok(Outcome::Metadata(metadata("source", false))));
    assert_eq!(output(found.unwrap()).1.len(), 64);
    let none = wire::Request::Ioctl(control(code::SRV_ENUMERATE_SNAPSHOTS, SOURCE, &[], 16));
    assert_eq!(output(fixture.reply(DISK, &none).unwrap()).1, [0; 16]);
    let device = ioctl::Request {
        flags: 0,
        ..control(code::SRV_REQUEST_RESUME_KEY, SOURCE, &[], 32)
    };
    let device = wire::Request::Ioctl(device);
    assert_eq!(fixture.reply(DISK, &device), Err(NtStatus::NOT_SUPPORTED));
    let dfs = wire::Request::Ioctl(control(code::DFS_GET_REFERRALS, 0, &[], 4096));
    assert_eq!(fixture.reply(IPC, &dfs), Err(NtStatus::FS_DRIVER_REQUIRED));
    let wait = hex("0000000000000000 0c000000 00 00 730072007600730076006300");
    let wait = wire::Request::Ioctl(control(code::PIPE_WAIT, 0, &wait, 0));
    assert_eq!(
        output(fixture.reply(IPC, &wait).unwrap()).0,
        NtStatus::SUCCESS
    );
    assert_eq!(
        fixture.reply(DISK, &wait),
        Err(NtStatus::INVALID_DEVICE_REQUEST)
    );
}
