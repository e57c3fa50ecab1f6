//! Handles QUERY_DIRECTORY (MS-SMB2 3.3.5.18).

use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::held::Held;
use crate::info::directory::{Encoder, Level};
use crate::record::Record;
use crate::size;
use crate::wire;
use crate::wire::query_directory::{
    self, FLAG_REOPEN, FLAG_RESTART_SCANS, FLAG_RETURN_SINGLE_ENTRY,
};
use outlast_fsa::access;
use outlast_fsa::fileop::{FileOp, OpenId, Outcome};
use outlast_fsa::open::Cursor;
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// The longest pattern, in UTF-16 code units: longer ones match no name (MS-FSCC 2.1.5).
const MAX_PATTERN: usize = 255;

/// The largest number of entries requested of the file system at once.
const MAX_ENTRIES: u32 = 4096;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// The status of the response.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &query_directory::Request,
) -> Result<Handled, NtStatus> {
    let Listing {
        open,
        cursor,
        encoder,
    } = Listing::of(ctx, request, body)?;
    if cursor.finished {
        return Err(NtStatus::NO_MORE_FILES);
    }
    let before = ctx
        .file_of(open)
        .map_or(0, |file| size::cursor(&file.cursor));
    let more = size::cursor(&cursor).saturating_sub(before);
    if !ctx.smb.may_take(ctx.conn, Held::bytes(more)) {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let limit = if body.flags & FLAG_RETURN_SINGLE_ENTRY == 0 {
        encoder.room().clamp(1, MAX_ENTRIES)
    } else {
        1
    };
    Ok(Handled::Op(FileOp::QueryDirectory {
        open,
        pattern: cursor.pattern.unwrap_or_default(),
        after: cursor.after,
        limit,
    }))
}

/// Finishes the command, as [`super::finish`].
///
/// # Errors
/// The status of the response.
pub fn finish(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &query_directory::Request,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    let Outcome::Entries { entries, more } = outcome? else {
        return Err(NtStatus::INTERNAL_ERROR);
    };
    let Listing {
        open,
        mut cursor,
        mut encoder,
    } = Listing::of(ctx, request, body)?;
    let taken = entries
        .iter()
        .take_while(|entry| encoder.push(entry))
        .count();
    // The listing continues after the last entry in the client's buffer.
    if let Some(last) = taken.checked_sub(1).and_then(|last| entries.get(last)) {
        cursor.after = Some(last.name.clone());
    }
    let first = cursor.returned == 0;
    cursor.returned += taken as u64;
    cursor.finished = !more && taken == entries.len();
    ctx.emit(Record::Cursor { open, cursor });
    if !encoder.is_empty() {
        let data = encoder.finish().into();
        return Ok(Handled::Reply(Reply::success(
            wire::Response::QueryDirectory(query_directory::Response { data }),
        )));
    }
    Err(match (entries.is_empty(), first) {
        // MS-FSA 2.1.5.6.3: the first entry's name does not fit.
        (false, _) => NtStatus::BUFFER_OVERFLOW,
        (true, true) => NtStatus::NO_SUCH_FILE,
        (true, false) => NtStatus::NO_MORE_FILES,
    })
}

/// The cursor to continue from, and the empty output buffer. It depends on the request and the state alone, and is
/// equal in `start` and `finish`.
struct Listing {
    open: OpenId,
    cursor: Cursor,
    encoder: Encoder,
}

impl Listing {
    fn of(
        ctx: &Context<'_>,
        request: &Request,
        body: &query_directory::Request,
    ) -> Result<Listing, NtStatus> {
        let (open, file) = ctx.file(request, body.file_id)?;
        if !file.is_dir {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        crate::info::access::require(open.granted_access, access::READ_DATA)?;
        let level = Level::from_class(body.file_information_class)?;
        let encoder = Encoder::new(level, body.output_buffer_length as usize)?;
        Ok(Listing {
            open: open.id,
            cursor: moved(&file.cursor, body)?,
            encoder,
        })
    }
}

/// Applies this request's flags and pattern to the cursor.
fn moved(cursor: &Cursor, body: &query_directory::Request) -> Result<Cursor, NtStatus> {
    let reopen = body.flags & FLAG_REOPEN != 0;
    let restart = body.flags & FLAG_RESTART_SCANS != 0;
    if !reopen && !restart && cursor.pattern.is_some() {
        // The listing continues with its first pattern, whatever the request contains.
        return Ok(cursor.clone());
    }
    let kept = cursor.pattern.clone().filter(|_| !reopen);
    let pattern = match (body.pattern.as_str(), kept) {
        ("", Some(kept)) => kept,
        // MS-FSA 2.1.5.6: an empty pattern is "*".
        ("", None) => "*".to_owned(),
        (given, _) => {
            if given.contains(['/', '\\', ':']) || given.encode_utf16().count() > MAX_PATTERN {
                return Err(NtStatus::OBJECT_NAME_INVALID);
            }
            given.to_owned()
        }
    };
    Ok(Cursor {
        pattern: Some(pattern),
        ..Cursor::default()
    })
}
