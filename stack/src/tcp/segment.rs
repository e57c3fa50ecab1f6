//! Parsing and emitting TCP segments, on smoltcp's formats.

use smoltcp::wire::{TcpOption, TcpPacket, TcpSeqNumber};

use crate::Seq;

/// A received segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) seq: Seq,
    /// SEG.ACK if the ACK bit is set.
    pub(crate) ack: Option<Seq>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    /// The window field, not scaled.
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) sack: [Option<(Seq, Seq)>; 3],
    /// TSval and TSecr.
    pub(crate) timestamp: Option<(u32, u32)>,
    pub(crate) payload: &'a [u8],
}

impl<'a> Received<'a> {
    /// Reads header and options. `None`: not a TCP segment. Options behind a malformed one are ignored.
    pub(crate) fn parse(tcp: &'a [u8]) -> Option<Received<'a>> {
        let packet = TcpPacket::new_checked(tcp).ok()?;
        let mut segment = Received {
            seq: Seq(packet.seq_number().0 as u32),
            ack: packet.ack().then(|| Seq(packet.ack_number().0 as u32)),
            syn: packet.syn(),
            fin: packet.fin(),
            rst: packet.rst(),
            window: packet.window_len(),
            mss: None,
            window_scale: None,
            sack_permitted: false,
            sack: [None; 3],
            timestamp: None,
            payload: packet.payload(),
        };
        //= rfc9293 MUST-4, MUST-5, MUST-6, MUST-7, MUST-64
        let mut options = packet.options();
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => segment.mss = Some(mss),
                TcpOption::WindowScale(shift) => segment.window_scale = Some(shift),
                TcpOption::SackPermitted => segment.sack_permitted = true,
                TcpOption::SackRange(ranges) => {
                    segment.sack = ranges.map(|range| range.map(|(from, to)| (Seq(from), Seq(to))));
                }
                TcpOption::TimeStamp { tsval, tsecr } => segment.timestamp = Some((tsval, tsecr)),
                TcpOption::NoOperation | TcpOption::Unknown { .. } => {}
            }
            options = rest;
        }
        Some(segment)
    }

    /// Returns whether it is the first segment of a client that connects.
    pub(crate) fn opens(&self) -> bool {
        self.syn && self.ack.is_none() && !self.rst
    }

    /// SEG.LEN: payload, SYN and FIN.
    pub(crate) fn len(&self) -> usize {
        self.payload.len() + usize::from(self.syn) + usize::from(self.fin)
    }
}

/// The header of a segment to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: Seq,
    pub(crate) ack: Option<Seq>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) psh: bool,
    /// The window field, scaled.
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) sack: [Option<(Seq, Seq)>; 3],
    pub(crate) timestamp: Option<(u32, u32)>,
}

impl Header {
    /// A header with nothing but ports and sequence number.
    pub(crate) fn new(src_port: u16, dst_port: u16, seq: Seq) -> Header {
        Header {
            src_port,
            dst_port,
            seq,
            ack: None,
            syn: false,
            fin: false,
            rst: false,
            psh: false,
            window: 0,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            sack: [None; 3],
            timestamp: None,
        }
    }

    /// The header's bytes, the checksum zero.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let sack = self
            .sack
            .map(|range| range.map(|(from, to)| (from.0, to.0)));
        //= rfc9293 MUST-68, MUST-69
        // NOPs align the 32-bit fields (RFC 7323, appendix A).
        let options = [
            self.mss.map(|mss| (0, TcpOption::MaxSegmentSize(mss))),
            self.window_scale
                .map(|shift| (1, TcpOption::WindowScale(shift))),
            self.sack_permitted.then_some((2, TcpOption::SackPermitted)),
            self.timestamp
                .map(|(tsval, tsecr)| (2, TcpOption::TimeStamp { tsval, tsecr })),
            sack[0].is_some().then_some((2, TcpOption::SackRange(sack))),
        ];
        let options_len: usize = options
            .iter()
            .flatten()
            .map(|(nops, option)| nops + option.buffer_len())
            .sum();
        let mut bytes = vec![0; 20 + options_len];
        let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
        packet.set_src_port(self.src_port);
        packet.set_dst_port(self.dst_port);
        packet.set_seq_number(TcpSeqNumber(self.seq.0 as i32));
        packet.set_header_len((20 + options_len) as u8);
        if let Some(ack) = self.ack {
            packet.set_ack(true);
            packet.set_ack_number(TcpSeqNumber(ack.0 as i32));
        }
        packet.set_syn(self.syn);
        packet.set_fin(self.fin);
        packet.set_rst(self.rst);
        packet.set_psh(self.psh);
        packet.set_window_len(self.window);
        let mut rest = packet.options_mut();
        for (nops, option) in options.iter().flatten() {
            for _ in 0..*nops {
                rest = TcpOption::NoOperation.emit(rest);
            }
            rest = option.emit(rest);
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
