//! Handles the requests of a client that are refused while the share is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Player, Stage};
use crate::away::AGAIN_AFTER;
use crate::board::Board;
use crate::client::Response;
use crate::status;
use crate::workload::Op;

impl Player {
    /// Returns whether a TREE_CONNECT is refused because the share is missing (MS-SMB2 3.3.5.7). It will be sent again.
    pub(super) fn is_tree_missing(
        &mut self,
        response: &Response,
        board: &Board,
        now: Duration,
    ) -> bool {
        let is_refused =
            self.stage == Stage::Mounting && response.status == status::BAD_NETWORK_NAME;
        let is_away = is_refused && board.was_away(self.stage_since);
        if is_away {
            self.repeats_at = Some(now + AGAIN_AFTER);
        }
        is_away
    }

    /// Returns whether a request is refused because the share is missing, so that nothing has been done.
    pub(super) fn finds_share_missing(
        &self,
        op: &Op,
        answers: &BTreeMap<usize, Response>,
        board: &Board,
    ) -> bool {
        let verdicts = &board.expected[&op.id].verdicts;
        let is_expected = verdicts
            .iter()
            .any(|verdict| verdict.status == status::IO_DEVICE_ERROR);
        let mut answers = answers.values();
        !is_expected
            && board.was_away(self.sent_at[&op.id])
            && answers.all(|answer| answer.status == status::IO_DEVICE_ERROR)
    }
}
