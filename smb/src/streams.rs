//! Applies the rules by which the streams of a file affect one another and the file (MS-FSA 2.1.5).

use crate::context::Context;
use crate::record::Record;
use crate::server::ConnId;
use crate::state::Wait;
use crate::{admission, caching};
use outlast_fsa::access;
use outlast_fsa::fileop::{Change, ChangeKind, FileKey, OpenId, ShareId};
use outlast_fsa::sharing::{Sharing, share_access};
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream::{self, StreamKey};

/// Iterates over the named streams of a file that are open.
fn open_streams<'a>(ctx: &'a Context<'_>, file: FileKey) -> impl Iterator<Item = StreamKey> + 'a {
    let streams = ctx.smb.files.streams(file);
    streams.filter(|key| !key.stream.is_default())
}

/// Checks that no named stream of a file is open: such a file must not be renamed (2.1.5.15.11). Clients that keep a
/// stream open for a later open close it first: then the caller must wait.
///
/// # Errors
/// ACCESS_DENIED.
pub(crate) fn may_rename_file(
    ctx: &mut Context<'_>,
    file: FileKey,
) -> Result<Option<Wait>, NtStatus> {
    let open: Vec<StreamKey> = open_streams(ctx, file).collect();
    let mut waits = false;
    for key in &open {
        waits |= caching::break_handles_of(ctx, *key, None);
    }
    match (waits, open.is_empty()) {
        (true, _) => Ok(Some(Wait::Break(file))),
        (false, true) => Ok(None),
        (false, false) => Err(NtStatus::ACCESS_DENIED),
    }
}

/// Returns the named streams with an open that does not share DELETE: the streams are deleted with their file, and by
/// an open that overwrites it (2.1.5.1.2.2).
pub(crate) fn excluding_deletion(ctx: &Context<'_>, file: FileKey) -> Vec<StreamKey> {
    let deletion = Sharing::of(access::DELETE, share_access::ALL);
    let streams = open_streams(ctx, file);
    streams
        .filter(|key| ctx.smb.files.opens(*key).exclude(deletion))
        .collect()
}

/// Admits the rename of a stream to the path `to`, or returns what it must wait for first.
///
/// # Errors
/// ACCESS_DENIED: the stream that it replaces is open. INSUFFICIENT_RESOURCES.
pub(crate) fn may_rename(
    ctx: &mut Context<'_>,
    open: OpenId,
    to: &str,
) -> Result<Option<Wait>, NtStatus> {
    let Some(file) = ctx.file_of(open) else {
        return Ok(None);
    };
    let (key, own) = (StreamKey::of(file), file.lease.map(|lease| lease.id));
    let replaced = StreamKey::new(key.file, to);
    if replaced != key && !ctx.smb.files.opens(replaced).is_empty() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    admission::may_rename(ctx, key.file, &file.path, to)?;
    match caching::break_handles_of(ctx, key, own) {
        true => Ok(Some(Wait::Break(key.file))),
        false => Ok(None),
    }
}

/// Changes the path of every open of a renamed stream: also of those through other links of the file.
pub(crate) fn renamed(ctx: &mut Context<'_>, share: ShareId, open: OpenId, from: &str, to: &str) {
    let (Some(file), (_, Some(name))) = (ctx.file_of(open), stream::split(to)) else {
        return;
    };
    let opens = ctx.smb.files.opens(StreamKey::of(file)).all();
    let moved = opens.filter_map(|(conn, open)| {
        let file = ctx.smb.file(conn, open)?;
        let path = stream::join(stream::split(&file.path).0, name);
        Some((conn, open, path, file.directory))
    });
    let moved: Vec<(ConnId, OpenId, String, FileKey)> = moved.collect();
    for (conn, open, path, directory) in moved {
        let moved = Record::Moved {
            open,
            path,
            directory,
        };
        ctx.emit_on(conn, moved);
    }
    ctx.publish(&Change {
        share,
        path: from.to_owned(),
        is_dir: false,
        kind: ChangeKind::RenamedTo(to.to_owned()),
    });
}
