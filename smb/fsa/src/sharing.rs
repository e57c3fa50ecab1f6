//! Which opens can be beside one another (MS-FSA 2.1.5.1.2.2).

use crate::access;

/// FILE_SHARE_* (MS-SMB2 2.2.13, ShareAccess).
#[allow(missing_docs)] // the names are MS-SMB2's own
pub mod share_access {
    pub const READ: u32 = 0x0000_0001;
    pub const WRITE: u32 = 0x0000_0002;
    pub const DELETE: u32 = 0x0000_0004;
    /// Everything is shared.
    pub const ALL: u32 = READ | WRITE | DELETE;
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

    /// Can two opens not be at the same time (MS-FSA 2.1.5.1.2.2)?
    #[must_use]
    pub fn excludes(self, other: Sharing) -> bool {
        self.does != 0
            && other.does != 0
            && (self.does & !other.lets != 0 || other.does & !self.lets != 0)
    }
}
