//! Defines those properties of a scenario that the judge must know: users without an account, a file system without
//! links, a client that shares no files.

use crate::failing;
use crate::limits::Limits;
use crate::random::Random;
use crate::revocation::Revocation;
use crate::sickness;

/// The features of ext4, XFS and btrfs that a share's file system lacks, as FUSE and NFS do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// A rename that replaces nothing (RENAME_NOREPLACE), and files without a name (O_TMPFILE).
    pub noreplace: bool,
    /// Hard links.
    pub links: bool,
    /// Birth times and handles: a file is identified by its number alone, which is used again when the file is deleted.
    pub births: bool,
}

impl Lacks {
    /// Derives what the file system of a seed lacks: only one of eight scenarios may lack something.
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

/// The rules of the judge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// The limits, if they are small.
    pub limits: Option<Limits>,
    /// The client whose user has no account on the server.
    pub without_account: Option<usize>,
    /// The file system has no hard links.
    pub has_no_links: bool,
    /// A client loses something by a new configuration.
    pub revocation: Option<Revocation>,
    /// The first client of the second share, if the scenario may have two.
    pub first_of_second_share: Option<usize>,
}

impl Rules {
    /// Derives the rules of a seed with this number of clients.
    #[must_use]
    pub fn of(seed: u64, clients: usize) -> Rules {
        let mut random = Random::new(seed, "accounts");
        let has_user_without_account = failing::is_of(seed) && clients > 1 && random.percent(60);
        Rules {
            limits: None,
            without_account: has_user_without_account.then(|| random.index(clients)),
            has_no_links: Lacks::of(seed).links,
            revocation: Revocation::of(seed, clients),
            first_of_second_share: sickness::first_of_second_share(seed, clients),
        }
    }

    /// Returns whether this client shares no files with the others.
    #[must_use]
    pub fn is_alone(&self, client: usize) -> bool {
        let victim = self.revocation.map(|revocation| revocation.victim);
        [self.without_account, victim].contains(&Some(client))
            || self
                .first_of_second_share
                .is_some_and(|first| client >= first)
    }
}
