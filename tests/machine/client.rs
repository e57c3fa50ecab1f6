//! Sets the scene: a machine whose kernel mounts the share of a server on this host, and the faults of the server.

use std::path::PathBuf;

use crate::host;
use crate::machine::{Hardware, Machine};
use crate::scene::say;
use crate::support::capture::Capture;
use crate::support::files;
use crate::support::lab::{Lab, SERVER, run};
use crate::support::server::{PASSWORD, Server, Setup, USER};
use crate::support::{PATIENCE, Rng, wait_for};

/// Modules besides those of any guest: cifs, and what it requests from `modprobe`.
const MODULES: [&str; 9] = [
    "cifs",
    "nls_utf8",
    "cmac",
    "ecb",
    "sha512_generic",
    "ctr",
    "ccm",
    "gcm",
    "ghash_generic",
];
const MOUNT_POINTS: [&str; 2] = ["/a", "/b"];
const COPY_BYTES: u64 = 12 << 20;

/// A fault of the server.
#[derive(Clone, Copy)]
pub enum Fault {
    /// kill -9 of the worker.
    Kill,
    /// `outlast reboot`.
    Reboot,
}

/// Faults while a client works, at equal distances of its progress.
pub type Faults<'a> = &'a [Fault];

pub struct Scene {
    server: Server,
    machine: Machine,
    capture: Capture,
    /// The number of connections so far.
    connections: usize,
    faults: usize,
}

impl Scene {
    /// Starts the server and switches the machine on.
    pub fn set(lab: &Lab) -> Scene {
        wire();
        let server = Server::start(lab, Setup::default());
        let hardware = Hardware {
            role: "client 10.77.0.3 255.255.255.0",
            kernel: host::bootable(lab.dir()),
            initramfs: initramfs(lab),
            disk: None,
            tap: "tap1",
            dir: lab.dir().to_owned(),
        };
        let machine = hardware.start();
        let mut scene = Scene {
            server,
            machine,
            capture: Capture::start(),
            connections: 0,
            faults: 0,
        };
        let version = scene.does("show /proc/version");
        let version = version.split(" (").next().unwrap_or_default().to_owned();
        say(&format!("   {version}, its own client"));
        scene
    }

    /// Mounts the share twice, each over its own connection.
    pub fn mount(&mut self, version: &str, more: &str) {
        say(&format!("   mount -o vers={version}{more}"));
        for directory in MOUNT_POINTS {
            self.does(&format!(
                "mount //{SERVER}/pub {directory} \
                 ip={SERVER},user={USER},pass={PASSWORD},vers={version},nosharesock{more}"
            ));
            self.connections += 1;
        }
    }

    /// On each mount a process increments the number in the same file, this many times.
    pub fn count(&mut self, steps: u64, faults: Faults) {
        let counter = self.server.share().join("counter");
        // Another file than the last time: between its opens this client keeps a file's pages as long as its size and
        // last write time are the same, and that time may be as coarse as the kernel's tick.
        let _ = std::fs::remove_file(&counter);
        std::fs::write(&counter, "0").expect("a counter");
        let all = 2 * steps;
        let number = || {
            let text = std::fs::read_to_string(&counter).expect("the counter");
            text.parse::<u64>().expect("a number")
        };
        self.with_faults(
            &format!("count {steps} /a/counter /b/counter"),
            all,
            number,
            faults,
        );
        assert_eq!(number(), all, "updates were lost");
    }

    /// Reads a file on one mount and writes it on the other.
    pub fn copy(&mut self, faults: Faults) {
        let (original, copy) = ["original", "copy"]
            .map(|name| self.server.share().join(name))
            .into();
        files::random_file(&original, COPY_BYTES, &mut Rng::named("copy"));
        let length = || std::fs::metadata(&copy).map_or(0, |copy| copy.len());
        self.with_faults("copy /a/original /b/copy", COPY_BYTES, length, faults);
        files::assert_same(&original, &copy);
        std::fs::remove_file(&copy).expect("the copy");
    }

