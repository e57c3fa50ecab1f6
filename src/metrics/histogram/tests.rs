use super::*;

#[test]
fn a_value_is_counted_up_to_and_with_its_bound() {
    const BOUNDS: [u64; 2] = [10, 100];
    let mut words = [0; len(&BOUNDS)];
    for value in [0, 10, 11, 100, 101, 5000] {
        observe(&mut words, &BOUNDS, value);
    }
    let expected = Observed {
        sum: 5.222,
        count: 6,
        buckets: vec![(0.01, 2), (0.1, 2), (f64::INFINITY, 2)],
    };
    assert_eq!(read(&words, &BOUNDS, 1e3), expected);
}
