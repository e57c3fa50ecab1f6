//! Accesses the content of files: reads, writes, length, holes, server-side copies.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use outlast_fsa::Pieces;
use outlast_fsa::fileop::Chunk;
use outlast_fsa::status::NtStatus;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::create::allocate;
use super::errno::{INVALID_VIEW_SIZE, status};
use super::path::stat;
use super::streams::Stream;

/// Reads up to this size take memory from the allocator, larger ones from the pool.
const SMALL_READ_BYTES: usize = 64 * 1024;
/// Bytes of memory that the pool keeps for later reads.
const POOL_BYTES_MAX: usize = 64 << 20;
/// Size of the buffer for copies that the kernel cannot do, and for zeros, in bytes.
const COPY_BUFFER_BYTES: usize = 256 * 1024;
/// The number of pieces that one system call writes (Linux: UIO_MAXIOV).
const IOV_MAX: usize = 1024;
/// The largest number of ranges in one answer to QUERY_ALLOCATED_RANGES.
const RANGES_MAX: usize = 65_536;

/// The content of an open: of its file, or of a named stream.
pub enum Content<'a> {
    /// A file.
    File(BorrowedFd<'a>),
    /// A named stream.
    Stream(Stream<'a>),
}

impl Content<'_> {
    /// Reads as many bytes as there are, up to the length of the buffer.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, NtStatus> {
        match self {
            Content::File(fd) => read_full(*fd, buffer, offset).map_err(data_status),
            Content::Stream(stream) => {
                let data = stream.read()?;
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = data.get(from..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
                    to.copy_from_slice(from);
                }
                Ok(count)
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), NtStatus> {
        match self {
            Content::File(fd) => write_full(*fd, offset, &[data]).map_err(data_status),
            Content::Stream(stream) => stream.write_at(offset, &[data]),
        }
    }
}

/// Reused buffers of large reads: new ones would cost a page fault per 4 KiB.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

struct Pooled {
    buffer: Vec<u8>,
    length: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or(&[])
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buffer));
    }
}

impl Pool {
    fn take(&self, length: usize) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The most recently returned one is still in the cache.
        match free.iter().rposition(|buffer| buffer.len() >= length) {
            Some(index) => free.remove(index),
            None => vec![0; length.next_power_of_two()],
        }
    }

    fn put(&self, buffer: Vec<u8>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = free.iter().map(Vec::len).sum();
        if kept + buffer.len() <= POOL_BYTES_MAX {
            free.push(buffer);
        }
    }

    /// Reads up to `length` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// As `pread`.
    pub fn read(&self, fd: BorrowedFd<'_>, offset: u64, length: u32) -> Result<Bytes, NtStatus> {
        let mut length = length as usize;
        if length > SMALL_READ_BYTES {
            let size = stat(fd).map_err(data_status)?.stx_size;
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            length = length.min(left);
        }
        if length <= SMALL_READ_BYTES {
            let mut buffer = vec![0; length];
            let count = read_full(fd, &mut buffer, offset).map_err(data_status)?;
            buffer.truncate(count);
            return Ok(Bytes::from(buffer));
        }
        let mut pooled = Pooled {
            buffer: self.take(length),
            length,
            pool: self.clone(),
        };
        let room = pooled.buffer.get_mut(..length).unwrap_or_default();
        pooled.length = read_full(fd, room, offset).map_err(data_status)?;
        Ok(Bytes::from_owner(pooled))
    }
}

/// EBADF here means a descriptor without the right, not a closed one.
fn data_status(error: Errno) -> NtStatus {
    match error {
        Errno::BADF => NtStatus::ACCESS_DENIED,
        Errno::ISDIR => NtStatus::INVALID_DEVICE_REQUEST,
        other => status(other),
    }
}

