//! Generates workloads in which clients reach every limit, and another client connects when they have left.

use super::{AT_ONCE, DIRECTORY, EXCLUSIVE, Handle, Maker, Op, UNLOCK, Verb, disposition, home};
use crate::limits::Limits;
use crate::rules::Rules;

/// Generates a workload in which clients exceed limits `length` times.
#[must_use]
pub fn generate(seed: u64, clients: usize, length: usize, limits: Limits) -> Vec<Op> {
    let mut maker = Maker::new(
        seed,
        clients,
        Rules {
            limits: Some(limits),
            ..Rules::default()
        },
    );
    let early: Vec<usize> = (0..clients).filter(|it| *it != limits.newcomer).collect();
    for client in &early {
        maker.make_home(*client);
    }
    for _ in 0..length {
        let client = *maker.random.pick(&early);
        maker.reach_a_limit(client, limits);
    }
    for client in early {
        maker.open_all(client, limits);
    }
    maker.make_home(limits.newcomer);
    maker.open_all(limits.newcomer, limits);
    maker.lock_all(limits.newcomer, limits);
    for _ in 0..length / 3 {
        maker.reach_a_limit(limits.newcomer, limits);
    }
    maker.ops
}

impl Maker {
    fn reach_a_limit(&mut self, client: usize, limits: Limits) {
        match self.random.below(6) {
            0 => self.open_all(client, limits),
            1 => self.lock_all(client, limits),
            2 => self.wait_for_all(client, limits),
            3 => self.watch_all(client, limits),
            4 => self.connect_all(client, limits),
            // The second session finds free what the first one had.
            _ => (0..2).for_each(|_| self.push(client, vec![Verb::SecondSession], true)),
        }
    }

    fn close_some(&mut self, client: usize, percent: u64) {
        for handle in self.judge.all_handles_of(client) {
            if self.random.percent(percent) {
                self.push(client, vec![Verb::Close { handle }], true);
            }
        }
    }

    fn open_own(&mut self, client: usize, name: &str, options: u32) -> Handle {
        let path = format!("{}/{name}", home(client));
        let open = self.create(&path, disposition::OPEN_IF, options);
        self.push(client, vec![open], true);
        self.last_handle
    }

    /// Opens one file more than the limit, and another one after some have been closed.
    fn open_all(&mut self, client: usize, limits: Limits) {
        for file in 0..=limits.opens {
            self.open_own(client, &format!("f{file}"), 0);
        }
        self.close_some(client, 30);
        self.open_own(client, "f0", 0);
    }

    /// Takes one lock more than the limit, and another one after one has been released.
    fn lock_all(&mut self, client: usize, limits: Limits) {
        self.close_some(client, 50);
        let handle = self.open_own(client, "f1", 0);
        let lock = |at: usize, flags| Verb::Lock {
            handle,
            offset: 1000 + at as u64 * 10,
            length: 10,
            flags,
        };
        for at in 0..=limits.locks {
            self.push(client, vec![lock(at, EXCLUSIVE | AT_ONCE)], true);
        }
        self.push(client, vec![lock(0, UNLOCK)], true);
        self.push(client, vec![lock(limits.locks, EXCLUSIVE | AT_ONCE)], true);
    }

    /// Lets one request more wait than the limit.
    fn wait_for_all(&mut self, client: usize, limits: Limits) {
        self.close_some(client, 100);
        let holder = self.open_own(client, "f2", 0);
        let waiter = self.open_own(client, "f2", 0);
        let lock = |handle, offset, length, flags| Verb::Lock {
            handle,
            offset,
            length,
            flags,
        };
        let all = |flags| lock(holder, 0, 1000, flags);
        self.push(client, vec![all(EXCLUSIVE)], true);
        let first = self.ops.len();
        for at in 0..=limits.pending as u64 {
            self.push(client, vec![lock(waiter, at * 10, 10, EXCLUSIVE)], true);
        }
        if self.random.percent(50) {
            self.push(client, vec![Verb::Cancel { op: first }], true);
            self.push(client, vec![lock(waiter, 500, 10, EXCLUSIVE)], true);
        }
        let end = match self.random.below(3) {
            0 => all(UNLOCK),
            1 => Verb::Close { handle: holder },
            _ => Verb::Close { handle: waiter },
        };
        self.push(client, vec![end], true);
    }

    /// Watches one directory more than the limit; the watches continue when no request waits for them any more.
    fn watch_all(&mut self, client: usize, limits: Limits) {
        self.close_some(client, 100);
        let directories: Vec<Handle> = (0..=limits.watches)
            .map(|at| self.open_own(client, &format!("d{at}"), DIRECTORY))
            .collect();
        let first = self.ops.len();
        for handle in &directories {
            self.push(client, vec![Verb::Notify { handle: *handle }], true);
        }
        for op in first..first + directories.len() {
            self.push(client, vec![Verb::Cancel { op }], true);
        }
    }

    /// Connects one tree more than the limit, and another one after one has been disconnected.
    fn connect_all(&mut self, client: usize, limits: Limits) {
        for _ in 0..limits.trees {
            self.push(client, vec![Verb::Tree], true);
        }
        self.push(client, vec![Verb::Untree], true);
        self.push(client, vec![Verb::Tree], true);
    }
}
