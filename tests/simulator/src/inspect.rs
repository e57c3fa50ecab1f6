//! What leaves the server, frame by frame: no reset, no FIN that is not owed, nothing shown that is not committed, no byte with two
//! values, no window taken back, no timestamp that goes back.

use std::collections::BTreeMap;

use outlast_stack::{Checkpoint, Seq, Stack, TxFrame};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpOption, TcpPacket,
};

/// What was seen of a connection.
#[derive(Debug, Default)]
struct Stream {
    /// Our SYN's sequence number.
    iss: Option<u32>,
    /// Every byte sent, from the one after the SYN on.
    bytes: Vec<u8>,
    edge: Option<Seq>,
    tsval: Option<u32>,
}

/// Looks at every frame.
#[derive(Debug, Default)]
pub struct Inspector {
    /// By the client's port.
    streams: BTreeMap<u16, Stream>,
}

/// What is known besides the frame.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The client has sent its FIN: one of ours is owed.
    pub fin_owed: bool,
    /// An elective reboot is under way: a window of zero may be announced.
    pub draining: bool,
}

impl Inspector {
    /// Looks at a frame about to leave. `committed`: TCP's state as it is on record.
    ///
    /// # Panics
    /// It must not leave.
    pub fn look(&mut self, frame: &TxFrame, committed: &Stack, known: impl Fn(u16) -> Known) {
        let ethernet = EthernetFrame::new_checked(&frame.header[..]).expect("a frame");
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return;
        }
        let ip = Ipv4Packet::new_unchecked(ethernet.payload());
        if ip.next_header() != IpProtocol::Tcp {
            return;
        }
        let header = &frame.header[14 + usize::from(ip.header_len())..];
        let tcp = TcpPacket::new_checked(header).expect("a segment");
        let port = tcp.dst_port();
        let known = known(port);
        let on_record = committed
            .connections()
            .find(|(_, remote, _)| remote.port() == port)
            .and_then(|(conn, ..)| committed.checkpoint(conn));
        if tcp.rst() {
            // What comes for a connection that both sides have closed (RFC 9293, section 3.10.7.1).
            assert!(
                known.fin_owed && on_record.is_none(),
                "a reset is sent to port {port}"
            );
            return;
        }
        assert!(tcp.ack(), "a segment without acknowledgement");
        assert!(
            !tcp.fin() || known.fin_owed,
            "a FIN that is not owed, to port {port}"
        );
        let Some(on_record) = on_record else {
            // The last acknowledgement of a connection that ends with it.
            assert!(known.fin_owed, "a segment of a connection that is not on record");
            return;
        };
        let stream = self.streams.entry(port).or_default();
        stream.sequence(&tcp, &frame.payload.concat(), &on_record);
        stream.window(&tcp, &on_record, known.draining);
        stream.timestamp(&tcp);
    }
}

impl Stream {
    fn sequence<T: AsRef<[u8]>>(
        &mut self,
        tcp: &TcpPacket<T>,
        payload: &[u8],
        on_record: &Checkpoint,
    ) {
        let seq = tcp.seq_number().0 as u32;
        if tcp.syn() {
            let iss = *self.iss.get_or_insert(seq);
            assert_eq!(iss, seq, "two initial sequence numbers");
            return;
        }
        assert_eq!(self.iss, Some(on_record.iss.0), "the stream's beginning moved");
        let start = on_record.iss.0.wrapping_add(1);
        let at = seq.wrapping_sub(start) as i32;
        if at < 0 {
            // A keep-alive probe.
            assert!(payload.len() <= 1, "data before the stream's beginning");
            return;
        }
        let at = at as usize;
        assert!(at <= self.bytes.len() + 1, "a gap in what is sent");
        for (at, byte) in (at..).zip(payload) {
            match self.bytes.get(at) {
                Some(before) => assert_eq!(before, byte, "byte {at} is sent with two values"),
                None => self.bytes.push(*byte),
            }
        }
    }

    fn window<T: AsRef<[u8]>>(
        &mut self,
        tcp: &TcpPacket<T>,
        on_record: &Checkpoint,
        draining: bool,
    ) {
        let ack = Seq(tcp.ack_number().0 as u32);
        assert!(
            ack <= on_record.rcv_nxt,
            "acknowledged more than is on record"
        );
        let shift = match (tcp.syn(), on_record.options.window_scale) {
            (false, Some((_, ours))) => ours,
            _ => 0,
        };
        let edge = ack + (usize::from(tcp.window_len()) << shift);
        assert!(edge <= on_record.rcv_edge, "promised more than is on record");
        let last = self.edge.unwrap_or(edge);
        assert!(
            edge >= last || (draining && tcp.window_len() == 0),
            "the window's right edge moved left by {}",
            last - edge
        );
        self.edge = Some(last.max(edge));
    }

    fn timestamp(&mut self, tcp: &TcpPacket<&[u8]>) {
        let mut options = tcp.options();
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::TimeStamp { tsval, .. } => {
                    let last = *self.tsval.get_or_insert(tsval);
                    assert!(
                        tsval.wrapping_sub(last) as i32 >= 0,
                        "the timestamp goes back from {last} to {tsval}"
                    );
                    self.tsval = Some(tsval);
                    return;
                }
                TcpOption::EndOfList => return,
                _ => options = rest,
            }
            if options.is_empty() {
                return;
            }
        }
    }
}
