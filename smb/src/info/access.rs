//! Rights of an open (MS-SMB2 2.2.13.1.1) and which of them a level asks for.

use crate::status::NtStatus;

/// FILE_READ_DATA / FILE_LIST_DIRECTORY.
pub const FILE_READ_DATA: u32 = 0x0000_0001;
/// FILE_WRITE_DATA / FILE_ADD_FILE.
pub const FILE_WRITE_DATA: u32 = 0x0000_0002;
/// FILE_APPEND_DATA / FILE_ADD_SUBDIRECTORY.
pub const FILE_APPEND_DATA: u32 = 0x0000_0004;
/// FILE_READ_EA.
pub const FILE_READ_EA: u32 = 0x0000_0008;
/// FILE_WRITE_EA.
pub const FILE_WRITE_EA: u32 = 0x0000_0010;
/// FILE_EXECUTE / FILE_TRAVERSE.
pub const FILE_EXECUTE: u32 = 0x0000_0020;
/// FILE_READ_ATTRIBUTES.
pub const FILE_READ_ATTRIBUTES: u32 = 0x0000_0080;
/// FILE_WRITE_ATTRIBUTES.
pub const FILE_WRITE_ATTRIBUTES: u32 = 0x0000_0100;
/// DELETE.
pub const DELETE: u32 = 0x0001_0000;
/// READ_CONTROL.
pub const READ_CONTROL: u32 = 0x0002_0000;
/// WRITE_DAC.
pub const WRITE_DAC: u32 = 0x0004_0000;
/// WRITE_OWNER.
pub const WRITE_OWNER: u32 = 0x0008_0000;
/// ACCESS_SYSTEM_SECURITY.
pub const ACCESS_SYSTEM_SECURITY: u32 = 0x0100_0000;

/// SECURITY_INFORMATION (MS-DTYP 2.4.7): the parts of a security descriptor that need no special privilege.
pub const OWNER_SECURITY_INFORMATION: u32 = 0x0000_0001;
/// The primary group.
pub const GROUP_SECURITY_INFORMATION: u32 = 0x0000_0002;
/// The discretionary access control list.
pub const DACL_SECURITY_INFORMATION: u32 = 0x0000_0004;
/// The system access control list.
pub const SACL_SECURITY_INFORMATION: u32 = 0x0000_0008;
/// The integrity label.
pub const LABEL_SECURITY_INFORMATION: u32 = 0x0000_0010;

/// ACCESS_DENIED unless `granted` holds all of `needed`.
///
/// # Errors
/// `ACCESS_DENIED`.
pub fn require(granted: u32, needed: u32) -> Result<(), NtStatus> {
    if granted & needed == needed {
        Ok(())
    } else {
        Err(NtStatus::ACCESS_DENIED)
    }
}

/// What reading these parts of the security descriptor asks for (MS-SMB2 3.3.5.20.3).
#[must_use]
pub fn to_query_security(information: u32) -> u32 {
    let mut needed = 0;
    let plain = OWNER_SECURITY_INFORMATION
        | GROUP_SECURITY_INFORMATION
        | DACL_SECURITY_INFORMATION
        | LABEL_SECURITY_INFORMATION;
    if information & plain != 0 {
        needed |= READ_CONTROL;
    }
    if information & SACL_SECURITY_INFORMATION != 0 {
        needed |= ACCESS_SYSTEM_SECURITY;
    }
    needed
}

/// What changing these parts of the security descriptor asks for (MS-SMB2 3.3.5.21.3).
#[must_use]
pub fn to_set_security(information: u32) -> u32 {
    let mut needed = 0;
    if information
        & (OWNER_SECURITY_INFORMATION | GROUP_SECURITY_INFORMATION | LABEL_SECURITY_INFORMATION)
        != 0
    {
        needed |= WRITE_OWNER;
    }
    if information & DACL_SECURITY_INFORMATION != 0 {
        needed |= WRITE_DAC;
    }
    if information & SACL_SECURITY_INFORMATION != 0 {
        needed |= ACCESS_SYSTEM_SECURITY;
    }
    needed
}
