//! Warnings about a configuration that can be served, but probably contains a mistake.

use std::net::IpAddr;

use super::check::Check;
use super::{Cidr, Config, Error, Level, Share};
use crate::users::Users;

/// An address of one of the machine's own interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address, and its subnet.
    pub cidr: Cidr,
}

/// The machine's own addresses.
pub(super) fn host_addresses() -> std::io::Result<Vec<HostAddress>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let address = |interface: if_addrs::Interface| HostAddress {
        cidr: Cidr {
            address: interface.ip(),
            prefix_bits: match &interface.addr {
                if_addrs::IfAddr::V4(v4) => v4.prefixlen,
                if_addrs::IfAddr::V6(v6) => v6.prefixlen,
            },
        },
        interface: interface.name,
    };
    Ok(interfaces.into_iter().map(address).collect())
}

impl Config {
    /// Probable mistakes, one line each. For shares see [`Config::missing_shares`].
    pub fn warnings(&self, users: &Users) -> Vec<Error> {
        // Without the machine's addresses there is no warning about them.
        let host = host_addresses().unwrap_or_default();
        let mut all = self.advice_on_users(users);
        all.extend(self.advice_on_guests());
        all.extend(self.advice_on_addresses(&host));
        all
    }

    /// Shares whose directory is missing or cannot be read: a mistake, or a disk that is not mounted yet.
    pub fn missing_shares(&self) -> Vec<Error> {
        let shares = self.shares.iter();
        shares
            .filter_map(|share| self.missing_share(share))
            .collect()
    }

    /// The same for one share.
    pub fn missing_share(&self, share: &Share) -> Option<Error> {
        Check::of(self).share_directory(share).err()
    }

    pub(super) fn advice_on_users(&self, users: &Users) -> Vec<Error> {
        let check = Check::of(self);
        let mut all = Vec::new();
        if users.iter().next().is_none() && !self.shares.iter().any(|share| share.guest) {
            all.push(check.error(
                "server.users_file",
                format!(
                    "{} names no user and no share admits guests: no client can log in",
                    self.server.users_file.display()
                ),
                "add one with `outlast user add NAME`",
            ));
        }
        for share in &self.shares {
            for name in share.users.iter().filter(|name| !users.contains(name)) {
                all.push(check.error(
                    &format!("share {:?}.users", share.name),
                    format!("there is no user {name:?}"),
                    "correct the name, or add the user with `outlast user add NAME`",
                ));
            }
        }
        all
    }

    /// Guests have no key, so they can neither sign nor encrypt.
    pub(super) fn advice_on_guests(&self) -> Vec<Error> {
        let check = Check::of(self);
        let signing = self.server.signing == Level::Required;
        let shares = self
            .shares
            .iter()
            .filter(|share| share.guest && (signing || share.encryption == Level::Required));
        let advice = |share: &Share| {
            check.error(
                &format!("share {:?}.guest", share.name),
                "a guest has no key, and signing or encryption is required: no guest can log in",
                "set guest to false, or require less",
            )
        };
        shares.map(advice).collect()
    }

    /// Warns if the TAP has addresses on the machine's side, and the server is on none of their subnets: they do not
    /// reach each other.
    pub(super) fn advice_on_addresses(&self, host: &[HostAddress]) -> Vec<Error> {
        let check = Check::of(self);
        let is_link_local = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let mut all = Vec::new();
        for own in &self.network.addresses {
            let on_tap = host.iter().filter(|of| {
                of.interface == self.network.tap
                    && of.cidr.address.is_ipv4() == own.address.is_ipv4()
                    && !is_link_local(of.cidr.address)
            });
            let nets: Vec<Cidr> = on_tap.map(|of| of.cidr).collect();
            if !nets.is_empty() && !nets.iter().any(|net| net.contains(own.address)) {
                let nets: Vec<String> = nets.iter().map(Cidr::to_string).collect();
                all.push(check.error(
                    "network.addresses",
                    format!(
                        "{} is outside the network of {}, {}",
                        own.address,
                        self.network.tap,
                        nets.join(", ")
                    ),
                    "use an address of that network, or route to this one",
                ));
            }
        }
        all
    }
}
