use super::*;

//= rfc9293 MUST-19
//= rfc9438 4.2a, 4.6a, 4.6b, 5a
#[test]
fn grows_back_to_w_max_in_k_seconds() {
    let (mss, srtt) = (1000, Duration::from_millis(10));
    let mut cubic = Cubic::new(mss);
    let mut now = Duration::ZERO;
    while cubic.cwnd() < 1_000_000 {
        cubic.acked(cubic.cwnd(), now, srtt);
        now += srtt;
    }
    let w_max = cubic.cwnd();
    cubic.congestion(w_max);
    assert_eq!(cubic.cwnd(), (w_max as f64 * BETA) as usize);
    let k = (w_max as f64 * (1.0 - BETA) / mss as f64 / C).cbrt();
    let start = now;
    while cubic.cwnd() < w_max * 99 / 100 {
        let cwnd = cubic.cwnd();
        cubic.acked(cwnd, now, srtt);
        assert!(cubic.cwnd() >= cwnd);
        now += srtt;
    }
    let took = (now - start).as_secs_f64();
    assert!(took > k * 0.5 && took < k * 1.1, "{took} of {k}");
}

/// `cwnd` after congestion avoidance for `seconds`, an acknowledgement of the whole window in each round trip.
fn avoid(cubic: &mut Cubic, start: Duration, seconds: f64, srtt: Duration) -> usize {
    let mut now = start;
    while (now - start).as_secs_f64() < seconds {
        cubic.acked(cubic.cwnd(), now, srtt);
        now += srtt;
    }
    cubic.cwnd()
}

fn reduced(segments: usize) -> Cubic {
    let mut cubic = Cubic::new(1000);
    cubic.acked(
        segments * 1000 - cubic.cwnd(),
        Duration::ZERO,
        Duration::ZERO,
    );
    assert_eq!(cubic.cwnd(), segments * 1000);
    cubic.congestion(segments * 1000);
    cubic
}

//= rfc9438 4.2a, 4.4a, 4.6a, 5a
#[test]
fn the_window_follows_the_cubic_curve() {
    // Large windows, short round trips: C (t - K)^3 + W_max, W_max = 2000 segments, K = cbrt(2000 x 0.3 / 0.4) =
    // 11.45 s.
    let srtt = Duration::from_millis(100);
    for (t, segments) in [
        (2.0, 1662.5),
        (5.0, 1892.6),
        (11.45, 2000.0),
        (15.0, 2017.9),
    ] {
        let cwnd = avoid(&mut reduced(2000), Duration::ZERO, t, srtt) as f64 / 1000.0;
        assert!(
            (cwnd - segments).abs() < segments * 0.01,
            "{t} s: {cwnd} of {segments}"
        );
    }
}

//= rfc9438 4.3a, 4.3b
#[test]
fn small_windows_grow_as_renos_would() {
    // Ten segments and 10 ms: the curve is slower than Reno, whose window is 7 + 0.53 for each round trip, then 1
    // for each.
    let srtt = Duration::from_millis(10);
    let mut cubic = reduced(10);
    let after = |cubic: &mut Cubic, round_trips: u32| {
        avoid(cubic, Duration::ZERO, f64::from(round_trips) * 0.01, srtt) as f64 / 1000.0
    };
    let alpha = 3.0 * 0.3 / 1.7;
    let five = after(&mut cubic.clone(), 5);
    assert!((five - (7.0 + 5.0 * alpha)).abs() < 0.1, "{five}");
    let slope = after(&mut cubic.clone(), 30) - after(&mut cubic, 20);
    assert!((slope - 10.0).abs() < 0.5, "{slope}");
}

//= rfc9438 4.2b
#[test]
fn the_window_grows_by_half_in_a_round_trip_at_most() {
    let mut cubic = reduced(1000);
    let srtt = Duration::from_secs(1);
    cubic.acked(1, Duration::ZERO, srtt);
    let before = cubic.cwnd();
    // The curve is far beyond after 100 s.
    cubic.acked(before, Duration::from_secs(100), srtt);
    assert!(cubic.cwnd() > before * 14 / 10 && cubic.cwnd() <= before * 3 / 2);
}

//= rfc9438 4.6b, 4.7a
//= rfc5681 3.1g
#[test]
fn a_reduction_counts_what_is_in_flight_and_repeated_ones_converge() {
    let mut cubic = Cubic::new(1000);
    cubic.congestion(5000);
    assert_eq!(
        cubic.cwnd(),
        3500,
        "of 5 segments in flight, not of 10 allowed"
    );
    cubic.congestion(1000);
    assert_eq!(cubic.cwnd(), 2000, "two segments at least");
    let mut cubic = reduced(1000);
    assert_eq!(cubic.w_max, 1_000_000.0);
    // It has not grown back, so other flows need capacity.
    cubic.congestion(700_000);
    assert_eq!(cubic.w_max, 700_000.0 * 1.7 / 2.0);
}

//= rfc9438 4.8b, 4.8c
#[test]
fn after_a_timeout_the_curve_begins_anew() {
    let srtt = Duration::from_millis(100);
    let mut cubic = reduced(2000);
    cubic.timeout(1_400_000);
    while cubic.cwnd() < 980_000 {
        cubic.acked(1000, Duration::ZERO, srtt);
    }
    // K = 0: 0.4 t^3 above 980 segments, below what Reno's window grows: 0.53 for each of 20 round trips.
    let cwnd = avoid(&mut cubic, Duration::ZERO, 2.0, srtt) as f64 / 1000.0;
    assert!((cwnd - 990.6).abs() < 1.0, "{cwnd}");
}

//= rfc9438 4.3b
#[test]
fn renos_pace_starts_at_the_former_window_not_at_the_converged_one() {
    let srtt = Duration::from_millis(10);
    let mut cubic = reduced(100);
    cubic.congestion(70_000);
    assert_eq!((cubic.cwnd(), cubic.w_max), (49_000, 59_500.0));
    // 49 to 70 segments by 0.53 each: 40 round trips, though W_max is reached after 20.
    let cwnd = avoid(&mut cubic, Duration::ZERO, 0.3, srtt) as f64 / 1000.0;
    assert!((cwnd - 49.0 - 30.0 * 0.9 / 1.7).abs() < 0.5, "{cwnd}");
}

//= rfc9438 4.2c
#[test]
fn time_without_use_does_not_count() {
    let srtt = Duration::from_millis(100);
    let (mut busy, mut idle) = (reduced(2000), reduced(2000));
    let second = |cubic: &mut Cubic, start| avoid(cubic, start, 1.0, srtt);
    assert_eq!(
        second(&mut busy, Duration::ZERO),
        second(&mut idle, Duration::ZERO)
    );
    let used = Duration::from_millis(900);
    for seconds in 1..20 {
        idle.unused(used + Duration::from_secs(seconds));
    }
    assert_eq!(
        second(&mut busy, Duration::from_secs(1)),
        second(&mut idle, Duration::from_secs(20))
    );
}

//= rfc9438 4.8a
//= rfc5681 3.1h, 4.1a
#[test]
fn timeout_falls_to_one_segment_and_idle_to_the_initial_window() {
    let mut cubic = Cubic::new(1460);
    let initial = cubic.cwnd();
    assert_eq!(initial, 14_600);
    cubic.acked(100_000, Duration::ZERO, Duration::from_millis(1));
    cubic.idle();
    assert_eq!(cubic.cwnd(), initial);
    cubic.timeout(50_000);
    assert_eq!(cubic.cwnd(), 1460);
}
