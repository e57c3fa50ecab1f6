//! Shares helpers between the tests of several modules.

pub(crate) mod bytes;
pub(crate) mod fixture;
pub(crate) mod testing;
