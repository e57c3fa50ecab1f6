//! Tracks the objects of a log: the place of each one's latest snapshot, the records since, and the object to relocate.
//!
//! The cost of a replay is counted in *units*: a record, or as many bytes as take about as long as one.

use super::Kind;
use crate::extent::Place;
use crate::layout::Header;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a snapshot whose decoding and application take as long as one small record.
const BYTES_PER_UNIT: u64 = 512;
/// Bytes of queued data whose copying takes as long as the replay of one small record.
const HELD_BYTES_PER_UNIT: u64 = 4096;
/// An object with no more deltas is not worth a snapshot.
pub(super) const MIN_DELTAS: u64 = 32;
/// The number of objects examined by one call of [`Objects::busiest`].
const LOOKS: usize = 16;

/// A snapshot's place and size, and the number of records after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    /// The place of its first record.
    pub place: Place,
    /// Bytes of the ring that its records take.
    pub whole_len: u64,
    /// Number of its records.
    pub records: u64,
    /// Deltas after its first record.
    pub deltas: u64,
}

impl Base {
    fn of(header: &Header, ordinal: u64) -> Base {
        Base {
            place: Place {
                position: header.position,
                ordinal,
            },
            whole_len: header.whole_len(),
            records: 1,
            deltas: 0,
        }
    }

    /// Its bytes of the ring if it lies before this position; otherwise 0.
    fn len_before(&self, position: u64) -> u64 {
        let is_before = self.place.position < position;
        if is_before { self.whole_len } else { 0 }
    }

    fn add(&mut self, header: &Header) {
        self.whole_len += header.whole_len();
        self.records += 1;
    }
}

/// A live object, or one that the next commit creates or ends.
#[derive(Default)]
struct Object {
    /// Its latest committed snapshot.
    base: Option<Base>,
    /// Its state after the next commit.
    next: Option<Next>,
    /// A snapshot that has begun and is not complete.
    copy: Option<Base>,
    /// Bytes of the ring taken by its records whose data are held.
    held_len: Arc<AtomicU64>,
    /// It is in `Objects::busy`.
    is_queued: bool,
}

enum Next {
    Base(Base),
    End,
}

impl Object {
    /// The snapshot after which new deltas count.
    fn latest(&mut self) -> Option<&mut Base> {
        match &mut self.next {
            Some(Next::Base(base)) => Some(base),
            Some(Next::End) => None,
            None => self.base.as_mut(),
        }
    }

    /// Returns whether a snapshot would cost less than it saves a replay.
    fn is_worth_copying(&self) -> bool {
        let Some(base) = self.base.as_ref().filter(|_| self.next.is_none()) else {
            return false;
        };
        let held = self.held_len.load(Ordering::Relaxed) / HELD_BYTES_PER_UNIT;
        let units = base.records + base.whole_len / BYTES_PER_UNIT + held;
        base.deltas > units.max(MIN_DELTAS)
    }
}

/// All objects.
#[derive(Default)]
pub(super) struct Objects {
    objects: HashMap<u64, Object>,
    /// The committed bases of all objects: position to object, and the record's ordinal.
    bases: BTreeMap<u64, (u64, u64)>,
    /// Ring bytes of the snapshots at these bases.
    snapshots_len: u64,
    /// The position of the last [`Objects::divide`], and the ring bytes of the snapshots at the bases before it.
    divided_at: u64,
    before_len: u64,
    /// Number of their records.
    snapshot_records: u64,
    /// Number of deltas after them.
    deltas: u64,
    /// Objects with a `next`.
    changed: Vec<u64>,
    /// Objects with more than [`MIN_DELTAS`] deltas, and some that had.
    busy: VecDeque<u64>,
}

impl Objects {
    /// Returns whether deltas of this object can be applied.
    pub fn is_live(&self, object: u64) -> bool {
        self.objects
            .get(&object)
            .is_some_and(|object| !matches!(object.next, Some(Next::End)))
    }

    /// Returns whether a snapshot of it is complete, and it has not ended.
    pub fn is_known(&self, object: u64) -> bool {
        let is_known = |object: &Object| match &object.next {
            Some(Next::Base(_)) => true,
            Some(Next::End) => false,
            None => object.base.is_some(),
        };
        self.objects.get(&object).is_some_and(is_known)
    }

    /// Returns whether there is a complete snapshot of each object.
    pub fn all_known(&self) -> bool {
        self.objects.values().all(|object| object.base.is_some())
    }

    /// Returns whether a snapshot of it has begun and is not complete.
    pub fn is_copied(&self, object: u64) -> bool {
        self.objects
            .get(&object)
            .is_some_and(|object| object.copy.is_some())
    }

