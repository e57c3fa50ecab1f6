//! Records every frame with the kernel's time stamp, by a packet socket (packet(7), socket(7)).

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use outlast::packet_socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::capture::{FRAME_BYTES, Instruction, filtered_socket};

/// Every frame, truncated.
const FILTER: [Instruction; 1] = [(0x06, 0, 0, FRAME_BYTES as u32)];

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Wall time since 1970.
    pub at: Duration,
    pub what: What,
}

/// The kind of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A TCP segment over IPv4 with port 445 on one side.
    Segment(Segment),
    /// Another frame: EtherType, and the protocol if it is IPv4.
    Other(u16, u8),
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from_server: bool,
    pub client_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub flags: u8,
    /// Bytes of payload; of many segments, if the device cuts them.
    pub len: u32,
}

/// A recording thread.
pub struct Timeline {
    socket: Arc<OwnedFd>,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    frames: Mutex<Vec<Frame>>,
}

impl Timeline {
    /// Starts it, in the calling thread's network namespace.
    pub fn start() -> Timeline {
        let socket = Arc::new(filtered_socket(&FILTER));
        packet_socket::stamp(&socket).expect("time stamps");
        let shared = Arc::new(Shared::default());
        let reader = std::thread::spawn({
            let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
            move || take_down(&socket, &shared)
        });
        Timeline {
            socket,
            shared,
            reader: Some(reader),
        }
    }

    /// Returns the frames since the last call.
    pub fn take(&self) -> Vec<Frame> {
        std::mem::take(&mut self.shared.lock())
    }

    /// Looks at the frames since the last call of [`Timeline::take`].
    pub fn look<T>(&self, look: impl FnOnce(&[Frame]) -> T) -> T {
        look(&self.shared.lock())
    }

    /// The number of frames that were not recorded since the last call.
    pub fn missed(&self) -> u32 {
        packet_socket::drops(&self.socket).expect("statistics")
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_down(socket: &OwnedFd, shared: &Shared) {
    let pause = Timespec::try_from(Duration::from_millis(20)).expect("short");
    let mut read = Vec::new();
    let mut bytes = [0; FRAME_BYTES];
    while !shared.over.load(Ordering::SeqCst) {
        while let Ok(Some(received)) = packet_socket::receive(socket, &mut bytes) {
            let frame = &bytes[..received.wire_bytes.min(FRAME_BYTES)];
            read.extend(what(frame).map(|what| Frame {
                at: received.at,
                what,
            }));
        }
        shared.lock().append(&mut read);
        // the deadline only limits how often the end is checked
        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&pause));
    }
}

/// Parses an Ethernet frame.
fn what(frame: &[u8]) -> Option<What> {
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let ether_type = word(12)?;
    if ether_type != 0x0800 {
        return Some(What::Other(ether_type, 0));
    }
    let protocol = *frame.get(23)?;
    let tcp = 14 + usize::from(frame[14] & 15) * 4;
    if protocol != 6 || (word(tcp)? != 445 && word(tcp + 2)? != 445) {
        return Some(What::Other(ether_type, protocol));
    }
    let from_server = word(tcp)? == 445;
    let headers = tcp - 14 + usize::from(frame.get(tcp + 12)? >> 4) * 4;
    Some(What::Segment(Segment {
        from_server,
        client_port: word(if from_server { tcp + 2 } else { tcp })?,
        seq: long(tcp + 4)?,
        ack: long(tcp + 8)?,
        window: word(tcp + 14)?,
        flags: *frame.get(tcp + 13)?,
        len: u32::from(word(16)?).saturating_sub(headers as u32),
    }))
}
