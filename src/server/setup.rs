//! Makes the machine's parts from the configuration.

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use log::info;
use outlast_nvram::{FileProblem, Incarnation, MAX_META, Mapping, Memory};
use outlast_smb::{Entropy, Requirement};
use outlast_stack::Lost;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::clock::{Monotonic, uptime, wall};
use super::copying::COPY_UNITS;
use super::eviction::EvictionLimits;
use super::fault;
use super::following::Follower;
use super::journal::{EFFECT_ROOM, REPLY_ROOM};
use super::medium::SinkFile;
use super::open::{Company, Sink};
use super::partner;
use super::recover::{Partner, Parts};
use super::sizes;
use super::windows;
use crate::config::{Config, Dialect, Durability, Level};
use crate::fs::{Fs, ShareRoot};
use crate::job_thread::wake;
use crate::pair::link::frame::Hello;
use crate::pair::link::keys::Keys;
use crate::pair::link::sender::{Link, Target};
use crate::pair::page::{Page, Tenure};
use crate::predecessor::outwait;
use crate::supervisor::pulse::Heart;
use crate::supervisor::{PreviousEnd, Worker};
use crate::system::volatile_file_system;
use crate::tap::Tap;
use crate::users::Users;

/// The part of the log's length that may be state of connections.
const STATE_PART: u64 = 10;

/// Bytes of state of a connection that does nothing.
const IDLE_CONNECTION: usize = 4096;

/// The part of the room for state that clients which have not logged in may take.
const UNAUTHENTICATED_PART: usize = 8;

/// The port of direct TCP (MS-SMB2 2.1).
const PORT: u16 = 445;

/// Randomness from the kernel.
struct Random;

impl Entropy for Random {
    fn fill(&mut self, buffer: &mut [u8]) {
        // without randomness no challenge and no key can be made: the worker ends
        getrandom::fill(buffer).expect("the kernel gives random bytes");
    }
}

/// A log that is followed, and its file.
pub struct Following {
    /// The follower.
    pub follower: Follower,
    mapping: Arc<Mapping>,
}

impl Following {
    /// Starts to follow the log of a running server. Nothing is changed before [`Mapping::lock`].
    ///
    /// # Errors
    /// The NVRAM or the TAP is not usable.
    pub fn begin(config: &Config, users: &Users, tap: BorrowedFd<'_>) -> anyhow::Result<Following> {
        keep_freed_memory();
        let tap = Tap::inherit(tap.try_clone_to_owned()?).context(config.network.tap.clone())?;
        let nvram = &config.nvram;
        let mapping = Arc::new(Mapping::follow(&nvram.path, nvram.size_bytes)?);
        let follower = Follower::begin(mapping.clone(), stack(config, &tap), smb(config, users))?;
        Ok(Following { follower, mapping })
    }
}

/// Makes the machine's parts, and the TAP.
///
/// # Errors
/// A share, the NVRAM or the TAP is not usable: one line that names it, and the remedy.
pub fn parts(
    config: &Config,
    users: &Users,
    worker: &mut Worker,
) -> anyhow::Result<(Parts<Fs>, Tap, Arc<OwnedFd>)> {
    keep_freed_memory();
    let named = |key| format!("{}: {key}", config.path.display());
    check_sizes(config, users)?;
    let wake = wake().context("cannot make an eventfd")?;
    let tap = Tap::inherit(worker.tap.try_clone()?).context(config.network.tap.clone())?;
    let smb = smb(config, users);
    let unauthenticated = max_unauthenticated(config, &smb.limits);
    let (memory, follower) = match worker.following.take() {
        Some(Following { follower, mapping }) => {
            unlocked(|| mapping.lock()).with_context(|| named("nvram.path"))?;
            (Some(follower.memory()), Some(follower))
        }
        None => (memory(config).with_context(|| named("nvram.path"))?, None),
    };
    let parts = Parts {
        memory,
        follower,
        sink: sink(config, &wake).with_context(|| named("nvram.sink"))?,
        partner: partner(config, worker, &wake).with_context(|| named("partner"))?,
        reply_room: REPLY_ROOM,
        effect_room: EFFECT_ROOM,
        wall: wall(),
        uptime: uptime(),
        sources: config.network.sources,
        incarnation: incarnation()?,
        company: match &worker.pair {
            Some(page) => company(config, page),
            None => Company::Alone,
        },
        takes_over: worker.pair.is_some() && worker.tap_fresh,
        stack: stack(config, &tap),
        smb,
        fs: files(config, &wake)?,
        entropy: Box::new(Random),
        probe: Box::new(fault::Watched {
            probe: fault::from_environment()?,
            heart: Heart::new(worker.pulse.take()),
        }),
        copy_units: COPY_UNITS,
        sets_apart: true,
        stopwatch: Box::new(Monotonic),
        crashed: worker.previous != PreviousEnd::Elective,
        eviction: EvictionLimits {
            login: config.limits.auth_timeout,
            idle: Some(config.limits.idle_timeout).filter(|timeout| !timeout.is_zero()),
            stalled: config.limits.stall_timeout,
            stalled_when_short: config.limits.stall_timeout_crowded,
            unauthenticated,
            connections: config.limits.max_connections,
            unread: config.limits.max_unread_per_connection,
        },
        lost: if worker.tap_fresh {
            Lost::Frames
        } else {
            Lost::Nothing
        },
    };
    Ok((parts, tap, wake))
}

