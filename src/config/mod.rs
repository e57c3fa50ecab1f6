//! Reads the configuration: one TOML file, checked in full before it has any effect.
//!
//! [`Config::load`] reads and checks the file; [`Config::check_system`] then checks it against the machine (accounts,
//! addresses). Every error is one line that names the file, the line, the key and the remedy.

mod advice;
mod check;
mod discovery;
mod error;
mod etcd;
mod explain;
mod file;
mod limits;
mod network;
mod observing;
mod partner;
#[cfg(test)]
pub(crate) mod sample;
mod size;
#[cfg(test)]
mod tests;

pub use discovery::Discovery;
pub use error::Error;
pub use etcd::Etcd;
pub use limits::Limits;
pub use observing::{Log, Metrics};
pub use partner::{Arbitration, Interconnect, Partner};

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use outlast_fsa::fnv::fnv1a;
use outlast_stack::addressing::Sources;

use crate::control::Serves;
#[cfg(test)]
use crate::logging::Format;

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The absolute path of its file.
    pub path: PathBuf,
    /// `[server]`.
    pub server: Server,
    /// `[network]`.
    pub network: Network,
    /// `[nvram]`.
    pub nvram: Nvram,
    /// `[[share]]`, in the order of the file; the index is the share's id. Never empty.
    pub shares: Vec<Share>,
    /// `[limits]`.
    pub limits: Limits,
    /// `[discovery]`.
    pub discovery: Discovery,
    /// `[log]`.
    pub log: Log,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[partner]`; `None`: the server is alone.
    pub partner: Option<Partner>,
}

/// `[server]`: identity and protocol of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `name`: NetBIOS name, 1 to 15 of `A-Z a-z 0-9 -`. Default `OUTLAST`.
    pub name: String,
    /// `users_file`. Default `/etc/outlast/users`.
    pub users_file: PathBuf,
    /// `control_socket`. Default `/run/outlast/control.sock`.
    pub control_socket: PathBuf,
    /// `min_protocol`: lowest dialect offered. Default 2.0.2.
    pub min_protocol: Dialect,
    /// `max_protocol`: highest dialect offered. Default 3.1.1.
    pub max_protocol: Dialect,
    /// `signing`. Default `enabled`.
    pub signing: Level,
    /// `encryption`. Default `enabled`.
    pub encryption: Level,
    /// `oplocks`: leases, too. Default `on`.
    pub oplocks: outlast_smb::Oplocks,
    /// `standby`: whether a standby worker follows the log of the serving one and is ready to take over. Default true.
    pub standby: bool,
}

/// SMB dialects (MS-SMB2 2.2.3), oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// SMB 2.0.2.
    Smb202,
    /// SMB 2.1.
    Smb210,
    /// SMB 3.0.
    Smb300,
    /// SMB 3.0.2.
    Smb302,
    /// SMB 3.1.1.
    Smb311,
}

impl Dialect {
    /// All of them, oldest first.
    pub const ALL: [Dialect; 5] = [
        Dialect::Smb202,
        Dialect::Smb210,
        Dialect::Smb300,
        Dialect::Smb302,
        Dialect::Smb311,
    ];

    /// The DialectRevision on the wire (MS-SMB2 2.2.4).
    pub const fn revision(self) -> u16 {
        match self {
            Dialect::Smb202 => 0x0202,
            Dialect::Smb210 => 0x0210,
            Dialect::Smb300 => 0x0300,
            Dialect::Smb302 => 0x0302,
            Dialect::Smb311 => 0x0311,
        }
    }

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Smb202 => "2.0.2",
            Dialect::Smb210 => "2.1",
            Dialect::Smb300 => "3.0",
            Dialect::Smb302 => "3.0.2",
            Dialect::Smb311 => "3.1.1",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The level of a protection (signing, encryption).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Not offered.
    Off,
    /// Used if the client requests it.
    Enabled,
    /// A client without it is refused.
    Required,
}

/// `[network]`: the link and the addresses of the server's own TCP/IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// `tap`: name of the TAP device.
    pub tap: String,
    /// `offload`: segmentation and checksum offload through the vnet header. Default true.
    pub offload: bool,
    /// `mac`: unicast. Default: locally administered, derived from `server.name`.
    pub mac: [u8; 6],
    /// `addresses`: those that are given, with the length of their subnets' prefix.
    pub addresses: Vec<Cidr>,
    /// `addresses`: the sources of more of them, `"dhcp"` and `"router-advertisements"`.
    pub sources: Sources,
    /// `gateway`: the IPv4 one.
    pub gateway_v4: Option<Ipv4Addr>,
    /// `gateway`: the IPv6 one. The key takes one address, or a list of one of each family.
    pub gateway_v6: Option<Ipv6Addr>,
    /// `mtu` in bytes, 1280 to 65521. Default 1500.
    pub mtu: u16,
    /// `ttl`, or hop limit, of TCP, 1 to 255. Default 64.
    pub ttl: u8,
    /// `dscp`: Differentiated Services codepoint of TCP, 0 to 63. Default 0.
    pub dscp: u8,
}

/// An address and its subnet, `10.77.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The host's address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix_bits: u8,
}

