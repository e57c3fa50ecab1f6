//! Defines the durable state: what the network has assigned.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::link::interface_id;

/// The time of what does not end.
pub const FOREVER: Duration = Duration::MAX;

/// The largest number of prefixes, and of routers, that are kept.
pub(super) const ADVERTISED_MAX: usize = 3;

/// What the network has assigned. All times are real times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    /// The IPv4 address.
    pub lease: Option<Lease>,
    /// The IPv6 prefixes of the link.
    pub prefixes: Vec<Advertised>,
    /// The IPv6 default routers, the one in use first.
    pub routers: Vec<Router>,
}

/// A lease of DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its subnet's prefix.
    pub prefix_bits: u8,
    /// The default router.
    pub router: Option<Ipv4Addr>,
    /// The server that has assigned it.
    pub server: Ipv4Addr,
    /// The Ethernet address from which the server's answer came: its own, or a router's.
    pub server_mac: [u8; 6],
    /// The time at which that server is asked to extend it (T1 of RFC 2131, section 4.4.5).
    pub renew_at: Duration,
    /// The time at which any server is asked (T2).
    pub rebind_at: Duration,
    /// The time at which it ends.
    pub expires_at: Duration,
}

/// An advertised prefix of 64 bits, in which the interface has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertised {
    /// The prefix.
    pub prefix: Ipv6Addr,
    /// The time at which the address becomes invalid.
    pub expires_at: Duration,
}

impl Advertised {
    /// Returns the address: the prefix and the modified EUI-64 of the Ethernet address (RFC 4862, section 5.5.3 d), so
    /// that it is the same after every restart, and on both nodes of a pair.
    #[must_use]
    pub fn address(&self, mac: [u8; 6]) -> Ipv6Addr {
        let mut octets = self.prefix.octets();
        octets[8..].copy_from_slice(&interface_id(mac));
        octets.into()
    }
}

/// A default router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its link-local address.
    pub address: Ipv6Addr,
    /// The time at which it is no default router any more.
    pub expires_at: Duration,
}

/// A change of [`Acquired`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A lease has been granted or extended.
    Leased(Lease),
    /// The lease has ended.
    LeaseEnded,
    /// A prefix has been advertised, or its lifetime has changed.
    Advertised(Advertised),
    /// A prefix is no longer valid.
    AdvertisedEnded(Ipv6Addr),
    /// A default router has been advertised, or its lifetime has changed.
    Router(Router),
    /// A router is no default router any more.
    RouterEnded(Ipv6Addr),
}

impl Acquired {
    /// Applies a record. Only this function changes the state.
    pub fn apply(&mut self, record: &Record) {
        let Acquired {
            lease,
            prefixes,
            routers,
        } = self;
        match *record {
            Record::Leased(granted) => *lease = Some(granted),
            Record::LeaseEnded => *lease = None,
            Record::Advertised(advertised) => {
                let known = prefixes.iter_mut();
                let mut known = known.filter(|of| of.prefix == advertised.prefix);
                match known.next() {
                    Some(known) => *known = advertised,
                    None => prefixes.push(advertised),
                }
                prefixes.truncate(ADVERTISED_MAX);
            }
            Record::AdvertisedEnded(prefix) => prefixes.retain(|of| of.prefix != prefix),
            Record::Router(router) => {
                let known = routers.iter_mut();
                let mut known = known.filter(|of| of.address == router.address);
                match known.next() {
                    Some(known) => *known = router,
                    None => routers.push(router),
                }
                routers.truncate(ADVERTISED_MAX);
            }
            Record::RouterEnded(address) => routers.retain(|of| of.address != address),
        }
    }
}
