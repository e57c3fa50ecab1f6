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
mod tests;
