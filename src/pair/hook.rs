//! Runs commands of the administrator: fencing, mounting, unmounting. They run in parallel to the supervisor's loop,
//! for a bounded time, in a process group of their own.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// The longest time that a command may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The interval of checks whether it has ended.
const LOOK: Duration = Duration::from_millis(2);

/// Runs a shell command, and waits for its end. `key`: its configuration key; `variables`: its environment variables.
///
/// # Errors
/// It has failed, or took too long and was ended.
pub fn run(
    key: &str,
    command: &str,
    variables: &[(&str, &str)],
    timeout: Duration,
) -> Result<(), String> {
    let started = Command::new("/bin/sh")
        .args(["-c", command])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|error| format!("{key} cannot be run: {error}"))?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{key} has failed: {status}; see its output")),
            Ok(None) if begun.elapsed() < timeout => std::thread::sleep(LOOK),
            Ok(None) => {
                end(&mut child);
                let seconds = timeout.as_secs();
                return Err(format!("{key} has not ended within {seconds} s"));
            }
            Err(error) => return Err(format!("{key} : cannot wait for it: {error}")),
        }
    }
}

fn end(child: &mut Child) {
    // It is not reaped yet, so the group is its own.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}

#[cfg(test)]
mod tests;
