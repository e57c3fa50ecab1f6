//! Runs NEGOTIATE and SESSION_SETUP for a test client, handler by handler, without the engine.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::{BufMut, Bytes};

use crate::auth::{client::Client, nt_hash};
use crate::command::{Handled, Reply, Request, negotiate, session_setup as handler};
use crate::config::{Config, Limits, Oplocks, Requirement, Share, User};
use crate::context::Context;
use crate::entropy::Entropy;
use crate::record::Record;
use crate::server::{Clock, ConnId, Journal, Output, Smb};
use crate::state::{Security, SessionState};
use crate::tests::bytes::{from_bytes, to_bytes};
use crate::wire::negotiate::capabilities;
use crate::wire::session_setup;
use crate::wire::{self, Component, Dialect, Header, Response, header};
use outlast_fsa::status::NtStatus;

pub(crate) const CONN: ConnId = 9;

pub(crate) struct Fixed;

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(0x5A);
    }
}

/// The records, as the log keeps them.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) records: Vec<(ConnId, Vec<u8>)>,
    pub(crate) ids: u64,
}

impl Journal for Records {
    fn append(&mut self, conn: ConnId, record: &Record) {
        self.records.push((conn, to_bytes(record)));
    }

    fn unique_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

pub(crate) struct Server {
    pub(crate) smb: Smb,
    pub(crate) journal: Records,
}

pub(crate) fn config() -> Config {
    let user = |name: &str, password: &str| User {
        name: name.to_owned(),
        nt_hash: nt_hash(password),
    };
    Config {
        name: "OUTLAST".to_owned(),
        guid: [0xAB; 16],
        min_dialect: Dialect::Smb202,
        max_dialect: Dialect::Smb311,
        signing: Requirement::Enabled,
        encryption: Requirement::Enabled,
        oplocks: Oplocks::On,
        shares: Vec::new(),
        users: vec![user("alice", "secret"), user("bob", "secret")],
        limits: Limits::default(),
    }
}

pub(crate) fn with_guest_share(mut config: Config) -> Config {
    config.shares.push(Share {
        name: "pub".to_owned(),
        comment: String::new(),
        read_only: true,
        guest: true,
        users: Vec::new(),
        directory: 0,
        continuous_availability: false,
        encryption: Requirement::Enabled,
    });
    config
}

pub(crate) fn request(
    command: wire::Command,
    session: u64,
    body: &[u8],
) -> (Request, wire::Request) {
    let head = Header {
        credit_charge: 1,
        status: NtStatus::SUCCESS,
        command,
        credits: 1,
        flags: wire::Flags(0),
        next_command: 0,
        message_id: 0,
        route: wire::Route::Sync {
            process_id: 0,
            tree_id: 0,
        },
        session_id: session,
        signature: [0; 16],
    };
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    bytes.extend_from_slice(body);
    from_component(&bytes)
}

pub(crate) fn from_component(bytes: &[u8]) -> (Request, wire::Request) {
    let component = Component::new(Bytes::copy_from_slice(bytes)).unwrap();
    let body = wire::Request::parse(&component).unwrap();
    let request = Request {
        session: component.header.session_id,
        tree: 0,
        related_open: None,
        bytes: component.bytes.clone(),
        rest: component.rest.clone(),
        sealed: false,
        waited: None,
        drawn: None,
        intent: None,
        parts_done: 0,
        header: component.header,
    };
    (request, body)
}

/// The body of a NEGOTIATE request.
pub(crate) fn negotiate_body(
    dialects: &[u16],
    capabilities: u32,
    contexts: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16_le(36);
    body.put_u16_le(dialects.len() as u16);
    body.put_u16_le(1);
    body.put_u16_le(0);
    body.put_u32_le(capabilities);
    body.extend_from_slice(&[0xC1; 16]);
    let end = header::LEN + 36 + 2 * dialects.len();
    body.put_u32_le(end.next_multiple_of(8) as u32);
    body.put_u16_le(contexts.len() as u16);
    body.put_u16_le(0);
    dialects
        .iter()
        .for_each(|dialect| body.put_u16_le(*dialect));
    for (kind, data) in contexts {
        wire::pad(&mut body, 0, 8);
        body.put_u16_le(*kind);
        body.put_u16_le(data.len() as u16);
        body.put_u32_le(0);
        body.extend_from_slice(data);
    }
    body
}

pub(crate) const SHA_512: (u16, &[u8]) = (1, &[1, 0, 2, 0, 1, 0, 0xEE, 0xEE]);
pub(crate) const UNKNOWN: (u16, &[u8]) = (0x77, &[1, 2, 3]);

pub(crate) fn setup_body(security_mode: u8, previous: u64, token: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u16_le(25);
    body.put_u8(0);
    body.put_u8(security_mode);
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_u16_le(88);
    body.put_u16_le(token.len() as u16);
    body.put_u64_le(previous);
    body.extend_from_slice(token);
    body
}

impl Server {
    pub(crate) fn new(config: Config) -> Server {
        let mut server = Server {
            smb: Smb::new(config),
            journal: Records::default(),
        };
        server.connect(CONN);
        server
    }

