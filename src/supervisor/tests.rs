use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::config::sample::Sample;

use super::machine::{Action, Ended, Input, Machine, Order};
use super::process::Inherited;
use super::provision::Provision;
use super::settings::Settings;
use super::worker::PreviousEnd;

fn run(given: &mut dyn Provision) -> u8 {
    let mut desk = super::Desk::open(super::Ready::default(), None).unwrap();
    let mut standby = super::Standby::new(desk.signals.waker().unwrap()).unwrap();
    super::supervise(given, &mut standby, &mut desk, None)
        .unwrap()
        .code
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn order(previous: PreviousEnd, attempts: u32, tap_fresh: bool) -> Order {
    Order {
        binary: None,
        previous,
        attempts,
        tap_fresh,
        renew: false,
    }
}

/// The start after a reboot, with the current configuration files.
fn start_anew() -> Option<Action> {
    Some(Action::Start(Order {
        renew: true,
        ..order(PreviousEnd::Elective, 0, false)
    }))
}

fn start(previous: PreviousEnd, attempts: u32) -> Option<Action> {
    Some(Action::Start(order(previous, attempts, false)))
}

/// The same after a worker that ended by itself, unrequested: with the proven configuration.
fn start_by_the_old() -> Option<Action> {
    Some(Action::Start(Order {
        renew: false,
        ..order(PreviousEnd::Elective, 0, false)
    }))
}

/// A machine whose worker has served since 0.
fn serving() -> Machine {
    let (mut machine, first) = Machine::new(ms(0));
    assert_eq!(
        first,
        Action::Start(order(PreviousEnd::FirstStart, 0, true))
    );
    assert_eq!(machine.handle(Input::Ready, ms(0)), None);
    machine
}

fn rebooting(exec: Option<&str>, hold: Duration) -> Input {
    Input::Rebooting {
        exec: exec.map(PathBuf::from),
        hold,
    }
}

#[test]
fn an_error_at_the_first_start_is_passed_on() {
    let (mut machine, _) = Machine::new(ms(0));
    assert_eq!(
        machine.handle(Input::Ended(Ended::Error(3)), ms(5)),
        Some(Action::Exit(3))
    );
    let (mut machine, _) = Machine::new(ms(0));
    assert_eq!(
        machine.handle(Input::SpawnFailed, ms(5)),
        Some(Action::Exit(1))
    );
}

#[test]
fn a_stopped_worker_ends_the_supervisor() {
    assert_eq!(
        serving().handle(Input::Ended(Ended::Stopped), ms(5)),
        Some(Action::Exit(0))
    );
}

#[test]
fn a_machine_that_does_not_reboot_has_its_server_back() {
    let mut machine = serving();
    let left = machine.handle(Input::Ended(Ended::System), ms(5));
    assert_eq!(left, Some(Action::RebootSystem));
    assert_eq!(machine.handle(Input::NotRebooted, ms(6)), start_anew());
    machine.handle(Input::Ready, ms(7));
    machine.handle(Input::Terminate, ms(8));
    let left = machine.handle(Input::Ended(Ended::System), ms(9));
    assert_eq!(left, Some(Action::RebootSystem));
    let ended = machine.handle(Input::NotRebooted, ms(10));
    assert_eq!(ended, Some(Action::Exit(0)));
}

#[test]
fn a_killed_worker_is_started_at_once_however_often() {
    let mut machine = serving();
    for n in 1..50 {
        assert_eq!(
            machine.handle(Input::Ended(Ended::Killed), ms(n)),
            start(PreviousEnd::Killed, 0)
        );
        assert_eq!(machine.handle(Input::Ready, ms(n)), None);
    }
}

#[test]
fn own_faults_are_counted_and_back_off() {
    let mut machine = serving();
    for attempt in 1..=3 {
        assert_eq!(
            machine.handle(Input::Ended(Ended::OwnFault), ms(1)),
            start(PreviousEnd::OwnFault, attempt)
        );
        machine.handle(Input::Ready, ms(1));
    }
    let mut now = ms(1);
    for (attempt, delay) in (4..).zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
        assert_eq!(machine.handle(Input::Ended(Ended::OwnFault), now), None);
        assert_eq!(machine.deadline(), Some(now + ms(delay)));
        assert_eq!(machine.handle(Input::Tick, now + ms(delay - 1)), None);
        now += ms(delay);
        assert_eq!(
            machine.handle(Input::Tick, now),
            start(PreviousEnd::OwnFault, attempt)
        );
    }
    // A healthy period ends the series.
    machine.handle(Input::Ready, now);
    assert_eq!(
        machine.handle(Input::Ended(Ended::OwnFault), now + ms(10_000)),
        start(PreviousEnd::OwnFault, 1)
    );
}

