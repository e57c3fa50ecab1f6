use std::cell::RefCell;
use std::collections::VecDeque;

use super::*;

/// A source with these frames, after a byte that says whether the checksum is valid.
#[derive(Default)]
struct Queue(RefCell<VecDeque<Vec<u8>>>);

impl Source for Queue {
    fn header_len(&self) -> usize {
        1
    }

    fn checksum(&self, header: &[u8]) -> RxChecksum {
        match header[0] {
            0 => RxChecksum::Verify,
            _ => RxChecksum::Trusted,
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(self.0.borrow_mut().pop_front().map(|raw| {
            buffer[..raw.len()].copy_from_slice(&raw);
            raw.len()
        }))
    }
}

/// Frames of these lengths.
fn queue(lengths: impl IntoIterator<Item = usize>) -> Queue {
    let frames = lengths.into_iter().enumerate().map(|(number, length)| {
        let mut raw = vec![number as u8 + 1; 1 + length];
        raw[0] = number as u8 % 2;
        raw
    });
    Queue(RefCell::new(frames.collect()))
}

fn read_all(received: &mut Received, queue: &Queue) -> Vec<(Vec<u8>, RxChecksum)> {
    let mut frames = Vec::new();
    while let Some(frame) = received.receive(queue).unwrap() {
        frames.push((frame.bytes.to_vec(), frame.checksum));
    }
    frames
}

fn left(memory: &OwnedFd) -> Vec<(Vec<u8>, RxChecksum)> {
    let mut next = Received::new(Some(memory.try_clone().unwrap())).unwrap();
    next.take_left(&Queue::default())
}

#[test]
fn the_next_worker_takes_what_a_dead_one_had_read_and_takes_it_once() {
    let memory = memory().unwrap();
    let mut dead = Received::new(Some(memory.try_clone().unwrap())).unwrap();
    assert_eq!(dead.take_left(&Queue::default()), []);
    let read = read_all(&mut dead, &queue([60, 61, 1514, 65_535]));
    assert_eq!(read.len(), 4);
    assert_eq!(left(&memory), read);
    assert_eq!(left(&memory), [], "only once");
}

#[test]
fn recorded_frames_are_not_taken_again() {
    let memory = memory().unwrap();
    let mut dead = Received::new(Some(memory.try_clone().unwrap())).unwrap();
    read_all(&mut dead, &queue([60, 70]));
    dead.forget();
    let read = read_all(&mut dead, &queue([80]));
    assert_eq!(read[0].0.len(), 80);
    dead.forget();
    assert_eq!(left(&memory), []);
    let read = read_all(&mut dead, &queue([80]));
    assert_eq!(left(&memory), read);
}

/// IPv4, IPv6, ARP; as the first frame and after one.
#[test]
fn a_frame_that_the_kernel_has_copied_and_the_worker_has_not_noted_is_received() {
    let packet = |ether_type: [u8; 2], payload: Vec<u8>| {
        let mut frame = vec![2; 12];
        frame.extend(ether_type);
        frame.extend(payload);
        frame
    };
    let mut ipv4 = vec![0x45; 57];
    ipv4[2..4].copy_from_slice(&[0, 57]);
    let mut ipv6 = vec![0x60; 40 + 300];
    ipv6[4..6].copy_from_slice(&[1, 44]);
    let packets = [
        packet([8, 0], ipv4),
        packet([0x86, 0xdd], ipv6),
        packet([8, 6], vec![1; 28]),
    ];
    for (packet, before) in packets.iter().flat_map(|packet| [(packet, 0), (packet, 1)]) {
        let memory = memory().unwrap();
        let mut dead = Received::new(Some(memory.try_clone().unwrap())).unwrap();
        let read = read_all(&mut dead, &queue(vec![61; before]));
        let noted = dead.next - USED.end;
        let raw = [&[1], &packet[..]].concat();
        read_all(&mut dead, &Queue(RefCell::new([raw].into())));
        dead.set_used(noted);
        let expected = [read, vec![(packet.clone(), RxChecksum::Trusted)]].concat();
        assert_eq!(left(&memory), expected);
    }
}

#[test]
fn a_turn_ends_when_the_memory_is_full() {
    let mut received = Received::new(None).unwrap();
    let queue = queue([MAX_FRAME_LEN; 40]);
    let first = read_all(&mut received, &queue).len();
    assert_eq!(first, BYTES / RAW_MAX);
    received.forget();
    assert_eq!(read_all(&mut received, &queue).len(), first);
    assert_eq!(queue.0.borrow().len(), 40 - 2 * first, "none is lost");
}

#[test]
fn a_damaged_memory_is_read_as_far_as_it_makes_sense() {
    for word in [u64::MAX, 1 << 40, 0xffff_ffff, 1 << 31, 0] {
        let mut received = Received::new(None).unwrap();
        let read = read_all(&mut received, &queue([60, 62]));
        received.memory[USED].copy_from_slice(&u64::MAX.to_ne_bytes());
        let second = USED.end + LENGTH + 64;
        received.memory[second..second + 8].copy_from_slice(&word.to_ne_bytes());
        assert_eq!(received.take_left(&Queue::default()), read[..1]);
    }
}

#[test]
fn a_memory_of_another_size_is_not_used() {
    let memory = rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memory, 64).unwrap();
    let mut received = Received::new(Some(memory)).unwrap();
    assert_eq!(read_all(&mut received, &queue([60])).len(), 1);
}
