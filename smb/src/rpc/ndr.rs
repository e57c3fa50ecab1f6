//! Encodes and decodes the primitives of NDR transfer syntax 2.0 (C706 chapter 14), little-endian, that the calls need.

use super::Fault;
use bytes::{Buf, BufMut};

/// Reads arguments.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(stub: &'a [u8]) -> Reader<'a> {
        Reader {
            rest: stub,
            read: 0,
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Fault::BadStubData)?;
        self.rest = rest;
        self.read += len;
        Ok(taken)
    }

    /// Reads an unsigned long, at a multiple of four bytes.
    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.take(self.read.next_multiple_of(4) - self.read)?;
        self.take(4)?
            .try_get_u32_le()
            .map_err(|_| Fault::BadStubData)
    }

    /// Reads the referent id of a unique pointer, and returns whether it is not null.
    pub(super) fn pointer(&mut self) -> Result<bool, Fault> {
        Ok(self.u32()? != 0)
    }

    /// Reads a conformant and varying string of UTF-16 code units, and returns it without its terminator (C706
    /// 14.3.4.2).
    pub(super) fn string(&mut self) -> Result<String, Fault> {
        let (max, offset, actual) = (self.u32()?, self.u32()?, self.u32()?);
        if offset != 0 || actual > max {
            return Err(Fault::BadStubData);
        }
        let len = usize::try_from(actual)
            .ok()
            .and_then(|units| units.checked_mul(2))
            .ok_or(Fault::BadStubData)?;
        let (units, _) = self.take(len)?.as_chunks::<2>();
        let units: Vec<u16> = units
            .iter()
            .map(|unit| u16::from_le_bytes(*unit))
            .take_while(|&unit| unit != 0)
            .collect();
        String::from_utf16(&units).map_err(|_| Fault::BadStubData)
    }

    /// Reads a unique pointer to a string.
    pub(super) fn unique_string(&mut self) -> Result<Option<String>, Fault> {
        self.pointer()?.then(|| self.string()).transpose()
    }
}

/// Writes results. The referents of pointers are kept until [`Writer::flush`], because they follow the structure that
/// contains the pointers (C706 14.3.12.3).
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    deferred: Vec<String>,
    referents: u32,
}

impl Writer {
    /// Writes an unsigned long. All data are longs, or strings padded to longs, so alignment is preserved.
    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.put_u32_le(value);
    }

    /// Writes the referent id of a pointer whose referent the caller writes.
    pub(super) fn pointer(&mut self) {
        self.referents += 1;
        self.u32(0x0002_0000 + 4 * self.referents);
    }

    /// Writes a null pointer.
    pub(super) fn null(&mut self) {
        self.u32(0);
    }

    /// Writes a unique pointer to a string, which [`Writer::flush`] writes.
    pub(super) fn unique_string(&mut self, text: &str) {
        self.pointer();
        self.deferred.push(text.to_owned());
    }

    /// Writes the strings of the pointers since the last flush.
    pub(super) fn flush(&mut self) {
        for text in std::mem::take(&mut self.deferred) {
            let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
            let count = u32::try_from(units.len()).unwrap_or(u32::MAX);
            self.u32(count); // MaximumCount
            self.u32(0); // Offset
            self.u32(count); // ActualCount
            for unit in units {
                self.bytes.put_u16_le(unit);
            }
            let aligned = self.bytes.len().next_multiple_of(4);
            self.bytes.resize(aligned, 0);
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.bytes
    }
}
