//! Parses and encodes extended attributes: FileFullEaInformation (MS-FSCC 2.4.16), and the list of names by which it is
//! queried (FILE_GET_EA_INFORMATION, 2.4.16.1).

use super::{Answer, begin_entry};
use bytes::{Buf, BufMut};
use outlast_fsa::ea::{self, Ea};
use outlast_fsa::pattern::same_name;
use outlast_fsa::status::NtStatus;

#[cfg(test)]
mod tests;

/// Entries begin at multiples of this.
const ALIGNMENT: usize = 4;

/// Parses FILE_FULL_EA_INFORMATION, as SET_INFO and SMB2_CREATE_EA_BUFFER (MS-SMB2 2.2.13.2.1) have it.
///
/// # Errors
/// `EA_LIST_INCONSISTENT` if it is malformed, `INVALID_EA_NAME`; `INVALID_PARAMETER` for FILE_NEED_EA: no attribute is
/// needed to understand a file.
pub fn parse(buffer: &[u8]) -> Result<Vec<Ea>, NtStatus> {
    let entry = |mut rest: &[u8]| {
        let flags = rest.try_get_u8().ok()?;
        let name_length = usize::from(rest.try_get_u8().ok()?);
        let value_length = usize::from(rest.try_get_u16_le().ok()?);
        let name = rest.get(..name_length)?;
        let value = rest.get(name_length + 1..)?.get(..value_length)?;
        Some((flags, name.to_vec(), value.to_vec()))
    };
    let eas = entries(buffer, entry)?
        .into_iter()
        .map(|(flags, name, value)| {
            if flags != 0 {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            let name = name_of(&name)?;
            Ok(Ea { name, value })
        });
    eas.collect()
}

/// Parses the names by which attributes are queried; no names: all are.
///
/// # Errors
/// `EA_LIST_INCONSISTENT`, `INVALID_EA_NAME`.
pub fn parse_names(buffer: &[u8]) -> Result<Vec<String>, NtStatus> {
    let entry = |mut rest: &[u8]| {
        let length = usize::from(rest.try_get_u8().ok()?);
        rest.get(..length).map(<[u8]>::to_vec)
    };
    let names = entries(buffer, entry)?;
    names.iter().map(|name| name_of(name)).collect()
}

fn name_of(name: &[u8]) -> Result<String, NtStatus> {
    let name = std::str::from_utf8(name).map_err(|_| NtStatus::INVALID_EA_NAME)?;
    match ea::is_name(name) {
        true => Ok(name.to_owned()),
        false => Err(NtStatus::INVALID_EA_NAME),
    }
}

/// Parses a list of entries, each after its NextEntryOffset.
fn entries<T>(buffer: &[u8], entry: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, NtStatus> {
    let mut all = Vec::new();
    let mut rest = buffer;
    while !rest.is_empty() {
        let mut fields = rest;
        let parsed = fields.try_get_u32_le().ok().zip(entry(fields));
        let (next, parsed) = parsed.ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
        all.push(parsed);
        rest = match next as usize {
            0 => &[],
            // An entry does not overlap the next one, and the list does not end at an offset.
            next if next < ALIGNMENT + 1 || next % ALIGNMENT != 0 => {
                return Err(NtStatus::EA_LIST_INCONSISTENT);
            }
            next => rest
                .get(next..)
                .filter(|rest| !rest.is_empty())
                .ok_or(NtStatus::EA_LIST_INCONSISTENT)?,
        };
    }
    Ok(all)
}

/// Selects the attributes of these names, in their order; one that does not exist has no value (MS-FSA 2.1.5.12.16).
#[must_use]
pub fn select(eas: Vec<Ea>, names: &[String]) -> Vec<Ea> {
    if names.is_empty() {
        return eas;
    }
    let one = |name: &String| Ea {
        name: name.clone(),
        value: eas
            .iter()
            .find(|ea| same_name(&ea.name, name))
            .map_or_else(Vec::new, |ea| ea.value.clone()),
    };
    names.iter().map(one).collect()
}

/// Encodes attributes, as many as fit into `limit` bytes: none is cut.
///
/// # Errors
/// `NO_EAS_ON_FILE` for none, `BUFFER_TOO_SMALL` if the first one does not fit.
pub fn encode(eas: &[Ea], limit: usize) -> Result<Answer, NtStatus> {
    if eas.is_empty() {
        return Err(NtStatus::NO_EAS_ON_FILE);
    }
    let mut bytes: Vec<u8> = Vec::new();
    let mut last: Option<usize> = None;
    for ea in eas {
        let start = bytes.len().next_multiple_of(ALIGNMENT);
        if start + ea.size() > limit {
            return match last {
                None => Err(NtStatus::BUFFER_TOO_SMALL),
                Some(_) => Ok(Answer {
                    bytes,
                    overflow: true,
                }),
            };
        }
        begin_entry(&mut bytes, &mut last, ALIGNMENT);
        bytes.put_u32_le(0); // NextEntryOffset
        bytes.put_u8(0); // Flags
        bytes.put_u8(u8::try_from(ea.name.len()).unwrap_or(u8::MAX));
        bytes.put_u16_le(u16::try_from(ea.value.len()).unwrap_or(u16::MAX));
        bytes.put_slice(ea.name.as_bytes());
        bytes.put_u8(0);
        bytes.put_slice(&ea.value);
    }
    Ok(Answer {
        bytes,
        overflow: false,
    })
}

/// Returns EaSize: the length of all attributes as they are queried (MS-FSCC 2.4.13).
#[must_use]
pub fn size(eas: &[Ea]) -> u32 {
    let all = eas.iter().fold(0, |sum: usize, ea| {
        sum.next_multiple_of(ALIGNMENT) + ea.size()
    });
    u32::try_from(all).unwrap_or(u32::MAX)
}
