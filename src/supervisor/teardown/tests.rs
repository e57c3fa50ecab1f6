use std::io::Read as _;

use super::*;

#[test]
fn what_shares_the_address_space_holds_no_descriptor_of_it() {
    let (mut read, write) = io::pipe().unwrap();
    let write = OwnedFd::from(write);
    let teardown = Teardown::start(&[write.as_raw_fd()]).unwrap();
    drop(write);
    // The pipe ends although the second process lives.
    assert_eq!(read.read(&mut [0; 1]).unwrap(), 0);
    let pid = rustix::process::Pid::from_raw(teardown.pid).unwrap();
    let ended = |options| rustix::process::waitpid(Some(pid), options).unwrap();
    assert!(ended(rustix::process::WaitOptions::NOHANG).is_none());
    drop(teardown);
    let (_, status) = ended(rustix::process::WaitOptions::empty()).unwrap();
    assert_eq!(status.exit_status(), Some(0));
}