#[test]
fn an_outside_kill_is_no_attempt() {
    let mut machine = serving();
    machine.handle(Input::Ended(Ended::OwnFault), ms(1));
    assert_eq!(
        machine.handle(Input::Ended(Ended::Killed), ms(2)),
        start(PreviousEnd::Killed, 0)
    );
}

#[test]
fn until_one_has_served_the_tap_is_fresh() {
    let (mut machine, _) = Machine::new(ms(0));
    assert_eq!(
        machine.handle(Input::Ended(Ended::Killed), ms(1)),
        Some(Action::Start(order(PreviousEnd::Killed, 0, true)))
    );
}

#[test]
fn later_start_errors_are_retried_then_given_up() {
    let mut machine = serving();
    machine.handle(Input::Ended(Ended::Killed), ms(1));
    let mut now = ms(1);
    for _ in 1..8 {
        assert_eq!(machine.handle(Input::Ended(Ended::Error(1)), now), None);
        now = machine.deadline().unwrap();
        assert_eq!(machine.handle(Input::Tick, now), start_by_the_old());
    }
    assert_eq!(
        machine.handle(Input::Ended(Ended::Error(1)), now),
        Some(Action::Exit(1))
    );
}

#[test]
fn an_elective_reboot_comes_back_after_its_hold() {
    let mut machine = serving();
    assert_eq!(machine.handle(rebooting(None, ms(0)), ms(1)), None);
    assert_eq!(
        machine.handle(Input::Ended(Ended::Reboot), ms(2)),
        start_anew()
    );
    machine.handle(Input::Ready, ms(3));
    machine.handle(rebooting(None, ms(500)), ms(10));
    assert_eq!(machine.handle(Input::Ended(Ended::Reboot), ms(20)), None);
    assert_eq!(machine.deadline(), Some(ms(520)));
    assert_eq!(machine.handle(Input::Tick, ms(520)), start_anew());
}

#[test]
fn a_new_configuration_that_fails_gives_way_to_the_old() {
    for failure in [Ended::Error(1), Ended::OwnFault, Ended::Killed] {
        let mut machine = serving();
        machine.handle(rebooting(None, ms(0)), ms(1));
        machine.handle(Input::Ended(Ended::Reboot), ms(2));
        let Some(Action::Start(again)) = machine.handle(Input::Ended(failure), ms(3)) else {
            panic!("{failure:?} ends it");
        };
        assert!(!again.renew, "{failure:?}");
        machine.handle(Input::Ready, ms(4));
        // A crash is no reason to read the files.
        let next = machine.handle(Input::Ended(Ended::Killed), ms(5));
        assert_eq!(next, start(PreviousEnd::Killed, 0));
    }
}

#[test]
fn what_is_missing_is_waited_for_and_counts_as_no_death() {
    let mut machine = serving();
    machine.handle(Input::Ended(Ended::Killed), ms(1));
    let mut now = ms(1);
    for _ in 0..100 {
        assert_eq!(machine.handle(Input::Missing, now), None);
        now = machine.deadline().unwrap();
        let again = machine.handle(Input::Tick, now);
        assert_eq!(again, start(PreviousEnd::Killed, 0));
    }
    machine.handle(Input::Missing, now);
    let ended = machine.handle(Input::Terminate, now);
    assert_eq!(ended, Some(Action::Exit(0)));
}

