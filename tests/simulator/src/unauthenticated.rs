//! Simulates an unauthenticated client: it sends nothing, or begins a message and stops. The server must disconnect it
//! in time (`src/server/eviction.rs`), and not earlier: in service time, which does not advance during an outage.

use std::time::Duration;

use smoltcp::socket::tcp;

use crate::board::Board;

/// The time after which the server disconnects it.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The maximum delay until it is disconnected: the server checks such clients four times in that time, and the frames
/// that it sends then may be lost, so that only the answer to a keep-alive probe ends the connection; a dozen of these
/// may be lost, too.
const DELAY: Duration = Duration::from_secs(900);
/// The interval of its keep-alive probes.
pub const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
/// The time for which it waits for the acknowledgement of its FIN.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
/// The client's port.
pub const PORT: u16 = 50_000;
/// The beginning of a message of 100 bytes.
const BEGINNING: &[u8] = b"\0\0\0\x64\xfeSMB\x40\0";

/// The behaviour of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// It sends nothing.
    Silent,
    /// It begins a message.
    Halting,
}

/// The connection of the client.
pub struct Visit {
    how: Unauthenticated,
    begun: Option<Duration>,
    is_due: bool,
    closing: Option<Duration>,
    is_over: bool,
}

impl Visit {
    /// Makes a client that has not connected yet.
    #[must_use]
    pub fn new(how: Unauthenticated) -> Visit {
        Visit {
            how,
            begun: None,
            is_due: false,
            closing: None,
            is_over: false,
        }
    }

    /// Returns whether the server may disconnect it now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Returns whether its connection is closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sends and receives what is due now.
    ///
    /// # Panics
    /// It is disconnected too early or too late.
    pub fn exchange(&mut self, socket: &mut tcp::Socket<'_>, now: Duration, board: &Board) {
        let begun = match self.begun {
            Some(begun) => begun,
            None if socket.may_send() => {
                if self.how == Unauthenticated::Halting {
                    let sent = socket.send_slice(BEGINNING);
                    assert_eq!(sent, Ok(BEGINNING.len()), "room in an empty queue");
                }
                *self.begun.insert(now)
            }
            None => return,
        };
        self.is_due = board.served(begun, now) >= PATIENCE;
        if self.closing.is_none() && !socket.may_recv() {
            self.disconnected(begun, now, board);
            socket.close();
            self.closing = Some(now);
        }
        // The other clients do the same (`net.rs`).
        if self
            .closing
            .is_some_and(|since| now > since + CLOSE_TIMEOUT)
        {
            socket.abort();
        }
        self.is_over = self.closing.is_some() && socket.state() == tcp::State::Closed;
    }

    fn disconnected(&self, begun: Duration, now: Duration, board: &Board) {
        let how = self.how;
        assert!(
            self.is_due,
            "a client that does not log in ({how:?}) is disconnected after {:?} of service time",
            board.served(begun, now)
        );
        // Each life of the server restarts the time limit.
        let since = board
            .outages
            .last()
            .map_or(begun, |(_, end)| begun.max(*end));
        assert!(
            now <= since + PATIENCE + DELAY,
            "a client that does not log in ({how:?}) is disconnected only after {:?}",
            now - since
        );
    }
}
