use super::*;

const SERVING: Signs = Signs {
    beats: 7,
    at: Duration::ZERO,
    is_serving: true,
    is_at_disk: false,
};
const AT_DISK: Signs = Signs {
    is_at_disk: true,
    ..SERVING
};
const STARTING_UP: Signs = Signs {
    is_serving: false,
    ..SERVING
};

/// Checks until it is killed; `None`: it never is.
fn looks_until_hung(signs: Signs, state: Option<char>) -> Option<u32> {
    let mut watch = Watch::default();
    assert_eq!(watch.look(signs, state), Verdict::Well);
    (1..1000).find(|_| matches!(watch.look(signs, state), Verdict::Hung(_)))
}

#[test]
fn a_worker_without_a_reason_is_killed() {
    for state in [Some('R'), Some('S'), None] {
        assert_eq!(looks_until_hung(SERVING, state), Some(SILENT));
    }
    for signs in [SERVING, AT_DISK, STARTING_UP] {
        assert_eq!(looks_until_hung(signs, Some('T')), Some(SILENT));
    }
    assert_eq!(looks_until_hung(AT_DISK, Some('R')), Some(COMPUTING));
    assert_eq!(looks_until_hung(STARTING_UP, Some('R')), Some(STARTING));
}

#[test]
fn a_worker_that_waits_for_a_disk_or_a_debugger_is_not() {
    for signs in [SERVING, AT_DISK, STARTING_UP] {
        assert_eq!(looks_until_hung(signs, Some('D')), None);
        assert_eq!(looks_until_hung(signs, Some('t')), None);
    }
    assert_eq!(looks_until_hung(AT_DISK, Some('S')), None);
    // An older worker, which does not beat, is not watched.
    assert_eq!(looks_until_hung(Signs::default(), Some('T')), None);
}

#[test]
fn a_beat_ends_the_silence_which_is_reported() {
    let mut watch = Watch::default();
    let mut signs = SERVING;
    for _ in 0..50 {
        signs.beats += 1;
        assert_eq!(watch.look(signs, Some('R')), Verdict::Well);
        assert_eq!(watch.look(signs, Some('R')), Verdict::Well);
        let Verdict::Silent(silence) = watch.look(signs, Some('R')) else {
            panic!("it is silent")
        };
        assert!(silence.to_string().contains(" s: it spins"), "{silence}");
    }
}

#[test]
fn the_signs_of_the_loop_are_read() {
    let pulse = Pulse::new().unwrap();
    assert_eq!(pulse.signs(), Signs::default());
    let mut heart = Heart::new(Some(pulse.clone()));
    let first = pulse.signs();
    assert!(first.beats > 0 && !first.is_serving);
    heart.serve();
    heart.at_disk(true);
    let signs = pulse.signs();
    assert!(signs.beats > first.beats && signs.is_serving && signs.is_at_disk);
    heart.at_disk(true);
    assert_eq!(pulse.signs(), signs, "nothing new");
    heart.at_disk(false);
    assert!(!pulse.signs().is_at_disk);
    // There is no supervisor.
    Heart::new(None).serve();
    assert!(state(std::process::id()).is_some());
}
