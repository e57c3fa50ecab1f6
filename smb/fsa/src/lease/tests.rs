use super::{Lease, LeaseId, Refusal, Version};
use crate::caching::Caching;
use std::time::Duration;

const LATER: Duration = Duration::from_secs(35);

fn lease(state: Caching) -> Lease {
    let version = Version::Two {
        epoch: 10,
        parent: None,
    };
    Lease::new(LeaseId::default(), version, state)
}

/// Another open of the same lease requests a state. Columns: held, requested, held afterwards.
#[test]
fn more_is_given_whole_or_not_at_all() {
    let (none, read) = (Caching::NONE, Caching::READ);
    let (read_handle, read_write) = (Caching::READ_HANDLE, Caching::READ_WRITE);
    for (held, wanted, granted, after) in [
        (none, read, read, read),
        (read, read_handle, read_handle, read_handle),
        (read, none, none, read),
        (read_handle, read_write, read_write, read_handle),
        (read_write, read_handle, read_handle, read_write),
        (read_handle, Caching::ALL, Caching::ALL, Caching::ALL),
        // Another lease conflicts with WRITE.
        (read, Caching::ALL, read_handle, read),
        (Caching::ALL, read_handle, read_handle, Caching::ALL),
    ] {
        let mut lease = lease(held);
        lease.upgrade(wanted, granted);
        assert_eq!(lease.state, after, "{held:?} {wanted:?}");
        assert_eq!(lease.epoch(), if after == held { 11 } else { 12 });
    }
}

/// While a break is in progress, a further one waits; then HANDLE caching is broken first and READ last.
#[test]
fn breaks_come_one_after_the_other() {
    let mut lease = lease(Caching::ALL);
    let first = lease.break_to(Caching::READ_HANDLE, LATER).unwrap();
    assert!(first.is_acknowledged);
    assert_eq!(
        (first.from, first.to, first.epoch),
        (Caching::ALL, Caching::READ_HANDLE, 12)
    );
    assert_eq!(lease.break_to(Caching::NONE, LATER), None);
    assert_eq!(lease.state, Caching::ALL);
    let second = lease
        .acknowledge(Caching::READ_HANDLE, LATER)
        .unwrap()
        .unwrap();
    assert_eq!(
        (second.from, second.to),
        (Caching::READ_HANDLE, Caching::READ)
    );
    assert_eq!((second.epoch, second.is_acknowledged), (12, true));
    let third = lease.acknowledge(Caching::READ, LATER).unwrap().unwrap();
    assert_eq!((third.from, third.to), (Caching::READ, Caching::NONE));
    assert!(!third.is_acknowledged);
    assert_eq!((lease.state, lease.breaking), (Caching::NONE, None));
}

#[test]
fn an_acknowledgment_keeps_no_more_than_it_may() {
    let mut lease = lease(Caching::ALL);
    let early = lease.acknowledge(Caching::NONE, LATER);
    assert_eq!(early, Err(Refusal::NotBreaking));
    lease.break_to(Caching::READ_HANDLE, LATER);
    let too_much = lease.acknowledge(Caching::READ_WRITE, LATER);
    assert_eq!(too_much, Err(Refusal::TooMuch));
    assert!(lease.breaking.is_some());
    assert_eq!(lease.acknowledge(Caching::NONE, LATER), Ok(None));
    assert_eq!((lease.state, lease.breaking), (Caching::NONE, None));
}

#[test]
fn nothing_is_kept_after_the_time_is_over() {
    let mut lease = lease(Caching::ALL);
    lease.break_to(Caching::READ_HANDLE, LATER);
    lease.upgrade(Caching::ALL, Caching::ALL);
    assert!(
        lease.breaking.is_some(),
        "a break is not undone by a request for more"
    );
    lease.give_up();
    assert_eq!((lease.state, lease.breaking), (Caching::NONE, None));
}
