//! Parses a request of any command.

use super::body::{fields, fixed};
use super::{
    Command, Component, Malformed, change_notify, close, create, flush, ioctl, lock, negotiate,
    oplock_break, query_directory, query_info, read, session_setup, set_info, tree_connect, write,
};
use nom::number::complete::le_u16;

/// A request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // MS-SMB2's commands
pub enum Request {
    Negotiate(negotiate::Request),
    SessionSetup(session_setup::Request),
    Logoff,
    TreeConnect(tree_connect::Request),
    TreeDisconnect,
    Create(create::Request),
    Close(close::Request),
    Flush(flush::Request),
    Read(read::Request),
    Write(write::Request),
    Lock(lock::Request),
    Ioctl(ioctl::Request),
    Cancel,
    Echo,
    QueryDirectory(query_directory::Request),
    ChangeNotify(change_notify::Request),
    QueryInfo(query_info::Request),
    SetInfo(set_info::Request),
    OplockBreak(oplock_break::Acknowledgment),
}

impl Request {
    /// Parses the body of `component` by its header's command.
    ///
    /// # Errors
    /// The violation; [`Malformed::status`] is the status of the response.
    pub fn parse(component: &Component) -> Result<Request, Malformed> {
        Ok(match component.header.command {
            Command::NEGOTIATE => Request::Negotiate(negotiate::Request::parse(component)?),
            Command::SESSION_SETUP => {
                Request::SessionSetup(session_setup::Request::parse(component)?)
            }
            Command::LOGOFF => empty(component, Request::Logoff)?,
            Command::TREE_CONNECT => Request::TreeConnect(tree_connect::Request::parse(component)?),
            Command::TREE_DISCONNECT => empty(component, Request::TreeDisconnect)?,
            Command::CREATE => Request::Create(create::Request::parse(component)?),
            Command::CLOSE => Request::Close(close::Request::parse(component)?),
            Command::FLUSH => Request::Flush(flush::Request::parse(component)?),
            Command::READ => Request::Read(read::Request::parse(component)?),
            Command::WRITE => Request::Write(write::Request::parse(component)?),
            Command::LOCK => Request::Lock(lock::Request::parse(component)?),
            Command::IOCTL => Request::Ioctl(ioctl::Request::parse(component)?),
            Command::CANCEL => empty(component, Request::Cancel)?,
            Command::ECHO => empty(component, Request::Echo)?,
            Command::QUERY_DIRECTORY => {
                Request::QueryDirectory(query_directory::Request::parse(component)?)
            }
            Command::CHANGE_NOTIFY => {
                Request::ChangeNotify(change_notify::Request::parse(component)?)
            }
            Command::QUERY_INFO => Request::QueryInfo(query_info::Request::parse(component)?),
            Command::SET_INFO => Request::SetInfo(set_info::Request::parse(component)?),
            Command::OPLOCK_BREAK => {
                Request::OplockBreak(oplock_break::Acknowledgment::parse(component)?)
            }
            Command(other) => return Err(Malformed::UnknownCommand(other)),
        })
    }
}

/// Parses an empty request of StructureSize 4 (MS-SMB2 2.2.7, 2.2.11, 2.2.28, 2.2.30).
fn empty(component: &Component, request: Request) -> Result<Request, Malformed> {
    fields(fixed(component, 4)?, le_u16)?;
    Ok(request)
}
