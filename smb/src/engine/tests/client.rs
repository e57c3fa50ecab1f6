//! Encodes requests and parses responses as a client does.

use crate::crypto::SessionKeys;
use crate::wire::create::lease_flags;
use crate::wire::{Command, Flags, Header, Route, header, utf16};
use bytes::{BufMut, Bytes};
use outlast_fsa::status::NtStatus;

/// A request: its body, and the fields of its header except the ids.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) command: Command,
    pub(super) body: Vec<u8>,
    pub(super) related: bool,
    pub(super) charge: u16,
    pub(super) async_id: Option<u64>,
    pub(super) message_id: Option<u64>,
    pub(super) channel_sequence: u16,
    pub(super) replayed: bool,
}

impl Ask {
    pub(super) fn new(command: Command, body: Vec<u8>) -> Ask {
        Ask {
            command,
            body,
            related: false,
            charge: 1,
            async_id: None,
            message_id: None,
            channel_sequence: 0,
            replayed: false,
        }
    }

    pub(super) fn replayed(mut self) -> Ask {
        self.replayed = true;
        self
    }

    pub(super) fn related(mut self) -> Ask {
        self.related = true;
        self
    }
}

/// The fields of a CREATE.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) name: &'a str,
    pub(super) access: u32,
    pub(super) share: u32,
    pub(super) disposition: u32,
    pub(super) options: u32,
    pub(super) oplock: u8,
}

pub(super) const OPEN: u32 = 1;
pub(super) const CREATE: u32 = 2;
pub(super) const OPEN_IF: u32 = 3;
pub(super) const OVERWRITE_IF: u32 = 5;
pub(super) const ALL: u32 = 0x001F_01FF;
pub(super) const LOOK: u32 = 0x0000_0080;
pub(super) const APPEND: u32 = 0x0000_0004;
/// All but DELETE.
pub(super) const KEEP: u32 = 0x001E_01FF;
pub(super) const SHARE_ALL: u32 = 7;
pub(super) const DELETE_ON_CLOSE: u32 = 0x1000;
pub(super) const DIRECTORY: u32 = 1;
pub(super) const BATCH: u8 = 9;
pub(super) const EXCLUSIVE: u8 = 8;
pub(super) const LEVEL_II: u8 = 1;
pub(super) const LEASE: u8 = 0xFF;

impl Opening<'_> {
    pub(super) fn of(name: &str) -> Opening<'_> {
        Opening {
            name,
            access: ALL,
            share: SHARE_ALL,
            disposition: OPEN_IF,
            options: 0,
            oplock: 0,
        }
    }

    pub(super) fn ask(self) -> Ask {
        Ask::new(Command::CREATE, self.body())
    }

    /// A CREATE with a lease of version 2; the bytes of its key are all `key`.
    pub(super) fn leasing(self, key: u8, state: u32, epoch: u16) -> Ask {
        self.leasing_below(key, state, epoch, None)
    }

    /// The same, with the key of the lease on the parent directory.
    pub(super) fn leasing_below(
        mut self,
        key: u8,
        state: u32,
        epoch: u16,
        parent: Option<u8>,
    ) -> Ask {
        self.oplock = LEASE;
        let mut data = vec![key; 16];
        data.put_u32_le(state);
        data.put_u32_le(parent.map_or(0, |_| lease_flags::PARENT_LEASE_KEY_SET));
        data.put_u64_le(0);
        data.put_bytes(parent.unwrap_or(0), 16);
        data.put_u16_le(epoch);
        data.put_u16_le(0);
        self.with_contexts(&[(b"RqLs", &data)])
    }

    /// A CREATE with a batch oplock and a durable handle context.
    pub(super) fn durable(mut self, name: &[u8; 4], data: &[u8]) -> Ask {
        self.oplock = BATCH;
        self.with_contexts(&[(name, data)])
    }

    /// A CREATE with these contexts.
    pub(super) fn with_contexts(self, contexts: &[(&[u8; 4], &[u8])]) -> Ask {
        let mut body = self.body();
        body.resize(body.len().next_multiple_of(8), 0);
        let start = body.len();
        for (index, (name, data)) in contexts.iter().enumerate() {
            let length = 24 + data.len();
            let next = match index + 1 < contexts.len() {
                true => length.next_multiple_of(8),
                false => 0,
            };
            body.put_u32_le(next as u32);
            for field in [16, 4, 0, 24] {
                body.put_u16_le(field);
            }
            body.put_u32_le(data.len() as u32);
            body.put_slice(*name);
            body.put_u32_le(0);
            body.put_slice(data);
            body.resize(body.len().max(start).next_multiple_of(8), 0);
        }
        let length = (body.len() - start) as u32;
        body[48..52].copy_from_slice(&(64 + start as u32).to_le_bytes());
        body[52..56].copy_from_slice(&length.to_le_bytes());
        Ask::new(Command::CREATE, body)
    }

    fn body(self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u16_le(57);
        body.put_u8(0);
        body.put_u8(self.oplock);
        body.put_u32_le(2);
        body.put_u64_le(0);
        body.put_u64_le(0);
        body.put_u32_le(self.access);
        body.put_u32_le(0);
        body.put_u32_le(self.share);
        body.put_u32_le(self.disposition);
        body.put_u32_le(self.options);
        body.put_u16_le(64 + 56);
        body.put_u16_le(utf16::len(self.name) as u16);
        body.put_u32_le(0);
        body.put_u32_le(0);
        utf16::push(self.name, &mut body);
        if self.name.is_empty() {
            body.put_u8(0);
        }
        body
    }
}

