use super::super::arbiter::Term;
use super::*;

fn says(serves: bool, change: impl FnOnce(&mut Seen)) -> String {
    let nodes = Nodes {
        own: "b".into(),
        partner: "a".into(),
    };
    let mut seen = Seen {
        term: Term {
            in_step: true,
            ..Term::first().next(if serves { "b" } else { "a" })
        },
        is_held: true,
        partner_runs: true,
        partner: None,
    };
    change(&mut seen);
    let known = Known {
        nodes: &nodes,
        seen: &seen,
        serves,
        fences: false,
        by_order: false,
        trouble: None,
        link: None,
    };
    outlook(&known).if_died
}

#[test]
fn the_status_names_the_node_that_would_take_over() {
    assert!(says(true, |_| ()).contains("node a takes over at once"));
    let alone = says(true, |seen| seen.partner_runs = false);
    assert!(alone.contains("node a does not run"), "{alone}");
    let apart = says(true, |seen| seen.term.in_step = false);
    assert!(apart.contains("no node takes over"), "{apart}");
    assert!(says(false, |_| ()).contains("this one takes over"));
    let waits = says(false, |seen| seen.term.in_step = false);
    assert!(waits.contains("wait for it"), "{waits}");
}

#[test]
fn the_status_gives_the_reason_why_no_node_serves() {
    let free = |rest| {
        says(false, |seen| {
            seen.is_held = false;
            seen.term.rest = rest;
        })
    };
    assert!(free(Rest::Rebooting).contains("--force"));
    assert!(free(Rest::Stopped).contains("stopped"));
    assert!(free(Rest::Not).contains("this node takes over"));
}