impl Cidr {
    /// Returns whether `other` is in this subnet.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.prefix_bits.min(32));
                u32::from(a).checked_shr(shift) == u32::from(b).checked_shr(shift)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.prefix_bits.min(128));
                u128::from(a).checked_shr(shift) == u128::from(b).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// `[nvram]`: the checkpoint log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvram {
    /// `path`: the file, made at the first start.
    pub path: PathBuf,
    /// `size` in bytes, a multiple of 4096, at least [`Nvram::SIZE_MIN_BYTES`]. Default 256 MiB.
    pub size_bytes: u64,
    /// `durability`. Default `process`.
    pub durability: Durability,
    /// `sink`: the file to which the log is shipped under durability `power`. Default: `path` followed by `.sink`.
    pub sink: PathBuf,
}

impl Nvram {
    /// The smallest log that is accepted: a record, at most an eighth of it, has to hold the longest reply, and
    /// relocation needs room.
    pub const SIZE_MIN_BYTES: u64 = 128 << 20;
    /// The largest log that is accepted.
    pub const SIZE_MAX_BYTES: u64 = 1 << 40;
}

/// Defines what the state in the log survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: no checkpoints, for benchmarks only.
    None,
    /// The end of the process, however it ends, and elective reboots of the machine.
    Process,
    /// A crash of the kernel and a power cut as well.
    Power,
    /// The loss of the machine: the partner has everything that was sent.
    Mirror,
    /// Both.
    PowerMirror,
}

impl Durability {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Durability::None => "none",
            Durability::Process => "process",
            Durability::Power => "power",
            Durability::Mirror => "mirror",
            Durability::PowerMirror => "power+mirror",
        }
    }

    /// Returns whether the log is in a sink, too.
    pub fn has_sink(self) -> bool {
        matches!(self, Durability::Power | Durability::PowerMirror)
    }

    /// Returns whether the log is in the partner's NVRAM, too.
    pub fn has_mirror(self) -> bool {
        matches!(self, Durability::Mirror | Durability::PowerMirror)
    }

    /// Returns whether another kernel may recover the log, without the data that this kernel has not written to the
    /// shares' media.
    pub fn has_effects(self) -> bool {
        self.has_sink() || self.has_mirror()
    }
}

/// `[[share]]`: a directory that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// `name`: 1 to 80 characters, unique without regard to case, not `IPC$`.
    pub name: String,
    /// `path`: an existing directory.
    pub path: PathBuf,
    /// `comment`. Default empty.
    pub comment: String,
    /// `read_only`. Default false.
    pub read_only: bool,
    /// `guest`: may be used without a password. Default false.
    pub guest: bool,
    /// `users`: the users who may connect; empty: every user of the users file.
    pub users: Vec<String>,
    /// `run_as`: the local account whose rights apply to the files; `None` (empty in the file): the login's own local
    /// account if the server is root and there is one, otherwise the server's account.
    pub run_as: Option<String>,
    /// `continuous_availability`: persistent handles are granted. Default false.
    pub continuous_availability: bool,
    /// `encryption`. Default: the server's.
    pub encryption: Level,
}

impl Share {
    /// Identifies its directory: FNV-1a of the path.
    pub fn directory_id(&self) -> u64 {
        fnv1a(self.path.as_os_str().as_encoded_bytes().iter().copied())
    }
}

impl Config {
    /// Reads and checks the file. Relative paths in it are relative to the file's directory.
    ///
    /// # Errors
    /// The first error.
    pub fn load(path: &Path) -> Result<Config, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::unreadable(path, &error))?;
        let path = std::path::absolute(path).map_err(|error| Error::unreadable(path, &error))?;
        Config::parse(&path, &text)
    }

    /// Parses and checks a configuration; `path` is used in errors.
    ///
    /// # Errors
    /// The first error.
    pub fn parse(path: &Path, text: &str) -> Result<Config, Error> {
        Config::parse_all(path, text).map_err(|mut errors| errors.swap_remove(0))
    }

    /// The same, with more than one error.
    ///
    /// # Errors
    /// The first error of each section and each share; never an empty list.
    pub fn parse_all(path: &Path, text: &str) -> Result<Config, Vec<Error>> {
        let file = file::parse(path, text).map_err(|error| vec![error])?;
        check::config(path, &file)
    }

    /// What clients see of it, for logs and `outlast status`.
    pub fn serves(&self) -> Serves {
        Serves {
            name: self.server.name.clone(),
            addresses: self
                .network
                .addresses
                .iter()
                .map(|cidr| cidr.address)
                .collect(),
            shares: self.shares.iter().map(|share| share.name.clone()).collect(),
            durability: self.nvram.durability.name().to_owned(),
            weaker: Vec::new(),
            trouble: Vec::new(),
        }
    }

    /// Checks what depends on the machine: accounts, addresses, the NVRAM's directory. For shares see
    /// [`Config::missing_shares`].
    ///
    /// # Errors
    /// The first error.
    pub fn check_system(&self) -> Result<(), Error> {
        self.system_errors().into_iter().next().map_or(Ok(()), Err)
    }

    /// All errors that [`Config::check_system`] finds.
    pub fn system_errors(&self) -> Vec<Error> {
        check::system(self)
    }
}
