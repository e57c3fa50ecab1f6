//! Handles CHANGE_NOTIFY (MS-SMB2 3.3.5.19, MS-FSA 2.1.5.11).

use super::delete_pending;
use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::held::Held;
use crate::record::Record;
use crate::size;
use crate::state::Wait;
use crate::wire::{Response, change_notify, pad, utf16};
use bytes::{BufMut, Bytes};
use outlast_fsa::access;
use outlast_fsa::fileop::{FileOp, Outcome};
use outlast_fsa::open::{Notice, Watch};
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`]. The first request on an open begins its watch; changes between two requests
/// are kept for the next one.
///
/// # Errors
/// FILE_CLOSED, INVALID_PARAMETER for a file, ACCESS_DENIED, INSUFFICIENT_RESOURCES beyond the limit of watches.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &change_notify::Request,
) -> Result<Handled, NtStatus> {
    let (open, file) = ctx.file(request, body.file_id)?;
    if !file.is_dir {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if open.granted_access & access::READ_DATA == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let id = open.id;
    // MS-FSA 2.1.5.11: no request waits for changes in a delete-pending directory.
    if delete_pending::is_set_on(ctx, file) {
        return Err(NtStatus::DELETE_PENDING);
    }
    let Some(watch) = &file.watch else {
        let one = Held {
            watches: 1,
            bytes: size::WATCH,
            ..Held::default()
        };
        if !ctx.smb.may_take(ctx.conn, one) {
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        return Ok(Handled::Op(FileOp::Watch {
            open: id,
            recursive: body.watch_tree,
        }));
    };
    if !watch.overflow && watch.notices.is_empty() {
        return Ok(Handled::Wait(Wait::Notify(id)));
    }
    let emptied = Watch {
        filter: watch.filter,
        recursive: watch.recursive,
        most: watch.most,
        ..Watch::default()
    };
    let data = encode(watch.notices.iter());
    let most = watch.most.min(body.output_buffer_length);
    let fits = !watch.overflow && data.len() <= most as usize;
    ctx.emit(Record::Watch {
        open: id,
        watch: emptied,
    });
    let (status, data) = match fits {
        true => (NtStatus::SUCCESS, Bytes::from(data)),
        false => (NtStatus::NOTIFY_ENUM_DIR, Bytes::new()),
    };
    let response = Response::ChangeNotify(change_notify::Response { data });
    Ok(Handled::Reply(Reply::with_status(status, response)))
}

/// Finishes the command, as [`super::finish`]. If the operating system refuses its watch (their number is limited), the
/// watch still reports changes made through this server.
///
/// # Errors
/// None.
pub fn finish(
    ctx: &mut Context<'_>,
    body: &change_notify::Request,
    op: &FileOp,
    outcome: Result<Outcome, NtStatus>,
) -> Result<Handled, NtStatus> {
    if let Err(status) = outcome {
        log::warn!("local changes of a directory cannot be watched: {status}");
    }
    ctx.emit(Record::Watch {
        open: op.open(),
        watch: Watch {
            filter: body.completion_filter,
            recursive: body.watch_tree,
            most: body.output_buffer_length,
            ..Watch::default()
        },
    });
    Ok(Handled::Again)
}

/// Encodes notices as FILE_NOTIFY_INFORMATION (MS-FSCC 2.7.1).
fn encode<'a>(notices: impl ExactSizeIterator<Item = &'a Notice>) -> Vec<u8> {
    let mut out = Vec::new();
    let count = notices.len();
    for (index, notice) in notices.enumerate() {
        let start = out.len();
        let length = utf16::len(&notice.name);
        let is_last = index + 1 == count;
        let next = if is_last {
            0
        } else {
            (12 + length).next_multiple_of(4)
        };
        out.put_u32_le(next as u32);
        out.put_u32_le(notice.action);
        out.put_u32_le(length as u32);
        utf16::push(&notice.name, &mut out);
        if !is_last {
            pad(&mut out, start, 4);
        }
    }
    out
}
