//! Runs a virtual machine: QEMU's microvm, emulated in software. It needs neither KVM nor an installed system.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::disk_log;
use crate::support::{PATIENCE, Rng, wait_for};

/// The parts of a machine.
#[derive(Clone)]
pub struct Hardware {
    /// The role of its first process, described there.
    pub role: &'static str,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// A disk image, which holds the medium's content while the machine is off.
    pub disk: Option<PathBuf>,
    /// The device to which its network card is connected, in this network namespace.
    pub tap: &'static str,
    /// Directory for its sockets, its console's text, and its disk's log.
    pub dir: PathBuf,
}

/// A running machine.
pub struct Machine {
    hardware: Hardware,
    qemu: Child,
    /// The connection of the last order: kept open until the next one, since QEMU forgets unread data when the other
    /// end is closed.
    said: Option<UnixStream>,
}

impl Hardware {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The console's text since the first start.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("console")).unwrap_or_default())
            .into_owned()
    }

    /// Switches it on.
    pub fn start(&self) -> Machine {
        let path = |name| self.path(name).display().to_string();
        for socket in ["port", "monitor"] {
            let _ = std::fs::remove_file(self.path(socket));
        }
        // The time stamp counter's speed is given, since a microvm cannot measure it. Output on the serial line is
        // slow.
        let kernel_options = format!(
            "console=ttyS0 quiet panic=-1 reboot=t mitigations=off cryptomgr.notests ipv6.disable=1 tsc_early_khz={} \
             -- {}",
            tsc_khz(),
            self.role
        );
        // dies with the test, however that ends
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args([
                "-M",
                "microvm,pic=on,pit=on,rtc=on,isa-serial=on,acpi=on,accel=tcg",
            ])
            // "Fast strings" are slowest where they are emulated byte by byte.
            .args(["-cpu", "max,erms=off,fsrm=off", "-smp", "1"])
            .args(["-m", "768"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &kernel_options])
            .args([
                "-chardev",
                &format!("file,id=console,append=on,path={}", path("console")),
            ])
            .args(["-serial", "chardev:console"])
            .args([
                "-netdev",
                &format!(
                    "tap,id=net,ifname={},script=no,downscript=no,vnet_hdr=on",
                    self.tap
                ),
            ])
            .args(["-device", "virtio-net-device,netdev=net"])
            .args(["-device", "virtio-serial-device"])
            .args([
                "-chardev",
                &format!("socket,id=port,server=on,wait=off,path={}", path("port")),
            ])
            .args(["-device", "virtserialport,chardev=port"])
            .args([
                "-chardev",
                &format!(
                    "socket,id=monitor,server=on,wait=off,path={}",
                    path("monitor")
                ),
            ])
            .args(["-mon", "chardev=monitor"])
            .stdin(Stdio::null());
        if let Some(disk) = &self.disk {
            self.insert(disk, &mut command);
        }
        Machine {
            hardware: self.clone(),
            qemu: command.spawn().expect("qemu"),
            said: None,
        }
    }

    /// Connects the disk.
    fn insert(&self, disk: &Path, qemu: &mut Command) {
        // QEMU writes to a copy. Only the log shows what happens to the disk.
        let copied = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([disk, &self.path("running")])
            .status();
        assert!(copied.expect("cp").success(), "a copy of the disk");
        std::fs::File::create(self.path("log")).expect("an empty log");
        let path = |name| self.path(name).display().to_string();
        qemu
            // Writes take their time, as on a disk: at some moments some of them are done and not flushed.
            .args([
                "-object",
                "throttle-group,id=disk-speed,x-iops-write=250,x-bps-write=33554432",
            ])
            // One thread does all I/O, in order: after SIGKILL, the log ends where it was writing.
            .args(["-object", "main-loop,id=main-loop,thread-pool-max=1"])
            .args([
                "-blockdev",
                &format!("driver=file,node-name=file,filename={}", path("running")),
            ])
            .args([
                "-blockdev",
                &format!("driver=file,node-name=log,filename={}", path("log")),
            ])
            .args([
                "-blockdev",
                "driver=blklogwrites,node-name=logged,file=file,log=log,log-sector-size=512",
            ])
            .args([
                "-blockdev",
                "driver=throttle,node-name=disk,throttle-group=disk-speed,file=logged",
            ])
            .args([
                "-device",
                "virtio-blk-device,drive=disk,discard=off,write-zeroes=off",
            ]);
    }

    /// Changes the disk to the medium's content now that the machine is off.
    fn settle(
        &self,
        disk: &Path,
        fate: impl FnOnce(&[disk_log::Entry]) -> disk_log::Outcome,
    ) -> disk_log::Outcome {
        let mut log = std::fs::File::open(self.path("log")).expect("the log");
        let entries = disk_log::entries(&mut log).expect("the log of the disk");
        let outcome = fate(&entries);
        let mut disk = std::fs::File::options()
            .write(true)
            .open(disk)
            .expect("the disk");
        disk_log::apply(&outcome, &mut log, &mut disk).expect("the disk is written");
        outcome
    }
}

impl Machine {
    /// Fails if the machine has stopped by itself, or its first process reports an error.
    pub fn assert_well(&mut self) {
        let ended = self.qemu.try_wait().expect("qemu");
        assert!(ended.is_none(), "the machine is off: {ended:?}");
        let console = self.hardware.console();
        let complaint = console.lines().find(|line| line.starts_with("init: "));
        assert!(complaint.is_none(), "{complaint:?}");
    }

