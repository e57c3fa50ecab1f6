//! Reads capture files of tcpdump, Wireshark and `outlast trace --live --save` (pcap and pcapng), and writes pcap
//! files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::Segment;
use super::segment::HEADER_BYTES;

#[cfg(test)]
mod tests;

/// The largest accepted block of a file. Wireshark's own limit for a packet is 256 KiB.
const BLOCK_MAX_BYTES: usize = 4 << 20;
const NANOSECONDS: u64 = 1_000_000_000;

/// Reads the TCP segments of a capture, in the order of the file.
///
/// # Errors
/// The file cannot be read, or is not a capture.
pub fn read(path: &Path, each: impl FnMut(Segment)) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    read_from(file, each).with_context(|| path.display().to_string())
}

fn read_from(source: impl Read + Send, mut each: impl FnMut(Segment)) -> anyhow::Result<()> {
    let mut reader = create_reader(BLOCK_MAX_BYTES, source).map_err(|error| explain(&error))?;
    let mut context = Context::default();
    loop {
        match reader.next() {
            Ok((bytes, block)) => {
                if let Some(segment) = context.segment(&block)? {
                    each(segment);
                }
                reader.consume(bytes);
            }
            Err(PcapError::Eof) => return Ok(()),
            // The capture ended in the middle of a packet.
            Err(PcapError::UnexpectedEof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => refill(reader.as_mut())?,
            Err(error) => return Err(explain(&error)),
        }
    }
}

fn refill(reader: &mut (dyn PcapReaderIterator + Send)) -> anyhow::Result<()> {
    reader.refill().map_err(|error| explain(&error))
}

fn explain(error: &PcapError<&[u8]>) -> anyhow::Error {
    match error {
        PcapError::HeaderNotRecognized | PcapError::Incomplete(_) | PcapError::Eof => anyhow!(
            "this is no capture; name a file that `tcpdump -w` or Wireshark has written (pcap or pcapng)"
        ),
        PcapError::ReadError => anyhow!("the file cannot be read; is it a regular file?"),
        PcapError::BufferTooSmall => anyhow!(
            "a block is larger than {} MiB; the capture is damaged",
            BLOCK_MAX_BYTES >> 20
        ),
        _ => anyhow!(
            "the capture is damaged; `editcap` of Wireshark may save what comes before the damage"
        ),
    }
}

/// The properties of a file that its packets share.
#[derive(Default)]
struct Context {
    /// Link type and time stamp units per second of a pcap file.
    legacy: Option<(Linktype, u64)>,
    /// The interfaces of a section of a pcapng file.
    interfaces: Vec<Interface>,
}

/// An interface of a pcapng file.
struct Interface {
    link: Linktype,
    units_per_second: u64,
    offset_seconds: i64,
}

impl Context {
    fn segment(&mut self, block: &PcapBlockOwned<'_>) -> anyhow::Result<Option<Segment>> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let units = match header.is_nanosecond_precision() {
                    true => NANOSECONDS,
                    false => 1_000_000,
                };
                self.legacy = Some((header.network, units));
            }
            PcapBlockOwned::Legacy(packet) => {
                let (link, units) = self.legacy.context("a packet before the header")?;
                let at = time(packet.ts_sec.into(), packet.ts_usec.into(), units);
                let bytes = packet.data.len().min(packet.caplen as usize);
                let data = &packet.data[..bytes];
                return Ok(Segment::read(link, data, packet.origlen as usize, at));
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => self.interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let Some(units) = interface.ts_resolution() else {
                    bail!("the time stamps have an impossible resolution");
                };
                self.interfaces.push(Interface {
                    link: interface.linktype,
                    units_per_second: units,
                    offset_seconds: interface.ts_offset(),
                });
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = self.interfaces.get(packet.if_id as usize);
                let interface = interface.context("a packet of an unknown interface")?;
                let stamp = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let units = interface.units_per_second;
                let seconds = (stamp / units).saturating_add_signed(interface.offset_seconds);
                let at = time(seconds, stamp % units, units);
                let (data, bytes) = (packet.packet_data(), packet.origlen as usize);
                return Ok(Segment::read(interface.link, data, bytes, at));
            }
            // A packet without a time has no place in the picture.
            PcapBlockOwned::NG(_) => {}
        }
        Ok(None)
    }
}

fn time(seconds: u64, fraction: u64, units_per_second: u64) -> Duration {
    let nanoseconds = u128::from(fraction) * u128::from(NANOSECONDS) / u128::from(units_per_second);
    // A fraction of a whole second or more is damage of the file.
    let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0).min(999_999_999);
    Duration::new(seconds, nanoseconds)
}

/// Writes a capture: pcap with nanoseconds, Ethernet, frames cut short after their headers.
pub struct Writer<W: Write> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// The error of the write.
    pub fn new(mut to: W) -> io::Result<Writer<W>> {
        /// The magic number of a file with nanoseconds; version 2.4 (draft-ietf-opsawg-pcap, section 4).
        const MAGIC: u32 = 0xA1B2_3C4D;
        const VERSION: [u16; 2] = [2, 4];
        to.write_all(&MAGIC.to_le_bytes())?;
        for number in VERSION {
            to.write_all(&number.to_le_bytes())?;
        }
        let link = Linktype::ETHERNET.0.cast_unsigned();
        for word in [0, 0, HEADER_BYTES as u32, link] {
            to.write_all(&word.to_le_bytes())?;
        }
        Ok(Writer { to })
    }

    /// Adds a frame that had `wire_bytes` bytes on the wire (section 5).
    ///
    /// # Errors
    /// The error of the write.
    pub fn add(&mut self, at: Duration, frame: &[u8], wire_bytes: usize) -> io::Result<()> {
        let frame = &frame[..frame.len().min(HEADER_BYTES)];
        // The format's seconds have 32 bits.
        let seconds = at.as_secs() as u32;
        let wire_bytes = u32::try_from(wire_bytes).unwrap_or(u32::MAX);
        for word in [seconds, at.subsec_nanos(), frame.len() as u32, wire_bytes] {
            self.to.write_all(&word.to_le_bytes())?;
        }
        self.to.write_all(frame)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The error of the write.
    pub fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }
}
