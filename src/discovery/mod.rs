//! How clients find the server on their link.

pub mod mdns;
mod records;
