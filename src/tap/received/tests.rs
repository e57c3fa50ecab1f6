use std::collections::VecDeque;

use outlast_stack::{Capabilities, TxFrame};

use super::*;

/// A device that has these frames.
#[derive(Default)]
struct Queue(VecDeque<(Vec<u8>, RxChecksum)>);

impl Device for Queue {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, RxChecksum)>> {
        Ok(self.0.pop_front().map(|(frame, checksum)| {
            buffer[..frame.len()].copy_from_slice(&frame);
            (frame.len(), checksum)
        }))
    }

    fn send(&mut self, _: &TxFrame) -> io::Result<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }
}

fn queue(lengths: impl IntoIterator<Item = usize>) -> Queue {
    let frames = lengths.into_iter().enumerate().map(|(number, length)| {
        let checksum = match number % 2 {
            0 => RxChecksum::Verify,
            _ => RxChecksum::Trusted,
        };
        (vec![number as u8 + 1; length], checksum)
    });
    Queue(frames.collect())
}

fn read_all(received: &mut Received, queue: &mut Queue) -> Vec<(Vec<u8>, RxChecksum)> {
    let mut frames = Vec::new();
    while let Some(frame) = received.receive(queue).unwrap() {
        frames.push((frame.bytes.to_vec(), frame.checksum));
    }
    frames
}

#[test]
fn the_next_worker_takes_what_a_dead_one_had_read_and_takes_it_once() {
    let memory = memory().unwrap();
    let worker = || Received::new(Some(memory.try_clone().unwrap())).unwrap();
    let mut queue = queue([60, 61, 1514, 65_535]);
    let mut dead = worker();
    assert_eq!(dead.take_left(), []);
    let read = read_all(&mut dead, &mut queue);
    assert_eq!(read.len(), 4);
    drop(dead);
    let mut next = worker();
    assert_eq!(next.take_left(), read);
    drop(next);
    assert_eq!(worker().take_left(), [], "only once");
}

#[test]
fn what_is_on_record_is_not_taken_again() {
    let memory = memory().unwrap();
    let worker = || Received::new(Some(memory.try_clone().unwrap())).unwrap();
    let mut dead = worker();
    read_all(&mut dead, &mut queue([60, 70]));
    dead.forget();
    let read = read_all(&mut dead, &mut queue([80]));
    assert_eq!(read[0].0.len(), 80);
    assert_eq!(worker().take_left(), read);
}

#[test]
fn a_turn_ends_when_the_memory_is_full() {
    let mut received = Received::new(None).unwrap();
    let mut queue = queue([MAX_FRAME_LEN; 40]);
    let first = read_all(&mut received, &mut queue).len();
    assert_eq!(first, BYTES / MAX_FRAME_LEN);
    received.forget();
    assert_eq!(read_all(&mut received, &mut queue).len(), first);
    assert_eq!(queue.0.len(), 40 - 2 * first, "none is lost");
}

#[test]
fn a_damaged_memory_is_read_as_far_as_it_makes_sense() {
    for word in [u64::MAX, 1 << 40, 0xffff_ffff, 1 << 31] {
        let mut received = Received::new(None).unwrap();
        let read = read_all(&mut received, &mut queue([60, 61]));
        received.memory[USED].copy_from_slice(&u64::MAX.to_ne_bytes());
        let second = USED.end + HEADER + 64;
        received.memory[second..second + 8].copy_from_slice(&word.to_ne_bytes());
        assert_eq!(received.take_left(), read[..1]);
    }
}

#[test]
fn a_memory_of_another_size_is_not_used() {
    let memory = rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memory, 64).unwrap();
    let mut received = Received::new(Some(memory)).unwrap();
    assert_eq!(read_all(&mut received, &mut queue([60])).len(), 1);
}
