use super::{Caching, Kind, Opening, Others, grant};

fn caching(text: &str) -> Caching {
    let bit = |letter| match letter {
        'R' => Caching::READ,
        'H' => Caching::HANDLE,
        _ => Caching::WRITE,
    };
    text.chars()
        .fold(Caching::NONE, |all, letter| all.or(bit(letter)))
}

const OPEN: Opening = Opening {
    violates_sharing: false,
    overwrites: false,
    has_waited: false,
};

/// One lease exists and another is requested. Columns: held, requested, broken to, granted (MS-FSA 2.1.5.18).
#[test]
fn a_second_lease() {
    for (held, wanted, broken, granted) in [
        ("R", "R", "R", "R"),
        ("R", "RH", "R", "RH"),
        ("R", "RW", "R", "R"),
        ("R", "RHW", "R", "RH"),
        ("RH", "RW", "RH", "R"),
        ("RH", "RHW", "RH", "RH"),
        ("RW", "R", "R", "R"),
        ("RW", "RHW", "R", "RH"),
        ("RHW", "RH", "RH", "RH"),
        ("RHW", "RHW", "RH", "RH"),
        ("R", "H", "R", ""),
        ("R", "HW", "R", ""),
    ] {
        let held = caching(held);
        let to = OPEN.breaks(held, Kind::Lease).unwrap_or(held);
        assert_eq!(to, caching(broken), "{held:?}");
        assert_eq!(OPEN.waits(held, false), held.has(Caching::WRITE));
        let others = Others {
            any: true,
            handle_lease: to.has(Caching::HANDLE),
            ..Others::default()
        };
        let got = grant(caching(wanted), Kind::Lease, others);
        assert_eq!(got, caching(granted), "{held:?} {wanted}");
    }
}

#[test]
fn alone_all_that_is_valid_is_granted() {
    for (wanted, granted) in [
        ("", ""),
        ("R", "R"),
        ("H", ""),
        ("W", ""),
        ("HW", ""),
        ("RH", "RH"),
        ("RW", "RW"),
        ("RHW", "RHW"),
    ] {
        let got = grant(caching(wanted), Kind::Lease, Others::default());
        assert_eq!(got, caching(granted));
    }
    let locked = Others {
        locked: true,
        ..Others::default()
    };
    assert_eq!(grant(Caching::ALL, Kind::Lease, locked), Caching::NONE);
}

#[test]
fn oplocks_and_leases_beside_each_other() {
    let beside_handles = Others {
        any: true,
        handle_lease: true,
        ..Others::default()
    };
    assert_eq!(
        grant(Caching::READ, Kind::Oplock, beside_handles),
        Caching::NONE
    );
    let beside_oplock = Others {
        any: true,
        oplock: true,
        ..Others::default()
    };
    assert_eq!(
        grant(Caching::ALL, Kind::Lease, beside_oplock),
        Caching::READ
    );
}

/// A client that keeps handles open only in its cache closes them before the other open is refused.
#[test]
fn a_sharing_violation_breaks_handles_alone() {
    let opening = Opening {
        violates_sharing: true,
        ..OPEN
    };
    for (held, kind, to, waits) in [
        ("RHW", Kind::Lease, Some("RW"), true),
        ("RH", Kind::Lease, Some("R"), true),
        ("RW", Kind::Lease, None, false),
        ("RHW", Kind::Oplock, Some("R"), true),
        ("RW", Kind::Oplock, None, false),
        ("R", Kind::Oplock, None, false),
    ] {
        assert_eq!(opening.breaks(caching(held), kind), to.map(caching));
        assert_eq!(opening.waits(caching(held), false), waits);
    }
}

#[test]
fn what_is_replaced_is_not_cached() {
    let opening = Opening {
        overwrites: true,
        ..OPEN
    };
    for (held, waits) in [("R", false), ("RH", false), ("RW", true), ("RHW", true)] {
        let held = caching(held);
        assert_eq!(opening.breaks(held, Kind::Lease), Some(Caching::NONE));
        assert_eq!(opening.waits(held, false), waits);
    }
    // It does not wait for a break that another CREATE began, until it has waited itself.
    assert!(!opening.waits(caching("RH"), true));
    let again = Opening {
        has_waited: true,
        ..opening
    };
    assert!(again.waits(caching("RH"), true));
}
