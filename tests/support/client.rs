//! Debian's smbclient.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::lab::SERVER;
use super::server::{PASSWORD, USER};

/// A dialect as smbclient names it, with what it asks for.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    pub name: &'static str,
    pub max_protocol: &'static str,
    pub more: &'static [&'static str],
}

pub const DIALECTS: [Dialect; 5] = [
    Dialect { name: "2.1", max_protocol: "SMB2_10", more: &[] },
    Dialect { name: "3.0", max_protocol: "SMB3_00", more: &[] },
    Dialect { name: "3.1.1", max_protocol: "SMB3_11", more: &[] },
    Dialect { name: "3.1.1 signed", max_protocol: "SMB3_11", more: &["--client-protection=sign"] },
    Dialect { name: "3.1.1 encrypted", max_protocol: "SMB3_11", more: &["--client-protection=encrypt"] },
];

/// smbclient on share `pub`, in directory `local`, not yet started.
pub fn smbclient(dialect: Dialect, local: &Path, commands: &str) -> Command {
    let mut command = Command::new("smbclient");
    command
        .arg(format!("//{SERVER}/pub"))
        .args(["-p", "445", "-m", dialect.max_protocol, "-U"])
        .arg(format!("{USER}%{PASSWORD}"))
        .args(dialect.more)
        .args(["-t", "120", "-c", commands])
        .current_dir(local)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits for a client; asserts exit 0 and no error line. Gives what it printed.
pub fn finish(client: Child) -> String {
    let output = client.wait_with_output().expect("smbclient");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "smbclient: {}\n{text}", output.status);
    assert!(!text.contains("NT_STATUS_"), "smbclient: {text}");
    text
}
