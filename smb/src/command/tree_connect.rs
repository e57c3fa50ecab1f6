//! Handles TREE_CONNECT (MS-SMB2 3.3.5.7).

use super::{Handled, Reply, Request};
use crate::context::Context;
use crate::held::Held;
use crate::policy::{self, Refused};
use crate::record::Record;
use crate::size;
use crate::state::Resource;
use crate::wire::{Dialect, Flags, Response, tree_connect};
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`].
///
/// # Errors
/// BAD_NETWORK_NAME, ACCESS_DENIED, INSUFFICIENT_RESOURCES.
pub fn start(
    ctx: &mut Context<'_>,
    request: &Request,
    body: &tree_connect::Request,
) -> Result<Handled, NtStatus> {
    let session = ctx.session(request)?;
    let security = &session.security;
    // 3.1.1 requires proof that no man in the middle weakened the negotiation.
    let proven = request.sealed || request.header.flags.contains(Flags::SIGNED);
    if ctx.connection().negotiation.dialect == Some(Dialect::Smb311)
        && security.keys.is_some()
        && !proven
    {
        return Ok(Handled::Drop);
    }
    let sessions = ctx.connection().sessions.values();
    if sessions.map(|session| session.trees.len()).sum::<usize>() >= ctx.config().limits.trees {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let name = share_name(&body.path).ok_or(NtStatus::BAD_NETWORK_NAME)?;
    let tree = policy::tree(ctx.config(), security, name).map_err(Refused::status)?;
    // 3.3.5.7: a share whose directory is unavailable counts as missing; the client may retry.
    if let Resource::Disk(id) = tree.resource
        && ctx.smb.offline.contains(&id)
    {
        return Err(NtStatus::BAD_NETWORK_NAME);
    }
    if !ctx.smb.may_take(ctx.conn, Held::bytes(size::tree(&tree))) {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let mut id = session.last_tree.wrapping_add(1);
    // TreeIds count up; 0 and all ones are not used.
    while id == 0 || id == u32::MAX || session.trees.contains_key(&id) {
        id = id.wrapping_add(1);
    }
    let is_ipc = tree.resource == Resource::Ipc;
    let mut response = Reply::success(Response::TreeConnect(tree_connect::Response {
        share_type: match is_ipc {
            true => tree_connect::SHARE_TYPE_PIPE,
            false => tree_connect::SHARE_TYPE_DISK,
        },
        share_flags: match (is_ipc, tree.encrypt) {
            (true, _) => tree_connect::SHAREFLAG_NO_CACHING,
            (false, true) => tree_connect::SHAREFLAG_ENCRYPT_DATA,
            (false, false) => 0,
        },
        capabilities: capabilities(ctx, tree.resource),
        maximal_access: tree.maximal_access,
    }));
    response.tree = Some(id);
    ctx.emit(Record::TreeConnected {
        session: request.session,
        id,
        tree: Box::new(tree),
    });
    Ok(Handled::Reply(response))
}

/// 3.3.5.7: Share.IsCA is stated from SMB 3.0 on.
fn capabilities(ctx: &Context<'_>, resource: Resource) -> u32 {
    let speaks = ctx.connection().negotiation.dialect >= Some(Dialect::Smb300);
    match speaks && ctx.is_continuously_available(resource) {
        true => tree_connect::SHARE_CAP_CONTINUOUS_AVAILABILITY,
        false => 0,
    }
}

/// Returns the last component of `\\server\share`.
fn share_name(path: &str) -> Option<&str> {
    let (_server, share) = path.strip_prefix("\\\\")?.split_once('\\')?;
    (!share.is_empty() && !share.contains('\\')).then_some(share)
}
