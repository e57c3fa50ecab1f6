use super::*;

#[test]
fn the_line_shows_the_rate_its_past_and_the_faults() {
    let mut rates = Rates::default();
    for bytes in [800, 400, 1] {
        rates.add(bytes);
    }
    rates.mark();
    rates.add(0);
    rates.add(800_000_000);
    assert_eq!(rates.line(), "       800 MB/s │▁▁▁\x1b[31m✗\x1b[0m █");
    for _ in 0..2 * HISTORY {
        rates.add(5);
    }
    assert_eq!(rates.0.len(), HISTORY);
    assert!(!rates.line().contains('✗'));
}
