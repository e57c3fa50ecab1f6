//! Tests a follower against the model of the log that it follows.

use super::*;
use crate::{Followed, Follower};

/// A follower, and the state made from the records it returned.
struct Second {
    follower: Follower,
    objects: BTreeMap<u64, State>,
}

impl Second {
    fn begin(memory: &Arc<VecMemory>) -> Second {
        Second {
            follower: Follower::begin(memory.clone()).unwrap(),
            objects: BTreeMap::new(),
        }
    }

    fn take(objects: &mut BTreeMap<u64, State>, followed: Followed) {
        let Followed {
            object,
            kind,
            is_known,
            meta,
            data,
        } = followed;
        let is_there = |state: &State| !state.entries.is_empty();
        assert_eq!(is_known, objects.get(&object).is_some_and(is_there));
        // Without the data, which may have been overwritten.
        let entry = ((kind, meta.to_vec(), Vec::new()), data);
        match kind {
            Kind::End => drop(objects.remove(&object)),
            Kind::Snapshot => {
                let (entries, copy) = (vec![entry], None);
                objects.insert(object, State { entries, copy });
            }
            Kind::Delta if !is_known => {
                let state = objects.get_mut(&object).expect("it has begun");
                state.copy.as_mut().expect("it has begun").push(entry);
            }
            kind => {
                let nothing = State {
                    entries: Vec::new(),
                    copy: None,
                };
                let state = objects.entry(object).or_insert(nothing);
                state.note(kind, entry);
            }
        }
    }

    /// Reads on. Returns whether it has read all; `None`: it has fallen behind, and starts again.
    fn advance(&mut self, most: usize, memory: &Arc<VecMemory>) -> Option<bool> {
        let objects = &mut self.objects;
        let advanced = self
            .follower
            .advance(most, None, &mut |followed| Second::take(objects, followed));
        match advanced {
            Ok(is_there) => Some(is_there),
            Err(Error::FellBehind) => {
                *self = Second::begin(memory);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn catch_up(&mut self, memory: &Arc<VecMemory>) {
        while self.advance(7, memory) != Some(true) {}
    }
}

impl Run {
    /// The process is killed, and its follower takes over.
    fn hand_over(&mut self, mut second: Second) {
        self.check();
        self.others.clear();
        second.catch_up(&self.memory);
        let Second {
            follower,
            mut objects,
        } = second;
        // A snapshot that the writer's death has cut short does not count.
        for state in objects.values_mut() {
            state.copy = None;
        }
        let (log, contents) = follower.take_over().unwrap();
        let (opened, read) = Log::open(self.memory.clone()).unwrap();
        assert_eq!(vec![fold(&read)], *self.expected.lock().unwrap());
        for (what, of_follower, of_opened) in [
            ("position", log.position, opened.position),
            ("tail", log.tail, opened.tail),
            (
                "snapshots",
                log.objects.snapshots_len(),
                opened.objects.snapshots_len(),
            ),
            ("deltas", log.objects.deltas(), opened.objects.deltas()),
            ("held", log.held.len(), opened.held.len()),
            ("free", log.free(), opened.free()),
            ("chain", log.previous.into(), opened.previous.into()),
        ] {
            assert_eq!(of_follower, of_opened, "{what}");
        }
        assert_eq!(contents.head, read.head);
        assert!(contents.walked <= read.walked);
        drop((opened, read));
        self.objects = objects;
        for state in self.objects.values_mut() {
            for ((_, _, meta), data) in &mut state.entries {
                *meta = data.to_vec();
            }
        }
        assert_eq!(vec![self.model()], *self.expected.lock().unwrap());
        self.log = log;
        self.log.begin_epoch(incarnation(1)).unwrap();
    }
}

/// A follower lags, falls behind and takes over at random moments. The next follower follows the log that it has taken
/// over.
#[test]
fn a_follower_takes_over_what_a_recovery_finds() {
    let (mut handed_over, mut begun_again) = (0, 0);
    for seed in 0..60 {
        let mut run = Run::new(seed, 20 << 10);
        let mut pace = Random(seed ^ 0xf011);
        let mut second = Second::begin(&run.memory);
        for _ in 0..1500 {
            run.step();
            if pace.one_in(1 + seed % 40) {
                let most = pace.below(12) as usize;
                begun_again += u32::from(second.advance(most, &run.memory).is_none());
            }
            if pace.one_in(150) {
                run.hand_over(second);
                handed_over += 1;
                second = Second::begin(&run.memory);
            }
        }
    }
    assert!(handed_over > 100 && begun_again > 0);
}

#[test]
fn damage_is_not_mistaken_for_overwriting() {
    let mut run = Run::new(3, 20 << 10);
    run.step();
    run.commit();
    let mut second = Second::begin(&run.memory);
    second.catch_up(&run.memory);
    let at = run.log.address(second.follower.position().0) + HEADER_LEN as u64;
    run.step();
    run.commit();
    run.memory.write(at, &[0xff; 8]);
    let advanced = second.follower.advance(usize::MAX, None, &mut |_| ());
    assert!(
        matches!(advanced, Err(Error::Damaged { .. })),
        "{advanced:?}"
    );
}

/// A log of one object that holds data, and what a follower has read of it.
fn followed_data() -> (Arc<VecMemory>, u64, Follower, Vec<Followed>) {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    log.append(1, Kind::Snapshot, b"", &[b"data"]).unwrap();
    log.commit();
    let mut follower = Follower::begin(memory.clone()).unwrap();
    let mut followed = Vec::new();
    let mut each = |one| followed.push(one);
    assert!(follower.advance(usize::MAX, None, &mut each).unwrap());
    (memory, RING_AT + HEADER_LEN as u64, follower, followed)
}

#[test]
fn damaged_data_in_use_prevent_a_takeover() {
    let (memory, at, follower, followed) = followed_data();
    memory.write(at, b"DATA");
    let error = follower.take_over().map(|_| ()).unwrap_err();
    assert!(
        matches!(error, Error::Damaged { position: 0, .. }),
        "{error:?}"
    );
    drop(followed);
}

#[test]
fn data_that_nobody_holds_are_not_read() {
    let (memory, at, follower, followed) = followed_data();
    drop(followed);
    memory.write(at, b"DATA");
    follower.take_over().unwrap();
}
