//! Runs Debian's smbclient.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

/// Name and password.
pub type Login = (&'static str, &'static str);

/// The time for which smbclient waits for an answer, in seconds.
const TIMEOUT_S: &str = "120";
/// The text that smbclient prints when a transfer is complete.
const COMPLETE: &str = "(average ";

/// One smbclient with one connection. It completes a command before it reads the next.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Mutex<String>>,
    /// The number of requested transfers.
    asked: usize,
}

impl Client {
    /// Logs in to the share `pub`, working in this directory. With a command it executes that one and ends.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        address: &str,
        (user, password): (&str, &str),
        directory: &Path,
        only: Option<&str>,
    ) -> anyhow::Result<Client> {
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "smbclient"])
            .arg(format!("//{address}/pub"))
            .args(["-p", "445", "-s", "/dev/null", "-t", TIMEOUT_S])
            .arg("-U")
            .arg(format!("{user}%{password}"))
            .current_dir(directory)
            .stdin(Stdio::piped());
        if let Some(only) = only {
            command.args(["-c", only]);
        }
        let (output, writer) = io::pipe().context("there is no pipe")?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().context("smbclient cannot be started")?;
        // The command holds the other ends of the pipe.
        drop(command);
        let text = Arc::new(Mutex::new(String::new()));
        std::thread::spawn({
            let text = Arc::clone(&text);
            move || collect(output, &text)
        });
        Ok(Client {
            stdin: child.stdin.take(),
            child,
            output: text,
            asked: usize::from(only.is_some()),
        })
    }

    /// Requests a transfer. The preceding one must be complete.
    ///
    /// # Errors
    /// smbclient has ended.
    pub fn ask(&mut self, command: &str) -> anyhow::Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .context("smbclient has been asked to end")?;
        self.asked += 1;
        writeln!(stdin, "{command}").context("smbclient does not listen any more")
    }

    /// Returns whether every requested transfer is complete.
    pub fn is_complete(&self) -> bool {
        self.text().matches(COMPLETE).count() >= self.asked
    }

    /// Returns its output.
    pub fn text(&self) -> String {
        self.output
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the first error that it has reported.
    pub fn error(&self) -> Option<String> {
        let text = self.text();
        let line = text.lines().find(|line| line.contains("NT_STATUS"))?;
        Some(line.trim_start_matches("smb: \\>").trim().to_owned())
    }

    /// Returns its last complete line, without control characters.
    pub fn last_line(&self) -> String {
        let text = self.text();
        let lines = text
            .lines()
            .rev()
            .map(|line| line.trim_start_matches("smb: \\>").trim());
        let mut lines = lines.filter(|line| !line.is_empty());
        lines.next().unwrap_or_default().to_owned()
    }

    /// Returns its exit status, if it has ended.
    ///
    /// # Errors
    /// The status cannot be read.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("smbclient")
    }

    /// Lets it log out, and waits this long for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn finish(mut self, limit: Duration) -> anyhow::Result<(ExitStatus, String)> {
        if let Some(mut stdin) = self.stdin.take() {
            // It may have ended by itself: its exit status says more.
            let _ = writeln!(stdin, "quit");
        }
        let status = crate::fault::within(limit, "the end of smbclient", || self.ended())?;
        Ok((status, self.text()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut output: io::PipeReader, text: &Mutex<String>) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut piece) {
        let more = String::from_utf8_lossy(&piece[..length]);
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&more);
    }
}
