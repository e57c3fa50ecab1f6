//! Chooses the state that a node resumes, where each node has an NVRAM of its own.

use std::path::Path;

use outlast_nvram::copy::Standing;
use outlast_nvram::{Incarnation, Mapping, sink};

use super::arbiter::Term;

/// A complete state in this node's NVRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The arbiter's epoch in which its log was begun.
    pub term: u64,
    /// It was shipped by the other node; otherwise a server of this node wrote it.
    pub is_copy: bool,
}

/// Returns the states of this node. `sink`: the destination of its log under durability `power`.
#[must_use]
pub fn held(nvram: &Path, sink: Option<&Path>, incarnation: Incarnation) -> Vec<Held> {
    let opened = |path| Mapping::open_read_only(path).ok();
    let standing = opened(nvram).and_then(|memory| Standing::of(&memory).ok().flatten());
    let of_nvram = standing.filter(|standing| standing.is_of(incarnation));
    let of_nvram = of_nvram.map(|standing| Held {
        term: standing.superblock.term,
        is_copy: standing.received_in.is_some(),
    });
    let of_sink = sink
        .and_then(opened)
        .and_then(|memory| sink::superblock(&memory).ok());
    let of_sink = of_sink.map(|superblock| Held {
        term: superblock.term,
        is_copy: false,
    });
    of_nvram.into_iter().chain(of_sink).collect()
}

/// Returns the term of the state that a node may resume after `last`, the term on record; `None`: it has no such state.
#[must_use]
pub fn resumes(last: &Term, own: &str, held: &[Held]) -> Option<u64> {
    let is_own = last.holder == own || last.holder.is_empty();
    let is_newest = |held: &&Held| {
        // A holder that crashed before its server began has left the state that it was going to resume.
        let is_handed_down = is_own && last.resumes == Some(held.term);
        match held.is_copy {
            // The output of that term waited for this copy.
            true => (last.in_step && held.term == last.epoch) || is_handed_down,
            // A server without a pair wrote it.
            false if held.term == 0 => is_own,
            false => held.term == last.epoch || is_handed_down,
        }
    };
    held.iter().filter(is_newest).map(|held| held.term).max()
}

#[cfg(test)]
mod tests;
