//! Asks another binary, before it takes over, whether it can. The supervisor does that, since its worker may not
//! execute anything.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::one_line::OneLine;

/// The output of `PATH probe` if it can read the configuration and the NVRAM.
pub const PROBE_ANSWER: &str = "outlast: configuration and NVRAM can be read";

/// How long it may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest part of its output that is read, in bytes.
const TEXT_MAX_BYTES: u64 = 4096;

/// Makes `binary` prove that it reads this configuration and this NVRAM format; returns the reason if it does not.
pub(crate) fn ask(binary: &Path, config: &Path) -> Result<(), String> {
    let shown = binary.to_string_lossy();
    let shown = OneLine(&shown);
    let mut child = Command::new(binary)
        .arg("probe")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{shown} cannot be run: {error}; name an outlast binary"))?;
    let finished =
        wait(&mut child).map_err(|error| format!("{shown} cannot be waited for: {error}"))?;
    if !finished {
        return Err(format!(
            "{shown} did not answer within {} s; name an outlast binary",
            TIMEOUT.as_secs()
        ));
    }
    let said = text(child.stdout.take());
    if said.lines().next() == Some(PROBE_ANSWER) {
        return Ok(());
    }
    let why = text(child.stderr.take());
    let why = why.lines().next().unwrap_or("it is not an outlast binary");
    Err(format!("{shown} cannot take over: {}", OneLine(why)))
}

/// Waits for the end and reaps; false if it had to be killed.
fn wait(child: &mut Child) -> io::Result<bool> {
    let deadline = Instant::now() + TIMEOUT;
    while !has_ended(child)? {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

fn has_ended(child: &mut Child) -> io::Result<bool> {
    match child.try_wait() {
        // A supervisor that is the first process of a container reaps every process (`supervisor::process`).
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(true),
        ended => Ok(ended?.is_some()),
    }
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // Unreadable output is treated as none.
        let _ = pipe.take(TEXT_MAX_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
