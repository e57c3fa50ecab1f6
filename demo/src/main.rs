//! The demonstration: Debian's smbclient transfers files while its server dies, first Samba, then Outlast.
//!
//! `scripts/demo` and `scripts/vm-demo` build this program and start it in network, mount and process namespaces of its
//! own, which end with it. The verdict, also how long the client saw nothing, is read from the packets.

mod act;
mod blow;
mod client;
mod files;
mod keys;
mod local;
mod place;
mod samba;
mod screen;
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
    /// Size of the file.
    #[arg(value_name = "MEGABYTES", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    megabytes: Option<u64>,
    /// Record what the terminal shows: asciinema play FILE shows it again.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Directory for the pictures.
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    output: PathBuf,
    /// Save Outlast's packets, headers only; `outlast trace FILE` and Wireshark read them.
    #[arg(long, value_name = "FILE.pcap")]
    capture: Option<PathBuf>,
    /// Leave Samba out.
    #[arg(long)]
    no_samba: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut screen = match Screen::new(options.record.as_deref()) {
        Ok(screen) => screen,
        Err(error) => {
            eprintln!("demo: {error:#}");
            return ExitCode::from(2);
        }
    };
    match run(&options, &mut screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.bad(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Plays all of it; says whether everything was as it should be.
fn run(options: &Options, screen: &mut Screen) -> anyhow::Result<bool> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .context("signals cannot be handled")?;
    }
    std::fs::create_dir_all(&options.output)
        .with_context(|| options.output.display().to_string())?;
    let place = Place::new(options.megabytes.unwrap_or(place::MEGABYTES))?;
    let mut is_well = true;
    if !options.no_samba {
        samba::play(&place, &options.output, screen, &ended)?;
    }
    screen.title("Outlast");
    let outlast = std::env::var_os("OUTLAST").context("start this with scripts/demo")?;
    let server = local::Local::start(&place, Path::new(&outlast))?;
    let act = act::Act {
        server: Box::new(server),
        device: local::DEVICE,
        address: local::SERVER,
        login: local::LOGIN,
        place: &place,
        script: &act::SCRIPT,
        is_local: true,
        picture: options.output.join("outlast.svg"),
        capture: options.capture.as_deref(),
        ended: &ended,
    };
    is_well &= act.play(screen)?;
    Ok(is_well)
}
