//! What the virtual machine of the tests stands on.

#[path = "../../support/basics.rs"]
pub mod basics;

pub use basics::{PATIENCE, Rng, wait_for};
