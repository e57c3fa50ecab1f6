//! Calls etcd's v3 API through its JSON gateway: leases, transactions, ranges.
//!
//! In this JSON 64-bit numbers are text, keys and values are base64, and fields that are zero are omitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::config::Etcd;

/// The longest answer.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// A client of one etcd cluster.
#[derive(Clone, Debug)]
pub(super) struct Api {
    agent: Agent,
    endpoints: Arc<[String]>,
    /// The index of the endpoint that answered last.
    at: Arc<AtomicUsize>,
}

/// A key with its value and its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Pair {
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub value: Vec<u8>,
    #[serde(default, deserialize_with = "number")]
    pub create_revision: i64,
    #[serde(default, deserialize_with = "number")]
    pub mod_revision: i64,
    #[serde(default, deserialize_with = "number")]
    pub lease: i64,
}

/// The result of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Its comparisons were true.
    pub succeeded: bool,
    /// The revision after it.
    pub revision: i64,
    /// The results of its ranges, concatenated.
    pub found: Vec<Pair>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    revision: i64,
}

#[derive(Deserialize)]
struct LeaseAnswer {
    #[serde(rename = "ID", default, deserialize_with = "number")]
    id: i64,
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: i64,
    #[serde(default)]
    error: String,
}

/// An answer of a streaming method.
#[derive(Deserialize)]
struct Streamed<T> {
    result: T,
}

#[derive(Deserialize)]
struct RangeAnswer {
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Deserialize)]
struct TxnAnswer {
    header: Header,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<OneOf>,
}

#[derive(Deserialize)]
struct OneOf {
    response_range: Option<RangeAnswer>,
}

