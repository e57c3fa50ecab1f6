//! Sends SMB messages on live connections: the framing, the parser, and every command on a session with trees and
//! opens, protected as the session requires. The file system is a small one in memory; the loop's part is simulated.

#[path = "../../../smb/src/engine/tests/client.rs"]
#[allow(dead_code, reason = "the requests here are made of choices")]
mod client;
mod requests;
mod world;

pub(crate) use world::config;

use crate::files::Files;
use crate::input::Input;
use client::{Ask, Client, Opening, Protection, lock, read, write};
use outlast::server::inbound::{self, Inbound};
use outlast_fsa::fileop::{Change, ChangeKind};
use outlast_smb::wire::{Command, Flags, header};
use requests::About;
use std::collections::VecDeque;
use std::time::Duration;
use world::{BEN, BEN_SESSION, PRECIOUS, World};

const STEPS: usize = 24;
/// Bytes of all replies to one input.
const REPLIES_BYTES: usize = 64 << 20;

/// The attacker: a session that exists from the beginning, or a new connection.
struct Attacker {
    client: Client,
    opens: Vec<u64>,
    async_ids: Vec<u64>,
    /// Its last token from the server.
    token: Vec<u8>,
    replied_bytes: usize,
}

impl Attacker {
    fn new(world: &mut World, input: &mut Input<'_>) -> Attacker {
        let protection = match input.below(8) {
            0 => None,
            1..4 => Some(Protection::Plain),
            4..6 => Some(Protection::Signed),
            _ => Some(Protection::Encrypted),
        };
        let mut attacker = Attacker {
            client: match protection {
                None => world.unauthenticated(),
                Some(protection) => world.session(protection, input.byte()),
            },
            opens: Vec::new(),
            async_ids: Vec::new(),
            token: Vec::new(),
            replied_bytes: 0,
        };
        if protection.is_some() {
            for (name, options, oplock, tree) in [
                ("f", 0, 9, 1),
                ("d", 1, 0, 1),
                ("d\\f", 0, 0, 1),
                ("srvsvc", 0, 0, 2),
            ] {
                let mut opening = Opening::of(name);
                opening.options = options;
                opening.oplock = oplock;
                attacker.client.tree = tree;
                attacker.say(world, &[opening.ask()]);
            }
            attacker.client.tree = 1;
        }
        attacker
    }

    fn say(&mut self, world: &mut World, asks: &[Ask]) {
        let message = self.client.message(asks);
        world.deliver(self.client.conn, &message.into());
        self.listen(world);
    }

    /// Requests, edited before they are protected.
    fn ask(&mut self, world: &mut World, input: &mut Input<'_>) {
        let about = About {
            opens: &self.opens,
            async_ids: &self.async_ids,
            challenge: auth_challenge(&self.token),
        };
        let mut asks = Vec::new();
        for index in 0..1 + input.below(6).saturating_sub(2) {
            let mut ask = requests::ask(input, &about);
            let rare = input.byte();
            ask.related = index > 0 && rare & 3 != 0;
            if rare & 0xf0 == 0xf0 {
                ask.charge = input.u16();
            }
            if rare & 0xf0 == 0xe0 {
                ask.message_id = Some(input.number());
            }
            asks.push(ask);
        }
        self.client.tree = input.pick(&[1, 1, 1, 1, 1, 2, 2, 3]);
        let protection = std::mem::replace(&mut self.client.protection, Protection::Plain);
        let mut message = self.client.message(&asks).to_vec();
        self.client.protection = protection;
        if input.byte() & 3 == 3 {
            input.edit(&mut message);
        }
        let protection = match input.byte() {
            0..240 => protection,
            _ => input.pick(&[Protection::Plain, Protection::Signed, Protection::Encrypted]),
        };
        let mut message = protect(&mut self.client, protection, message);
        if input.byte() > 240 {
            input.edit(&mut message);
        }
        world.deliver(self.client.conn, &message.into());
        self.listen(world);
    }

    /// Bytes of the stream, in pieces as TCP delivers them.
    fn stream(&mut self, world: &mut World, input: &mut Input<'_>) {
        let mut received = VecDeque::new();
        for _ in 0..1 + input.below(6) {
            let mut piece = input.bytes().to_vec();
            if input.yes() {
                let length = input.number() as u32;
                piece.splice(0..0, length.to_be_bytes());
            }
            received.push_back(bytes::Bytes::from(piece));
        }
        let longest = if input.yes() { usize::MAX } else { 100 };
        for _ in 0..STEPS {
            let queued = received.iter().map(bytes::Bytes::len).sum();
            let length = match inbound::front(&received, queued, longest) {
                Inbound::Partial => return,
                Inbound::KeepAlive(length) => length,
                Inbound::Whole(message) => {
                    world.deliver(self.client.conn, &message.bytes);
                    self.listen(world);
                    assert!(message.stream_bytes > message.bytes.len());
                    message.stream_bytes
                }
                Inbound::Malformed(_) | Inbound::TooLong(_) => {
                    world.disconnect(self.client.conn);
                    return;
                }
            };
            consume(&mut received, length);
        }
    }

