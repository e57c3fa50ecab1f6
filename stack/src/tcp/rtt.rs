//! Round-trip time and retransmission timeout: RFC 6298.

use std::time::Duration;

/// RFC 6298 says 1 s; like most current stacks we use 200 ms, which is above every delayed acknowledgement.
//= rfc6298 2.4
const RTO_MIN: Duration = Duration::from_millis(200);
//= rfc6298 2.5
const RTO_MAX: Duration = Duration::from_secs(60);
/// RFC 6298, (2.1): before the first sample.
//= rfc6298 2.1
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298, (5.7): the same, if the handshake timed out.
//= rfc6298 5.7
const RTO_AFTER_TIMEOUT: Duration = Duration::from_secs(3);

/// The clock granularity G (RFC 6298, section 4); the timestamp clock ticks in milliseconds.
const GRANULARITY: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Default)]
pub(crate) struct Rtt {
    estimate: Option<(Duration, Duration)>,
    least: Option<Duration>,
    backoff: u32,
    handshake_timed_out: bool,
}

impl Rtt {
    /// RFC 6298, (2.2) and (2.3).
    //= rfc6298 2.2, 2.3a, 2.3b
    pub(crate) fn sample(&mut self, rtt: Duration) {
        let (srtt, rttvar) = match self.estimate {
            None => (rtt, rtt / 2),
            Some((srtt, rttvar)) => (
                srtt * 7 / 8 + rtt / 8,
                rttvar * 3 / 4 + srtt.abs_diff(rtt) / 4,
            ),
        };
        self.estimate = Some((srtt, rttvar));
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
    }

    /// The shortest sample: the way there and back, without the peer's delayed acknowledgements and full queues.
    pub(crate) fn least(&self) -> Option<Duration> {
        self.least
    }

    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.estimate.map(|(srtt, _)| srtt)
    }

    /// The timeout, backed off.
    pub(crate) fn rto(&self) -> Duration {
        let base = match self.estimate {
            None if self.handshake_timed_out => RTO_AFTER_TIMEOUT,
            None => RTO_INITIAL,
            //= rfc6298 4a
            Some((srtt, rttvar)) => (srtt + (rttvar * 4).max(GRANULARITY)).max(RTO_MIN),
        };
        (base * (1 << self.backoff.min(10))).min(RTO_MAX)
    }

    /// RFC 6298, (5.5).
    //= rfc6298 5.5
    pub(crate) fn back_off(&mut self) {
        self.backoff += 1;
    }

    /// The handshake is complete, and our SYN had to be sent more than once.
    pub(crate) fn handshake_timed_out(&mut self) {
        self.handshake_timed_out = true;
    }

    /// New data was acknowledged.
    pub(crate) fn progress(&mut self) {
        self.backoff = 0;
    }

    pub(crate) fn backed_off(&self) -> u32 {
        self.backoff
    }
}

#[cfg(test)]
mod tests;