pub(super) const ANY: u64 = u64::MAX;

fn file_id(body: &mut Vec<u8>, open: u64) {
    body.put_u64_le(open);
    body.put_u64_le(open);
}

pub(super) fn close(open: u64) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(24);
    body.put_u16_le(1);
    body.put_u32_le(0);
    file_id(&mut body, open);
    Ask::new(Command::CLOSE, body)
}

pub(super) fn flush(open: u64) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(24);
    body.put_u16_le(0);
    body.put_u32_le(0);
    file_id(&mut body, open);
    Ask::new(Command::FLUSH, body)
}

pub(super) fn read(open: u64, offset: u64, length: u32) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(49);
    body.put_u16_le(0);
    body.put_u32_le(length);
    body.put_u64_le(offset);
    file_id(&mut body, open);
    body.put_bytes(0, 17);
    Ask::new(Command::READ, body)
}

pub(super) fn write(open: u64, offset: u64, data: &[u8]) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(49);
    body.put_u16_le(64 + 48);
    body.put_u32_le(data.len() as u32);
    body.put_u64_le(offset);
    file_id(&mut body, open);
    body.put_bytes(0, 16);
    body.extend_from_slice(data);
    Ask::new(Command::WRITE, body)
}

pub(super) const SHARED: u32 = 1;
pub(super) const EXCLUSIVE_LOCK: u32 = 2;
pub(super) const UNLOCK: u32 = 4;
pub(super) const NOW: u32 = 16;

pub(super) fn lock(open: u64, locks: &[(u64, u64, u32)]) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(48);
    body.put_u16_le(locks.len() as u16);
    body.put_u32_le(0);
    file_id(&mut body, open);
    for (offset, length, flags) in locks {
        body.put_u64_le(*offset);
        body.put_u64_le(*length);
        body.put_u32_le(*flags);
        body.put_u32_le(0);
    }
    Ask::new(Command::LOCK, body)
}

pub(super) fn notify(open: u64, filter: u32, recursive: bool) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(32);
    body.put_u16_le(recursive.into());
    body.put_u32_le(4096);
    file_id(&mut body, open);
    body.put_u32_le(filter);
    body.put_u32_le(0);
    Ask::new(Command::CHANGE_NOTIFY, body)
}

pub(super) fn acknowledge(open: u64, level: u8) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(24);
    body.put_u8(level);
    body.put_u8(0);
    body.put_u32_le(0);
    file_id(&mut body, open);
    Ask::new(Command::OPLOCK_BREAK, body)
}

