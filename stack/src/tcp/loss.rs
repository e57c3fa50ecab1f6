//! Loss detection and retransmission: RFC 6675, and RFC 6582 for peers without SACK.

use super::ranges::Ranges;
use crate::Seq;

/// RFC 6675, section 2.
const DUP_THRESH: usize = 3;

/// Why bytes are being sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Duplicate acknowledgements; the congestion window stands still.
    Fast,
    /// A timeout, or our own return; slow start.
    Slow,
}

/// The scoreboard.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    sacked: Ranges,
    /// Unsacked bytes below are lost.
    lost_below: Seq,
    /// Bytes below have been retransmitted during this recovery.
    high_rxt: Seq,
    /// Recovery under way, until this point is acknowledged.
    recovery: Option<(Recovery, Seq)>,
    /// Duplicate acknowledgements of a peer without SACK: segments that have left the network.
    dup_acks: usize,
    /// DupAcks of RFC 6675: acknowledgements that reported something new above SND.UNA since it last advanced.
    reports: usize,
}

impl Loss {
    /// Nothing outstanding is known to be lost.
    pub(crate) fn new(snd_una: Seq) -> Loss {
        Loss {
            sacked: Ranges::default(),
            lost_below: snd_una,
            high_rxt: snd_una,
            recovery: None,
            dup_acks: 0,
            reports: 0,
        }
    }

    pub(crate) fn recovery(&self) -> Option<Recovery> {
        self.recovery.map(|(kind, _)| kind)
    }

    /// RFC 6675, section 4: `SetPipe`.
    //= rfc6675 4b
    pub(crate) fn pipe(&self, snd_una: Seq, snd_nxt: Seq, mss: usize) -> usize {
        let from = self.high_rxt.max(snd_una);
        let lost = self
            .lost_below
            .since(from)
            .saturating_sub(self.sacked.covered(from, self.lost_below));
        snd_nxt
            .since(snd_una)
            .saturating_sub(self.sacked.covered(snd_una, snd_nxt))
            .saturating_sub(lost)
            .saturating_sub(self.dup_acks * mss)
    }

    /// RFC 6675, section 4: `NextSeg`, rule 1.
    //= rfc6675 4c
    pub(crate) fn next_lost(&self, snd_una: Seq) -> Option<(Seq, Seq)> {
        self.sacked
            .hole(self.high_rxt.max(snd_una), self.lost_below)
    }

    pub(crate) fn retransmitted(&mut self, to: Seq) {
        self.high_rxt = self.high_rxt.max(to);
    }

    /// Records that the peer holds `[from, to)`; true if that is new.
    pub(crate) fn sack(&mut self, from: Seq, to: Seq) -> bool {
        self.sacked.insert(from, to)
    }

    /// Counts an acknowledgement that reported something new.
    pub(crate) fn reported(&mut self) {
        self.reports += 1;
    }

    /// The peer holds bytes above a hole.
    pub(crate) fn reordered(&self) -> bool {
        !self.sacked.is_empty()
    }

    /// Counts a segment that has left the network; after a timeout it may be an unnecessary retransmission (RFC 6582,
    /// section 4).
    //= rfc6582 4a
    pub(crate) fn duplicate_ack(&mut self) {
        if self.recovery() != Some(Recovery::Slow) {
            self.dup_acks += 1;
        }
    }

