//! Does a client go on when the server is back? What it has outstanding (bytes that are not acknowledged, a request
//! that is not answered and does not wait by design) must make progress within a second of service time.
//!
//! Where the machine keeps all frames, those too that the server had read, nothing is lost, and nothing is to be waited
//! for. Where it loses them the client sends them again when its timer says so: after a second (RFC 6298, 2.4), or, if
//! it had sent them again before, after twice as long each time (5.5). A server that is back can call a sender back
//! before that (RFC 6069), but smoltcp does not look at ICMP. So its own timer is an excuse as far as RFC 6298 lets it
//! run: twice the silence before the return. In a scenario of busy uploads the room for receive windows is granted to one
//! message after the other, so a client may also wait for the timer of another one, whose message was granted room and
//! lost a segment; smoltcp starts that timer anew with each segment that it sends.
//! A frame that the wire has lost is one, too: only where it loses none is anything said.

use std::time::Duration;

/// The timer's shortest time (RFC 6298, 2.4).
const RTO_MIN: Duration = Duration::from_secs(1);
/// What the server may take.
const ALLOWED: Duration = Duration::from_secs(1);
/// The same where no frame is lost: less than a timer takes that would repeat what has been lost after all.
const ALLOWED_LOSSLESS: Duration = Duration::from_millis(500);

/// So many timers a client may wait for, one after the other, if clients share the room for windows: its own, and the
/// one of another client twice.
const TIMERS_OF_SHARERS: u32 = 3;

/// What a client has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bytes of its own that are acknowledged.
    pub acknowledged: usize,
    /// Bytes of the server's.
    pub received: usize,
    /// It waits for the server.
    pub is_waiting: bool,
}

/// Watches a client.
#[derive(Debug, Default)]
pub struct Progress {
    last: Position,
    /// When it last made progress, or did not wait.
    at: Duration,
    /// For how long it has waited at most: a timer that has backed off stays so until a round trip is measured (RFC
    /// 6298, 3).
    longest: Duration,
    /// The room for receive windows is too small for all clients.
    shares_room: bool,
}

impl Progress {
    /// Begins to watch. `shares_room`: the room for receive windows is too small for all clients.
    #[must_use]
    pub fn new(shares_room: bool) -> Progress {
        Progress {
            shares_room,
            ..Progress::default()
        }
    }

    /// Looks at where it is now. `outages`: when the server was not there; `frames_lost`: what was sent meanwhile is
    /// lost.
    ///
    /// # Errors
    /// It has been waiting for too long since the server came back: for how long.
    pub fn look(
        &mut self,
        position: Position,
        now: Duration,
        outages: &[(Duration, Duration)],
        frames_lost: bool,
    ) -> Result<(), Duration> {
        let (last, at, longest) = (self.last, self.at, self.longest);
        let moves = Position {
            is_waiting: false,
            ..position
        } != Position {
            is_waiting: false,
            ..last
        };
        if last.is_waiting && moves {
            self.longest = longest.max(now - at);
        }
        // A newcomer is not looked at before it begins to connect.
        if moves || !position.is_waiting || !last.is_waiting {
            (self.last, self.at) = (position, now);
        }
        self.last.is_waiting = position.is_waiting;
        let back = outages.last().map(|(_, end)| *end);
        let Some(back) = back.filter(|back| last.is_waiting && at < *back && *back <= now) else {
            return Ok(());
        };
        let waited = now - back;
        // With a second outage the timer may have backed off in the first one.
        let outages_since = outages.iter().filter(|(_, end)| *end > at).count();
        let timers = match self.shares_room {
            true => TIMERS_OF_SHARERS,
            false => 1,
        };
        let allowed = match outages_since == 1 && !frames_lost {
            true => ALLOWED_LOSSLESS,
            false => ALLOWED + RTO_MIN.max((back - at).max(longest) * 2) * timers,
        };
        match waited <= allowed {
            true => Ok(()),
            false => Err(waited),
        }
    }
}
