//! Implements a small SMB2 client: one TCP connection, one session, messages signed or encrypted, every response
//! checked.

use std::collections::{BTreeMap, BTreeSet};

use outlast_smb::Dialect;
use outlast_smb::crypto::{Cipher, PreauthHash, Secret, SessionKeys, SigningAlgorithm};

use crate::ntlm;
use crate::request::{self, Body, command};
use crate::status;

const HEADER_LEN: usize = 64;
const TRANSFORM_LEN: usize = 52;
/// SMB2_FLAGS_SERVER_TO_REDIR, ASYNC_COMMAND, RELATED_OPERATIONS, SIGNED (MS-SMB2 2.2.1).
const RESPONSE: u32 = 1;
const ASYNC: u32 = 2;
const FLAG_RELATED: u32 = 4;
const SIGNED: u32 = 8;
/// The credits that each request asks for.
const CREDITS: u16 = 32;

/// The protocol options of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// DialectRevision.
    pub dialect: Dialect,
    /// The cipher.
    pub cipher: Cipher,
    /// The signing algorithm.
    pub signing: SigningAlgorithm,
    /// Messages are encrypted, not signed.
    pub sealed: bool,
    /// The maximum number of outstanding requests.
    pub depth: usize,
    /// It logs off at the end; if not, it only closes its connection.
    pub logs_off: bool,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status.
    pub status: u32,
    /// Command.
    pub command: u16,
    /// MessageId.
    pub message_id: u64,
    /// CreditResponse.
    pub credits: u16,
    /// SMB2_FLAGS_ASYNC_COMMAND.
    pub is_async: bool,
    /// SessionId.
    pub session: u64,
    /// TreeId, or the upper half of the AsyncId.
    pub tree: u32,
    /// The body after the header.
    pub body: Vec<u8>,
    whole: Vec<u8>,
}

struct Session {
    id: u64,
    keys: SessionKeys,
}

/// A session whose SESSION_SETUP is in progress.
struct Login {
    preauth: PreauthHash,
    key: Option<[u8; 16]>,
    id: u64,
}

/// The protocol layer of a client. The player decides what to send and checks the answers.
pub struct Client {
    profile: Profile,
    inbox: Vec<u8>,
    /// Bytes for TCP.
    pub outbox: Vec<u8>,
    next_message_id: u64,
    credits: u64,
    /// Requests without a final response.
    waiting: BTreeMap<u64, u16>,
    /// Requests that have had an interim response.
    interim: BTreeSet<u64>,
    session: Option<Session>,
    login: Option<Login>,
    preauth: PreauthHash,
    tree: u32,
    sealed_so_far: u64,
    nonces: BTreeSet<(u64, [u8; 16])>,
    /// A second session, if there is one.
    second: Option<Session>,
}

impl Client {
    /// Makes a client that has not sent anything.
    #[must_use]
    pub fn new(profile: Profile) -> Client {
        Client {
            profile,
            inbox: Vec::new(),
            outbox: Vec::new(),
            next_message_id: 0,
            credits: 1,
            waiting: BTreeMap::new(),
            interim: BTreeSet::new(),
            session: None,
            login: None,
            preauth: PreauthHash::START,
            tree: 0,
            sealed_so_far: 0,
            nonces: BTreeSet::new(),
            second: None,
        }
    }

    /// Returns its protocol options.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Returns whether it has credits for so many requests.
    #[must_use]
    pub fn may_send(&self, requests: usize) -> bool {
        self.credits >= requests as u64
    }