pub(super) fn rename(open: u64, to: &str, replace: bool) -> Ask {
    set_info(open, 10, &new_name(to, replace))
}

/// FileLinkInformation.
pub(super) fn link(open: u64, to: &str) -> Ask {
    set_info(open, 11, &new_name(to, false))
}

fn new_name(to: &str, replace: bool) -> Vec<u8> {
    let mut info = Vec::new();
    info.put_u64_le(replace.into());
    info.put_u64_le(0);
    info.put_u32_le(utf16::len(to) as u32);
    utf16::push(to, &mut info);
    info
}

/// FileEndOfFileInformation.
pub(super) fn set_end_of_file(open: u64, end: u64) -> Ask {
    set_info(open, 20, &end.to_le_bytes())
}

/// FileDispositionInformation.
pub(super) fn set_delete(open: u64, on: bool) -> Ask {
    set_info(open, 13, &[on.into()])
}

fn set_info(open: u64, class: u8, info: &[u8]) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(33);
    body.put_u8(1);
    body.put_u8(class);
    body.put_u32_le(info.len() as u32);
    body.put_u16_le(64 + 32);
    body.put_u16_le(0);
    body.put_u32_le(0);
    file_id(&mut body, open);
    body.extend_from_slice(info);
    Ask::new(Command::SET_INFO, body)
}

/// An empty request of StructureSize 4.
/// A file system control.
pub(super) fn ioctl(code: u32, open: u64, input: &[u8]) -> Ask {
    let mut body = Vec::new();
    body.put_u16_le(57);
    body.put_u16_le(0);
    body.put_u32_le(code);
    body.put_u64_le(open);
    body.put_u64_le(open);
    body.put_u32_le(header::LEN as u32 + 56);
    body.put_u32_le(input.len() as u32);
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_u32_le(0);
    body.put_u32_le(4096);
    body.put_u32_le(1);
    body.put_u32_le(0);
    body.extend_from_slice(input);
    Ask::new(Command::IOCTL, body)
}

pub(super) fn empty(command: Command) -> Ask {
    Ask::new(command, vec![4, 0, 0, 0])
}

pub(super) fn tree_connect(share: &str) -> Ask {
    let path = format!("\\\\server\\{share}");
    let mut body = Vec::new();
    body.put_u16_le(9);
    body.put_u16_le(0);
    body.put_u16_le(64 + 8);
    body.put_u16_le(utf16::len(&path) as u16);
    utf16::push(&path, &mut body);
    Ask::new(Command::TREE_CONNECT, body)
}

/// The protection of a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    Plain,
    Signed,
    Encrypted,
}

/// The client's side of a session.
pub(super) struct Client {
    pub(super) conn: u64,
    pub(super) session: u64,
    pub(super) tree: u32,
    pub(super) next_message_id: u64,
    pub(super) protection: Protection,
    pub(super) keys: SessionKeys,
    /// The same keys with the two directions exchanged.
    pub(super) mirrored: SessionKeys,
    pub(super) nonce: u64,
    /// CreditRequest of every request.
    pub(super) credits: u16,
}

impl Client {
    /// A message of these requests.
    pub(super) fn message(&mut self, asks: &[Ask]) -> Bytes {
        let mut message = Vec::new();
        for (index, ask) in asks.iter().enumerate() {
            let is_last = index + 1 == asks.len();
            let message_id = ask.message_id.unwrap_or(self.next_message_id);
            if ask.message_id.is_none() {
                self.next_message_id += u64::from(ask.charge);
            }
            let length = header::LEN + ask.body.len();
            let padded = if is_last {
                length
            } else {
                length.next_multiple_of(8)
            };
            let mut flags = Flags(0);
            if ask.related {
                flags = flags | Flags::RELATED_OPERATIONS;
            }
            if ask.replayed {
                flags = flags | Flags::REPLAY_OPERATION;
            }
            if self.protection == Protection::Signed {
                flags = flags | Flags::SIGNED;
            }
            let header = Header {
                credit_charge: ask.charge,
                status: NtStatus(ask.channel_sequence.into()),
                command: ask.command,
                credits: self.credits,
                flags,
                next_command: if is_last { 0 } else { padded as u32 },
                message_id,
                route: match ask.async_id {
                    Some(async_id) => Route::Async { async_id },
                    None => Route::Sync {
                        process_id: 0xFEFF,
                        tree_id: if ask.related { u32::MAX } else { self.tree },
                    },
                },
                session_id: if ask.related { u64::MAX } else { self.session },
                signature: [0; 16],
            };
            let mut part = Vec::new();
            header.encode(&mut part);
            part.extend_from_slice(&ask.body);
            part.resize(padded, 0);
            if self.protection == Protection::Signed {
                self.keys.signing.sign::<&[u8]>(&mut part, &[]);
            }
            message.extend_from_slice(&part);
        }
        if self.protection == Protection::Encrypted {
            self.nonce += 1;
            let key = self.mirrored.encryption.as_ref().unwrap();
            message = key.seal(self.session, self.nonce, &[&message]);
        }
        Bytes::from(message)
    }

