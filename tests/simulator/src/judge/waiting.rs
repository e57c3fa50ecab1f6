//! Judges locks and oplocks, and the requests that wait for them.

use std::collections::BTreeSet;

use super::{Judge, Node, Verdict, Waiting, overlap, plain};
use crate::status;
use crate::workload::{Handle, LEVEL_II, Op, Verb};

impl Judge {
    /// Continues the requests that may have waited for a change of this file.
    pub(super) fn continue_waiting(&mut self, node: Node) {
        let waiting: Vec<(usize, Waiting)> = self
            .waiting
            .iter()
            .map(|(op, waiting)| (*op, waiting.clone()))
            .collect();
        for (id, waiting) in waiting {
            match waiting {
                Waiting::Lock(handle, offset, length) => {
                    let concerned = self.opens.get(&handle).is_some_and(|it| it.node == node);
                    if concerned && !self.excluded(node, offset, length) {
                        self.waiting.remove(&id);
                        if let Some(open) = self.opens.get_mut(&handle) {
                            open.locks.push((offset, length));
                        }
                        self.finish(id, plain(status::SUCCESS));
                    }
                }
                Waiting::Create(op) => {
                    self.waiting.remove(&id);
                    if let Some(verdict) = self.create(&op, &op.verbs[0]) {
                        self.finish(id, verdict);
                    }
                }
            }
        }
    }

    /// Ends the wait for an oplock break that is not acknowledged, before an operation that needs the file.
    pub(super) fn pass_time(&mut self, op: &Op) {
        let waits: BTreeSet<Handle> = self
            .waiting
            .values()
            .filter_map(|waiting| match waiting {
                Waiting::Create(op) => match &op.verbs[0] {
                    Verb::Create { handle, .. } => Some(*handle),
                    _ => None,
                },
                Waiting::Lock(..) => None,
            })
            .collect();
        let needed = op
            .verbs
            .iter()
            .flat_map(Verb::handles)
            .any(|handle| waits.contains(&handle));
        if needed {
            self.give_up_waiting();
        }
    }

    pub(super) fn give_up_waiting(&mut self) {
        let late: Vec<usize> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| matches!(waiting, Waiting::Create(_)))
            .map(|(id, _)| *id)
            .collect();
        let mut nodes = BTreeSet::new();
        for open in self.opens.values_mut().filter(|open| open.breaking) {
            open.breaking = false;
            open.oplock = 0;
            nodes.insert(open.node);
        }
        for node in nodes {
            self.continue_waiting(node);
        }
        for id in late {
            if let Some(expected) = self.expected.get_mut(&id) {
                expected.by_time = true;
            }
        }
    }

    pub(super) fn acknowledge(&mut self, handle: Handle, level: u8) -> Option<Verdict> {
        let open = self.opens.get_mut(&handle)?;
        if !open.breaking {
            return None;
        }
        open.breaking = false;
        open.oplock = level;
        let node = open.node;
        self.continue_waiting(node);
        Some(plain(status::SUCCESS))
    }

    /// Removes the level II oplocks of a file that is written, including the writer's own.
    pub(super) fn changed(&mut self, handle: Handle) {
        let Some(node) = self.opens.get(&handle).map(|open| open.node) else {
            return;
        };
        for open in self.opens.values_mut().filter(|open| open.node == node) {
            if open.oplock == LEVEL_II {
                open.oplock = 0;
            }
        }
    }

    pub(super) fn cancel(&mut self, op: usize) -> Option<Verdict> {
        let notify = self
            .opens
            .values_mut()
            .find(|open| open.notify == Some(op))
            .and_then(|open| open.notify.take());
        if self.waiting.remove(&op).is_some() || notify.is_some() {
            self.finish(op, plain(status::CANCELLED));
            return Some(plain(status::SUCCESS));
        }
        None
    }

    /// Returns whether another open has locked a part of this range.
    pub(super) fn locked(&self, handle: Handle, offset: u64, length: u64) -> bool {
        let node = self.opens[&handle].node;
        self.opens
            .iter()
            .filter(|(other, open)| **other != handle && open.node == node)
            .flat_map(|(_, open)| &open.locks)
            .any(|lock| overlap(*lock, (offset, length)))
    }

    fn excluded(&self, node: Node, offset: u64, length: u64) -> bool {
        self.opens
            .values()
            .filter(|open| open.node == node)
            .flat_map(|open| &open.locks)
            .any(|lock| overlap(*lock, (offset, length)))
    }

    pub(super) fn lock(
        &mut self,
        op: &Op,
        handle: Handle,
        range: (u64, u64),
        flags: u32,
    ) -> Option<Verdict> {
        let open = self.opens.get_mut(&handle)?;
        let node = open.node;
        if flags & 4 != 0 {
            let Some(at) = open.locks.iter().position(|lock| *lock == range) else {
                return Some(plain(status::RANGE_NOT_LOCKED));
            };
            open.locks.remove(at);
            self.continue_waiting(node);
            return Some(plain(status::SUCCESS));
        }
        if let Some(refusal) = self.too_many_locks(handle) {
            return Some(refusal);
        }
        if self.excluded(node, range.0, range.1) {
            if flags & 16 != 0 {
                return Some(plain(status::LOCK_NOT_GRANTED));
            }
            let refusal = self.too_many_wait(op.client);
            if refusal.is_none() {
                let waiting = Waiting::Lock(handle, range.0, range.1);
                self.waiting.insert(op.id, waiting);
            }
            return refusal;
        }
        self.opens.get_mut(&handle)?.locks.push(range);
        Some(plain(status::SUCCESS))
    }
}
