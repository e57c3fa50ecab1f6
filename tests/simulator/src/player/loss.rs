//! A client that loses its session or its tree connect, as the server has another configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::{Player, Stage};
use crate::board::Board;
use crate::client::{Client, Response};
use crate::revocation::{How, Revocation};
use crate::scenario::Scenario;
use crate::status;
use crate::workload::{Op, Verb};

/// What a client loses, and where it is with that.
pub(super) struct Loss {
    pub(super) revocation: Revocation,
    /// The step of its way in that it is at was asked for when the server had the other configuration already.
    stage_is_late: bool,
    /// Operations that were.
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
    /// A step of its way in has been asked for.
    pub(super) fn note_late_stage(&mut self, board: &Board) {
        if let Some(loss) = &mut self.loss {
            loss.stage_is_late = board.revoked;
        }
    }

    /// Is it refused on its way in, or out?
    ///
    /// # Panics
    /// It is let in, and must not be.
    pub(super) fn is_sent_away(&self, response: &Response, board: &Board) -> bool {
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
            "client {} is let in, though {:?} is taken from it: {response:x?}",
            self.index,
            revocation.how
        );
        false
    }

    /// Is a request refused as one of a session or a tree connect that has ended?
    ///
    /// # Panics
    /// It is answered, and must not be.
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

    /// What it still asks for, to be refused: all that it has the handles for.
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

    /// It asks for nothing more.
    pub(super) fn give_up(&mut self, board: &mut Board) {
        let todo = std::mem::take(&mut self.todo);
        let ops = std::mem::take(&mut self.ops);
        for id in todo.iter().map(|op| op.id).chain(ops.into_keys()) {
            board.under_way.remove(&id);
            board.done.insert(id);
        }
    }

    /// The server has ended its connection. It tries to come in again.
    pub fn cut(&mut self, board: &mut Board) {
        self.give_up(board);
        self.client = Client::new(self.client.profile());
        self.purposes.clear();
        self.first_message.clear();
        self.answers.clear();
        self.second = None;
        self.stage = Stage::Connecting;
    }

    /// Has the server reason to end its connection?
    #[must_use]
    pub fn may_be_cut(&self, board: &Board) -> bool {
        let ends = |loss: &Loss| loss.revocation.ends_connection();
        board.revoked && self.loss.as_ref().is_some_and(ends)
    }
}
