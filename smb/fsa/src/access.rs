//! Checks a DesiredAccess and computes an open's GrantedAccess (MS-DTYP 2.4.3, MS-SMB2 2.2.13.1, MS-FSA 2.1.5.1).

use crate::status::NtStatus;

#[allow(missing_docs)] // the names are MS-SMB2's own
mod right {
    pub const READ_DATA: u32 = 0x0000_0001;
    pub const WRITE_DATA: u32 = 0x0000_0002;
    pub const APPEND_DATA: u32 = 0x0000_0004;
    pub const READ_EA: u32 = 0x0000_0008;
    pub const WRITE_EA: u32 = 0x0000_0010;
    pub const EXECUTE: u32 = 0x0000_0020;
    pub const DELETE_CHILD: u32 = 0x0000_0040;
    pub const READ_ATTRIBUTES: u32 = 0x0000_0080;
    pub const WRITE_ATTRIBUTES: u32 = 0x0000_0100;
    pub const DELETE: u32 = 0x0001_0000;
    pub const READ_CONTROL: u32 = 0x0002_0000;
    pub const WRITE_DAC: u32 = 0x0004_0000;
    pub const WRITE_OWNER: u32 = 0x0008_0000;
    pub const SYNCHRONIZE: u32 = 0x0010_0000;
    pub const ACCESS_SYSTEM_SECURITY: u32 = 0x0100_0000;
    pub const MAXIMUM_ALLOWED: u32 = 0x0200_0000;
    pub const GENERIC_ALL: u32 = 0x1000_0000;
    pub const GENERIC_EXECUTE: u32 = 0x2000_0000;
    pub const GENERIC_WRITE: u32 = 0x4000_0000;
    pub const GENERIC_READ: u32 = 0x8000_0000;
}
pub use right::*;

/// The rights that allow reading a file's data.
pub const READS: u32 = READ_DATA | EXECUTE;
/// The rights that allow writing a file's data.
pub const WRITES: u32 = WRITE_DATA | APPEND_DATA;
/// The rights that GENERIC_READ stands for (MS-SMB2 2.2.13.1.1).
pub const FILE_GENERIC_READ: u32 = 0x0012_0089;
/// The rights that GENERIC_WRITE stands for.
pub const FILE_GENERIC_WRITE: u32 = 0x0012_0116;
/// The rights that GENERIC_EXECUTE stands for.
pub const FILE_GENERIC_EXECUTE: u32 = 0x0012_00A0;
/// The rights that GENERIC_ALL stands for.
pub const FILE_ALL_ACCESS: u32 = 0x001F_01FF;
/// The rights that allow a change of data, attributes, the security descriptor or the name.
pub const CHANGING: u32 = WRITE_DATA
    | APPEND_DATA
    | WRITE_EA
    | DELETE_CHILD
    | WRITE_ATTRIBUTES
    | DELETE
    | WRITE_DAC
    | WRITE_OWNER;
/// The rights of an open that only reads or sets attributes: it breaks no oplock and is exempt from share modes.
const LOOKING: u32 = READ_ATTRIBUTES | WRITE_ATTRIBUTES | SYNCHRONIZE;
/// The bits of an access mask that are not rights (MS-FSA 2.1.5.1).
const INVALID: u32 = 0x0CE0_FE00;

/// Replaces the generic bits of a DesiredAccess by the specific rights that they stand for.
#[must_use]
pub fn expand(desired: u32) -> u32 {
    let generic = [
        (GENERIC_READ, FILE_GENERIC_READ),
        (GENERIC_WRITE, FILE_GENERIC_WRITE),
        (GENERIC_EXECUTE, FILE_GENERIC_EXECUTE),
        (GENERIC_ALL, FILE_ALL_ACCESS),
    ];
    generic
        .iter()
        .fold(desired, |rights, (bit, meaning)| match rights & bit {
            0 => rights,
            _ => rights & !bit | meaning,
        })
}

/// Checks that a DesiredAccess is valid.
///
/// # Errors
/// ACCESS_DENIED for an empty mask or for bits that are not rights (MS-FSA 2.1.5.1), PRIVILEGE_NOT_HELD for access to
/// the system ACL.
pub fn validate(desired: u32) -> Result<(), NtStatus> {
    if desired == 0 || desired & INVALID != 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if desired & ACCESS_SYSTEM_SECURITY != 0 {
        return Err(NtStatus::PRIVILEGE_NOT_HELD);
    }
    Ok(())
}

/// Computes GrantedAccess: the rights that `desired` requests, all of which must be among the `maximal` rights.
///
/// # Errors
/// ACCESS_DENIED if a requested right is not among them, or no right would be granted.
pub fn grant(desired: u32, maximal: u32) -> Result<u32, NtStatus> {
    let expanded = expand(desired);
    let asked = expanded & !MAXIMUM_ALLOWED;
    if asked & !maximal != 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let granted = match expanded & MAXIMUM_ALLOWED {
        0 => asked,
        _ => asked | maximal,
    };
    match granted {
        0 => Err(NtStatus::ACCESS_DENIED),
        granted => Ok(granted),
    }
}

/// Returns whether the open only accesses attributes or reads the security descriptor: it breaks no lease.
#[must_use]
pub fn breaks_no_lease(access: u32) -> bool {
    access & !(LOOKING | READ_CONTROL) == 0
}

/// Returns whether the open only accesses attributes.
#[must_use]
pub fn only_looks(access: u32) -> bool {
    access & !LOOKING == 0
}
