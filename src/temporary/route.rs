//! Finds a subnet that nothing on this machine uses.

use std::net::Ipv4Addr;

use anyhow::Context as _;

/// Length of a prefix with two host addresses.
const PREFIX_BITS: u8 = 30;
/// The ranges that are searched: RFC 1918, and the one for benchmarks (RFC 2544) if a VPN has taken the others.
const PLACES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 77, 0, 0),
    Ipv4Addr::new(192, 168, 77, 0),
    Ipv4Addr::new(172, 30, 77, 0),
    Ipv4Addr::new(198, 18, 77, 0),
];
/// The number of subnets of one range.
const SUBNETS: u32 = 64;

/// The addresses of the server and of this machine on the TAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    /// The server.
    pub server: Ipv4Addr,
    /// This machine.
    pub host: Ipv4Addr,
    /// Length of their prefix.
    pub prefix_bits: u8,
}

impl Subnet {
    /// The first subnet to which no route of this network namespace leads, except the default route.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn free() -> anyhow::Result<Subnet> {
        let routes = std::fs::read_to_string("/proc/net/route")
            .context("/proc/net/route cannot be read: is /proc mounted?")?;
        let routes = parse(&routes);
        first_free(&routes).context(
            "no private subnet is free on this machine: write a configuration (docs/lab.md), or use `outlast lab`",
        )
    }
}

/// Destination and mask.
type Route = (u32, u32);

/// Parses /proc/net/route (proc_net(5)): the second column is the destination, the eighth the mask, in network byte
/// order as the machine reads it.
fn parse(text: &str) -> Vec<Route> {
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        Some((word(columns.get(1)?)?, word(columns.get(7)?)?))
    };
    text.lines().skip(1).filter_map(route).collect()
}

fn first_free(routes: &[Route]) -> Option<Subnet> {
    let size = 1 << (32 - PREFIX_BITS);
    let mask = u32::MAX << (32 - PREFIX_BITS);
    let overlaps = |base: u32, (to, its): Route| its != 0 && (base ^ to) & (mask & its) == 0;
    PLACES
        .iter()
        .flat_map(|place| (0..SUBNETS).map(move |index| u32::from(*place) + index * size))
        .find(|base| !routes.iter().any(|route| overlaps(*base, *route)))
        .map(|base| Subnet {
            server: (base + 1).into(),
            host: (base + 2).into(),
            prefix_bits: PREFIX_BITS,
        })
}

#[cfg(test)]
mod tests;
