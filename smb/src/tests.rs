//! What the tests of several modules share.

pub(crate) mod bytes;
pub(crate) mod fixture;
pub(crate) mod testing;
