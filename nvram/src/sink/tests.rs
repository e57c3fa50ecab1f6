//! Tests the sink, cut off in every batch, with every subset of its sectors on the medium.

use super::*;
use crate::random::Random;
use crate::{Flag, Home, Identity, Incarnation, Kind, Log, MIN_MEMORY, Relocation, Replayed};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const SECTOR: u64 = 512;

/// The content of a log: its superblock's epoch and flag, and its records.
type Content = (u32, Flag, Vec<Replayed>);

fn content(memory: &dyn Memory) -> Content {
    let contents = Log::inspect(memory).unwrap();
    (
        contents.superblock.epoch,
        contents.superblock.flag,
        contents.records,
    )
}

fn restored(sink: &[u8]) -> Result<VecMemory, Error> {
    let into = VecMemory::new(sink.len());
    restore(&VecMemory::from_bytes(sink), &into)?;
    Ok(into)
}

/// Cuts a batch into writes of which each is within one sector.
fn sectors(batch: &Batch) -> Vec<(usize, Vec<u8>)> {
    let mut cut = Vec::new();
    for (at, bytes) in &batch.writes {
        let mut done = 0;
        while done < bytes.len() {
            let from = at + done as u64;
            let len = ((SECTOR - from % SECTOR) as usize).min(bytes.len() - done);
            cut.push((from as usize, bytes[done..done + len].to_vec()));
            done += len;
        }
    }
    cut
}

