//! Writes pcapng files (draft-ietf-opsawg-pcapng).

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::ring::{Direction, Frame};

/// Timestamps are nanoseconds (section 4.2, if_tsresol).
const NANOSECONDS: u8 = 9;
/// Section 4.3.1: bits 0 and 1 of epb_flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A file that is being written.
pub(super) struct Pcapng {
    writer: PcapNgWriter<BufWriter<File>>,
}

impl Pcapng {
    /// Begins a file. `snap_len`: the number of bytes kept of a frame, 0: all.
    ///
    /// # Errors
    /// The error of the write.
    pub fn begin(file: File, snap_len: u32) -> io::Result<Pcapng> {
        let mut writer = PcapNgWriter::new(BufWriter::new(file)).map_err(failed)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: snap_len,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed("outlast")),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        writer.write_pcapng_block(interface).map_err(failed)?;
        Ok(Pcapng { writer })
    }

    /// Adds a frame. `lost`: the number of frames lost just before it.
    ///
    /// # Errors
    /// The error of the write.
    pub fn add(&mut self, frame: &Frame, lost: u64) -> io::Result<()> {
        let flags = match frame.direction {
            Direction::Received => INBOUND,
            Direction::Sent => OUTBOUND,
        };
        let mut options = vec![EnhancedPacketOption::Flags(flags)];
        if lost > 0 {
            options.push(EnhancedPacketOption::DropCount(lost));
        }
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(frame.unix_ns),
            original_len: frame.original_len,
            data: Cow::Borrowed(&frame.bytes),
            options,
        };
        self.writer.write_pcapng_block(block).map_err(failed)?;
        Ok(())
    }

    /// Writes buffered frames to the file.
    ///
    /// # Errors
    /// The error of the write.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }
}

fn failed(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
