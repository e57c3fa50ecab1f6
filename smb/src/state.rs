//! Defines the durable state of a connection. It changes only in [`crate::record::Record::apply`].

use crate::crypto::{Cipher, PreauthHash, Secret, SessionKeys, SigningAlgorithm};
use crate::rpc::Pipe;
use crate::wire::{Dialect, Header};
pub use outlast_fsa::FileOpen;
use outlast_fsa::caching::Caching;
use outlast_fsa::fileop::{Actor, CreateAction, FileKey, Intent, OpenId, ShareId};
use outlast_fsa::oplock::OplockLevel;
use outlast_fsa::status::NtStatus;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// The result of NEGOTIATE; [`crate::record::Record::Negotiated`] replaces it as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiation {
    /// The negotiated dialect; `None`: not negotiated yet.
    pub dialect: Option<Dialect>,
    /// An SMB1 negotiate has been answered with the wildcard revision 0x02FF (MS-SMB2 3.3.5.3.2).
    pub wildcard: bool,
    /// ClientGuid, for VALIDATE_NEGOTIATE_INFO.
    pub client_guid: [u8; 16],
    /// The client's Capabilities.
    pub client_capabilities: u32,
    /// The client's SecurityMode.
    pub client_security_mode: u16,
    /// Capabilities the server answered with.
    pub capabilities: u32,
    /// SecurityMode the server answered with.
    pub security_mode: u16,
    /// Connection.CipherId (2.2.3.1.2); `None`: encryption is not possible.
    pub cipher: Option<Cipher>,
    /// Connection.SigningAlgorithmId (2.2.3.1.7), or the dialect's fixed algorithm.
    pub signing: Option<SigningAlgorithm>,
    /// Connection.PreauthIntegrityHashValue, with 3.1.1.
    pub preauth: Option<PreauthHash>,
}

/// Session.State.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// SESSION_SETUP is not complete.
    #[default]
    InProgress,
    /// Authenticated.
    Valid,
    /// Logged off; kept for the rest of the message that contained the LOGOFF.
    Ended,
}

/// The part of a session that SESSION_SETUP sets; [`crate::record::Record::Session`] replaces it as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// State.
    pub state: SessionState,
    /// Login name; `None`: guest or anonymous. A user's session keeps it when it authenticates again.
    pub user: Option<String>,
    /// Fingerprint of the password that the user logged in with ([`crate::config::Config::password_of`]).
    pub password: Option<Secret>,
    /// Guest (SMB2_SESSION_FLAG_IS_GUEST).
    pub guest: bool,
    /// Anonymous (SMB2_SESSION_FLAG_IS_NULL).
    pub anonymous: bool,
    /// Session.SigningRequired.
    pub signing_required: bool,
    /// Session.EncryptData: every message but NEGOTIATE and SESSION_SETUP is encrypted.
    pub encrypt: bool,
    /// The requirements on the session are stricter than when its client logged in.
    pub raised: bool,
    /// Session.SigningKey, EncryptionKey and DecryptionKey; `None` for anonymous and guest: nothing can be signed or
    /// encrypted.
    pub keys: Option<SessionKeys>,
    /// Session.PreauthIntegrityHashValue while the session is being set up, 3.1.1.
    pub preauth: Option<PreauthHash>,
    /// State of the authentication between its messages; `None`: no authentication is in progress.
    pub handshake: Option<crate::auth::Handshake>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The result of SESSION_SETUP.
    pub security: Security,
    /// Tree connects by TreeId.
    pub trees: BTreeMap<u32, Tree>,
    /// The number of nonces used for messages to the client, which is the next nonce.
    pub nonces: u64,
    /// The last TreeId given.
    pub last_tree: u32,
}

impl Security {
    /// Returns the login's name; `None`: guest, anonymous, or a user's session that has authenticated again as
    /// anonymous.
    #[must_use]
    pub fn present_user(&self) -> Option<&String> {
        self.user.as_ref().filter(|_| !self.anonymous)
    }
}

/// The target of a tree connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// A share of the configuration.
    Disk(ShareId),
    /// IPC$.
    Ipc,
}

