//! Implements a minimal client for requests that smbclient does not send, or that are malformed: SMB 2.1 as guest, byte
//! by byte (MS-SMB2 2.2).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::lab::SERVER;

pub const NEGOTIATE: u16 = 0;
pub const SESSION_SETUP: u16 = 1;
pub const LOGOFF: u16 = 2;
pub const TREE_CONNECT: u16 = 3;
pub const CREATE: u16 = 5;
pub const CLOSE: u16 = 6;
pub const FLUSH: u16 = 7;
pub const READ: u16 = 8;
pub const WRITE: u16 = 9;
pub const LOCK: u16 = 10;
pub const IOCTL: u16 = 11;
pub const ECHO: u16 = 13;
pub const QUERY_DIRECTORY: u16 = 14;
pub const CHANGE_NOTIFY: u16 = 15;
pub const QUERY_INFO: u16 = 16;
pub const SET_INFO: u16 = 17;

pub const STATUS_PENDING: u32 = 0x0000_0103;
pub const STATUS_MORE_PROCESSING_REQUIRED: u32 = 0xC000_0016;
pub const STATUS_INTERNAL_ERROR: u32 = 0xC000_00E5;

/// An answer: header fields and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u32,
    pub command: u16,
    pub message_id: u64,
    pub session_id: u64,
    pub tree_id: u32,
    pub body: Vec<u8>,
}

pub struct Client {
    pub stream: TcpStream,
    pub message_id: u64,
    pub session_id: u64,
    pub tree_id: u32,
    /// The number of credits that each request asks for.
    pub credits: u16,
    /// Answers that arrived while another was awaited.
    pub others: Vec<Answer>,
}

/// A FileId (2.2.14.1).
pub type FileId = [u8; 16];

