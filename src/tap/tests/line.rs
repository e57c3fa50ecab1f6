//! Provides the line between the kernel and the stack: a TAP, and optionally a wire with seeded faults.

use std::time::Duration;

use outlast_stack::device::{Device, Faults, MAX_FRAME_LEN, MemoryDevice, pair};
use outlast_stack::{Capabilities, RxChecksum, TxFrame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::Received;
use super::Tap;

/// A TAP, and what happens to frames behind it.
pub(super) struct Line {
    tap: Tap,
    received: Received,
    wire: Option<Wire>,
}

struct Wire {
    kernels_end: MemoryDevice,
    our_end: MemoryDevice,
    buffer: Vec<u8>,
}

impl Line {
    pub(super) fn clean(tap: Tap) -> Line {
        Line::new(tap, None)
    }

    fn new(tap: Tap, wire: Option<Wire>) -> Line {
        let received = Received::new(None).expect("memory");
        Line {
            tap,
            received,
            wire,
        }
    }

    /// Both directions have these faults. The TAP has to be a plain one: a wire carries frames of its MTU with complete
    /// checksums.
    pub(super) fn faulty(tap: Tap, faults: Faults, seed: u64) -> Line {
        assert_eq!(tap.capabilities(), Capabilities::NONE);
        let (kernels_end, our_end) = pair([Capabilities::NONE; 2], faults, seed);
        let wire = Some(Wire {
            kernels_end,
            our_end,
            buffer: vec![0; MAX_FRAME_LEN],
        });
        Line::new(tap, wire)
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.tap.capabilities()
    }

    /// Waits for a frame, for `limit` at most.
    pub(super) fn wait(&self, now: Duration, limit: Duration) {
        let arrival = self.wire.as_ref().and_then(|wire| {
            let ends = [&wire.kernels_end, &wire.our_end];
            ends.into_iter()
                .filter_map(MemoryDevice::next_arrival)
                .min()
        });
        let limit = arrival.map_or(limit, |at| limit.min(at.saturating_sub(now)));
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: limit.as_nanos() as _,
        };
        poll(&mut [PollFd::new(&self.tap, PollFlags::IN)], Some(&timeout)).expect("poll works");
    }

    /// The next frame that has arrived for us by `now`.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        now: Duration,
    ) -> Option<(usize, RxChecksum)> {
        let Some(wire) = &mut self.wire else {
            self.received.forget();
            let frame = self.received.receive(&self.tap).expect("the TAP works")?;
            buffer[..frame.bytes.len()].copy_from_slice(frame.bytes);
            return Some((frame.bytes.len(), frame.checksum));
        };
        wire.our_end.advance(now);
        while let Some(frame) = self.received.receive(&self.tap).expect("the TAP works") {
            let frame = TxFrame::plain(frame.bytes.to_vec());
            self.received.forget();
            wire.kernels_end.send(&frame).expect("a wire takes all");
        }
        wire.deliver(&mut self.tap);
        wire.our_end.receive(buffer).expect("a wire works")
    }

    pub(super) fn send(&mut self, frame: &TxFrame, now: Duration) {
        let Some(wire) = &mut self.wire else {
            return self.tap.send(frame).expect("the TAP works");
        };
        wire.our_end.advance(now);
        wire.our_end.send(frame).expect("a wire takes all");
        wire.deliver(&mut self.tap);
    }
}

impl Wire {
    /// Passes the kernel its frames.
    fn deliver(&mut self, tap: &mut Tap) {
        while let Some((len, _)) = self
            .kernels_end
            .receive(&mut self.buffer)
            .expect("a wire works")
        {
            let frame = TxFrame::plain(self.buffer[..len].to_vec());
            tap.send(&frame).expect("the TAP works");
        }
    }
}