    /// Checks the answers: well-formed, and without data that the attacker must not see.
    fn listen(&mut self, world: &mut World) {
        for message in world.received(self.client.conn) {
            self.replied_bytes += message.len();
            assert!(
                self.replied_bytes < REPLIES_BYTES,
                "more replies than requests justify"
            );
            let length = u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize;
            assert_eq!(
                (message[0], length),
                (0, message.len() - 4),
                "the transport header"
            );
            assert!(!contains(&message, PRECIOUS), "somebody else's data");
            let mut message = &message[4..];
            let opened;
            if message.starts_with(&[0xFD])
                && let Some(key) = &self.client.mirrored.decryption
                && let Ok(plain) = key.open(message)
            {
                opened = plain;
                assert!(!contains(&opened, PRECIOUS), "somebody else's data");
                message = &opened;
            }
            self.learn(message);
        }
    }

    fn learn(&mut self, mut message: &[u8]) {
        if !message.starts_with(&[0xFE]) {
            return;
        }
        loop {
            let head = header::Header::parse(message).expect("a header");
            let (this, rest) = match head.next_command as usize {
                0 => (message, &[][..]),
                next => {
                    assert!(next.is_multiple_of(8), "responses are aligned");
                    message.split_at(next)
                }
            };
            assert!(
                head.flags.contains(Flags::SERVER_TO_REDIR),
                "a response that is none"
            );
            let body = &this[header::LEN..];
            if head.command == Command::CREATE && body.len() >= 80 {
                self.opens.push(u64::from_le_bytes(
                    body[64..72].try_into().expect("eight bytes"),
                ));
            }
            if let outlast_smb::wire::Route::Async { async_id } = head.route {
                self.async_ids.push(async_id);
            }
            if head.command == Command::SESSION_SETUP {
                self.token = body.to_vec();
                self.client.session = head.session_id;
            }
            if rest.is_empty() {
                return;
            }
            message = rest;
        }
    }
}

fn auth_challenge(token: &[u8]) -> Option<&[u8]> {
    crate::auth::challenge(token).filter(|challenge| challenge.len() >= 56)
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn consume(received: &mut VecDeque<bytes::Bytes>, mut length: usize) {
    while let Some(piece) = received.front_mut() {
        if piece.len() > length {
            bytes::Buf::advance(piece, length);
            return;
        }
        length -= piece.len();
        received.pop_front();
    }
}

/// Signs each request of a message, as far as it can be parsed, or encrypts the whole.
fn protect(client: &mut Client, protection: Protection, mut message: Vec<u8>) -> Vec<u8> {
    match protection {
        Protection::Plain => {}
        Protection::Signed => {
            let mut start = 0;
            while start + header::LEN <= message.len() {
                let next = u32::from_le_bytes(
                    message[start + 20..start + 24]
                        .try_into()
                        .expect("four bytes"),
                );
                let end = match next as usize {
                    0 => message.len(),
                    next => start.saturating_add(next).min(message.len()),
                };
                message[start + 16] |= Flags::SIGNED.0 as u8;
                if end <= start {
                    break;
                }
                client
                    .keys
                    .signing
                    .sign::<&[u8]>(&mut message[start..end], &[]);
                start = end;
            }
        }
        Protection::Encrypted => {
            client.nonce += 1;
            if let Some(key) = &client.mirrored.encryption {
                message = key.seal(client.session, client.nonce, &[&message]);
            }
        }
    }
    message
}

/// Checks, for any input, that limits hold, the state is the fold of the records, and another client's session is
/// undisturbed.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    let mut ben = world.ben();
    world.crash_in = match input.byte() {
        0..128 => None,
        points => Some(points - 128),
    };
    let mut attacker = Attacker::new(&mut world, &mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(16) {
            0 => {
                let message = input.bytes().to_vec();
                world.deliver(attacker.client.conn, &message.into());
                attacker.listen(&mut world);
            }
            1 => attacker.stream(&mut world, &mut input),
            2 => world.pass(Duration::from_millis(input.number() % 100_000)),
            3 => world.recover(),
            4 => {
                world.disconnect(attacker.client.conn);
                attacker = Attacker::new(&mut world, &mut input);
            }
            5 => world.local_change(&Change {
                share: 0,
                path: input.pick(&["f", "d/f", "d/new", "d"]).to_owned(),
                is_dir: input.yes(),
                kind: match input.below(4) {
                    0 => ChangeKind::Added,
                    1 => ChangeKind::Removed,
                    2 => ChangeKind::Modified(input.u32()),
                    _ => ChangeKind::RenamedTo("d/x".into()),
                },
            }),
            _ => attacker.ask(&mut world, &mut input),
        }
        attacker.listen(&mut world);
        world.check_limits();
        if world.is_gone(attacker.client.conn) {
            world.disconnect(attacker.client.conn);
            attacker = Attacker::new(&mut world, &mut input);
        }
    }
    world.crash_in = None;
    works(&mut world, &mut ben);
}

