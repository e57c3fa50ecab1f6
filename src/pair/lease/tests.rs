use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Signal, kill_process};

use super::*;

/// Names the part that a test in a process of its own executes.
const PART: &str = "OUTLAST_TEST_LEASE";

/// Runs the test of this name again, in a process of its own.
fn in_a_process(test: &str, part: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(PART, part)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn part() -> Option<String> {
    std::env::var(PART).ok()
}

fn waits_for_its_end() -> ! {
    // Longer than the test waits; never reached.
    std::thread::sleep(Duration::from_secs(100));
    std::process::exit(3);
}

/// The signal that ended it.
fn signal(child: &mut Child) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.signal();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("the process has not ended");
}

#[test]
fn the_timer_ends_a_process_also_one_that_is_stopped() {
    const NAME: &str = "pair::lease::tests::the_timer_ends_a_process_also_one_that_is_stopped";
    if part().is_some() {
        let fuse = Fuse::new().unwrap();
        fuse.set(now() + Duration::from_millis(300)).unwrap();
        // Only SIGKILL, which the timer sends, ends a process that is stopped here.
        kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
        waits_for_its_end();
    }
    let mut child = in_a_process(NAME, "stopped");
    assert_eq!(signal(&mut child), Some(libc::SIGKILL));
}

#[test]
fn a_worker_follows_the_page_and_ends_with_it() {
    const NAME: &str = "pair::lease::tests::a_worker_follows_the_page_and_ends_with_it";
    if let Some(part) = part() {
        let deadline = Deadline::new().unwrap();
        if part != "never" {
            deadline.set(now() + Duration::from_secs(2)).unwrap();
            keep(deadline.clone()).unwrap();
            // After four renewals it lives longer than its first deadline.
            for _ in 0..4 {
                std::thread::sleep(Duration::from_secs(1));
                deadline.set(now() + Duration::from_secs(2)).unwrap();
            }
            if part == "ends" {
                waits_for_its_end();
            }
            std::process::exit(0);
        }
        // No arbiter has admitted it.
        keep(deadline).unwrap();
        waits_for_its_end();
    }
    let mut children = ["renewed", "ends", "never"].map(|part| in_a_process(NAME, part));
    let signals = children.each_mut().map(signal);
    assert_eq!(signals, [None, Some(libc::SIGKILL), Some(libc::SIGKILL)]);
}

#[test]
fn a_lease_is_extended_only_while_it_is_held_and_only_forward() {
    let lease = Lease::new().unwrap();
    let later = |seconds| now() + Duration::from_secs(seconds);
    lease.extend(later(1000)).unwrap();
    assert!(!lease.is_valid_for(Duration::ZERO));
    let first = later(1000);
    lease.begin(first).unwrap();
    assert!(lease.is_valid_for(Duration::ZERO));
    lease.extend(later(500)).unwrap();
    assert_eq!(lease.deadline().get(), first);
    let second = later(2000);
    lease.extend(second).unwrap();
    assert_eq!(lease.deadline().get(), second);
    lease.end();
    assert!(!lease.is_valid_for(Duration::ZERO));
    assert_eq!(lease.deadline().get(), Duration::ZERO);
}

#[test]
fn a_supervisor_whose_lease_is_not_renewed_ends() {
    const NAME: &str = "pair::lease::tests::a_supervisor_whose_lease_is_not_renewed_ends";
    if part().is_some() {
        let lease = Lease::new().unwrap();
        lease.begin(now() + Duration::from_millis(200)).unwrap();
        waits_for_its_end();
    }
    assert_eq!(signal(&mut in_a_process(NAME, "ends")), Some(libc::SIGKILL));
}
