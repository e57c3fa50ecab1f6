//! Configures the machine's side of a network interface: its address, and whether it is up (netdevice(7)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use super::control::{check, query_socket, request};

/// Gives the interface its only IPv4 address; the kernel adds the route to its subnet when it is up.
///
/// The kernel's error.
pub fn set_address(name: &str, address: Ipv4Addr, prefix_bits: u8) -> io::Result<()> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits.min(32)));
    set(name, libc::SIOCSIFADDR, address)?;
    set(name, libc::SIOCSIFNETMASK, mask.unwrap_or(0).into())
}

fn set(name: &str, what: libc::c_ulong, value: Ipv4Addr) -> io::Result<()> {
    let socket = query_socket()?;
    let mut request = request(name)?;
    let value = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(value).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the union holds a sockaddr here, whose IPv4 form is a sockaddr_in of the same length.
    unsafe {
        (&raw mut request.ifr_ifru)
            .cast::<libc::sockaddr_in>()
            .write_unaligned(value)
    };
    // SAFETY: these requests read one ifreq, which lives across the call; the descriptor is open.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &request) })
}

/// Brings the interface up.
///
/// The kernel's error.
pub fn bring_up(name: &str) -> io::Result<()> {
    let socket = query_socket()?;
    let mut request = request(name)?;
    // SAFETY: SIOCGIFFLAGS reads and writes one ifreq, which lives across the call; the descriptor is open.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) })?;
    // SAFETY: SIOCGIFFLAGS has filled in the flags of the union.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call; the descriptor is open.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) })
}
