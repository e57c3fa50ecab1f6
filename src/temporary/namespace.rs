//! A private network: a network namespace of this process's own, made without root where the machine allows that.

use std::fs;

use anyhow::Context as _;
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, configure_capability_in_ambient_set,
    set_capabilities, unshare_unsafe,
};

/// What is needed for a TAP in it; what runs there may also look at it (tcpdump, ping).
const KEPT: [CapabilitySet; 2] = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW];

/// Moves this process, which must have one thread, into a new network namespace and brings up its loopback device.
/// Accounts stay what they are.
///
/// # Errors
/// The machine does not allow it.
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

/// user_namespaces(7): an account that has no rights outside maps itself alone, and lets groups be.
fn map(uid: u32, gid: u32) -> std::io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// capabilities(7): what an account that is not root executes has the ambient ones alone.
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
