//! Decides which opens of a file have a sharing violation (MS-FSA 2.1.5.1.2.2).

use crate::access;

/// FILE_SHARE_* (MS-SMB2 2.2.13, ShareAccess).
#[allow(missing_docs)] // the names are MS-SMB2's own
pub mod share_access {
    pub const READ: u32 = 0x0000_0001;
    pub const WRITE: u32 = 0x0000_0002;
    pub const DELETE: u32 = 0x0000_0004;
    /// All access is shared.
    pub const ALL: u32 = READ | WRITE | DELETE;
}

/// The share mode of an open: its own access, and the access that it shares, both as ShareAccess bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sharing {
    does: u32,
    lets: u32,
}

impl Sharing {
    /// Makes the share mode of an access and a ShareAccess; access to attributes is exempt from share modes.
    #[must_use]
    pub fn of(access: u32, share_access: u32) -> Sharing {
        let kinds = [
            (access::READS, share_access::READ),
            (access::WRITES, share_access::WRITE),
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

    /// Returns whether two opens have a sharing violation (MS-FSA 2.1.5.1.2.2).
    #[must_use]
    pub fn excludes(self, other: Sharing) -> bool {
        self.does != 0
            && other.does != 0
            && (self.does & !other.lets != 0 || other.does & !self.lets != 0)
    }
}
