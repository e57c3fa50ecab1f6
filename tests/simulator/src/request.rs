//! Builds the requests of a client byte by byte (MS-SMB2 2.2).

/// A FileId (2.2.14.1).
pub type FileId = [u8; 16];

/// The FileId that stands for that of the preceding CREATE in a related compound.
pub const RELATED: FileId = [0xFF; 16];

/// SMB2 commands (2.2.1.2).
#[allow(missing_docs)]
pub mod command {
    pub const NEGOTIATE: u16 = 0;
    pub const SESSION_SETUP: u16 = 1;
    pub const LOGOFF: u16 = 2;
    pub const TREE_CONNECT: u16 = 3;
    pub const TREE_DISCONNECT: u16 = 4;
    pub const CREATE: u16 = 5;
    pub const CLOSE: u16 = 6;
    pub const FLUSH: u16 = 7;
    pub const READ: u16 = 8;
    pub const WRITE: u16 = 9;
    pub const LOCK: u16 = 10;
    pub const IOCTL: u16 = 11;
    pub const CANCEL: u16 = 12;
    pub const ECHO: u16 = 13;
    pub const QUERY_DIRECTORY: u16 = 14;
    pub const CHANGE_NOTIFY: u16 = 15;
    pub const QUERY_INFO: u16 = 16;
    pub const SET_INFO: u16 = 17;
    pub const OPLOCK_BREAK: u16 = 18;
}

/// A command and its body.
pub type Body = (u16, Vec<u8>);

/// Encodes text in UTF-16LE.
#[must_use]
pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    (bytes.len() as u16).to_le_bytes()
}

/// Builds NEGOTIATE for one dialect. For 3.1.1 it has the contexts with this cipher and this signing algorithm.
#[must_use]
pub fn negotiate(dialect: u16, cipher: u16, signing: u16, salt: u8) -> Body {
    let mut body = vec![36, 0, 1, 0, 1, 0, 0, 0];
    body.extend(0x40_u32.to_le_bytes()); // SMB2_GLOBAL_CAP_ENCRYPTION
    body.extend([salt; 16]);
    if dialect < 0x0311 {
        body.extend([0; 8]);
        body.extend(dialect.to_le_bytes());
        return (command::NEGOTIATE, body);
    }
    body.extend(104_u32.to_le_bytes()); // NegotiateContextOffset
    body.extend([3, 0, 0, 0]);
    body.extend(dialect.to_le_bytes());
    body.extend([0; 2]);
    let mut preauth = vec![1, 0, 32, 0, 1, 0];
    preauth.extend([salt; 32]);
    let one = |id: u16| [1_u16.to_le_bytes(), id.to_le_bytes()].concat();
    for (kind, data) in [(1_u16, preauth), (2, one(cipher)), (8, one(signing))] {
        body.resize(body.len().next_multiple_of(8), 0);
        body.extend(kind.to_le_bytes());
        body.extend(length(&data));
        body.extend([0; 4]);
        body.extend(data);
    }
    (command::NEGOTIATE, body)
}

/// Builds SESSION_SETUP.
#[must_use]
pub fn session_setup(token: &[u8]) -> Body {
    let mut body = vec![25, 0, 0, 1];
    body.extend([0; 8]);
    body.extend([88, 0]);
    body.extend(length(token));
    body.extend([0; 8]);
    body.extend(token);
    (command::SESSION_SETUP, body)
}

/// Builds TREE_CONNECT.
#[must_use]
pub fn tree_connect(share: &str) -> Body {
    let path = utf16(&format!(r"\\outlast\{share}"));
    let mut body = vec![9, 0, 0, 0, 72, 0];
    body.extend(length(&path));
    body.extend(path);
    (command::TREE_CONNECT, body)
}

/// Builds LOGOFF, TREE_DISCONNECT, ECHO or CANCEL, whose bodies have no content.
#[must_use]
pub fn bare(command: u16) -> Body {
    (command, vec![4, 0, 0, 0])
}

