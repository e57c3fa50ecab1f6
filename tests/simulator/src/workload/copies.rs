//! Generates server-side copies of several chunks (FSCTL_SRV_COPYCHUNK, MS-SMB2 3.3.5.15.6).

use super::{Handle, Maker, Verb, disposition, home};

/// The length of a file that is copied.
const LENGTH: u32 = 180;

impl Maker {
    /// Adds a copy of a file over a part of itself.
    pub(super) fn copy_within(&mut self, client: usize) {
        let path = self.name(client);
        let open = self.create(&path, disposition::OVERWRITE_IF, 0);
        let handle = self.last_handle;
        self.push(client, vec![open], false);
        let (length, fill) = (100 + self.random.below(300), self.random.draw() as u8);
        let write = Verb::Write {
            handle,
            offset: Some(0),
            length: length as usize,
            fill,
        };
        self.push(client, vec![write], false);
        self.push(client, vec![Verb::ResumeKey { handle }], false);
        let from = self.random.below(30);
        let chunk = |from, to| (from, to, 60);
        let to = self.random.below(80);
        let chunks = vec![chunk(from, to), chunk(to / 2, from + 10)];
        let copy = Verb::Copy {
            source: handle,
            target: handle,
            chunks,
        };
        self.push(client, vec![copy], false);
    }

    /// Adds a copy of a file to another one in chunks, which may fail midway, in some scenarios in which requests fail.
    pub(super) fn copy_in_chunks(&mut self, client: usize) {
        let failing = self.failing.as_ref();
        if failing.is_none_or(|random| !random.clone().percent(40)) {
            return;
        }
        let [source, target] = ["from", "to"].map(|name| self.make_file(client, name));
        let write = Verb::Write {
            handle: source,
            offset: Some(0),
            length: LENGTH as usize,
            fill: source as u8,
        };
        let part = LENGTH / 3;
        let chunk = |from: u32, to: u32| (u64::from(from), u64::from(to), part);
        let copy = Verb::Copy {
            source,
            target,
            chunks: vec![chunk(0, 10), chunk(part, 0), chunk(2 * part, part)],
        };
        let key = Verb::ResumeKey { handle: source };
        let closes = [source, target].map(|handle| Verb::Close { handle });
        for verb in [write, key, copy].into_iter().chain(closes) {
            self.push(client, vec![verb], false);
        }
    }

    fn make_file(&mut self, client: usize, name: &str) -> Handle {
        let path = format!("{}/{name}", home(client));
        let open = self.create(&path, disposition::OPEN_IF, 0);
        let handle = self.last_handle;
        self.push(client, vec![open], false);
        handle
    }
}
