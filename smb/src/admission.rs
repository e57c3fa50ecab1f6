//! Checks an operation for conflicts with byte-range locks, other opens of the file and their oplocks and leases
//! (MS-FSA 2.1.5).

use crate::command::create;
use crate::context::Context;
use crate::held::Held;
use crate::server::{Planned, Task};
use crate::state::{Target, Wait};
use crate::{caching, size, wire};
use outlast_fsa::access;
use outlast_fsa::fileop::{FileKey, FileOp, Intent, OpenId, ShareId, WriteAt};
use outlast_fsa::locks::Lock;
use outlast_fsa::open::FileOpen;
use outlast_fsa::sharing::Sharing;
use outlast_fsa::sharing::share_access;
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream::StreamKey;
use outlast_fsa::{locks, path};

/// Admits an operation, or returns what it must wait for first. Breaks level II oplocks and leases that it conflicts
/// with.
///
/// # Errors
/// The status of the response.
pub(crate) fn check(
    ctx: &mut Context<'_>,
    body: &wire::Request,
    planned: &Planned,
    intent: &Intent,
) -> Result<Option<Wait>, NtStatus> {
    match (&planned.op, intent.itself()) {
        (FileOp::Create(op), Intent::Create(found)) => {
            let wire::Request::Create(body) = body else {
                return Err(NtStatus::INTERNAL_ERROR);
            };
            // The request has waited before: its break may be acknowledged by now, or only in part.
            let has_waited = matches!(planned.task, Task::Parked(..));
            return create::admit(ctx, body, &planned.actor, op, found, has_waited);
        }
        (
            FileOp::Read {
                open,
                offset,
                length,
            },
            _,
        ) => {
            may_read(ctx, *open, *offset, u64::from(*length))?;
        }
        (FileOp::Write { open, at, data, .. }, intent) => {
            let offset = match (at, intent) {
                (_, Intent::Write { offset }) | (WriteAt::Offset(offset), _) => *offset,
                (WriteAt::End, _) => u64::MAX,
            };
            may_write(ctx, *open, offset, data.len() as u64)?;
            caching::tell_of_change(ctx, *open);
        }
        (FileOp::ZeroData { open, from, beyond }, _) => {
            may_write(ctx, *open, *from, beyond.saturating_sub(*from))?;
            caching::tell_of_change(ctx, *open);
        }
        (
            FileOp::CopyChunks {
                source,
                target,
                chunks,
            },
            _,
        ) => {
            for chunk in chunks {
                may_read(ctx, *source, chunk.source_offset, chunk.length.into())?;
                may_write(ctx, *target, chunk.target_offset, chunk.length.into())?;
            }
            caching::tell_of_change(ctx, *target);
        }
        (FileOp::SetEndOfFile { open, .. } | FileOp::SetAllocation { open, .. }, _) => {
            caching::tell_of_change(ctx, *open);
        }
        (
            FileOp::Rename { .. },
            Intent::Rename {
                source,
                is_dir,
                from,
                to,
                replaced,
            },
        ) => {
            // 2.1.5.14.11: a directory with open files beneath it must not be renamed.
            if *is_dir {
                let share = planned.actor.share;
                if let Some(key) = caching::break_handles_below(ctx, share, from) {
                    return Ok(Some(Wait::Break(key)));
                }
                if ctx.smb.opens_below(share, from).next().is_some() {
                    return Err(NtStatus::ACCESS_DENIED);
                }
            }
            may_change_directory(ctx, planned.op.open())?;
            if let Some(wait) = crate::streams::may_rename_file(ctx, *source)? {
                return Ok(Some(wait));
            }
            if let Some(wait) = may_replace(ctx, *source, *replaced)? {
                return Ok(Some(wait));
            }
            may_rename(ctx, *source, from, to)?;
            if caching::break_handles(ctx, planned.op.open()) {
                return Ok(Some(Wait::Break(*source)));
            }
        }
        (FileOp::Rename { open, .. }, Intent::RenameStream { to, .. }) => {
            return crate::streams::may_rename(ctx, *open, to);
        }
        (
            FileOp::Link { .. },
            Intent::Rename {
                source, replaced, ..
            },
        ) => {
            return may_replace(ctx, *source, *replaced);
        }
        _ => {}
    }
    Ok(None)
}