    /// The responses of a message from the server, signatures checked, padding and all.
    pub(super) fn responses(&self, framed: &[u8]) -> Vec<Response> {
        let length = u32::from_be_bytes(framed[..4].try_into().unwrap()) as usize;
        assert_eq!(length, framed.len() - 4, "the transport header's length");
        let mut message = framed[4..].to_vec();
        if message.starts_with(&[0xFD]) {
            let key = self.mirrored.decryption.as_ref().unwrap();
            message = key.open(&message).unwrap();
        } else {
            assert_ne!(
                self.protection,
                Protection::Encrypted,
                "a reply in the clear"
            );
        }
        let mut responses = Vec::new();
        let mut rest = message.as_slice();
        loop {
            let header = Header::parse(rest).unwrap();
            let at = match header.next_command {
                0 => rest.len(),
                next => next as usize,
            };
            assert!(header.next_command.is_multiple_of(8));
            let (bytes, following) = rest.split_at(at);
            let interim = header.status == NtStatus::PENDING;
            let notification = header.message_id == u64::MAX;
            if self.protection == Protection::Signed && !interim && !notification {
                assert!(
                    header.flags.contains(Flags::SIGNED),
                    "{header:?} is not signed"
                );
                assert!(
                    self.keys.signing.verify(bytes),
                    "{header:?} has a wrong signature"
                );
            } else {
                assert!(!header.flags.contains(Flags::SIGNED));
            }
            responses.push(Response {
                body: bytes[header::LEN..].to_vec(),
                header: header.clone(),
            });
            if header.next_command == 0 {
                return responses;
            }
            rest = following;
        }
    }
}

/// A response.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn status(&self) -> NtStatus {
        self.header.status
    }

    /// The FileId of a CREATE response.
    pub(super) fn open(&self) -> u64 {
        assert_eq!(self.status(), NtStatus::SUCCESS);
        u64::from_le_bytes(self.body[64..72].try_into().unwrap())
    }

    /// The oplock level of a CREATE response or a break.
    pub(super) fn oplock(&self) -> u8 {
        self.body[2]
    }

    /// The data of a READ response.
    pub(super) fn data(&self) -> &[u8] {
        let length = u32::from_le_bytes(self.body[4..8].try_into().unwrap()) as usize;
        &self.body[16..16 + length]
    }

    pub(super) fn async_id(&self) -> u64 {
        match self.header.route {
            Route::Async { async_id } => async_id,
            Route::Sync { .. } => panic!("{:?} is not asynchronous", self.header),
        }
    }

    /// Actions and names of a CHANGE_NOTIFY response.
    pub(super) fn notices(&self) -> Vec<(u32, String)> {
        let number = |at: usize| u32::from_le_bytes(self.body[at..at + 4].try_into().unwrap());
        let mut notices = Vec::new();
        let mut at = 8;
        loop {
            let length = number(at + 8) as usize;
            let name = utf16::decode(&self.body[at + 12..at + 12 + length]).unwrap();
            notices.push((number(at + 4), name));
            match number(at) {
                0 => return notices,
                next => at += next as usize,
            }
        }
    }
}
