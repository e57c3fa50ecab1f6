//! Runs a real etcd of one member, with certificates of its own.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outlast::config::Etcd as Config;

use super::{PATIENCE, wait_for};

/// Its process, and the connection data for a client.
pub struct Etcd {
    child: Child,
    port: u16,
    url: String,
    dir: PathBuf,
}

/// Returns whether the programs are installed.
pub fn can_run(test: &str) -> bool {
    let there = |name: &str, word: &str| {
        let mut command = Command::new(name);
        let tried = command.arg(word).stdout(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    super::has(
        test,
        &[
            (there("etcd", "--version"), "etcd (Debian: etcd-server)"),
            (there("openssl", "version"), "openssl"),
        ],
    )
}

impl Etcd {
    /// Starts it on the loopback interface.
    pub fn start(dir: &Path) -> Etcd {
        Etcd::start_at(Ipv4Addr::LOCALHOST, dir)
    }

    /// Starts it at an address of the calling thread's network namespace, with TLS and certificates of both sides.
    pub fn start_at(address: Ipv4Addr, dir: &Path) -> Etcd {
        make_certificates(address, dir);
        let [client, peer] = free_ports();
        let url = format!("https://{address}:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let log = File::create(dir.join("etcd.log")).expect("a log");
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.join("etcd"))
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--client-cert-auth", "--unsafe-no-fsync"])
            .arg("--trusted-ca-file")
            .arg(dir.join("ca.pem"))
            .arg("--cert-file")
            .arg(dir.join("cert.pem"))
            .arg("--key-file")
            .arg(dir.join("key.pem"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("etcd");
        let etcd = Etcd {
            child,
            port: client,
            url,
            dir: dir.to_owned(),
        };
        wait_for("etcd to serve", PATIENCE, || {
            let log = std::fs::read_to_string(dir.join("etcd.log")).ok()?;
            log.contains("ready to serve client requests").then_some(())
        });
        etcd
    }

    /// Returns the configuration of a node, which equals the lines of [`Etcd::section`].
    pub fn config(&self, lease: Duration) -> Config {
        Config {
            endpoints: vec![self.url.clone()],
            prefix: "/outlast/test/".to_owned(),
            ca: Some(self.dir.join("ca.pem")),
            certificate: Some((self.dir.join("cert.pem"), self.dir.join("key.pem"))),
            lease,
        }
    }

    /// Returns the lines of `[partner]`.
    pub fn section(&self, lease: Duration) -> String {
        let dir = self.dir.display();
        format!(
            "arbiter = \"etcd\"\netcd = [\"{}\"]\netcd_prefix = \"/outlast/test\"\netcd_ca = \"{dir}/ca.pem\"\n\
             etcd_certificate = \"{dir}/cert.pem\"\netcd_key = \"{dir}/key.pem\"\nlease_seconds = {}\n",
            self.url,
            lease.as_secs()
        )
    }

    /// Returns its port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}

/// Makes an authority, and one certificate for both sides: the gateway of etcd is itself a client of etcd.
fn make_certificates(address: Ipv4Addr, dir: &Path) {
    let usage = format!(
        "subjectAltName=IP:{address}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
    );
    std::fs::write(dir.join("usage"), usage).expect("a file");
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for command in [
        format!("{new} -x509 -days 30 -subj /CN=test-authority -keyout ca.key -out ca.pem"),
        format!("{new} -subj /CN=test -keyout key.pem -out request.pem"),
        "x509 -req -days 30 -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile usage -out cert.pem"
            .to_owned(),
    ] {
        let output = Command::new("openssl")
            .args(command.split(' '))
            .current_dir(dir)
            .output()
            .expect("openssl");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {command}: {text}");
    }
}
