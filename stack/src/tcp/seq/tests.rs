use super::Seq;

#[test]
fn order_wraps() {
    let high = Seq(u32::MAX - 1);
    assert!(high < high + 4);
    assert_eq!((high + 4).0, 2);
    assert_eq!((high + 4).since(high), 4);
    assert_eq!(high.since(high + 4), 0);
    assert_eq!(high.max(high + 1), high + 1);
    assert_eq!(high.min(high + 1), high);
}
