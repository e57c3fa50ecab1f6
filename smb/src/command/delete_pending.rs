//! Keeps the delete-pending marks of links and of named streams (MS-FSA 2.1.5.5, 2.1.5.15.3). A link is deleted when
//! the last open of its file's streams through it is closed, a stream when its last open is closed: one open holds the
//! mark for all of them.
//!
//! [`Link`] explains why the mark belongs to a link and not to a path. An open of the default stream, or of a
//! directory, holds the mark of its link as its own; an open of a named stream may hold both marks.

use crate::caching;
use crate::context::Context;
use crate::record::Record;
use crate::server::ConnId;
use crate::state::Wait;
use outlast_fsa::fileop::{FileKey, OpenId};
use outlast_fsa::lease::LeaseId;
use outlast_fsa::link::Link;
use outlast_fsa::open::FileOpen;
use outlast_fsa::status::NtStatus;
use outlast_fsa::stream::StreamKey;

/// What is deleted by a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// The link of an open, and with the last link the file.
    Link,
    /// The named stream of an open.
    Stream,
}

impl Marked {
    /// Returns what the mark deletes that an open is given by its own request.
    pub(crate) fn by(file: &FileOpen) -> Marked {
        match StreamKey::of(file).stream.is_default() {
            true => Marked::Link,
            false => Marked::Stream,
        }
    }

    /// Returns whether an open holds this mark; FILE_DELETE_ON_CLOSE becomes one when it is closed.
    pub(crate) fn is_held(self, file: &FileOpen, at_close: bool) -> bool {
        match self == Marked::by(file) {
            true => file.delete_pending || at_close && file.delete_on_close,
            false => self == Marked::Link && file.file_delete_pending,
        }
    }
}

/// Iterates over the opens of a file that are deleted with the link (of a stream: with the stream) of `file`.
fn opens_with<'a>(
    ctx: &'a Context<'_>,
    marked: Marked,
    file: FileKey,
    path: &str,
    directory: FileKey,
) -> impl Iterator<Item = (ConnId, OpenId)> + 'a {
    let (link, stream) = (Link::new(file, directory, path), StreamKey::new(file, path));
    ctx.smb
        .files
        .opens_of_file(file)
        .filter(move |(conn, open)| {
            let file = ctx.smb.file(*conn, *open);
            file.is_some_and(|file| match marked {
                Marked::Link => link.is_of(file),
                Marked::Stream => StreamKey::of(file) == stream,
            })
        })
}

/// Returns whether the link of `path`, or the named stream to which it leads, is delete-pending.
pub(crate) fn is_set(ctx: &Context<'_>, file: FileKey, directory: FileKey, path: &str) -> bool {
    let is_marked = |marked: Marked| {
        let mut opens = opens_with(ctx, marked, file, path, directory);
        opens.any(|(conn, open)| {
            let file = ctx.smb.file(conn, open);
            file.is_some_and(|file| marked.is_held(file, false))
        })
    };
    let is_default = StreamKey::new(file, path).stream.is_default();
    let streams = ctx.smb.files.streams(file);
    let mut pending = streams.flat_map(|key| ctx.smb.files.opens(key).delete_pending());
    // Most files have no mark.
    let is_any = pending.next().is_some();
    is_any && (is_marked(Marked::Link) || !is_default && is_marked(Marked::Stream))
}

/// As [`is_set`], for an open.
pub(crate) fn is_set_on(ctx: &Context<'_>, file: &FileOpen) -> bool {
    is_set(ctx, file.key, file.directory, &file.path)
}

/// Returns an open other than `but` that would be deleted together with the open `but` of `file`.
pub(crate) fn other_open(
    ctx: &Context<'_>,
    marked: Marked,
    file: &FileOpen,
    but: OpenId,
) -> Option<(ConnId, OpenId)> {
    let mut opens = opens_with(ctx, marked, file.key, &file.path, file.directory);
    opens.find(|(_, open)| *open != but)
}

/// Passes the mark of a closed open on to another one.
pub(crate) fn pass_on(
    ctx: &mut Context<'_>,
    marked: Marked,
    (conn, open): (ConnId, OpenId),
    by: Option<LeaseId>,
) {
    let file = ctx.smb.file(conn, open);
    match file.is_some_and(|file| Marked::by(file) != marked) {
        true => ctx.emit_on(conn, Record::FileDeletePending { open, on: true }),
        false => set(ctx, conn, open, by),
    }
}

/// Marks the link or the stream of an open as delete-pending; an open of the lease `by` has asked for it. Ends the
/// CHANGE_NOTIFY requests on such a directory, which would wait forever and keep its watches open (MS-FSA 2.1.5.15.3).
/// Breaks the HANDLE caching of other leases, whose clients would keep the file for opens to come.
pub(crate) fn set(ctx: &mut Context<'_>, conn: ConnId, open: OpenId, by: Option<LeaseId>) {
    ctx.emit_on(conn, Record::DeletePending { open, on: true });
    let Some(key) = ctx.smb.file(conn, open).map(StreamKey::of) else {
        return;
    };
    let deleted: Vec<StreamKey> = match key.stream.is_default() {
        true => ctx.smb.files.streams(key.file).collect(),
        false => vec![key],
    };
    for key in deleted {
        caching::break_handles_of(ctx, key, by);
    }
    let opens = ctx.smb.files.opens(key).all();
    let watching = opens.filter(|(conn, open)| {
        let file = ctx.smb.file(*conn, *open);
        file.is_some_and(|file| file.watch.is_some())
    });
    let waiting: Vec<(ConnId, u64)> = watching
        .flat_map(|(conn, open)| {
            let parked = ctx.smb.connection(conn).parked.iter();
            let on_it = parked.filter(move |(_, parked)| parked.wait == Wait::Notify(open));
            on_it.map(move |(id, _)| (conn, *id))
        })
        .collect();
    for (conn, id) in waiting {
        let status = NtStatus::DELETE_PENDING;
        ctx.emit_on(conn, Record::Cancelled { id, status });
    }
}

/// Clears the mark that an open would be given by its own request, whichever open holds it.
pub(crate) fn clear(ctx: &mut Context<'_>, file: &FileOpen) {
    let marked = Marked::by(file);
    let opens = opens_with(ctx, marked, file.key, &file.path, file.directory);
    let held = opens.filter_map(|(conn, open)| {
        let file = ctx.smb.file(conn, open)?;
        let is_own = Marked::by(file) == marked;
        marked.is_held(file, false).then_some((conn, open, is_own))
    });
    for (conn, open, is_own) in held.collect::<Vec<_>>() {
        let on = false;
        let record = match is_own {
            true => Record::DeletePending { open, on },
            false => Record::FileDeletePending { open, on },
        };
        ctx.emit_on(conn, record);
    }
}
