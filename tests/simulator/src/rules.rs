//! What a seed has besides its clients and their requests, and the judge must know: accounts that there are not, links
//! that a file system does not have, a client that is left alone.

use crate::limits::Limits;
use crate::random::Random;
use crate::revocation::Revocation;
use crate::trouble;

/// What a share's file system lacks of what ext4, XFS and btrfs have, as FUSE does and NFS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// A rename that replaces nothing (RENAME_NOREPLACE), and files without a name (O_TMPFILE).
    pub noreplace: bool,
    /// Hard links.
    pub links: bool,
    /// Birth times and handles: a file is known by its number alone, and the number is given again when the file is
    /// gone.
    pub births: bool,
}

impl Lacks {
    /// Of two in sixteen usual scenarios and one of eight small ones.
    #[must_use]
    pub fn of(seed: u64) -> Lacks {
        let mut random = Random::new(seed, "file system");
        if !matches!(seed % 32, 9 | 16 | 19 | 25) {
            return Lacks::default();
        }
        let noreplace = random.percent(80);
        Lacks {
            noreplace,
            links: noreplace && random.percent(50),
            births: random.percent(50),
        }
    }
}

/// What the judge goes by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Small limits.
    pub limits: Option<Limits>,
    /// The client whose user has no account on the server.
    pub without_account: Option<usize>,
    /// The file system has no hard links.
    pub has_no_links: bool,
    /// Somebody loses something when the server has another configuration.
    pub revocation: Option<Revocation>,
}

impl Rules {
    /// A seed's, with so many clients.
    #[must_use]
    pub fn of(seed: u64, clients: usize) -> Rules {
        let mut random = Random::new(seed, "accounts");
        let has_strange_user = trouble::is_of(seed) && clients > 1 && random.percent(60);
        Rules {
            limits: None,
            without_account: has_strange_user.then(|| random.index(clients)),
            has_no_links: Lacks::of(seed).links,
            revocation: Revocation::of(seed, clients),
        }
    }

    /// Does this client have to do with the others' files?
    #[must_use]
    pub fn is_alone(&self, client: usize) -> bool {
        let victim = self.revocation.map(|revocation| revocation.victim);
        [self.without_account, victim].contains(&Some(client))
    }
}
