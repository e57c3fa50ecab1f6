use super::{Lock, excludes, forbids_read, forbids_write, is_range};

fn lock(offset: u64, length: u64, exclusive: bool) -> Lock {
    Lock {
        offset,
        length,
        exclusive,
    }
}

#[test]
fn exclusive_locks_exclude_everything_that_overlaps() {
    let held = lock(10, 10, true);
    for (offset, length, hit) in [
        (0, 10, false),
        (0, 11, true),
        (19, 1, true),
        (20, 1, false),
        (15, 0, true),
        (10, 0, false),
        (20, 0, false),
        (0, u64::MAX, true),
    ] {
        for exclusive in [false, true] {
            let wanted = lock(offset, length, exclusive);
            assert_eq!(excludes(&held, &wanted, false), hit, "{wanted:?}");
        }
    }
}

#[test]
fn an_open_shares_with_itself_but_locks_nothing_exclusively_twice() {
    assert!(!excludes(&lock(0, 4, true), &lock(0, 4, false), true));
    assert!(excludes(&lock(0, 4, true), &lock(0, 4, true), true));
    assert!(excludes(&lock(0, 4, false), &lock(0, 4, true), true));
    assert!(!excludes(&lock(0, 4, false), &lock(0, 4, false), false));
    assert!(!excludes(&lock(5, 0, true), &lock(5, 0, true), false));
}

#[test]
fn reads_and_writes() {
    let shared = lock(0, 4, false);
    let exclusive = lock(0, 4, true);
    assert!(!forbids_read(&shared, 0, 4, false));
    assert!(forbids_read(&exclusive, 3, 1, false));
    assert!(!forbids_read(&exclusive, 3, 1, true));
    assert!(!forbids_read(&exclusive, 0, 0, false));
    assert!(forbids_write(&shared, 0, 1, true));
    assert!(forbids_write(&shared, 0, 1, false));
    assert!(!forbids_write(&exclusive, 0, 1, true));
    assert!(!forbids_write(&exclusive, 4, 1, false));
}

#[test]
fn ranges_end_within_64_bits() {
    assert!(is_range(u64::MAX, 1));
    assert!(is_range(u64::MAX, 0));
    assert!(!is_range(u64::MAX, 2));
    assert!(is_range(0, u64::MAX));
}
