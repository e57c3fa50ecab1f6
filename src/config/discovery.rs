//! `[discovery]`: how clients find the server on their link.

use serde::Deserialize;

/// `[discovery]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// `mdns`: it answers Multicast DNS. Default false.
    pub mdns: bool,
    /// `netbios`: it answers the NetBIOS name service. Default false.
    pub netbios: bool,
}
