use super::*;

fn given(variables: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    |name| {
        let found = variables.iter().find(|(known, _)| *known == name)?;
        Some(found.1.to_owned())
    }
}

#[test]
fn descriptors_are_passed_by_name_and_to_one_process() {
    let variables = given(&[
        ("LISTEN_PID", "7"),
        ("LISTEN_FDS", "2"),
        ("LISTEN_FDNAMES", "received:tap"),
    ]);
    let expected = vec![(3, "received".to_owned()), (4, "tap".to_owned())];
    assert_eq!(passed(&variables, 7), expected);
    assert!(passed(&variables, 8).is_empty());
    assert!(passed(given(&[("LISTEN_FDS", "2")]), 7).is_empty());
    let endless = given(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "1000")]);
    assert_eq!(passed(endless, 7).len(), 1, "as many as have names");
}

#[test]
fn the_watchdog_is_notified_twice_in_its_interval() {
    let pace = |variables| watchdog(given(variables), 7);
    assert_eq!(pace(&[]), None);
    assert_eq!(pace(&[("WATCHDOG_USEC", "0")]), None);
    let seconds = Some(Duration::from_secs(5));
    assert_eq!(pace(&[("WATCHDOG_USEC", "10000000")]), seconds);
    let own = &[("WATCHDOG_USEC", "10000000"), ("WATCHDOG_PID", "7")];
    assert_eq!(pace(own), seconds);
    let other = &[("WATCHDOG_USEC", "10000000"), ("WATCHDOG_PID", "8")];
    assert_eq!(pace(other), None);
    let mut manager = Manager {
        pace: seconds,
        ..Manager::default()
    };
    assert_eq!(manager.next_sign(), Some(Duration::ZERO));
    manager.live(Duration::from_secs(1));
    assert_eq!(manager.next_sign(), Some(Duration::from_secs(6)));
    manager.live(Duration::from_secs(2));
    assert_eq!(manager.next_sign(), Some(Duration::from_secs(6)));
}
