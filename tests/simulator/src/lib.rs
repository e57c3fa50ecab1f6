//! Runs the whole server in a simulated world: network, disk, NVRAM and time are simulated, clients speak an SMB of
//! their own on smoltcp's TCP, and the server crashes at every step. `docs/simulator.md` describes what is checked and
//! how a failure is replayed.

pub mod arena;
pub mod away;
pub mod board;
pub mod branches;
pub mod client;
pub mod clock;
pub mod configuration;
pub mod disk;
pub mod failing;
pub mod faults;
pub mod files;
pub mod fuse;
pub mod image;
pub mod inspect;
pub mod judge;
pub mod kinds;
pub mod limits;
pub mod log_format;
pub mod memory;
pub mod mutation;
pub mod net;
pub mod ntlm;
pub mod pair;
pub mod player;
pub mod progress;
pub mod promises;
pub mod random;
pub mod request;
pub mod revocation;
pub mod rules;
pub mod run;
pub mod scenario;
pub mod server;
pub mod shadow;
pub mod sickness;
pub mod sink;
mod standby;
pub mod status;
mod surroundings;
pub mod sweep;
mod trace;
pub mod unauthenticated;
pub mod volumes;
pub mod workload;
