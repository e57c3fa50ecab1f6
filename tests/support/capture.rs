//! Checks the packets: SYNs, resets and FINs on port 445, recorded by a packet socket (packet(7)).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use outlast::packet_socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Long enough for Ethernet, IPv6 or IPv4 with options, and the TCP header's flags.
pub const FRAME_BYTES: usize = 160;

/// An instruction of a filter (bpf(4)): code, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// TCP segments of port 445 with SYN, FIN or RST, over IPv4 and IPv6: few. What `tcpdump -d` makes of
/// `(tcp port 445 and tcp[tcpflags] & 7 != 0) or (ip6 proto 6 and port 445 and ip6[53] & 7 != 0)`.
const FILTER: [Instruction; 24] = [
    (0x28, 0, 0, 12),
    (0x15, 0, 11, 0x0800),
    (0x30, 0, 0, 23),
    (0x15, 0, 19, 6),
    (0x28, 0, 0, 20),
    (0x45, 17, 0, 0x1FFF),
    (0xB1, 0, 0, 14),
    (0x48, 0, 0, 14),
    (0x15, 2, 0, 445),
    (0x48, 0, 0, 16),
    (0x15, 0, 12, 445),
    (0x50, 0, 0, 27),
    (0x45, 9, 10, 7),
    (0x15, 0, 9, 0x86DD),
    (0x30, 0, 0, 20),
    (0x15, 0, 7, 6),
    (0x28, 0, 0, 54),
    (0x15, 2, 0, 445),
    (0x28, 0, 0, 56),
    (0x15, 0, 3, 445),
    (0x30, 0, 0, 67),
    (0x45, 0, 1, 7),
    (0x06, 0, 0, FRAME_BYTES as u32),
    (0x06, 0, 0, 0),
];

/// A recording thread.
pub struct Capture {
    socket: Arc<OwnedFd>,
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<Vec<Vec<u8>>>>,
}

/// The recorded packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Client port: sequence numbers of its SYNs (a retransmission repeats the number).
    pub syns: BTreeMap<u16, BTreeSet<u32>>,
    /// Client ports of connections with a reset, from either side.
    pub reset: BTreeSet<u16>,
    /// FINs of the server on connections whose client had not sent one.
    pub unasked_fins: u32,
    /// The recorded segments, for the message of a failed check.
    segments: Vec<String>,
}

impl Capture {
    /// Starts it, in the calling thread's network namespace.
    pub fn start() -> Capture {
        let socket = Arc::new(filtered_socket(&FILTER));
        let ended = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let (socket, ended) = (Arc::clone(&socket), Arc::clone(&ended));
            move || take_down(&socket, &ended)
        });
        Capture {
            socket,
            ended,
            reader: Some(reader),
        }
    }

    /// Ends it. A frame that has been sent or received is in the socket's buffer already, and the buffer is read to its
    /// end.
    pub fn verdict(mut self) -> Verdict {
        self.ended.store(true, Ordering::SeqCst);
        let frames = self.reader.take().expect("a reader").join();
        assert_eq!(
            packet_socket::drops(&self.socket).expect("statistics"),
            0,
            "frames that were not captured"
        );
        read(&frames.expect("the frames"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

fn take_down(socket: &OwnedFd, ended: &AtomicBool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let pause = Timespec::try_from(Duration::from_millis(20)).expect("short");
    loop {
        // checked before the buffer is emptied: frames from before the end are in it
        let last = ended.load(Ordering::SeqCst);
        let mut frame = [0; FRAME_BYTES];
        while let Ok(length) = rustix::io::read(socket, &mut frame) {
            frames.push(frame[..length].to_vec());
        }
        if last {
            return frames;
        }
        // the deadline only limits how often the end is checked
        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&pause));
    }
}

/// A socket that receives the frames accepted by the filter, of every interface of the calling thread's network
/// namespace, and does not block.
pub fn filtered_socket(program: &[Instruction]) -> OwnedFd {
    let socket = packet_socket::open().expect("a packet socket");
    filter(&socket, program).expect("a filter");
    packet_socket::receive_all(&socket, 0).expect("frames of every protocol");
    socket
}

fn filter(socket: &OwnedFd, program: &[Instruction]) -> io::Result<()> {
    let instruction = |&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k };
    let mut program: Vec<_> = program.iter().map(instruction).collect();
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is valid while the call lasts, and the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn read(frames: &[Vec<u8>]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut client_finished = BTreeSet::new();
    for frame in frames {
        let tcp = match (frame[12], frame[13]) {
            (0x08, 0x00) => &frame[14 + usize::from(frame[14] & 15) * 4..],
            _ => &frame[54..],
        };
        let source = u16::from_be_bytes([tcp[0], tcp[1]]);
        let target = u16::from_be_bytes([tcp[2], tcp[3]]);
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let from_server = source == 445;
        let (fin, syn, rst) = (tcp[13] & 1 != 0, tcp[13] & 2 != 0, tcp[13] & 4 != 0);
        verdict.segments.push(format!(
            "{source} > {target} flags {:#04x} seq {sequence} ack {}",
            tcp[13],
            u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]])
        ));
        if rst {
            verdict
                .reset
                .insert(if from_server { target } else { source });
        }
        if syn && !from_server {
            verdict.syns.entry(source).or_default().insert(sequence);
        }
        if fin && !from_server {
            client_finished.insert(source);
        }
        if fin && from_server && !client_finished.contains(&target) {
            verdict.unasked_fins += 1;
        }
    }
    verdict
}

impl Verdict {
    /// Checks for one SYN per connection, `connections` of them; no RST; no FIN from the server first.
    pub fn assert_untouched(&self, connections: usize) {
        assert!(self.reset.is_empty(), "resets on the wire: {self:#?}");
        assert_eq!(self.unasked_fins, 0, "the server closed first: {self:?}");
        assert_eq!(self.syns.len(), connections, "connections: {self:?}");
        assert!(
            self.syns.values().all(|syns| syns.len() == 1),
            "a client connected again: {self:?}"
        );
    }
}
