//! Makes a private network: a network namespace of this process, made without root where the machine permits that.

use std::fs;

use anyhow::Context as _;
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, configure_capability_in_ambient_set,
    set_capabilities, unshare_unsafe,
};

/// The capabilities for a TAP in it, and for tools that run there (tcpdump, ping).
const KEPT: [CapabilitySet; 2] = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW];

/// Moves this process, which must have one thread, into a new network namespace and brings up its loopback device. The
/// account stays the same.
///
/// # Errors
/// The machine does not permit it.
pub fn enter() -> anyhow::Result<()> {
    if unshare(UnshareFlags::NEWNET).is_err() {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).context(
            "this account may not make a network namespace: run as root, or allow it \
             (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; \
             in a container: --cap-add SYS_ADMIN)",
        )?;
        map(uid.as_raw(), gid.as_raw()).context("the account cannot be kept in the namespace")?;
        keep_capabilities().context("the namespace cannot be set up")?;
    }
    crate::tap::host::bring_up("lo").context("the loopback device cannot be brought up")
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: what makes unshare unsafe is a separate table of file descriptors (CLONE_FILES), which is not asked for.
    unsafe { unshare_unsafe(flags) }
}

/// user_namespaces(7): an account without rights outside maps only itself, and does not change groups.
fn map(uid: u32, gid: u32) -> std::io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// capabilities(7): a program executed by an account that is not root has only the ambient ones.
fn keep_capabilities() -> rustix::io::Result<()> {
    let mut sets = capabilities(None)?;
    for capability in KEPT {
        sets.inheritable |= capability;
    }
    set_capabilities(None, sets)?;
    for capability in KEPT {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}
