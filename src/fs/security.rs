//! Converts security descriptors (MS-DTYP 2.4.6) from and to owner, group and mode.
//!
//! Owner and group are the SIDs that Samba uses: S-1-22-1-uid and S-1-22-2-gid. The DACL has one entry each for the
//! owner, the group and Everyone, and before them one that denies the owner or the group what the mode permits to a
//! wider class only. A DACL to set must contain only these (the owner also as CREATOR OWNER or OWNER RIGHTS, everyone
//! also as Authenticated Users); entries for SYSTEM and Administrators are ignored, since root may do everything
//! anyway; any other is refused. Entries of POSIX ACLs beyond the mode are not shown and are kept.

use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use outlast_fsa::access as right;
use outlast_fsa::status::NtStatus;
use rustix::fs::{Gid, Mode, Uid};

use super::attributes::is_dir;
use super::create::ALWAYS;
use super::errno::status;
use super::path::{fd_path, stat};

/// SECURITY_INFORMATION (MS-DTYP 2.4.7).
const OWNER: u32 = 0x1;
const GROUP: u32 = 0x2;
const DACL: u32 = 0x4;

/// Control bits (MS-DTYP 2.4.6).
const SE_DACL_PRESENT: u16 = 0x4;
const SE_SELF_RELATIVE: u16 = 0x8000;
const HEADER_BYTES: usize = 20;

const ACE_ALLOWED: u8 = 0;
const ACE_DENIED: u8 = 1;
/// The entry applies to children only (MS-DTYP 2.4.4.1).
const INHERIT_ONLY: u8 = 0x8;

/// STATUS_INVALID_OWNER, STATUS_INVALID_PRIMARY_GROUP, STATUS_NONE_MAPPED, STATUS_INVALID_SECURITY_DESCR (MS-ERREF
/// 2.3.1).
const INVALID_OWNER: NtStatus = NtStatus(0xC000_005A);
const INVALID_PRIMARY_GROUP: NtStatus = NtStatus(0xC000_005B);
const NONE_MAPPED: NtStatus = NtStatus(0xC000_0073);

/// A security identifier: authority and subauthorities (MS-DTYP 2.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sid {
    authority: u64,
    sub: Vec<u32>,
}

impl Sid {
    fn new(authority: u64, sub: &[u32]) -> Sid {
        Sid {
            authority,
            sub: sub.to_vec(),
        }
    }

    fn user(uid: u32) -> Sid {
        Sid::new(22, &[1, uid])
    }

    fn group(gid: u32) -> Sid {
        Sid::new(22, &[2, gid])
    }

    fn everyone() -> Sid {
        Sid::new(1, &[0])
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.push(self.sub.len() as u8);
        out.extend(self.authority.to_be_bytes().iter().skip(2));
        out.extend(self.sub.iter().flat_map(|sub| sub.to_le_bytes()));
    }

    fn parse(bytes: &[u8]) -> Option<Sid> {
        let (&[revision, count], rest) = bytes.split_first_chunk()?;
        // MS-DTYP 2.4.2.2: at most 15 subauthorities.
        if revision != 1 || count > 15 {
            return None;
        }
        let (authority, rest) = rest.split_first_chunk::<6>()?;
        let authority = authority.iter().fold(0, |sum, &b| sum << 8 | u64::from(b));
        let sub = rest
            .get(..usize::from(count) * 4)?
            .chunks_exact(4)
            .filter_map(|sub| Some(u32::from_le_bytes(*sub.first_chunk()?)))
            .collect();
        Some(Sid { authority, sub })
    }
}

/// Returns the parts of the descriptor that `information` requests.
///
/// # Errors
/// As `statx`.
pub fn query(fd: &OwnedFd, information: u32) -> Result<Bytes, NtStatus> {
    let stat = stat(fd).map_err(status)?;
    let (owner, group) = (Sid::user(stat.stx_uid), Sid::group(stat.stx_gid));
    let mut control = SE_SELF_RELATIVE;
    let mut body = Vec::new();
    let mut at = [0_u32; 4]; // owner, group, SACL, DACL
    let mut put = |slot: usize, body: &mut Vec<u8>, write: &dyn Fn(&mut Vec<u8>)| {
        if let Some(offset) = at.get_mut(slot) {
            *offset = (HEADER_BYTES + body.len()) as u32;
        }
        write(body);
    };
    if information & OWNER != 0 {
        put(0, &mut body, &|out| owner.write(out));
    }
    if information & GROUP != 0 {
        put(1, &mut body, &|out| group.write(out));
    }
    if information & DACL != 0 {
        control |= SE_DACL_PRESENT;
        let entries = entries(&owner, &group, u32::from(stat.stx_mode), is_dir(&stat));
        put(3, &mut body, &|out| write_acl(&entries, out));
    }
    let mut descriptor = vec![1, 0];
    descriptor.extend(control.to_le_bytes());
    descriptor.extend(at.iter().flat_map(|offset| offset.to_le_bytes()));
    descriptor.extend(body);
    Ok(Bytes::from(descriptor))
}

