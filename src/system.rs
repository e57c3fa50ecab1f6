//! Requests to the machine: a reboot, memory that no other process reads.

use std::io;
use std::path::Path;
use std::process::Command;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::system::RebootCommand;

use crate::config::{Config, Durability};

/// Reboots the machine. Returns once that has begun, if at all. If a kernel is loaded (`kexec -l`), that one is
/// started, without the firmware, which takes longer on many servers than clients wait.
///
/// # Errors
/// The machine is not rebooted.
pub fn reboot() -> io::Result<()> {
    let (verb, command) = match is_kernel_loaded(Path::new("/sys/kernel/kexec_loaded")) {
        true => ("kexec", RebootCommand::Kexec),
        false => ("reboot", RebootCommand::Restart),
    };
    log::info!("the machine is rebooted: {verb}");
    // sd_booted(3)
    if Path::new("/run/systemd/system").is_dir() {
        let status = Command::new("systemctl").arg(verb).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("systemctl {verb}: {status}")));
        }
        return Ok(());
    }
    // There is no service manager to ask.
    rustix::fs::sync();
    rustix::system::reboot(command)?;
    Ok(())
}

/// Returns whether a kernel for the next boot is loaded, by the kernel's file that says so. A kernel without kexec has
/// no such file.
fn is_kernel_loaded(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// Protects this process's memory, which holds session keys and password hashes, from core dumps and from other
/// processes of the same account (ptrace(2), `/proc/PID/mem`). A program that it executes has to do that itself.
pub fn keep_memory_private() {
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let done = setrlimit(Resource::Core, nothing)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = done {
        log::warn!("a core dump of this process would hold its secrets: {error}");
    }
}

/// Checks whether the sessions would survive a reboot of the machine; otherwise returns the reason, and the remedy.
///
/// # Errors
/// The reason.
pub fn would_survive(config: &Config) -> Result<(), String> {
    let nvram = &config.nvram;
    let (key, path) = match nvram.durability {
        Durability::None => {
            return Err(
                "nvram.durability is \"none\": no session would survive it; set it to \"process\" or \"power\""
                    .into(),
            );
        }
        Durability::Process | Durability::Mirror => ("nvram.path", &nvram.path),
        Durability::Power | Durability::PowerMirror => ("nvram.sink", &nvram.sink),
    };
    match volatile_file_system(path) {
        Ok(None) => Ok(()),
        Ok(Some(name)) => Err(format!(
            "{key}: {} is on {name}, which does not survive a reboot of the machine: give it a place on a disk",
            path.display()
        )),
        Err(error) => Err(format!("{key}: {}: {error}", path.display())),
    }
}

/// The name of the file system at `path`, if it is one in memory.
///
/// # Errors
/// As statfs(2).
pub fn volatile_file_system(path: &Path) -> io::Result<Option<&'static str>> {
    /// statfs(2).
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(path)?.f_type as u64 & u64::from(u32::MAX);
    Ok(match kind {
        TMPFS_MAGIC => Some("tmpfs"),
        RAMFS_MAGIC => Some("ramfs"),
        _ => None,
    })
}

/// Memory of a process that belongs to no file (proc_pid_statm(5)).
#[must_use]
pub fn own_memory_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests;
