//! Builds the bodies of requests, and parses the parts of answers that are checked.

use crate::board::Board;
use crate::client::Response;
use crate::judge;
use crate::request::{self, Body, RELATED, command};
use crate::workload::{DELETE_ON_CLOSE, DIRECTORY, Handle, LEASE, Verb};

use super::SHARE;

/// FILE_ALL_ACCESS.
const ALL: u32 = 0x001F_01FF;
/// FILE_WRITE_DATA.
const WRITE_DATA: u32 = 0x2;
/// DELETE.
const DELETE: u32 = 0x0001_0000;
/// The output size of QUERY_DIRECTORY: so small that few names fit.
pub(super) const PAGE_BYTES: u32 = 330;

pub(super) fn body(verb: &Verb, related: bool, board: &Board) -> Body {
    let file = |handle: &Handle| match board.handles.get(handle) {
        Some(id) if !related => *id,
        _ => RELATED,
    };
    match verb {
        Verb::Create {
            path,
            disposition,
            options,
            share,
            oplock,
            appends,
            handle,
        } => request::create(&request::Create {
            path,
            access: match (*appends, options & (DIRECTORY | DELETE_ON_CLOSE)) {
                (true, _) => ALL & !WRITE_DATA,
                // DELETE on a directory would conflict with the renaming of files in it (MS-FSA 2.1.5.14.11).
                (false, DIRECTORY) => ALL & !DELETE,
                (false, _) => ALL,
            },
            share: *share,
            disposition: *disposition,
            options: *options,
            oplock: *oplock,
            lease: (*oplock == LEASE).then(|| lease_key(*handle)),
        }),
        Verb::Close { handle } => request::close(file(handle)),
        Verb::Flush { handle } => request::flush(file(handle)),
        Verb::Read {
            handle,
            offset,
            length,
        } => request::read(file(handle), *offset, *length),
        Verb::Write {
            handle,
            offset,
            length,
            fill,
        } => {
            let data = judge::bytes(*fill, *length);
            request::write(file(handle), offset.unwrap_or(0), &data)
        }
        Verb::SetEnd { handle, length } => {
            request::set_info(file(handle), 20, &length.to_le_bytes())
        }
        Verb::SetTime { handle, time } => {
            let mut basic = vec![0; 40];
            basic[16..24].copy_from_slice(&time.to_le_bytes());
            request::set_info(file(handle), 4, &basic)
        }
        Verb::Rename {
            handle,
            to,
            replace,
        } => request::set_info(file(handle), 10, &request::new_name(to, *replace)),
        Verb::Link {
            handle,
            to,
            replace,
        } => request::set_info(file(handle), 11, &request::new_name(to, *replace)),
        Verb::Dispose { handle, delete } => {
            request::set_info(file(handle), 13, &[u8::from(*delete)])
        }
        Verb::Walk { handle } => request::query_directory(file(handle), PAGE_BYTES),
        Verb::Stat { handle } => request::query_info(file(handle), 5),
        Verb::ResumeKey { handle } => request::ioctl(file(handle), request::RESUME_KEY, &[], 32),
        Verb::Copy {
            source,
            target,
            chunks,
        } => {
            let input = request::chunks(&board.resume_keys[source], chunks);
            request::ioctl(file(target), request::COPYCHUNK, &input, 12)
        }
        Verb::Lock {
            handle,
            offset,
            length,
            flags,
        } => request::lock(file(handle), *offset, *length, *flags),
        Verb::Notify { handle } => request::change_notify(file(handle)),
        Verb::Acknowledge { handle, level } if board.leases.contains(handle) => {
            // A lease with READ caching corresponds to level II.
            request::acknowledge_lease(lease_key(*handle), (*level).into())
        }
        Verb::Acknowledge { handle, level } => request::acknowledge(file(handle), *level),
        Verb::Tree => request::tree_connect(SHARE),
        Verb::Echo | Verb::Cancel { .. } | Verb::SecondSession | Verb::Untree => {
            request::bare(command::ECHO)
        }
    }
}

/// Returns the key of the lease of an open.
pub(super) fn lease_key(handle: Handle) -> [u8; 16] {
    let mut key = [7; 16];
    key[..4].copy_from_slice(&handle.to_le_bytes());
    key
}

/// Returns the open whose lease has this key.
pub(super) fn leased(key: [u8; 16]) -> Handle {
    Handle::from_le_bytes([key[0], key[1], key[2], key[3]])
}

/// Returns a body without its ids, which differ between runs.
pub(super) fn masked(response: &Response) -> Vec<u8> {
    let mut body = response.body.clone();
    let ids = match response.command {
        command::CREATE => 64..80,
        command::OPLOCK_BREAK => 8..24,
        // FileId, and the resume key, which is made of it
        command::IOCTL
            if body.len() > 32 && body.get(4..8) == Some(&request::RESUME_KEY.to_le_bytes()) =>
        {
            8..body.len()
        }
        command::IOCTL => 8..24,
        _ => 0..0,
    };
    if let Some(ids) = body.get_mut(ids) {
        ids.fill(0);
    }
    body
}

pub(super) fn text(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes
        .chunks(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    String::from_utf16(&units).expect("UTF-16")
}

/// Parses the names of a page of FileBothDirectoryInformation (MS-FSCC 2.4.8).
pub(super) fn names(body: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut entry = &body[8..];
    loop {
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four"));
        names.push(text(&entry[94..94 + word(60) as usize]));
        match word(0) as usize {
            0 => return names,
            next => entry = &entry[next..],
        }
    }
}

/// Returns ChunksWritten of the answer to a copy (MS-SMB2 2.2.32.1).
pub(super) fn chunks_copied(response: &Response) -> Option<u32> {
    let word = |at: usize| {
        let bytes = response.body.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    // OutputOffset is counted from the header (MS-SMB2 2.2.32).
    word((word(32)? as usize).checked_sub(64)?)
}