    /// Notes a live record that was appended or read back.
    pub fn note(&mut self, kind: Kind, header: &Header, ordinal: u64) {
        let id = header.object;
        if kind == Kind::Delta {
            return self.note_delta(id);
        }
        let object = self.objects.entry(id).or_default();
        let next = match kind {
            Kind::Begin => {
                object.copy = Some(Base::of(header, ordinal));
                return;
            }
            Kind::Part => {
                if let Some(copy) = &mut object.copy {
                    copy.add(header);
                }
                return;
            }
            Kind::Complete => {
                let Some(mut copy) = object.copy.take() else {
                    return;
                };
                copy.add(header);
                Next::Base(copy)
            }
            Kind::End => {
                object.copy = None;
                Next::End
            }
            Kind::Snapshot | Kind::Delta => {
                object.copy = None;
                Next::Base(Base::of(header, ordinal))
            }
        };
        if object.next.replace(next).is_none() {
            self.changed.push(id);
        }
    }

    fn note_delta(&mut self, id: u64) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        if let Some(copy) = &mut object.copy {
            copy.deltas += 1;
        }
        let is_settled = object.next.is_none();
        let Some(base) = object.latest() else { return };
        base.deltas += 1;
        if is_settled {
            self.deltas += 1;
            if base.deltas > MIN_DELTAS && !std::mem::replace(&mut object.is_queued, true) {
                self.busy.push_back(id);
            }
        }
    }

    /// Updates each changed object after a commit.
    pub fn apply_commit(&mut self) {
        for id in self.changed.drain(..) {
            let Some(object) = self.objects.get_mut(&id) else {
                continue;
            };
            if let Some(base) = object.base.take() {
                self.bases.remove(&base.place.position);
                self.snapshots_len -= base.whole_len;
                self.before_len -= base.len_before(self.divided_at);
                self.snapshot_records -= base.records;
                self.deltas -= base.deltas;
            }
            let Some(Next::Base(base)) = object.next.take() else {
                self.objects.remove(&id);
                continue;
            };
            self.bases
                .insert(base.place.position, (id, base.place.ordinal));
            self.snapshots_len += base.whole_len;
            self.before_len += base.len_before(self.divided_at);
            self.snapshot_records += base.records;
            self.deltas += base.deltas;
            if base.deltas > MIN_DELTAS && !std::mem::replace(&mut object.is_queued, true) {
                self.busy.push_back(id);
            }
            object.base = Some(base);
        }
    }

    /// The first base: no live record is before it, but held data may be.
    pub fn first_base(&self) -> Option<Place> {
        let (position, (_, ordinal)) = self.bases.first_key_value()?;
        Some(Place {
            position: *position,
            ordinal: *ordinal,
        })
    }

    /// The object of the first base, unless records appended already will move it.
    pub fn at_the_tail(&self) -> Option<u64> {
        let (_, (id, _)) = self.bases.first_key_value()?;
        let is_relocated = |object: &Object| object.next.is_some();
        (!self.objects.get(id).is_some_and(is_relocated)).then_some(*id)
    }

    /// Returns an object whose deltas cost a replay more than writing its state again. Repeated calls return each in
    /// turn.
    pub fn busiest(&mut self) -> Option<u64> {
        for _ in 0..LOOKS.min(self.busy.len()) {
            let id = self.busy.pop_front()?;
            let Some(object) = self.objects.get_mut(&id) else {
                continue;
            };
            if object.latest().is_none_or(|base| base.deltas <= MIN_DELTAS) {
                object.is_queued = false;
                continue;
            }
            self.busy.push_back(id);
            if object.is_worth_copying() {
                return Some(id);
            }
        }
        None
    }

    /// Bytes of the ring that all snapshots take.
    pub fn snapshots_len(&self) -> u64 {
        self.snapshots_len
    }

    /// The part of [`Objects::snapshots_len`] before the position of the last [`Objects::divide`].
    pub fn before_len(&self) -> u64 {
        self.before_len
    }

    /// Counts the snapshots at bases before this position, now and from now on.
    pub fn divide(&mut self, position: u64) {
        self.divided_at = position;
        let before = self.bases().take_while(|(base, _)| *base < position);
        let before_len = before.map(|(_, len)| len).sum();
        self.before_len = before_len;
    }

    /// The committed bases, in order, and the ring bytes of the snapshots there.
    pub fn bases(&self) -> impl Iterator<Item = (u64, u64)> {
        self.bases.iter().map(|(position, (id, _))| {
            let base = self.objects.get(id).and_then(|object| object.base.as_ref());
            (*position, base.map_or(0, |base| base.whole_len))
        })
    }

    /// Records of all snapshots.
    pub fn snapshot_records(&self) -> u64 {
        self.snapshot_records
    }

    /// Deltas that a replay would apply.
    pub fn deltas(&self) -> u64 {
        self.deltas
    }

    /// The counter of the bytes that an object holds of the ring; its extents update it.
    pub fn held_len(&mut self, object: u64) -> Arc<AtomicU64> {
        self.objects.entry(object).or_default().held_len.clone()
    }
}
