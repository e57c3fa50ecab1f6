use super::*;

#[test]
fn the_last_are_remembered_and_all_are_counted() {
    let mut returns = Returns([0; LEN]);
    assert!(returns.last().is_empty());
    let made = |n: u64| Return {
        began_unix_ms: n,
        gap_us: n * 1000,
        cause: Cause::ALL[n as usize % 4],
    };
    (0..40).for_each(|n| returns.add(made(n)));
    let expected: Vec<Return> = (24..40).rev().map(made).collect();
    assert_eq!(returns.last(), expected);
    let counted = Cause::ALL.map(|cause| returns.gaps(cause).count);
    assert_eq!(counted, [10; 4]);
}