/// A tree connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Its target.
    pub resource: Resource,
    /// The name of the share, to detect a changed configuration.
    pub name: String,
    /// MaximalAccess of the response.
    pub maximal_access: u32,
    /// Share.EncryptData.
    pub encrypt: bool,
    /// The share's directory when it was connected ([`crate::Share::directory`]); 0 for IPC$.
    pub directory: u64,
}

/// The target of an open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every open is one of a file"
)]
pub enum Target {
    /// A file or directory.
    File(FileOpen),
    /// A named pipe of IPC$.
    Pipe(Pipe),
}

/// The close of an open by a task instead of a CLOSE request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The close is in progress.
    pub doing: Option<Doing>,
    /// The number of crashes of the server during the close.
    pub attempts: u32,
}

/// Identifies the CREATE that made an open, in case of a replay (MS-SMB2 2.2.13.2.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateId {
    /// CreateGuid.
    pub guid: [u8; 16],
    /// CreateAction of the response.
    pub action: CreateAction,
    /// Open.IsReplayEligible: no request has named the open, so its client may not have seen the response.
    pub is_replay_eligible: bool,
}

/// Whether a durable open belongs to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// It belongs to a connection.
    Connected,
    /// Its connection or session has ended, and its timeout has not begun yet.
    Left,
    /// It is closed at this service time unless its client reconnects it before.
    Until(Duration),
}

/// What an open that survives its connection depends on (MS-SMB2 3.3.1.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Survival {
    /// IsDurable: it is closed when another open requires its caching.
    Durable,
    /// IsResilient: it is kept until its timeout, whatever others do.
    Resilient,
    /// IsPersistent: the same, on a share that is continuously available.
    Persistent,
}

/// What makes an open survive its connection (MS-SMB2 3.3.1.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// What that depends on.
    pub survival: Survival,
    /// DurableOpenTimeout, ResiliencyTimeout.
    pub timeout: Duration,
    /// Whether it belongs to a connection.
    pub holding: Holding,
}

/// An open (MS-SMB2 3.3.1.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Both halves of the FileId; never reused.
    pub id: OpenId,
    /// SessionId.
    pub session: u64,
    /// TreeId.
    pub tree: u32,
    /// On whose behalf.
    pub actor: Actor,
    /// GrantedAccess.
    pub granted_access: u32,
    /// ChannelSequence, with 3.x.
    pub channel_sequence: u16,
    /// Its target.
    pub target: Target,
    /// Set when its session, tree connect or connection has ended.
    pub closing: Option<Closing>,
    /// Set if it survives its connection.
    pub durable: Option<Durable>,
    /// Set if its CREATE had a CreateGuid, whether it is durable or not.
    pub create: Option<CreateId>,
}

impl Open {
    /// Returns whether it has lost its connection and is kept for a reconnect.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        let holding = self.durable.map(|durable| durable.holding);
        self.closing.is_none() && !matches!(holding, None | Some(Holding::Connected))
    }

    /// Returns whether no open of another client closes it while it has no connection.
    #[must_use]
    pub fn is_resilient(&self) -> bool {
        let survival = self.durable.map(|durable| durable.survival);
        !matches!(survival, None | Some(Survival::Durable))
    }

    /// Returns whether it is kept when its connection or session ends. A durable one must have a batch oplock or a
    /// lease with HANDLE caching, without a break in progress, and the file must not be delete-pending.
    pub(crate) fn outlives_connection(&self) -> bool {
        let Target::File(file) = &self.target else {
            return false;
        };
        if self.is_resilient() {
            return self.closing.is_none();
        }
        let has_batch = file.oplock == OplockLevel::Batch && file.breaking.is_none();
        let has_handle = file
            .lease
            .is_some_and(|lease| lease.state.has(Caching::HANDLE) && lease.breaking.is_none());
        self.durable.is_some()
            && self.closing.is_none()
            && !file.delete_on_close
            && !file.delete_pending
            && !file.file_delete_pending
            && (has_batch || has_handle)
    }

    /// Processes the end of its connection or session: a task closes it, unless it is kept.
    pub(crate) fn lose_connection(&mut self) {
        if self.is_detached() {
            return;
        }
        let is_kept = self.outlives_connection();
        match &mut self.durable {
            Some(durable) if is_kept => durable.holding = Holding::Left,
            _ => drop(self.closing.get_or_insert_default()),
        }
    }
}