/// Checks that every record fits into the log that this configuration allows.
///
/// # Errors
/// The record that does not fit, and the remedy.
pub fn check_sizes(config: &Config, users: &Users) -> anyhow::Result<()> {
    let shares = config.shares.iter().map(|share| share.name.as_str());
    sizes::check(shares).with_context(|| config.path.display().to_string())?;
    check_records(config, &smb(config, users).limits)
}

fn memory(config: &Config) -> anyhow::Result<Option<Arc<dyn Memory>>> {
    Ok(match config.nvram.durability {
        Durability::None => None,
        _ => {
            let nvram = &config.nvram;
            Some(Arc::new(unlocked(|| {
                mapping(&nvram.path, nvram.size_bytes)
            })?))
        }
    })
}

fn files(config: &Config, wake: &Arc<OwnedFd>) -> anyhow::Result<Fs> {
    take_all_descriptors();
    let mut fs = Fs::new(&roots(config), Arc::clone(wake))?;
    if config.nvram.durability.has_effects() {
        fs.expect_power_cuts()
            .with_context(|| format!("{}: nvram.durability", config.path.display()))?;
    }
    Ok(fs)
}

/// The sink; made at the first start under durability `power`.
fn sink(config: &Config, wake: &Arc<OwnedFd>) -> anyhow::Result<Option<Sink>> {
    let nvram = &config.nvram;
    let path = &nvram.sink;
    let in_use = nvram.durability.has_sink();
    let mapping = if in_use {
        unlocked(|| mapping(path, nvram.size_bytes))?
    } else {
        // A sink that is not in use must not prevent the start.
        match Mapping::open(path, nvram.size_bytes) {
            Ok(mapping) => mapping,
            Err(_) => return Ok(None),
        }
    };
    if in_use && let Some(name) = volatile_file_system(path)? {
        anyhow::bail!(
            "{} is on {name}, which a power cut empties: give it a place on a disk",
            path.display()
        );
    }
    // Everything that was ever written to it, by a killed worker too.
    mapping.persist()?;
    Ok(Some(Sink {
        medium: Box::new(SinkFile::new(
            mapping.file().try_clone()?,
            path.clone(),
            wake.clone(),
        )?),
        image: Arc::new(mapping),
        name: format!("{}: nvram.sink: {}", config.path.display(), path.display()),
        in_use,
    }))
}

fn company(config: &Config, page: &Page) -> Company {
    let in_step = page.in_step();
    let partner = config.partner.as_ref();
    match partner.and_then(|partner| partner.interconnect.as_ref()) {
        Some(_) => {
            let Tenure { epoch, resumes } = page.tenure();
            Company::Mirror {
                in_step,
                term: epoch,
                resumes,
            }
        }
        None => Company::Pair { in_step },
    }
}

/// The other node's NVRAM, if the nodes have one each.
fn partner(
    config: &Config,
    worker: &Worker,
    wake: &Arc<OwnedFd>,
) -> anyhow::Result<Option<Partner>> {
    let (Some(of), Some(page)) = (&config.partner, &worker.pair) else {
        return Ok(None);
    };
    let Some(interconnect) = &of.interconnect else {
        return Ok(None);
    };
    let target = Target {
        address: interconnect.partner,
        keys: Keys::load(&interconnect.key, &of.nodes).context("key")?,
        hello: Hello {
            node: of.nodes.own.clone(),
            epoch: page.tenure().epoch,
            memory_len: config.nvram.size_bytes,
        },
        timeout: interconnect.timeout,
    };
    let link = Link::start(target, wake.clone()).context("no thread can be started")?;
    let medium = partner::Partner::new(partner::Setup {
        link,
        page: page.clone(),
        report: worker.report.clone(),
        name: of.nodes.partner.clone(),
        is_wanted: config.nvram.durability.has_mirror(),
        timeout: interconnect.timeout,
    });
    Ok(Some(Partner {
        medium: Box::new(medium),
        has_effects: config.nvram.durability.has_mirror(),
    }))
}

