//! Runs Outlast in a virtual machine, which is rebooted and loses its power; the client is outside of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use outlast::control::Status;

use crate::fault::{Fault, Server, ip, within};
use crate::guest::{self, CONFIG};
use crate::host;
use crate::local::{LOGIN, add_user};
use crate::machine::{Hardware, Machine};
use crate::place::Place;
use crate::screen::Screen;
use crate::support::Rng;

/// The bridge of the machine and the client.
pub const DEVICE: &str = "br0";
/// The server's address.
pub const SERVER: &str = guest::SERVER;
/// The default size of the file: an emulated machine is slow.
pub const MEGABYTES: u64 = 64;
/// The time within which the machine must serve.
const PATIENCE: Duration = Duration::from_secs(180);

/// The machine.
pub struct Vm {
    hardware: Hardware,
    machine: Option<Machine>,
    rng: Rng,
}

/// Returns the sentence that announces a fault, if it can occur.
pub fn announcement(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Kill => Some("kill -9 of the server in the machine"),
        Fault::Reboot => Some("outlast reboot --system: the machine reboots"),
        Fault::Upgrade => Some("outlast reboot --exec in the machine"),
        Fault::Power => Some("the machine's power is cut"),
        Fault::KillAll => None,
    }
}

impl Vm {
    /// Builds the machine and starts it.
    ///
    /// # Errors
    /// A requirement is missing, or it does not serve in time.
    pub fn start(place: &Place, outlast: &Path, screen: &Screen) -> anyhow::Result<Vm> {
        let mut needs = host::needs();
        needs.extend(host::programs(&["mkfs.ext4", "e2fsck"]));
        if let Some((_, what)) = needs.iter().find(|(is_there, _)| !is_there) {
            bail!("a virtual machine needs {what}; scripts/vm-demo installs it");
        }
        ip("link set lo up")?;
        ip("tuntap add tap0 mode tap")?;
        ip("link set tap0 up")?;
        guest::wire();
        let config = place.path("outlast.toml");
        let users = place.path("users").display().to_string();
        std::fs::write(&config, guest::configuration(&users, "power"))?;
        add_user(outlast, &config)?;
        let directory = place.path("machine");
        std::fs::create_dir(&directory)?;
        std::fs::copy(place.path("users"), directory.join("users"))?;
        let hardware = Hardware {
            role: "serve",
            kernel: host::bootable(&directory),
            initramfs: guest::initramfs(&directory, outlast, LOGIN.0, "power"),
            disk: Some(guest::disk(&directory, &place.source(), &[])),
            tap: "tap0",
            dir: directory,
        };
        let begun = Instant::now();
        let mut vm = Vm {
            machine: Some(hardware.start()),
            hardware,
            rng: Rng(u64::from(std::process::id()) ^ begun_at()),
        };
        vm.wait_for_life(0)?;
        screen.say(&format!(
            "The machine serves, {:.1} s after it was switched on: QEMU, emulated, Debian's kernel.",
            begun.elapsed().as_secs_f64()
        ));
        Ok(vm)
    }

    fn machine(&mut self) -> anyhow::Result<&mut Machine> {
        self.machine.as_mut().context("the machine is off")
    }

    /// Runs `outlast` in it.
    fn outlast(&mut self, words: &str) -> anyhow::Result<String> {
        let command = format!("/bin/outlast {words} --config {CONFIG}");
        let answer = self.machine()?.run(&command);
        answer.map_err(|text| anyhow!("outlast {words}, in the machine: {text}"))
    }

    /// Returns how often a server has begun to serve.
    fn begun(&self) -> usize {
        self.hardware
            .console()
            .matches("the gates are open")
            .count()
    }

    /// Waits until one has begun to serve after the first few.
    fn wait_for_life(&mut self, before: usize) -> anyhow::Result<()> {
        within(PATIENCE, "the machine's server", || {
            self.machine()?.assert_well();
            Ok((self.begun() > before).then_some(()))
        })
    }
}

/// The sectors that a power cut loses differ each time.
fn begun_at() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_nanos()))
}

impl Server for Vm {
    fn cause(&mut self, fault: Fault) -> anyhow::Result<Option<String>> {
        let before = self.begun();
        let note = match fault {
            Fault::Kill => return self.outlast("crash").map(|_| None),
            Fault::Upgrade => return self.outlast("reboot --exec /bin/outlast").map(|_| None),
            Fault::KillAll => bail!("a machine is killed by cutting its power"),
            Fault::Reboot => {
                let command = format!("/bin/outlast reboot --system --config {CONFIG}");
                self.machine()?.begin(&command);
                None
            }
            Fault::Power => {
                let machine = self.machine.take().context("the machine is off")?;
                machine.wait_for_a_write();
                let outcome = machine.cut(&mut self.rng);
                self.machine = Some(self.hardware.start());
                Some(format!(
                    "{} sectors were written and not flushed; the disk has lost {} of them",
                    outcome.unflushed, outcome.lost
                ))
            }
        };
        self.wait_for_life(before)?;
        Ok(note)
    }

    fn lives(&mut self) -> anyhow::Result<u64> {
        let text = self.outlast("status --json")?;
        let status: Status = serde_json::from_str(&text).context("outlast status --json")?;
        Ok(status.epoch)
    }

    fn stop(mut self: Box<Self>) -> anyhow::Result<()> {
        let machine = self.machine.take().context("the machine is off")?;
        machine.power_off();
        Ok(())
    }
}