/// The server's half of the credit window (MS-SMB2 3.3.1.1): MessageIds in `low..high` that are not in `used` may be
/// used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credits {
    /// Every id below it has been used.
    pub low: u64,
    /// The first id that is not granted yet.
    pub high: u64,
    /// Used ids above `low`, one bit for each: the lowest bit of the first word is the first multiple of 64 at or
    /// below `low`.
    pub used: VecDeque<u64>,
}

impl Default for Credits {
    /// Makes a window with one credit, MessageId 0 (MS-SMB2 3.3.1.2).
    fn default() -> Credits {
        Credits {
            low: 0,
            high: 1,
            used: VecDeque::new(),
        }
    }
}

impl Credits {
    const WORD: u64 = u64::BITS as u64;

    /// Returns word and bit of an id at or above `low`.
    fn place(&self, id: u64) -> (usize, u64) {
        let word = id / Self::WORD - self.low / Self::WORD;
        (
            usize::try_from(word).unwrap_or(usize::MAX),
            1 << (id % Self::WORD),
        )
    }

    fn is_used(&self, id: u64) -> bool {
        let (word, bit) = self.place(id);
        self.used.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Returns whether this MessageId may be used with this charge (MS-SMB2 3.3.5.2.3).
    #[must_use]
    pub fn allows(&self, id: u64, charge: u16) -> bool {
        let end = id.saturating_add(u64::from(charge.max(1)));
        id >= self.low && end <= self.high && !(id..end).any(|id| self.is_used(id))
    }

    /// Uses the MessageId. Ids that were not granted are ignored.
    pub fn take(&mut self, id: u64, charge: u16) {
        let end = id.saturating_add(u64::from(charge.max(1)));
        for id in id.max(self.low)..end.min(self.high) {
            let (word, bit) = self.place(id);
            if self.used.len() <= word {
                self.used.resize(word + 1, 0);
            }
            if let Some(word) = self.used.get_mut(word) {
                *word |= bit;
            }
        }
        while self.low < self.high && self.is_used(self.low) {
            self.pass_low();
        }
        if self.used.iter().all(|word| *word == 0) {
            self.used.clear();
        }
    }

    /// Removes the lowest id, which has been used.
    fn pass_low(&mut self) {
        let (word, bit) = self.place(self.low);
        if let Some(word) = self.used.get_mut(word) {
            *word &= !bit;
        }
        self.low += 1;
        if self.low.is_multiple_of(Self::WORD) {
            self.used.pop_front();
        }
    }

    /// Grants this many more credits.
    pub(crate) fn grant(&mut self, credits: u16) {
        self.high = self.high.saturating_add(credits.into());
    }

    /// Returns the number of credits that the client holds.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        let used = self.used.iter().map(|word| u64::from(word.count_ones()));
        (self.high.saturating_sub(self.low)).saturating_sub(used.sum())
    }

    /// Returns whether ids are marked as used that were not granted.
    fn is_contradictory(&self) -> bool {
        let first = self.low - self.low % Self::WORD;
        let Some(last) = self.used.iter().rposition(|word| *word != 0) else {
            return self.low > self.high;
        };
        let bit = self.used.get(last).map_or(0, |word| word.ilog2());
        let highest = first
            .saturating_add(Self::WORD.saturating_mul(last as u64))
            .saturating_add(bit.into());
        self.low > self.high || highest >= self.high
    }
}

/// An operation in progress: its intent is on record (point 2), its result is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// The open that it acts on; for a CREATE, the one that it will make.
    pub id: OpenId,
    /// The intent.
    pub intent: Intent,
}

/// What a related component inherits (MS-SMB2 3.3.5.2.7.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    /// SessionId.
    pub session: u64,
    /// TreeId.
    pub tree: u32,
    /// The open the chain is about.
    pub open: Option<OpenId>,
    /// The status of a failed CREATE of the chain.
    pub failed: Option<NtStatus>,
}

