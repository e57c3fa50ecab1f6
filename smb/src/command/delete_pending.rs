//! Keeps the delete-pending mark of links, which are deleted when their last open is closed (MS-FSA 2.1.5.5,
//! 2.1.5.15.3): one open of a link holds the mark for all of them.
//!
//! [`Link`] explains why the mark belongs to a link and not to a path.

use crate::caching;
use crate::context::Context;
use crate::record::Record;
use crate::server::ConnId;
use crate::state::Wait;
use outlast_fsa::fileop::OpenId;
use outlast_fsa::lease::LeaseId;
use outlast_fsa::link::Link;
use outlast_fsa::status::NtStatus;

/// Iterates over the opens of a link that hold the mark.
fn marked<'a>(ctx: &'a Context<'_>, link: &'a Link) -> impl Iterator<Item = (ConnId, OpenId)> + 'a {
    let marked = ctx.smb.files.opens(link.file).delete_pending();
    marked.filter(|(conn, open)| is_by(ctx, link, *conn, *open))
}

fn is_by(ctx: &Context<'_>, link: &Link, conn: ConnId, open: OpenId) -> bool {
    let file = ctx.smb.file(conn, open);
    file.is_some_and(|file| link.is_of(file))
}

/// Returns whether the link is delete-pending.
pub(crate) fn is_set(ctx: &Context<'_>, link: &Link) -> bool {
    marked(ctx, link).next().is_some()
}

/// Returns an open of this link other than `but`.
pub(crate) fn other_open(ctx: &Context<'_>, link: &Link, but: OpenId) -> Option<(ConnId, OpenId)> {
    let mut opens = ctx.smb.files.opens(link.file).all();
    opens.find(|(conn, open)| *open != but && is_by(ctx, link, *conn, *open))
}

/// Marks the link of an open as delete-pending; an open of the lease `by` has asked for it. Ends the CHANGE_NOTIFY
/// requests on such a directory, which would wait forever and keep its watches open (MS-FSA 2.1.5.15.3). Breaks the
/// HANDLE caching of other leases, whose clients would keep the file for opens to come.
pub(crate) fn set(ctx: &mut Context<'_>, conn: ConnId, open: OpenId, by: Option<LeaseId>) {
    ctx.emit_on(conn, Record::DeletePending { open, on: true });
    let Some(key) = ctx.smb.file(conn, open).map(|file| file.key) else {
        return;
    };
    caching::break_handles_of(ctx, key, by);
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

/// Clears the mark of the link, whichever open holds it.
pub(crate) fn clear(ctx: &mut Context<'_>, link: &Link) {
    for (conn, open) in marked(ctx, link).collect::<Vec<_>>() {
        ctx.emit_on(conn, Record::DeletePending { open, on: false });
    }
}