/// Ben reads, writes, and holds his lock.
fn works(world: &mut World, ben: &mut Client) {
    assert_eq!(
        world.received(BEN),
        Vec::<Vec<u8>>::new(),
        "ben is sent something"
    );
    assert_eq!(world.files.data(1, "mine"), Some(PRECIOUS), "ben's file");
    let open = world.bens_open;
    for (ask, wanted) in [
        (read(open, 0, 100), PRECIOUS),
        (write(open, 0, b"more"), &b""[..]),
        (lock(open, &[(0, 4, client::UNLOCK)]), b""),
        (client::close(open), b""),
    ] {
        let message = ben.message(&[ask]);
        world.deliver(BEN, &message.into());
        let replies = world.received(BEN);
        assert_eq!(replies.len(), 1, "one answer");
        let response = &ben.responses(&replies[0])[0];
        assert_eq!(response.status(), outlast_fsa::status::NtStatus::SUCCESS);
        if !wanted.is_empty() {
            assert_eq!(response.data(), wanted);
        }
    }
}

/// The log of busy clients: their records, their files, and the unanswered message of the second one, whose operation
/// is under way.
pub(crate) struct History {
    pub(crate) records: Vec<(u64, outlast_smb::Record)>,
    pub(crate) files: Files,
    pub(crate) in_hand: (u64, Vec<u8>),
}

/// Sessions with files open and locked, a waiting lock and notify, a pending break, a write under way.
pub(crate) fn history() -> History {
    let mut world = World::new();
    world.ben();
    let mut busy = Attacker::new(&mut world, &mut Input::new(&[4, 0]));
    let (file, directory) = (busy.opens[0], busy.opens[1]);
    let requests = [
        lock(file, &[(0, 10, client::EXCLUSIVE_LOCK)]),
        write(file, 0, b"some bytes"),
        client::notify(directory, 0xfff, true),
    ];
    for request in requests {
        busy.say(&mut world, &[request]);
    }
    let mut other = Attacker::new(&mut world, &mut Input::new(&[6, 1]));
    let open = other.opens.first().copied();
    if let Some(open) = open {
        other.say(
            &mut world,
            &[lock(open, &[(0, 10, client::EXCLUSIVE_LOCK)])],
        );
    }
    let message = busy.client.message(&[write(file, 5, b"and more of them")]);
    world.begin(busy.client.conn, &message.clone().into());
    let mut framed = outlast_smb::wire::frame::encode(message.len()).to_vec();
    framed.extend_from_slice(&message);
    History {
        records: world.history,
        files: world.files,
        in_hand: (busy.client.conn, framed),
    }
}

/// A NEGOTIATE, framed.
pub(crate) fn greeting() -> Vec<u8> {
    let mut world = World::new();
    let mut client = world.unauthenticated();
    let about = About {
        opens: &[],
        async_ids: &[],
        challenge: None,
    };
    let message = client.message(&[requests::ask(&mut Input::new(&[20, 1]), &about)]);
    let mut framed = outlast_smb::wire::frame::encode(message.len()).to_vec();
    framed.extend_from_slice(&message);
    framed
}

/// A request of each kind under each protection, and each of the other steps.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for protection in [0_u8, 1, 4, 6] {
        for kind in 0..22_u8 {
            for rest in [0_u8, 1, 2, 33] {
                // No crash, protection, dialect; a step of one request: its kind and what it is made of.
                let mut seed = vec![0, protection, rest];
                for step in 0..3 {
                    seed.extend([
                        6, 0, kind, rest, step, 0, 5, 0, 200, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                    ]);
                }
                seeds.push(seed);
            }
        }
        for step in 0..6_u8 {
            seeds.push(vec![
                0, protection, 0, step, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 6, 0, 13, 1, 0, 50, 1, 5, 0,
                0, 0,
            ]);
        }
    }
    // An SMB1 NEGOTIATE.
    let mut smb1 = vec![0xFF, b'S', b'M', b'B', 0x72];
    smb1.extend([0; 27]);
    smb1.extend([0, 22, 0]);
    smb1.extend(b"\x02SMB 2.002\0\x02SMB 2.???\0");
    let mut seed = vec![0, 0, 0, smb1.len() as u8];
    seed.extend(&smb1);
    seeds.push(seed);
    seeds
}
