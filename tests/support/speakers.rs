//! Records from which of two TAPs the server's frames are sent, in wire order.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use outlast::packet_socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::capture::{Instruction, filtered_socket};

/// The MAC address of the filtered frames, as in the configuration.
pub const MAC: &str = "02:00:00:00:00:10";

const FILTER: [Instruction; 6] = [
    (0x20, 0, 0, 6),
    (0x15, 0, 3, 0x0200_0000),
    (0x28, 0, 0, 10),
    (0x15, 0, 1, 0x0010),
    (0x06, 0, 0, 64),
    (0x06, 0, 0, 0),
];

/// A recording thread.
pub struct Speakers {
    socket: Arc<OwnedFd>,
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<Vec<i32>>>,
    taps: [i32; 2],
}

impl Speakers {
    /// Starts it, in the calling thread's network namespace.
    pub fn start(taps: [&str; 2]) -> Speakers {
        let taps = taps.map(interface_index);
        let socket = Arc::new(filtered_socket(&FILTER));
        let ended = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let (socket, ended) = (Arc::clone(&socket), Arc::clone(&ended));
            move || take_down(&socket, &ended)
        });
        Speakers {
            socket,
            ended,
            reader: Some(reader),
            taps,
        }
    }

    /// Ends it, and checks that the two have sent in so many turns, one after the other, the first one first.
    pub fn assert_alternate(self, turns: usize) {
        let spoken = self.turns();
        assert_eq!(spoken.len(), turns, "turns of the speakers: {spoken:?}");
        assert_eq!(spoken.first().map(|turn| turn.0), Some(0), "{spoken:?}");
    }

    /// Ends it: the turns of the two, 0 or 1, with the number of frames of each turn.
    pub fn turns(mut self) -> Vec<(usize, usize)> {
        self.ended.store(true, Ordering::SeqCst);
        let frames = self.reader.take().expect("a reader").join();
        assert_eq!(
            packet_socket::drops(&self.socket).expect("statistics"),
            0,
            "frames were not captured"
        );
        let mut turns: Vec<(usize, usize)> = Vec::new();
        for interface in frames.expect("the frames") {
            // The bridge itself repeats some of them.
            let Some(tap) = self.taps.iter().position(|tap| *tap == interface) else {
                continue;
            };
            match turns.last_mut() {
                Some((speaker, frames)) if *speaker == tap => *frames += 1,
                _ => turns.push((tap, 1)),
            }
        }
        turns
    }
}

impl Drop for Speakers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// The index of an interface in the calling thread's network namespace.
fn interface_index(name: &str) -> i32 {
    let name = std::ffi::CString::new(name).expect("a name");
    // SAFETY: the name is a C string that lives across the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no such interface");
    index.cast_signed()
}

/// The interface of each received frame.
fn take_down(socket: &OwnedFd, ended: &AtomicBool) -> Vec<i32> {
    let mut frames = Vec::new();
    let pause = Timespec::try_from(Duration::from_millis(20)).expect("short");
    loop {
        // checked before the buffer is emptied: frames from before the end are in it
        let last = ended.load(Ordering::SeqCst);
        while let Some((interface, is_outgoing)) = next(socket) {
            if !is_outgoing {
                frames.push(interface);
            }
        }
        if last {
            return frames;
        }
        // the deadline only limits how often the end is checked
        let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&pause));
    }
}

fn next(socket: &OwnedFd) -> Option<(i32, bool)> {
    let mut frame = [0_u8; 64];
    // SAFETY: sockaddr_ll is a plain C structure for which zeros are a value.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&from) as libc::socklen_t;
    // SAFETY: buffer and address live across the call, which writes no more than their lengths.
    let read = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            frame.as_mut_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            std::ptr::from_mut(&mut from).cast(),
            &mut length,
        )
    };
    (read >= 0).then_some((from.sll_ifindex, from.sll_pkttype == libc::PACKET_OUTGOING))
}
