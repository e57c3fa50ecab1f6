use super::*;

fn at(millis: u64) -> Time {
    Time {
        now: Duration::from_millis(millis),
        wall: 1_000_000_000 + millis * 10_000,
        uptime: Duration::ZERO,
    }
}

#[test]
fn the_time_follows_every_effect_and_rests_then() {
    let mut watched = Watched::recorded(0);
    watched.effect(at(0).now);
    assert_eq!(watched.due(), None, "nothing is watched");
    watched.reported(at(1000), true);
    assert_eq!(watched.advance(false), Some(at(1000).wall), "it is due");
    // An effect every 10 ms, until 1500; the recorded time is never much older.
    let mut recorded = at(1000).wall;
    for millis in (1010..1600).step_by(10) {
        watched.reported(at(millis), true);
        recorded = watched.advance(false).unwrap_or(recorded);
        assert!(at(millis).wall - recorded <= 60 * 10_000, "{millis}");
        if millis <= 1500 {
            watched.effect(at(millis).now);
        }
    }
    // The last effect came before it by more than the granularity of the kernel's clock.
    assert!(recorded >= at(1530).wall);
    assert_eq!(watched.due(), None);
    watched.reported(at(9000), true);
    assert_eq!(watched.advance(false), None);
    assert_eq!(watched.advance(true), Some(at(9000).wall));
    watched.reported(at(9500), false);
    assert_eq!(watched.advance(true), None);
}
