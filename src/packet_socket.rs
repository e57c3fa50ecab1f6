//! Opens packet sockets (packet(7)), with the kernel's time stamps (socket(7)).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// The receive buffer of the socket. Frames of 64 KiB count in full, even if they are truncated.
const BUFFER_BYTES: usize = 256 << 20;

/// Opens a non-blocking socket, which receives no frame before [`receive_all`].
///
/// # Errors
/// The account lacks the right.
pub fn open() -> io::Result<OwnedFd> {
    // Without a protocol it receives nothing until it is bound.
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // A reader that waits for a processor must not lose frames. If the system's limit applies, the buffer has that
    // size.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES));
    Ok(socket)
}

/// Begins to receive frames of every protocol on the device with this index; index 0: on every device.
///
/// # Errors
/// The device has disappeared.
pub fn receive_all(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is valid while the call lasts, and the kernel copies it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    done(result)
}

/// Enables SO_TIMESTAMPNS: each frame has the time at which the kernel received or sent it.
///
/// # Errors
/// The kernel's.
pub fn stamp(socket: &OwnedFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the value is valid while the call lasts, and the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    done(result)
}

/// Returns the number of frames for which the buffer had no room since the last call.
///
/// # Errors
/// The kernel's.
pub fn drops(socket: &OwnedFd) -> io::Result<u32> {
    /// `struct tpacket_stats` of linux/if_packet.h.
    #[repr(C)]
    #[derive(Default)]
    struct Statistics {
        packets: u32,
        drops: u32,
    }
    let mut statistics = Statistics::default();
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes there, and every value is valid for the structure.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut statistics).cast(),
            &mut length,
        )
    };
    done(result).map(|()| statistics.drops)
}

/// The metadata of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// The kernel's time stamp, since 1970.
    pub at: Duration,
    /// Its length on the wire, in bytes.
    pub wire_bytes: usize,
    /// The type of the device, such as ARPHRD_ETHER.
    pub hardware: u16,
    /// The kind of packet, such as PACKET_HOST and PACKET_OUTGOING.
    pub kind: u8,
}

/// Receives the beginning of the next frame; `None`: there is none now.
///
/// # Errors
/// The device has disappeared, or the frame has no time stamp.
pub fn receive(socket: &OwnedFd, frame: &mut [u8]) -> io::Result<Option<Received>> {
    /// Room for one control message, aligned as cmsg(3) requires.
    #[repr(align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut piece = libc::iovec {
        iov_base: frame.as_mut_ptr().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: both are plain C structures for which zeros are a value.
    let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of_val(&address) as libc::socklen_t;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // The length is that on the wire, for every buffer.
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the buffers live across the call, with the lengths that are passed.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
    let Ok(wire_bytes) = usize::try_from(length) else {
        return match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        };
    };
    // SAFETY: the kernel has filled in the message; the first control message, if any, lies within `control`.
    let stamp = unsafe { libc::CMSG_FIRSTHDR(&message).as_ref() }
        .filter(|header| header.cmsg_type == libc::SCM_TIMESTAMPNS);
    let Some(header) = stamp else {
        return Err(io::Error::other("a frame has no time stamp"));
    };
    // SAFETY: SCM_TIMESTAMPNS carries one timespec.
    let time = unsafe {
        libc::CMSG_DATA(header)
            .cast::<libc::timespec>()
            .read_unaligned()
    };
    Ok(Some(Received {
        at: Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        wire_bytes,
        hardware: address.sll_hatype,
        kind: address.sll_pkttype,
    }))
}

/// Converts the result of a call of libc.
fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
