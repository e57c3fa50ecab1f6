use super::*;
use crate::command::Handled;
use crate::ioctl::code;
use crate::state::Wait;
use crate::tests::bytes::hex;
use crate::tests::fixture::{CONN, Fixture, IPC, file_id, request};
use crate::wire::Dialect;
use bytes::Bytes;

const PIPE: OpenId = 20;

fn fixture() -> Fixture {
    let mut fixture = Fixture::new(Dialect::Smb311);
    fixture.open_pipe(PIPE, "srvsvc");
    fixture
}

fn bind() -> Bytes {
    hex(
        "05000b03100000004800000001000000 b810b81000000000 01000000 00000100
        c84f324b7016d30112785a47bf6ee18803000000 045d888aeb1cc9119fe808002b10486002000000",
    )
    .into()
}

fn write_to(fixture: &mut Fixture, data: Bytes) -> Result<Handled, NtStatus> {
    let body = write::Request {
        offset: 0,
        file_id: file_id(PIPE),
        channel: 0,
        flags: 0,
        data: data.into(),
    };
    fixture.with_context(|ctx| write(ctx, &request(IPC), PIPE, &body))
}

fn read_from(fixture: &mut Fixture, length: u32) -> Result<(NtStatus, Bytes), NtStatus> {
    let body = read::Request {
        flags: 0,
        length,
        offset: 0,
        file_id: file_id(PIPE),
        minimum_count: 0,
        channel: 0,
    };
    match fixture.with_context(|ctx| read(ctx, &request(IPC), PIPE, &body))? {
        Handled::Wait(wait) => {
            assert_eq!(wait, Wait::Pipe(PIPE));
            Err(NtStatus::PENDING)
        }
        Handled::Reply(Reply {
            status,
            response: wire::Response::Read(response),
            ..
        }) => Ok((status, response.data)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_answered_to_reads() {
    let mut fixture = fixture();
    let Ok(Handled::Reply(reply)) = write_to(&mut fixture, bind()) else {
        panic!("refused");
    };
    let want = wire::Response::Write(write::Response { count: 72 });
    assert_eq!(reply.response, want);
    let (status, head) = read_from(&mut fixture, 16).unwrap();
    assert_eq!((status, head.len()), (NtStatus::BUFFER_OVERFLOW, 16));
    let (status, rest) = read_from(&mut fixture, 100).unwrap();
    assert_eq!((status, rest.len()), (NtStatus::SUCCESS, 52));
}

#[test]
fn a_pipe_goes_on_after_a_restart() {
    let mut fixture = fixture();
    let (first, second) = {
        let bind = bind();
        (bind.slice(..30), bind.slice(30..))
    };
    write_to(&mut fixture, first).unwrap();
    let checkpoint = fixture.smb.checkpoint(CONN).unwrap();
    let mut restored = Fixture::new(Dialect::Smb311);
    restored.smb.restore(CONN, checkpoint);
    write_to(&mut restored, second).unwrap();
    assert_eq!(read_from(&mut restored, 100).unwrap().1.len(), 68);
}

#[test]
fn transceive_is_both() {
    let mut fixture = fixture();
    let body = wire::ioctl::Request {
        ctl_code: code::PIPE_TRANSCEIVE,
        file_id: file_id(PIPE),
        input: bind(),
        max_input_response: 0,
        max_output_response: 1024,
        flags: 1,
    };
    let reply = fixture
        .reply(IPC, &wire::Request::Ioctl(body.clone()))
        .unwrap();
    let wire::Response::Ioctl(response) = reply.response else {
        panic!("no output");
    };
    assert_eq!(response.output.len(), 68);
    // A violation of the protocol disconnects the pipe, and the state records it.
    let broken = wire::ioctl::Request {
        input: Bytes::from_static(&[0; 16]),
        ..body
    };
    let broken = fixture.reply(IPC, &wire::Request::Ioctl(broken));
    assert_eq!(broken, Err(NtStatus::PIPE_DISCONNECTED));
    assert_eq!(
        read_from(&mut fixture, 100),
        Err(NtStatus::PIPE_DISCONNECTED)
    );
}
