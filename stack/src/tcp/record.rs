//! Records of a connection; its durable state is their fold.

use serde::{Deserialize, Serialize};

use crate::{Path, Seq};

/// State of a connection (RFC 9293, section 3.3.2). FIN-WAIT-1 and LAST-ACK begin when the FIN is queued, since its
/// sequence number is fixed then. LISTEN is a port of the configuration; we never connect, so there is no SYN-SENT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the RFC's names
pub enum State {
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// The options that the two SYNs agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Largest segment the peer takes, bytes of payload and options (RFC 9293, section 3.7.1).
    pub peer_mss: u16,
    /// Shifts of the windows the peer and we send (RFC 7323, section 2); `None` if either left the option out.
    pub window_scale: Option<(u8, u8)>,
    /// The peer takes SACK options (RFC 2018).
    pub sack: bool,
    /// Every segment carries a timestamp (RFC 7323, section 3).
    pub timestamps: bool,
}

/// A snapshot of a connection's durable state without its queued bytes. Applying it leaves both queues empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Addresses and ports.
    pub path: Path,
    /// State.
    pub state: State,
    /// What the SYNs agreed on.
    pub options: Options,
    /// Offset that is added to service time, in milliseconds, to make TSval (RFC 7323, section 5.4).
    pub ts_offset: u32,
    /// Our initial sequence number.
    pub iss: Seq,
    /// The peer's.
    pub irs: Seq,
    /// Oldest unacknowledged sequence number.
    pub snd_una: Seq,
    /// Window the peer offers, bytes.
    pub snd_wnd: u32,
    /// Sequence number of the segment that last updated the window.
    pub snd_wl1: Seq,
    /// Acknowledgement number of that segment.
    pub snd_wl2: Seq,
    /// Next sequence number expected.
    pub rcv_nxt: Seq,
    /// Right edge of the window offered to the peer: the first sequence number beyond it.
    pub rcv_edge: Seq,
    /// The last acknowledgement number recorded as sent (`Last.ACK.sent` of RFC 7323). It leaves after the commit, so a
    /// crash may have prevented it.
    pub last_ack_sent: Seq,
    /// The acknowledgement number sent before that: the peer's SND.UNA is one of the two (RFC 6069).
    pub prior_ack_sent: Seq,
    /// The peer's latest timestamp (`TS.Recent`).
    pub ts_recent: u32,
    /// Our FIN follows the queued bytes, and is not acknowledged yet.
    pub fin_queued: bool,
}

impl Checkpoint {
    /// Describes a contradiction that no real connection can have, so that a damaged log is refused. `None`: there is
    /// none.
    pub fn contradiction(&self) -> Option<&'static str> {
        let Path { local, remote, .. } = self.path;
        if local.is_ipv4() != remote.is_ipv4() {
            return Some("addresses of two families");
        }
        // RFC 7323, section 2.3: a larger shift is taken for 14 when the SYN comes.
        if let Some((theirs, ours)) = self.options.window_scale
            && theirs.max(ours) > 14
        {
            return Some("a window scale beyond 14");
        }
        (self.state == State::Closed).then_some("a connection that is closed")
    }
}

/// An acknowledgement of `rcv_nxt`, which leaves after this commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Right edge of the window it offers.
    pub edge: Seq,
    /// The acknowledgement recorded before has been sent; if not, this one replaces it.
    pub next: bool,
}

/// A change of a connection's durable state. Bulk bytes are its data part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The connection exists, or is written again: a snapshot. Both queues are empty after it.
    Opened(Box<Checkpoint>),
    /// The handshake is complete.
    Established,
    /// Data: in-order bytes. `rcv_nxt` advances by their number.
    Received {
        /// The peer's timestamp, if it updates TS.Recent (RFC 7323, section 4.3).
        ts_recent: Option<u32>,
        /// All of it is acknowledged at once.
        promise: Option<Promise>,
    },
    /// An acknowledgement, or a window update.
    Promised(Promise),
    /// The application consumed bytes of the receive queue.
    Consumed(u32),
    /// Data: bytes for the send queue.
    Sent {
        /// The acknowledgement that these bytes carry.
        promise: Option<Promise>,
    },
    /// Point 4: the peer acknowledged bytes, or changed its window.
    Acked {
        /// Oldest unacknowledged sequence number.
        snd_una: Seq,
        /// Window the peer offers, bytes.
        snd_wnd: u32,
        /// Sequence number of the segment that carried the window.
        snd_wl1: Seq,
        /// Its acknowledgement number.
        snd_wl2: Seq,
        /// The peer's timestamp, if it updates TS.Recent.
        ts_recent: Option<u32>,
    },
    /// The peer's FIN is in order: `rcv_nxt` advances by one.
    PeerFinished,
    /// Our FIN follows what is queued.
    FinQueued,
    /// The peer's frames now come from another Ethernet address.
    Moved([u8; 6]),
    /// Relocation. Data: bytes that were in the receive queue. `rcv_nxt` stays.
    RequeuedReceived,
    /// Relocation. Data: bytes that were in the send queue.
    RequeuedSent,
    /// The connection is gone.
    Closed,
}
