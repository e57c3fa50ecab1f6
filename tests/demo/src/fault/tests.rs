use super::*;

#[test]
fn crashes_and_planned_restarts_are_counted_separately() {
    use Fault::{Kill, KillAll, Power, Reboot, Upgrade};
    assert_eq!(tally(&[]), "no fault");
    assert_eq!(tally(&[Kill]), "1 death by kill -9");
    assert_eq!(
        tally(&[Kill, Kill, Reboot, Upgrade, KillAll, Kill]),
        "4 deaths by kill -9, 1 reboot and 1 upgrade"
    );
    assert_eq!(
        tally(&[Power, Power, Reboot, Reboot]),
        "2 power cuts and 2 reboots"
    );
}

#[test]
fn every_key_is_another_fault() {
    let faults: Vec<_> = "kRup".chars().filter_map(Fault::of_key).collect();
    assert_eq!(
        faults,
        [Fault::Kill, Fault::Reboot, Fault::Upgrade, Fault::Power]
    );
    assert_eq!(Fault::of_key('x'), None);
}