    fn connect(&mut self, socket: &str) -> UnixStream {
        self.said = None;
        let path = self.hardware.path(socket);
        wait_for("QEMU's socket", PATIENCE, || {
            self.assert_well();
            UnixStream::connect(&path).ok()
        })
    }

    /// Sends the first process an order.
    fn order(&mut self, line: &str) -> UnixStream {
        let mut port = self.connect("port");
        port.set_read_timeout(Some(4 * PATIENCE))
            .expect("a timeout");
        writeln!(port, "{line}").expect("a line");
        port
    }

    /// Runs a program in it; returns its output, as an error if it fails.
    pub fn run(&mut self, command: &str) -> Result<String, String> {
        self.ask(&format!("run {command}"))
    }

    /// Returns the states of the server's threads.
    pub fn threads(&mut self) -> Result<String, String> {
        self.ask("threads")
    }

    /// Sends an order and returns the answer.
    fn ask(&mut self, command: &str) -> Result<String, String> {
        let answer = self.order(command);
        self.read(command, answer)
    }

    /// Starts a program without waiting for it.
    pub fn begin(&mut self, command: &str) {
        self.said = Some(self.order(&format!("run {command}")));
    }

    /// Returns whether the program that was started last is still running.
    pub fn is_busy(&self) -> bool {
        let answer = self.said.as_ref().expect("something was begun");
        let now = Timespec::default();
        let heard = poll(&mut [PollFd::new(answer, PollFlags::IN)], Some(&now));
        heard.expect("poll") == 0
    }

    /// Returns the output of the program that was started last, as an error if it failed.
    pub fn finish(&mut self) -> Result<String, String> {
        let answer = self.said.take().expect("something was begun");
        self.read("what was begun", answer)
    }

    fn read(&self, command: &str, answer: UnixStream) -> Result<String, String> {
        let mut text = String::new();
        for line in BufReader::new(answer).lines() {
            let line = line.unwrap_or_else(|error| {
                panic!(
                    "{command}: {error}; the machine's console:\n{}",
                    self.hardware.console()
                )
            });
            match line.strip_prefix("= ") {
                Some("0") => return Ok(text),
                Some(code) => return Err(format!("{text}exit code {code}")),
                None => text += &(line + "\n"),
            }
        }
        Err(format!("{text}no end"))
    }

    /// Loads a kernel for the next boot, from these files of its disk.
    pub fn load_kernel(&mut self, [kernel, initramfs]: [&str; 2]) {
        let loaded = self.ask(&format!("load /mnt/{kernel} /mnt/{initramfs}"));
        assert_eq!(loaded, Ok(String::new()), "a kernel is loaded");
    }

    /// The kernel crashes (and restarts: `panic=-1`).
    pub fn crash(&mut self) {
        self.said = Some(self.order("crash"));
    }

    /// The reset button.
    pub fn reset(&mut self) {
        let mut monitor = self.connect("monitor");
        writeln!(monitor, "system_reset").expect("a line");
        self.said = Some(monitor);
    }

    /// Switches it off in order.
    pub fn power_off(mut self) {
        self.said = Some(self.order("poweroff"));
        let status = wait_for("the machine to go off", PATIENCE, || {
            self.qemu.try_wait().expect("qemu")
        });
        assert!(status.success(), "qemu: {status}");
        if let Some(disk) = &self.hardware.disk {
            self.hardware.settle(disk, disk_log::everything);
        }
    }

    /// Waits briefly for a write to the disk, so that some of it has not been flushed.
    pub fn wait_for_a_write(&self) {
        let log = self.hardware.path("log");
        let length = || std::fs::metadata(&log).expect("the log").len();
        let (begun, mut before) = (Instant::now(), length());
        while begun.elapsed() < Duration::from_secs(2) {
            let now = length();
            // a flush is one sector of the log, a write two or more
            if now >= before + 2 * disk_log::SECTOR {
                return;
            }
            before = now;
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Cuts the power. The medium holds what was flushed, and some of the rest.
    pub fn cut(mut self, rng: &mut Rng) -> disk_log::Outcome {
        self.qemu.kill().expect("SIGKILL");
        self.qemu.wait().expect("qemu");
        let disk = self.hardware.disk.as_ref().expect("a disk");
        self.hardware
            .settle(disk, |entries| disk_log::power_cut(entries, rng))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            let console = self.hardware.console();
            let lines: Vec<_> = console.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the machine's last words:\n{}", last.join("\n"));
        }
    }
}

/// The speed of this machine's time stamp counter, which the guest sees.
fn tsc_khz() -> u64 {
    let begin = moment();
    std::thread::sleep(Duration::from_millis(50));
    let end = moment();
    (end.1 - begin.1) * 1000 / (end.0 - begin.0).as_micros() as u64
}

/// The time and the counter at the same moment: the least disturbed of many attempts.
fn moment() -> (Instant, u64) {
    // SAFETY: every x86_64 has the instruction, and Linux does not forbid it.
    let counter = || unsafe { std::arch::x86_64::_rdtsc() };
    let attempts = (0..50).map(|_| {
        let (before, time, after) = (counter(), Instant::now(), counter());
        (after.saturating_sub(before), (time, after))
    });
    let best = attempts.min_by_key(|(width, _)| *width);
    best.expect("attempts").1
}
