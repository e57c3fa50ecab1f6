//! Retries the operation that was under way when the worker died, which may have been done in part. A transient error
//! (no descriptor is free, the disk or the name service does not answer) must not become its answer then: the client
//! would conclude that it was not done. So it is tried again a few times, before any other file operation (law 5).

use std::time::Duration;

use outlast_fsa::fileop::{Intent, Outcome};
use outlast_fsa::status::NtStatus;
use outlast_smb::Planned;

use super::files::FileSystem;
use super::machine::Machine;

/// The number of retries in the life of a worker, which may have several requests to do again.
pub(super) const ATTEMPTS: u32 = 10;
/// The time between two attempts. All of them together are a pause that clients' retransmission timers tolerate (RFC
/// 6298, 2.4).
const PAUSE: Duration = Duration::from_millis(50);

/// Returns whether the error may be transient.
fn may_pass(status: NtStatus) -> bool {
    matches!(
        status,
        NtStatus::TOO_MANY_OPENED_FILES
            | NtStatus::INSUFFICIENT_RESOURCES
            | NtStatus::IO_DEVICE_ERROR
            | NtStatus::IO_TIMEOUT
            // The name service may not answer.
            | NtStatus::ACCESS_DENIED
    )
}

impl<F: FileSystem> Machine<F> {
    /// Performs an operation, or begins it: `None`. One that was under way when the worker died is tried again if it
    /// fails with an error that may be transient.
    pub(super) fn begin(
        &mut self,
        planned: &Planned,
        intent: &Intent,
    ) -> Option<Result<Outcome, NtStatus>> {
        if let Some(status) = self.refusal(planned) {
            return Some(Err(status));
        }
        loop {
            let begun = self.fs.begin(&planned.actor, &planned.op, intent);
            let may_pass = matches!(&begun, Some(Err(status)) if may_pass(*status));
            if planned.intent.is_none() || !may_pass || self.attempts == 0 {
                return begun;
            }
            self.attempts -= 1;
            log::warn!(
                "{:?} was under way when the worker died, and fails now: {begun:?}; it is tried again",
                planned.task
            );
            self.fs.pause(PAUSE);
            self.probe.beat();
        }
    }
}
