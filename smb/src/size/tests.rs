//! Tests the bounds on the length of records.

use super::*;

#[test]
fn no_record_is_longer_than_the_log_takes() {
    /// `outlast_nvram::MAX_META`; the server compares with the log itself.
    const MAX_META: usize = 16 << 20;
    let most = Limits {
        sessions: 1 << 10,
        trees: 1 << 14,
        locks: 1 << 18,
        credits: u16::MAX,
        ..Limits::default()
    };
    for limits in [Limits::default(), most] {
        let (delta, part) = (limits.largest_delta(), limits.largest_part());
        assert!(delta < MAX_META && part < MAX_META, "{delta}, {part}");
    }
}
