//! Oplocks: granting, breaking, and giving up on a client that does not acknowledge (MS-SMB2 3.3.4.6, MS-FSA 2.1.5.18).

use crate::context::Context;
use crate::engine::send;
use crate::record::Record;
use crate::server::ConnId;
use outlast_fsa::fileop::{FileKey, OpenId};
use outlast_fsa::oplock::{Breaking, OplockLevel};
use std::time::Duration;

/// How long an acknowledgment is waited for (MS-SMB2 3.3.2.1).
const BREAK_TIMEOUT: Duration = Duration::from_secs(35);

/// Breaks what a new open may not share with: batch oplocks before share modes are looked at (the client may have closed the file
/// and only kept it open), exclusive ones after. True: an acknowledgment has to be waited for.
pub(crate) fn break_for_open(
    ctx: &mut Context<'_>,
    key: FileKey,
    level: OplockLevel,
    overwrites: bool,
) -> bool {
    let to = if overwrites {
        OplockLevel::None
    } else {
        OplockLevel::LevelII
    };
    let mut waits = false;
    for (conn, open) in holders(ctx, key, level) {
        waits = true;
        let file = ctx.smb.file(conn, open);
        if file.is_some_and(|file| file.breaking.is_none()) {
            start(ctx, conn, open, level, to);
        }
    }
    waits
}

/// Who holds an oplock of this level; an open that is about to be closed by the server holds none any more.
fn holders(ctx: &Context<'_>, key: FileKey, level: OplockLevel) -> Vec<(ConnId, OpenId)> {
    let alive = |conn: ConnId, id: OpenId| {
        let open = ctx.smb.connection(conn).opens.get(&id);
        open.is_some_and(|open| open.closing.is_none())
    };
    ctx.smb
        .files
        .opens(key)
        .with_oplock(level)
        .filter(|(conn, id)| alive(*conn, *id))
        .collect()
}

/// The client is told, and has [`BREAK_TIMEOUT`] to acknowledge.
fn start(ctx: &mut Context<'_>, conn: ConnId, open: OpenId, level: OplockLevel, to: OplockLevel) {
    let deadline = ctx.clock.now + BREAK_TIMEOUT;
    ctx.emit_on(
        conn,
        Record::Oplock {
            open,
            level,
            breaking: Some(Breaking { to, deadline }),
        },
    );
    send::break_notification(ctx, conn, open, to);
}

/// Level II oplocks of a file are gone, that of the open which changes it, too (MS-FSA 2.1.4.12): nobody acknowledges that.
pub(crate) fn break_level_two(ctx: &mut Context<'_>, key: FileKey) {
    let opens = ctx.smb.files.opens(key);
    let shared: Vec<_> = opens.with_oplock(OplockLevel::LevelII).collect();
    for (conn, open) in shared {
        ctx.emit_on(
            conn,
            Record::Oplock {
                open,
                level: OplockLevel::None,
                breaking: None,
            },
        );
        send::break_notification(ctx, conn, open, OplockLevel::None);
    }
}

/// The file of this open is about to change.
pub(crate) fn tell_of_change(ctx: &mut Context<'_>, open: OpenId) {
    if let Some(key) = ctx.file_of(open).map(|file| file.key) {
        break_level_two(ctx, key);
    }
}

/// The oplock a new open gets (MS-FSA 2.1.5.18.1): alone all it wants, else level II where nobody has more and nothing is locked.
/// `looks`: all it does is to look at the attributes of a file that was there.
pub(crate) fn grant(
    ctx: &Context<'_>,
    key: FileKey,
    looks: bool,
    wanted: OplockLevel,
) -> OplockLevel {
    let dialect = ctx.connection().negotiation.dialect;
    let may_be_granted = ctx.config().oplocks.may_be_granted(dialect);
    if !may_be_granted || wanted == OplockLevel::None || looks {
        return OplockLevel::None;
    }
    let others = ctx.smb.files.opens(key);
    let highest = others.highest_oplock();
    if highest > OplockLevel::LevelII || others.locking().next().is_some() {
        OplockLevel::None
    } else if others.is_used() || highest != OplockLevel::None {
        OplockLevel::LevelII
    } else {
        wanted
    }
}

/// The time to acknowledge a break is over: the oplock is gone (3.3.6.1).
pub(crate) fn timed_out(ctx: &mut Context<'_>, open: OpenId) {
    log::info!(
        "connection {}: an oplock break is not acknowledged in time",
        ctx.conn
    );
    ctx.emit(Record::Oplock {
        open,
        level: OplockLevel::None,
        breaking: None,
    });
}