#[test]
fn a_new_binary_stays_once_it_has_served() {
    let mut machine = serving();
    machine.handle(rebooting(Some("/new"), ms(0)), ms(1));
    let new = |previous, renew| {
        Some(Action::Start(Order {
            binary: Some("/new".into()),
            renew,
            ..order(previous, 0, false)
        }))
    };
    assert_eq!(
        machine.handle(Input::Ended(Ended::Reboot), ms(2)),
        new(PreviousEnd::Elective, true)
    );
    machine.handle(Input::Ready, ms(3));
    assert_eq!(machine.deadline(), None);
    assert_eq!(
        machine.handle(Input::Ended(Ended::Killed), ms(4)),
        new(PreviousEnd::Killed, false)
    );
    // It has been deleted since: only the supervisor's own binary is left.
    assert_eq!(
        machine.handle(Input::SpawnFailed, ms(5)),
        start(PreviousEnd::Killed, 0)
    );
}

#[test]
fn a_new_binary_that_fails_gives_way_to_the_old() {
    for (failure, previous) in [
        (Input::SpawnFailed, PreviousEnd::Elective),
        (Input::Ended(Ended::Error(1)), PreviousEnd::Elective),
        (Input::Ended(Ended::OwnFault), PreviousEnd::Elective),
        (Input::Ended(Ended::Killed), PreviousEnd::Elective),
    ] {
        let mut machine = serving();
        machine.handle(rebooting(Some("/new"), ms(0)), ms(1));
        machine.handle(Input::Ended(Ended::Reboot), ms(2));
        assert_eq!(machine.handle(failure, ms(3)), start(previous, 0));
    }
}

#[test]
fn a_new_binary_that_hangs_is_killed() {
    let mut machine = serving();
    machine.handle(rebooting(Some("/new"), ms(0)), ms(1));
    machine.handle(Input::Ended(Ended::Reboot), ms(2));
    let deadline = machine.deadline().unwrap();
    assert_eq!(machine.handle(Input::Tick, deadline - ms(1)), None);
    assert_eq!(machine.handle(Input::Tick, deadline), Some(Action::Kill));
    assert_eq!(
        machine.handle(Input::Ended(Ended::Killed), deadline),
        start_by_the_old()
    );
}

#[test]
fn termination_is_passed_on_and_ends_well() {
    for how in [Ended::Shutdown, Ended::Stopped, Ended::Reboot] {
        let mut machine = serving();
        assert_eq!(
            machine.handle(Input::Terminate, ms(1)),
            Some(Action::Terminate)
        );
        assert_eq!(
            machine.handle(Input::Ended(how), ms(2)),
            Some(Action::Exit(0))
        );
    }
    for how in [Ended::Killed, Ended::OwnFault, Ended::Error(5)] {
        let mut machine = serving();
        machine.handle(Input::Terminate, ms(1));
        assert_eq!(
            machine.handle(Input::Ended(how), ms(2)),
            Some(Action::Exit(1))
        );
    }
}

#[test]
fn a_plain_kill_of_the_worker_does_not_end_the_server() {
    let mut machine = serving();
    let action = machine.handle(Input::Ended(Ended::Shutdown), ms(1));
    let Some(Action::Start(order)) = action else {
        panic!("{action:?}")
    };
    assert_eq!(
        (order.previous, order.attempts, order.renew),
        (PreviousEnd::Elective, 0, false)
    );
}

#[test]
fn a_shutdown_that_hangs_is_cut_short() {
    let mut machine = serving();
    machine.handle(Input::Terminate, ms(1));
    let deadline = machine.deadline().unwrap();
    // Asking again does not extend the time.
    assert_eq!(
        machine.handle(Input::Terminate, ms(900)),
        Some(Action::Terminate)
    );
    assert_eq!(machine.deadline(), Some(deadline));
    assert_eq!(machine.handle(Input::Tick, deadline), Some(Action::Kill));
    assert_eq!(
        machine.handle(Input::Ended(Ended::Killed), deadline),
        Some(Action::Exit(1))
    );
}

