//! Defines the faults of a server, and the servers that can have them.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A fault of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of the serving process.
    Kill,
    /// kill -9 of all its processes; it is started again after a while.
    KillAll,
    /// `outlast reboot`; of a machine, `outlast reboot --system`.
    Reboot,
    /// `outlast reboot --exec`: another binary.
    Upgrade,
    /// The power of the machine is cut.
    Power,
}

impl Fault {
    /// Returns the fault of a key.
    pub fn of_key(key: char) -> Option<Fault> {
        match key.to_ascii_lowercase() {
            'k' => Some(Fault::Kill),
            'r' => Some(Fault::Reboot),
            'u' => Some(Fault::Upgrade),
            'p' => Some(Fault::Power),
            _ => None,
        }
    }

    /// Returns its label in the picture.
    pub fn label(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9",
            Fault::KillAll => "kill -9 of all",
            Fault::Reboot => "reboot",
            Fault::Upgrade => "upgrade",
            Fault::Power => "power cut",
        }
    }
}

/// `1 reboot`, `2 reboots`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Describes how often each fault occurred.
pub fn tally(faults: &[Fault]) -> String {
    let count = |which: &[Fault]| faults.iter().filter(|fault| which.contains(fault)).count();
    let of = |count: usize, one, many| (count > 0).then(|| counted(count, one, many));
    let parts = [
        of(
            count(&[Fault::Kill, Fault::KillAll]),
            "death by kill -9",
            "deaths by kill -9",
        ),
        of(count(&[Fault::Power]), "power cut", "power cuts"),
        of(count(&[Fault::Reboot]), "reboot", "reboots"),
        of(count(&[Fault::Upgrade]), "upgrade", "upgrades"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.as_slice() {
        [] => "no fault".to_owned(),
        [.., last] if parts.len() > 1 => {
            format!("{} and {last}", parts[..parts.len() - 1].join(", "))
        }
        _ => parts.join(""),
    }
}

/// A server of the demonstration.
pub trait Server: Send {
    /// Causes a fault, and waits until the server serves again. Returns a remark about it.
    fn cause(&mut self, fault: Fault) -> anyhow::Result<Option<String>>;

    /// Returns how often it has begun to serve.
    fn lives(&mut self) -> anyhow::Result<u64>;

    /// Ends it properly.
    fn stop(self: Box<Self>) -> anyhow::Result<()>;
}

/// Repeats a probe until it returns a value, and fails when the time is over.
pub fn within<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if begun.elapsed() >= limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that must succeed; returns its output.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}", error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `ip` with these words.
pub fn ip(words: &str) -> anyhow::Result<()> {
    run(Command::new("ip").args(words.split(' '))).map(drop)
}

#[cfg(test)]
mod tests;
