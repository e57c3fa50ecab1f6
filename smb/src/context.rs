//! Gives a command's handler access to the state, the journal and the clock.

use crate::command::Request;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::record::Record;
use crate::server::{Clock, ConnId, Journal, Output, Smb};
use crate::state::{Connection, Open, Resource, Session, SessionState, Target, Tree};
use crate::wire::FileId;
use outlast_fsa::fileop::{Actor, Change, OpenId, ShareId};
use outlast_fsa::open::FileOpen;
use outlast_fsa::status::NtStatus;

/// The state, the journal that changes it, and the caller's clock and randomness.
pub struct Context<'a> {
    pub(crate) smb: &'a mut Smb,
    /// The connection that received the request.
    pub conn: ConnId,
    /// Service time and wall-clock time.
    pub clock: Clock,
    pub(crate) entropy: &'a mut dyn Entropy,
    pub(crate) journal: &'a mut dyn Journal,
    pub(crate) out: &'a mut Output,
}

impl Context<'_> {
    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.smb.config
    }

    /// Returns the durable state of this connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.smb.connection(self.conn)
    }

    /// Changes this connection's state: appends the record to the journal and applies it.
    pub fn emit(&mut self, record: Record) {
        self.smb.emit(self.conn, record, self.journal);
    }

    /// Changes another connection's state.
    pub fn emit_on(&mut self, conn: ConnId, record: Record) {
        self.smb.emit(conn, record, self.journal);
    }

    /// Returns an id that is used once ever: SessionId, FileId, AsyncId.
    pub fn unique_id(&mut self) -> u64 {
        self.journal.unique_id()
    }

    /// Returns random bytes.
    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }

    /// Returns the valid session of a request.
    ///
    /// # Errors
    /// USER_SESSION_DELETED.
    pub fn session(&self, request: &Request) -> Result<&Session, NtStatus> {
        self.connection()
            .sessions
            .get(&request.session)
            .filter(|session| session.security.state == SessionState::Valid)
            .ok_or(NtStatus::USER_SESSION_DELETED)
    }

    /// Returns the tree connect of a request.
    ///
    /// # Errors
    /// USER_SESSION_DELETED, NETWORK_NAME_DELETED.
    pub fn tree(&self, request: &Request) -> Result<&Tree, NtStatus> {
        self.session(request)?
            .trees
            .get(&request.tree)
            .ok_or(NtStatus::NETWORK_NAME_DELETED)
    }

    /// Returns whether persistent handles are granted on this resource (Share.IsCA).
    pub fn is_continuously_available(&self, resource: Resource) -> bool {
        let Resource::Disk(id) = resource else {
            return false;
        };
        let share = self.config().share(id);
        share.is_some_and(|share| share.continuous_availability)
    }

    /// Returns the open that a request's FileId identifies. In a compounded chain, a FileId of all ones is the chain's
    /// open (MS-SMB2 3.3.5.2.7.2).
    ///
    /// # Errors
    /// FILE_CLOSED.
    pub fn open(&self, request: &Request, file_id: FileId) -> Result<&Open, NtStatus> {
        let id = match file_id {
            FileId::ANY => request.related_open.ok_or(NtStatus::FILE_CLOSED)?,
            FileId {
                persistent,
                volatile,
            } if persistent == volatile => persistent,
            _ => return Err(NtStatus::FILE_CLOSED),
        };
        self.open_by_id(request, id)
    }

    /// Returns the open with this id, if it belongs to the request's session and tree connect.
    ///
    /// # Errors
    /// FILE_CLOSED.
    pub fn open_by_id(&self, request: &Request, id: OpenId) -> Result<&Open, NtStatus> {
        self.connection()
            .opens
            .get(&id)
            .filter(|open| open.session == request.session && open.tree == request.tree)
            .filter(|open| open.closing.is_none())
            .ok_or(NtStatus::FILE_CLOSED)
    }

    /// Returns the open as [`Context::open`] does, for requests on a file or directory.
    ///
    /// # Errors
    /// FILE_CLOSED, INVALID_DEVICE_REQUEST for a pipe.
    pub fn file(&self, request: &Request, file_id: FileId) -> Result<(&Open, &FileOpen), NtStatus> {
        let open = self.open(request, file_id)?;
        match &open.target {
            Target::File(file) => Ok((open, file)),
            Target::Pipe(_) => Err(NtStatus::INVALID_DEVICE_REQUEST),
        }
    }

    /// Returns the file of an open of this connection.
    #[must_use]
    pub fn file_of(&self, open: OpenId) -> Option<&FileOpen> {
        self.smb.file(self.conn, open)
    }

    fn admits_guests(&self, share: ShareId) -> bool {
        let share = self.config().share(share);
        share.is_some_and(|share| share.guest)
    }

    /// Returns the account and share of a request.
    ///
    /// # Errors
    /// USER_SESSION_DELETED, NETWORK_NAME_DELETED, INVALID_DEVICE_REQUEST on IPC$.
    pub fn actor(&self, request: &Request) -> Result<Actor, NtStatus> {
        let security = &self.session(request)?.security;
        let user = security.present_user().cloned();
        match self.tree(request)?.resource {
            // The tree connect may be from before a reauthentication as anonymous.
            Resource::Disk(share) if security.anonymous && !self.admits_guests(share) => {
                Err(NtStatus::ACCESS_DENIED)
            }
            Resource::Disk(share) => Ok(Actor { share, user }),
            Resource::Ipc => Err(NtStatus::INVALID_DEVICE_REQUEST),
        }
    }

    /// Adds a change to every watch that reports it.
    pub(crate) fn publish(&mut self, change: &Change) {
        self.smb.publish(change, self.journal);
    }
}
