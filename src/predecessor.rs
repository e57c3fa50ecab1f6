//! Waits for what a server that has just been killed still holds: its processes end a moment after it.

use std::time::{Duration, Instant};

/// How long it is waited for.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between the first two attempts; it doubles, up to [`PACE_MAX`].
const PACE: Duration = Duration::from_millis(1);
const PACE_MAX: Duration = Duration::from_millis(50);

/// Repeats `attempt` as long as it fails by what another server holds.
///
/// # Errors
/// Those of `attempt`: at once any other, after two seconds that one.
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
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_tried_again_and_nothing_else() {
        let mut answers = [Err("held"), Err("held"), Ok(7)].into_iter();
        let is_held = |error: &&str| *error == "held";
        assert_eq!(outwait(is_held, || answers.next().unwrap()), Ok(7));
        let mut attempts = 0;
        let refused = outwait(is_held, || {
            attempts += 1;
            Err::<(), _>("wrong")
        });
        assert_eq!((refused, attempts), (Err("wrong"), 1));
    }
}
