//! Checks `[network]`: the TAP device, the MAC address, the IP addresses and the gateways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use outlast_stack::addressing::Sources;

use super::check::Check;
use super::{Cidr, Error, Network, file};

/// The smallest MTU: IPv6 requires it of every link (RFC 8200, 5).
const MTU_MIN: u16 = 1280;
/// Largest MTU of a TAP device: 65535 less the Ethernet header.
const MTU_MAX: u16 = 65521;

const ADDRESSES: &str = "network.addresses";
/// The words for sources of addresses.
const DHCP: &str = "dhcp";
const ROUTER_ADVERTISEMENTS: &str = "router-advertisements";

impl Check<'_> {
    pub(super) fn network(&self, network: &file::Network, name: &str) -> Result<Network, Error> {
        // IFNAMSIZ with its closing zero, and the characters that the kernel's dev_valid_name refuses.
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
        let tap = &network.tap;
        if tap.is_empty() || tap.len() > 15 || tap == "." || tap == ".." || tap.contains(bad) {
            return self.fail(
                "network.tap",
                format!("{tap:?} is not a device name"),
                "name a TAP device, such as \"tap0\"",
            );
        }
        let mac = match &network.mac {
            Some(text) => self.mac(text)?,
            None => derived_mac(name),
        };
        let mtu = self.number("network.mtu", network.mtu, MTU_MIN, MTU_MAX)?;
        let ttl = self.number("network.ttl", network.ttl, 1, u8::MAX)?;
        let dscp = self.number("network.dscp", network.dscp, 0, 63)?;
        let (addresses, sources) = self.addresses(&network.addresses)?;
        self.gateways_are_given(&network.gateway, sources)?;
        let (gateway_v4, gateway_v6) = self.gateways(&network.gateway, &addresses)?;
        Ok(Network {
            tap: tap.clone(),
            offload: network.offload,
            mac,
            addresses,
            sources,
            gateway_v4,
            gateway_v6,
            mtu,
            ttl,
            dscp,
        })
    }

    fn mac(&self, text: &str) -> Result<[u8; 6], Error> {
        let remedy = "write six two-digit hexadecimal numbers, such as \"02:00:00:00:00:10\"";
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            match parts.next() {
                Some(part) if part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()) => {
                    *byte = u8::from_str_radix(part, 16).unwrap_or_default();
                }
                _ => {
                    return self.fail(
                        "network.mac",
                        format!("{text:?} is not a MAC address"),
                        remedy,
                    );
                }
            }
        }
        if parts.next().is_some() {
            return self.fail(
                "network.mac",
                format!("{text:?} is not a MAC address"),
                remedy,
            );
        }
        // IEEE 802: the lowest bit of the first byte marks a group address.
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return self.fail(
                "network.mac",
                format!("{text} is not the address of one station"),
                "use a unicast address, such as \"02:00:00:00:00:10\"",
            );
        }
        Ok(mac)
    }

    fn addresses(&self, texts: &[String]) -> Result<(Vec<Cidr>, Sources), Error> {
        if texts.is_empty() {
            return self.fail(
                ADDRESSES,
                "is empty",
                "give at least one address, such as \"10.77.0.1/24\", or \"dhcp\"",
            );
        }
        let has = |source: &str| texts.iter().filter(|text| *text == source).count();
        let (dhcp, advertised) = (has(DHCP), has(ROUTER_ADVERTISEMENTS));
        if dhcp > 1 || advertised > 1 {
            return self.fail(ADDRESSES, "names a source twice", "remove one of them");
        }
        let sources = Sources {
            dhcp: dhcp > 0,
            router_advertisements: advertised > 0,
        };
        let is_given = |text: &&String| *text != DHCP && *text != ROUTER_ADVERTISEMENTS;
        let given: Vec<&String> = texts.iter().filter(is_given).collect();
        let addresses = self.given_addresses(&given)?;
        if sources.dhcp && addresses.iter().any(|of| of.address.is_ipv4()) {
            return self.fail(
                ADDRESSES,
                "has an IPv4 address besides \"dhcp\"",
                "remove one of them",
            );
        }
        // Addresses by advertisements: the link-local one, and three.
        let most = outlast_stack::MAX_ADDRESSES - dhcp - 4 * advertised;
        if addresses.len() > most {
            return self.fail(
                ADDRESSES,
                "has too many addresses",
                &format!("use {most} at most"),
            );
        }
        Ok((addresses, sources))
    }

    /// Checks that no gateway is given for a family whose gateway the network names.
    fn gateways_are_given(&self, texts: &[String], sources: Sources) -> Result<(), Error> {
        let is_named = |text: &String| match text.parse() {
            Ok(IpAddr::V4(_)) => sources.dhcp,
            Ok(IpAddr::V6(_)) => sources.router_advertisements,
            Err(_) => false,
        };
        match texts.iter().find(|text| is_named(text)) {
            Some(gateway) => self.fail(
                "network.gateway",
                format!("{gateway} is given, but the network names the gateway"),
                "remove it, or give the address in network.addresses",
            ),
            None => Ok(()),
        }
    }

    fn given_addresses(&self, texts: &[&String]) -> Result<Vec<Cidr>, Error> {
        const KEY: &str = ADDRESSES;
        let mut addresses: Vec<Cidr> = Vec::new();
        for text in texts {
            let parsed = text
                .split_once('/')
                .and_then(|(address, bits)| Some((address.parse().ok()?, bits.parse().ok()?)));
            let Some((address, prefix_bits)) = parsed else {
                return self.fail(
                    KEY,
                    format!("{text:?} is not an address with a prefix length"),
                    "write it as \"10.77.0.1/24\" or \"fd77::1/64\", or use \"dhcp\" or \"router-advertisements\"",
                );
            };
            let cidr = Cidr {
                address,
                prefix_bits,
            };
            let bits = if address.is_ipv4() { 32 } else { 128 };
            if prefix_bits == 0 || prefix_bits > bits {
                return self.fail(
                    KEY,
                    format!("{text:?} has an impossible prefix length"),
                    &format!("use /1 to /{bits}"),
                );
            }
            if let Some(why) = not_a_host(&cidr) {
                return self.fail(
                    KEY,
                    format!("{text:?} is {why}"),
                    "use an address a host may have",
                );
            }
            if addresses.iter().any(|other| other.address == address) {
                return self.fail(
                    KEY,
                    format!("{address} appears twice"),
                    "remove one of them",
                );
            }
            addresses.push(cidr);
        }
        Ok(addresses)
    }

    #[allow(clippy::type_complexity)]
    fn gateways(
        &self,
        texts: &[String],
        addresses: &[Cidr],
    ) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Error> {
        const KEY: &str = "network.gateway";
        let (mut v4, mut v6) = (None, None);
        for text in texts {
            let Ok(gateway) = text.parse::<IpAddr>() else {
                return self.fail(
                    KEY,
                    format!("{text:?} is not an address"),
                    "write it without a prefix length, as \"10.77.0.254\"",
                );
            };
            // RFC 4861, 6.1.2: routers are usually known by their link-local address, which is on every IPv6 link.
            let link_local = matches!(gateway, IpAddr::V6(a) if a.is_unicast_link_local());
            let subnet = addresses.iter().find(|cidr| cidr.contains(gateway));
            if subnet.is_none() && !(link_local && addresses.iter().any(|c| c.address.is_ipv6())) {
                return self.fail(
                    KEY,
                    format!("{gateway} is on no subnet of network.addresses"),
                    "name a gateway on one of these subnets, or correct the prefix length",
                );
            }
            if addresses.iter().any(|cidr| cidr.address == gateway) {
                return self.fail(
                    KEY,
                    format!("{gateway} is the server's own address"),
                    "name the router's address",
                );
            }
            let prefix_bits = subnet.map_or(64, |cidr| cidr.prefix_bits);
            if let Some(why) = not_a_host(&Cidr {
                address: gateway,
                prefix_bits,
            }) {
                return self.fail(
                    KEY,
                    format!("{gateway} is {why}"),
                    "name the router's address",
                );
            }
            let taken = match gateway {
                IpAddr::V4(address) => v4.replace(address).is_some(),
                IpAddr::V6(address) => v6.replace(address).is_some(),
            };
            if taken {
                return self.fail(
                    KEY,
                    "has two addresses of one family",
                    "keep one IPv4 and one IPv6 address",
                );
            }
        }
        Ok((v4, v6))
    }
}

/// The reason why a host cannot have this address, if any.
fn not_a_host(cidr: &Cidr) -> Option<&'static str> {
    let address = cidr.address;
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(v4) => {
            if v4.octets()[0] == 0 || v4.octets()[0] >= 240 {
                return Some("a reserved address");
            }
            // RFC 3021: on /31 both addresses are hosts'; a /32 has no other.
            if cidr.prefix_bits < 31 {
                let host = u32::from(v4) & (u32::MAX >> cidr.prefix_bits);
                if host == 0 {
                    return Some("the network's own address");
                }
                if host == u32::MAX >> cidr.prefix_bits {
                    return Some("the network's broadcast address");
                }
            }
            None
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
        IpAddr::V6(_) => None,
    }
}

/// A locally administered unicast address that is the same for the same name at every start: FNV-1a of the name.
fn derived_mac(name: &str) -> [u8; 6] {
    let hash = outlast_fsa::fnv::fnv1a(name.bytes());
    let [_, _, _, b, c, d, e, f] = hash.to_be_bytes();
    // IEEE 802: bit 1 of the first byte marks local administration.
    [0x02, b, c, d, e, f]
}