/// The answer to one component, without padding and signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Header; NextCommand and Signature are set when the message is assembled.
    pub header: Header,
    /// It must be signed with the key of the header's session.
    pub sign: bool,
    /// Body.
    pub body: Vec<u8>,
}

/// The progress of a message. Kept until its last reply is final.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The number of crashes of the server during the component in progress (law 5).
    pub attempts: u32,
    /// Its MessageIds have been taken out of the window.
    pub admitted: bool,
    /// The session by whose keys the message was encrypted.
    pub sealed: Option<u64>,
    /// Index of the component in progress.
    pub next: u32,
    /// Answers to the components before it that are not sent yet.
    pub answers: Vec<Answer>,
    /// What a related component inherits.
    pub related: Related,
    /// The id that a CREATE that has waited will give its open.
    pub drawn: Option<OpenId>,
    /// The file operation in progress.
    pub doing: Option<Doing>,
    /// The number of completed parts of a component that takes several operations (FSCTL_SRV_COPYCHUNK).
    pub parts_done: u32,
}

/// The event that a parked request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// LOCK: the release of conflicting locks on this file.
    Lock(FileKey),
    /// CREATE, rename: the end of an oplock or lease break on this file.
    Break(FileKey),
    /// CHANGE_NOTIFY: a change to report by this open.
    Notify(OpenId),
    /// READ: data in the pipe of this open.
    Pipe(OpenId),
}

/// A waiting request (MS-SMB2 3.3.4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The message as received, decrypted.
    pub message: Vec<u8>,
    /// Its progress.
    pub work: Work,
    /// MessageId of the component that waits, for CANCEL.
    pub message_id: u64,
    /// SessionId of the component that waits.
    pub session: u64,
    /// TreeId of the component that waits.
    pub tree: u32,
    /// The open that it acts on, if any.
    pub open: Option<OpenId>,
    /// An interim response with this request's AsyncId has been sent.
    pub interim: bool,
    /// The event that it waits for.
    pub wait: Wait,
    /// The status with which it must end, if it is cancelled.
    pub cancelled: Option<NtStatus>,
    /// Its component in progress is being executed.
    pub running: bool,
}

/// The durable state of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The client's address.
    pub client: IpAddr,
    /// The TCP connection has ended; only the close of its opens remains.
    pub gone: bool,
    /// The result of NEGOTIATE.
    pub negotiation: Negotiation,
    /// Credits.
    pub credits: Credits,
    /// Sessions by SessionId.
    pub sessions: BTreeMap<u64, Session>,
    /// Opens.
    pub opens: BTreeMap<OpenId, Open>,
    /// The message in progress.
    pub work: Option<Work>,
    /// Requests that wait, by AsyncId.
    pub parked: BTreeMap<u64, Parked>,
}

impl Connection {
    /// Iterates over the valid sessions.
    pub(crate) fn valid_sessions(&self) -> impl Iterator<Item = &Session> {
        let sessions = self.sessions.values();
        sessions.filter(|session| session.security.state == SessionState::Valid)
    }

    /// Makes a connection that has just been accepted.
    #[must_use]
    pub fn new(client: IpAddr) -> Connection {
        Connection {
            client,
            gone: false,
            negotiation: Negotiation::default(),
            credits: Credits::default(),
            sessions: BTreeMap::new(),
            opens: BTreeMap::new(),
            work: None,
            parked: BTreeMap::new(),
        }
    }
}

/// The whole durable state of one connection, as its snapshot holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint(pub Connection);

impl Checkpoint {
    /// Returns what in the state is impossible, so that a damaged log is refused; `None`: it is possible.
    #[must_use]
    pub fn contradiction(&self) -> Option<&'static str> {
        let Connection {
            credits,
            sessions,
            opens,
            ..
        } = &self.0;
        if credits.is_contradictory() {
            return Some("message ids used that were not granted");
        }
        // Nonces are used one by one: no key is used so often.
        if sessions
            .values()
            .any(|session| session.nonces > u64::MAX / 2)
        {
            return Some("more nonces spent than there can be");
        }
        let named = opens.iter().all(|(id, open)| *id == open.id);
        (!named).then_some("an open under another's id")
    }
}
