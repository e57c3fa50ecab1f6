//! The server itself: the machine ([`machine`]) and the loop that connects it with the world.

mod accounts;
pub mod clock;
mod consistency;
pub mod contents;
pub mod copying;
pub mod effect;
pub mod fault;
pub mod files;
pub mod fold;
pub mod following;
pub mod inbound;
mod insisting;
pub mod journal;
pub mod machine;
pub mod medium;
pub mod open;
pub mod patience;
pub mod record;
pub mod recover;
mod redo;
mod roots;
mod run;
mod set_aside;
mod setup;
pub mod shares;
mod sick;
pub mod sizes;
mod status;
pub mod turns;
mod unsynced;
mod watched;
pub mod windows;
mod wiping;
mod work;

pub use run::run;
pub use setup::{Following, check_sizes, incarnation};
