//! Writes the log on standard error: lines of text, or one JSON object per line.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::fmt::Formatter;
use log::Record;
use serde_json::json;

/// Names the format that counts instead of the configuration's. The supervisor gives it to its workers.
pub const VARIABLE: &str = "OUTLAST_LOG_FORMAT";

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: time, level, module, message.
    #[default]
    Text,
    /// An object with `time`, `level`, `target`, `pid` and `message`.
    Json,
}

/// The format now: lines are written before the configuration is read.
static FORMAT: AtomicU8 = AtomicU8::new(Format::Text as u8);
/// The command line or the environment names it, so the configuration does not count.
static IS_FORCED: AtomicBool = AtomicBool::new(false);

/// Begins to write the log. Of levels beneath `level` nothing is written, if the environment does not say otherwise.
pub fn init(level: &str) {
    if let Some(format) = named() {
        force(format);
    }
    let environment = env_logger::Env::default().default_filter_or(level);
    let mut text = env_logger::fmt::ConfigurableFormat::default();
    text.timestamp(Some(env_logger::TimestampPrecision::Millis));
    env_logger::Builder::from_env(environment)
        .format(move |out, record| match format() {
            Format::Text => text.format(out, record),
            Format::Json => json_line(out, record),
        })
        .init();
}

/// The format that the environment names.
fn named() -> Option<Format> {
    let name = std::env::var(VARIABLE).ok()?;
    <Format as clap::ValueEnum>::from_str(&name, true).ok()
}

/// The command line says this: it counts more than the configuration.
pub fn force(format: Format) {
    IS_FORCED.store(true, Ordering::Relaxed);
    put(format);
}

/// The configuration says this, and is followed if neither the command line nor the environment says otherwise.
pub fn configure(format: Format) {
    if !IS_FORCED.load(Ordering::Relaxed) {
        put(format);
    }
}

/// What the environment of a worker is to say, if anything.
#[must_use]
pub fn forced() -> Option<&'static str> {
    let name = match format() {
        Format::Text => "text",
        Format::Json => "json",
    };
    IS_FORCED.load(Ordering::Relaxed).then_some(name)
}

/// The format of lines that are written now.
#[must_use]
pub fn format() -> Format {
    match FORMAT.load(Ordering::Relaxed) {
        n if n == Format::Json as u8 => Format::Json,
        _ => Format::Text,
    }
}

fn put(format: Format) {
    FORMAT.store(format as u8, Ordering::Relaxed);
}

fn json_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = now.unwrap_or_default();
    writeln!(out, "{}", object(time, std::process::id(), record))
}

/// The line's object. `time`: since 1970.
fn object(time: Duration, pid: u32, record: &Record<'_>) -> serde_json::Value {
    json!({
        "time": time.as_secs_f64(),
        "level": record.level().as_str().to_lowercase(),
        "target": record.target(),
        "pid": pid,
        "message": record.args().to_string(),
    })
}

#[cfg(test)]
mod tests;
