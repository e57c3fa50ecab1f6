//! A link that is to be deleted when its last open is closed (MS-FSA 2.1.5.5, 2.1.5.15.3): one of its opens carries the
//! mark for all of them.
//!
//! A link is an entry of a directory. It is known by the file, the directory and the name, and not by the path: two
//! shares may overlap, and a symbolic link is an entry of its own.

use crate::context::Context;
use crate::record::Record;
use crate::server::ConnId;
use crate::state::Wait;
use outlast_fsa::fileop::OpenId;
use outlast_fsa::link::Link;
use outlast_fsa::status::NtStatus;

/// The opens of a link that carry the mark.
fn marked<'a>(ctx: &'a Context<'_>, link: &'a Link) -> impl Iterator<Item = (ConnId, OpenId)> + 'a {
    let marked = ctx.smb.files.opens(link.file).delete_pending();
    marked.filter(|(conn, open)| is_by(ctx, link, *conn, *open))
}

fn is_by(ctx: &Context<'_>, link: &Link, conn: ConnId, open: OpenId) -> bool {
    let file = ctx.smb.file(conn, open);
    file.is_some_and(|file| link.is_of(file))
}

/// Is this link to be deleted?
pub(crate) fn is_set(ctx: &Context<'_>, link: &Link) -> bool {
    marked(ctx, link).next().is_some()
}

/// An open of this link other than `but`.
pub(crate) fn other_open(ctx: &Context<'_>, link: &Link, but: OpenId) -> Option<(ConnId, OpenId)> {
    let mut opens = ctx.smb.files.opens(link.file).all();
    opens.find(|(conn, open)| *open != but && is_by(ctx, link, *conn, *open))
}

/// This open carries the mark. A request that waits for changes in such a directory would wait in vain, and would keep
/// it there (MS-FSA 2.1.5.15.3).
pub(crate) fn set(ctx: &mut Context<'_>, conn: ConnId, open: OpenId) {
    ctx.emit_on(conn, Record::DeletePending { open, on: true });
    let Some(key) = ctx.smb.file(conn, open).map(|file| file.key) else {
        return;
    };
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

/// The link is not to be deleted after all, whichever open said so.
pub(crate) fn clear(ctx: &mut Context<'_>, link: &Link) {
    for (conn, open) in marked(ctx, link).collect::<Vec<_>>() {
        ctx.emit_on(conn, Record::DeletePending { open, on: false });
    }
}
