//! Provides a client that sends nothing, and has a batch oplock on one file and a lock on another.

use super::raw::{self, Client};

/// STATUS_LOCK_NOT_GRANTED.
const LOCK_NOT_GRANTED: u32 = 0xC000_0055;
/// SMB2_LOCKFLAG_EXCLUSIVE_LOCK and FAIL_IMMEDIATELY.
const LOCK: u32 = 0x12;
const OPLOCK_BREAK: u16 = 18;
const BATCH: u8 = 9;

/// A client that is idle and has a batch oplock on one file, and a lock on another.
pub struct Idle {
    pub client: Client,
    oplocked: raw::FileId,
    pub locked: raw::FileId,
}

impl Idle {
    pub fn begin() -> Idle {
        let mut client = Client::guest();
        let mut create = raw::create("oplocked", 0x0017_019F, 3, 0);
        create[3] = BATCH;
        let answer = client.call(raw::CREATE, &create).ok();
        assert_eq!(answer.body[2], BATCH, "the oplock is granted");
        let oplocked = answer.file_id();
        let locked = client.create("locked", 0x0017_019F, 3, 0);
        client.write(locked, 0, &[7; 5000]);
        client.lock(locked, 100, 50, LOCK).ok();
        Idle {
            client,
            oplocked,
            locked,
        }
    }

    /// Checks that its oplock and its lock still exist, for it and for other clients.
    pub fn check(&mut self) {
        assert_eq!(self.client.read(self.locked, 0, 5000), [7; 5000]);
        let mut other = Client::guest();
        let file = other.create("locked", 0x0017_019F, 1, 0);
        let refused = other.lock(file, 120, 1, LOCK).status;
        assert_eq!(refused, LOCK_NOT_GRANTED);
        let body = raw::create("oplocked", 0x0017_019F, 1, 0);
        let waits = other.request(raw::CREATE, &body);
        let broken = self.client.receive().expect("a break");
        assert_eq!(broken.command, OPLOCK_BREAK);
        self.client.close(self.oplocked).ok();
        other.answer(waits).ok();
    }
}
