//! The server itself: the machine ([`machine`]) and the loop that connects it with the world.

pub mod clock;
pub mod contents;
pub mod fault;
pub mod files;
pub mod inbound;
pub mod journal;
pub mod machine;
pub mod record;
pub mod recover;
mod run;
mod setup;
mod status;
mod work;

pub use run::run;
