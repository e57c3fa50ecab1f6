//! Tests that the cost of a replay depends on the live state, and that the copying that keeps it low ends.

use super::*;

/// Relocates an object, in several records and as many commits.
fn copy(log: &mut Log, object: u64) {
    log.append(object, Kind::Begin, &[1; 50], &[]).unwrap();
    log.commit();
    log.append(object, Kind::Part, &[2; 50], &[]).unwrap();
    log.commit();
    log.append(object, Kind::Complete, &[3; 50], &[]).unwrap();
    log.commit();
}

/// Imitates a busy server: `busy` objects change, in turn, and the others are idle. Returns the number of snapshots
/// written.
fn run(log: &mut Log, objects: u64, busy: u64, deltas: u64) -> u64 {
    for object in 0..objects {
        log.append(object, Kind::Snapshot, &[0; 100], &[]).unwrap();
    }
    let mut copies = 0;
    for n in 0..deltas {
        let object = n % busy;
        log.append(object, Kind::Delta, &n.to_le_bytes(), &[])
            .unwrap();
        log.commit();
        if let Some(Relocation { object, .. }) = log.wants_relocation(0, 0) {
            copy(log, object);
            copies += 1;
        }
    }
    copies
}

#[test]
fn deltas_to_be_replayed_are_bounded() {
    for (objects, busy) in [(1, 1), (1000, 1), (1000, 20), (1000, 1000)] {
        let memory = Arc::new(VecMemory::new(256 << 20));
        let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
        let deltas = 300_000;
        let copies = run(&mut log, objects, busy, deltas);
        let contents = Log::inspect(&*memory).unwrap();
        let counting = contents.records.len() as u64;
        // Either few, or no more than a small multiple of the state.
        let most = 4096.max(busy * (MIN_DELTAS + 1)) + 3 * objects + 100;
        assert!(
            counting <= most,
            "{objects} objects, {busy} busy: {counting} records count, not {most}"
        );
        assert!(contents.walked <= 131_072, "{}", contents.walked);
        // Three snapshot records replace more than thirty deltas.
        assert!(
            copies * 10 < deltas,
            "{objects} objects, {busy} busy: {copies} copies of {deltas} deltas"
        );
    }
}

#[test]
fn the_relocation_of_a_log_at_rest_ends() {
    let memory = Arc::new(VecMemory::new(1 << 20));
    let mut log = Log::format(memory, IDENTITY).unwrap();
    run(&mut log, 500, 1, 20_000);
    let mut rounds = 0;
    while let Some(Relocation { object, .. }) = log.wants_relocation(0, 0) {
        copy(&mut log, object);
        rounds += 1;
        assert!(rounds < 2000, "it is copied without end");
    }
}

#[test]
fn a_snapshot_that_is_not_complete_does_not_count() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let mut log = Log::format(memory.clone(), IDENTITY).unwrap();
    let found = || {
        let records = Log::inspect(&*memory).unwrap().records;
        let entry = |record: &Replayed| (record.kind, record.meta.to_vec());
        records.iter().map(entry).collect::<Vec<_>>()
    };
    let put = |log: &mut Log, kind, meta: &[u8]| {
        let appended = log.append(1, kind, meta, &[]).map(drop);
        log.commit();
        appended
    };
    let is = |kind, meta: &[u8]| (kind, meta.to_vec());
    put(&mut log, Kind::Snapshot, b"old").unwrap();
    assert_eq!(
        put(&mut log, Kind::Part, b""),
        Err(AppendError::NoCopy { object: 1 })
    );
    put(&mut log, Kind::Begin, b"given up").unwrap();
    put(&mut log, Kind::Part, b"given up").unwrap();
    put(&mut log, Kind::Delta, b"first").unwrap();
    put(&mut log, Kind::Begin, b"new").unwrap();
    put(&mut log, Kind::Part, b"part").unwrap();
    put(&mut log, Kind::Delta, b"second").unwrap();
    assert_eq!(
        found(),
        [
            is(Kind::Snapshot, b"old"),
            is(Kind::Delta, b"first"),
            is(Kind::Delta, b"second")
        ]
    );
    put(&mut log, Kind::Complete, b"whole").unwrap();
    let whole = [
        is(Kind::Begin, b"new"),
        is(Kind::Part, b"part"),
        is(Kind::Delta, b"second"),
        is(Kind::Complete, b"whole"),
    ];
    assert_eq!(found(), whole);
    // One snapshot that ends with its object, and one that a snapshot of one record supersedes.
    put(&mut log, Kind::Begin, b"").unwrap();
    put(&mut log, Kind::Snapshot, b"in one").unwrap();
    assert!(put(&mut log, Kind::Complete, b"").is_err());
    assert_eq!(found(), [is(Kind::Snapshot, b"in one")]);
    put(&mut log, Kind::Begin, b"").unwrap();
    put(&mut log, Kind::End, b"").unwrap();
    assert!(put(&mut log, Kind::Complete, b"").is_err());
    assert_eq!(found(), []);
}

#[test]
fn deaths_are_counted_of_the_object_that_was_handled() {
    let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
    let log = Log::format(memory.clone(), IDENTITY).unwrap();
    assert_eq!(log.take_handled(), None);
    let handled = Handled { object: 7, what: 3 };
    for deaths in 1..=2 {
        log.handle(Some(handled));
        let contents = Log::inspect(&*memory).unwrap();
        assert_eq!(contents.handled, Some(handled));
        let (log, _) = Log::open(memory.clone()).unwrap();
        assert_eq!(log.take_handled(), Some(handled));
        assert_eq!(log.take_handled(), None, "it is returned once");
        assert_eq!(log.count_death(handled), deaths);
        let contents = Log::inspect(&*memory).unwrap();
        assert_eq!(contents.suspect, Some(Suspect { handled, deaths }));
    }
    log.forget_deaths(|of| of.object == 8);
    assert_eq!(log.count_death(handled), 3);
    log.forget_deaths(|of| of == handled);
    assert_eq!(log.count_death(handled), 1);
    let others = [
        Handled { object: 0, what: 3 },
        Handled { object: 0, what: 2 },
    ];
    for other in others {
        assert_eq!(
            log.count_death(other),
            1,
            "another operation is counted from the start"
        );
    }
    for deaths in 2..100 {
        assert_eq!(log.count_death(others[1]), deaths.min(15));
    }
}
