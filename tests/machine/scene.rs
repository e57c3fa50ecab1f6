//! Sets the scene: a serving machine, smbclients outside, and the machine's faults.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::guest::{self, CONFIG};
use crate::host::{self, find};
use crate::machine::{Hardware, Machine};
use crate::names::Names;
use crate::support::capture::Capture;
use crate::support::client::{self, Dialect, SMB3_1_1, Session, smbclient};
use crate::support::files::{self, Tree};
use crate::support::lab::{Lab, SERVER, run};
use crate::support::server::{PASSWORD, USER, add_user};
use crate::support::{PATIENCE, Rng, has, wait_for};

const MIB: u64 = 1 << 20;
/// The first boot takes longer than later ones, since the NVRAM is made. smbclient waits for a minute.
const SLOWEST_BOOT: Duration = Duration::from_secs(45);

/// A server that has sent and received fewer bytes than this in this time is at a standstill, except for probes and
/// neighbour discovery.
const STANDSTILL: Duration = Duration::from_secs(30);
const A_LITTLE: u64 = 10_000;
/// The number of power cuts of which some must have lost something.
const ENOUGH_CUTS: u64 = 6;

/// The names on its disk of what a boot by kexec starts.
const KERNEL: &str = "vmlinuz";
const INITRAMFS: &str = "initramfs";

/// A fault of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `outlast reboot --system`.
    Reboot,
    /// The same with a kernel that is loaded: the firmware does not run.
    Kexec,
    /// Its kernel panics.
    Crash,
    /// Its reset button is pressed.
    Reset,
    /// Its power is cut.
    Cut,
    /// Its power is cut, and again before it has restarted.
    CutTwice,
}

/// The transfer of the big file.
#[derive(Clone, Copy, Debug)]
pub enum Transfer {
    Get,
    Put,
}

/// Statistics of the power cuts.
#[derive(Default)]
struct Cuts {
    all: u64,
    /// The number of cuts that lost something.
    biting: u64,
    /// The number of lost sectors, and of those that could be lost.
    lost: u64,
    unflushed: u64,
}

pub struct Scene<'a> {
    lab: &'a Lab,
    hardware: Hardware,
    machine: Option<Machine>,
    capture: Capture,
    rng: Rng,
    /// The number of connections so far.
    connections: usize,
    cuts: Cuts,
    /// The expected content of the disk, without the big files.
    expected: Tree,
    size: u64,
}

/// The requirements of a scene, and whether each is met.
pub fn needs() -> Vec<(bool, &'static str)> {
    let mut needs = host::needs();
    needs.extend(host::programs(&["mkfs.ext4", "e2fsck", "debugfs"]));
    needs
}

