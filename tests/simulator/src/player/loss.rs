//! Checks a client that loses its session or its tree connect by a new configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::{Player, Stage};
use crate::board::Board;
use crate::client::{Client, Response};
use crate::revocation::{How, Revocation};
use crate::scenario::Scenario;
use crate::status;
use crate::workload::{Op, Verb};

/// The state of a client that loses something.
pub(super) struct Loss {
    pub(super) revocation: Revocation,
    /// The request of its present stage was sent when the server had the new configuration already.
    stage_is_late: bool,
    /// The operations that were sent after that.
    pub(super) late: BTreeSet<usize>,
    /// It has been refused.
    is_refused: bool,
}

impl Loss {
    pub(super) fn of(scenario: &Scenario, client: usize) -> Option<Loss> {
        let revocation = scenario.rules.revocation;
        let own = revocation.filter(|revocation| revocation.victim == client)?;
        Some(Loss {
            revocation: own,
            stage_is_late: false,
            late: BTreeSet::new(),
            is_refused: false,
        })
    }
}

impl Player {
    /// Notes whether the request of the present stage is sent after the change of the configuration.
    pub(super) fn note_late_stage(&mut self, board: &Board) {
        if let Some(loss) = &mut self.loss {
            loss.stage_is_late = board.revoked;
        }
    }

    /// Returns whether a request of its log-in or log-off is refused because of the new configuration.
    ///
    /// # Panics
    /// It is admitted, and must not be.
    pub(super) fn is_refused_at_stage(&self, response: &Response, board: &Board) -> bool {
        let Some(loss) = self.loss.as_ref().filter(|_| board.revoked) else {
            return false;
        };
        let revocation = loss.revocation;
        if revocation.refuses_with(response.status) {
            return true;
        }
        let door = match revocation.how {
            How::User | How::Encryption => Stage::Proving,
            How::Share => Stage::Mounting,
            How::Dialect => Stage::Negotiating,
        };
        assert!(
            !loss.stage_is_late || self.stage != door,
            "client {} is admitted, though {:?} has been taken from it: {response:x?}",
            self.index,
            revocation.how
        );
        false
    }

    /// Returns whether a request is refused because its session or tree connect has ended.
    ///
    /// # Panics
    /// It is answered, and must be refused.
    pub(super) fn is_refused(&mut self, op: &Op, answers: &BTreeMap<usize, Response>) -> bool {
        let Some(loss) = &mut self.loss else {
            return false;
        };
        let ended = [status::NETWORK_NAME_DELETED, status::USER_SESSION_DELETED];
        let is_refused = answers
            .values()
            .any(|answer| ended.contains(&answer.status));
        if op
            .verbs
            .iter()
            .all(|verb| loss.revocation.still_answers(verb))
        {
            return is_refused;
        }
        assert!(
            is_refused || !(loss.is_refused || loss.late.contains(&op.id)),
            "{op:?} is answered, though {:?} has been taken from the client",
            loss.revocation.how
        );
        loss.is_refused |= is_refused;
        is_refused
    }

    /// Drops the operations for which it has no handles. The others are still sent, and must be refused.
    pub(super) fn drop_what_cannot_be_asked(&mut self, board: &mut Board) {
        let todo = std::mem::take(&mut self.todo);
        let can_be_asked = |op: &Op, board: &Board| {
            op.verbs.iter().all(|verb| match verb {
                Verb::Copy { source, .. } => board.resume_keys.contains_key(source),
                _ => true,
            }) && (matches!(op.verbs[0], Verb::Create { .. })
                || op
                    .verbs
                    .iter()
                    .flat_map(Verb::handles)
                    .all(|handle| board.handles.contains_key(&handle)))
        };
        for op in todo {
            if can_be_asked(&op, board) {
                self.todo.push_back(op);
            } else {
                board.done.insert(op.id);
            }
        }
    }

    /// Drops all remaining operations.
    pub(super) fn give_up(&mut self, board: &mut Board) {
        let todo = std::mem::take(&mut self.todo);
        let ops = std::mem::take(&mut self.ops);
        for id in todo.iter().map(|op| op.id).chain(ops.into_keys()) {
            board.under_way.remove(&id);
            board.done.insert(id);
        }
    }

    /// Begins again with a new connection, after the server has ended the old one.
    pub fn cut(&mut self, board: &mut Board) {
        self.give_up(board);
        self.client = Client::new(self.client.profile());
        self.purposes.clear();
        self.first_message.clear();
        self.answers.clear();
        self.second = None;
        self.stage = Stage::Connecting;
    }

    /// Returns whether the server may end its connection.
    #[must_use]
    pub fn may_be_cut(&self, board: &Board) -> bool {
        let ends = |loss: &Loss| loss.revocation.ends_connection();
        board.revoked && self.loss.as_ref().is_some_and(ends)
    }
}