/// The longest wait for an answer: longer than any outage of the tests.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    /// Makes a TCP connection, nothing more.
    pub fn connect() -> Client {
        let server: SocketAddr = format!("{SERVER}:445").parse().expect("an address");
        let stream = TcpStream::connect_timeout(&server, PATIENCE).expect("a connection");
        Client::on(stream).expect("timeouts")
    }

    /// Makes a client on an existing TCP connection.
    pub fn on(stream: TcpStream) -> io::Result<Client> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            message_id: 0,
            session_id: 0,
            tree_id: 0,
            credits: 64,
            others: Vec::new(),
        })
    }

    /// Connects up to a tree connect to share `pub` as guest.
    pub fn guest() -> Client {
        let mut client = Client::connect();
        client.negotiate();
        client.log_in();
        client.tree("pub");
        client
    }

    /// Continues to a tree connect to share `pub` as guest, if the server permits it.
    pub fn try_guest(&mut self) -> io::Result<()> {
        self.try_call(NEGOTIATE, &negotiate())?.well()?;
        let challenge = self.try_call(SESSION_SETUP, &session_setup(&ntlm_negotiate()))?;
        self.session_id = challenge.session_id;
        self.try_call(SESSION_SETUP, &session_setup(&ntlm_guest()))?
            .well()?;
        let tree = self.try_call(TREE_CONNECT, &tree_connect("pub"))?.well()?;
        self.tree_id = tree.tree_id;
        Ok(())
    }

    pub fn negotiate(&mut self) -> Answer {
        self.call(NEGOTIATE, &negotiate()).ok()
    }

    /// NTLM without SPNEGO; the user is `guest`.
    pub fn log_in(&mut self) {
        let challenge = self.session_setup(&ntlm_negotiate());
        assert_eq!(
            challenge.status, STATUS_MORE_PROCESSING_REQUIRED,
            "{challenge:x?}"
        );
        self.session_id = challenge.session_id;
        self.session_setup(&ntlm_guest()).ok();
    }

    pub fn session_setup(&mut self, token: &[u8]) -> Answer {
        self.call(SESSION_SETUP, &session_setup(token))
    }

    pub fn tree(&mut self, share: &str) -> Answer {
        let answer = self.call(TREE_CONNECT, &tree_connect(share)).ok();
        self.tree_id = answer.tree_id;
        answer
    }

    /// CREATE with these access rights, disposition and options, everything shared.
    pub fn create(&mut self, name: &str, access: u32, disposition: u32, options: u32) -> FileId {
        let body = create(name, access, disposition, options);
        let answer = self.call(CREATE, &body).ok();
        answer.file_id()
    }

    pub fn close(&mut self, file: FileId) -> Answer {
        self.call(CLOSE, &close(file)).ok()
    }

    pub fn read(&mut self, file: FileId, offset: u64, len: u32) -> Vec<u8> {
        let answer = self.call(READ, &read(file, offset, len)).ok();
        let at = usize::from(answer.body[2]) - 64;
        let len = u32::from_le_bytes(answer.body[4..8].try_into().expect("four")) as usize;
        answer.body[at..at + len].to_vec()
    }

    pub fn write(&mut self, file: FileId, offset: u64, data: &[u8]) {
        self.call(WRITE, &write(file, offset, data)).ok();
    }

    /// SET_INFO of a file (`kind` 1), file system (2) or security (3).
    pub fn set_info(
        &mut self,
        file: FileId,
        kind: u8,
        class: u8,
        additional: u32,
        buffer: &[u8],
    ) -> Answer {
        self.call(SET_INFO, &set_info(file, kind, class, additional, buffer))
    }

    pub fn query_info(&mut self, file: FileId, kind: u8, class: u8, additional: u32) -> Answer {
        let mut body = vec![41, 0, kind, class];
        body.extend(65536_u32.to_le_bytes());
        body.extend([0; 8]);
        body.extend(additional.to_le_bytes());
        body.extend([0; 4]);
        body.extend(file);
        self.call(QUERY_INFO, &body)
    }

    /// QUERY_DIRECTORY with FileNamesInformation; returns the names of one answer, none at the end.
    pub fn list(&mut self, dir: FileId, pattern: &str) -> Vec<String> {
        let name = utf16(pattern);
        let mut body = vec![33, 0, 12, 0, 0, 0, 0, 0];
        body.extend(dir);
        body.extend([96, 0]);
        body.extend(length(&name));
        body.extend(4096_u32.to_le_bytes());
        body.extend(name);
        let answer = self.call(QUERY_DIRECTORY, &body);
        if answer.status == 0x8000_0006 {
            return Vec::new(); // NO_MORE_FILES
        }
        let answer = answer.ok();
        let mut names = Vec::new();
        let mut entry = &answer.body[8..];
        loop {
            let word = |at: usize| {
                u32::from_le_bytes(entry[at..at + 4].try_into().expect("four")) as usize
            };
            let units: Vec<u16> = entry[12..12 + word(8)]
                .chunks(2)
                .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
                .collect();
            names.push(String::from_utf16(&units).expect("UTF-16"));
            match word(0) {
                0 => return names,
                next => entry = &entry[next..],
            }
        }
    }

    pub fn ioctl(&mut self, file: FileId, code: u32, input: &[u8], max_output: u32) -> Answer {
        self.call(IOCTL, &ioctl(file, code, input, max_output))
    }

    pub fn flush(&mut self, file: FileId) -> Answer {
        let mut body = vec![24, 0, 0, 0, 0, 0, 0, 0];
        body.extend(file);
        self.call(FLUSH, &body)
    }

    /// One lock (flags: 1 shared, 2 exclusive, 4 unlock, 16 fail at once).
    pub fn lock(&mut self, file: FileId, offset: u64, len: u64, flags: u32) -> Answer {
        self.call(LOCK, &lock(file, offset, len, flags))
    }

    /// Sends a request and returns its answer; an interim one is skipped.
    pub fn call(&mut self, command: u16, body: &[u8]) -> Answer {
        let id = self.request(command, body);
        self.answer(id)
    }

    /// Sends a request and returns its MessageId.
    pub fn request(&mut self, command: u16, body: &[u8]) -> u64 {
        let id = self.message_id;
        let message = self.message(command, body);
        self.send(&message).expect("sent");
        id
    }

    /// Sends a request and returns its answer, if the server survives it.
    pub fn try_call(&mut self, command: u16, body: &[u8]) -> io::Result<Answer> {
        let id = self.message_id;
        let message = self.message(command, body);
        self.send(&message)?;
        self.try_answer(id)
    }

    /// Waits for the final answer to a request.
    pub fn answer(&mut self, id: u64) -> Answer {
        self.try_answer(id).expect("an answer")
    }

    fn try_answer(&mut self, id: u64) -> io::Result<Answer> {
        loop {
            if let Some(at) = self
                .others
                .iter()
                .position(|answer| answer.message_id == id)
            {
                return Ok(self.others.remove(at));
            }
            let answer = self.receive()?;
            if answer.status != STATUS_PENDING {
                self.others.push(answer);
            }
        }
    }

    /// Makes a request with the next MessageId.
    pub fn message(&mut self, command: u16, body: &[u8]) -> Vec<u8> {
        self.charged(command, body, 1)
    }

    /// Makes a request that takes so many MessageIds: one for each 64 KiB that it sends or asks for.
    pub fn charged(&mut self, command: u16, body: &[u8], charge: u16) -> Vec<u8> {
        let mut message = header(command, self.message_id, self.session_id, self.tree_id).to_vec();
        message[6..8].copy_from_slice(&charge.to_le_bytes());
        message[14..16].copy_from_slice(&self.credits.to_le_bytes());
        message.extend(body);
        self.message_id += u64::from(charge);
        message
    }

    /// Sends a message in a direct-TCP frame.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame(message))
    }

    /// Reads the next answer.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let mut frame = [0; 4];
        self.stream.read_exact(&mut frame)?;
        let mut message = vec![0; u32::from_be_bytes(frame) as usize];
        self.stream.read_exact(&mut message)?;
        let bytes =
            |at: usize, len: usize| message.get(at..at + len).ok_or(io::ErrorKind::InvalidData);
        let u64_at =
            |at| Ok::<_, io::Error>(u64::from_le_bytes(bytes(at, 8)?.try_into().expect("eight")));
        let u32_at =
            |at| Ok::<_, io::Error>(u32::from_le_bytes(bytes(at, 4)?.try_into().expect("four")));
        Ok(Answer {
            status: u32_at(8)?,
            command: u16::try_from(u32_at(12)? & 0xFFFF).expect("16 bits"),
            message_id: u64_at(24)?,
            session_id: u64_at(40)?,
            tree_id: u32_at(36)?,
            body: message[64..].to_vec(),
        })
    }

    /// Returns whether the server has ended the connection: reads until its end, or until it is silent.
    pub fn is_dropped(&mut self) -> bool {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return false;
                }
                Err(_) => return true,
            }
        }
    }
}