    /// Handles an acknowledgement up to `snd_una`, of which `acked` bytes are new. True if the segment there is lost as
    /// well, and has to be sent again whatever the window.
    pub(crate) fn acked(&mut self, snd_una: Seq, acked: usize, mss: usize, sack: bool) -> bool {
        self.sacked.drop_below(snd_una);
        //= rfc6675 5b
        self.reports = 0;
        match self.recovery {
            //= rfc6675 5g
            //= rfc6582 3.2b
            Some((_, point)) if snd_una >= point => {
                *self = Loss {
                    sacked: std::mem::take(&mut self.sacked),
                    ..Loss::new(snd_una)
                }
            }
            Some((Recovery::Fast, point)) if !sack => {
                //= rfc6582 3.2c
                // RFC 6582, section 3.2, step 3: a partial acknowledgement; the next segment is lost too.
                self.dup_acks = self
                    .dup_acks
                    .saturating_sub((acked / mss).saturating_sub(1));
                self.high_rxt = snd_una;
                self.lost_below = (snd_una + mss).min(point);
                return true;
            }
            Some(_) => {}
            None => {
                self.dup_acks = 0;
                self.lost_below = snd_una;
                self.high_rxt = snd_una;
            }
        }
        false
    }

    /// Detects losses; true if fast recovery begins.
    ///
    /// `more`: new data could be sent; if not, few outstanding segments lower the threshold (RFC 5827, section 3.1).
    pub(crate) fn detect(&mut self, snd_una: Seq, snd_nxt: Seq, mss: usize, more: bool) -> bool {
        let flight = snd_nxt.since(snd_una);
        let segments = flight.div_ceil(mss);
        //= rfc5827 3.1a, 3.1b, 3.1c, 3.1d
        let early = segments <= DUP_THRESH && !more;
        let threshold = if early {
            segments.saturating_sub(1).max(1)
        } else {
            DUP_THRESH
        };
        let first = self.sacked.iter().next().map(|(from, _)| from);
        let nearly_all = self.sacked.covered(snd_una, snd_nxt) + mss >= flight;
        let by_sack = self
            .lost_by_sack(mss)
            .or(first.filter(|_| early && nearly_all));
        if let Some(lost_below) = by_sack {
            self.lost_below = self.lost_below.max(lost_below);
        } else if self.recovery.is_none()
            && self.reports >= DUP_THRESH
            && let Some(first) = first
        {
            //= rfc6675 5c
            // RFC 6675, section 5, step 1: of short segments, for which `IsLost` does not hold.
            self.lost_below = (snd_una + mss).min(first);
        } else if self.sacked.is_empty()
            && self.recovery.is_none()
            && self.dup_acks >= threshold
            && segments > 1
        {
            self.lost_below = (snd_una + mss).min(snd_nxt);
        }
        //= rfc6675 5a
        //= rfc6582 3.2a
        let begins = self.recovery.is_none() && self.lost_below > snd_una;
        if begins {
            self.recovery = Some((Recovery::Fast, snd_nxt));
            self.high_rxt = snd_una;
        }
        begins
    }

    /// RFC 6675, section 4: `IsLost`. The position below which it holds for every unsacked byte.
    //= rfc6675 4a
    fn lost_by_sack(&self, mss: usize) -> Option<Seq> {
        let (mut ranges, mut bytes) = (0, 0);
        for (from, to) in self.sacked.iter().rev() {
            ranges += 1;
            bytes += to.since(from);
            if ranges >= DUP_THRESH || bytes > (DUP_THRESH - 1) * mss {
                return Some(from);
            }
        }
        None
    }

    /// Treats everything outstanding as lost, after a timeout or after an outage, and forgets what SACK reported (RFC
    /// 2018, section 8).
    //= rfc2018 5c, 5.1b, 5d
    //= rfc6675 5.1a
    pub(crate) fn all_lost(&mut self, snd_una: Seq, snd_nxt: Seq) {
        self.sacked.clear();
        self.dup_acks = 0;
        self.lost_below = snd_nxt;
        self.high_rxt = snd_una;
        self.recovery = Some((Recovery::Slow, snd_nxt));
    }

    /// Treats everything sent from `seq` on as lost, since the path takes smaller segments only (RFC 1191, section
    /// 6.4).
    pub(crate) fn too_big(&mut self, snd_una: Seq, snd_nxt: Seq) {
        self.lost_below = snd_nxt;
        self.high_rxt = snd_una;
        self.recovery.get_or_insert((Recovery::Slow, snd_nxt));
    }
}

#[cfg(test)]
mod tests;
