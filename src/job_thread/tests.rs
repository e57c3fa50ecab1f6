use rustix::event::{PollFd, PollFlags, poll};

use super::*;

#[test]
fn an_outcome_is_returned_once_and_wakes() {
    let wake = wake().unwrap();
    let mut double = JobThread::start("double", Arc::clone(&wake), |n: u32| 2 * n).unwrap();
    double.wait();
    assert_eq!((double.finished(), double.is_under_way()), (None, false));
    for n in 0..100 {
        double.begin(n);
        assert!(double.is_under_way());
        double.wait();
        assert!(double.has_finished());
        assert_eq!(double.finished(), Some(2 * n));
        assert!(!double.has_finished());
        assert_eq!((double.finished(), double.is_under_way()), (None, false));
    }
    drop(double);
    // The thread has written to it for each job, and has ended or is about to.
    let mut count = [0; 8];
    let mut woken = 0;
    while woken < 100 {
        let mut fds = [PollFd::new(&wake, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        rustix::io::read(&wake, &mut count).unwrap();
        woken += u64::from_ne_bytes(count);
    }
    assert_eq!(woken, 100);
}
