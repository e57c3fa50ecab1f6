//! Shares the log's room for replies that clients have not read.
//!
//! An account holds at most as many bytes as remain free (dynamic thresholds, Choudhury and Hahne, 1998): one account
//! alone uses half of the room, several get equal parts without being counted, and some room remains for another one.
//! Accounts share and not connections, for the reason that [`super::turns`] gives.

use std::collections::BTreeMap;

use outlast_smb::Principal;

/// The number of bytes that each account holds.
#[derive(Debug, Default)]
pub struct Shares {
    limit: u64,
    total: u64,
    accounts: BTreeMap<Principal, u64>,
}

impl Shares {
    /// Makes an empty account list; `limit`: bytes that there is room for.
    #[must_use]
    pub fn new(limit: u64) -> Shares {
        Shares {
            limit,
            ..Shares::default()
        }
    }

    /// Adds bytes to an account.
    pub fn add(&mut self, principal: &Principal, bytes: u64) {
        self.total += bytes;
        match self.accounts.get_mut(principal) {
            Some(own) => *own += bytes,
            None => {
                self.accounts.insert(principal.clone(), bytes);
            }
        }
    }

    fn own(&self, principal: &Principal) -> u64 {
        self.accounts.get(principal).copied().unwrap_or_default()
    }

    /// Returns whether an account may hold this many more bytes, in one piece. It always may if no bytes are held: no
    /// reply is longer than the log permits.
    #[must_use]
    pub fn has_room(&self, principal: &Principal, bytes: u64) -> bool {
        let left = self.limit.saturating_sub(self.total);
        self.total == 0 || self.own(principal) + bytes.max(1) <= left
    }
}

#[cfg(test)]
mod tests;
