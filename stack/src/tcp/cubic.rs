//! Congestion control: slow start (RFC 5681) and CUBIC (RFC 9438). Starts afresh after a recovery.

use std::time::Duration;

/// RFC 9438, section 4.6: beta_cubic.
//= rfc9438 4.6a
const BETA: f64 = 0.7;
/// RFC 9438, section 5: C, in segments per second cubed.
//= rfc9438 5a
const C: f64 = 0.4;

#[derive(Debug, Clone)]
pub(crate) struct Cubic {
    mss: usize,
    cwnd: usize,
    ssthresh: usize,
    /// W_max, in bytes; after a timeout 0 until the next stage begins.
    w_max: f64,
    /// cwnd_prior: the window when ssthresh was last set, in bytes.
    cwnd_prior: f64,
    /// Reno's window for the Reno-friendly region, in bytes.
    w_est: f64,
    epoch: Option<Epoch>,
}

/// The current congestion avoidance stage.
#[derive(Debug, Clone)]
struct Epoch {
    start: Duration,
    /// Until when the window was in use.
    used: Duration,
    k: f64,
}

impl Cubic {
    pub(crate) fn new(mss: usize) -> Cubic {
        Cubic {
            mss,
            cwnd: initial_window(mss),
            ssthresh: usize::MAX,
            w_max: 0.0,
            cwnd_prior: 0.0,
            w_est: 0.0,
            epoch: None,
        }
    }

    pub(crate) fn cwnd(&self) -> usize {
        self.cwnd
    }

    /// Shrinks the window with the segment size of the path (RFC 5681, section 3.1).
    //= rfc5681 3.1j
    pub(crate) fn shrink_mss(&mut self, mss: usize) {
        self.cwnd = (self.cwnd * mss / self.mss).max(mss);
        self.mss = mss;
    }

    /// `acked` bytes were acknowledged while the congestion window was the limit.
    pub(crate) fn acked(&mut self, acked: usize, now: Duration, srtt: Duration) {
        if self.cwnd < self.ssthresh {
            //= rfc5681 3.1a, 3.1f
            // RFC 5681, section 3.1, with RFC 9438, section 4.10's room for byte counting: acknowledgements come for
            // many segments at once here.
            self.cwnd = self.cwnd.saturating_add(acked).min(MAX);
            return;
        }
        let mss = self.mss as f64;
        let cwnd = self.cwnd as f64;
        let epoch = self.epoch.get_or_insert_with(|| {
            self.w_est = cwnd;
            //= rfc9438 4.8b
            // RFC 9438, section 4.8: after a timeout the curve begins at its plateau.
            self.w_max = self.w_max.max(cwnd);
            Epoch {
                start: now,
                used: now,
                // RFC 9438, figure 2.
                //= rfc9438 4.2a
                k: ((self.w_max - cwnd) / mss / C).cbrt(),
            }
        });
        epoch.used = now;
        // RFC 9438, figure 1, one round-trip time ahead (section 4.4).
        let t = (now.saturating_sub(epoch.start) + srtt).as_secs_f64();
        let target = C * (t - epoch.k).powi(3) * mss + self.w_max;
        //= rfc9438 4.2b
        let target = target.clamp(cwnd, cwnd * 1.5);
        // RFC 9438, section 4.3: alpha is 1 once W_est is past the window at the last event.
        //= rfc9438 4.3b
        let alpha = if self.w_est >= self.cwnd_prior {
            1.0
        } else {
            3.0 * (1.0 - BETA) / (1.0 + BETA)
        };
        self.w_est += alpha * mss * acked as f64 / cwnd;
        //= rfc9438 4.3a, 4.4a
        let next = (cwnd + (target - cwnd) * acked as f64 / cwnd).max(self.w_est);
        self.cwnd = (next as usize).min(MAX);
    }

    /// Notes that the window does not limit the connection: this time does not count (RFC 9438, section 4.2).
    //= rfc9438 4.2c
    pub(crate) fn unused(&mut self, now: Duration) {
        if let Some(epoch) = &mut self.epoch {
            epoch.start += now.saturating_sub(epoch.used);
            epoch.used = now;
        }
    }

    /// Loss was found with `flight` bytes outstanding (RFC 9438, sections 4.6 and 4.7).
    //= rfc9438 4.6b, 4.7a
    //= rfc5681 3.1g
    pub(crate) fn congestion(&mut self, flight: usize) {
        let cwnd = self.cwnd as f64;
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.cwnd_prior = cwnd;
        let reduced = (flight.min(self.cwnd) as f64 * BETA) as usize;
        self.ssthresh = reduced.max(2 * self.mss);
        self.cwnd = self.ssthresh;
        self.epoch = None;
    }

    /// The retransmission timer went off (RFC 5681, section 3.1; RFC 9438, section 4.8).
    //= rfc9438 4.8a
    //= rfc5681 3.1h
    pub(crate) fn timeout(&mut self, flight: usize) {
        self.congestion(flight);
        self.cwnd = self.mss;
        self.w_max = 0.0;
    }

    /// RFC 5681, section 3.1: our SYN was lost, so begin with one segment.
    //= rfc5681 3.1d
    pub(crate) fn handshake_timed_out(&mut self) {
        self.cwnd = self.mss;
    }

    /// RFC 5681, section 4.1: idle for longer than a retransmission timeout.
    //= rfc5681 4.1a
    pub(crate) fn idle(&mut self) {
        self.cwnd = self.cwnd.min(initial_window(self.mss));
        self.epoch = None;
    }
}

/// More than any peer's window: keeps the arithmetic within bounds.
const MAX: usize = 1 << 30;

/// RFC 6928.
//= rfc5681 3.1b
fn initial_window(mss: usize) -> usize {
    (10 * mss).min((2 * mss).max(14_600))
}

#[cfg(test)]
mod tests {
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
}
