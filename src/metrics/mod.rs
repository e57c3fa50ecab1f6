//! What the server counts, for `outlast metrics`, `outlast top` and Prometheus.
//!
//! The machine counts in plain memory ([`Counts`]) and its loop copies that, turn by turn, into a page of memory that
//! the supervisor keeps ([`Page`]): the next worker continues to count there, so nothing begins at zero again when a
//! worker dies. The text for Prometheus is made from the page by the thread that was asked, not by the loop.

mod counts;
mod gauges;
mod histogram;
pub mod http;
mod page;
mod returns;
mod text;

pub use counts::{Counts, Eviction};
pub use gauges::Gauges;
pub use page::{Page, VARIABLE, Writer};
pub use returns::{Cause, Return};
pub use text::text;