/// Checks that a name in a directory may be changed. The change counts as an open that writes the directory and shares
/// READ and WRITE: it conflicts with an open for DELETE and with one that does not share WRITE.
fn may_change_directory(ctx: &Context<'_>, open: OpenId) -> Result<(), NtStatus> {
    let sharing = Sharing::of(access::WRITE_DATA, share_access::READ | share_access::WRITE);
    let directory = ctx.file_of(open).map(|file| file.directory);
    match directory.is_some_and(|directory| ctx.smb.files.opens(directory).exclude(sharing)) {
        true => Err(NtStatus::SHARING_VIOLATION),
        false => Ok(()),
    }
}

/// 2.1.5.14.11: an open file must not be replaced. Durable opens without a connection are closed first.
fn may_replace(
    ctx: &mut Context<'_>,
    source: FileKey,
    replaced: Option<FileKey>,
) -> Result<Option<Wait>, NtStatus> {
    let Some(key) = replaced.filter(|key| *key != source) else {
        return Ok(None);
    };
    if caching::close_all_detached(ctx, key) {
        return Ok(Some(Wait::Break(key)));
    }
    match ctx.smb.files.opens_of_file(key).next() {
        None => Ok(None),
        Some(_) => Err(NtStatus::ACCESS_DENIED),
    }
}

/// Checks that the log has room for the new name: every open of the file contains it.
pub(crate) fn may_rename(
    ctx: &Context<'_>,
    file: FileKey,
    from: &str,
    to: &str,
) -> Result<(), NtStatus> {
    let opens = ctx.smb.files.opens_of_file(file).count();
    let more = opens * size::bytes(to).saturating_sub(size::bytes(from));
    match ctx.smb.may_take(ctx.conn, Held::bytes(more)) {
        true => Ok(()),
        false => Err(NtStatus::INSUFFICIENT_RESOURCES),
    }
}

fn key_of(ctx: &Context<'_>, open: OpenId) -> Option<StreamKey> {
    ctx.file_of(open).map(StreamKey::of)
}

/// 2.1.4.10: checks a read for conflicts with locks of the file.
fn may_read(ctx: &Context<'_>, open: OpenId, offset: u64, length: u64) -> Result<(), NtStatus> {
    may_access(ctx, open, |lock, own| {
        locks::forbids_read(lock, offset, length, own)
    })
}

/// 2.1.4.10: checks a write for conflicts with locks of the file.
fn may_write(ctx: &Context<'_>, open: OpenId, offset: u64, length: u64) -> Result<(), NtStatus> {
    may_access(ctx, open, |lock, own| {
        locks::forbids_write(lock, offset, length, own)
    })
}

fn may_access(
    ctx: &Context<'_>,
    open: OpenId,
    forbids: impl Fn(&Lock, bool) -> bool,
) -> Result<(), NtStatus> {
    let Some(key) = key_of(ctx, open) else {
        return Ok(());
    };
    let forbidden = ctx
        .smb
        .locks(key)
        .any(|(id, lock)| forbids(lock, id == open));
    if forbidden {
        Err(NtStatus::FILE_LOCK_CONFLICT)
    } else {
        Ok(())
    }
}

impl crate::Smb {
    /// Iterates over the byte-range locks of a stream, each with its open.
    pub(crate) fn locks(&self, key: StreamKey) -> impl Iterator<Item = (OpenId, &Lock)> {
        let locking = self.files.opens(key).locking();
        let files = locking.filter_map(|(conn, id)| Some((id, self.file(conn, id)?)));
        files.flat_map(|(id, file)| file.locks.iter().map(move |lock| (id, lock)))
    }

    /// Iterates over the opens of a share's files and directories.
    pub(crate) fn opens_in(&self, share: ShareId) -> impl Iterator<Item = &FileOpen> {
        let connections = self.connections.values();
        let opens = connections.flat_map(|connection| connection.opens.values());
        let opens = opens.filter(move |open| open.actor.share == share);
        opens.filter_map(|open| match &open.target {
            Target::File(file) => Some(file),
            Target::Pipe(_) => None,
        })
    }

    /// Iterates over those beneath a directory.
    pub(crate) fn opens_below(
        &self,
        share: ShareId,
        directory: &str,
    ) -> impl Iterator<Item = &FileOpen> {
        let opens = self.opens_in(share);
        opens.filter(move |file| path::below(&file.path, directory).is_some())
    }
}