impl Api {
    /// Makes a client. `timeout`: the longest time that one request may take.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub(super) fn new(etcd: &Etcd, timeout: Duration) -> anyhow::Result<Api> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // A proxy from the environment must not be used.
            .proxy(None);
        if etcd.endpoints.iter().any(|url| url.starts_with("https:")) {
            config = config.tls_config(tls(etcd)?);
        }
        Ok(Api {
            agent: config.build().into(),
            endpoints: etcd.endpoints.clone().into(),
            at: Arc::default(),
        })
    }

    /// Sends one request; tries each endpoint once.
    fn call<T: DeserializeOwned>(&self, method: &str, body: &Value) -> anyhow::Result<T> {
        let first = self.at.load(Ordering::Relaxed);
        let mut failed = None;
        for number in (0..self.endpoints.len()).map(|n| (first + n) % self.endpoints.len()) {
            let endpoint = &self.endpoints[number];
            match self.call_at(endpoint, method, body) {
                Ok(answer) => {
                    self.at.store(number, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => failed = Some(error.context(format!("etcd at {endpoint}"))),
            }
        }
        Err(failed.unwrap_or_else(|| anyhow::anyhow!("no endpoint of etcd is known")))
    }

    fn call_at<T: DeserializeOwned>(
        &self,
        endpoint: &str,
        method: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let url = format!("{endpoint}/v3/{method}");
        let request = self.agent.post(&url).content_type("application/json");
        let mut answer = request.send(body.to_string())?;
        let status = answer.status();
        let mut body = answer.body_mut().with_config();
        body = body.limit(ANSWER_MAX_BYTES);
        let text = body.read_to_string()?;
        anyhow::ensure!(status.is_success(), "{method}: {status}: {}", text.trim());
        serde_json::from_str(&text).with_context(|| format!("{method}: not understood"))
    }

    /// Requests a new lease; returns its id and its duration.
    pub(super) fn grant(&self, lease: Duration) -> anyhow::Result<(i64, Duration)> {
        let body = json!({ "TTL": lease.as_secs().to_string() });
        let answer: LeaseAnswer = self.call("lease/grant", &body)?;
        anyhow::ensure!(answer.id != 0, "etcd grants no lease: {}", answer.error);
        Ok((answer.id, seconds(answer.ttl)))
    }

    /// Renews a lease; `None`: it has ended.
    pub(super) fn keep_alive(&self, id: i64) -> anyhow::Result<Option<Duration>> {
        let body = json!({ "ID": id.to_string() });
        let answer: Streamed<LeaseAnswer> = self.call("lease/keepalive", &body)?;
        let left = seconds(answer.result.ttl);
        Ok((!left.is_zero()).then_some(left))
    }

    /// Ends a lease, and deletes the keys attached to it.
    pub(super) fn revoke(&self, id: i64) -> anyhow::Result<()> {
        let body = json!({ "ID": id.to_string() });
        self.call::<Value>("lease/revoke", &body).map(drop)
    }

    /// Returns all keys with this prefix.
    pub(super) fn beneath(&self, prefix: &str) -> anyhow::Result<Vec<Pair>> {
        let mut end = prefix.as_bytes().to_vec();
        // The end of the range is the first key without the prefix, which ends with a slash.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let body = json!({ "key": encode(prefix), "range_end": BASE64.encode(end) });
        let answer: RangeAnswer = self.call("kv/range", &body)?;
        Ok(answer.kvs)
    }

    /// Atomically executes all of `then` if all of `compare` is true, else all of `otherwise`.
    pub(super) fn transact(
        &self,
        compare: &[Value],
        then: &[Value],
        otherwise: &[Value],
    ) -> anyhow::Result<Outcome> {
        let body = json!({ "compare": compare, "success": then, "failure": otherwise });
        let answer: TxnAnswer = self.call("kv/txn", &body)?;
        let ranges = answer.responses.into_iter();
        let found = ranges
            .filter_map(|one| one.response_range)
            .flat_map(|range| range.kvs)
            .collect();
        Ok(Outcome {
            succeeded: answer.succeeded,
            revision: answer.header.revision,
            found,
        })
    }
}

/// Compares: the key was created in this revision; 0: it does not exist.
pub(super) fn is_of_revision(key: &str, revision: i64) -> Value {
    let revision = revision.to_string();
    json!({ "key": encode(key), "target": "CREATE", "result": "EQUAL", "create_revision": revision })
}

/// Compares: the key was last written in this revision.
pub(super) fn is_unchanged(key: &str, revision: i64) -> Value {
    let revision = revision.to_string();
    json!({ "key": encode(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision })
}

/// Writes a key. `lease`: the key is deleted with it; 0: with none.
pub(super) fn put(key: &str, value: &str, lease: i64) -> Value {
    let put = json!({ "key": encode(key), "value": encode(value), "lease": lease.to_string() });
    json!({ "request_put": put })
}

pub(super) fn get(key: &str) -> Value {
    json!({ "request_range": { "key": encode(key) } })
}

pub(super) fn delete(key: &str) -> Value {
    json!({ "request_delete_range": { "key": encode(key) } })
}

fn tls(etcd: &Etcd) -> anyhow::Result<TlsConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    if let Some(ca) = &etcd.ca {
        let path = ca.display();
        let pem = std::fs::read(ca).with_context(|| format!("partner.etcd_ca: {path}"))?;
        let items = ureq::tls::parse_pem(&pem).collect::<Result<Vec<_>, _>>();
        let items = items.with_context(|| format!("partner.etcd_ca: {path}"))?;
        let certificates: Vec<Certificate<'static>> = items
            .into_iter()
            .filter_map(|item| match item {
                ureq::tls::PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            })
            .collect();
        anyhow::ensure!(
            !certificates.is_empty(),
            "partner.etcd_ca: {path} holds no certificate (PEM)"
        );
        tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
    }
    if let Some((certificate, key)) = &etcd.certificate {
        let read = |path: &std::path::Path, of: &str| {
            std::fs::read(path).with_context(|| format!("{of}: {}", path.display()))
        };
        let pem = read(certificate, "partner.etcd_certificate")?;
        let chain = Certificate::from_pem(&pem).context("partner.etcd_certificate")?;
        let pem = read(key, "partner.etcd_key")?;
        let key = PrivateKey::from_pem(&pem).context("partner.etcd_key")?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&[chain], key)));
    }
    Ok(tls.build())
}

fn encode(text: &str) -> String {
    BASE64.encode(text)
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text).map_err(serde::de::Error::custom)
}

/// Parses a 64-bit number, which is text; a newer gateway might write it as a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().map_err(serde::de::Error::custom),
        Value::Number(number) => number
            .as_i64()
            .ok_or_else(|| serde::de::Error::custom("a number of more than 64 bits")),
        other => Err(serde::de::Error::custom(format!("{other} is no number"))),
    }
}
