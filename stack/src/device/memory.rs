//! Two devices joined by a wire in memory, with seeded faults: a repeatable network.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Device, segment};
use crate::link::ETHERNET_HEADER_LEN;
use crate::{Capabilities, RxChecksum, TxFrame};

/// Faults of a wire. Probabilities are in parts per million, each drawn for each frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The frame never arrives.
    pub loss_ppm: u32,
    /// The frame arrives twice, the second time with a delay of its own.
    pub duplicate_ppm: u32,
    /// The frame arrives late by `reorder_delay`, so that later ones overtake it.
    pub reorder_ppm: u32,
    /// One bit of an IP packet is flipped (not of the Ethernet header, which no checksum above covers).
    pub corrupt_ppm: u32,
    /// Delay of every frame.
    pub delay: Duration,
    /// The largest random addition to `delay`; it reorders if it exceeds the frames' distance.
    pub jitter: Duration,
    /// Delay of a reordered frame.
    pub reorder_delay: Duration,
    /// The largest number of frames in transit in one direction; more are lost at the tail. 0: no limit.
    pub queue_limit: usize,
}

/// Counters of the frames sent in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transit {
    /// Frames put on the wire, after segmentation.
    pub sent: u64,
    /// Lost by chance or at the tail of the queue.
    pub lost: u64,
    /// Sent twice by the wire.
    pub duplicated: u64,
    /// Delayed beyond later frames.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
}

/// One end of a wire made by [`pair`].
///
/// Its clock is an argument: frames arrive when [`MemoryDevice::advance`] has reached their time.
pub struct MemoryDevice {
    wire: Arc<Mutex<Wire>>,
    /// Index of the direction this end sends in.
    end: usize,
    capabilities: Capabilities,
}

struct Wire {
    now: Duration,
    random: SplitMix64,
    /// Orders frames that arrive at the same time, first in first out.
    serial: u64,
    directions: [Direction; 2],
}

#[derive(Default)]
struct Direction {
    faults: Faults,
    frames: BTreeMap<(Duration, u64), Vec<u8>>,
    transit: Transit,
}

/// Makes the two ends of a wire. Both directions have the same faults; all randomness derives from `seed`.
pub fn pair(
    capabilities: [Capabilities; 2],
    faults: Faults,
    seed: u64,
) -> (MemoryDevice, MemoryDevice) {
    let direction = || Direction {
        faults,
        ..Direction::default()
    };
    let wire = Wire {
        now: Duration::ZERO,
        random: SplitMix64(seed),
        serial: 0,
        directions: [direction(), direction()],
    };
    let wire = Arc::new(Mutex::new(wire));
    let [first, second] = capabilities;
    (
        MemoryDevice {
            wire: wire.clone(),
            end: 0,
            capabilities: first,
        },
        MemoryDevice {
            wire,
            end: 1,
            capabilities: second,
        },
    )
}

impl MemoryDevice {
    /// Moves the wire's clock, which both ends share, to `now`; it does not go back.
    pub fn advance(&mut self, now: Duration) {
        let mut wire = self.wire();
        wire.now = wire.now.max(now);
    }

    /// When the next frame for this end arrives: in the past if it has, `None` if none is on its way.
    pub fn next_arrival(&self) -> Option<Duration> {
        let wire = self.wire();
        wire.directions[1 - self.end]
            .frames
            .first_key_value()
            .map(|((at, _), _)| *at)
    }

    /// Replaces the faults of what this end sends.
    pub fn set_faults(&mut self, faults: Faults) {
        let end = self.end;
        self.wire().directions[end].faults = faults;
    }

    /// Loses everything in transit to this end: its machine is down, and nothing holds its queue.
    pub fn discard(&mut self) {
        let end = self.end;
        let direction = &mut self.wire().directions[1 - end];
        direction.transit.lost += direction.frames.len() as u64;
        direction.frames.clear();
    }

    /// The counters of the frames that this end sent.
    pub fn transit(&self) -> Transit {
        self.wire().directions[self.end].transit
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for MemoryDevice {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, RxChecksum)>> {
        let end = self.end;
        let mut wire = self.wire();
        let now = wire.now;
        let frames = &mut wire.directions[1 - end].frames;
        let Some(frame) = frames.first_entry().filter(|frame| frame.key().0 <= now) else {
            return Ok(None);
        };
        let frame = frame.remove();
        let len = frame.len().min(buffer.len());
        buffer[..len].copy_from_slice(&frame[..len]);
        Ok(Some((len, RxChecksum::Verify)))
    }

    fn send(&mut self, frame: &TxFrame) -> io::Result<()> {
        let end = self.end;
        let mut wire = self.wire();
        for frame in segment(frame) {
            wire.transmit(end, frame);
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }
}

impl Wire {
    fn transmit(&mut self, end: usize, mut frame: Vec<u8>) {
        let Wire {
            now,
            random,
            serial,
            directions,
        } = self;
        let Direction {
            faults,
            frames,
            transit,
        } = &mut directions[end];
        transit.sent += 1;
        let full = faults.queue_limit > 0 && frames.len() >= faults.queue_limit;
        if full || random.happens(faults.loss_ppm) {
            transit.lost += 1;
            return;
        }
        let is_ip = matches!(
            frame.get(12..ETHERNET_HEADER_LEN),
            Some([0x08, 0x00] | [0x86, 0xdd])
        );
        if is_ip && frame.len() > ETHERNET_HEADER_LEN && random.happens(faults.corrupt_ppm) {
            transit.corrupted += 1;
            let bits = (frame.len() - ETHERNET_HEADER_LEN) as u64 * 8;
            let bit = random.below(bits) as usize;
            frame[ETHERNET_HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
        }
        let mut copies = 1;
        if random.happens(faults.duplicate_ppm) {
            transit.duplicated += 1;
            copies = 2;
        }
        for _ in 0..copies {
            let mut arrival = *now + faults.delay;
            let jitter_us = faults.jitter.as_micros() as u64;
            if jitter_us > 0 {
                arrival += Duration::from_micros(random.below(jitter_us + 1));
            }
            if random.happens(faults.reorder_ppm) {
                transit.reordered += 1;
                arrival += faults.reorder_delay;
            }
            *serial += 1;
            frames.insert((arrival, *serial), frame.clone());
        }
    }
}

/// SplitMix64 by Steele, Lea and Flood: a small seeded random number generator.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }
}
