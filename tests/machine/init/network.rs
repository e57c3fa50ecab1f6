//! Sets up the guest's network by ioctls only (netdevice(7), linux/sockios.h, linux/if_tun.h): a server's card is
//! bridged with a TAP, a client's card has an address.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};

const CARD: &str = "eth0";
const TAP: &str = "tap0";
const BRIDGE: &str = "br0";

// linux/sockios.h
const SIOCBRADDBR: libc::Ioctl = 0x89a0;
const SIOCBRADDIF: libc::Ioctl = 0x89a2;

/// Bridges the card with a TAP that outlives its users, and sets all three up. `address`: of the bridge, with its
/// netmask.
pub fn bridge(address: Option<(Ipv4Addr, Ipv4Addr)>) -> io::Result<()> {
    make_tap()?;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    control(&socket, SIOCBRADDBR, &mut request(BRIDGE))?;
    for port in [CARD, TAP] {
        let mut index = request(port);
        control(&socket, libc::SIOCGIFINDEX, &mut index)?;
        let mut bridge = request(BRIDGE);
        // SAFETY: SIOCGIFINDEX has filled in this member of the union.
        bridge.ifr_ifru.ifru_ifindex = unsafe { index.ifr_ifru.ifru_ifindex };
        control(&socket, SIOCBRADDIF, &mut bridge)?;
    }
    if let Some((address, netmask)) = address {
        assign(&socket, BRIDGE, address, netmask)?;
    }
    set_up(&socket, &[CARD, TAP, BRIDGE, "lo"])
}

/// Gives the card an address, and sets it up.
pub fn join(address: Ipv4Addr, netmask: Ipv4Addr) -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    assign(&socket, CARD, address, netmask)?;
    set_up(&socket, &[CARD, "lo"])
}

fn assign(socket: &OwnedFd, device: &str, address: Ipv4Addr, netmask: Ipv4Addr) -> io::Result<()> {
    for (ioctl, address) in [
        (libc::SIOCSIFADDR, address),
        (libc::SIOCSIFNETMASK, netmask),
    ] {
        let mut request = request(device);
        request.ifr_ifru.ifru_addr = socket_address(address);
        control(socket, ioctl, &mut request)?;
    }
    Ok(())
}

fn set_up(socket: &OwnedFd, devices: &[&str]) -> io::Result<()> {
    for device in devices {
        let mut flags = request(device);
        flags.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        control(socket, libc::SIOCSIFFLAGS, &mut flags)?;
    }
    Ok(())
}

/// A `sockaddr_in` without a port, as the general structure (ip(7)).
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

fn make_tap() -> io::Result<()> {
    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let tun = OwnedFd::from(tun);
    let mut tap = request(TAP);
    tap.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    control(&tun, libc::TUNSETIFF, &mut tap)?;
    // SAFETY: TUNSETPERSIST takes a number.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, 1) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq of zeros is one without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// An ioctl that takes an `ifreq`, or the name at its beginning.
fn control(fd: &OwnedFd, ioctl: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: that is what the ioctls named above take, and they keep nothing of it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), ioctl, std::ptr::from_mut(request)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
