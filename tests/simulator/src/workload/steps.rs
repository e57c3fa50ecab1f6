//! Generates effects of several steps for a redo that may fail in the middle of them: a new file is written, copied
//! within in chunks, given times, renamed and cut off.

use super::{Maker, Verb, disposition, home};
use crate::random::Random;
use crate::sickness;

/// Returns whether this seed has them: about four in ten of those in which the disk fails during a redo.
fn is_of(seed: u64) -> bool {
    let is_failing = seed.is_multiple_of(6) || (seed.is_multiple_of(3) && sickness::is_of(seed));
    is_failing && Random::new(seed, "steps").percent(40)
}

impl Maker {
    /// Adds operations on a new file of the last client, if the seed says so.
    pub(super) fn make_in_steps(&mut self, seed: u64) {
        if !is_of(seed) {
            return;
        }
        let client = self.clients - 1;
        let (path, to) = (
            format!("{}/made", home(client)),
            format!("{}/f1", home(client)),
        );
        let open = self.create(&path, disposition::OVERWRITE_IF, 0);
        let handle = self.last_handle;
        let write = Verb::Write {
            handle,
            offset: Some(0),
            length: 700,
            fill: self.random.draw() as u8,
        };
        let chunk = |from: u64, to: u64| (from, to, 100);
        let copy = Verb::Copy {
            source: handle,
            target: handle,
            chunks: vec![chunk(0, 700), chunk(100, 50), chunk(650, 0)],
        };
        let time = Verb::SetTime {
            handle,
            time: 130_000_000_000_000_000 + self.random.below(1 << 40),
        };
        let replace = true;
        let rename = Verb::Rename {
            handle,
            to,
            replace,
        };
        let cut = Verb::SetEnd {
            handle,
            length: 500 + self.random.below(300),
        };
        let key = Verb::ResumeKey { handle };
        for verb in [open, write, key, copy, time, rename, cut] {
            self.push(client, vec![verb], false);
        }
    }
}