/// Has freed memory stay with the process. A message of 8 MiB is put together, decrypted and read in buffers of its
/// size; were each one mapped afresh and given back, most of the time of a large write would go into page faults.
fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        /// The highest that glibc takes.
        const MMAP_THRESHOLD_BYTES: libc::c_int = 32 << 20;
        const TRIM_THRESHOLD_BYTES: libc::c_int = 256 << 20;
        // SAFETY: no pointers; the allocator's parameters may be set at any time. A refused setting changes nothing.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
        }
    }
}

/// Returns the memory that reading the log has taken to the system: without this it would stay with the process, which
/// needs as much only when it recovers.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Waits briefly for a lock of a server that has just died, which may be another node on the same machine.
fn unlocked<T>(
    attempt: impl FnMut() -> Result<T, outlast_nvram::Error>,
) -> Result<T, outlast_nvram::Error> {
    let is_locked = |error: &outlast_nvram::Error| {
        let outlast_nvram::Error::File { problem, .. } = error else {
            return false;
        };
        matches!(problem, FileProblem::Locked)
    };
    outwait(is_locked, attempt)
}

/// The NVRAM's file; made at the first start.
fn mapping(path: &Path, size_bytes: u64) -> Result<Mapping, outlast_nvram::Error> {
    match Mapping::open(path, size_bytes) {
        Err(outlast_nvram::Error::File {
            problem: FileProblem::Missing,
            ..
        }) => {
            // After a power cut the file is complete, whatever its content.
            let made = Mapping::create(path, size_bytes)?;
            made.persist()?;
            Ok(made)
        }
        opened => opened,
    }
}

/// The machine, and its kernel's boot.
///
/// # Errors
/// The kernel, or the machine, does not provide it.
pub fn incarnation() -> anyhow::Result<Incarnation> {
    Ok(Incarnation {
        host: host_id()?,
        boot: boot_id()?,
    })
}

/// The id of this machine (machine-id(5)); all zero if it has no identity (a container, the first boot of an image).
fn host_id() -> anyhow::Result<[u8; 16]> {
    let path = "/etc/machine-id";
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(path),
    };
    match text.trim() {
        "" | "uninitialized" => Ok([0; 16]),
        digits => {
            let id = u128::from_str_radix(digits, 16).with_context(|| {
                format!("{path} holds no machine id: make one (systemd-machine-id-setup)")
            })?;
            Ok(id.to_be_bytes())
        }
    }
}

/// The id of this boot of the kernel. Tests of power cuts set another by the environment variable `OUTLAST_BOOT_ID`.
fn boot_id() -> anyhow::Result<[u8; 16]> {
    let (name, text) = match std::env::var("OUTLAST_BOOT_ID") {
        Ok(text) => ("OUTLAST_BOOT_ID", text),
        Err(_) => {
            let path = "/proc/sys/kernel/random/boot_id";
            (path, std::fs::read_to_string(path).context(path)?)
        }
    };
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).context(name)?;
    Ok(id.to_be_bytes())
}

fn stack(config: &Config, tap: &Tap) -> outlast_stack::Config {
    let network = &config.network;
    outlast_stack::Config {
        mac: network.mac,
        addresses: network
            .addresses
            .iter()
            .map(|cidr| (cidr.address, cidr.prefix_bits))
            .collect(),
        gateways: [
            network.gateway_v4.map(IpAddr::V4),
            network.gateway_v6.map(IpAddr::V6),
        ]
        .into_iter()
        .flatten()
        .collect(),
        mtu: usize::from(network.mtu),
        hop_limit: network.ttl,
        dscp: network.dscp,
        capabilities: tap.capabilities(),
        ports: vec![PORT],
        receive_buffer: windows::AUTOMATIC,
        largest_window: windows::LARGEST,
        receive_total: windows::room_for_received(
            config.nvram.size_bytes,
            config.nvram.durability.has_effects(),
        ),
        receive_reserve: windows::RESERVE,
        receive_least: windows::LEAST,
        max_connections: config.limits.max_connections,
        max_half_open: config.limits.half_open,
        max_out_of_order: config.limits.max_out_of_order,
        max_echoes_per_second: u32::try_from(config.limits.max_pings_per_second)
            .unwrap_or(u32::MAX),
        keep_alive_idle: Some(config.limits.keep_alive).filter(|silence| !silence.is_zero()),
        ..outlast_stack::Config::default()
    }
}

