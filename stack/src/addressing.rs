//! Acquires addresses from the network: an IPv4 address by DHCP (RFC 2131), IPv6 addresses by router advertisements
//! (RFC 4861, RFC 4862).
//!
//! What has been acquired is durable. It changes only by [`Acquired::apply`], live and in a recovery. Exchanges with
//! servers and routers are volatile: after a crash they begin again.
//!
//! Pure: no I/O, no clock, no randomness. Time here is *real time*: unlike service time it passes during an outage,
//! because leases end then, too.

mod dhcp;
mod slaac;
mod state;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub use state::{Acquired, Advertised, FOREVER, Lease, Record, Router};

use crate::TxFrame;
use crate::link::{Datagram, link_local};
use dhcp::Dhcp;
use slaac::Slaac;

/// The sources of addresses besides the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A DHCP server assigns an IPv4 address.
    pub dhcp: bool,
    /// Router advertisements announce IPv6 prefixes and default routers.
    pub router_advertisements: bool,
}

impl Sources {
    /// Returns whether there are any.
    #[must_use]
    pub fn any(self) -> bool {
        self.dhcp || self.router_advertisements
    }
}

/// The number of steps that one poll takes. A step may make another one due at once: a lease that is granted late has
/// to be renewed, or is over.
const STEPS_AT_ONCE: u32 = 4;

/// What a step of the client may use.
pub struct Context<'a> {
    /// Real time.
    pub now: Duration,
    /// Draws a random number.
    pub random: &'a mut dyn FnMut() -> u32,
    /// Appends a record to the log.
    pub journal: &'a mut dyn FnMut(&Record),
}

/// Acquires addresses for one interface, and keeps them.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    acquired: Acquired,
    dhcp: Option<Dhcp>,
    slaac: Option<Slaac>,
}

impl Client {
    /// Makes a client that continues with the acquired addresses. Those of a source that is not in use any more are
    /// ended by the first [`expire`](Client::expire).
    #[must_use]
    pub fn new(sources: Sources, mac: [u8; 6], acquired: Acquired) -> Client {
        Client {
            mac,
            dhcp: sources.dhcp.then(|| Dhcp::new(mac, &acquired)),
            slaac: sources.router_advertisements.then(|| Slaac::new(mac)),
            acquired,
        }
    }

    /// What has been acquired.
    #[must_use]
    pub fn acquired(&self) -> &Acquired {
        &self.acquired
    }

    /// Addresses with the lengths of their prefixes. The link-local address is one of them if router advertisements are
    /// a source.
    #[must_use]
    pub fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let lease = self.acquired.lease.iter();
        let lease = lease.map(|lease| (IpAddr::V4(lease.address), lease.prefix_bits));
        let own = self.slaac.iter().map(|_| (link_local(self.mac).into(), 64));
        let advertised = self.acquired.prefixes.iter();
        let advertised = advertised.map(|of| (of.address(self.mac).into(), 64));
        lease.chain(advertised).chain(own).collect()
    }

    /// Default routers, at most one of each family.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        let v4 = self.acquired.lease.and_then(|lease| lease.router);
        let v6 = self.acquired.routers.first().map(|router| router.address);
        v4.map(IpAddr::V4)
            .into_iter()
            .chain(v6.map(IpAddr::V6))
            .collect()
    }

    /// Processes a received Ethernet frame. Returns true if nothing else must process it.
    pub fn ingest(&mut self, frame: &[u8], cx: &mut Context<'_>) -> bool {
        let acquired = &mut self.acquired;
        if let Some(slaac) = &mut self.slaac {
            slaac.receive(frame, acquired, cx);
        }
        let Some(dhcp) = &mut self.dhcp else {
            return false;
        };
        dhcp.receive_arp(frame, cx.now);
        let Some(datagram) = Datagram::parse(frame) else {
            return false;
        };
        let is_for_client = datagram.destination.port() == dhcp::CLIENT_PORT;
        if is_for_client && datagram.source_mac != self.mac {
            dhcp.receive(&datagram, acquired, cx);
        }
        is_for_client
    }

    /// Ends what is over, and addresses of a source that is not in use any more.
    pub fn expire(&mut self, cx: &mut Context<'_>) {
        let acquired = &mut self.acquired;
        match &mut self.dhcp {
            Some(dhcp) => dhcp.expire(acquired, cx),
            None if acquired.lease.is_some() => emit(acquired, cx, &Record::LeaseEnded),
            None => {}
        }
        let is_used = self.slaac.is_some();
        let is_over = |at: Duration| !is_used || at <= cx.now;
        let prefixes = acquired.prefixes.iter();
        let prefixes = prefixes.filter(|of| is_over(of.expires_at));
        let prefixes = prefixes.map(|of| Record::AdvertisedEnded(of.prefix));
        let routers = acquired.routers.iter();
        let routers = routers.filter(|of| is_over(of.expires_at));
        let routers = routers.map(|of| Record::RouterEnded(of.address));
        for record in prefixes.chain(routers).collect::<Vec<_>>() {
            emit(acquired, cx, &record);
        }
    }

    /// Ends what is over, and sends what is due. The frames may leave after the next commit.
    pub fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<TxFrame>) {
        for _ in 0..STEPS_AT_ONCE {
            self.expire(cx);
            if let Some(dhcp) = &mut self.dhcp {
                dhcp.poll(&mut self.acquired, cx, out);
            }
            if let Some(slaac) = &mut self.slaac {
                slaac.poll(&mut self.acquired, cx, out);
            }
            if self.next_deadline().is_none_or(|at| at > cx.now) {
                return;
            }
        }
    }

    /// Returns the real time at which [`poll`](Client::poll) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let prefixes = self.acquired.prefixes.iter().map(|of| of.expires_at);
        let routers = self.acquired.routers.iter().map(|of| of.expires_at);
        let dhcp = self.dhcp.as_ref().map(|of| of.deadline(&self.acquired));
        let slaac = self.slaac.as_ref().map(Slaac::deadline);
        let all = prefixes.chain(routers).chain(dhcp).chain(slaac);
        all.filter(|at| *at < FOREVER).min()
    }
}

/// Applies a record and appends it to the log.
fn emit(acquired: &mut Acquired, cx: &mut Context<'_>, record: &Record) {
    acquired.apply(record);
    (cx.journal)(record);
}

/// Returns whether a host on this subnet may have the address.
fn is_host(address: Ipv4Addr, prefix_bits: u8) -> bool {
    let is_unicast = crate::link::is_unicast(address.into()) && address.octets()[0] < 240;
    // RFC 3021: on /31 both addresses are hosts'; a /32 has no other.
    let mask = u32::MAX.checked_shr(prefix_bits.into()).unwrap_or(0);
    let host = u32::from(address) & mask;
    is_unicast && prefix_bits > 0 && (prefix_bits >= 31 || (host != 0 && host != mask))
}
