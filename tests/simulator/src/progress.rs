//! Checks that a client makes progress after a restart of the server: if it has something outstanding (bytes that are
//! not acknowledged, or a request that is not answered and does not wait by design), some of it must be acknowledged or
//! answered within a second of service time.
//!
//! If the machine keeps all frames, including those that the server had read, nothing is lost, and the client has
//! nothing to wait for. If frames are lost, the client sends them again when its retransmission timer expires: after a
//! second (RFC 6298, 2.4), or, if it had retransmitted before, after twice as long each time (5.5). A server that has
//! restarted can make a sender retransmit earlier (RFC 6069), but smoltcp ignores ICMP. So its own timer is an excuse
//! as far as RFC 6298 lets it run: twice the silence before the restart. Frames that the wire has lost would be another
//! excuse, so progress is checked only where the wire loses none.
//!
//! In a scenario of busy uploads the room for receive windows is granted to one message after the other. So a client
//! may also wait for the timer of another client, whose message was granted room and lost a segment; smoltcp restarts
//! that timer with each segment that it sends.

use std::time::Duration;

/// The minimum of the retransmission timer (RFC 6298, 2.4).
const RTO_MIN: Duration = Duration::from_secs(1);
/// The time that the server may take.
const ALLOWED: Duration = Duration::from_secs(1);
/// The time that the server may take where no frame is lost: less than a timer that would repeat a lost frame after
/// all.
const ALLOWED_LOSSLESS: Duration = Duration::from_millis(500);

/// The number of timers that a client may wait for in sequence if clients share the room for windows: its own, and
/// that of another client twice.
const TIMERS_OF_SHARERS: u32 = 3;

/// The progress of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of its own bytes that are acknowledged.
    pub acknowledged: usize,
    /// The number of bytes received from the server.
    pub received: usize,
    /// It waits for the server.
    pub is_waiting: bool,
}

/// Checks the progress of one client.
#[derive(Debug, Default)]
pub struct Progress {
    last: Position,
    /// The time at which it last made progress, or did not wait.
    at: Duration,
    /// The longest time that it has waited: a timer that has backed off stays so until a round trip is measured (RFC
    /// 6298, 3).
    longest: Duration,
    /// The room for receive windows is too small for all clients.
    shares_room: bool,
}

impl Progress {
    /// Begins to check a client. `shares_room`: the room for receive windows is too small for all clients.
    #[must_use]
    pub fn new(shares_room: bool) -> Progress {
        Progress {
            shares_room,
            ..Progress::default()
        }
    }

    /// Checks the present position. `outages`: the beginning and end of each outage; `frames_lost`: the frames sent
    /// meanwhile are lost.
    ///
    /// # Errors
    /// The client has waited too long since the restart: the time.
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
        // A newcomer is not checked before it begins to connect.
        if moves || !position.is_waiting || !last.is_waiting {
            (self.last, self.at) = (position, now);
        }
        self.last.is_waiting = position.is_waiting;
        let back = outages.last().map(|(_, end)| *end);
        let Some(back) = back.filter(|back| last.is_waiting && at < *back && *back <= now) else {
            return Ok(());
        };
        let waited = now - back;
        // If there were two outages since the last progress, the timer may have backed off in the first one.
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