/// The parameters of a CREATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create<'a> {
    /// The components of the path, joined by slashes.
    pub path: &'a str,
    /// DesiredAccess.
    pub access: u32,
    /// ShareAccess.
    pub share: u32,
    /// CreateDisposition.
    pub disposition: u32,
    /// CreateOptions.
    pub options: u32,
    /// RequestedOplockLevel.
    pub oplock: u8,
    /// The key of a lease of version 2 that caches everything.
    pub lease: Option<[u8; 16]>,
}

/// Builds CREATE.
#[must_use]
pub fn create(create: &Create<'_>) -> Body {
    let name = utf16(&create.path.replace('/', "\\"));
    let mut body = vec![57, 0, 0, create.oplock];
    body.extend(2_u32.to_le_bytes()); // ImpersonationLevel
    body.extend([0; 16]);
    for word in [
        create.access,
        0,
        create.share,
        create.disposition,
        create.options,
    ] {
        body.extend(word.to_le_bytes());
    }
    body.extend([120, 0]);
    body.extend(length(&name));
    body.extend([0; 8]);
    body.extend(name);
    if body.len() == 56 {
        body.push(0); // the buffer is one byte at least
    }
    if let Some(key) = create.lease {
        body.resize(body.len().next_multiple_of(8), 0);
        let at = body.len() as u32;
        body[48..52].copy_from_slice(&(64 + at).to_le_bytes());
        body[52..56].copy_from_slice(&76_u32.to_le_bytes());
        // SMB2_CREATE_REQUEST_LEASE_V2 (2.2.13.2.10)
        body.extend([0, 0, 0, 0, 16, 0, 4, 0, 0, 0, 24, 0, 52, 0, 0, 0]);
        body.extend(*b"RqLs\0\0\0\0");
        body.extend(key);
        body.extend(7_u32.to_le_bytes());
        body.extend([0; 32]);
    }
    (command::CREATE, body)
}

/// Builds CLOSE, which asks for the attributes.
#[must_use]
pub fn close(file: FileId) -> Body {
    let mut body = vec![24, 0, 1, 0, 0, 0, 0, 0];
    body.extend(file);
    (command::CLOSE, body)
}

/// Builds FLUSH.
#[must_use]
pub fn flush(file: FileId) -> Body {
    let mut body = vec![24, 0, 0, 0, 0, 0, 0, 0];
    body.extend(file);
    (command::FLUSH, body)
}

/// Builds READ.
#[must_use]
pub fn read(file: FileId, offset: u64, length: u32) -> Body {
    let mut body = vec![49, 0, 0x50, 0];
    body.extend(length.to_le_bytes());
    body.extend(offset.to_le_bytes());
    body.extend(file);
    body.extend([0; 17]);
    (command::READ, body)
}

/// Builds WRITE.
#[must_use]
pub fn write(file: FileId, offset: u64, data: &[u8]) -> Body {
    let mut body = vec![49, 0, 112, 0];
    body.extend((data.len() as u32).to_le_bytes());
    body.extend(offset.to_le_bytes());
    body.extend(file);
    body.extend([0; 16]);
    body.extend(data);
    (command::WRITE, body)
}

/// Builds LOCK of one range (flags: 1 shared, 2 exclusive, 4 unlock, 16 fail immediately).
#[must_use]
pub fn lock(file: FileId, offset: u64, length: u64, flags: u32) -> Body {
    let mut body = vec![48, 0, 1, 0, 0, 0, 0, 0];
    body.extend(file);
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(flags.to_le_bytes());
    body.extend([0; 4]);
    (command::LOCK, body)
}

/// Builds IOCTL for a file system control.
#[must_use]
pub fn ioctl(file: FileId, code: u32, input: &[u8], max_output: u32) -> Body {
    let mut body = vec![57, 0, 0, 0];
    body.extend(code.to_le_bytes());
    body.extend(file);
    body.extend(120_u32.to_le_bytes());
    body.extend((input.len() as u32).to_le_bytes());
    body.extend([0; 4 + 8]);
    body.extend(max_output.to_le_bytes());
    body.extend(1_u32.to_le_bytes()); // SMB2_0_IOCTL_IS_FSCTL
    body.extend([0; 4]);
    body.extend(input);
    (command::IOCTL, body)
}

