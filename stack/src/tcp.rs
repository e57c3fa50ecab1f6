//! TCP: RFC 9293 with RFC 7323, 2018, 6675, 9438, 6298, 5961 and 6528.

pub(crate) mod record;
pub(crate) mod seq;
