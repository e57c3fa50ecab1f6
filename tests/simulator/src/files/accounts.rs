//! Simulates the accounts for which operations are done. An account that has been looked up is known until the server
//! dies. If an account is not known and the name service fails, its operations are refused.

use std::collections::BTreeSet;

use outlast_fsa::fileop::{Actor, FileOp};
use outlast_fsa::status::NtStatus;

use super::Files;
use crate::failing::What;
use crate::mutation::Mutation;

/// The accounts of the server's machine.
#[derive(Debug)]
pub(super) struct Accounts {
    /// The accounts that this life of the server has looked up.
    known: BTreeSet<String>,
    /// The user that has no account.
    absent: Option<String>,
    mutation: Option<Mutation>,
}

impl Accounts {
    pub(super) fn new(absent: Option<String>, mutation: Option<Mutation>) -> Accounts {
        Accounts {
            known: BTreeSet::new(),
            absent,
            mutation,
        }
    }
}

impl Files {
    /// Looks up the account that an operation on names is done for.
    ///
    /// # Errors
    /// ACCESS_DENIED: the account does not exist, or is not known and the name service fails.
    pub(super) fn look_up_account(&mut self, actor: &Actor, op: &FileOp) -> Result<(), NtStatus> {
        let asks = matches!(
            op,
            FileOp::Create(_) | FileOp::Rename { .. } | FileOp::Link { .. }
        );
        let user = actor.user.clone().unwrap_or_default();
        if !asks || self.accounts.known.contains(&user) {
            return Ok(());
        }
        let found = match self.meet(What::NameService, op) {
            Ok(()) if self.accounts.absent.as_ref() == Some(&user) => Err(NtStatus::ACCESS_DENIED),
            found => found,
        };
        if found.is_ok() {
            self.accounts.known.insert(user);
        }
        found.or_else(|refused| match self.accounts.mutation {
            Some(Mutation::UnknownAccountIsRoot) => Ok(()),
            _ => Err(refused),
        })
    }
}
