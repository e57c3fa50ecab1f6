//! Defines the structure of the configuration file: parsed TOML with the correct types and no unknown keys.

use std::path::Path;

use serde::{Deserialize, Deserializer, de};

use super::{Error, explain, limits, observing, partner};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub server: Server,
    pub network: Network,
    pub nvram: Nvram,
    #[serde(default)]
    pub share: Vec<Share>,
    #[serde(default)]
    pub limits: limits::Written,
    #[serde(default)]
    pub discovery: super::Discovery,
    #[serde(default)]
    pub log: observing::WrittenLog,
    #[serde(default)]
    pub metrics: observing::WrittenMetrics,
    pub partner: Option<partner::Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub name: String,
    pub users_file: String,
    pub control_socket: String,
    pub min_protocol: String,
    pub max_protocol: String,
    pub signing: String,
    pub encryption: String,
    pub oplocks: String,
    pub standby: bool,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            name: "OUTLAST".into(),
            users_file: "/etc/outlast/users".into(),
            control_socket: "/run/outlast/control.sock".into(),
            min_protocol: "2.0.2".into(),
            max_protocol: "3.1.1".into(),
            signing: "enabled".into(),
            encryption: "enabled".into(),
            oplocks: "on".into(),
            standby: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub tap: String,
    #[serde(default = "yes")]
    pub offload: bool,
    pub mac: Option<String>,
    pub addresses: Vec<String>,
    #[serde(default, deserialize_with = "one_or_more")]
    pub gateway: Vec<String>,
    #[serde(default = "default_mtu")]
    pub mtu: i64,
    #[serde(default = "default_ttl")]
    pub ttl: i64,
    #[serde(default)]
    pub dscp: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nvram {
    pub path: String,
    #[serde(default = "default_size")]
    pub size: String,
    #[serde(default = "default_durability")]
    pub durability: String,
    pub sink: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    pub name: String,
    pub path: String,
    #[serde(default)]
    pub comment: String,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub guest: bool,
    #[serde(default)]
    pub users: Vec<String>,
    #[serde(default)]
    pub run_as: String,
    pub encryption: Option<String>,
    #[serde(default)]
    pub continuous_availability: bool,
}

fn yes() -> bool {
    true
}

fn default_ttl() -> i64 {
    64
}

fn default_mtu() -> i64 {
    1500
}

fn default_size() -> String {
    "256MiB".into()
}

fn default_durability() -> String {
    "process".into()
}

/// A string, or a list of strings.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an address, or a list of one IPv4 and one IPv6 address")
        }

        fn visit_str<E: de::Error>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = list.next_element()? {
                all.push(one);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// Reads the text.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|error| explain::explain(path, text, error))
}
