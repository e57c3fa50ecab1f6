//! Writes each frame of the wire to the log in readable form (`RUST_LOG=trace`).

use std::time::Duration;

use bytes::Bytes;
use smoltcp::wire::{EthernetFrame, PrettyPrinter};

/// Writes a frame and its direction.
pub fn frame(direction: &str, now: Duration, header: &[u8], payload: &[Bytes]) {
    if log::log_enabled!(log::Level::Trace) {
        let bytes = [header, &payload.concat()].concat();
        let frame = PrettyPrinter::<EthernetFrame<&[u8]>>::new("", &bytes).to_string();
        log::trace!("{now:?} {direction} {}", frame.replace('\n', " "));
    }
}
