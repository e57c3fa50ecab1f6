//! Checks the keys of `[partner]` for the arbiter `etcd`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Error;
use super::check::Check;
use super::partner::Written;

/// The connection to etcd, and the names of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `etcd`: URLs of its members, without a slash at the end.
    pub endpoints: Vec<String>,
    /// `etcd_prefix`: the prefix of the pair's keys; it ends with a slash.
    pub prefix: String,
    /// `etcd_ca`: the certificates that must have signed etcd's own.
    pub ca: Option<PathBuf>,
    /// `etcd_certificate` and `etcd_key`: the certificate by which this node authenticates.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `lease_seconds`: the time for which this node is admitted without a renewal.
    pub lease: Duration,
}

/// The shortest lease is that of etcd itself (its election timeout).
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 2..=60;
const LEASE_SECONDS_DEFAULT: u64 = 5;

impl Written {
    /// Returns the first given key that is only for this arbiter.
    pub(super) fn key_of_etcd(&self) -> Option<&'static str> {
        let keys = [
            ("partner.etcd", self.etcd.is_some()),
            ("partner.etcd_prefix", self.etcd_prefix.is_some()),
            ("partner.etcd_ca", self.etcd_ca.is_some()),
            ("partner.etcd_certificate", self.etcd_certificate.is_some()),
            ("partner.etcd_key", self.etcd_key.is_some()),
            ("partner.lease_seconds", self.lease_seconds.is_some()),
        ];
        keys.into_iter()
            .find(|(_, there)| *there)
            .map(|(key, _)| key)
    }
}

impl Check<'_> {
    pub(super) fn etcd(&self, written: &Written) -> Result<Etcd, Error> {
        let endpoints = written.etcd.as_deref().unwrap_or_default();
        if endpoints.is_empty() {
            let remedy = "name its members, as etcd = [\"https://10.0.0.1:2379\"]";
            return self.fail("partner.etcd", "is missing", remedy);
        }
        for url in endpoints {
            self.endpoint(url, written.etcd_ca.is_some())?;
        }
        let prefix = written.etcd_prefix.as_deref().unwrap_or_default();
        if prefix.trim_matches('/').is_empty() || !prefix.is_ascii() {
            return self.fail(
                "partner.etcd_prefix",
                "names nothing",
                "name the pair, the same in both nodes' files, such as \"/outlast/office\"",
            );
        }
        let certificate = match (&written.etcd_certificate, &written.etcd_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((
                self.path("partner.etcd_certificate", certificate)?,
                self.path("partner.etcd_key", key)?,
            )),
            _ => {
                return self.fail(
                    "partner.etcd_certificate",
                    "and etcd_key belong together, and one is missing",
                    "set both, or neither",
                );
            }
        };
        let lease_seconds = written.lease_seconds.unwrap_or(LEASE_SECONDS_DEFAULT);
        if !LEASE_SECONDS.contains(&lease_seconds) {
            return self.fail(
                "partner.lease_seconds",
                format!("{lease_seconds} is out of range"),
                "use 2 to 60",
            );
        }
        let ca = written.etcd_ca.as_deref();
        Ok(Etcd {
            endpoints: endpoints.iter().map(|url| bare(url).to_owned()).collect(),
            prefix: format!("{}/", prefix.trim_end_matches('/')),
            ca: ca.map(|ca| self.path("partner.etcd_ca", ca)).transpose()?,
            certificate,
            lease: Duration::from_secs(lease_seconds),
        })
    }

    /// Checks a URL. Without TLS a man in the middle could admit a node, so only loopback addresses are allowed.
    fn endpoint(&self, url: &str, has_ca: bool) -> Result<(), Error> {
        let plain = url.strip_prefix("http://").map(bare);
        let is_local = |authority: &str| {
            let host = authority
                .rsplit_once(':')
                .map_or(authority, |(host, _)| host);
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        };
        let secret = url.strip_prefix("https://").map(bare);
        let authority = plain.or(secret).unwrap_or_default();
        if authority.is_empty() || authority.contains('/') {
            return self.fail(
                "partner.etcd",
                format!("{url:?} is no URL of a member"),
                "write them as \"https://10.0.0.1:2379\"",
            );
        }
        if plain.is_some_and(|authority| !is_local(authority)) {
            return self.fail(
                "partner.etcd",
                format!("{url:?} is reached without TLS"),
                "use https; http is for a member on this machine",
            );
        }
        if secret.is_some() && !has_ca {
            return self.fail(
                "partner.etcd_ca",
                "is missing, so another server could not be distinguished from etcd",
                "name the file with the certificate (PEM) that has signed etcd's",
            );
        }
        Ok(())
    }
}

fn bare(url: &str) -> &str {
    url.trim_end_matches('/')
}