/// FSCTL_SRV_REQUEST_RESUME_KEY.
pub const RESUME_KEY: u32 = 0x0014_0078;
/// FSCTL_SRV_COPYCHUNK.
pub const COPYCHUNK: u32 = 0x0014_40F2;

/// Builds the input of FSCTL_SRV_COPYCHUNK (2.2.31.1): ranges as (source, target, length).
#[must_use]
pub fn chunks(key: &[u8], chunks: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut input = key[..24].to_vec();
    input.extend((chunks.len() as u32).to_le_bytes());
    input.extend([0; 4]);
    for (source, target, length) in chunks {
        input.extend(source.to_le_bytes());
        input.extend(target.to_le_bytes());
        input.extend(length.to_le_bytes());
        input.extend([0; 4]);
    }
    input
}

/// Builds QUERY_DIRECTORY of all names, as FileBothDirectoryInformation.
#[must_use]
pub fn query_directory(file: FileId, max_output: u32) -> Body {
    let pattern = utf16("*");
    let mut body = vec![33, 0, 3, 0, 0, 0, 0, 0];
    body.extend(file);
    body.extend([96, 0]);
    body.extend(length(&pattern));
    body.extend(max_output.to_le_bytes());
    body.extend(pattern);
    (command::QUERY_DIRECTORY, body)
}

/// Builds CHANGE_NOTIFY of created, removed and renamed names.
#[must_use]
pub fn change_notify(file: FileId) -> Body {
    let mut body = vec![32, 0, 0, 0];
    body.extend(4096_u32.to_le_bytes());
    body.extend(file);
    body.extend(3_u32.to_le_bytes());
    body.extend([0; 4]);
    (command::CHANGE_NOTIFY, body)
}

/// Builds QUERY_INFO of a file.
#[must_use]
pub fn query_info(file: FileId, class: u8) -> Body {
    let mut body = vec![41, 0, 1, class];
    body.extend(4096_u32.to_le_bytes());
    body.extend([0; 16]);
    body.extend(file);
    (command::QUERY_INFO, body)
}

/// Builds SET_INFO of a file.
#[must_use]
pub fn set_info(file: FileId, class: u8, buffer: &[u8]) -> Body {
    let mut body = vec![33, 0, 1, class];
    body.extend((buffer.len() as u32).to_le_bytes());
    body.extend([96, 0, 0, 0]);
    body.extend([0; 4]);
    body.extend(file);
    body.extend(buffer);
    (command::SET_INFO, body)
}

/// Builds FileRenameInformation or FileLinkInformation (MS-FSCC 2.4.42, 2.4.27).
#[must_use]
pub fn new_name(path: &str, replace: bool) -> Vec<u8> {
    let name = utf16(&path.replace('/', "\\"));
    let mut buffer = vec![u8::from(replace)];
    buffer.extend([0; 15]);
    buffer.extend((name.len() as u32).to_le_bytes());
    buffer.extend(name);
    buffer.resize(buffer.len().max(24), 0);
    buffer
}

/// Builds the acknowledgment of a LEASE_BREAK (2.2.24.2).
#[must_use]
pub fn acknowledge_lease(key: [u8; 16], state: u32) -> Body {
    let mut body = vec![36, 0, 0, 0, 0, 0, 0, 0];
    body.extend(key);
    body.extend(state.to_le_bytes());
    body.extend([0; 8]);
    (command::OPLOCK_BREAK, body)
}

/// Builds the acknowledgment of an OPLOCK_BREAK (2.2.24.1).
#[must_use]
pub fn acknowledge(file: FileId, level: u8) -> Body {
    let mut body = vec![24, 0, level, 0, 0, 0, 0, 0];
    body.extend(file);
    (command::OPLOCK_BREAK, body)
}
