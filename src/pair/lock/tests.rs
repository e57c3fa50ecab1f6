use std::process::{Command, Stdio};

use super::super::arbiter::Rest;
use super::*;

const HERE: Incarnation = Incarnation {
    host: [7; 16],
    boot: [9; 16],
};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("outlast-lock-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("lock")
    }

    fn node(&self, own: usize) -> LockFile {
        LockFile::open(&self.file(), own, HERE).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn one_node_at_a_time_and_the_record_passes_on() {
    let place = Place::new("one");
    let (mut a, mut b) = (place.node(0), place.node(1));
    assert_eq!(a.ask().unwrap(), Some(Term::first()));
    assert_eq!(b.ask().unwrap(), None);
    let seen = b.look().unwrap();
    assert!(seen.is_held && seen.partner_runs && seen.partner == Some(HERE));
    let term = Term {
        in_step: true,
        ..Term::first().next("a")
    };
    a.write(&term).unwrap();
    assert!(matches!(b.write(&term), Err(ArbiterError::Lost(_))));
    assert!(matches!(b.renew(), Err(ArbiterError::Lost(_))));
    a.release();
    assert!(!b.look().unwrap().is_held);
    assert_eq!(b.ask().unwrap(), Some(term.clone()));
    b.write(&term.next("b")).unwrap();
    // The end of the process suffices.
    drop(b);
    let seen = a.look().unwrap();
    assert!(!seen.is_held && !seen.partner_runs);
    assert_eq!((seen.term.epoch, &*seen.term.holder), (2, "b"));
    assert_eq!(seen.term.taken_from.as_deref(), Some("a"));
}

#[test]
fn a_process_that_inherits_the_lock_keeps_it() {
    let place = Place::new("inherits");
    let (mut a, mut b) = (place.node(0), place.node(1));
    a.ask().unwrap();
    // As for a worker whose supervisor was killed: only its own end frees the lock.
    let inherited = a.descriptor().try_clone_to_owned().unwrap();
    let mut worker = Command::new("cat")
        .stdin(Stdio::from(File::from(inherited)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let reads_blocked = worker.stdout.take();
    let inherited = a.descriptor().try_clone_to_owned().unwrap();
    drop(a);
    assert_eq!(b.ask().unwrap(), None);
    worker.kill().unwrap();
    worker.wait().unwrap();
    drop(reads_blocked);
    assert_eq!(b.ask().unwrap(), None, "a copy is still open");
    drop(inherited);
    assert!(b.ask().unwrap().is_some());
}

#[test]
fn an_older_epoch_is_not_written() {
    let place = Place::new("older");
    let mut a = place.node(0);
    a.ask().unwrap();
    let first = Term::first().next("a");
    let second = first.next("a");
    a.write(&second).unwrap();
    assert!(matches!(a.write(&first), Err(ArbiterError::Lost(_))));
    assert_eq!(a.look().unwrap().term, second);
}

#[test]
fn one_damaged_copy_loses_nothing_and_two_are_refused() {
    let place = Place::new("damaged");
    let term = Term {
        rest: Rest::Rebooting,
        ..Term::first().next("a")
    };
    let mut a = place.node(0);
    a.ask().unwrap();
    a.write(&term).unwrap();
    drop(a);
    let raw = open(&place.file()).unwrap();
    let good = std::fs::read(place.file()).unwrap();
    for at in TERMS_AT {
        raw.write_all_at(&good, 0).unwrap();
        raw.write_all_at(b"#", at + 60).unwrap();
        assert_eq!(place.node(0).look().unwrap().term, term);
    }
    raw.write_all_at(b"#", TERMS_AT[0] + 60).unwrap();
    let damaged = LockFile::open(&place.file(), 0, HERE).unwrap_err();
    assert!(damaged.to_string().contains("remove the file"), "{damaged}");
    // Nor is an emptied file treated as new.
    raw.set_len(0).unwrap();
    assert!(LockFile::open(&place.file(), 0, HERE).is_err());
}

#[test]
fn a_newer_version_is_named() {
    let place = Place::new("version");
    drop(place.node(0));
    let raw = open(&place.file()).unwrap();
    for at in TERMS_AT {
        raw.write_all_at(b"outlast-pair 2", at).unwrap();
    }
    let error = LockFile::open(&place.file(), 0, HERE).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_file_in_its_place_ends_the_admission() {
    let place = Place::new("replaced");
    let mut a = place.node(0);
    a.ask().unwrap();
    a.renew().unwrap();
    std::fs::remove_file(place.file()).unwrap();
    let mut b = place.node(1);
    assert!(b.ask().unwrap().is_some(), "another file has other locks");
    assert!(matches!(a.renew(), Err(ArbiterError::Lost(_))));
    assert!(matches!(
        a.write(&Term::first()),
        Err(ArbiterError::Lost(_))
    ));
}

#[test]
fn a_node_runs_once() {
    let place = Place::new("twice");
    let first = place.node(0);
    let error = LockFile::open(&place.file(), 0, HERE).unwrap_err();
    assert!(error.to_string().contains("partner.node"), "{error}");
    drop(first);
    place.node(0);
}
