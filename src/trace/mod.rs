//! Implements `outlast trace`: draws a time-sequence picture of a TCP connection across an outage, from its packets.
//!
//! Packets come from a file ([`file`]) or from a network device ([`live`]), become [`Segment`]s, and are sorted into
//! [`connection`]s, which contain the silences of the server. A [`Picture`] of one client and one server is plain data,
//! which [`draw`] turns into SVG or PNG.

pub mod connection;
pub mod draw;
pub mod file;
pub mod live;
pub mod picture;
pub mod segment;
pub mod words;

pub use connection::{Connection, Connections, Silence};
pub use picture::Picture;
pub use segment::Segment;
