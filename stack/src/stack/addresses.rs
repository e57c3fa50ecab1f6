//! Changes the addresses of a stack while it runs.

use std::net::IpAddr;

use super::Stack;
use crate::{ConnId, Journal, TxFrame, Why};

impl Stack {
    /// Changes the addresses and the default routers. Returns the frames that announce new addresses, to be sent after
    /// the next commit; none before [`resume`](Stack::resume), which announces all.
    ///
    /// Connections on an address that the stack does not have any more end. Nothing is sent for that: no packet may
    /// have such a source.
    pub fn set_addresses(
        &mut self,
        addresses: Vec<(IpAddr, u8)>,
        gateways: Vec<IpAddr>,
        journal: &mut dyn Journal,
    ) -> Vec<TxFrame> {
        // After a recovery there may be connections on an address that was lost during the outage.
        let is_same = (&self.config.addresses, &self.config.gateways) == (&addresses, &gateways);
        if is_same && self.open {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.config.addresses, addresses);
        self.config.gateways = gateways;
        self.link.set_addresses(&self.config);
        let own = self.conns.values().map(|conn| (conn.id, conn.durable.path));
        let lost = own.filter(|(_, path)| !self.link.is_local(path.local.ip()));
        for conn in lost.map(|(conn, _)| conn).collect::<Vec<ConnId>>() {
            self.act(conn, journal, |conn, cx| conn.closed(cx, Why::AddressLost));
        }
        self.resets
            .retain(|(path, _)| self.link.is_local(path.local.ip()));
        let is_new = |(address, _): &&(IpAddr, u8)| !before.iter().any(|(of, _)| of == address);
        let new = self.config.addresses.iter().filter(is_new);
        let new = new.map(|(address, _)| self.link.announce_one(*address));
        if self.open { new.collect() } else { Vec::new() }
    }
}
