//! Applies the effects of an operation on other opens: their paths, delete-pending marks and watches.

use crate::caching;
use crate::context::Context;
use crate::record::Record;
use crate::server::{ConnId, Planned};
use crate::state::Target;
use crate::streams;
use outlast_fsa::fileop::{
    Change, ChangeKind, CreateAction, FileKey, FileOp, OpenId, Outcome, SetBasic, ShareId,
};
use outlast_fsa::notify::filter;
use outlast_fsa::open::FileOpen;
use outlast_fsa::{path, stream};

/// The filters of a change of the content of a named stream, which select nothing else.
const STREAM_CHANGED: u32 = filter::STREAM_SIZE | filter::STREAM_WRITE;

/// Puts the effects of an operation on record, before its response is made.
pub(crate) fn after(ctx: &mut Context<'_>, planned: &Planned, outcome: &Outcome) {
    let share = planned.actor.share;
    let changed = filter::SIZE | filter::LAST_WRITE;
    match (&planned.op, outcome) {
        (FileOp::Create(_), Outcome::Created(created)) => {
            let kind = match created.action {
                CreateAction::Created => ChangeKind::Added,
                CreateAction::Superseded | CreateAction::Overwritten => {
                    match stream::split(&created.path).1 {
                        Some(_) => ChangeKind::Modified(STREAM_CHANGED),
                        None => ChangeKind::Modified(changed | filter::ATTRIBUTES),
                    }
                }
                CreateAction::Opened => return,
            };
            if created.made_file {
                publish(
                    ctx,
                    share,
                    stream::split(&created.path).0,
                    ChangeKind::Added,
                );
            }
            let change = Change {
                share,
                path: created.path.clone(),
                is_dir: created.metadata.is_dir,
                kind,
            };
            ctx.publish(&change);
        }
        (FileOp::Write { open, .. } | FileOp::ZeroData { open, .. }, _)
        | (FileOp::CopyChunks { target: open, .. }, _) => data_modified(ctx, *open),
        (FileOp::SetEndOfFile { open, .. } | FileOp::SetAllocation { open, .. }, _) => {
            data_modified(ctx, *open);
            entry_changed(ctx, *open);
        }
        (FileOp::SetBasic { open, basic }, _) => {
            modified(ctx, *open, basic_filter(basic));
            entry_changed(ctx, *open);
        }
        (FileOp::SetEas { open, .. }, _) => {
            modified(ctx, *open, filter::EA);
            entry_changed(ctx, *open);
        }
        (FileOp::SetSecurity { open, .. }, _) => {
            modified(ctx, *open, filter::SECURITY);
            entry_changed(ctx, *open);
        }
        (FileOp::Rename { open, from, .. }, Outcome::Renamed { path, .. })
            if stream::split(from).1.is_some() =>
        {
            streams::renamed(ctx, share, *open, from, path);
        }
        (FileOp::Rename { open, from, .. }, Outcome::Renamed { path, directory }) => {
            renamed(ctx, share, *open, from, path, *directory);
        }
        (FileOp::Link { open, to, .. }, _) => {
            publish(ctx, share, to, ChangeKind::Added);
            linked(ctx, share, *open, to);
        }
        _ => {}
    }
}

/// Breaks the leases of the directory that has a new link.
fn linked(ctx: &mut Context<'_>, share: ShareId, open: OpenId, to: &str) {
    let spared = ctx.file_of(open).and_then(caching::parent_lease);
    let is_parent = |file: &&FileOpen| file.is_dir && Some(&*file.path) == path::parent(to);
    let key = ctx.smb.opens_in(share).find(is_parent).map(|file| file.key);
    if let Some(key) = key {
        caching::break_directory(ctx, key, spared);
    }
}

/// Publishes a change of a file that is not a directory, or of a stream.
fn publish(ctx: &mut Context<'_>, share: ShareId, path: &str, kind: ChangeKind) {
    ctx.publish(&Change {
        share,
        path: path.to_owned(),
        is_dir: false,
        kind,
    });
}

/// Publishes a change of what belongs to the file and not to a stream of it.
fn modified(ctx: &mut Context<'_>, open: OpenId, what: u32) {
    let Some(open) = ctx.connection().opens.get(&open) else {
        return;
    };
    let Target::File(file) = &open.target else {
        return;
    };
    let change = Change {
        share: open.actor.share,
        path: stream::split(&file.path).0.to_owned(),
        is_dir: file.is_dir,
        kind: ChangeKind::Modified(what),
    };
    ctx.publish(&change);
}

/// Publishes a change of the content of a stream.
fn data_modified(ctx: &mut Context<'_>, open: OpenId) {
    let Some(open) = ctx.connection().opens.get(&open) else {
        return;
    };
    let Target::File(file) = &open.target else {
        return;
    };
    let (share, path) = (open.actor.share, file.path.clone());
    let what = match stream::split(&path).1 {
        Some(_) => STREAM_CHANGED,
        None => filter::SIZE | filter::LAST_WRITE,
    };
    publish(ctx, share, &path, ChangeKind::Modified(what));
}

/// Breaks the leases of the directory whose entry for a file has changed. Written data change it at the close.
fn entry_changed(ctx: &mut Context<'_>, open: OpenId) {
    if let Some(file) = ctx.file_of(open) {
        let (directory, spared) = (file.directory, caching::parent_lease(file));
        caching::break_directory(ctx, directory, spared);
    }
}

fn basic_filter(basic: &SetBasic) -> u32 {
    let mut what = 0;
    for (set, bit) in [
        (basic.creation_time.is_some(), filter::CREATION),
        (basic.last_access_time.is_some(), filter::LAST_ACCESS),
        (basic.last_write_time.is_some(), filter::LAST_WRITE),
        (basic.attributes.is_some(), filter::ATTRIBUTES),
    ] {
        if set {
            what |= bit;
        }
    }
    what
}

/// Changes the path of every open of the renamed link and of every open beneath it.
fn renamed(
    ctx: &mut Context<'_>,
    share: ShareId,
    open: OpenId,
    from: &str,
    to: &str,
    directory: FileKey,
) {
    let Some(file) = ctx.file_of(open) else {
        return;
    };
    let is_dir = file.is_dir;
    let (places, spared) = ([file.directory, directory], caching::parent_lease(file));
    let mut moved: Vec<(ConnId, OpenId, String, FileKey)> = Vec::new();
    for (conn, connection) in &ctx.smb.connections {
        for open in connection
            .opens
            .values()
            .filter(|open| open.actor.share == share)
        {
            let Target::File(file) = &open.target else {
                continue;
            };
            if file.path == from {
                moved.push((*conn, open.id, to.to_string(), directory));
            } else if is_dir && let Some(name) = path::below(&file.path, from) {
                moved.push((*conn, open.id, format!("{to}/{name}"), file.directory));
            }
        }
    }
    for (conn, open, path, directory) in moved {
        let moved = Record::Moved {
            open,
            path,
            directory,
        };
        ctx.emit_on(conn, moved);
    }
    let change = Change {
        share,
        path: from.to_string(),
        is_dir,
        kind: ChangeKind::RenamedTo(to.to_string()),
    };
    ctx.publish(&change);
    for place in places {
        caching::break_directory(ctx, place, spared);
    }
}
