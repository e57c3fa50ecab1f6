//! Attacks by few connections that request much, each with one thread.

use std::io;

use super::{BIG, Field, Foe, MANY, PAUSE};
use crate::support::raw::{self, FileId};
use crate::support::server::USER;

/// The FileId of the open of the preceding request in the same message.
const RELATED: FileId = [0xFF; 16];

/// FILE_READ_DATA and similar rights on a file or a directory.
pub const READING: u32 = 0x0012_0089;
/// Dispositions: an existing file; an existing or a new one.
const OPEN: u32 = 1;
const OPEN_IF: u32 = 3;
const DIRECTORY: u32 = 1;
const DELETE_ON_CLOSE: u32 = 0x1000;

/// The number of requests sent at once.
const BATCH: usize = 32;

/// Opens without end, even when it is refused, and closes nothing.
pub fn handles(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let body = raw::create(BIG, READING, OPEN, 0);
    let mut opened = 0;
    loop {
        let refused = foe.batch(BATCH, |client| client.message(raw::CREATE, &body))?;
        opened += BATCH - refused;
        if refused > 0 || opened > 1000 {
            field.steady();
        }
        if refused == BATCH {
            field.pause(PAUSE);
        }
    }
}

/// Messages of so many pairs of CREATE and CLOSE, one after the other as fast as they are answered; one waits while the
/// other is processed.
pub fn compounds(field: &Field, pairs: usize) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    foe.client.credits = 8192;
    foe.open(&raw::create(BIG, READING, OPEN, 0))?;
    let create = raw::create(BIG, READING, OPEN, 0);
    let close = raw::close(RELATED);
    let mut on_their_way = 0;
    loop {
        let mut requests = Vec::new();
        for _ in 0..pairs {
            requests.push(foe.client.message(raw::CREATE, &create));
            requests.push(foe.client.message(raw::CLOSE, &close));
        }
        foe.client.send(&chain(requests))?;
        field.count(|counts| &counts.requests, 2 * pairs);
        on_their_way += 1;
        if on_their_way == 2 {
            let answer = foe.client.receive()?;
            foe.taken(&answer);
            on_their_way -= 1;
            field.steady();
        }
    }
}

/// One message of several requests: each except a CREATE is related to the one before it.
pub fn chain(requests: Vec<Vec<u8>>) -> Vec<u8> {
    let last = requests.len() - 1;
    let mut chain = Vec::new();
    for (at, mut request) in requests.into_iter().enumerate() {
        request.resize(request.len().next_multiple_of(8), 0);
        if request[12..14] != raw::CREATE.to_le_bytes() {
            request[16] = 4; // SMB2_FLAGS_RELATED_OPERATIONS
        }
        if at < last {
            let next = u32::try_from(request.len()).expect("short");
            request[20..24].copy_from_slice(&next.to_le_bytes());
        }
        chain.extend(request);
    }
    chain
}

/// Lists the directory of many files from its beginning, repeatedly, as fast as it is answered.
pub fn listings(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let dir = foe.open(&raw::create(MANY, READING, OPEN, DIRECTORY))?;
    let pattern = raw::utf16("*");
    // FileIdBothDirectoryInformation, SMB2_RESTART_SCANS
    let mut body = vec![33, 0, 37, 1, 0, 0, 0, 0];
    body.extend(dir);
    body.extend([96, 0]);
    body.extend([2, 0]);
    body.extend(65_536_u32.to_le_bytes());
    body.extend(pattern);
    loop {
        foe.batch(4, |client| client.message(raw::QUERY_DIRECTORY, &body))?;
        field.steady();
    }
}

/// Locks one byte after another of one file, by more and more opens of it when the limit of locks is reached.
pub fn locks(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let mut offset = (field.number as u64) << 32;
    let mut locked = 0;
    loop {
        let opened = foe.call(raw::CREATE, &raw::create("locked", 0x0017_019F, OPEN_IF, 0))?;
        if opened.status != 0 {
            field.steady();
            field.pause(PAUSE);
            continue;
        }
        let file = opened.file_id();
        let mut refused = 0;
        while refused == 0 {
            refused = foe.batch(BATCH, |client| {
                // exclusive, fails at once
                let body = raw::lock(file, offset, 1, 2 | 16);
                offset += 2;
                client.message(raw::LOCK, &body)
            })?;
            locked += BATCH - refused;
            if locked > 500 {
                field.steady();
            }
        }
        field.steady();
        if refused == BATCH {
            foe.call(raw::CLOSE, &raw::close(file))?;
            field.pause(PAUSE);
        }
    }
}

/// Watches a directory by more and more opens of it, and causes changes there.
pub fn watches(field: &Field) -> io::Result<()> {
    let mut foe = Foe::guest(field)?;
    let mut opens = Vec::new();
    for round in 1_u64.. {
        let opened = foe.call(raw::CREATE, &raw::create("", READING, OPEN, DIRECTORY))?;
        if opened.status == 0 {
            opens.push(opened.file_id());
        }
        // each open is watched repeatedly: an answer ends a watch
        foe.client.others.clear();
        for file in opens.iter().rev().take(8) {
            let id = foe.client.message_id;
            let message = foe
                .client
                .message(raw::CHANGE_NOTIFY, &raw::change_notify(*file));
            foe.client.send(&message)?;
            field.count(|counts| &counts.requests, 1);
            // its interim answer, a refusal, or the changes meanwhile; answers to others are skipped
            while {
                let answer = foe.client.receive()?;
                if foe.taken(&answer) {
                    field.steady();
                    field.pause(PAUSE);
                }
                answer.message_id != id
            } {}
        }
        if round.is_multiple_of(16) {
            let name = format!("happens {}", field.number);
            let body = raw::create(&name, 0x0017_019F, OPEN_IF, DELETE_ON_CLOSE);
            let opened = foe.call(raw::CREATE, &body)?;
            if opened.status == 0 {
                foe.call(raw::CLOSE, &raw::close(opened.file_id()))?;
            }
        }
        if round > 64 {
            field.steady();
            field.pause(PAUSE);
        }
    }
    Ok(())
}

/// Logs in with a wrong password until it is disconnected.
pub fn failed_logins(field: &Field) -> io::Result<()> {
    let mut foe = Foe::connect(field, None)?;
    foe.call(raw::NEGOTIATE, &raw::negotiate())?.well()?;
    let (negotiate, wrong) = (raw::ntlm_negotiate(), raw::ntlm_wrong(USER));
    loop {
        foe.client.session_id = 0;
        let challenge = foe.call(raw::SESSION_SETUP, &raw::session_setup(&negotiate))?;
        foe.client.session_id = challenge.session_id;
        foe.call(raw::SESSION_SETUP, &raw::session_setup(&wrong))?;
        field.steady();
    }
}