    /// A CHANGE_NOTIFY waits while the worker is killed.
    pub fn notice_a_change(&mut self) {
        let opens = |server: &Server| {
            let status = server.status();
            let opens = status.connections.iter().map(|one| one.smb.opens);
            opens.sum::<u64>()
        };
        let before = opens(&self.server);
        self.machine.begin("/init wait-for-change /a");
        wait_for("the directory's open", PATIENCE, || {
            (opens(&self.server) > before || !self.machine.is_busy()).then_some(())
        });
        self.strike(Fault::Kill);
        let mut changes = 0;
        wait_for("the change to be noticed", PATIENCE, || {
            changes += 1;
            let name = self.server.share().join(format!("change{changes}"));
            std::fs::write(name, "").expect("a file");
            (!self.machine.is_busy()).then_some(())
        });
        self.machine.finish().expect("a change");
        say("   CHANGE_NOTIFY");
    }

    /// The number of leases that the mounts have returned: of the commands that the kernel has sent on each
    /// connection, those with this number.
    pub fn leases_returned(&mut self) -> u64 {
        const OPLOCK_BREAK: &str = "18";
        let stats = self.does("show /proc/fs/cifs/Stats");
        let sent = stats.lines().filter_map(|line| {
            let mut columns = line.split_whitespace();
            (columns.next()? == OPLOCK_BREAK).then(|| columns.next()?.parse::<u64>().ok())?
        });
        sent.sum()
    }

    /// Unmounts both, and checks that neither was set up again.
    pub fn unmount(&mut self) {
        let stats = self.does("show /proc/fs/cifs/Stats");
        assert!(
            stats.contains("\n0 session 0 share reconnects\n"),
            "{stats}"
        );
        self.does(&format!("unmount {}", MOUNT_POINTS.join(" ")));
    }

    /// Makes the machine do something until `progress` is `all`, with faults meanwhile.
    fn with_faults(&mut self, work: &str, all: u64, progress: impl Fn() -> u64, faults: Faults) {
        self.machine.begin(&format!("/init {work}"));
        let before = self.faults;
        for (fault, number) in faults.iter().zip(1..) {
            let target = all * number / (faults.len() as u64 + 1);
            wait_for(work, 4 * PATIENCE, || {
                (progress() >= target || !self.machine.is_busy()).then_some(())
            });
            if self.machine.is_busy() {
                self.strike(*fault);
            }
        }
        let outcome = self.machine.finish();
        outcome.unwrap_or_else(|error| panic!("{error}\nthe kernel:\n{}", self.kernel_log()));
        let fell = self.faults - before;
        assert!(faults.is_empty() || fell > 0, "{work}: over too soon");
        say(&format!("   {work}: {fell} faults"));
    }

    fn strike(&mut self, fault: Fault) {
        let worker = self.server.status().worker_pid;
        match fault {
            Fault::Kill => self.server.kill_worker(worker),
            Fault::Reboot => self.server.reboot(),
        }
        self.server.successor_of(worker);
        self.faults += 1;
    }

    /// Makes the machine run a command that must succeed; returns its output.
    fn does(&mut self, work: &str) -> String {
        let outcome = self.machine.run(&format!("/init {work}"));
        outcome.unwrap_or_else(|error| panic!("{error}\nthe kernel:\n{}", self.kernel_log()))
    }

    fn kernel_log(&mut self) -> String {
        self.machine.run("/init kernel-log").unwrap_or_default()
    }

    /// Switches the machine off and checks its kernel's log and the packets.
    pub fn judge(mut self) {
        let log = self.kernel_log();
        let complaint = log.lines().find(|line| line.contains("CIFS: VFS:"));
        assert!(complaint.is_none(), "{complaint:?}");
        self.machine.power_off();
        self.server.assert_sound();
        self.capture.verdict().assert_untouched(self.connections);
        say(&format!(
            "   {} mounts, {} faults: one SYN each, no RST, no word of it in the kernel's log",
            self.connections, self.faults
        ));
    }
}

fn initramfs(lab: &Lab) -> PathBuf {
    let path = lab.path("initramfs");
    std::fs::write(&path, host::guest(lab.dir(), &MODULES).finish()).expect("an initramfs");
    path
}

/// Connects the server's TAP and the machine's by a bridge.
fn wire() {
    for command in [
        "ip addr flush dev tap0",
        "ip tuntap add tap1 mode tap",
        "ip link add br0 type bridge",
        "ip link set tap0 master br0",
        "ip link set tap1 master br0",
        "ip link set tap1 up",
        "ip addr add 10.77.0.2/24 dev br0",
        "ip link set br0 up",
    ] {
        run(command);
    }
}
