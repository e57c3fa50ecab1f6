//! Selects the live records: each object's last complete snapshot, and the deltas after that snapshot's beginning.

use crate::layout::Header;
use crate::{Error, Kind};
use std::collections::HashMap;

/// The number of records from which on those that cannot be live are dropped, again whenever the number has doubled.
const PRUNED_FROM: usize = 4096;

/// A record that may be live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub kind: Kind,
    pub header: Header,
    /// Its number among the records from the tail on.
    pub ordinal: u64,
}

/// The state of an object so far.
#[derive(Default)]
struct Seen {
    /// Its last complete snapshot.
    base: Option<Span>,
    /// The beginning of a snapshot that is not complete.
    begun: Option<u64>,
    /// The position of its end, if no snapshot followed.
    ended: Option<u64>,
}

/// The positions of a snapshot's first and last record.
#[derive(Clone, Copy)]
struct Span {
    begin: u64,
    complete: u64,
}

/// The decision on a record.
#[derive(PartialEq, Eq)]
enum Verdict {
    Counts,
    /// It is superseded, or was never completed.
    Dropped,
    Damage(&'static str),
}

impl Seen {
    fn note(&mut self, kind: Kind, position: u64) {
        let begin = match kind {
            Kind::Delta | Kind::Part => return,
            Kind::Begin => {
                self.begun = Some(position);
                return;
            }
            Kind::Complete => match self.begun.take() {
                Some(begin) => begin,
                None => return,
            },
            Kind::Snapshot => position,
            Kind::End => {
                *self = Seen {
                    ended: Some(position),
                    ..Seen::default()
                };
                return;
            }
        };
        *self = Seen {
            base: Some(Span {
                begin,
                complete: position,
            }),
            ..Seen::default()
        };
    }

    /// Returns whether a record is superseded, whatever follows.
    fn is_superseded(&self, position: u64) -> bool {
        self.base.is_some_and(|base| position < base.begin)
            || self.ended.is_some_and(|ended| position <= ended)
    }

    fn verdict(&self, kind: Kind, position: u64) -> Verdict {
        if self.is_superseded(position) {
            return Verdict::Dropped;
        }
        // The tail never passes a snapshot that is needed.
        let Some(Span { begin, complete }) = self.base else {
            return Verdict::Damage("a change to an object that has no snapshot");
        };
        let counts = match kind {
            Kind::Delta | Kind::Snapshot | Kind::End => true,
            Kind::Begin => position == begin,
            Kind::Part => position < complete,
            Kind::Complete if position == complete => true,
            Kind::Complete => {
                return Verdict::Damage("the end of a snapshot that had not begun");
            }
        };
        if counts {
            Verdict::Counts
        } else {
            Verdict::Dropped
        }
    }
}

/// The records of a walk; those that cannot be live are dropped now and then.
#[derive(Default)]
pub(crate) struct Counting {
    objects: HashMap<u64, Seen>,
    records: Vec<Counted>,
    /// The number of records at which some are dropped next.
    prune_at: usize,
}

impl Counting {
    pub(crate) fn push(&mut self, kind: Kind, header: Header, ordinal: u64) {
        if kind != Kind::Delta {
            let seen = self.objects.entry(header.object).or_default();
            seen.note(kind, header.position);
        }
        if kind == Kind::End {
            return;
        }
        self.records.push(Counted {
            kind,
            header,
            ordinal,
        });
        if self.records.len() >= self.prune_at.max(PRUNED_FROM) {
            let objects = &self.objects;
            self.records.retain(|record| {
                let seen = objects.get(&record.header.object);
                !seen.is_some_and(|seen| seen.is_superseded(record.header.position))
            });
            self.prune_at = self.records.len() * 2;
        }
    }

    /// Returns the live records, in the order in which they were appended.
    pub(crate) fn live_records(self) -> Result<Vec<Counted>, Error> {
        let Counting {
            objects,
            mut records,
            ..
        } = self;
        let nothing = Seen::default();
        let mut damage = None;
        records.retain(|record| {
            let position = record.header.position;
            let seen = objects.get(&record.header.object).unwrap_or(&nothing);
            let verdict = seen.verdict(record.kind, position);
            if let Verdict::Damage(what) = verdict {
                damage.get_or_insert(Error::Damaged { position, what });
            }
            verdict == Verdict::Counts
        });
        damage.map_or(Ok(records), Err)
    }
}
