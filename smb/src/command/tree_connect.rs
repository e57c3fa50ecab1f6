//! TREE_CONNECT (MS-SMB2 3.3.5.7).

use super::{Handled, Reply, Request};
use crate::access;
use crate::config::{Requirement, Share};
use crate::context::Context;
use crate::held::Held;
use crate::record::Record;
use crate::size;
use crate::state::{Resource, Security, Tree};
use crate::status::NtStatus;
use crate::wire::{Dialect, Flags, Response, tree_connect};

/// The share every server has, for named pipes.
const IPC: &str = "IPC$";

/// As [`super::start`].
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
    // 3.1.1 wants proof that nobody in the middle weakened the negotiation.
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
    let tree = if name.eq_ignore_ascii_case(IPC) {
        Tree {
            resource: Resource::Ipc,
            name: IPC.to_string(),
            maximal_access: access::READ | access::WRITE | access::EXECUTE,
            encrypt: false,
        }
    } else {
        let (id, share) = ctx
            .config()
            .share_named(name)
            .ok_or(NtStatus::BAD_NETWORK_NAME)?;
        if !admits(share, security) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        let encrypt = share.encryption == Requirement::Required;
        // 3.3.5.7: nothing to encrypt with (an older dialect, a guest).
        let can = security
            .keys
            .as_ref()
            .is_some_and(|keys| keys.encryption.is_some());
        if encrypt && !can {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Tree {
            resource: Resource::Disk(id),
            name: share.name.clone(),
            maximal_access: match share.read_only {
                true => access::READ | access::EXECUTE,
                false => access::ALL,
            },
            encrypt,
        }
    };
    if !ctx.smb.may_take(ctx.conn, Held::bytes(size::tree(&tree))) {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let mut id = session.last_tree.wrapping_add(1);
    // TreeIds count up; 0 and all ones are never one.
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
        capabilities: 0,
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

/// The last component of `\\server\share`.
fn share_name(path: &str) -> Option<&str> {
    let (_server, share) = path.strip_prefix("\\\\")?.split_once('\\')?;
    (!share.is_empty() && !share.contains('\\')).then_some(share)
}

/// May this login use the share?
fn admits(share: &Share, security: &Security) -> bool {
    match &security.user {
        Some(user) if !security.guest => {
            share.users.is_empty()
                || share
                    .users
                    .iter()
                    .any(|name| name.to_lowercase() == user.to_lowercase())
        }
        _ => share.guest,
    }
}
