//! Access rights of a CREATE (MS-DTYP 2.4.3, MS-FSA 2.1.5.1), and which opens can share a file.

use crate::status::NtStatus;
use crate::wire::create::{access, share_access};

/// What GENERIC_READ means for files (MS-SMB2 2.2.13.1.1).
pub const READ: u32 = 0x0012_0089;
/// GENERIC_WRITE.
pub const WRITE: u32 = 0x0012_0116;
/// GENERIC_EXECUTE.
pub const EXECUTE: u32 = 0x0012_00A0;
/// GENERIC_ALL.
pub const ALL: u32 = 0x001F_01FF;
/// Every right by which something is changed.
pub const CHANGING: u32 = access::WRITE_DATA
    | access::APPEND_DATA
    | access::WRITE_EA
    | access::DELETE_CHILD
    | access::WRITE_ATTRIBUTES
    | access::DELETE
    | access::WRITE_DAC
    | access::WRITE_OWNER;
/// Rights that neither break an oplock nor take part in sharing: the open only looks at attributes.
const LOOKING: u32 = access::READ_ATTRIBUTES | access::WRITE_ATTRIBUTES | access::SYNCHRONIZE;
/// Bits that are no right (MS-FSA 2.1.5.1).
const INVALID: u32 = 0x0CE0_FE00;

/// DesiredAccess with its generic bits replaced by what they mean.
#[must_use]
pub fn expand(desired: u32) -> u32 {
    let generic = [
        (access::GENERIC_READ, READ),
        (access::GENERIC_WRITE, WRITE),
        (access::GENERIC_EXECUTE, EXECUTE),
        (access::GENERIC_ALL, ALL),
    ];
    generic
        .iter()
        .fold(desired, |rights, (bit, meaning)| match rights & bit {
            0 => rights,
            _ => rights & !bit | meaning,
        })
}

/// Is this a DesiredAccess at all?
///
/// # Errors
/// ACCESS_DENIED for none or for bits that are no right (MS-FSA 2.1.5.1), PRIVILEGE_NOT_HELD for access to the system ACL.
pub fn validate(desired: u32) -> Result<(), NtStatus> {
    if desired == 0 || desired & INVALID != 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if desired & access::ACCESS_SYSTEM_SECURITY != 0 {
        return Err(NtStatus::PRIVILEGE_NOT_HELD);
    }
    Ok(())
}

/// GrantedAccess: what was asked for, of the `maximal` rights there are.
///
/// # Errors
/// ACCESS_DENIED.
pub fn grant(desired: u32, maximal: u32) -> Result<u32, NtStatus> {
    let expanded = expand(desired);
    let asked = expanded & !access::MAXIMUM_ALLOWED;
    if asked & !maximal != 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let granted = match expanded & access::MAXIMUM_ALLOWED {
        0 => asked,
        _ => asked | maximal,
    };
    match granted {
        0 => Err(NtStatus::ACCESS_DENIED),
        granted => Ok(granted),
    }
}

/// The open only looks at attributes.
#[must_use]
pub fn only_looks(access: u32) -> bool {
    access & !LOOKING == 0
}

/// What an open does to its file and what it lets others do beside it, both as share access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sharing {
    does: u32,
    lets: u32,
}

impl Sharing {
    /// By its access and its share access; attributes take no part in sharing.
    #[must_use]
    pub fn of(access: u32, share_access: u32) -> Sharing {
        let kinds = [
            (access::READ_DATA | access::EXECUTE, share_access::READ),
            (
                access::WRITE_DATA | access::APPEND_DATA,
                share_access::WRITE,
            ),
            (access::DELETE, share_access::DELETE),
        ];
        kinds.iter().fold(
            Sharing { does: 0, lets: 0 },
            |Sharing { does, lets }, (rights, kind)| Sharing {
                does: if access & rights == 0 {
                    does
                } else {
                    does | kind
                },
                lets: lets | share_access & kind,
            },
        )
    }

    /// Can two opens not be at the same time (MS-FSA 2.1.5.1.2.2)?
    #[must_use]
    pub fn excludes(self, other: Sharing) -> bool {
        self.does != 0
            && other.does != 0
            && (self.does & !other.lets != 0 || other.does & !self.lets != 0)
    }
}