/// The rights that an owner has whatever the mode says.
const OWNER_RIGHTS: u32 =
    ALWAYS | right::WRITE_ATTRIBUTES | right::WRITE_DAC | right::WRITE_OWNER | right::DELETE;

/// The DACL's entries, in the canonical order (MS-DTYP 2.4.4.1): denying ones first.
fn entries(owner: &Sid, group: &Sid, mode: u32, is_dir: bool) -> Vec<(u8, Sid, u32)> {
    let [others, of_group, of_owner] = [mode, mode >> 3, mode >> 6];
    let denied = [
        (owner, (of_group | others) & !of_owner),
        (group, others & !of_group),
    ];
    let denied = denied
        .into_iter()
        .map(|(sid, digit)| (ACE_DENIED, sid.clone(), refused(digit, is_dir)));
    let allowed = [
        (owner.clone(), rights(of_owner, is_dir) | OWNER_RIGHTS),
        (group.clone(), rights(of_group, is_dir)),
        (Sid::everyone(), rights(others, is_dir)),
    ];
    let allowed = allowed.map(|(sid, mask)| (ACE_ALLOWED, sid, mask));
    let entries = denied.chain(allowed);
    entries.filter(|(.., mask)| *mask != 0).collect()
}

/// The rights that a class lacks without these bits.
fn refused(digit: u32, is_dir: bool) -> u32 {
    let bit = |bit, rights| if digit & bit != 0 { rights } else { 0 };
    let children = if is_dir { right::DELETE_CHILD } else { 0 };
    bit(4, right::READ_DATA)
        | bit(2, right::WRITE_DATA | right::APPEND_DATA | children)
        | bit(1, right::EXECUTE)
}

/// The rights that one digit of the mode permits.
fn rights(digit: u32, is_dir: bool) -> u32 {
    let mut rights = right::READ_CONTROL | right::SYNCHRONIZE | right::READ_ATTRIBUTES;
    if digit & 4 != 0 {
        rights |= right::FILE_GENERIC_READ;
    }
    if digit & 2 != 0 {
        rights |= right::FILE_GENERIC_WRITE;
        if is_dir {
            rights |= right::DELETE_CHILD;
        }
    }
    if digit & 1 != 0 {
        rights |= right::FILE_GENERIC_EXECUTE;
    }
    rights
}

fn write_acl(entries: &[(u8, Sid, u32)], out: &mut Vec<u8>) {
    let mut aces = Vec::new();
    for (kind, sid, mask) in entries {
        let mut ace = mask.to_le_bytes().to_vec();
        sid.write(&mut ace);
        aces.extend([*kind, 0]);
        aces.extend((ace.len() as u16 + 4).to_le_bytes());
        aces.extend(ace);
    }
    out.extend([2, 0]);
    out.extend((aces.len() as u16 + 8).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend([0, 0]);
    out.extend(aces);
}

/// The parts of a descriptor as received from the client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Descriptor {
    owner: Option<Sid>,
    group: Option<Sid>,
    /// `None`: absent. `Some(None)`: the null DACL, everything for everyone.
    dacl: Option<Option<Vec<Ace>>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Ace {
    kind: u8,
    flags: u8,
    mask: u32,
    sid: Sid,
}

fn parse(bytes: &[u8]) -> Option<Descriptor> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let control = u16_at(2)?;
    if bytes.first() != Some(&1) || control & SE_SELF_RELATIVE == 0 {
        return None;
    }
    let sid = |at: usize| match u32_at(at)? as usize {
        0 => Some(None),
        offset => Some(Some(Sid::parse(bytes.get(offset..)?)?)),
    };
    let dacl_at = u32_at(16)? as usize;
    let dacl = match (control & SE_DACL_PRESENT != 0, dacl_at) {
        (false, _) => None,
        (true, 0) => Some(None),
        (true, offset) => Some(Some(parse_acl(bytes.get(offset..)?)?)),
    };
    Some(Descriptor {
        owner: sid(4)?,
        group: sid(8)?,
        dacl,
    })
}

