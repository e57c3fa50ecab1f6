use std::fs::File;

use super::*;
use crate::job_thread::wake;

fn directory() -> OwnedFd {
    File::open(std::env::temp_dir()).unwrap().into()
}

#[test]
fn shares_of_one_file_system_have_one_thread_and_each_hears() {
    let mut syncers = Syncers::new(wake().unwrap());
    for share in 0..3 {
        syncers.add(share, directory()).unwrap();
    }
    assert_eq!(syncers.all.len(), 1);
    assert_eq!(syncers.synced(), Some(Vec::new()), "none was begun");
    syncers.begin();
    assert_eq!(Vec::from_iter(syncers.under_way()), [0, 1, 2]);
    syncers.wait();
    assert_eq!(syncers.synced(), Some(Vec::new()));
    assert_eq!(syncers.under_way().count(), 0);
}

/// Data that the former mount had not written are lost: the first sync of the new mount proves nothing.
#[test]
fn a_file_system_that_was_mounted_again_fails_once() {
    let mut syncers = Syncers::new(wake().unwrap());
    for share in 0..2 {
        syncers.add(share, directory()).unwrap();
    }
    syncers.add(1, directory()).unwrap();
    for failed in [vec![1], vec![]] {
        syncers.begin();
        syncers.wait();
        assert_eq!(syncers.synced(), Some(failed));
    }
    assert_eq!(
        syncers.all[0].mounts.len(),
        2,
        "the former mount is released"
    );
}

#[test]
fn a_sync_that_was_left_is_not_waited_for_and_not_begun_again() {
    let mut syncers = Syncers::new(wake().unwrap());
    syncers.add(7, directory()).unwrap();
    syncers.begin();
    syncers.leave();
    assert_eq!(syncers.synced(), Some(Vec::new()));
    assert_eq!(syncers.under_way().count(), 0);
    syncers.begin();
    syncers.all[0].thread.wait();
    assert_eq!(syncers.late(), [(7, true)]);
    assert_eq!(syncers.late(), []);
    syncers.begin();
    assert_eq!(Vec::from_iter(syncers.under_way()), [7]);
}
