//! Pairs: two servers of one service, of which one serves and the other stands by (`docs/pairs.md`).

pub mod arbiter;
pub mod hook;
pub mod lock;
pub mod outlook;
pub mod page;
pub mod role;

/// The variable with a worker's descriptor of the arbiter's lock: as long as it lives, no other node is admitted.
pub const ADMITTED_VARIABLE: &str = "OUTLAST_ADMITTED_FD";
/// The variable with the descriptor of the [`page::Page`].
pub const PAGE_VARIABLE: &str = "OUTLAST_PAIR_FD";
