//! Handles CANCEL (MS-SMB2 3.3.5.16), which has no response.

use super::{Handled, Request};
use crate::context::Context;
use crate::record::Record;
use crate::wire::Route;
use outlast_fsa::status::NtStatus;

/// Starts the command, as [`super::start`]. The request is found by its AsyncId or its MessageId, if it still waits.
///
/// # Errors
/// None.
pub fn start(ctx: &mut Context<'_>, request: &Request) -> Result<Handled, NtStatus> {
    let found = match request.header.route {
        Route::Async { async_id } => Some(async_id),
        Route::Sync { .. } => {
            let message_id = request.header.message_id;
            let mut parked = ctx.connection().parked.iter();
            parked
                .find(|(_, parked)| parked.message_id == message_id)
                .map(|(id, _)| *id)
        }
    };
    let waiting = found.filter(|id| {
        let parked = ctx.connection().parked.get(id);
        parked.is_some_and(|parked| parked.session == request.session && parked.cancelled.is_none())
    });
    if let Some(id) = waiting {
        ctx.emit(Record::Cancelled {
            id,
            status: NtStatus::CANCELLED,
        });
    }
    Ok(Handled::Silent)
}
