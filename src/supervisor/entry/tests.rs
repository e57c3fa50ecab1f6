use std::io::Read as _;

use super::*;

/// Returns the exit code, and the message to the supervisor.
fn left(nvram: &Path) -> (u8, String) {
    let (mut read, write) = io::pipe().unwrap();
    let code = leave_for_system(nvram, &Report::new(write.into())).unwrap();
    let mut message = String::new();
    read.read_to_string(&mut message).unwrap();
    (code, message)
}

#[test]
fn a_machine_is_rebooted_when_the_nvram_is_on_its_medium() {
    let nvram = std::env::current_exe().unwrap();
    assert_eq!(left(&nvram), (EXIT_SYSTEM, String::new()));
    let (code, message) = left(Path::new("/nowhere/nvram"));
    assert_eq!(code, EXIT_REBOOT);
    assert!(message.contains("reboot"), "{message}");
}