impl Answer {
    /// Checks for success.
    pub fn ok(self) -> Answer {
        assert_eq!(
            self.status, 0,
            "command {}: status {:#010x}",
            self.command, self.status
        );
        self
    }

    /// Returns success, or an error.
    pub fn well(self) -> io::Result<Answer> {
        match self.status {
            0 => Ok(self),
            status => Err(io::Error::other(format!(
                "command {}: status {status:#010x}",
                self.command
            ))),
        }
    }

    /// The FileId in a CREATE's answer.
    pub fn file_id(&self) -> FileId {
        self.body[64..80].try_into().expect("a FileId")
    }
}

/// A synchronous request's header (2.2.1.2).
pub fn header(command: u16, message_id: u64, session_id: u64, tree_id: u32) -> [u8; 64] {
    let mut header = [0; 64];
    header[..4].copy_from_slice(b"\xFESMB");
    header[4] = 64;
    header[6] = 1; // CreditCharge
    header[12..14].copy_from_slice(&command.to_le_bytes());
    header[14] = 64; // CreditRequest
    header[24..32].copy_from_slice(&message_id.to_le_bytes());
    header[36..40].copy_from_slice(&tree_id.to_le_bytes());
    header[40..48].copy_from_slice(&session_id.to_le_bytes());
    header
}

/// The message after its direct-TCP header.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(message.len())
        .expect("short")
        .to_be_bytes()
        .to_vec();
    frame.extend(message);
    frame
}

/// NEGOTIATE of SMB 2.1.
pub fn negotiate() -> Vec<u8> {
    // StructureSize, DialectCount, SecurityMode (enabled), Reserved, Capabilities, ClientGuid, ClientStartTime, the
    // dialects
    let mut body = vec![36, 0, 1, 0, 1, 0, 0, 0];
    body.extend([0; 4 + 16 + 8]);
    body.extend(0x0210_u16.to_le_bytes());
    body
}

pub fn tree_connect(share: &str) -> Vec<u8> {
    let path = utf16(&format!(r"\\{SERVER}\{share}"));
    let mut body = vec![9, 0, 0, 0, 72, 0];
    body.extend(length(&path));
    body.extend(path);
    body
}

pub fn session_setup(token: &[u8]) -> Vec<u8> {
    // StructureSize, Flags, SecurityMode, Capabilities, Channel, SecurityBufferOffset, Length, PreviousSessionId
    let mut body = vec![25, 0, 0, 1];
    body.extend([0; 8]);
    body.extend([88, 0]);
    body.extend(length(token));
    body.extend([0; 8]);
    body.extend(token);
    body
}

pub fn create(name: &str, access: u32, disposition: u32, options: u32) -> Vec<u8> {
    let name = utf16(name);
    let mut body = vec![57, 0, 0, 0];
    body.extend(2_u32.to_le_bytes()); // ImpersonationLevel
    body.extend([0; 16]);
    for word in [access, 0, 7, disposition, options] {
        body.extend(word.to_le_bytes());
    }
    body.extend([120, 0]);
    body.extend(length(&name));
    body.extend([0; 8]);
    body.extend(name);
    if body.len() == 56 {
        body.push(0); // the buffer is one byte at least
    }
    body
}