    pub(crate) fn connect(&mut self, conn: ConnId) {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.smb.connected(conn, client, &mut self.journal);
    }

    pub(crate) fn with<T>(&mut self, conn: ConnId, call: impl FnOnce(&mut Context<'_>) -> T) -> T {
        call(&mut Context {
            smb: &mut self.smb,
            conn,
            clock: Clock {
                now: Duration::from_secs(1),
                wall: 77,
            },
            entropy: &mut Fixed,
            journal: &mut self.journal,
            out: &mut Output::default(),
        })
    }

    pub(crate) fn negotiate_on(&mut self, conn: ConnId, body: &[u8]) -> Result<Handled, NtStatus> {
        let (request, body) = request(wire::Command::NEGOTIATE, 0, body);
        let wire::Request::Negotiate(body) = body else {
            panic!("not a NEGOTIATE");
        };
        let handled = self.with(conn, |ctx| negotiate::start(ctx, &request, &body));
        if let Ok(Handled::Reply(reply)) = &handled {
            let bytes = encode(reply);
            self.with(conn, |ctx| negotiate::answered(ctx, &bytes));
        }
        handled
    }

    pub(crate) fn negotiate(&mut self, body: &[u8]) -> Result<wire::negotiate::Response, NtStatus> {
        match self.negotiate_on(CONN, body)? {
            Handled::Reply(Reply {
                response: Response::Negotiate(response),
                ..
            }) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn setup_on(
        &mut self,
        conn: ConnId,
        session: u64,
        body: &[u8],
    ) -> Result<Reply, NtStatus> {
        let (request, body) = request(wire::Command::SESSION_SETUP, session, body);
        let wire::Request::SessionSetup(body) = body else {
            panic!("not a SESSION_SETUP");
        };
        match self.with(conn, |ctx| handler::start(ctx, &request, &body))? {
            Handled::Reply(reply) => {
                if reply.status == NtStatus::MORE_PROCESSING_REQUIRED {
                    let bytes = encode(&reply);
                    let id = reply.session.unwrap();
                    self.with(conn, |ctx| handler::answered(ctx, id, &bytes));
                }
                Ok(reply)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Runs both rounds. Returns the session's id and flags, the client's session key, and the last reply.
    pub(crate) fn login_on(
        &mut self,
        conn: ConnId,
        session: u64,
        client: &Client,
        security_mode: u8,
        previous: u64,
    ) -> Result<(u64, u16, [u8; 16]), NtStatus> {
        let body = setup_body(security_mode, 0, &client.negotiate());
        let reply = self.setup_on(conn, session, &body)?;
        assert_eq!(reply.status, NtStatus::MORE_PROCESSING_REQUIRED);
        let id = reply.session.unwrap();
        let (token, key) = client.authenticate(&setup_of(&reply).security_buffer);
        let reply = self.setup_on(conn, id, &setup_body(security_mode, previous, &token))?;
        assert_eq!(reply.status, NtStatus::SUCCESS);
        assert_eq!(reply.session, Some(id));
        Ok((id, setup_of(&reply).session_flags, key))
    }

    pub(crate) fn login(&mut self, client: &Client) -> Result<(u64, u16, [u8; 16]), NtStatus> {
        self.login_on(CONN, 0, client, 1, 0)
    }

    pub(crate) fn security(&self, id: u64) -> &Security {
        &self.smb.connection(CONN).sessions[&id].security
    }

    pub(crate) fn is_over(&self, id: u64) -> bool {
        let session = self.smb.connection(CONN).sessions.get(&id);
        session.is_none_or(|session| session.security.state == SessionState::Ended)
    }

    /// Checks law 2.
    pub(crate) fn check_fold(&self) {
        let mut again = Smb::new(self.smb.config.clone());
        for (conn, record) in &self.journal.records {
            again.apply(*conn, &from_bytes(record).unwrap());
        }
        assert_eq!(again.checkpoint(CONN), self.smb.checkpoint(CONN));
    }
}

pub(crate) fn setup_of(reply: &Reply) -> &session_setup::Response {
    match &reply.response {
        Response::SessionSetup(response) => response,
        other => panic!("{other:?}"),
    }
}

/// Encodes a response with an arbitrary header.
pub(crate) fn encode(reply: &Reply) -> Vec<u8> {
    let mut out = vec![0x33; header::LEN];
    let payload = reply.response.encode(&mut out);
    assert!(payload.is_empty());
    out
}

pub(crate) const ALICE: Client = Client {
    user: "alice",
    domain: "WORKGROUP",
    proved_domain: "WORKGROUP",
    password: "secret",
    ..Client::DEFAULT
};

pub(crate) fn negotiated(config: Config, dialect: Dialect) -> Server {
    let mut server = Server::new(config);
    let contexts: &[(u16, &[u8])] = &[SHA_512, (2, &[1, 0, 2, 0]), (8, &[1, 0, 2, 0])];
    let body = negotiate_body(&[dialect.revision()], capabilities::ENCRYPTION, contexts);
    server.negotiate(&body).unwrap();
    server
}
