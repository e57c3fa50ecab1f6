//! Events for the application, and the state of the connections.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::{ConnId, Seq, State};

/// Something the application may want to act on. Events are hints about the durable state and are not saved: after a
/// recovery the application looks at every connection once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete.
    Accepted(ConnId),
    /// Bytes were added to [`Stack::received`](crate::Stack::received).
    Readable(ConnId),
    /// The peer acknowledged bytes: the send queue shrank.
    Writable(ConnId),
    /// The peer sends no more; what it sent before is in `received`.
    PeerFinished(ConnId),
    /// Something disturbs the connection, which stays (RFC 9293, section 3.9.1.8).
    Trouble(ConnId, Trouble),
    /// The connection is gone, and `Record::Closed` is in the journal. Also for connections never reported as accepted.
    Closed(ConnId, Why),
}

/// One event stands for a burst of its kind.
pub(crate) fn push_once(events: &mut Vec<Event>, event: Event) {
    if events.last() != Some(&event) {
        events.push(event);
    }
}

/// What disturbs a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A router or the peer's host reported it: ICMP or ICMPv6 type and code.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Sent data stays unacknowledged after several retransmissions (R1 of RFC 9293, section 3.8.3).
    Unacknowledged,
}

/// Why a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Both sides finished.
    Finished,
    /// The peer reset it.
    Reset,
    /// The peer answered neither retransmissions nor probes.
    TimedOut,
    /// [`Stack::abort`](crate::Stack::abort).
    Aborted,
    /// Its own address is not the server's any more.
    AddressLost,
    /// The handshake was not completed in time, or the connection was closed to make room for others.
    NeverOpened,
}

/// Current levels against the limits of [`Config`](crate::Config), and counters since the stack was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Connections, in any state.
    pub connections: usize,
    /// Those in SYN-RECEIVED.
    pub half_open: usize,
    /// Those in TIME-WAIT.
    pub time_wait: usize,
    /// Bytes of out-of-order segments.
    pub out_of_order: usize,
    /// SYNs answered with a cookie.
    pub cookies_sent: u64,
    /// Connections made from cookies.
    pub cookies_accepted: u64,
    /// SYNs dropped because there were too many connections.
    pub refused: u64,
    /// Connections closed to make room for newer ones.
    pub displaced: u64,
    /// Out-of-order segments dropped for lack of room.
    pub out_of_order_dropped: u64,
    /// Bytes that are queued for the application or offered to peers, over all connections.
    pub receive_held: usize,
    /// In-order segments within a window that were dropped for lack of room in the journal. Only an attack causes this.
    pub in_window_dropped: u64,
}

/// How far a connection has got. Two samples show whether it advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Oldest unacknowledged sequence number.
    pub snd_una: Seq,
    /// Next sequence number expected.
    pub rcv_nxt: Seq,
    /// When, in service time, the journal last had no room for something the peer sent; `None`: not since the start.
    pub refused_at: Option<Duration>,
}

/// One connection as `outlast status` shows it. Sequence numbers are absolute, names those of RFC 9293.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnStatus {
    /// Id of the connection's object.
    pub conn: ConnId,
    /// Address and port of the peer.
    pub client: SocketAddr,
    /// Our address and port.
    pub server: SocketAddr,
    /// State by its RFC name, for example `ESTABLISHED`.
    pub state: &'static str,
    /// Oldest unacknowledged sequence number.
    pub snd_una: u32,
    /// Next sequence number to be sent.
    pub snd_nxt: u32,
    /// Window the peer offers, bytes.
    pub snd_wnd: u32,
    /// Next sequence number expected.
    pub rcv_nxt: u32,
    /// Window we offer, bytes.
    pub rcv_wnd: u32,
    /// Bytes queued that the peer has not acknowledged, sent or not.
    pub unacked_bytes: usize,
    /// Bytes received in order that the application has not consumed.
    pub queued_bytes: usize,
    /// Smoothed round-trip time, microseconds; `None` before the first sample since the start or recovery.
    pub srtt_us: Option<u64>,
    /// Congestion window, bytes.
    pub cwnd: usize,
}

impl State {
    /// The name of the state in RFC 9293.
    pub fn name(self) -> &'static str {
        match self {
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
            State::Closed => "CLOSED",
        }
    }
}
