use super::{COLUMNS, examine, long_lines};
use crate::repository;

#[test]
fn no_line_is_too_long() {
    let long = examine(&repository()).expect("sources and documents");
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn a_long_line_is_found() {
    let text = format!(
        "short\n{}\n|{}\n{}",
        "x".repeat(COLUMNS + 1),
        "y".repeat(COLUMNS),
        "é".repeat(COLUMNS)
    );
    assert_eq!(long_lines(&text, false), [(2, 121), (3, 121)]);
    assert_eq!(long_lines(&text, true), [(2, 121)]);
}
