//! Runs the demonstration: Debian's smbclient transfers files while its server is killed, first Samba, then Outlast.
//!
//! `scripts/demo` and `scripts/vm-demo` build this program and start it in network, mount and process namespaces of its
//! own, which end with it. The verdict, and the time for which the client received nothing, come from the packets.

mod act;
mod client;
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)] // the tests' virtual machine can do more
#[path = "../../machine/disk_log.rs"]
mod disk_log;
mod fault;
mod files;
#[cfg(target_arch = "x86_64")]
#[path = "../../machine/guest.rs"]
mod guest;
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
#[path = "../../machine/host.rs"]
mod host;
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
#[path = "../../machine/initramfs.rs"]
mod initramfs;
mod keys;
mod local;
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
#[path = "../../machine/machine.rs"]
mod machine;
mod place;
mod samba;
mod screen;
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
mod support;
#[cfg(target_arch = "x86_64")]
mod vm;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use place::Place;
use screen::Screen;

/// Debian's smbclient transfers a file again and again while its server is killed, restarted and upgraded.
#[derive(Parser)]
#[command(name = "demo")]
struct Options {
    /// Size of the file [default: 256, of the machine 64].
    #[arg(value_name = "MEGABYTES", value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    megabytes: Option<u64>,
    /// Record what the terminal shows: asciinema play FILE shows it again.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Directory for the pictures.
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = ".",
        overrides_with = "output"
    )]
    output: PathBuf,
    /// Save Outlast's packets, headers only; `outlast trace FILE` and Wireshark read them.
    #[arg(long, value_name = "FILE.pcap")]
    capture: Option<PathBuf>,
    /// Download only, so that the picture has one line.
    #[arg(long)]
    download: bool,
    /// Leave Samba out.
    #[arg(long)]
    no_samba: bool,
    /// Show a whole virtual machine.
    #[arg(long)]
    machine: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let screen = match Screen::new(options.record.as_deref()) {
        Ok(screen) => screen,
        Err(error) => {
            eprintln!("demo: {error:#}");
            return ExitCode::from(2);
        }
    };
    match run(&options, &screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.bad(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs all of it; returns whether everything was correct.
fn run(options: &Options, screen: &Screen) -> anyhow::Result<bool> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .context("signals cannot be handled")?;
    }
    std::fs::create_dir_all(&options.output)
        .with_context(|| options.output.display().to_string())?;
    let outlast = std::env::var_os("OUTLAST").context("start this with scripts/demo")?;
    let stage = Stage {
        options,
        outlast: Path::new(&outlast),
        screen,
        ended: &ended,
    };
    match options.machine {
        true => stage.machine(),
        false => stage.processes(),
    }
}

/// The resources of both demonstrations.
struct Stage<'a> {
    options: &'a Options,
    outlast: &'a Path,
    screen: &'a Screen,
    ended: &'a AtomicBool,
}

impl Stage<'_> {
    /// Runs Samba, then Outlast, as processes.
    fn processes(&self) -> anyhow::Result<bool> {
        let (options, screen) = (self.options, self.screen);
        let place = Place::new(options.megabytes.unwrap_or(place::MEGABYTES))?;
        if !options.no_samba {
            samba::play(&place, &options.output, screen, self.ended)?;
        }
        screen.title("Outlast");
        let server = local::Local::start(&place, self.outlast)?;
        let act = act::Act {
            server: Box::new(server),
            announcement: local::announcement,
            device: local::DEVICE,
            address: local::SERVER,
            place: &place,
            script: &self.script(&act::OF_PROCESSES),
            is_local: true,
            picture: options.output.join("outlast.svg"),
            capture: options.capture.as_deref(),
            ended: self.ended,
        };
        act.play(screen)
    }

    fn script(&self, script: &act::Script) -> Vec<(act::Transfer, fault::Fault)> {
        let transfer = |given| match self.options.download {
            true => act::Transfer::Get,
            false => given,
        };
        script
            .iter()
            .map(|(given, fault)| (transfer(*given), *fault))
            .collect()
    }

    /// Runs Outlast in a virtual machine.
    #[cfg(target_arch = "x86_64")]
    fn machine(&self) -> anyhow::Result<bool> {
        let (options, screen) = (self.options, self.screen);
        screen.title("Outlast in a virtual machine");
        let place = Place::new(options.megabytes.unwrap_or(vm::MEGABYTES))?;
        let server = vm::Vm::start(&place, self.outlast, screen)?;
        let act = act::Act {
            server: Box::new(server),
            announcement: vm::announcement,
            device: vm::DEVICE,
            address: vm::SERVER,
            place: &place,
            script: &self.script(&act::OF_MACHINE),
            is_local: false,
            picture: options.output.join("machine.svg"),
            capture: options.capture.as_deref(),
            ended: self.ended,
        };
        act.play(screen)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn machine(&self) -> anyhow::Result<bool> {
        anyhow::bail!("the virtual machine needs an x86_64 processor")
    }
}
