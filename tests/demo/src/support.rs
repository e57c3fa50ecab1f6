//! Includes the support of the tests' virtual machine.

#[path = "../../support/basics.rs"]
pub mod basics;

pub use basics::{PATIENCE, Rng, wait_for};
