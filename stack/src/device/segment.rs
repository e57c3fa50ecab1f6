//! Does in software what an offloading device does to a frame: segmentation and checksums.

use crate::link::{ETHERNET_HEADER_LEN, Sum};
use crate::{Offload, TxFrame};

const TCP_FLAG_FIN: u8 = 0x01;
const TCP_FLAG_PSH: u8 = 0x08;
const TCP_FLAG_CWR: u8 = 0x80;

/// Makes the frames that `frame` becomes on the wire: segments of its `mss` with their own lengths, sequence numbers
/// and checksums. A frame whose offload contradicts its headers yields nothing.
pub fn segment(frame: &TxFrame) -> Vec<Vec<u8>> {
    match frame.offload {
        Offload::None => vec![contiguous(frame)],
        Offload::Checksum { start, offset } => {
            let mut bytes = contiguous(frame);
            match complete_checksum(&mut bytes, usize::from(start), usize::from(offset)) {
                Some(()) => vec![bytes],
                None => Vec::new(),
            }
        }
        Offload::Tso {
            v6,
            mss,
            header_len,
            start,
            offset,
        } => {
            let mss = usize::from(mss);
            if usize::from(header_len) != frame.header.len() || mss == 0 {
                return Vec::new();
            }
            let template = Template {
                header: &frame.header,
                v6,
                start: usize::from(start),
                offset: usize::from(offset),
            };
            let payload = frame.payload.concat();
            let count = payload.len().div_ceil(mss);
            let cut =
                |(index, part)| template.segment(part, index, index * mss, index + 1 == count);
            payload
                .chunks(mss)
                .enumerate()
                .map(cut)
                .collect::<Option<Vec<_>>>()
                .unwrap_or_default()
        }
    }
}

fn contiguous(frame: &TxFrame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    bytes.extend_from_slice(&frame.header);
    for part in &frame.payload {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Completes the checksum at `start + offset`, which holds the pseudo header's sum, over the bytes from `start` on.
fn complete_checksum(bytes: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let mut sum = Sum::default();
    sum.add(bytes.get(start..)?);
    let field = bytes.get_mut(start + offset..start + offset + 2)?;
    field.copy_from_slice(&sum.checksum().to_be_bytes());
    Some(())
}

/// The headers of a TSO frame.
struct Template<'a> {
    header: &'a [u8],
    v6: bool,
    start: usize,
    offset: usize,
}

impl Template<'_> {
    /// Makes the segment of `part`, which is the `index`th and begins `moved` bytes into the payload.
    fn segment(&self, part: &[u8], index: usize, moved: usize, last: bool) -> Option<Vec<u8>> {
        let Template {
            header,
            v6,
            start,
            offset,
        } = *self;
        let mut bytes = Vec::with_capacity(header.len() + part.len());
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(part);
        let segment_len = bytes.len().checked_sub(start)?;
        let old_segment_len;

        let ip = bytes.get_mut(ETHERNET_HEADER_LEN..start)?;
        if v6 {
            old_segment_len = read_u16(ip, 4)?;
            write_u16(ip, 4, segment_len as u16)?;
        } else {
            old_segment_len = read_u16(ip, 2)?.checked_sub(ip.len() as u16)?;
            write_u16(ip, 2, (ip.len() + segment_len) as u16)?;
            let ident = read_u16(ip, 4)?.wrapping_add(index as u16);
            write_u16(ip, 4, ident)?;
            write_u16(ip, 10, 0)?;
            let mut sum = Sum::default();
            sum.add(ip);
            write_u16(ip, 10, sum.checksum())?;
        }

        let tcp = bytes.get_mut(start..)?;
        let seq = tcp.get_mut(4..8)?;
        let first = u32::from_be_bytes([seq[0], seq[1], seq[2], seq[3]]);
        seq.copy_from_slice(&first.wrapping_add(moved as u32).to_be_bytes());
        let flags = tcp.get_mut(13)?;
        if !last {
            *flags &= !(TCP_FLAG_FIN | TCP_FLAG_PSH);
        }
        if index > 0 {
            *flags &= !TCP_FLAG_CWR;
        }
        // The pseudo header's sum counts the whole length; it has to count this segment's (RFC 1624: HC' = HC + (-m) +
        // m').
        let mut sum = Sum::default();
        sum.add(&read_u16(tcp, offset)?.to_be_bytes());
        sum.add(&(!old_segment_len).to_be_bytes());
        sum.add(&(segment_len as u16).to_be_bytes());
        write_u16(tcp, offset, sum.partial())?;
        complete_checksum(&mut bytes, start, offset)?;
        Some(bytes)
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn write_u16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes
        .get_mut(at..at + 2)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}
