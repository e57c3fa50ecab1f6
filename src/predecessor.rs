//! Waits for what a server that has just been killed still holds: its processes end a moment later.

use std::time::{Duration, Instant};

/// The longest wait.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The time between the first two attempts; it doubles, up to [`PACE_MAX`].
const PACE: Duration = Duration::from_millis(1);
const PACE_MAX: Duration = Duration::from_millis(50);

/// Repeats `attempt` as long as it fails because another server holds something.
///
/// # Errors
/// Those of `attempt`: any other at once, that one after two seconds.
pub fn outwait<T, E>(
    is_held: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let begun = Instant::now();
    let mut pace = PACE;
    loop {
        match attempt() {
            Err(error) if is_held(&error) && begun.elapsed() < TIMEOUT => {
                std::thread::sleep(pace);
                pace = (pace * 2).min(PACE_MAX);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