fn with(image: &[u8], sectors: &[(usize, Vec<u8>)], subset: u64) -> Vec<u8> {
    let mut image = image.to_vec();
    for (at, bytes) in sectors
        .iter()
        .enumerate()
        .filter(|(index, _)| subset >> index & 1 == 1)
        .map(|(_, sector)| sector)
    {
        image[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

/// A server that writes records, its memory, its sink's medium, and a client that was notified of what is on the
/// medium.
struct Run {
    random: Random,
    memory: Arc<VecMemory>,
    log: Log,
    /// The bytes that are certainly on the medium.
    medium: Vec<u8>,
    /// The log's content at each commit that may be found.
    commits: Vec<(u64, Content)>,
    /// The records of a batch that was cut off. If the next batch writes the missing sectors byte for byte, that batch
    /// is whole after all; no client was notified of anything else until then.
    ghosts: Vec<Vec<Replayed>>,
    /// Nothing else is done while a batch is under way.
    quiet: bool,
    next_object: u64,
    objects: Vec<u64>,
    cuts: u64,
    laps: u64,
}

const RING: u64 = MIN_MEMORY - RING_AT;

impl Run {
    fn new(seed: u64) -> Run {
        let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
        let identity = Identity {
            instance: [7; 16],
            incarnation: Incarnation {
                host: [5; 16],
                boot: [1; 16],
            },
        };
        let mut log = Log::format(memory.clone(), identity).unwrap();
        log.set_flag(Flag::NonElectiveReboot);
        let medium = vec![0; MIN_MEMORY as usize];
        log.attach(Home::Sink, &VecMemory::from_bytes(&medium))
            .unwrap();
        let mut run = Run {
            random: Random(seed),
            memory,
            log,
            medium,
            commits: Vec::new(),
            ghosts: Vec::new(),
            quiet: false,
            next_object: 1,
            objects: Vec::new(),
            cuts: 0,
            laps: 0,
        };
        run.commit();
        run
    }

    fn commit(&mut self) {
        let head = self.log.commit().0;
        self.laps = head / RING;
        self.commits.push((head, content(&*self.memory)));
    }

    /// Appends some records, as far as there is room.
    fn work(&mut self) {
        for _ in 0..self.random.below(3) + 1 {
            let meta = vec![self.random.below(256) as u8; self.random.below(60) as usize];
            let data = vec![self.random.below(256) as u8; self.random.below(400) as usize];
            match self.random.below(6) {
                0 if self.objects.len() < 3 => {
                    let object = self.next_object;
                    if self
                        .log
                        .append(object, Kind::Snapshot, &meta, &[&data])
                        .is_ok()
                    {
                        self.next_object += 1;
                        self.objects.push(object);
                    }
                }
                1 if self.objects.len() > 1 => {
                    self.log.use_reserve(true);
                    if self
                        .log
                        .append(self.objects[0], Kind::End, &[], &[])
                        .is_ok()
                    {
                        self.objects.remove(0);
                    }
                    self.log.use_reserve(false);
                }
                _ if !self.objects.is_empty() => {
                    let at = self.random.below(self.objects.len() as u64) as usize;
                    let _ = self
                        .log
                        .append(self.objects[at], Kind::Delta, &meta, &[&data]);
                }
                _ => {}
            }
        }
        self.commit();
        self.relocate();
    }

    /// Relocates what the log wants to relocate.
    fn relocate(&mut self) {
        while let Some(Relocation { object, .. }) = self.log.wants_relocation(0, 0) {
            self.log.use_reserve(true);
            let room = self.log.append(object, Kind::Snapshot, b"again", &[]);
            self.log.use_reserve(false);
            self.commit();
            if room.is_err() {
                break;
            }
        }
    }

    /// Checks what may be found when the power is cut now: the content of the medium before the batch, or the batch's,
    /// and nothing else.
    fn check_cut(&mut self, sectors: &[(usize, Vec<u8>)], subset: u64, durable: u64, whole: bool) {
        self.cuts += 1;
        let image = with(&self.medium, sectors, subset);
        let found = match restored(&image) {
            Ok(found) => content(&found),
            // Nothing has been promised to a client yet.
            Err(Error::Blank) if durable == 0 && !whole => return,
            Err(error) => panic!("subset {subset:b} of {} sectors: {error}", sectors.len()),
        };
        let records_known = self
            .commits
            .iter()
            .any(|(head, (_, _, records))| *head >= durable && *records == found.2);
        let records_known = records_known || self.ghosts.contains(&found.2);
        assert!(records_known, "subset {subset:b}: a state that never was");
        // `outlast nvram show` finds the same.
        assert_eq!(content(&VecMemory::from_bytes(&image)), found);
    }

    /// The last commit whose output may have left.
    fn promised(&self) -> u64 {
        let durable = self.log.durable(Home::Sink).unwrap().0;
        let heads = self.commits.iter().map(|(head, _)| *head);
        heads.filter(|head| *head <= durable).max().unwrap_or(0)
    }

    /// Ships one batch; it is cut off in every way if there are few, otherwise in many.
    fn ship(&mut self) -> bool {
        let durable = self.promised();
        let Some(batch) = self.log.next_batch(Home::Sink) else {
            return false;
        };
        assert!(
            self.log.next_batch(Home::Sink).is_none(),
            "one batch at a time"
        );
        let sectors = sectors(&batch);
        if sectors.len() <= 6 {
            for subset in 0..1 << sectors.len() {
                self.check_cut(&sectors, subset, durable, false);
            }
        } else {
            for _ in 0..64 {
                let subset = self.random.below(1 << sectors.len().min(63));
                self.check_cut(&sectors, subset, durable, false);
            }
            // All sectors but one: the likeliest to be mistaken for whole.
            for missing in 0..sectors.len() {
                let all = u64::MAX ^ 1 << missing;
                self.check_cut(&sectors, all, durable, false);
            }
        }
        // The log is written while the batch is under way.
        if !self.quiet && self.random.below(2) == 0 {
            self.work();
        }
        self.medium = with(&self.medium, &sectors, u64::MAX);
        self.log.batch_done(Home::Sink);
        if batch.writes.iter().any(|(at, _)| MARKS.contains(at)) {
            self.ghosts.clear();
        }
        let durable = self.promised();
        self.check_cut(&[], 0, durable, durable > 0);
        self.commits.retain(|(head, _)| *head >= durable);
        assert!(!self.commits.is_empty());
        true
    }

    /// Cuts the power in the middle of a batch; the server continues with what the sink has.
    fn cut_and_continue(&mut self) {
        self.work();
        let Some(batch) = self.log.next_batch(Home::Sink) else {
            return;
        };
        let sectors = sectors(&batch);
        let subset = self.random.below(1 << sectors.len().min(63));
        self.medium = with(&self.medium, &sectors, subset);
        let memory = VecMemory::new(self.medium.len());
        restore(&VecMemory::from_bytes(&self.medium), &memory).unwrap();
        self.memory = Arc::new(memory);
        let (log, contents) = Log::open(self.memory.clone()).unwrap();
        self.log = log;
        self.log
            .begin_epoch(Incarnation {
                host: [5; 16],
                boot: [2; 16],
            })
            .unwrap();
        self.log.set_flag(Flag::NonElectiveReboot);
        self.log
            .attach(Home::Sink, &VecMemory::from_bytes(&self.medium))
            .unwrap();
        self.objects = contents
            .records
            .iter()
            .map(|record| record.object)
            .collect();
        self.objects.sort_unstable();
        self.objects.dedup();
        self.ghosts
            .extend(self.commits.drain(..).map(|(_, (_, _, records))| records));
        self.commit();
        // As a server does at its start: the one before may not have finished.
        self.log.start_wiping();
    }

    /// The process is killed, and the next one continues with the mapping and the content of the sink.
    fn kill_and_continue(&mut self) {
        if let Some(batch) = self
            .log
            .next_batch(Home::Sink)
            .filter(|_| self.random.below(2) == 0)
        {
            // The kernel has it, and brings it to the medium before anything else is asked for.
            self.medium = with(&self.medium, &sectors(&batch), u64::MAX);
        }
        self.memory = Arc::new(self.memory.image());
        let (log, _) = Log::open(self.memory.clone()).unwrap();
        self.log = log;
        self.log
            .begin_epoch(Incarnation {
                host: [5; 16],
                boot: [1; 16],
            })
            .unwrap();
        self.log.set_flag(Flag::NonElectiveReboot);
        self.log
            .attach(Home::Sink, &VecMemory::from_bytes(&self.medium))
            .unwrap();
        self.commit();
        self.log.start_wiping();
    }
}

#[test]
fn cut_off_anywhere_it_holds_what_was_acknowledged() {
    let mut cuts = 0;
    for seed in 0..24 {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..300 {
            match run.random.below(12) {
                0 => run.cut_and_continue_when_possible(),
                1 => run.kill_and_continue(),
                _ => run.work(),
            }
            while run.random.below(4) > 0 && run.ship() {}
        }
        while run.ship() {}
        assert!(run.log.is_shipped(Home::Sink));
        assert_eq!(
            content(&restored(&run.medium).unwrap()),
            content(&*run.memory),
            "all of it is there in the end"
        );
        assert!(run.laps > 2, "it goes round: {}", run.laps);
        cuts += run.cuts;
    }
    println!("{cuts} cuts");
    assert!(cuts > 30_000);
}

const SECRET: &[u8] = b"a session's key!";

fn holds_the_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET)
}

/// The bytes of an ended object are found nowhere after wiping, whatever is cut off meanwhile.
#[test]
fn superseded_records_are_wiped() {
    let mut times_held = 0;
    for seed in 0..60 {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..6 {
            run.some_time();
            let secret = run.next_object;
            run.next_object += 1;
            run.log.use_reserve(true);
            let _ = run.log.append(secret, Kind::Snapshot, SECRET, &[&[1; 90]]);
            run.log.use_reserve(false);
            run.commit();
            while run.ship() {}
            run.some_time();
            times_held += usize::from(holds_the_secret(&run.medium));
            run.log.use_reserve(true);
            let _ = run.log.append(secret, Kind::End, &[], &[]);
            run.log.use_reserve(false);
            run.commit();
            run.objects.retain(|object| *object != secret);
            run.start_wiping();
            assert!(!holds_the_secret(&run.medium), "in the sink");
            assert!(!holds_the_secret(&run.memory.to_vec()), "in the memory");
        }
    }
    assert!(times_held > 50, "{times_held}");
}

impl Run {
    /// Work, batches, and ends of the process or the machine.
    fn some_time(&mut self) {
        for _ in 0..self.random.below(20) {
            match self.random.below(20) {
                0 => self.cut_and_continue_when_possible(),
                1 => self.kill_and_continue(),
                _ => self.work(),
            }
            while self.random.below(4) > 0 && self.ship() {}
        }
    }

    /// Wipes the log, and starts again after each end of the process or the machine.
    fn start_wiping(&mut self) {
        self.quiet = true;
        self.log.start_wiping();
        for turn in 0.. {
            assert!(turn < 200, "wiping ends");
            match self.random.below(20) {
                0 if turn < 100 => self.cut_and_continue_when_possible(),
                1 if turn < 100 => self.kill_and_continue(),
                2.. if !self.log.is_wiping() && self.log.is_shipped(Home::Sink) => break,
                _ => {}
            }
            self.relocate();
            self.commit();
            self.ship();
        }
        self.quiet = false;
    }

    fn cut_and_continue_when_possible(&mut self) {
        // Before anything was acknowledged there may be nothing to continue with.
        if self.promised() > 0 {
            self.cut_and_continue();
        }
    }
}

/// A server with three commits in its sink.
fn with_three_commits() -> Run {
    let mut run = Run::new(3);
    run.quiet = true;
    for _ in 0..3 {
        run.log
            .append(run.next_object, Kind::Snapshot, b"it", &[&[5; 300]])
            .unwrap();
        run.next_object += 1;
        run.commit();
        while run.ship() {}
    }
    run
}

#[test]
fn damage_below_the_marks_is_refused() {
    let run = with_three_commits();
    let ring = RING_AT as usize;
    for at in [ring + 5, ring + 50] {
        let mut image = run.medium.clone();
        image[at] ^= 1;
        let into = VecMemory::new(image.len());
        let sink = VecMemory::from_bytes(&image);
        assert!(matches!(restore(&sink, &into), Err(Error::Damaged { .. })));
        assert!(into.to_vec().iter().all(|byte| *byte == 0));
        assert_eq!(sink.to_vec(), image);
    }
    // Damage of the last batch looks like a batch that was cut off: the one before is used.
    let mut image = run.medium.clone();
    image[ring + 2 * 352 + 50] ^= 1;
    assert_eq!(content(&restored(&image).unwrap()).2.len(), 2);
}

#[test]
fn what_is_not_this_logs_sink_is_refused() {
    let mut run = with_three_commits();
    let attach =
        |run: &mut Run, image: &[u8]| run.log.attach(Home::Sink, &VecMemory::from_bytes(image));
    let other = {
        let memory = Arc::new(VecMemory::new(MIN_MEMORY as usize));
        let identity = Identity {
            instance: [8; 16],
            incarnation: Incarnation {
                host: [5; 16],
                boot: [1; 16],
            },
        };
        let mut log = Log::format(memory.clone(), identity).unwrap();
        log.set_flag(Flag::NonElectiveReboot);
        log.attach(Home::Sink, &VecMemory::new(MIN_MEMORY as usize))
            .unwrap();
        let mut medium = vec![0; MIN_MEMORY as usize];
        while let Some(batch) = log.next_batch(Home::Sink) {
            medium = with(&medium, &sectors(&batch), u64::MAX);
            log.batch_done(Home::Sink);
        }
        medium
    };
    assert!(matches!(attach(&mut run, &other), Err(Error::AnotherLog)));
    let old = run.memory.image();
    let image = run.medium.clone();
    assert!(attach(&mut run, &image).is_ok());
    // Two batches: a single one could have been cut off.
    for _ in 0..2 {
        let object = run.objects.first().copied().unwrap_or(1);
        run.log.append(object, Kind::Delta, b"it", &[]).unwrap();
        run.commit();
        while run.ship() {}
    }
    let (mut log, _) = Log::open(Arc::new(old)).unwrap();
    let ahead = VecMemory::from_bytes(&run.medium);
    assert!(matches!(
        log.attach(Home::Sink, &ahead),
        Err(Error::SinkAhead)
    ));
    assert!(matches!(
        run.log
            .attach(Home::Sink, &VecMemory::new(2 * MIN_MEMORY as usize)),
        Err(Error::LengthChanged { .. })
    ));
    let blank = vec![0; MIN_MEMORY as usize];
    assert!(matches!(restored(&blank), Err(Error::Blank)));
    assert!(matches!(
        attach(&mut run, &vec![b'x'; MIN_MEMORY as usize]),
        Err(Error::NotALog)
    ));
}

#[test]
fn the_marks_are_as_documented() {
    let run = with_three_commits();
    let newest = marks(&VecMemory::from_bytes(&run.medium))[0];
    let bytes = &run.medium[MARKS[newest.1] as usize..][..MARK_LEN];
    assert_eq!(&bytes[..8], b"OUTLMARK");
    assert_eq!(&bytes[16..32], &[7; 16]);
    assert_eq!(bytes[40..48], run.log.committed().0.to_le_bytes());
    let last = &run.medium[RING_AT as usize + 2 * 352..];
    assert_eq!(bytes[48..52], last[..4]);
    assert_eq!(bytes[52..60], [0; 8]);
    assert_eq!(bytes[60..], crc32c::crc32c(&bytes[..60]).to_le_bytes());
    // There are no words: a log has them, a sink has not.
    assert_eq!(run.medium[8192..8704], [0; 512]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::with_cases(300)
    })]

    /// Any content of a sink is an error or a log, never a panic.
    #[test]
    fn any_sink(
        edits in proptest::collection::vec((0..MIN_MEMORY as usize, any::<u8>()), 0..8),
        head in proptest::option::of((any::<u64>(), any::<u64>())),
    ) {
        let mut image = with_three_commits().medium;
        for (at, byte) in edits {
            image[at] = byte;
        }
        if let Some((tail, head)) = head {
            for slot in 0..2 {
                let mark = Mark { sequence: 9, instance: [7; 16], tail, head, chain: 0, wiped: 0 };
                image[MARKS[slot] as usize..][..MARK_LEN].copy_from_slice(&mark.to_bytes());
            }
        }
        if let Ok(log) = restored(&image) {
            Log::open(Arc::new(log)).unwrap();
        }
        let _ = Log::inspect(&VecMemory::from_bytes(&image));
    }
}