    /// Returns the number of requests without a final response.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether a request has neither a final nor an interim response.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.len() > self.interim.len()
    }

    /// Sends NEGOTIATE.
    pub fn negotiate(&mut self, salt: u8) -> u64 {
        let Profile {
            dialect,
            cipher,
            signing,
            ..
        } = self.profile;
        let body = request::negotiate(dialect.revision(), cipher.id(), signing.id(), salt);
        self.send(&[body], 0)
    }

    /// Sends the first SESSION_SETUP of a login.
    pub fn begin_login(&mut self) -> u64 {
        self.login = Some(Login {
            preauth: self.preauth.clone(),
            key: None,
            id: 0,
        });
        self.send(&[request::session_setup(&ntlm::negotiate())], 0)
    }

    /// Sends the second SESSION_SETUP. `response`: the answer to the first.
    ///
    /// # Panics
    /// The answer is not a challenge.
    pub fn answer_challenge(&mut self, response: &Response, user: &str, password: &str) -> u64 {
        assert_eq!(
            response.status,
            status::MORE_PROCESSING_REQUIRED,
            "no challenge: {response:x?}"
        );
        let offset = usize::from(u16::from_le_bytes([response.body[4], response.body[5]]));
        let challenge = &response.body[offset - HEADER_LEN..];
        let (token, key) = ntlm::authenticate(challenge, user, password);
        let login = self.login.as_mut().expect("a login is in progress");
        login.preauth.update(&[&response.whole]);
        login.key = Some(key);
        login.id = response.session;
        let id = response.session;
        self.send(&[request::session_setup(&token)], id)
    }

    /// Completes an accepted login: its keys are used from now on. All operations use the first session; the second one
    /// is only set up and ended.
    ///
    /// # Panics
    /// The login was refused, or its response is not signed.
    pub fn logged_in(&mut self, response: &Response) {
        assert_eq!(response.status, status::SUCCESS, "login: {response:x?}");
        let login = self.login.take().expect("a login is in progress");
        let Profile {
            dialect,
            cipher,
            signing,
            ..
        } = self.profile;
        let cipher = match dialect {
            Dialect::Smb311 => Some(cipher),
            Dialect::Smb300 | Dialect::Smb302 => Some(Cipher::Aes128Ccm),
            _ => None,
        };
        let secret = Secret::from(login.key.expect("the challenge was answered"));
        let keys = SessionKeys::derive(dialect, signing, cipher, &secret, &login.preauth);
        assert!(
            keys.signing.verify(&response.whole),
            "the last SESSION_SETUP response's signature is wrong"
        );
        let session = Session { id: login.id, keys };
        if self.session.is_none() {
            self.session = Some(session);
        } else {
            self.second = Some(session);
        }
    }

    /// Ends a login that was refused.
    pub fn refused(&mut self) {
        self.login = None;
    }

    /// Sends TREE_CONNECT.
    pub fn connect_tree(&mut self, share: &str) -> u64 {
        self.ask(&[request::tree_connect(share)])
    }

    /// Stores the TreeId of a connected tree.
    pub fn tree_connected(&mut self, response: &Response) {
        assert_eq!(response.status, status::SUCCESS, "tree: {response:x?}");
        self.tree = response.tree;
    }

    /// Sends TREE_DISCONNECT of a tree other than the one in use.
    pub fn disconnect_tree(&mut self, tree: u32) -> u64 {
        let own = std::mem::replace(&mut self.tree, tree);
        let message = self.ask(&[request::bare(command::TREE_DISCONNECT)]);
        self.tree = own;
        message
    }

    /// Sends a message in the session: one request, or several, each related to the first. Returns the first MessageId.
    pub fn ask(&mut self, bodies: &[Body]) -> u64 {
        let id = self.session.as_ref().map_or(0, |session| session.id);
        self.send(bodies, id)
    }

    /// Sends LOGOFF of the second session.
    ///
    /// # Panics
    /// There is no second session.
    pub fn log_off_second(&mut self) -> u64 {
        let id = self.second.as_ref().expect("a second session").id;
        self.send(&[request::bare(command::LOGOFF)], id)
    }

    /// Removes the second session, which has ended.
    pub fn second_ended(&mut self) {
        self.second = None;
    }

    /// Sends CANCEL of a request that waits. CANCEL itself has no response.
    pub fn cancel(&mut self, message_id: u64) {
        let mut message = self.header(command::CANCEL, message_id, 0, 0);
        message.extend([4, 0, 0, 0]);
        let session = self.session.as_ref().map_or(0, |session| session.id);
        message[40..48].copy_from_slice(&session.to_le_bytes());
        self.protect_and_queue(vec![message], session);
    }

    fn header(&self, command: u16, message_id: u64, charge: u16, credits: u16) -> Vec<u8> {
        let mut header = vec![0; HEADER_LEN];
        header[..4].copy_from_slice(b"\xFESMB");
        header[4] = 64;
        header[6..8].copy_from_slice(&charge.to_le_bytes());
        header[12..14].copy_from_slice(&command.to_le_bytes());
        header[14..16].copy_from_slice(&credits.to_le_bytes());
        header[24..32].copy_from_slice(&message_id.to_le_bytes());
        header[36..40].copy_from_slice(&self.tree.to_le_bytes());
        header
    }

    fn send(&mut self, bodies: &[Body], session: u64) -> u64 {
        let first = self.next_message_id;
        let count = bodies.len();
        let mut messages = Vec::new();
        for (index, (command, body)) in bodies.iter().enumerate() {
            let id = self.next_message_id;
            self.next_message_id += 1;
            self.credits -= 1;
            assert!(self.waiting.insert(id, *command).is_none());
            let mut message = self.header(*command, id, 1, CREDITS);
            message[40..48].copy_from_slice(&session.to_le_bytes());
            message.extend_from_slice(body);
            if index > 0 {
                message[16] |= FLAG_RELATED as u8;
            }
            if index + 1 < count {
                message.resize(message.len().next_multiple_of(8), 0);
                let next = message.len() as u32;
                message[20..24].copy_from_slice(&next.to_le_bytes());
            }
            messages.push(message);
        }
        if self.profile.dialect == Dialect::Smb311 {
            if bodies[0].0 == command::NEGOTIATE {
                self.preauth.update(&messages);
            }
            if let (command::SESSION_SETUP, Some(login)) = (bodies[0].0, self.login.as_mut()) {
                login.preauth.update(&messages);
            }
        }
        self.protect_and_queue(messages, session);
        first
    }

    fn protect_and_queue(&mut self, mut messages: Vec<Vec<u8>>, session: u64) {
        let keys = self.keys(session).cloned();
        let bytes = match keys {
            Some(keys) if self.profile.sealed => {
                self.sealed_so_far += 1;
                let key = keys.decryption.as_ref().expect("a dialect that encrypts");
                key.seal(session, self.sealed_so_far, &messages)
            }
            Some(keys) => {
                for message in &mut messages {
                    message[16] |= SIGNED as u8;
                    keys.signing.sign::<&[u8]>(message, &[]);
                }
                messages.concat()
            }
            None => messages.concat(),
        };
        let length = (bytes.len() as u32).to_be_bytes();
        self.outbox.extend(length);
        self.outbox.extend(bytes);
    }

    fn keys(&self, session: u64) -> Option<&SessionKeys> {
        let sessions = [self.session.as_ref(), self.second.as_ref()];
        let mut sessions = sessions.into_iter().flatten();
        sessions.find(|it| it.id == session).map(|it| &it.keys)
    }

    /// Processes bytes from TCP, and returns the responses and notifications that are complete now.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Response> {
        self.inbox.extend_from_slice(bytes);
        let mut responses = Vec::new();
        while let Some(length) = self.inbox.first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if self.inbox.len() < 4 + length {
                break;
            }
            let message: Vec<u8> = self.inbox.drain(..4 + length).skip(4).collect();
            self.message(&message, &mut responses);
        }
        responses
    }

    /// Returns whether no part of an incomplete message is left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.inbox.is_empty()
    }

    fn message(&mut self, message: &[u8], responses: &mut Vec<Response>) {
        if message.starts_with(b"\xFDSMB") {
            let session = u64::from_le_bytes(message[44..52].try_into().expect("eight"));
            let nonce: [u8; 16] = message[20..36].try_into().expect("sixteen");
            assert!(
                self.nonces.insert((session, nonce)),
                "a nonce is used twice: {nonce:x?}"
            );
            let keys = self.keys(session).expect("a message of a known session");
            let key = keys.encryption.as_ref().expect("a dialect that encrypts");
            let plain = key.open(message).expect("an authentic message");
            assert_eq!(plain.len(), message.len() - TRANSFORM_LEN);
            return self.components(&plain, true, responses);
        }
        self.components(message, false, responses);
    }

    fn components(&mut self, message: &[u8], sealed: bool, responses: &mut Vec<Response>) {
        assert!(message.starts_with(b"\xFESMB"), "not SMB2: {message:x?}");
        let mut rest = message;
        loop {
            let next = u32::from_le_bytes(rest[20..24].try_into().expect("four")) as usize;
            let end = if next == 0 { rest.len() } else { next };
            let response = self.response(&rest[..end], sealed);
            responses.push(response);
            if next == 0 {
                return;
            }
            rest = &rest[next..];
        }
    }

    fn response(&mut self, bytes: &[u8], sealed: bool) -> Response {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let flags = word(16);
        let response = Response {
            status: word(8),
            command: short(12),
            message_id: long(24),
            credits: short(14),
            is_async: flags & ASYNC != 0,
            session: long(40),
            tree: word(36),
            body: bytes[HEADER_LEN..].to_vec(),
            whole: bytes.to_vec(),
        };
        assert!(flags & RESPONSE != 0, "not a response: {response:x?}");
        self.credits += u64::from(response.credits);
        if response.message_id == u64::MAX {
            assert_eq!(response.command, command::OPLOCK_BREAK);
            return response;
        }
        let asked = self.waiting.get(&response.message_id);
        assert_eq!(
            asked,
            Some(&response.command),
            "a response without a request: {response:x?}"
        );
        if response.status == status::PENDING && response.is_async {
            assert!(
                self.interim.insert(response.message_id),
                "a second interim response: {response:x?}"
            );
            return response;
        }
        self.waiting.remove(&response.message_id);
        self.interim.remove(&response.message_id);
        let is_setup = matches!(
            response.command,
            command::NEGOTIATE | command::SESSION_SETUP
        );
        // The server has no keys of a session that has ended.
        let is_of_none = response.status == status::USER_SESSION_DELETED;
        if let (Some(keys), false) = (self.keys(response.session), is_setup || is_of_none) {
            assert_eq!(sealed, self.profile.sealed, "protection: {response:x?}");
            assert!(
                sealed || (flags & SIGNED != 0 && keys.signing.verify(bytes)),
                "the signature is wrong: {response:x?}"
            );
        }
        if response.command == command::NEGOTIATE && self.profile.dialect == Dialect::Smb311 {
            self.preauth.update(&[bytes]);
        }
        response
    }
}
