//! Runs Debian's smbclient.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::lab::SERVER;
use super::server::{PASSWORD, Protection, USER};
use super::{PATIENCE, wait_for};

/// A dialect as smbclient names it, with the client's and the server's protection.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    pub name: &'static str,
    pub max_protocol: &'static str,
    pub more: &'static [&'static str],
    pub protection: Protection,
}

const ENABLED: Protection = Protection {
    signing: "enabled",
    encryption: "enabled",
};

pub const SMB2_1: Dialect = Dialect {
    name: "2.1",
    max_protocol: "SMB2_10",
    more: &[],
    protection: ENABLED,
};
pub const SMB3_0: Dialect = Dialect {
    name: "3.0",
    max_protocol: "SMB3_00",
    more: &[],
    protection: ENABLED,
};
pub const SMB3_1_1: Dialect = Dialect {
    name: "3.1.1",
    max_protocol: "SMB3_11",
    more: &[],
    protection: ENABLED,
};
pub const SIGNED: Dialect = Dialect {
    name: "3.1.1 signing required",
    max_protocol: "SMB3_11",
    more: &["--client-protection=sign"],
    protection: Protection {
        signing: "required",
        encryption: "enabled",
    },
};
pub const ENCRYPTED: Dialect = Dialect {
    name: "3.1.1 encrypted",
    max_protocol: "SMB3_11",
    more: &["--client-protection=encrypt"],
    protection: Protection {
        signing: "enabled",
        encryption: "required",
    },
};
pub const DIALECTS: [Dialect; 5] = [SMB2_1, SMB3_0, SMB3_1_1, SIGNED, ENCRYPTED];

/// smbclient on share `pub` as [`USER`], not yet started, without commands.
pub fn smbclient(dialect: Dialect) -> Command {
    let mut command = anonymous(&format!("//{SERVER}/pub"));
    command
        .args(["-m", dialect.max_protocol, "-U"])
        .arg(format!("{USER}%{PASSWORD}"))
        .args(dialect.more);
    command
}

/// smbclient on a share, port 445, without a user or a protocol.
pub fn anonymous(share: &str) -> Command {
    let mut command = Command::new("smbclient");
    command
        .arg(share)
        .args(["-p", "445", "-t", "120", "-s", "/dev/null"])
        .stdin(Stdio::null());
    command
}

/// The result of a client: its exit code and its output.
#[derive(Debug)]
pub struct Finished {
    pub success: bool,
    pub text: String,
}

impl Finished {
    /// Checks for exit code 0 and no error line; returns the output.
    pub fn well(self) -> String {
        assert!(self.success, "smbclient failed:\n{}", self.tail());
        assert!(
            !self.text.contains("NT_STATUS_"),
            "smbclient:\n{}",
            self.tail()
        );
        self.text
    }

    /// The errors, and the end of the other output.
    fn tail(&self) -> String {
        let lines: Vec<_> = self.text.lines().collect();
        let last = lines.len().saturating_sub(20);
        let errors = lines[..last]
            .iter()
            .filter(|line| line.contains("NT_STATUS_"));
        errors
            .chain(&lines[last..])
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Runs a client's commands to their end.
pub fn run(mut client: Command, local: &Path, commands: &str) -> Finished {
    let output = client
        .args(["-c", commands])
        .current_dir(local)
        .output()
        .expect("smbclient");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Finished {
        success: output.status.success(),
        text,
    }
}

/// A client that runs in parallel. Its output goes to a file, which shows its progress.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    text: PathBuf,
}

impl Session {
    /// Starts it with all its commands.
    pub fn start(mut client: Command, local: &Path, commands: &str) -> Session {
        client.args(["-c", commands]);
        Session::spawn(client, local)
    }

    /// Starts it without commands, which are sent line by line.
    pub fn interactive(client: Command, local: &Path) -> Session {
        // its output has to be visible at once
        let mut prompt = Command::new("stdbuf");
        prompt
            .arg("-oL")
            .arg(client.get_program())
            .args(client.get_args())
            .stdin(Stdio::piped());
        Session::spawn(prompt, local)
    }

    /// Starts an interactive client with an open file of the share's directory, which is made there.
    pub fn holding(client: Command, share: &Path, name: &str, local: &Path) -> Session {
        std::fs::write(share.join(name), "held").expect("a file");
        let mut session = Session::interactive(client, local);
        session.say(&format!("open {name}"));
        session.expect("fnum");
        session
    }

    /// Closes the file of [`Session::holding`], and waits until the server reports it.
    pub fn close_held(&mut self, is_closed: impl Fn() -> bool) {
        self.say("close 1");
        wait_for("the close", PATIENCE, || is_closed().then_some(()));
    }

    fn spawn(mut client: Command, local: &Path) -> Session {
        let text = local.with_extension("output");
        let file = File::create(&text).expect("a file for the output");
        client
            .current_dir(local)
            .stdout(file.try_clone().expect("the file"))
            .stderr(file);
        let mut child = client.spawn().expect("smbclient");
        let stdin = child.stdin.take();
        Session { child, stdin, text }
    }

    /// Sends one line. The line before it must have been processed: smbclient reads its input only when more arrives,
    /// not the lines that it has read already.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("interactive");
        writeln!(stdin, "{line}").expect("smbclient listens");
    }

    /// Its output so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.text).expect("its output")).into_owned()
    }

    /// The file of its output.
    pub fn output(&self) -> &Path {
        &self.text
    }

    /// Waits until it has printed this.
    pub fn expect(&mut self, what: &str) -> String {
        wait_for(&format!("smbclient to print {what:?}"), PATIENCE, || {
            let text = self.text();
            assert!(
                !self.has_ended() || text.contains(what),
                "smbclient ended: {text}"
            );
            text.contains(what).then_some(text)
        })
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("smbclient").is_some()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        let status = wait_for("smbclient to end", 4 * PATIENCE, || {
            self.child.try_wait().expect("smbclient")
        });
        Finished {
            success: status.success(),
            text: self.text(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
