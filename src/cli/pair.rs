//! Implements `outlast pair`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Subcommand;

use crate::pair::link::keys;

#[derive(Subcommand)]
pub(super) enum Pair {
    /// Make the keys of both nodes' interconnect: one file for each node, to be moved there.
    Init {
        /// Directory to put them in.
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        directory: PathBuf,
        /// Names of the nodes.
        #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = "a,b")]
        nodes: Vec<String>,
    },
}

pub(super) fn run(command: &Pair) -> anyhow::Result<()> {
    let Pair::Init { directory, nodes } = command;
    let is_name = |name: &&String| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=32).contains(&name.len()) && name.chars().all(allowed)
    };
    let names: Vec<&str> = nodes.iter().filter(is_name).map(String::as_str).collect();
    let names = <[&str; 2]>::try_from(names)
        .ok()
        .filter(|[a, b]| a != b && nodes.len() == 2);
    ensure!(
        names.is_some(),
        "--nodes {}: name two nodes, each by letters, digits and hyphens, as partner.nodes does",
        nodes.join(",")
    );
    for (node, path) in nodes
        .iter()
        .zip(keys::make(directory, names.unwrap_or_default())?)
    {
        println!(
            "{}: move it to node {node}, as partner.key; no other account may read it",
            path.display()
        );
    }
    Ok(())
}