impl<'a> Scene<'a> {
    /// Builds the machine and switches it on. `None`: this host is too slow, and the test counts as skipped.
    pub fn set(
        lab: &'a Lab,
        test: &str,
        durability: &str,
        megabytes: u64,
        seed: u64,
    ) -> Option<Scene<'a>> {
        say(&format!("   seed {seed}"));
        let mut rng = Rng(seed);
        let size = megabytes * MIB;
        lab.make_dir("client");
        files::random_file(&lab.path("client/big"), size, &mut rng);
        let initramfs = initramfs(lab, durability);
        let others = [(&*host::packed(), KERNEL), (&*initramfs, INITRAMFS)];
        let disk = guest::disk(lab.dir(), &lab.path("client/big"), &others);
        let hardware = Hardware {
            role: "serve",
            kernel: host::bootable(lab.dir()),
            initramfs,
            disk: Some(disk),
            tap: "tap0",
            dir: lab.dir().to_owned(),
        };
        guest::wire();
        let machine = Some(hardware.start());
        let mut scene = Scene {
            lab,
            hardware,
            machine,
            capture: Capture::start(),
            rng,
            connections: 0,
            cuts: Cuts::default(),
            expected: Tree::new(),
            size,
        };
        let begun = Instant::now();
        scene.wait_for_life(1);
        say(&format!(
            "   The machine serves {SERVER}:445, {:.1} s after it was switched on. smbclient is outside.",
            begun.elapsed().as_secs_f64()
        ));
        let fast = begun.elapsed() < SLOWEST_BOOT;
        has(
            test,
            &[(
                fast,
                "a less busy processor: the emulated machine boots too slowly for smbclient's \
            patience",
            )],
        )
        .then_some(scene)
    }

    /// One client gets or puts the big file, another makes, renames and deletes small ones, during the faults: each
    /// when so many percent have been transferred since the one before. A third has finished its work before.
    pub fn act(&mut self, transfer: Transfer, dialect: Dialect, faults: &[(u64, Fault)]) {
        let before = self.names(40);
        let local = before.local(self.lab);
        client::run(smbclient(dialect), &local, before.commands()).well();
        self.expected.extend(before.expected());

        // both are busy for about as long
        let meanwhile = self.names(4 * (self.size / MIB) as usize);
        say(&format!(
            "   smbclient ({}) {}s {} MiB",
            dialect.name,
            match transfer {
                Transfer::Get => "get",
                Transfer::Put => "put",
            },
            self.size / MIB
        ));
        let command = match transfer {
            Transfer::Get => "get big copy",
            Transfer::Put => "put big back",
        };
        let local = self.lab.path("client");
        let mut big = Session::start(smbclient(dialect), &local, command);
        let small = Session::start(
            smbclient(dialect),
            &meanwhile.local(self.lab),
            meanwhile.commands(),
        );
        self.connections += 3;
        for (percent, fault) in faults {
            self.transfer_more(&mut big, *percent);
            self.strike(*fault);
        }
        let text = big.finish().well();
        say(&format!("   {}", text.lines().last().unwrap_or_default()));
        small.finish().well();
        self.expected.extend(meanwhile.expected());
        if let Transfer::Get = transfer {
            files::assert_same(&local.join("big"), &local.join("copy"));
        }
        let (ok, names) = (green("✓"), before.steps() + meanwhile.steps());
        say(&format!(
            "   {ok} smbclient: exit 0; and {names} small files made, renamed, deleted by two more"
        ));
    }

    /// A power cut during an upload, with a durability that does not survive it: the server logs that, drops the
    /// session, and serves others.
    pub fn lose_sessions(&mut self) {
        let local = self.lab.path("client");
        let mut big = Session::start(smbclient(SMB3_1_1), &local, "put big back");
        // The planned reboot leaves a state on the medium that may be recovered; the next one no longer, however soon
        // it happens.
        for (percent, fault) in [(30, Fault::Reboot), (4, Fault::Cut)] {
            self.transfer_more(&mut big, percent);
            self.strike(fault);
        }
        let finished = big.finish();
        assert!(
            !finished.success,
            "the session continued: {}",
            finished.text
        );
        say(&format!("   smbclient: {}", finished.text.trim()));
        let console = self.hardware.console();
        let loud = console.lines().find(|line| line.contains("is dropped"));
        say(&format!(
            "   the server: {}",
            loud.expect("the server says so").trim()
        ));
        client::run(smbclient(SMB3_1_1), &local, "put big back").well();
        say(&format!("   {} a new session is served", green("✓")));
    }

    fn names(&mut self, steps: usize) -> Names {
        Names::new(
            &format!("names-{}-{steps}", self.connections),
            steps,
            &mut self.rng,
        )
    }

    /// Waits until so much more has been transferred.
    fn transfer_more(&mut self, big: &mut Session, percent: u64) {
        let target = traffic() + self.size * percent / 100;
        let mut last = (traffic(), Instant::now());
        wait_for("the transfer to continue", 4 * PATIENCE, || {
            let now = traffic();
            if now > last.0 + A_LITTLE {
                last = (now, Instant::now());
            }
            if last.1.elapsed() > STANDSTILL {
                last.1 = Instant::now();
                self.report_standstill();
            }
            assert!(
                !big.has_ended(),
                "over before the next fault: {}",
                big.text()
            );
            (traffic() >= target).then_some(())
        });
    }

    /// Prints data for debugging.
    fn report_standstill(&mut self) {
        let machine = self.machine.as_mut().expect("a machine");
        let threads = machine.threads().unwrap_or_default();
        let status = machine.run(&format!("/bin/outlast status --json --config {CONFIG}"));
        say(&format!(
            "   nothing moves. The server's threads:\n{threads}   its status:\n{}",
            status.unwrap_or_default()
        ));
    }

    fn strike(&mut self, fault: Fault) {
        let lives = self.lives();
        let machine = self.machine.as_mut().expect("a machine");
        if fault == Fault::Kexec {
            machine.load_kernel([KERNEL, INITRAMFS]);
        }
        let begun = Instant::now();
        let what = match fault {
            Fault::Reboot => {
                machine.begin(&format!("/bin/outlast reboot --system --config {CONFIG}"));
                "outlast reboot --system".to_owned()
            }
            Fault::Kexec => {
                machine.begin(&format!("/bin/outlast reboot --system --config {CONFIG}"));
                "outlast reboot --system, by kexec".to_owned()
            }
            Fault::Crash => {
                machine.crash();
                "the kernel panics".to_owned()
            }
            Fault::Reset => {
                machine.reset();
                "the machine is reset".to_owned()
            }
            Fault::Cut => self.cut_while_it_writes(),
            Fault::CutTwice => {
                let first = self.cut_while_it_writes();
                // somewhere between the kernel's start and the recovery's end
                let pause = self.rng.below(5000) as u64;
                std::thread::sleep(Duration::from_millis(pause));
                format!(
                    "{first}; {pause} ms after it was switched on again, {}",
                    self.cut()
                )
            }
        };
        self.wait_for_life(lives + 1);
        let away = begun.elapsed().as_secs_f64();
        say(&format!("   {what}. It serves again after {away:.1} s."));
    }

    fn cut_while_it_writes(&mut self) -> String {
        self.machine.as_ref().expect("a machine").wait_for_a_write();
        self.cut()
    }

    fn cut(&mut self) -> String {
        let machine = self.machine.take().expect("a machine");
        let outcome = machine.cut(&mut self.rng);
        self.cuts.all += 1;
        self.cuts.biting += u64::from(outcome.lost > 0);
        self.cuts.lost += outcome.lost;
        self.cuts.unflushed += outcome.unflushed;
        self.machine = Some(self.hardware.start());
        format!(
            "the power is cut: {} sectors had been written since the last flush, {} of them are lost",
            outcome.unflushed, outcome.lost
        )
    }

    /// The number of starts of the server.
    fn lives(&self) -> usize {
        self.hardware
            .console()
            .matches("the gates are open")
            .count()
    }

    fn wait_for_life(&mut self, life: usize) {
        // an emulated machine on a busy host is slow; smbclient decides how long it waits
        wait_for("the server", 4 * PATIENCE, || {
            self.machine.as_mut().expect("a machine").assert_well();
            (self.lives() >= life).then_some(())
        });
    }

    /// Switches the machine off and checks the packets and the disk.
    pub fn judge(mut self) {
        let mut machine = self.machine.take().expect("a machine");
        let status = machine.run(&format!("/bin/outlast status --config {CONFIG}"));
        say(&format!(
            "   outlast status: {}",
            status.unwrap_or_default().trim()
        ));
        machine.power_off();
        let disk = self.hardware.disk.expect("a disk").display().to_string();
        run(&format!(
            "{} -fn {disk}",
            find("e2fsck").expect("e2fsck").display()
        ));
        let found = self.lab.make_dir("found");
        let dump = format!("rdump /share {}", found.display());
        let debugfs = find("debugfs").expect("debugfs");
        let dumped = Command::new(debugfs).args(["-R", &dump, &disk]).output();
        assert!(dumped.expect("debugfs").status.success());
        let share = found.join("share");
        let original = self.lab.path("client/big");
        for big in ["big", "back"] {
            files::assert_same(&original, &share.join(big));
            std::fs::remove_file(share.join(big)).expect("a file");
        }
        // a file of the server, see docs/four-points.md
        let _ = std::fs::remove_file(share.join(".outlast-marker"));
        assert_trees_equal(&self.expected, &files::tree(&share));
        say(&format!(
            "   {} on the disk: all files, and nothing else ({} names)",
            green("✓"),
            self.expected.len() + 2
        ));
        let Cuts {
            all,
            biting,
            lost,
            unflushed,
        } = self.cuts;
        say(&format!(
            "   {all} power cuts, {biting} of them lost something: {lost} of {unflushed} sectors not flushed"
        ));
        assert!(
            all < ENOUGH_CUTS || biting > 0,
            "no cut lost anything: that shows nothing"
        );
        let connections = self.connections;
        self.capture.verdict().assert_untouched(connections);
        say(&format!(
            "   {} on the wire: {connections} clients, one SYN each, no RST",
            green("✓")
        ));
    }
}

