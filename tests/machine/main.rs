//! Tests a machine that really stops: rebooted, crashed, its power cut, while Debian's smbclient works on it from
//! outside. And one whose kernel mounts the share of a server outside, which is killed.
//!
//! `scripts/vm-demo` runs these with progress lines. The environment variables `OUTLAST_VM_SEED` and `OUTLAST_VM_CUTS`
//! set the seed of the random moments, and the number of power cuts.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod disk_log;
mod guest;
mod host;
mod initramfs;
mod machine;
mod names;
mod pair;
mod scene;

use scene::{Fault, Scene, Transfer};
use support::Rng;
use support::client::{DIALECTS, ENCRYPTED, SMB3_1_1};
use support::lab::Lab;

fn can_run(test: &str) -> bool {
    support::can_run(test) && support::has(test, &scene::needs())
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

//= patent claim-18, claim-39
#[test]
fn sessions_outlast_the_machine() {
    const TEST: &str = "sessions_outlast_the_machine";
    if !can_run(TEST) {
        return;
    }
    let lab = Lab::new();
    let Some(mut scene) = Scene::set(&lab, TEST, "power", 96, setting("OUTLAST_VM_SEED", 1)) else {
        return;
    };
    for (transfer, dialect, faults) in [
        (
            Transfer::Get,
            SMB3_1_1,
            [Fault::Reboot, Fault::Crash, Fault::Cut],
        ),
        (
            Transfer::Put,
            ENCRYPTED,
            [Fault::Cut, Fault::Reboot, Fault::Reset],
        ),
    ] {
        scene.act(transfer, dialect, &faults.map(|fault| (12, fault)));
    }
    scene.judge();
}

#[test]
fn sessions_outlast_a_reboot_by_kexec() {
    const TEST: &str = "sessions_outlast_a_reboot_by_kexec";
    if !can_run(TEST) {
        return;
    }
    let lab = Lab::new();
    let Some(mut scene) = Scene::set(&lab, TEST, "power", 64, setting("OUTLAST_VM_SEED", 1)) else {
        return;
    };
    let faults = [Fault::Kexec, Fault::Reboot, Fault::Kexec];
    scene.act(Transfer::Put, SMB3_1_1, &faults.map(|fault| (15, fault)));
    scene.act(Transfer::Get, SMB3_1_1, &[(30, Fault::Kexec)]);
    scene.judge();
}

//= patent fig4-413, claim-20
#[test]
fn the_partner_continues_when_the_first_server_loses_its_power() {
    const TEST: &str = "the_partner_continues_when_the_first_server_loses_its_power";
    if !can_run(TEST) || !support::has(TEST, &pair::needs()) || !support::etcd::can_run(TEST) {
        return;
    }
    let lab = Lab::new();
    pair::Scene::set(&lab).lose_power();
}

#[test]
#[ignore = "some minutes"]
fn sessions_outlast_power_cuts_at_random_moments() {
    const TEST: &str = "sessions_outlast_power_cuts_at_random_moments";
    if !can_run(TEST) {
        return;
    }
    let seed = setting("OUTLAST_VM_SEED", 1);
    let mut left = setting("OUTLAST_VM_CUTS", 12);
    // the moments are drawn separately from the scene's random numbers
    let mut rng = Rng(!seed);
    let lab = Lab::new();
    let Some(mut scene) = Scene::set(&lab, TEST, "power", 64, seed) else {
        return;
    };
    let mut transfers = [Transfer::Put, Transfer::Get].into_iter().cycle();
    while left > 0 {
        let mut faults = Vec::new();
        while left > 0 && faults.len() < 3 {
            let percent = 1 + rng.below(25) as u64;
            let twice = left > 1 && rng.below(4) == 0;
            let (fault, cuts) = if twice {
                (Fault::CutTwice, 2)
            } else {
                (Fault::Cut, 1)
            };
            faults.push((percent, fault));
            left -= cuts;
        }
        let dialect = DIALECTS[rng.below(DIALECTS.len())];
        scene.act(transfers.next().expect("endless"), dialect, &faults);
    }
    scene.judge();
}

#[test]
#[ignore = "half a minute"]
fn without_that_promise_a_power_cut_ends_the_sessions_loudly() {
    const TEST: &str = "without_that_promise_a_power_cut_ends_the_sessions_loudly";
    if !can_run(TEST) {
        return;
    }
    let lab = Lab::new();
    let Some(mut scene) = Scene::set(&lab, TEST, "process", 64, setting("OUTLAST_VM_SEED", 1))
    else {
        return;
    };
    scene.lose_sessions();
}

#[test]
fn two_kernel_mounts_lose_no_update_while_the_server_is_killed() {
    use client::Fault::{Kill, Reboot};
    const TEST: &str = "two_kernel_mounts_lose_no_update_while_the_server_is_killed";
    if !support::can_run(TEST) || !support::has(TEST, &host::needs()) {
        return;
    }
    let lab = Lab::new();
    let mut scene = client::Scene::set(&lab);
    for (version, more) in [("2.1", ""), ("3.0", ""), ("3.1.1", ",seal")] {
        scene.mount(version, more);
        scene.count(40, &[]);
        scene.count(300, &[Kill, Kill, Reboot, Kill, Kill, Kill]);
        assert!(scene.leases_returned() > 0, "the client caches nothing");
        scene.copy(&[Kill, Reboot, Kill]);
        scene.notice_a_change();
        scene.unmount();
    }
    scene.judge();
}