#[test]
fn termination_before_the_worker_listens_or_while_none_runs_is_no_failure() {
    let (mut machine, _) = Machine::new(ms(0));
    machine.handle(Input::Terminate, ms(1));
    assert_eq!(
        machine.handle(Input::Ended(Ended::Killed), ms(2)),
        Some(Action::Exit(0))
    );

    let mut machine = serving();
    machine.handle(rebooting(None, ms(500)), ms(1));
    machine.handle(Input::Ended(Ended::Reboot), ms(2));
    assert_eq!(
        machine.handle(Input::Terminate, ms(3)),
        Some(Action::Exit(0))
    );
    assert_eq!(machine.handle(Input::Tick, ms(600)), None, "it has ended");
}

/// Workers that are shell scripts, under the real supervisor: each start is one line of `starts`, and each does what
/// its number says.
#[test]
fn workers_are_reaped_and_started_as_they_ended() {
    let scratch = Scratch::new("workers");
    let worker = scratch.script(
        "worker",
        r#"
        case $(wc -l < "$dir/starts") in
            1) say '{"report":"ready","epoch":1}'; kill -KILL $$ ;;
            2) say '{"report":"ready","epoch":2}'; kill -SEGV $$ ;;
            3) say '{"report":"ready","epoch":3}'
               say '{"report":"something newer"}'
               say '{"report":"reboot","exec":"'"$dir/new"'","hold_seconds":0.001}'; exit 81 ;;
            5) say '{"report":"ready","epoch":4}'; exit 0 ;;
            *) exit 99 ;;
        esac"#,
    );
    scratch.script("new", "exit 1");
    let (tap, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut given = Given {
        program: &worker,
        fd: tap.as_fd(),
        settings: scratch.settings(),
    };
    assert_eq!(run(&mut given), 0);
    let starts = std::fs::read_to_string(scratch.0.join("starts")).unwrap();
    let expected = [
        "worker --attempts=0 --previous=first-start --tap-fresh",
        "worker --attempts=0 --previous=killed",
        "worker --attempts=1 --previous=own-fault",
        "new --attempts=0 --previous=elective",
        "worker --attempts=0 --previous=elective",
    ];
    assert_eq!(starts.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_binary_that_cannot_be_executed_ends_the_supervisor() {
    let (tap, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let scratch = Scratch::new("nothing");
    let mut given = Given {
        program: "/nowhere/outlast".as_ref(),
        fd: tap.as_fd(),
        settings: scratch.settings(),
    };
    assert_eq!(run(&mut given), 1);
}

/// A directory that is removed with the test.
struct Scratch(PathBuf);

/// Provides the scripts' descriptors.
struct Given<'a> {
    program: &'a Path,
    fd: BorrowedFd<'a>,
    settings: Rc<Settings>,
}

impl Provision for Given<'_> {
    fn prepare(&mut self, _: bool) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn inherited(&self) -> anyhow::Result<Inherited<'_>> {
        Ok(Inherited {
            program: self.program,
            config: "/c.toml".into(),
            tap: self.fd,
            control: self.fd,
            received: self.fd,
            settings: &self.settings,
            pair: None,
        })
    }

    fn control(&self) -> BorrowedFd<'_> {
        self.fd
    }

    fn successor(&self, _: bool) -> Option<Rc<Settings>> {
        None
    }

    fn stands_by(&self) -> bool {
        false
    }

    fn proven(&mut self) {}
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("outlast-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    /// Settings made of the configuration and the users.
    fn settings(&self) -> Rc<Settings> {
        let text = Sample {
            share_keys: "guest = true",
            ..Sample::default()
        };
        let path = self.0.join("outlast.toml");
        std::fs::write(&path, text.text()).unwrap();
        Rc::new(Settings::read(&path).unwrap().0)
    }

    /// A worker that notes its name and the arguments that vary, then does what `body` says; `say` reports.
    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.0.join(name);
        let text = format!(
            r#"#!/bin/bash
            dir={}
            vary=
            for argument; do
                case $argument in
                    --report-fd=*) report=${{argument#*=}} ;;
                    --attempts=* | --previous=* | --tap-fresh) vary="$vary $argument" ;;
                    --supervisor-pid=*) [ "${{argument#*=}}" = $PPID ] || exit 98 ;;
                esac
            done
            say() {{ echo "$1" >&$report; }}
            echo "{name}$vary" >> "$dir/starts"
            {body}"#,
            self.0.display()
        );
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}
