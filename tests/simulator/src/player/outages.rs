//! Handles the requests of a client that are refused while the share is missing, or its file system is sick.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Player, Stage};
use crate::away;
use crate::board::Board;
use crate::client::Response;
use crate::sickness;
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
            self.repeats_at = Some(now + away::AGAIN_AFTER);
        }
        is_away
    }

    /// Returns the delay after which a request is sent again, if it is refused because the share is missing, or its
    /// file system is sick, so that nothing has been done.
    pub(super) fn is_refused_for_now(
        &self,
        op: &Op,
        answers: &BTreeMap<usize, Response>,
        board: &mut Board,
        now: Duration,
    ) -> Option<Duration> {
        let status = answers.values().next()?.status;
        let is_whole = answers.values().all(|answer| answer.status == status);
        let verdicts = &board.expected[&op.id].verdicts;
        let is_expected = verdicts.iter().any(|verdict| verdict.status == status);
        if !is_whole || is_expected {
            return None;
        }
        let is_sick = self.sick_from.is_some_and(|from| from <= now);
        match status {
            status if is_sick && sickness::STATUSES.contains(&status) => {
                board.refused += 1;
                Some(sickness::AGAIN_AFTER)
            }
            status::IO_DEVICE_ERROR if board.was_away(self.sent_at[&op.id]) => {
                Some(away::AGAIN_AFTER)
            }
            _ => None,
        }
    }
}
