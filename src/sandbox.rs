//! Confines the worker to a sandbox: Landlock (landlock(7)) removes rights that serving files does not need.
//!
//! The only thread enters it before another thread or process shares its memory, so that all of them are in it; it
//! cannot be left. `docs/sandbox.md` describes what it denies, and why it does not deny more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort, PathBeneath,
    PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, make_bitflags,
};
use log::{Level, debug, log, warn};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use crate::config::Config;

/// The number of symbolic links that are followed to find a missing directory: the kernel's limit (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The driver, which is opened when a reboot names another TAP ([`crate::preflight::may_become`]).
const TUN: &str = "/dev/net/tun";

/// The worker's operations on names. A rename counts as the removal and the making of the renamed file, so every kind
/// of file that a share can hold is included, except devices: those are not served.
const NAMES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    MakeReg | MakeDir | MakeSym | MakeFifo | MakeSock | RemoveFile | RemoveDir | Refer
});

/// Access that no file needs.
const DEVICES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeChar | MakeBlock | IoctlDev});

/// Restricts the calling thread, and all that it starts. `executes`: it may execute programs. Returns the description
/// for `outlast status`; if there is no sandbox, that is logged too.
#[must_use]
pub fn restrict(config: &Config, executes: bool) -> String {
    let directories = directories(config);
    let partner = config.partner.as_ref();
    let interconnect = partner.and_then(|partner| partner.interconnect.as_ref());
    let port = interconnect.map(|of| of.partner.port());
    let line = match confine(&directories, executes, port) {
        Ok(status) => describe(&status, &directories),
        Err(error) => {
            warn!("the worker has no sandbox: {error}");
            return format!("none: {error}");
        }
    };
    let level = match line.starts_with("none") {
        true => Level::Info,
        false => Level::Debug,
    };
    log!(level, "sandbox: {line}");
    line
}

fn confine(
    directories: &BTreeSet<PathBuf>,
    executes: bool,
    port: Option<u16>,
) -> Result<RestrictionStatus, RulesetError> {
    let mut handled = NAMES | DEVICES;
    if !executes {
        handled |= AccessFs::Execute;
    }
    let ruleset = Ruleset::default()
        // Before ABI 2 any ruleset denies renames between directories, so there is no sandbox at all.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let mut ruleset = grant(ruleset, Path::new(TUN), AccessFs::IoctlDev.into())?;
    if let Some(port) = port {
        // The partner's. Rules do not tell addresses apart.
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    for directory in directories {
        ruleset = grant(ruleset, directory, NAMES)?;
    }
    ruleset.restrict_self()
}

/// A missing directory cannot be granted, and what is made there later cannot be used.
fn grant(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(opened) => ruleset.add_rule(PathBeneath::new(opened, access)),
        Err(error) => {
            debug!("sandbox: {error}");
            Ok(ruleset)
        }
    }
}

fn describe(status: &RestrictionStatus, directories: &BTreeSet<PathBuf>) -> String {
    let abi = match status.landlock {
        LandlockStatus::NotImplemented => return "none: the kernel has no Landlock".to_owned(),
        LandlockStatus::NotEnabled => {
            return "none: Landlock is not enabled (kernel parameter lsm=)".to_owned();
        }
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi.unwrap_or(effective_abi as i32),
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return format!("none: Landlock ABI {abi} allows no rename between directories");
    }
    let is_outermost = |path: &&PathBuf| {
        let mut above = path.ancestors().skip(1);
        !above.any(|path| directories.contains(path))
    };
    let paths = directories.iter().filter(is_outermost);
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    let paths = paths.join(", ");
    format!("landlock ABI {abi}, names may change beneath {paths}")
}

/// The directories in which the worker makes, renames and removes files: in its shares, and beside the NVRAM and the
/// sink.
fn directories(config: &Config) -> BTreeSet<PathBuf> {
    let state = [&config.nvram.path, &config.nvram.sink];
    let state = state.into_iter().filter_map(|path| path.parent());
    let shares = config.shares.iter().flat_map(|share| around(&share.path));
    state.map(Path::to_owned).chain(shares).collect()
}

/// A share's directory, the one above it, and the one above the mount that it is on. A rule belongs to a directory and
/// not to a path: one for a directory that something is mounted on later does not apply to the mount, but one for a
/// directory above does. That in turn does not apply to a mount that has been detached (umount --lazy).
///
/// The root directory is included only if it is the share: a rule for it would permit everything.
fn around(share: &Path) -> BTreeSet<PathBuf> {
    let there = existing(share);
    let is_root = |path: &Path| path.parent().is_none();
    if is_root(&there) && share.canonicalize().is_ok() {
        return BTreeSet::from([there]);
    }
    let mount = there.ancestors().find(|path| is_mount(path));
    let mount = mount.filter(|path| !is_root(path)).unwrap_or(&there);
    let above = [&there, mount].into_iter().filter_map(Path::parent);
    above
        .chain([there.as_path()])
        .filter(|path| !is_root(path))
        .map(Path::to_owned)
        .collect()
}

/// The directory of a path; if it is missing, the last existing one on the way.
fn existing(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let found = path.ancestors().find_map(|part| {
            let there = part.canonicalize().ok()?;
            Some((there, path.strip_prefix(part).ok()?))
        });
        let Some((there, missing)) = found else { break };
        let mut missing = missing.components();
        let Some(next) = missing.next() else {
            return there;
        };
        match there.join(next).read_link() {
            // Its target does not exist yet.
            Ok(target) => path = there.join(target).join(missing.as_path()),
            Err(_) => return there,
        }
    }
    PathBuf::from("/")
}

fn is_mount(path: &Path) -> bool {
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests;
