//! `[discovery]`: how clients find the server on their link.

use serde::Deserialize;

use super::check::Check;
use super::{Error, Network};

/// `[discovery]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// `mdns`: it answers Multicast DNS. Default false.
    pub mdns: bool,
    /// `netbios`: it answers the NetBIOS name service. Default false.
    pub netbios: bool,
}

impl Check<'_> {
    /// Checks that the addresses are known from the beginning: the responders announce those of the configuration.
    pub(super) fn discovery(&self, discovery: Discovery, network: &Network) -> Result<(), Error> {
        if network.sources.any() && (discovery.mdns || discovery.netbios) {
            return self.fail(
                "discovery",
                "announces addresses of the configuration only, and network.addresses names a source of others",
                "switch it off, or give the addresses",
            );
        }
        Ok(())
    }
}
