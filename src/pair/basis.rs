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
mod tests {
    use super::*;

    fn term(holder: &str, epoch: u64, in_step: bool, resumes: Option<u64>) -> Term {
        Term {
            epoch,
            holder: holder.to_owned(),
            in_step,
            resumes,
            ..Term::first()
        }
    }

    const COPY: bool = true;
    const OWN: bool = false;

    #[track_caller]
    fn check(last: &Term, held: &[(u64, bool)], expected: Option<u64>) {
        let held: Vec<Held> = held
            .iter()
            .map(|(term, is_copy)| Held {
                term: *term,
                is_copy: *is_copy,
            })
            .collect();
        assert_eq!(resumes(last, "a", &held), expected, "{last:?} {held:?}");
    }

    #[test]
    fn a_node_goes_on_with_the_newest_state_or_none() {
        // Its own server crashed.
        check(&term("a", 5, false, Some(4)), &[(5, OWN)], Some(5));
        check(&term("a", 5, true, Some(4)), &[(5, OWN)], Some(5));
        // The other node's server crashed.
        check(&term("b", 5, true, Some(4)), &[(5, COPY)], Some(5));
        // It was not in step, or the copy is of an earlier term.
        check(&term("b", 5, false, Some(4)), &[(5, COPY)], None);
        check(&term("b", 5, true, Some(4)), &[(4, COPY)], None);
        // It restarts with the state from before the other node took over.
        check(&term("b", 5, true, Some(4)), &[(4, OWN)], None);
        check(&term("b", 5, false, Some(4)), &[(4, OWN)], None);
        // Its NVRAM is lost.
        check(&term("a", 5, true, Some(4)), &[], None);
        // It crashed after it was admitted, before its server began.
        check(&term("a", 5, false, Some(4)), &[(4, COPY)], Some(4));
        check(&term("a", 5, false, Some(4)), &[(4, OWN)], Some(4));
        check(&term("a", 5, false, None), &[(4, COPY)], None);
        // The log is from before the pair was configured.
        check(&Term::first(), &[(0, OWN)], Some(0));
        check(&term("b", 5, true, None), &[(0, OWN)], None);
        // Its sink is complete; the state in memory was lost with the machine.
        check(
            &term("a", 5, false, Some(4)),
            &[(3, COPY), (5, OWN)],
            Some(5),
        );
    }
}
