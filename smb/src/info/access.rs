//! Determines the rights that an information class requires of an open (MS-SMB2 2.2.13.1.1).

use outlast_fsa::access::{ACCESS_SYSTEM_SECURITY, READ_CONTROL, WRITE_DAC, WRITE_OWNER};
use outlast_fsa::status::NtStatus;

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

/// Checks that `granted` contains all of `needed`.
///
/// # Errors
/// `ACCESS_DENIED` if a right is missing.
pub fn require(granted: u32, needed: u32) -> Result<(), NtStatus> {
    if granted & needed == needed {
        Ok(())
    } else {
        Err(NtStatus::ACCESS_DENIED)
    }
}

/// Returns the rights required to read these parts of the security descriptor (MS-SMB2 3.3.5.20.3).
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

/// Returns the rights required to change these parts of the security descriptor (MS-SMB2 3.3.5.21.3).
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
