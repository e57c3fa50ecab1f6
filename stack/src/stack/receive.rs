//! Manages the receive queues of the connections, and the room that they share.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Stack;
use crate::tcp::conn::Conn;
use crate::tcp::window::{Allowance, Holding};
use crate::{ConnId, Journal};

impl Stack {
    /// The window of a SYN-ACK with a cookie: one that a connection can have however many there are.
    pub(super) fn least_window(&self) -> usize {
        match self.config.receive_least {
            0 => self.config.receive_buffer,
            least => least.min(self.config.receive_buffer),
        }
    }

    /// The allowance of a connection that holds `own` now.
    pub(super) fn allowance(&self, own: Holding) -> Allowance {
        Allowance::new(&self.config, self.receive, own)
    }

    /// In-order bytes that have not been consumed. `None`: there is no such connection.
    pub fn received(&self, conn: ConnId) -> Option<&VecDeque<Bytes>> {
        self.conns.get(&conn).map(|conn| &conn.durable.received)
    }

    /// The application has consumed `bytes` of what was received.
    pub fn consume(&mut self, conn: ConnId, bytes: usize, journal: &mut dyn Journal) {
        self.act(conn, journal, |conn, cx| conn.consume(cx, bytes));
    }

    /// The number of in-order bytes that have not been consumed.
    pub fn received_len(&self, conn: ConnId) -> usize {
        self.conns
            .get(&conn)
            .map_or(0, |conn| conn.durable.received_len)
    }

    /// Offers the peer `window` bytes beyond those received, for which the application has room and on which it waits,
    /// as far as the other connections leave room. The offer stands until they are sent and is never taken back.
    pub fn grant(&mut self, conn: ConnId, window: usize, journal: &mut dyn Journal) {
        self.act(conn, journal, |conn, cx| conn.grant(cx, window));
    }

    /// Acknowledges all received bytes at once, when no reply follows that could carry the acknowledgement.
    pub fn acknowledge(&mut self, conn: ConnId, journal: &mut dyn Journal) {
        self.act(conn, journal, |conn, _| conn.acknowledge());
    }

    /// Bytes that may still be granted, over all connections.
    pub fn receive_left(&self) -> usize {
        self.config.receive_total.saturating_sub(self.receive.sum())
    }

    /// Bytes that a connection holds of the shared room.
    pub fn holding(&self, conn: ConnId) -> Holding {
        self.conns
            .get(&conn)
            .map_or_else(Holding::default, Conn::holding)
    }

    /// Room that the journal has to keep for what peers may send, in bytes: the shared room without what is queued
    /// already.
    pub fn receive_room(&self) -> usize {
        let Holding { queued, promised } = self.receive;
        let total = self.config.receive_total;
        total.saturating_sub(queued).max(promised)
    }
}