pub fn close(file: FileId) -> Vec<u8> {
    let mut body = vec![24, 0, 1, 0, 0, 0, 0, 0];
    body.extend(file);
    body
}

pub fn read(file: FileId, offset: u64, len: u32) -> Vec<u8> {
    let mut body = vec![49, 0, 0x50, 0];
    body.extend(len.to_le_bytes());
    body.extend(offset.to_le_bytes());
    body.extend(file);
    body.extend([0; 17]);
    body
}

pub fn write(file: FileId, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut body = vec![49, 0, 112, 0];
    body.extend(u32_of(data.len()));
    body.extend(offset.to_le_bytes());
    body.extend(file);
    body.extend([0; 16]);
    body.extend(data);
    body
}

/// As [`Client::ioctl`].
pub fn ioctl(file: FileId, code: u32, input: &[u8], max_output: u32) -> Vec<u8> {
    let mut body = vec![57, 0, 0, 0];
    body.extend(code.to_le_bytes());
    body.extend(file);
    body.extend(120_u32.to_le_bytes());
    body.extend(u32_of(input.len()));
    body.extend([0; 4 + 8]);
    body.extend(max_output.to_le_bytes());
    body.extend(1_u32.to_le_bytes()); // SMB2_0_IOCTL_IS_FSCTL
    body.extend([0; 4]);
    body.extend(input);
    body
}

/// As [`Client::lock`].
pub fn lock(file: FileId, offset: u64, len: u64, flags: u32) -> Vec<u8> {
    let mut body = vec![48, 0, 1, 0, 0, 0, 0, 0];
    body.extend(file);
    body.extend(offset.to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(flags.to_le_bytes());
    body.extend([0; 4]);
    body
}

/// Sets information of a file (`kind` 1), file system (2) or security (3).
pub fn set_info(file: FileId, kind: u8, class: u8, additional: u32, buffer: &[u8]) -> Vec<u8> {
    let mut body = vec![33, 0, kind, class];
    body.extend(u32_of(buffer.len()));
    body.extend([96, 0, 0, 0]);
    body.extend(additional.to_le_bytes());
    body.extend(file);
    body.extend(buffer);
    body
}

/// Watches a directory for names that are added, removed or changed.
pub fn change_notify(dir: FileId) -> Vec<u8> {
    let mut body = vec![32, 0, 0, 0];
    body.extend(4096_u32.to_le_bytes());
    body.extend(dir);
    body.extend(3_u32.to_le_bytes());
    body.extend([0; 4]);
    body
}

/// NTLMSSP NEGOTIATE (MS-NLMP 2.2.1.1): UNICODE, REQUEST_TARGET, NTLM, ALWAYS_SIGN, EXTENDED_SESSIONSECURITY.
pub fn ntlm_negotiate() -> Vec<u8> {
    let mut token = b"NTLMSSP\0".to_vec();
    token.extend(1_u32.to_le_bytes());
    token.extend(NTLM_FLAGS.to_le_bytes());
    token.extend([0; 16]);
    token
}

const NTLM_FLAGS: u32 = 0x0008_8205;

/// NTLMSSP AUTHENTICATE (2.2.1.3) of the user `guest`, without responses.
pub fn ntlm_guest() -> Vec<u8> {
    ntlm_authenticate("guest", &[])
}

/// The same for a user without the password: an NTLMv2 response (2.2.2.8) of the right form, but wrong.
pub fn ntlm_wrong(user: &str) -> Vec<u8> {
    let proof = [0x5A; 16];
    let mut response = proof.to_vec();
    response.extend([1, 1]);
    response.extend([0; 42]);
    ntlm_authenticate(user, &response)
}

fn ntlm_authenticate(user: &str, response: &[u8]) -> Vec<u8> {
    let user = utf16(user);
    let mut token = b"NTLMSSP\0".to_vec();
    token.extend(3_u32.to_le_bytes());
    // LmChallengeResponse, NtChallengeResponse, DomainName, UserName, Workstation, EncryptedRandomSessionKey
    let mut at = 64;
    for value in [&[][..], response, &[], &user, &[], &[]] {
        token.extend(length(value));
        token.extend(length(value));
        token.extend(u32_of(at));
        at += value.len();
    }
    token.extend(NTLM_FLAGS.to_le_bytes());
    token.extend(response);
    token.extend(user);
    token
}

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("short").to_le_bytes()
}

fn u32_of(value: usize) -> [u8; 4] {
    u32::try_from(value).expect("short").to_le_bytes()
}
