//! Provides the server's counts for `outlast metrics`, `outlast top` and Prometheus.
//!
//! The machine counts in private memory ([`Counts`]), and its loop copies the counts in each turn into a page of memory
//! that the supervisor keeps ([`Page`]). The next worker continues these counts, so they do not restart at zero when a
//! worker crashes. The thread that answers a request makes the text for Prometheus from the page, not the loop.

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
