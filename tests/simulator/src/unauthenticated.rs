//! A stranger: a client that goes no further. It says nothing, or begins a message and stops. The server is to be rid of it in time
//! (`src/server/eviction.rs`), and not before: in service time, of which an outage is no part.

use std::time::Duration;

use smoltcp::socket::tcp;

use crate::board::Board;

/// How long the server waits for it.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How much later it is disconnected, at most: the server looks at such clients four times in that time, and the frames
/// that it sends then may be lost, so that only the answer to a probe ends the connection; a dozen of these may be lost, too.
const DELAY: Duration = Duration::from_secs(900);
/// How often it probes.
pub const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);
/// How long it waits for the acknowledgement of its FIN.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
/// Its port.
pub const PORT: u16 = 50_000;
/// A message of 100 bytes, which ends after 6.
const BEGINNING: &[u8] = b"\0\0\0\x64\xfeSMB\x40\0";

/// How far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// It sends nothing.
    Silent,
    /// It begins a message.
    Halting,
}

/// Its connection.
pub struct Visit {
    how: Unauthenticated,
    begun: Option<Duration>,
    is_due: bool,
    closing: Option<Duration>,
    is_over: bool,
}

impl Visit {
    /// It is about to connect.
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

    /// May the server disconnect it now?
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Is its connection closed?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// What it does now.
    ///
    /// # Panics
    /// It is disconnected too early, or too late.
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
        // As the others do (`net.rs`).
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
        // Each life of the server counts anew.
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