fn parse_acl(bytes: &[u8]) -> Option<Vec<Ace>> {
    let (header, _) = bytes.split_first_chunk::<8>()?;
    let [
        revision,
        _,
        size_low,
        size_high,
        count_low,
        count_high,
        _,
        _,
    ] = *header;
    if revision != 2 && revision != 4 {
        return None;
    }
    let size = usize::from(u16::from_le_bytes([size_low, size_high]));
    let mut rest = bytes.get(8..size)?;
    let count = u16::from_le_bytes([count_low, count_high]);
    let mut entries = Vec::new();
    for _ in 0..count {
        let &[kind, flags, size_low, size_high] = rest.first_chunk()?;
        let size = usize::from(u16::from_le_bytes([size_low, size_high]));
        let (ace, after) = rest.split_at_checked(size)?;
        rest = after;
        // Kinds with other layouts (object, callback) do not apply to files; they are refused later by their kind.
        let mask = u32::from_le_bytes(*ace.get(4..)?.first_chunk()?);
        let sid = match kind {
            ACE_ALLOWED | ACE_DENIED => Sid::parse(ace.get(8..)?)?,
            _ => Sid::everyone(),
        };
        entries.push(Ace {
            kind,
            flags,
            mask,
            sid,
        });
    }
    Some(entries)
}

/// Sets the parts of the descriptor that `information` names: chown and chmod. Runs with the account's rights.
///
/// # Errors
/// INVALID_PARAMETER if it is malformed; INVALID_OWNER, INVALID_PRIMARY_GROUP, NONE_MAPPED for what Linux cannot
/// express; as `chown`, `chmod`.
pub fn set(fd: &OwnedFd, information: u32, descriptor: &[u8]) -> Result<(), NtStatus> {
    let descriptor = parse(descriptor).ok_or(NtStatus::INVALID_PARAMETER)?;
    let stat = stat(fd).map_err(status)?;
    let (mut uid, mut gid) = (stat.stx_uid, stat.stx_gid);
    if information & OWNER != 0 {
        match descriptor
            .owner
            .as_ref()
            .map(|s| (s.authority, s.sub.as_slice()))
        {
            Some((22, &[1, new])) => uid = new,
            _ => return Err(INVALID_OWNER),
        }
    }
    if information & GROUP != 0 {
        match descriptor
            .group
            .as_ref()
            .map(|s| (s.authority, s.sub.as_slice()))
        {
            Some((22, &[2, new])) => gid = new,
            _ => return Err(INVALID_PRIMARY_GROUP),
        }
    }
    // (uid_t) -1 means "leave it" to the kernel, and is no account's id.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(INVALID_OWNER);
    }
    let path = fd_path(fd.as_fd());
    let old_mode = u32::from(stat.stx_mode) & 0o7777;
    let mode = match (information & DACL != 0, &descriptor.dacl) {
        (false, _) | (true, None) => None,
        (true, Some(None)) => Some(0o777),
        (true, Some(Some(dacl))) => Some(mode_of(dacl, uid, gid)?),
    };
    if (uid, gid) != (stat.stx_uid, stat.stx_gid) {
        let owner = (uid != stat.stx_uid).then(|| Uid::from_raw(uid));
        let group = (gid != stat.stx_gid).then(|| Gid::from_raw(gid));
        rustix::fs::chown(&path, owner, group).map_err(status)?;
    }
    if let Some(mode) = mode.map(|m| m | old_mode & 0o7000)
        && mode != old_mode
    {
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).map_err(status)?;
    }
    Ok(())
}

/// The nearest mode: each class gets what the entries for it and for everyone permit; the first entry about a right
/// decides.
fn mode_of(dacl: &[Ace], uid: u32, gid: u32) -> Result<u32, NtStatus> {
    #[derive(Default, Clone, Copy)]
    struct Class {
        allowed: u32,
        decided: u32,
    }
    let mut classes = [Class::default(); 3]; // owner, group, other
    for ace in dacl.iter().filter(|ace| ace.flags & INHERIT_ONLY == 0) {
        if ace.kind > ACE_DENIED {
            return Err(NtStatus::NOT_SUPPORTED);
        }
        let applies = match (ace.sid.authority, ace.sid.sub.as_slice()) {
            (22, &[1, id]) if id == uid => [true, false, false],
            // CREATOR OWNER, OWNER RIGHTS; CREATOR GROUP.
            (3, &[0 | 4]) => [true, false, false],
            (22, &[2, id]) if id == gid => [false, true, false],
            (3, &[1]) => [false, true, false],
            // Everyone, Authenticated Users.
            (1, &[0]) | (5, &[11]) => [true, true, true],
            // SYSTEM, Administrators.
            (5, &[18] | &[32, 544]) => continue,
            _ => return Err(NONE_MAPPED),
        };
        let mask = right::expand(ace.mask) & right::FILE_ALL_ACCESS;
        for (class, _) in classes.iter_mut().zip(applies).filter(|(_, yes)| *yes) {
            if ace.kind == ACE_ALLOWED {
                class.allowed |= mask & !class.decided;
            }
            class.decided |= mask;
        }
    }
    Ok(classes.iter().fold(0, |mode, class| {
        let bit = |right, bit| if class.allowed & right != 0 { bit } else { 0 };
        mode << 3 | bit(right::READ_DATA, 4) | bit(right::WRITE_DATA, 2) | bit(right::EXECUTE, 1)
    }))
}

#[cfg(test)]
mod tests;
