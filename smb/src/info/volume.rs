//! Encodes file system information classes (MS-FSCC 2.5, MS-SMB2 3.3.5.20.2).

use super::{Answer, utf16_len};
use crate::wire::utf16;
use bytes::BufMut;
use outlast_fsa::fileop::Volume;
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// Bytes of a sector, for every medium: clients multiply it by SectorsPerAllocationUnit.
const SECTOR_BYTES: u32 = 512;

/// FileSystemAttributes (MS-FSCC 2.5.1) of every share.
const ATTRIBUTES: u32 = FILE_CASE_PRESERVED_NAMES
    | FILE_UNICODE_ON_DISK
    | FILE_PERSISTENT_ACLS
    | FILE_SUPPORTS_SPARSE_FILES
    | FILE_SUPPORTS_HARD_LINKS;
const FILE_CASE_PRESERVED_NAMES: u32 = 0x0000_0002;
const FILE_UNICODE_ON_DISK: u32 = 0x0000_0004;
const FILE_PERSISTENT_ACLS: u32 = 0x0000_0008;
const FILE_SUPPORTS_SPARSE_FILES: u32 = 0x0000_0040;
const FILE_NAMED_STREAMS: u32 = 0x0004_0000;
const FILE_READ_ONLY_VOLUME: u32 = 0x0008_0000;
const FILE_SUPPORTS_HARD_LINKS: u32 = 0x0040_0000;
const FILE_SUPPORTS_EXTENDED_ATTRIBUTES: u32 = 0x0080_0000;

/// A file system information class that can be queried (MS-SMB2 2.2.37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are MS-FSCC's, FileFs...Information
pub enum Level {
    Volume,
    Size,
    Device,
    Attribute,
    FullSize,
    ObjectId,
    SectorSize,
}

impl Level {
    /// Decodes an FsInformationClass.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for classes that no share supports (labels, quotas, driver paths), `INVALID_INFO_CLASS` for
    /// others.
    pub fn from_class(class: u8) -> Result<Level, NtStatus> {
        Ok(match class {
            1 => Level::Volume,
            3 => Level::Size,
            4 => Level::Device,
            5 => Level::Attribute,
            7 => Level::FullSize,
            8 => Level::ObjectId,
            11 => Level::SectorSize,
            2 | 6 | 9 | 10 => return Err(NtStatus::NOT_SUPPORTED),
            _ => return Err(NtStatus::INVALID_INFO_CLASS),
        })
    }
}

/// Encodes `level` of a share's file system, cut to `limit` bytes. `label`: the share's name.
///
/// # Errors
/// `INFO_LENGTH_MISMATCH` if the fixed part does not fit.
pub fn encode(
    level: Level,
    volume: &Volume,
    label: &str,
    read_only: bool,
    limit: usize,
) -> Result<Answer, NtStatus> {
    let mut out = Vec::new();
    let unit = Unit::of(volume);
    match level {
        Level::Volume => {
            out.put_u64_le(volume.creation_time);
            out.put_u32_le(volume.serial);
            out.put_u32_le(utf16_len(label));
            out.put_u8(0); // SupportsObjects
            out.put_u8(0); // Reserved
            utf16::push(label, &mut out);
            // MS-FSCC 2.5.9: the label begins after 18 bytes, but the structure is a multiple of 8.
            return Answer::cut(out, 24, limit);
        }
        Level::Size => {
            out.put_u64_le(unit.count(volume.total_bytes));
            out.put_u64_le(unit.count(volume.available_bytes));
            out.put_u32_le(unit.sectors);
            out.put_u32_le(unit.sector_bytes);
        }
        Level::FullSize => {
            out.put_u64_le(unit.count(volume.total_bytes));
            out.put_u64_le(unit.count(volume.available_bytes));
            out.put_u64_le(unit.count(volume.free_bytes));
            out.put_u32_le(unit.sectors);
            out.put_u32_le(unit.sector_bytes);
        }
        Level::Device => {
            let read_only_device = if read_only { 0x2 } else { 0 };
            out.put_u32_le(7); // FILE_DEVICE_DISK
            out.put_u32_le(0x20 | read_only_device); // FILE_DEVICE_IS_MOUNTED
        }
        Level::Attribute => {
            // Clients infer features from this name; Samba reports the same.
            let name = "NTFS";
            let read_only_volume = if read_only { FILE_READ_ONLY_VOLUME } else { 0 };
            let streams = match volume.extended_attributes {
                true => FILE_NAMED_STREAMS | FILE_SUPPORTS_EXTENDED_ATTRIBUTES,
                false => 0,
            };
            out.put_u32_le(ATTRIBUTES | read_only_volume | streams);
            out.put_u32_le(255); // MaximumComponentNameLength
            out.put_u32_le(utf16_len(name));
            utf16::push(name, &mut out);
            return Answer::cut(out, 12, limit);
        }
        Level::ObjectId => {
            // A permanent identity, made of the volume's serial number and creation time.
            out.put_u32_le(volume.serial);
            out.put_u64_le(volume.creation_time);
            out.put_bytes(0, 4 + 48); // the rest of ObjectId, ExtendedInfo
        }
        Level::SectorSize => {
            out.put_u32_le(unit.sector_bytes); // LogicalBytesPerSector
            out.put_u32_le(unit.bytes()); // PhysicalBytesPerSectorForAtomicity
            out.put_u32_le(unit.bytes()); // PhysicalBytesPerSectorForPerformance
            out.put_u32_le(unit.bytes()); // FileSystemEffectivePhysicalBytesPerSectorForAtomicity
            out.put_u32_le(0x3); // SSINFO_FLAGS_ALIGNED_DEVICE, _PARTITION_ALIGNED_ON_DEVICE
            out.put_u32_le(0); // ByteOffsetForSectorAlignment
            out.put_u32_le(0); // ByteOffsetForPartitionAlignment
        }
    }
    Answer::fixed(out, limit)
}

/// An allocation unit, as a number of sectors of one size.
struct Unit {
    sectors: u32,
    sector_bytes: u32,
}

impl Unit {
    fn of(volume: &Volume) -> Unit {
        let bytes = volume.unit_bytes.max(1);
        if bytes.is_multiple_of(SECTOR_BYTES) {
            Unit {
                sectors: bytes / SECTOR_BYTES,
                sector_bytes: SECTOR_BYTES,
            }
        } else {
            Unit {
                sectors: 1,
                sector_bytes: bytes,
            }
        }
    }

    fn bytes(&self) -> u32 {
        self.sectors * self.sector_bytes
    }

    fn count(&self, bytes: u64) -> u64 {
        bytes / u64::from(self.bytes())
    }
}
