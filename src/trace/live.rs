//! Captures from a network device of this machine (packet(7)), with the kernel's time stamps (socket(7)).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use pcap_parser::Linktype;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Segment;
use super::segment::HEADER_BYTES;
use crate::packet_socket;

/// A device from which frames are captured.
pub struct Device {
    socket: OwnedFd,
    frame: [u8; HEADER_BYTES],
}

/// A frame, truncated after its headers.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// The kernel's time stamp, since 1970.
    pub at: Duration,
    /// Its link type; `None`: it is not supported.
    pub link: Option<Linktype>,
    /// The beginning of the frame.
    pub frame: &'a [u8],
    /// Its length on the wire, in bytes.
    pub wire_bytes: usize,
}

impl Captured<'_> {
    /// Returns the TCP segment in it, if there is one.
    #[must_use]
    pub fn segment(&self) -> Option<Segment> {
        Segment::read(self.link?, self.frame, self.wire_bytes, self.at)
    }
}

impl Device {
    /// Begins to capture from the device with this name.
    ///
    /// # Errors
    /// No device has this name, or the account lacks the right to capture.
    pub fn open(name: &str) -> io::Result<Device> {
        let socket = packet_socket::open()?;
        let index = rustix::net::netdevice::name_to_index(&socket, name)?;
        packet_socket::stamp(&socket)?;
        packet_socket::receive_all(&socket, index)?;
        Ok(Device {
            socket,
            frame: [0; HEADER_BYTES],
        })
    }

    /// Waits until a frame is available, or the time has passed.
    ///
    /// # Errors
    /// The device has disappeared.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(
            &mut [PollFd::new(&self.socket, PollFlags::IN)],
            Some(&limit),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the next frame; `None`: there is none now.
    ///
    /// # Errors
    /// The device has disappeared.
    pub fn next_frame(&mut self) -> io::Result<Option<Captured<'_>>> {
        loop {
            let Some(received) = packet_socket::receive(&self.socket, &mut self.frame)? else {
                return Ok(None);
            };
            // The loopback device reports each frame twice: as sent and as received.
            let is_loopback = received.hardware == libc::ARPHRD_LOOPBACK;
            if is_loopback && received.kind == libc::PACKET_OUTGOING {
                continue;
            }
            return Ok(Some(Captured {
                at: received.at,
                link: link(received.hardware),
                frame: &self.frame[..received.wire_bytes.min(HEADER_BYTES)],
                wire_bytes: received.wire_bytes,
            }));
        }
    }

    /// Returns the number of frames lost since the last call, because the reader was too slow.
    ///
    /// # Errors
    /// The device has disappeared.
    pub fn missed(&self) -> io::Result<u32> {
        packet_socket::drops(&self.socket)
    }
}

/// Returns the link type of a device's frames (linux/if_arp.h).
fn link(hardware: u16) -> Option<Linktype> {
    match hardware {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Some(Linktype::ETHERNET),
        // tun, WireGuard
        libc::ARPHRD_NONE => Some(Linktype::RAW),
        _ => None,
    }
}
