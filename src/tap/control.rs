//! Calls the ioctls of TAP devices, and explains their errors.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::{Passing, TapError};

/// The action of [`open_driver`].
const OPEN: &str = "open";

/// Opens the driver, not yet attached to any device. It is closed on exec, as everything that Rust opens.
pub(super) fn open_driver(name: &str) -> Result<OwnedFd, TapError> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| explain(name, OPEN, source))?;
    Ok(file.into())
}

/// Attaches `fd` to the TAP `name` with `flags` besides IFF_TAP.
pub(super) fn attach(fd: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | flags) as i16;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives across the call; the descriptor is open.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut request) })
}

/// Sets what the kernel may pass to us unfinished: `TUN_F_*` bits. The mask of a persistent TAP outlives its owner, so
/// it has to be set at every start.
pub(super) fn set_offload(fd: BorrowedFd<'_>, mask: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value; the descriptor is open.
    check(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(mask),
        )
    })
}

/// Sets the length of the vnet header in front of each frame, in bytes; this too outlives its owner.
pub(super) fn set_vnet_header_len(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = len as c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives across the call; the descriptor is open.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &len) })
}

/// TUNSETTXFILTER's argument with room for one address (struct tun_filter of linux/if_tun.h).
#[repr(C)]
struct Filter {
    flags: u16,
    count: u16,
    address: [u8; 6],
}

/// Has the kernel drop what arrives, except this. This also outlives its owner.
pub(super) fn pass(fd: BorrowedFd<'_>, passing: Passing) -> io::Result<()> {
    // An empty filter is no filter; no frame has the address 0.
    let (count, address) = match passing {
        Passing::All => (0, [0; 6]),
        Passing::To(address) => (1, address),
        Passing::Nothing => (1, [0; 6]),
    };
    let filter = Filter {
        flags: 0,
        count,
        address,
    };
    // SAFETY: TUNSETTXFILTER reads one tun_filter and the addresses that follow it, which live across the call; the
    // descriptor is open.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETTXFILTER, &filter) })
}

/// The device that a descriptor is attached to.
pub(super) struct Attachment {
    pub(super) name: String,
    pub(super) tap: bool,
    pub(super) vnet_header: bool,
    pub(super) persistent: bool,
}

/// Queries a descriptor; `None` if it is not attached to a TUN or TAP.
pub(super) fn attachment(fd: BorrowedFd<'_>) -> Option<Attachment> {
    // SAFETY: ifreq is a plain C structure for which zeros are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // SAFETY: TUNGETIFF writes one ifreq, which lives across the call; the descriptor is open (and refuses it if it is
    // no TUN).
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &mut request) }).ok()?;
    // SAFETY: TUNGETIFF has filled in the flags of the union.
    let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Some(Attachment {
        name: text(&request.ifr_name),
        tap: flags & libc::IFF_TAP != 0,
        vnet_header: flags & libc::IFF_VNET_HDR != 0,
        persistent: flags & libc::IFF_PERSIST != 0,
    })
}

/// Checks that there is an interface `name`: attaching to a missing one would make it.
pub(super) fn require_interface(name: &str) -> Result<(), TapError> {
    let acceptable = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    if name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || !name.bytes().all(acceptable)
        || matches!(name, "." | "..")
    {
        return Err(TapError::Name {
            name: name.to_owned(),
        });
    }
    let socket = query_socket().map_err(|source| explain(name, "look up", source))?;
    match netdevice::name_to_index(&socket, name) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => Err(TapError::Missing {
            name: name.to_owned(),
        }),
        Err(error) => Err(explain(name, "look up", error.into())),
    }
}

/// Converts an error of opening or attaching into one with a remedy.
pub(super) fn explain(name: &str, action: &'static str, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy { name },
        Some(libc::EPERM | libc::EACCES) if action == OPEN => {
            TapError::DriverDenied { name, source }
        }
        Some(libc::EPERM | libc::EACCES) => TapError::Denied { name },
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver { name, source },
        Some(libc::EINVAL) => match kind(&name) {
            Kind::Tap => TapError::NotATap {
                name,
                what: "a TAP device with several queues",
            },
            Kind::Tun => TapError::NotATap {
                name,
                what: "a TUN device",
            },
            Kind::Other => TapError::NotATap {
                name,
                what: "another kind of network interface",
            },
        },
        _ => TapError::Failed {
            name,
            action,
            source,
        },
    }
}

enum Kind {
    Tap,
    Tun,
    Other,
}

/// What `ethtool -i` reports about an interface.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [c_char; 32],
    version: [c_char; 32],
    firmware: [c_char; 32],
    bus: [c_char; 32],
    expansion_rom: [c_char; 32],
    reserved: [c_char; 12],
    counts: [u32; 5],
}

const ETHTOOL_GDRVINFO: u32 = 3;

fn kind(name: &str) -> Kind {
    let query = || -> io::Result<DriverInfo> {
        // SAFETY: DriverInfo is a plain C structure for which zeros are a value.
        let mut info: DriverInfo = unsafe { zeroed() };
        info.command = ETHTOOL_GDRVINFO;
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = (&raw mut info).cast();
        let socket = query_socket()?;
        // SAFETY: SIOCETHTOOL reads the ifreq and writes the ethtool_drvinfo it points to; both live across the call
        // and DriverInfo has that structure's layout.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) })?;
        Ok(info)
    };
    match query() {
        Ok(info) if text(&info.driver) == "tun" && text(&info.bus) == "tap" => Kind::Tap,
        Ok(info) if text(&info.driver) == "tun" => Kind::Tun,
        _ => Kind::Other,
    }
}

pub(super) fn query_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

pub(super) fn request(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: ifreq is a plain C structure for which zeros are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    Ok(request)
}

/// The text of a C string in a fixed field.
fn text(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().map(|byte| *byte as u8).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub(super) fn check(result: c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes reads and writes return at once.
pub(super) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}