fn read_full(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(fd, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `data` at `offset`; also to the medium if requested.
///
/// # Errors
/// As `pwrite`; what fitted on a full disk stays written.
pub fn write(
    fd: BorrowedFd<'_>,
    offset: u64,
    data: &Pieces,
    write_through: bool,
) -> Result<u32, NtStatus> {
    write_full(fd, offset, data.as_slice()).map_err(data_status)?;
    if write_through {
        rustix::fs::fdatasync(fd).map_err(data_status)?;
    }
    u32::try_from(data.len()).map_err(|_| NtStatus::INVALID_PARAMETER)
}

/// Writes all pieces, one after the other.
fn write_full(fd: BorrowedFd<'_>, offset: u64, pieces: &[impl AsRef<[u8]>]) -> Result<(), Errno> {
    let mut at = offset;
    for pieces in pieces.chunks(IOV_MAX) {
        let slices = pieces.iter().map(|piece| IoSlice::new(piece.as_ref()));
        let mut slices: Vec<IoSlice<'_>> = slices.collect();
        let mut rest = &mut slices[..];
        // Empty ones at the front are no bytes to write.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev(fd, rest, at) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    IoSlice::advance_slices(&mut rest, count);
                    at = at.saturating_add(count as u64);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Writes all data of a file to the medium. An open without access to data has nothing to write.
///
/// # Errors
/// As `fsync`.
pub fn flush(fd: BorrowedFd<'_>) -> Result<(), NtStatus> {
    match rustix::fs::fsync(fd) {
        Ok(()) | Err(Errno::BADF | Errno::INVAL) => Ok(()),
        Err(error) => Err(status(error)),
    }
}

/// Sets the file's length.
///
/// # Errors
/// As `ftruncate`.
pub fn set_length(fd: BorrowedFd<'_>, length: u64) -> Result<(), NtStatus> {
    rustix::fs::ftruncate(fd, length).map_err(data_status)
}

/// Reserves room, or truncates the file if it is longer (MS-FSA 2.1.5.15.1).
///
/// # Errors
/// As `fallocate` and `ftruncate`.
pub fn set_allocation(fd: BorrowedFd<'_>, bytes: u64) -> Result<(), NtStatus> {
    if bytes < stat(fd).map_err(data_status)?.stx_size {
        return set_length(fd, bytes);
    }
    if bytes == 0 {
        return Ok(());
    }
    allocate(fd, bytes).map_err(data_status)
}

/// Makes [from, beyond) zero as far as the file reaches, as a hole where the file system can (MS-FSA 2.1.5.10.36).
///
/// # Errors
/// INVALID_PARAMETER if the range is upside down; else as `fallocate` and `pwrite`.
pub fn zero(fd: BorrowedFd<'_>, from: u64, beyond: u64) -> Result<(), NtStatus> {
    if from > beyond {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let beyond = beyond.min(stat(fd).map_err(data_status)?.stx_size);
    if from >= beyond {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(fd, flags, from, beyond - from) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        other => return other.map_err(data_status),
    }
    let zeros = vec![0; COPY_BUFFER_BYTES];
    let mut at = from;
    while at < beyond {
        let length = (beyond - at).min(COPY_BUFFER_BYTES as u64);
        let part = zeros.get(..length as usize).unwrap_or(&[]);
        write_full(fd, at, &[part]).map_err(data_status)?;
        at += length;
    }
    Ok(())
}

/// The ranges of [offset, offset + length) that are not holes, as (offset, length) in bytes (MS-FSCC 2.3.52). In a file
/// that is not sparse everything is allocated (MS-FSA 2.1.5.10.22).
///
/// # Errors
/// As `lseek`.
pub fn allocated_ranges(
    fd: BorrowedFd<'_>,
    is_sparse: bool,
    offset: u64,
    length: u64,
) -> Result<Vec<(u64, u64)>, NtStatus> {
    let size = stat(fd).map_err(data_status)?.stx_size;
    let end = offset
        .checked_add(length)
        .ok_or(NtStatus::INVALID_PARAMETER)?
        .min(size);
    if !is_sparse {
        return Ok((offset < end)
            .then(|| (offset, end - offset))
            .into_iter()
            .collect());
    }
    let mut ranges = Vec::new();
    let mut at = offset;
    while at < end && ranges.len() < RANGES_MAX {
        let data = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(data) if data < end => data.max(at),
            // ENXIO: no data from here on.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(data_status(error)),
        };
        let hole = rustix::fs::seek(fd, SeekFrom::Hole(data)).map_err(data_status)?;
        let hole = hole.min(end).max(data + 1);
        ranges.push((data, hole - data));
        at = hole;
    }
    Ok(ranges)
}

/// For a copy within one file whose ranges overlap: the bytes that each chunk copies, if the chunks are copied one
/// after the other. `None` if a redo could not read bytes that the copy itself has written.
///
/// # Errors
/// As `pread`; INVALID_VIEW_SIZE if a chunk reaches beyond the end.
pub fn overlapping_source(
    source: &Content<'_>,
    chunks: &[Chunk],
) -> Result<Option<Vec<Vec<u8>>>, NtStatus> {
    let overlap = |a: u64, b: u64, a_length: u32, b_length: u32| {
        a < b.saturating_add(b_length.into()) && b < a.saturating_add(a_length.into())
    };
    let any = chunks.iter().any(|from| {
        chunks
            .iter()
            .any(|to| overlap(from.source_offset, to.target_offset, from.length, to.length))
    });
    if !any {
        return Ok(None);
    }
    let mut all: Vec<Vec<u8>> = Vec::with_capacity(chunks.len());
    for (index, chunk) in chunks.iter().enumerate() {
        let mut bytes = vec![0; chunk.length as usize];
        let mut count = source.read(&mut bytes, chunk.source_offset)?;
        // The bytes that earlier chunks will have written by then.
        for (earlier, data) in chunks.iter().zip(&all).take(index) {
            let start = earlier.target_offset.max(chunk.source_offset);
            let end = earlier
                .target_offset
                .saturating_add(data.len() as u64)
                .min(chunk.source_offset.saturating_add(chunk.length.into()));
            if start >= end {
                continue;
            }
            let to = (start - chunk.source_offset) as usize..(end - chunk.source_offset) as usize;
            let from =
                (start - earlier.target_offset) as usize..(end - earlier.target_offset) as usize;
            count = count.max(to.end);
            if let (Some(to), Some(from)) = (bytes.get_mut(to), data.get(from)) {
                to.copy_from_slice(from);
            }
        }
        match (count < bytes.len(), index) {
            (true, 0) => return Err(INVALID_VIEW_SIZE),
            // The chunks before it are copied.
            (true, _) => break,
            (false, _) => all.push(bytes),
        }
    }
    Ok(Some(all))
}

/// Copies chunks within the server, one after the other, up to the first that fails. `logged`: the bytes of those to
/// copy, if they are in the intent.
///
/// # Errors
/// The first one fails: INVALID_VIEW_SIZE if it reaches beyond the source's end (MS-SMB2 3.3.5.15.6); as
/// `copy_file_range`.
pub fn copy(
    source: &Content<'_>,
    target: &Content<'_>,
    chunks: &[Chunk],
    logged: Option<&[Vec<u8>]>,
) -> Result<Vec<u32>, NtStatus> {
    let mut written = Vec::with_capacity(chunks.len());
    for (index, chunk) in chunks.iter().enumerate() {
        let copied = match logged.map(|logged| logged.get(index)) {
            Some(Some(data)) => target.write(chunk.target_offset, data),
            Some(None) => Err(INVALID_VIEW_SIZE),
            None => match (source, target) {
                (Content::File(source), Content::File(target)) => {
                    copy_chunk(*source, *target, chunk)
                }
                _ => copy_bytes(source, target, chunk),
            },
        };
        match copied {
            Ok(()) => written.push(chunk.length),
            Err(status) if index == 0 => return Err(status),
            Err(_) => break,
        }
    }
    Ok(written)
}

/// Copies a chunk from or to a named stream, which is small.
fn copy_bytes(source: &Content<'_>, target: &Content<'_>, chunk: &Chunk) -> Result<(), NtStatus> {
    let mut bytes = vec![0; chunk.length as usize];
    if source.read(&mut bytes, chunk.source_offset)? < bytes.len() {
        return Err(INVALID_VIEW_SIZE);
    }
    target.write(chunk.target_offset, &bytes)
}

fn copy_chunk(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    chunk: &Chunk,
) -> Result<(), NtStatus> {
    let size = stat(source).map_err(data_status)?.stx_size;
    let end = chunk.source_offset.checked_add(chunk.length.into());
    if end.is_none_or(|end| end > size) {
        return Err(INVALID_VIEW_SIZE);
    }
    let (mut from, mut to) = (chunk.source_offset, chunk.target_offset);
    let mut left = chunk.length as usize;
    let mut buffer = Vec::new();
    while left > 0 {
        let copied = if buffer.is_empty() {
            rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left)
        } else {
            let part = left.min(buffer.len());
            let part = buffer.get_mut(..part).unwrap_or_default();
            read_full(source, part, from).and_then(|count| {
                write_full(target, to, &[part.get(..count).unwrap_or(&[])])?;
                from += count as u64;
                to += count as u64;
                Ok(count)
            })
        };
        match copied {
            // The source was truncated meanwhile.
            Ok(0) => return Err(INVALID_VIEW_SIZE),
            Ok(count) => left -= count.min(left),
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)
                if buffer.is_empty() =>
            {
                buffer = vec![0; COPY_BUFFER_BYTES];
            }
            Err(error) => return Err(data_status(error)),
        }
    }
    Ok(())
}

/// The current size, at which a write at the end begins.
///
/// # Errors
/// As `statx`.
pub fn end(fd: impl AsFd) -> Result<u64, NtStatus> {
    Ok(stat(fd).map_err(data_status)?.stx_size)
}
