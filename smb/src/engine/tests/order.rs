//! Tests requests whose results depend on earlier ones: in their message, by their open, on their pipe.

use super::client::{
    ANY, EXCLUSIVE_LOCK, NOW, Opening, Protection, SHARED, UNLOCK, close, lock, read, tree_connect,
    write,
};
use super::{statuses, sweep};
use crate::tests::bytes::hex;
use outlast_fsa::status::NtStatus;

/// MS-SMB2 3.3.5.2.7.2.
#[test]
fn what_follows_a_request_that_is_related_to_nothing_is_refused_too() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let asks = [
            Opening::of("f").ask().related(),
            read(ANY, 0, 1).related(),
            close(ANY).related(),
        ];
        let refused = world.ask(&mut ann, &asks);
        assert_eq!(statuses(&refused), [NtStatus::INVALID_PARAMETER; 3]);
        assert!(!world.disk.exists("f"));
    });
}

/// MS-SMB2 3.3.5.14.1.
#[test]
fn ranges_are_unlocked_one_after_the_other() {
    sweep(|world| {
        let mut ann = world.client(Protection::Plain);
        let open = world.one(&mut ann, Opening::of("f").ask()).open();
        let both = [(0, 1, SHARED | NOW), (5, 1, SHARED | NOW)];
        world.one(&mut ann, lock(open, &both));
        let mixed = [(0, 1, UNLOCK), (9, 1, EXCLUSIVE_LOCK | NOW)];
        let refused = world.one(&mut ann, lock(open, &mixed));
        assert_eq!(refused.status(), NtStatus::INVALID_PARAMETER);
        assert_eq!(world.smb.status(ann.conn).locks, 1);
        let none = [(9, 1, UNLOCK), (5, 1, 0)];
        let refused = world.one(&mut ann, lock(open, &none));
        assert_eq!(refused.status(), NtStatus::RANGE_NOT_LOCKED);
        assert_eq!(world.smb.status(ann.conn).locks, 1);
    });
}

/// MS-SMB2 3.3.5.2.10.
#[test]
fn what_was_sent_before_the_channel_failed_changes_nothing() {
    sweep(|world| {
        let mut ann = world.client(Protection::Signed);
        let open = world.one(&mut ann, Opening::of("f").ask()).open();
        let mut status = |sequence, fill: u8| {
            let mut ask = write(open, 0, &[fill]);
            ask.channel_sequence = sequence;
            world.one(&mut ann, ask).status()
        };
        let late = NtStatus::FILE_NOT_AVAILABLE;
        assert_eq!(status(0, b'0'), NtStatus::SUCCESS);
        assert_eq!(status(0x8000, b'1'), late);
        assert_eq!(status(0xFFFF, b'2'), late);
        assert_eq!(status(0x7FFF, b'3'), NtStatus::SUCCESS);
        assert_eq!(status(0, b'4'), late);
        assert_eq!(status(0xFFFE, b'5'), NtStatus::SUCCESS);
        assert_eq!(status(1, b'6'), NtStatus::SUCCESS);
        assert_eq!(status(0xFFFE, b'7'), late);
        let mut ask = read(open, 0, 1);
        ask.channel_sequence = 0;
        assert_eq!(world.one(&mut ann, ask).data(), b"6");
    });
}

/// A pipe queues (MS-FSCC 2.4.36): a waiting READ returns the next message.
#[test]
fn a_read_of_an_empty_pipe_waits() {
    let bind = hex(
        "05000b03100000004800000001000000 b810b81000000000 01000000 00000100
        c84f324b7016d30112785a47bf6ee18803000000 045d888aeb1cc9119fe808002b10486002000000",
    );
    sweep(|world| {
        let mut ann = world.client(Protection::Encrypted);
        ann.tree = world.one(&mut ann, tree_connect("IPC$")).header.tree_id();
        let mut opening = Opening::of("srvsvc");
        opening.access = 3;
        opening.disposition = super::client::OPEN;
        let pipe = world.one(&mut ann, opening.ask()).open();
        let interim = world.one(&mut ann, read(pipe, 0, 1024));
        assert_eq!(interim.status(), NtStatus::PENDING);
        let got = world.ask(&mut ann, &[write(pipe, 0, &bind)]);
        assert_eq!(statuses(&got), [NtStatus::SUCCESS; 2]);
        assert_eq!(got[1].async_id(), interim.async_id());
        assert!(got[1].data().starts_with(&[5, 0, 12]));
        // A READ that still waits when its pipe is closed ends then.
        world.one(&mut ann, read(pipe, 0, 1024));
        let got = world.ask(&mut ann, &[close(pipe)]);
        assert_eq!(statuses(&got), [NtStatus::SUCCESS, NtStatus::PIPE_BROKEN]);
    });
}
