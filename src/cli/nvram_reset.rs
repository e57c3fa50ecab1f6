//! `outlast nvram reset`: wipes and removes a checkpoint file.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use outlast_nvram::{Flag, Log, Mapping, fill_with_zeroes, is_foreign};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::server::contents;

/// Prints what is lost, asks, wipes the file and removes it.
pub(super) fn run(file: &Path, yes: bool) -> anyhow::Result<()> {
    let named = || file.display().to_string();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .with_context(named)?;
    if !opened.metadata().with_context(named)?.is_file() {
        bail!(
            "{} is not a regular file; name the file of nvram.path or nvram.sink",
            file.display()
        );
    }
    if is_foreign(file) {
        bail!(
            "{} is not an Outlast checkpoint file and is left alone; name the file of nvram.path or nvram.sink",
            file.display()
        );
    }
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            bail!(
                "{} is in use by a server; stop it first: outlast stop",
                file.display()
            )
        }
        Err(error) => return Err(error).with_context(named),
    }
    println!("{}: {}", file.display(), what_is_lost(file));
    if !yes && !is_confirmed()? {
        bail!("nothing has been changed");
    }
    // Session keys and data in flight.
    let wiped = opened
        .metadata()
        .and_then(|found| fill_with_zeroes(&opened, found.len()))
        .and_then(|()| opened.sync_all());
    wiped.with_context(named)?;
    std::fs::remove_file(file).with_context(named)?;
    println!(
        "wiped and removed; the next start makes a new one. Under durability \"power\" reset path and sink both"
    );
    Ok(())
}

/// Describes the loss in one line.
fn what_is_lost(file: &Path) -> String {
    let contents = Mapping::open_read_only(file).and_then(|memory| Log::inspect(&memory));
    let contents = match contents {
        Ok(contents) => contents,
        Err(error) => {
            return format!("cannot be read ({error}); whatever sessions it holds are lost");
        }
    };
    if contents.superblock.flag == Flag::Clean {
        return "holds no session".to_owned();
    }
    let clients = match contents::saved(contents.records) {
        Ok(saved) => saved.clients,
        Err(error) => {
            return format!("holds sessions that cannot be read ({error:#}), which are lost");
        }
    };
    let opens: usize = clients.iter().map(|client| client.open_files.len()).sum();
    let addresses: Vec<String> = clients
        .iter()
        .filter_map(|client| Some(client.connection.as_ref()?.client.to_string()))
        .collect();
    format!(
        "holds {} connection(s) with {opens} open file(s), which are lost: {}",
        clients.len(),
        addresses.join(", ")
    )
}

fn is_confirmed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("no terminal to ask for confirmation; use --yes to do it without");
    }
    print!("Reset it? [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
