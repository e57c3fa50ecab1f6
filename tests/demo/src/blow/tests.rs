use super::*;

#[test]
fn deaths_are_counted_apart_from_what_was_planned() {
    use Blow::{Kill, KillAll, Power, Reboot, Upgrade};
    assert_eq!(tally(&[]), "nothing befell it");
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
fn every_key_is_a_blow_of_its_own() {
    let blows: Vec<_> = "kRup".chars().filter_map(Blow::of_key).collect();
    assert_eq!(
        blows,
        [Blow::Kill, Blow::Reboot, Blow::Upgrade, Blow::Power]
    );
    assert_eq!(Blow::of_key('x'), None);
}