/// Shows the first difference only.
fn assert_trees_equal(expected: &Tree, found: &Tree) {
    for (path, content) in expected {
        match found.get(path) {
            None => panic!("{path} is not on the disk"),
            Some(other) => assert!(content == other, "{path} is not as it was written"),
        }
    }
    for path in found.keys() {
        assert!(
            expected.contains_key(path),
            "{path} is on the disk, but was not made by a client"
        );
    }
}

/// The guest's operating system, with its users.
fn initramfs(lab: &Lab, durability: &str) -> PathBuf {
    let (users, local) = (lab.path("users"), lab.path("outlast.toml"));
    let text = guest::configuration(&users.display().to_string(), durability);
    std::fs::write(&local, text).expect("a configuration");
    add_user(&local, USER, PASSWORD);
    let outlast = Path::new(env!("CARGO_BIN_EXE_outlast"));
    guest::initramfs(lab.dir(), outlast, USER, durability)
}

/// The number of bytes that have passed between this host and the bridge.
pub fn traffic() -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").expect("devices");
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix("br0:"));
    let counters: Vec<_> = line.expect("br0").split_whitespace().collect();
    let bytes = |column: usize| counters[column].parse::<u64>().expect("a number");
    bytes(0) + bytes(8)
}

/// Prints a progress line, visible with `--nocapture`.
pub fn say(line: &str) {
    println!("{line}");
}

fn green(text: &str) -> String {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        format!("\x1b[32m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
