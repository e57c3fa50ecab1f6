use super::*;

#[test]
fn a_command_succeeds_fails_or_is_ended() {
    let run = |command, timeout| run("partner.x", command, &[("NODE", "a")], timeout);
    assert_eq!(run("test \"$NODE\" = a", TIMEOUT), Ok(()));
    let failed = run("exit 3", TIMEOUT).unwrap_err();
    assert!(failed.contains("partner.x has failed"), "{failed}");
    let endless = run("sleep 1000", Duration::ZERO).unwrap_err();
    assert!(endless.contains("has not ended"), "{endless}");
}
