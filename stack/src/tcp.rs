//! TCP: RFC 9293 with RFC 7323, 2018, 6675, 9438, 6298, 8985, 5961 and 6528.

mod assembler;
pub(crate) mod conn;
pub(crate) mod cookie;
mod cubic;
mod input;
pub(crate) mod isn;
mod loss;
mod output;
mod ranges;
pub(crate) mod record;
mod rtt;
pub(crate) mod segment;
mod send_queue;
pub(crate) mod seq;
pub(crate) mod tcb;
pub(crate) mod window;
