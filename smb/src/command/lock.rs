//! Handles LOCK (MS-SMB2 3.3.5.14).

use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::held::Held;
use crate::record::Record;
use crate::state::Wait;
use crate::wire::lock::{self, Element, flags};
use crate::wire::{Dialect, Response};
use crate::{caching, size};
use outlast_fsa::access;
use outlast_fsa::fileop::OpenId;
use outlast_fsa::locks;
use outlast_fsa::locks::Lock;
use outlast_fsa::open::FileOpen;
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream::StreamKey;

/// Buckets of LockSequenceIndex (2.2.26).
const BUCKETS: std::ops::RangeInclusive<u32> = 1..=64;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// FILE_CLOSED, ACCESS_DENIED, INVALID_PARAMETER, INVALID_LOCK_RANGE, RANGE_NOT_LOCKED, LOCK_NOT_GRANTED,
/// INSUFFICIENT_RESOURCES.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &lock::Request,
) -> Result<Handled, NtStatus> {
    let (open, file) = ctx.file(request, body.file_id)?;
    if file.is_dir {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    if open.granted_access & (access::READ_DATA | access::WRITE_DATA) == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let (id, key) = (open.id, StreamKey::of(file));
    if is_replay(ctx, file, body) {
        return Ok(locked());
    }
    let is_unlock = |element: &Element| element.flags & flags::UNLOCK != 0;
    let handled = if body.locks.first().is_some_and(is_unlock) {
        unlock(ctx, id, body)?
    } else {
        lock(ctx, id, key, body)?
    };
    let counted = ctx.connection().negotiation.dialect >= Some(Dialect::Smb300);
    if counted
        && BUCKETS.contains(&body.lock_sequence_index)
        && matches!(handled, Handled::Reply(_))
    {
        ctx.emit(Record::LockSequence {
            open: id,
            index: body.lock_sequence_index,
            number: body.lock_sequence_number,
        });
    }
    Ok(handled)
}

fn locked() -> Handled {
    Handled::Reply(Reply::success(Response::Lock))
}

/// Returns whether the request is a replay, which has already been executed.
fn is_replay(ctx: &Context<'_>, file: &FileOpen, body: &lock::Request) -> bool {
    ctx.connection().negotiation.dialect >= Some(Dialect::Smb300)
        && BUCKETS.contains(&body.lock_sequence_index)
        && file.lock_sequences.get(&body.lock_sequence_index) == Some(&body.lock_sequence_number)
}

/// 3.3.5.14.1: unlocks entry by entry. Ranges before the first failure remain unlocked.
fn unlock(ctx: &mut Context<'_>, open: OpenId, body: &lock::Request) -> Result<Handled, NtStatus> {
    for element in &body.locks {
        let &Element { offset, length, .. } = element;
        if element.flags != flags::UNLOCK {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let held = ctx.file_of(open).is_some_and(|file| {
            file.locks
                .iter()
                .any(|lock| lock.offset == offset && lock.length == length)
        });
        if !held {
            return Err(NtStatus::RANGE_NOT_LOCKED);
        }
        ctx.emit(Record::Unlocked {
            open,
            offset,
            length,
        });
    }
    Ok(locked())
}

/// 3.3.5.14.2: grants all locks, or none.
fn lock(
    ctx: &mut Context<'_>,
    open: OpenId,
    key: StreamKey,
    body: &lock::Request,
) -> Result<Handled, NtStatus> {
    let mut wanted: Vec<Lock> = Vec::with_capacity(body.locks.len());
    for element in &body.locks {
        let exclusive = match element.flags & !flags::FAIL_IMMEDIATELY {
            flags::SHARED_LOCK => false,
            flags::EXCLUSIVE_LOCK => true,
            _ => return Err(NtStatus::INVALID_PARAMETER),
        };
        // A request for several locks must not wait.
        if body.locks.len() > 1 && element.flags & flags::FAIL_IMMEDIATELY == 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if !locks::is_range(element.offset, element.length) {
            return Err(NtStatus::INVALID_LOCK_RANGE);
        }
        wanted.push(Lock {
            offset: element.offset,
            length: element.length,
            exclusive,
        });
    }
    let held = ctx.file_of(open).map_or(0, |file| file.locks.len());
    let more = Held {
        locks: wanted.len(),
        bytes: wanted.len() * size::LOCK,
        ..Held::default()
    };
    if held + wanted.len() > ctx.config().limits.locks || !ctx.smb.may_take(ctx.conn, more) {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let mut granted: Vec<Lock> = Vec::with_capacity(wanted.len());
    for lock in &wanted {
        let theirs = ctx
            .smb
            .locks(key)
            .any(|(id, held)| locks::excludes(held, lock, id == open));
        if theirs || granted.iter().any(|own| locks::excludes(own, lock, true)) {
            let waits = body
                .locks
                .iter()
                .all(|e| e.flags & flags::FAIL_IMMEDIATELY == 0);
            return match waits {
                true => Ok(Handled::Wait(Wait::Lock(key.file))),
                false => Err(NtStatus::LOCK_NOT_GRANTED),
            };
        }
        granted.push(*lock);
    }
    ctx.emit(Record::Locked {
        open,
        locks: wanted,
    });
    // MS-FSA 2.1.5.8: other opens may have cached data that is locked now.
    caching::tell_of_change(ctx, open);
    Ok(locked())
}
