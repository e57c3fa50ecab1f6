//! The machine goes while a server leaves: what the flag says on the medium is true there.

use super::*;

const PAGE: usize = 4096;
const LEN: usize = 16 * PAGE;

/// A mapping, and what of it is on the medium for certain. Of the rest any page may be there.
struct Pages {
    memory: VecMemory,
    medium: Mutex<Vec<u8>>,
    random: Mutex<Random>,
    /// What the log holds when the server leaves.
    whole: Mutex<Option<Model>>,
    cuts: AtomicU64,
}

impl Pages {
    /// The power is cut here.
    fn look(&self) {
        let Some(whole) = &*self.whole.lock().unwrap() else {
            return;
        };
        let (now, medium) = (self.memory.to_vec(), self.medium.lock().unwrap().clone());
        let random = &mut *self.random.lock().unwrap();
        for _ in 0..4 {
            let mut left = medium.clone();
            for page in 0..LEN / PAGE {
                let range = page * PAGE..(page + 1) * PAGE;
                if random.one_in(2) {
                    left[range.clone()].copy_from_slice(&now[range]);
                }
            }
            let left = Arc::new(VecMemory::from_bytes(&left));
            if Superblock::read(&*left).is_ok_and(|(superblock, _)| superblock.persisted) {
                let (_, contents) = Log::open(left).expect("what the superblock says is there");
                assert_eq!(contents.superblock.flag, Flag::ElectiveReboot);
                assert!(fold(&contents) == *whole, "an older state bears the flag");
                self.cuts.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Memory for Pages {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
        self.look();
    }

    fn store(&self, at: u64, word: u64) {
        self.memory.store(at, word);
        self.look();
    }

    fn load(&self, at: u64) -> u64 {
        self.memory.load(at)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        self.memory.read(at, into);
    }

    fn persist_range(&self, at: u64, len: usize) -> Result<(), Error> {
        self.look();
        let range = at as usize..at as usize + len;
        self.memory
            .read(at, &mut self.medium.lock().unwrap()[range]);
        self.look();
        Ok(())
    }

    unsafe fn slice(&self, at: u64, len: usize) -> &[u8] {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.memory.slice(at, len) }
    }
}

#[test]
fn no_older_state_bears_the_flag_of_a_server_that_left() {
    let mut cuts = 0;
    for seed in 0..40 {
        let pages = Arc::new(Pages {
            memory: VecMemory::new(LEN),
            medium: Mutex::new(vec![0; LEN]),
            random: Mutex::new(Random(seed)),
            whole: Mutex::new(None),
            cuts: AtomicU64::new(0),
        });
        let mut log = Log::format(pages.clone(), IDENTITY).unwrap();
        log.set_flag(Flag::NonElectiveReboot);
        log.append(1, Kind::Snapshot, b"one", &[]).unwrap();
        let mut random = Random(seed);
        for _ in 0..60 {
            let data = random.bytes(300);
            log.append(1, Kind::Delta, b"more", &[&data]).unwrap();
            if random.one_in(3) {
                log.commit();
            }
            if random.one_in(10) {
                // The kernel writes back what it likes, when it likes.
                let now = pages.memory.to_vec();
                pages.medium.lock().unwrap().copy_from_slice(&now);
            }
        }
        log.commit();
        let contents = Log::inspect(&pages.memory).unwrap();
        *pages.whole.lock().unwrap() = Some(fold(&contents));
        log.persist_with_flag(Flag::ElectiveReboot).unwrap();
        let left = Arc::new(VecMemory::from_bytes(&pages.medium.lock().unwrap()));
        let (_, contents) = Log::open(left).unwrap();
        assert!(contents.superblock.persisted && contents.superblock.flag == Flag::ElectiveReboot);
        // Any later flag is another's.
        *pages.whole.lock().unwrap() = None;
        log.set_flag(Flag::NonElectiveReboot);
        assert!(!log.superblock().persisted);
        cuts += pages.cuts.load(Ordering::Relaxed);
    }
    assert!(cuts > 100, "{cuts}");
}
