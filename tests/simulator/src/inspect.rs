//! Checks every frame that leaves the server: no reset; no FIN without reason; nothing that is not committed; no byte
//! with two values; no right edge that moves left; no timestamp that decreases.

use std::collections::BTreeMap;

use crate::promises::{Leaving, Promises};
use outlast_stack::{Checkpoint, Seq, Stack, TxFrame};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpOption, TcpPacket,
};

/// What the frames of a connection have shown.
#[derive(Debug, Default)]
struct Stream {
    /// The sequence number of the server's SYN.
    iss: Option<u32>,
    /// All bytes sent, from the one after the SYN on.
    bytes: Vec<u8>,
    edge: Option<Seq>,
    /// The shift of the window scale option (RFC 7323, section 2).
    shift: u8,
    tsval: Option<u32>,
}

/// Checks every frame.
#[derive(Debug, Default)]
pub struct Inspector {
    /// The connections, by the client's port.
    streams: BTreeMap<u16, Stream>,
    /// What the server has promised to the clients.
    pub promises: Promises,
}

/// Facts about a connection that its frames do not show.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The connection may end: the client has sent its FIN, or the time for its login is over.
    pub may_end: bool,
    /// The client has lost what it had by a new configuration, and may receive a reset if it continues to send.
    pub may_reset: bool,
    /// An elective reboot is in progress: a window of zero may be announced.
    pub draining: bool,
    /// Frames leave in the same turn.
    pub at_once: bool,
}

impl Inspector {
    /// Checks a frame that is about to leave. `committed`: the committed state of TCP, if it is checked.
    ///
    /// # Panics
    /// The frame must not leave.
    pub fn look(
        &mut self,
        frame: &TxFrame,
        committed: Option<&Stack>,
        known: impl Fn(u16) -> Known,
    ) {
        let ethernet = EthernetFrame::new_checked(&frame.header[..]).expect("a frame");
        let (protocol, header_len) = match ethernet.ethertype() {
            EthernetProtocol::Ipv4 => {
                let ip = Ipv4Packet::new_unchecked(ethernet.payload());
                (ip.next_header(), usize::from(ip.header_len()))
            }
            EthernetProtocol::Ipv6 => {
                let ip = Ipv6Packet::new_unchecked(ethernet.payload());
                (ip.next_header(), ip.header_len())
            }
            _ => return,
        };
        if protocol != IpProtocol::Tcp {
            return;
        }
        let header = &ethernet.payload()[header_len..];
        let tcp = TcpPacket::new_checked(header).expect("a segment");
        let port = tcp.dst_port();
        let known = known(port);
        let on_record = committed.and_then(|committed| {
            let mut connections = committed.connections();
            let (conn, ..) = connections.find(|(_, remote, _)| remote.port() == port)?;
            committed.checkpoint(conn)
        });
        if tcp.rst() {
            // The client has sent something for a connection that both sides have closed (RFC 9293, section 3.10.7.1).
            assert!(
                known.may_reset || (known.may_end && on_record.is_none()),
                "a reset is sent to port {port}"
            );
            return;
        }
        assert!(tcp.ack(), "a segment without acknowledgement");
        assert!(
            !tcp.fin() || known.may_end,
            "a FIN without reason is sent to port {port}"
        );
        let stream = self.streams.entry(port).or_default();
        // A SYN that the network has duplicated may arrive after the end of the connection, and begins another one.
        if tcp.syn() && known.may_end {
            *stream = Stream::default();
        }
        stream.sequence(&tcp, &frame.payload.concat());
        let leaving = Leaving {
            tcp: &tcp,
            is_empty: frame.payload.is_empty() && !tcp.fin(),
            edge: stream.edge_of(&tcp),
        };
        self.promises.leaves(&leaving, known.at_once);
        stream.window(&tcp, known.draining);
        stream.timestamp(&tcp);
        if committed.is_some() {
            match on_record {
                Some(on_record) => stream.is_on_record(&tcp, &on_record),
                // The last acknowledgement leaves when the connection has been removed.
                None => assert!(
                    known.may_end,
                    "a segment of a connection that is not on record"
                ),
            }
        }
    }
}

