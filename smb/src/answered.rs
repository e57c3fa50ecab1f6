//! Describes the responses of a message for metrics and traces. They are not part of the state.

use outlast_fsa::status::NtStatus;

use crate::wire::header::Command;

/// A response to one request of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The command's code (MS-SMB2 2.2.1.2).
    pub command: u16,
    /// The status has the severity of an error.
    pub is_error: bool,
    /// Bytes of the request, with its header.
    pub request_bytes: usize,
    /// Bytes of the response, with its header.
    pub reply_bytes: usize,
}

impl Answered {
    pub(crate) fn new(
        command: Command,
        status: NtStatus,
        request_bytes: usize,
        reply_bytes: usize,
    ) -> Answered {
        Answered {
            command: command.0,
            is_error: status.is_error() && status != NtStatus::MORE_PROCESSING_REQUIRED,
            request_bytes,
            reply_bytes,
        }
    }
}

/// Returns MS-SMB2's name of a command's code, or `None` if no command has it.
#[must_use]
pub fn command_name(code: u16) -> Option<&'static str> {
    Command(code).name()
}
