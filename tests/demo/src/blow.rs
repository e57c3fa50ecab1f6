//! What befalls a server, and a server that it can befall.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// What befalls a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// kill -9 of the process that serves.
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

impl Blow {
    /// The one that a key stands for.
    pub fn of_key(key: char) -> Option<Blow> {
        match key.to_ascii_lowercase() {
            'k' => Some(Blow::Kill),
            'r' => Some(Blow::Reboot),
            'u' => Some(Blow::Upgrade),
            'p' => Some(Blow::Power),
            _ => None,
        }
    }

    /// In the picture.
    pub fn label(self) -> &'static str {
        match self {
            Blow::Kill => "kill -9",
            Blow::KillAll => "kill -9 of all",
            Blow::Reboot => "reboot",
            Blow::Upgrade => "upgrade",
            Blow::Power => "power cut",
        }
    }
}

/// `1 reboot`, `2 reboots`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// How often each has befallen a server, in words.
pub fn tally(blows: &[Blow]) -> String {
    let count = |which: &[Blow]| blows.iter().filter(|blow| which.contains(blow)).count();
    let of = |count: usize, one, many| (count > 0).then(|| counted(count, one, many));
    let parts = [
        of(
            count(&[Blow::Kill, Blow::KillAll]),
            "death by kill -9",
            "deaths by kill -9",
        ),
        of(count(&[Blow::Power]), "power cut", "power cuts"),
        of(count(&[Blow::Reboot]), "reboot", "reboots"),
        of(count(&[Blow::Upgrade]), "upgrade", "upgrades"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.as_slice() {
        [] => "nothing befell it".to_owned(),
        [.., last] if parts.len() > 1 => {
            format!("{} and {last}", parts[..parts.len() - 1].join(", "))
        }
        _ => parts.join(""),
    }
}

/// A server that is shown.
pub trait Server: Send {
    /// Does it, and waits until the server serves again. Gives what is to be said about it.
    fn strike(&mut self, blow: Blow) -> anyhow::Result<Option<String>>;

    /// How often it has begun to serve.
    fn lives(&mut self) -> anyhow::Result<u64>;

    /// Ends it properly.
    fn stop(self: Box<Self>) -> anyhow::Result<()>;
}

/// Asks again and again until there is something, and fails when the time is over.
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

/// Runs a command that must succeed; gives what it prints.
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
