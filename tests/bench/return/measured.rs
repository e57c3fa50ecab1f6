//! Runs the client whose silences are measured, and summarizes them, for `return` and `takeover`.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::load::{ACCESS, Load, OPEN_IF, Running};
use super::silence::{self, Progress};
use super::support::raw::{self, Client, FileId};
use super::support::timeline::{Frame, Timeline};
use super::support::{PATIENCE, Rng, wait_for};

/// The number of MessageIds that a client asks for.
const CREDITS: u16 = 1024;
/// An event is repeated if not every frame could be captured; at most so many times on average.
pub const TRIES: usize = 2;

/// A guest that has opened the file for reading and writing, and `others`.
pub fn member(others: impl Iterator<Item = String>) -> (Client, FileId) {
    let mut client = Client::connect();
    client.credits = CREDITS;
    client.try_guest().expect("a guest is let in");
    for file in others {
        client.create(&file, ACCESS, OPEN_IF, 0);
    }
    let big = client.create("big", ACCESS, OPEN_IF, 0);
    (client, big)
}

/// Small requests for so long.
pub fn warm_up((client, file): (Client, FileId), time: Duration) -> io::Result<(Client, FileId)> {
    let running = Load::Small.start(client, file);
    std::thread::sleep(time);
    Ok((running.stop()?, file))
}

/// The activity of the measured client.
pub enum Meanwhile {
    Nothing(Client),
    Load {
        running: Running,
        progress: Progress,
    },
}

impl Meanwhile {
    pub fn begin(load: Load, client: Client, file: FileId) -> Meanwhile {
        match load {
            Load::Idle => Meanwhile::Nothing(client),
            _ => Meanwhile::Load {
                running: load.start(client, file),
                progress: load.progress(),
            },
        }
    }

    pub fn end(self) -> io::Result<Client> {
        match self {
            Meanwhile::Nothing(client) => Ok(client),
            Meanwhile::Load { running, .. } => running.stop(),
        }
    }

    /// Sends an ECHO and waits for its answer, if the client is idle.
    pub fn ask(&mut self) -> Result<(), String> {
        match self {
            Meanwhile::Nothing(client) => {
                let echo = client.try_call(raw::ECHO, &[4, 0, 0, 0]);
                echo.and_then(raw::Answer::well).map(drop).map_err(text)
            }
            Meanwhile::Load { .. } => Ok(()),
        }
    }

    /// Waits until the load progresses after that time. A retransmission of the server is no progress: the client's own
    /// may follow much later, when its timer expires.
    pub fn wait_for_progress(
        &self,
        timeline: &Timeline,
        port: u16,
        after: Duration,
    ) -> Result<(), String> {
        wait_for("the client to progress", PATIENCE, || match self {
            Meanwhile::Nothing(_) => Some(Ok(())),
            Meanwhile::Load { running, .. } if running.has_failed() => {
                Some(Err("the client has failed".to_owned()))
            }
            Meanwhile::Load { progress, .. } => timeline
                .look(|frames| silence::has_progress(frames, port, *progress, after))
                .then_some(Ok(())),
        })
    }
}

/// When an event began, and when an idle client asked after it.
pub struct Moments {
    pub began: Duration,
    pub asked: Duration,
}

/// The silences of one row of a table.
pub struct Row {
    load: Load,
    port: u16,
    silences_ms: Vec<f64>,
    longest: Duration,
    frames_of_longest: String,
}

impl Row {
    pub fn new(load: Load, port: u16) -> Row {
        Row {
            load,
            port,
            silences_ms: Vec::new(),
            longest: Duration::ZERO,
            frames_of_longest: String::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.silences_ms.len()
    }

    /// Adds the silence in these frames.
    pub fn add(&mut self, frames: &[Frame], moments: &Moments) -> Result<(), String> {
        let silence = match self.load {
            Load::Idle => silence::of_question(frames, self.port, moments.asked),
            _ => silence::longest(frames, self.port, self.load.progress(), moments.began),
        };
        let silence = silence.ok_or("the capture shows no return")?;
        if silence.length() > self.longest {
            self.longest = silence.length();
            self.frames_of_longest = silence::describe(frames, self.port, moments.began, silence);
        }
        self.silences_ms.push(silence.length().as_secs_f64() * 1e3);
        Ok(())
    }

    /// Median, 99th percentile and maximum of `number` silences, in milliseconds.
    pub fn finish(self, number: usize, show: bool) -> Result<[f64; 3], String> {
        if self.len() < number {
            return Err("this machine is too busy to capture every frame".to_owned());
        }
        if show {
            let frames = self.frames_of_longest;
            eprintln!("the longest silence, ms since the event:\n{frames}");
        }
        Ok(statistics(self.silences_ms))
    }
}

/// Waits a random time between events.
pub fn pause(rng: &mut Rng) {
    std::thread::sleep(Duration::from_millis(100 + rng.next() % 100));
}

/// Median, 99th percentile (nearest rank) and maximum.
pub fn statistics(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let rank = |part: f64| {
        let rank = (values.len() as f64 * part).ceil() as usize;
        values[rank.max(1) - 1]
    };
    [rank(0.5), rank(0.99), rank(1.0)]
}

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is later than 1970")
}