fn smb(config: &Config, users: &Users) -> outlast_smb::Config {
    let limits = &config.limits;
    let shares = config.shares.iter().map(|share| outlast_smb::Share {
        name: share.name.clone(),
        comment: share.comment.clone(),
        read_only: share.read_only,
        guest: share.guest,
        users: share.users.clone(),
        directory: share.directory_id(),
        continuous_availability: share.continuous_availability,
        encryption: requirement(share.encryption),
    });
    let users = users.iter().map(|(name, nt_hash)| outlast_smb::User {
        name: name.to_owned(),
        nt_hash: *nt_hash,
    });
    outlast_smb::Config {
        name: config.server.name.clone(),
        // the log's
        guid: [0; 16],
        min_dialect: dialect(config.server.min_protocol),
        max_dialect: dialect(config.server.max_protocol),
        signing: requirement(config.server.signing),
        encryption: requirement(config.server.encryption),
        oplocks: config.server.oplocks,
        shares: shares.collect(),
        users: users.collect(),
        limits: outlast_smb::Limits {
            sessions: limits.max_sessions_per_connection,
            failed_logins: u32::try_from(limits.max_failed_logins_per_connection)
                .unwrap_or(u32::MAX),
            trees: limits.max_trees_per_connection,
            opens: limits.max_opens_per_connection,
            pending: limits.max_pending_per_connection,
            watches: limits.max_watches_per_connection,
            locks: limits.max_locks_per_open,
            total: outlast_smb::Held {
                opens: limits.max_opens,
                locks: limits.max_locks,
                pending: limits.max_pending,
                watches: limits.max_watches,
                bytes: usize::try_from(config.nvram.size_bytes / STATE_PART).unwrap_or(usize::MAX),
            },
            ..outlast_smb::Limits::default()
        },
    }
}

/// Checks that no record may be longer than the log takes: it could not be written, and its worker would end.
fn check_records(config: &Config, limits: &outlast_smb::Limits) -> anyhow::Result<()> {
    let longest = limits.largest_delta().max(limits.largest_part());
    // a third of the ring (`Log::max_record`), with headers
    let most = MAX_META.min(usize::try_from(config.nvram.size_bytes / 4).unwrap_or(usize::MAX));
    anyhow::ensure!(
        longest < most,
        "{}: limits: they permit a record of {longest} bytes, and the log takes {most}: lower max_locks_per_open, \
         max_trees_per_connection and max_sessions_per_connection",
        config.path.display()
    );
    let wanted = config.limits.max_connections;
    let most = limits.total.bytes / 2 / IDLE_CONNECTION;
    anyhow::ensure!(
        wanted <= most,
        "{}: limits.max_connections: {wanted} connections may hold more than nvram.size has room for: use {most}, or \
         raise nvram.size",
        config.path.display()
    );
    Ok(())
}

/// The number of clients that may be connected without having logged in: as configured, as far as there is room for
/// their state.
fn max_unauthenticated(config: &Config, limits: &outlast_smb::Limits) -> usize {
    let wanted = config.limits.max_unauthenticated;
    let most = limits.total.bytes / UNAUTHENTICATED_PART / limits.largest_unauthenticated();
    if most < wanted {
        info!(
            "limits.max_unauthenticated: there is no room for {wanted}: {most} are permitted; raise nvram.size for more"
        );
    }
    wanted.min(most).max(1)
}

/// Raises the limit of descriptors to the maximum: the more files stay open, the fewer are opened again.
fn take_all_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A process may always raise its limit to the maximum; if that fails, the current limit applies.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn requirement(level: Level) -> Requirement {
    match level {
        Level::Off => Requirement::Off,
        Level::Enabled => Requirement::Enabled,
        Level::Required => Requirement::Required,
    }
}

fn dialect(dialect: Dialect) -> outlast_smb::Dialect {
    match dialect {
        Dialect::Smb202 => outlast_smb::Dialect::Smb202,
        Dialect::Smb210 => outlast_smb::Dialect::Smb210,
        Dialect::Smb300 => outlast_smb::Dialect::Smb300,
        Dialect::Smb302 => outlast_smb::Dialect::Smb302,
        Dialect::Smb311 => outlast_smb::Dialect::Smb311,
    }
}

fn roots(config: &Config) -> Vec<ShareRoot> {
    config
        .shares
        .iter()
        .map(|share| ShareRoot {
            path: PathBuf::from(&share.path),
            read_only: share.read_only,
            run_as: share.run_as.clone(),
        })
        .collect()
}
