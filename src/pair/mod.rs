//! Implements pairs: two servers of one service, of which one serves and the other is on standby (`docs/pairs.md`).

pub mod arbiter;
pub mod basis;
pub mod etcd;
pub mod hook;
pub mod lease;
pub mod link;
pub mod lock;
pub mod mirror;
pub mod outlook;
pub mod page;
pub mod role;

/// The environment variable with a worker's descriptor of the arbiter's lock: as long as it lives, no other node is
/// admitted.
pub const ADMITTED_VARIABLE: &str = "OUTLAST_ADMITTED_FD";
/// The environment variable with the descriptor of the [`page::Page`].
pub const PAGE_VARIABLE: &str = "OUTLAST_PAIR_FD";
/// The environment variable with the descriptor of the [`lease::Deadline`], if the arbiter admits a node for a limited
/// time.
pub const LEASE_VARIABLE: &str = "OUTLAST_LEASE_FD";
