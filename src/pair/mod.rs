//! Pairs: two servers of one service, of which one serves and the other stands by (`docs/pairs.md`).

pub mod arbiter;
pub mod lock;
pub mod role;
