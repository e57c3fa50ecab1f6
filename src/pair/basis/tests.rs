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
fn a_node_continues_with_the_newest_state_or_none() {
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
