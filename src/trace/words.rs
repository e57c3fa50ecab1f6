//! Formats lengths of time and amounts of bytes for reading.

use std::time::Duration;

/// Formats a length of time, with two or three digits: `4.8 ms`, `241 ms`, `3.1 s`.
#[must_use]
pub fn duration(length: Duration) -> String {
    let ms = length.as_secs_f64() * 1e3;
    match ms {
        ..9.95 => format!("{ms:.1} ms"),
        ..999.5 => format!("{ms:.0} ms"),
        ..99_950.0 => format!("{:.1} s", ms / 1e3),
        _ => format!("{:.0} s", ms / 1e3),
    }
}

/// Formats an amount of bytes, decimal, with a digit after the point if it is significant: `1.5 GB`, `300 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1e3;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && amount < 9.95 && (amount * 10.0).round() % 10.0 != 0.0);
    format!("{amount:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests;
