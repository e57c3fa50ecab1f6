//! Keeps a log in memory, whose committed part survives a crash.

use bytes::Bytes;
use outlast_stack::{ConnId, Journal, Record};

#[derive(Debug, Default)]
pub struct Log {
    pub records: Vec<(ConnId, Record, Bytes)>,
    pub committed: usize,
    pub next_id: ConnId,
    pub room: usize,
}

impl Journal for Log {
    fn append(&mut self, conn: ConnId, record: &Record, data: &[&[u8]]) -> Bytes {
        let bytes = Bytes::from(data.concat());
        self.records.push((conn, record.clone(), bytes.clone()));
        bytes
    }

    fn room(&self, _conn: ConnId) -> usize {
        self.room
    }

    fn unique_id(&mut self) -> ConnId {
        self.next_id += 1;
        self.next_id
    }
}

impl Log {
    pub fn new() -> Log {
        Log {
            room: usize::MAX,
            ..Log::default()
        }
    }

    pub fn commit(&mut self) {
        self.committed = self.records.len();
    }

    /// Keeps what a crash leaves.
    pub fn crash(&mut self) {
        self.records.truncate(self.committed);
    }

    /// Leaves out what lies before a connection's latest snapshot, as the log does.
    pub fn trim(&mut self, conn: ConnId) {
        let last = self
            .records
            .iter()
            .rposition(|(id, record, _)| *id == conn && matches!(record, Record::Opened(_)))
            .unwrap_or(0);
        let mut at = 0;
        self.records.retain(|(id, _, _)| {
            at += 1;
            at > last || *id != conn
        });
        self.commit();
    }
}
