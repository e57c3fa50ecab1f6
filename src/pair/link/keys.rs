//! Authenticates the nodes on the interconnect: each node has a key of its own, and knows the other one's certificate.
//! No other certificate is accepted, and no authority exists: `outlast pair init` makes both keys at once.

use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::pair::role::Nodes;

/// The TLS configuration of one node, as client and as server.
#[derive(Clone, Debug)]
pub struct Keys {
    /// For the node that serves.
    pub client: Arc<ClientConfig>,
    /// For the node that stands by.
    pub server: Arc<ServerConfig>,
    /// The name in the other node's certificate.
    pub partner: ServerName<'static>,
}

/// Returns the name of a node in its certificate (RFC 6761, 6.4: no host on a network has it).
fn name_of(node: &str) -> String {
    format!("{}.outlast.invalid", node.to_ascii_lowercase())
}

/// Makes a file for each node, which only its owner can read: `node-NAME.pem` in `directory`. Returns their names.
///
/// # Errors
/// A file cannot be made, or already exists.
pub fn make(directory: &Path, nodes: [&str; 2]) -> anyhow::Result<[PathBuf; 2]> {
    let paths = nodes.map(|node| directory.join(format!("node-{node}.pem")));
    for path in &paths {
        ensure!(
            path.symlink_metadata().is_err(),
            "{} is there already: a pair in use needs the keys it has; name another directory, or remove it",
            path.display()
        );
    }
    let [first, second] = nodes.map(pair_of_keys);
    let (first, second) = (first?, second?);
    let texts = [
        [&*first.1, &first.0, &second.0],
        [&*second.1, &second.0, &first.0],
    ];
    for (path, text) in paths.iter().zip(texts) {
        write_private(path, &text.concat()).with_context(|| path.display().to_string())?;
    }
    Ok(paths)
}

/// Makes a certificate and its key, as PEM.
fn pair_of_keys(node: &str) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate().context("no key can be made")?;
    let mut params = CertificateParams::new(vec![name_of(node)])?;
    params.distinguished_name = DistinguishedName::new();
    let title = format!("Outlast node {node}");
    params.distinguished_name.push(DnType::CommonName, title);
    let certificate = params
        .self_signed(&key)
        .context("no certificate can be made")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

impl Keys {
    /// Reads a node's file: its key, its certificate, and the other node's.
    ///
    /// # Errors
    /// The file cannot be read, other accounts can read it, or it belongs to other nodes.
    pub fn load(path: &Path, nodes: &Nodes) -> anyhow::Result<Keys> {
        let found = std::fs::metadata(path)
            .with_context(|| format!("{}; `outlast pair init` makes it", path.display()))?;
        let mode = found.mode() & 0o777;
        ensure!(
            mode & 0o077 == 0,
            "{}: its mode is {mode:03o}, but it holds a key: chmod 600 it",
            path.display()
        );
        let keys = Keys::read(path, nodes);
        keys.with_context(|| format!("{}: `outlast pair init` makes another", path.display()))
    }

    fn read(path: &Path, nodes: &Nodes) -> anyhow::Result<Keys> {
        let key = PrivateKeyDer::from_pem_file(path).context("no key is in it")?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)?.collect();
        let [own, partner]: [CertificateDer<'static>; 2] = certificates?
            .try_into()
            .map_err(|_| anyhow::anyhow!("it has to hold two certificates, this node's first"))?;
        let mut known = RootCertStore::empty();
        known.add(partner)?;
        let known = Arc::new(known);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(known.clone(), provider.clone()).build()?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.clone()], key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(known)
            .with_client_auth_cert(vec![own], key)?;
        Ok(Keys {
            client: Arc::new(client),
            server: Arc::new(server),
            partner: ServerName::try_from(name_of(&nodes.partner))?,
        })
    }
}
