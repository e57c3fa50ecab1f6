//! Pairs: two servers of one service, of which one serves and the other stands by (`docs/pairs.md`).

pub mod arbiter;
pub mod etcd;
pub mod hook;
pub mod lease;
pub mod lock;
pub mod outlook;
pub mod page;
pub mod role;

/// Names, for a worker, the descriptor that has the arbiter's lock: as long as it lives, no other node is admitted.
pub const ADMITTED_VARIABLE: &str = "OUTLAST_ADMITTED_FD";
/// Names the descriptor of the [`page::Page`].
pub const PAGE_VARIABLE: &str = "OUTLAST_PAIR_FD";
/// Names the descriptor of the [`lease::Deadline`], where the arbiter admits a node for a time.
pub const LEASE_VARIABLE: &str = "OUTLAST_LEASE_FD";
