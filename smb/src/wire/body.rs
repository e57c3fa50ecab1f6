//! Parses the parts that requests have in common: the fixed part, and buffers with offset and length.

use std::ops::Range;

use bytes::Bytes;
use nom::IResult;
use nom::Parser;
use nom::combinator::map;
use nom::number::complete::{le_u16, le_u64};
use outlast_fsa::Pieces;

use super::header;
use super::{Component, FileId, Malformed};

/// Outcome of a `nom` parser over bytes.
pub(super) type Parsed<'a, T> = IResult<&'a [u8], T>;

/// Parses an SMB2_FILEID.
pub(super) fn file_id(input: &[u8]) -> Parsed<'_, FileId> {
    map((le_u64, le_u64), |(persistent, volatile)| FileId {
        persistent,
        volatile,
    })
    .parse(input)
}

/// Parses 16 bytes: a GUID, a signature, a lease key.
pub(super) fn bytes_16(input: &[u8]) -> Parsed<'_, [u8; 16]> {
    map((le_u64, le_u64), |(low, high)| {
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    })
    .parse(input)
}

/// Returns the fixed part of a request's body after its StructureSize, which must be `want`. An odd StructureSize
/// counts one byte of the variable part (MS-SMB2 2.2.3), which may be missing.
pub(super) fn fixed(component: &Component, want: u16) -> Result<&[u8], Malformed> {
    let body = component
        .bytes
        .get(header::LEN..)
        .ok_or(Malformed::Truncated)?;
    let (rest, got) = le_u16::<_, nom::error::Error<&[u8]>>(body)?;
    if got != want {
        return Err(Malformed::StructureSize { got, want });
    }
    if body.len() < usize::from(want & !1) {
        return Err(Malformed::Truncated);
    }
    Ok(rest)
}

/// Parses fields at the start of `input`, and ignores the rest.
pub(super) fn fields<'a, P>(input: &'a [u8], mut parser: P) -> Result<P::Output, Malformed>
where
    P: Parser<&'a [u8], Error = nom::error::Error<&'a [u8]>>,
{
    let (_, output) = parser.parse(input)?;
    Ok(output)
}

/// Returns the buffer of `length` bytes at `offset` from the SMB2 header; it must lie behind the fixed part of
/// `structure_size`. An empty buffer may have any offset.
pub(super) fn buffer(
    component: &Component,
    structure_size: u16,
    offset: u32,
    length: u32,
) -> Result<Bytes, Malformed> {
    match range(component.bytes.len(), structure_size, offset, length)? {
        Some(range) => Ok(component.bytes.slice(range)),
        None => Ok(Bytes::new()),
    }
}

/// As [`buffer`], of a request that may lie in pieces.
pub(super) fn buffer_in_pieces(
    component: &Component,
    structure_size: u16,
    offset: u32,
    length: u32,
) -> Result<Pieces, Malformed> {
    let Some(Range { start, end }) = range(component.size(), structure_size, offset, length)?
    else {
        return Ok(Pieces::default());
    };
    let first = component.bytes.len();
    let beginning = component.bytes.slice(start.min(first)..end.min(first));
    let others = start.saturating_sub(first)..end.saturating_sub(first);
    let others = component.rest.slice(others);
    let all = std::iter::once(beginning).chain(others.as_slice().iter().cloned());
    Ok(all.collect())
}

/// The place of a buffer in a request of so many bytes; `None`: it is empty.
fn range(
    bytes: usize,
    structure_size: u16,
    offset: u32,
    length: u32,
) -> Result<Option<Range<usize>>, Malformed> {
    if length == 0 {
        return Ok(None);
    }
    let outside = Malformed::BufferBounds { offset, length };
    let start = offset as usize;
    let end = start.checked_add(length as usize).ok_or(outside)?;
    if start < header::LEN + usize::from(structure_size & !1) || end > bytes {
        return Err(outside);
    }
    Ok(Some(start..end))
}
