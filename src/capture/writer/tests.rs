use std::os::fd::{BorrowedFd, OwnedFd};

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::super::{Direction, Ring};
use super::*;

/// The ring that a worker inherits.
fn ring(capture: &Capture) -> Ring {
    // SAFETY: it is open as long as the capture exists.
    let memory = unsafe { BorrowedFd::borrow_raw(capture.as_raw_fd()) };
    let memory: OwnedFd = rustix::io::fcntl_dupfd_cloexec(memory, 3).unwrap();
    Ring::inherited(memory).unwrap().unwrap()
}

fn wanted(file: Option<&Path>) -> Wanted {
    Wanted {
        file: file.map(Path::to_owned),
        headers_only: false,
    }
}

#[test]
fn frames_of_several_workers_are_in_one_file() {
    let path = std::env::temp_dir().join(format!("outlast-capture-{}", std::process::id()));
    let capture = Capture::new().unwrap();
    assert!(
        capture
            .want(&wanted(None))
            .unwrap_err()
            .contains("there is no capture")
    );
    capture.want(&wanted(Some(&path))).unwrap();
    let again = capture.want(&wanted(Some(&path))).unwrap_err();
    assert!(again.contains("already captured into"), "{again}");
    for n in 0..100_u8 {
        // Each frame by another worker.
        ring(&capture).put(Direction::Received, &[&[n; 60]]);
        ring(&capture).put(Direction::Sent, &[&[n; 54], &[n; 9000]]);
    }
    capture.want(&wanted(None)).unwrap();
    ring(&capture).put(Direction::Received, &[&[200; 60]]);

    let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
    let mut frames = 0_usize;
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(frame) = block.unwrap() else {
            continue;
        };
        let is_sent = frames % 2 == 1;
        let (len, flags) = if is_sent { (9054, 2) } else { (60, 1) };
        assert_eq!(frame.data, vec![(frames / 2) as u8; len]);
        assert!(frame.options.contains(&EnhancedPacketOption::Flags(flags)));
        assert!(frame.timestamp > Duration::from_secs(1_000_000_000));
        frames += 1;
    }
    assert_eq!(frames, 200);
    std::fs::remove_file(&path).unwrap();

    let nowhere = capture.want(&wanted(Some(Path::new("/nowhere/x.pcapng"))));
    assert!(
        nowhere
            .unwrap_err()
            .contains("/nowhere/x.pcapng cannot be written")
    );
}
