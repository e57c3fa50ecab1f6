use super::*;

#[test]
fn amounts_are_short() {
    let ms = |ms: f64| duration(Duration::from_secs_f64(ms / 1e3));
    assert_eq!(
        [ms(0.04), ms(4.83), ms(9.97), ms(240.6)],
        ["0.0 ms", "4.8 ms", "10 ms", "241 ms"]
    );
    assert_eq!(
        [ms(999.7), ms(3110.0), ms(123_400.0)],
        ["1.0 s", "3.1 s", "123 s"]
    );
    assert_eq!(
        [bytes(0), bytes(999), bytes(1500)],
        ["0 bytes", "999 bytes", "1.5 kB"]
    );
    assert_eq!([bytes(2_000_000), bytes(268_435_456)], ["2 MB", "268 MB"]);
    assert_eq!(bytes(u64::MAX), "18446744 TB");
}
