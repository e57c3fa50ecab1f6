//! A file that is to be deleted at its last close (MS-FSA 2.1.5.15.3): one of its opens says so for all.

use crate::context::Context;
use crate::fileop::FileKey;
use crate::record::Record;

/// Is the file to be deleted at its last close?
pub(super) fn is_set(ctx: &Context<'_>, key: FileKey) -> bool {
    ctx.smb.files.opens(key).delete_pending().next().is_some()
}

/// The file is not to be deleted after all, whichever open said so.
pub(super) fn clear(ctx: &mut Context<'_>, key: FileKey) {
    let set: Vec<_> = ctx.smb.files.opens(key).delete_pending().collect();
    for (conn, open) in set {
        ctx.emit_on(conn, Record::DeletePending { open, on: false });
    }
}
