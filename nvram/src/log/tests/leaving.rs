//! Stops the machine while a server ends: the flag on the medium is true of the state on the medium.

use super::*;
use crate::memory::paged::{PAGE, Paged, mixed};

const LEN: usize = 16 * PAGE;

/// Cuts the power again and again.
struct Cuts {
    random: Mutex<Random>,
    /// What the log holds when the server ends.
    whole: Mutex<Option<Model>>,
    /// The number of cuts that left the flag.
    count: AtomicU64,
}

impl Cuts {
    fn look(&self, now: &[u8], medium: &[u8]) {
        let Some(whole) = &*self.whole.lock().unwrap() else {
            return;
        };
        let random = &mut *self.random.lock().unwrap();
        for _ in 0..4 {
            let left = Arc::new(mixed(now, medium, |_| random.one_in(2)));
            if Superblock::read(&*left).is_ok_and(|(superblock, _)| superblock.persisted) {
                let (_, contents) = Log::open(left).expect("what the superblock says is there");
                assert_eq!(contents.superblock.flag, Flag::ElectiveReboot);
                assert!(
                    fold(&contents) == *whole,
                    "the flag is set on an older state"
                );
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn the_flag_of_a_server_that_ended_is_on_no_older_state() {
    let mut cuts = 0;
    for seed in 0..40 {
        let these = Arc::new(Cuts {
            random: Mutex::new(Random(seed)),
            whole: Mutex::new(None),
            count: AtomicU64::new(0),
        });
        let looking = these.clone();
        let look = move |now: &[u8], medium: &[u8]| looking.look(now, medium);
        let pages = Arc::new(Paged::new(VecMemory::new(LEN), look));
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
                // The kernel writes back any page at any time.
                pages.write_back();
            }
        }
        log.commit();
        let contents = Log::inspect(&pages.memory).unwrap();
        *these.whole.lock().unwrap() = Some(fold(&contents));
        log.persist_with_flag(Flag::ElectiveReboot).unwrap();
        let left = Arc::new(VecMemory::from_bytes(&pages.medium.lock().unwrap()));
        let (_, contents) = Log::open(left).unwrap();
        assert!(contents.superblock.persisted && contents.superblock.flag == Flag::ElectiveReboot);
        // A later flag describes another state.
        *these.whole.lock().unwrap() = None;
        log.set_flag(Flag::NonElectiveReboot);
        assert!(!log.superblock().persisted);
        cuts += these.count.load(Ordering::Relaxed);
    }
    assert!(cuts > 100, "{cuts}");
}
