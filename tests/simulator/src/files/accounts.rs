//! The account that an operation is done for. An account that has been looked up is known until the server dies; while
//! it is not, and the name service fails, what is done for it is refused.

use std::collections::BTreeSet;

use outlast_fsa::fileop::{Actor, FileOp};
use outlast_fsa::status::NtStatus;

use super::Files;
use crate::mutation::Mutation;
use crate::trouble::What;

/// The accounts of the server's machine.
#[derive(Debug)]
pub(super) struct Accounts {
    /// Those that this life of the server has looked up.
    known: BTreeSet<String>,
    /// A user that has none.
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
    /// Takes on the account that an operation is done for, if it is an operation on names.
    ///
    /// # Errors
    /// ACCESS_DENIED: there is no such account, or the name service fails, and the account is not known.
    pub(super) fn take_on_account(&mut self, actor: &Actor, op: &FileOp) -> Result<(), NtStatus> {
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
            Some(Mutation::UnknownIsRoot) => Ok(()),
            _ => Err(refused),
        })
    }
}
