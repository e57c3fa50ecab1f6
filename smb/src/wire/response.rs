//! Encodes a response of any command.

use bytes::{BufMut, Bytes};

use super::{
    change_notify, close, create, encode_buffer, error, ioctl, negotiate, oplock_break,
    query_directory, query_info, read, session_setup, tree_connect, write,
};

/// A response's body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // MS-SMB2's commands
pub enum Response {
    Negotiate(negotiate::Response),
    SessionSetup(session_setup::Response),
    Logoff,
    TreeConnect(tree_connect::Response),
    TreeDisconnect,
    Create(create::Response),
    Close(close::Response),
    Flush,
    Read(read::Response),
    Write(write::Response),
    Lock,
    Ioctl(ioctl::Response),
    Echo,
    QueryDirectory(query_directory::Response),
    ChangeNotify(change_notify::Response),
    QueryInfo(query_info::Response),
    SetInfo,
    /// The response to an oplock break acknowledgment, and the notification (their bodies are equal).
    OplockBreak(oplock_break::OplockBreak),
    /// The lease break notification.
    LeaseBreakNotification(oplock_break::LeaseBreakNotification),
    /// The response to a lease break acknowledgment.
    LeaseBreak(oplock_break::LeaseBreak),
    /// The response of any command with a status that has no body of its own; also the interim response of
    /// STATUS_PENDING.
    Error(error::Response),
}

impl Response {
    /// Appends the body to `out`, which ends with the 64-byte header of the response: offsets are relative to that
    /// header. Returns the payload to send after it: READ's data, which is not copied, or no bytes.
    #[must_use = "the payload follows the body on the wire"]
    pub fn encode(&self, out: &mut Vec<u8>) -> Bytes {
        match self {
            Response::Negotiate(response) => response.encode(out),
            Response::SessionSetup(response) => response.encode(out),
            Response::TreeConnect(response) => response.encode(out),
            Response::Create(response) => response.encode(out),
            Response::Close(response) => response.encode(out),
            Response::Read(response) => {
                response.encode(out);
                return response.data.clone();
            }
            Response::Write(response) => response.encode(out),
            Response::Ioctl(response) => response.encode(out),
            Response::QueryDirectory(query_directory::Response { data })
            | Response::ChangeNotify(change_notify::Response { data })
            | Response::QueryInfo(query_info::Response { data }) => encode_buffer(data, out),
            Response::OplockBreak(response) => response.encode(out),
            Response::LeaseBreakNotification(notification) => notification.encode(out),
            Response::LeaseBreak(response) => response.encode(out),
            Response::Error(response) => response.encode(out),
            // MS-SMB2 2.2.8, 2.2.12, 2.2.18, 2.2.27, 2.2.29: StructureSize 4, Reserved.
            Response::Logoff
            | Response::TreeDisconnect
            | Response::Flush
            | Response::Lock
            | Response::Echo => {
                out.put_u16_le(4);
                out.put_u16_le(0);
            }
            // 2.2.40: StructureSize 2 alone.
            Response::SetInfo => out.put_u16_le(2),
        }
        Bytes::new()
    }
}