impl Stream {
    fn sequence(&mut self, tcp: &TcpPacket<&[u8]>, payload: &[u8]) {
        let seq = tcp.seq_number().0 as u32;
        if tcp.syn() {
            let iss = *self.iss.get_or_insert(seq);
            assert_eq!(iss, seq, "two initial sequence numbers");
            self.shift = 0;
            return;
        }
        let Some(iss) = self.iss else { return };
        let at = seq.wrapping_sub(iss.wrapping_add(1)) as i32;
        if at < 0 {
            // A keep-alive probe.
            assert!(payload.len() <= 1, "data before the stream's beginning");
            return;
        }
        let at = at as usize;
        // A segment without data may have the number that follows everything queued, whether sent or not.
        let is_bare = payload.is_empty() && !tcp.fin();
        assert!(
            is_bare || at <= self.bytes.len() + 1,
            "a gap in the data sent"
        );
        for (at, byte) in (at..).zip(payload) {
            match self.bytes.get(at) {
                Some(before) => assert_eq!(before, byte, "byte {at} is sent with two values"),
                None => self.bytes.push(*byte),
            }
        }
    }

    fn window(&mut self, tcp: &TcpPacket<&[u8]>, draining: bool) {
        if tcp.syn() {
            self.shift = window_scale(tcp).unwrap_or(0);
        }
        let edge = self.edge_of(tcp);
        let last = self.edge.unwrap_or(edge);
        assert!(
            edge >= last || (draining && tcp.window_len() == 0),
            "the window's right edge moved left by {}",
            last - edge
        );
        self.edge = Some(last.max(edge));
    }

    /// Returns the right edge of the window that a segment offers.
    fn edge_of(&self, tcp: &TcpPacket<&[u8]>) -> Seq {
        let shift = if tcp.syn() { 0 } else { self.shift };
        Seq(tcp.ack_number().0 as u32) + (usize::from(tcp.window_len()) << shift)
    }

    /// Law 1: checks that a segment shows nothing that is not committed.
    fn is_on_record(&self, tcp: &TcpPacket<&[u8]>, on_record: &Checkpoint) {
        let ack = Seq(tcp.ack_number().0 as u32);
        assert!(
            ack <= on_record.rcv_nxt,
            "acknowledged more than is on record"
        );
        let edge = self.edge_of(tcp);
        assert!(
            edge <= on_record.rcv_edge,
            "promised more than is on record"
        );
        assert_eq!(
            self.iss,
            Some(on_record.iss.0),
            "the initial sequence number is not the one on record"
        );
    }

    fn timestamp(&mut self, tcp: &TcpPacket<&[u8]>) {
        let stamped = options(tcp).find_map(|option| match option {
            TcpOption::TimeStamp { tsval, .. } => Some(tsval),
            _ => None,
        });
        let Some(tsval) = stamped else { return };
        let last = self.tsval.unwrap_or(tsval);
        assert!(
            tsval.wrapping_sub(last) as i32 >= 0,
            "the timestamp decreases from {last} to {tsval}"
        );
        self.tsval = Some(tsval);
    }
}

fn window_scale(tcp: &TcpPacket<&[u8]>) -> Option<u8> {
    options(tcp).find_map(|option| match option {
        TcpOption::WindowScale(shift) => Some(shift),
        _ => None,
    })
}

fn options<'a>(tcp: &TcpPacket<&'a [u8]>) -> impl Iterator<Item = TcpOption<'a>> {
    let mut rest = tcp.options();
    std::iter::from_fn(move || {
        let (after, option) = TcpOption::parse(rest).ok().filter(|_| !rest.is_empty())?;
        rest = after;
        (option != TcpOption::EndOfList).then_some(option)
    })
}
