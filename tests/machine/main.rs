//! A machine that really goes down: rebooted, crashed, its power cut, while Debian's smbclient works on it from outside.
//!
//! `scripts/vm-demo` runs these with their story told. The environment variables `OUTLAST_VM_SEED` and `OUTLAST_VM_CUTS` say which
//! random moments, and how many.

#[path = "../support/mod.rs"]
mod support;

mod disk_log;
mod initramfs;
mod machine;
mod names;
mod scene;

use scene::{Blow, Scene, Transfer};
use support::Rng;
use support::lab::Lab;

fn can_run(test: &str) -> bool {
    support::can_run(test) && support::has(test, &scene::needs())
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn sessions_outlast_planned_reboots_of_the_machine() {
    if !can_run("sessions_outlast_planned_reboots_of_the_machine") {
        return;
    }
    let lab = Lab::new();
    let mut scene = Scene::set(&lab, "process", 64, setting("OUTLAST_VM_SEED", 1));
    scene.act(Transfer::Get, &[(15, Blow::Reboot), (55, Blow::Reboot)]);
    scene.act(Transfer::Put, &[(15, Blow::Reboot), (55, Blow::Reboot)]);
    scene.judge();
}

#[test]
#[ignore = "half a minute"]
fn what_is_not_on_the_medium_is_not_taken_up_after_a_power_cut() {
    if !can_run("what_is_not_on_the_medium_is_not_taken_up_after_a_power_cut") {
        return;
    }
    let lab = Lab::new();
    let mut scene = Scene::set(&lab, "process", 64, setting("OUTLAST_VM_SEED", 1));
    scene.lose_sessions();
}
