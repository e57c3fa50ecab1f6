//! Defines the interface to the log.

use bytes::Bytes;

use crate::Record;

/// Id of a connection's object; never used again.
pub type ConnId = u64;

/// The log, as the stack sees it. Implemented by the event loop, and by a `Vec` in tests.
pub trait Journal {
    /// Appends a record and returns `data` as bytes that stay valid as long as they are held.
    ///
    /// Never fails: callers ask `room` first for received data. [`Record::Opened`] is a snapshot and begins the object.
    fn append(&mut self, conn: ConnId, record: &Record, data: &[&[u8]]) -> Bytes;
    /// Received bytes the log can take for this connection now.
    fn room(&self, conn: ConnId) -> usize;
    /// An id that has never been used and never will be, larger than all before.
    fn unique_id(&mut self) -> u64;
}
