//! Implements `outlast trace`: draws a TCP connection across an outage.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{ConfigArg, seconds};
use crate::trace::file::Writer;
use crate::trace::live::Device;
use crate::trace::{Connections, Picture, draw, file, picture, words};

/// The largest number of segments of a live capture: some 300 MB of memory.
const SEGMENTS_MAX: u64 = 8_000_000;
/// The interval at which a live capture checks whether it must end.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(super) struct Trace {
    /// Capture to read (pcap or pcapng).
    #[arg(value_name = "FILE", required_unless_present = "live")]
    file: Option<PathBuf>,
    /// Capture from a network device until Ctrl-C instead [default: the TAP device of the configuration].
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, conflicts_with = "file")]
    live: Option<Option<String>>,
    /// Seconds after which a live capture ends by itself.
    #[arg(long, value_name = "SECONDS", requires = "live", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Save the live capture, headers only, as a pcap file.
    #[arg(long, value_name = "FILE", requires = "live")]
    save: Option<PathBuf>,
    /// Picture to write, SVG or PNG by its name; may be given twice [default: both, beside FILE].
    #[arg(long, value_name = "PICTURE")]
    output: Vec<PathBuf>,
    /// Port of the server or of the client [default: the busiest connection's].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Show gaps of at least so many milliseconds [default: those that stand out].
    #[arg(long, value_name = "MILLISECONDS")]
    gap: Option<u64>,
    #[command(flatten)]
    at: ConfigArg,
}

/// Draws the picture, and prints a description.
pub(super) fn run(trace: &Trace) -> anyhow::Result<()> {
    let mut connections = Connections::default();
    match (&trace.file, &trace.live) {
        (Some(path), _) => file::read(path, |segment| connections.add(&segment))?,
        (None, Some(device)) => listen(trace, device.as_deref(), &mut connections)?,
        (None, None) => bail!("name a capture, or a device with --live"),
    }
    let chosen = connections.busiest(trace.port);
    let gaps = picture::gaps(&chosen, trace.gap.map(Duration::from_millis));
    let title = match chosen.first() {
        Some(one) => format!("{} to {}", one.client.ip(), one.server),
        None => String::new(),
    };
    let picture = Picture::of(&title, &chosen, &gaps).with_context(|| match trace.port {
        Some(port) => {
            format!("the capture has no TCP connection with port {port}; leave out --port")
        }
        None => "the capture has no TCP connection; capture the device that the server is behind"
            .to_owned(),
    })?;
    print!("{}", describe(&picture));
    for path in outputs(trace) {
        draw::save(&picture, &path)?;
        println!("picture: {}", path.display());
    }
    Ok(())
}

/// Describes the picture in words.
fn describe(picture: &Picture) -> String {
    let mut text = format!("{}: {}\n", picture.title, picture.subtitle);
    for gap in &picture.whole.gaps {
        let at = Duration::from_secs_f64(gap.seconds.0.max(0.0));
        text += &format!("gap of {} after {}\n", gap.label, words::duration(at));
    }
    for flag in picture.whole.flags.iter().filter(|flag| flag.is_bad) {
        let at = Duration::from_secs_f64(flag.seconds.max(0.0));
        text += &format!("{} after {}\n", flag.label, words::duration(at));
    }
    text
}

fn outputs(trace: &Trace) -> Vec<PathBuf> {
    if !trace.output.is_empty() {
        return trace.output.clone();
    }
    let capture = trace.file.as_ref().or(trace.save.as_ref());
    let beside = capture.map_or(Path::new("trace"), PathBuf::as_path);
    vec![beside.with_extension("svg"), beside.with_extension("png")]
}

/// Captures until Ctrl-C, or until the time has passed.
fn listen(
    trace: &Trace,
    device: Option<&str>,
    connections: &mut Connections,
) -> anyhow::Result<()> {
    let name = match device {
        Some(name) => name.to_owned(),
        None => trace.at.load()?.network.tap,
    };
    let mut device = Device::open(&name).map_err(|error| explain(&name, &error))?;
    let mut writer = match &trace.save {
        Some(path) => {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            Some(Writer::new(BufWriter::new(file))?)
        }
        None => None,
    };
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .context("signals cannot be handled")?;
    }
    eprintln!("Capturing on {name}. Ctrl-C ends it, and the picture is drawn.");
    let begun = Instant::now();
    let is_over = || trace.seconds.is_some_and(|limit| begun.elapsed() >= limit);
    let mut segments = 0;
    while !ended.load(Ordering::SeqCst) && !is_over() {
        device.wait(PAUSE).with_context(|| name.clone())?;
        while let Some(captured) = device.next_frame().with_context(|| name.clone())? {
            let Some(segment) = captured.segment() else {
                continue;
            };
            connections.add(&segment);
            if let Some(writer) = &mut writer {
                writer.add(captured.at, captured.frame, captured.wire_bytes)?;
            }
            segments += 1;
            if segments >= SEGMENTS_MAX {
                eprintln!("{SEGMENTS_MAX} segments are captured, which is the limit.");
                ended.store(true, Ordering::SeqCst);
                break;
            }
        }
    }
    if let Some(writer) = writer {
        writer.finish()?;
    }
    let missed = device.missed().with_context(|| name.clone())?;
    if missed > 0 {
        eprintln!("{missed} frames were not captured: the machine is too busy.");
    }
    Ok(())
}

fn explain(name: &str, error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("this account may not capture: run as root (or with CAP_NET_RAW)")
        }
        _ if error.raw_os_error() == Some(libc::ENODEV) => {
            anyhow::anyhow!("there is no network device {name:?}: `ip link` lists those there are")
        }
        _ => anyhow::anyhow!("{name}: {error}"),
    }
}
