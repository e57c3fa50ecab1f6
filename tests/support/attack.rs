//! Runs attacks: clients that take more than their share of a server, each in threads of its own until it is stopped,
//! with counters. They run at the lowest priority and pause where they would only use the processor that the server
//! needs.
//!
//! They send well-formed data (`tests/hostile.rs` sends malformed data). They connect to the share `pub` as guest, with
//! the files that [`furnish`] has made.

pub mod crowd;
pub mod flood;
pub mod state;
pub mod stream;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::lab::SERVER;
use super::raw::{Answer, Client, FileId};
use super::{Rng, files};

/// The file that is read, opened and locked.
pub const BIG: &str = "big";
/// The directory that is listed.
pub const MANY: &str = "many";
const MANY_FILES: usize = 4000;
/// Depth of the nested directories, each named `n`.
pub const DEEP: usize = 120;
/// Depth of the nested directories with the longest names.
const LONG: usize = 13;

/// How long an attacker waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the attackers may take to be in full swing.
const STEADY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two lives of an attacker, and after a refusal.
const PAUSE: Duration = Duration::from_millis(10);

/// Fills a share with the attacked files: a file of `big_bytes`, and a directory of many.
pub fn furnish(share: &Path, big_bytes: u64) {
    files::random_file(&share.join(BIG), big_bytes, &mut Rng::named("attacked"));
    let many = share.join(MANY);
    std::fs::create_dir(&many).expect("a directory");
    for number in 0..MANY_FILES {
        let name = format!("one of the many files, number {number:04}");
        std::fs::write(many.join(name), []).expect("a file");
    }
    for directory in [deep_directory(DEEP), long_directory()] {
        let below = share.join(directory.replace('\\', "/"));
        std::fs::create_dir_all(below).expect("directories");
    }
}

/// The name of the deepest of so many directories.
pub fn deep_directory(depth: usize) -> String {
    vec!["n"; depth].join("\\")
}

/// The name of a directory with the longest path.
pub fn long_directory() -> String {
    vec!["l".repeat(255); LONG].join("\\")
}

/// An attack under way.
pub struct Attack {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    counts: Counts,
    /// The number of threads that are in full swing.
    steady: AtomicU64,
    /// The open connections: shut down at the end, so that no thread waits for one.
    streams: Mutex<BTreeMap<u64, TcpStream>>,
}

/// Counters of an attack.
#[derive(Default)]
pub struct Counts {
    /// Connections made.
    pub connections: AtomicU64,
    /// Connections that the server ended or refused.
    pub dropped: AtomicU64,
    /// Requests sent; SYNs of a flood.
    pub requests: AtomicU64,
    /// Answers received, including refusals.
    pub answers: AtomicU64,
    /// Refusals.
    pub refused: AtomicU64,
}

impl Attack {
    /// Repeats `life` in so many threads: it ends by itself, or when the server ends it.
    pub fn start(
        threads: usize,
        life: impl Fn(&Field) -> io::Result<()> + Clone + Send + 'static,
    ) -> Attack {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads).map(|number| {
            let (shared, life) = (Arc::clone(&shared), life.clone());
            std::thread::spawn(move || {
                // of this thread alone (setpriority(2), "C library/kernel differences"); lowering never fails
                let _ = rustix::process::setpriority_process(None, 19);
                let field = Field {
                    shared,
                    number,
                    steady: Cell::new(false),
                };
                while !field.over() {
                    if life(&field).is_err() && !field.over() {
                        field.count(|counts| &counts.dropped, 1);
                        field.pause(PAUSE);
                    }
                }
            })
        });
        Attack {
            threads: threads.collect(),
            shared,
        }
    }

    /// Waits until it is in full swing, or as far as it gets: attackers may block each other.
    pub fn wait_until_steady(&self) {
        let begin = Instant::now();
        let steady = || self.shared.steady.load(Ordering::SeqCst) >= self.threads.len() as u64;
        while !steady() && begin.elapsed() < STEADY_TIMEOUT {
            std::thread::sleep(PAUSE);
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Ends it and its connections.
    pub fn stop(mut self) {
        self.shared.end();
        for thread in self.threads.drain(..) {
            thread.join().expect("an attacker does not panic");
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    fn end(&self) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        self.over.store(true, Ordering::SeqCst);
        for stream in streams.values() {
            // it may have ended already
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Counts {
    pub fn get(&self) -> [u64; 5] {
        [
            &self.connections,
            &self.dropped,
            &self.requests,
            &self.answers,
            &self.refused,
        ]
        .map(|count| count.load(Ordering::Relaxed))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [connections, dropped, requests, answers, refused] = self.get();
        write!(
            f,
            "{connections} connections, {dropped} dropped; {requests} requests, {answers} answers, {refused} refusals"
        )
    }
}

/// The environment of one thread of an attack.
pub struct Field {
    shared: Arc<Shared>,
    /// The number of the thread.
    number: usize,
    steady: Cell<bool>,
}

impl Field {
    fn over(&self) -> bool {
        self.shared.over.load(Ordering::SeqCst)
    }

    fn count(&self, which: impl Fn(&Counts) -> &AtomicU64, more: usize) {
        which(&self.shared.counts).fetch_add(more as u64, Ordering::Relaxed);
    }

    /// This thread's attack is in full swing.
    fn steady(&self) {
        if !self.steady.replace(true) {
            self.shared.steady.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits so long, or until the end.
    fn pause(&self, time: Duration) {
        let begin = Instant::now();
        while !self.over() && begin.elapsed() < time {
            std::thread::sleep((time - begin.elapsed().min(time)).min(PAUSE));
        }
    }
}

/// An attacker's connection.
struct Foe<'a> {
    client: Client,
    field: &'a Field,
    /// Its place among the streams.
    place: u64,
}

impl<'a> Foe<'a> {
    /// Opens a TCP connection; with a receive buffer of so many bytes, if given.
    fn connect(field: &'a Field, receive_buffer: Option<usize>) -> io::Result<Foe<'a>> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        if let Some(bytes) = receive_buffer {
            sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
        }
        // also applies to connect(2)
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_TIMEOUT))?;
        let server: SocketAddr = format!("{SERVER}:445").parse().expect("an address");
        connect(&socket, &server)?;
        let client = Client::on(TcpStream::from(socket))?;
        let place = {
            let streams = &field.shared.streams;
            let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
            if field.over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let place = streams.last_key_value().map_or(0, |(last, _)| last + 1);
            streams.insert(place, client.stream.try_clone()?);
            place
        };
        field.count(|counts| &counts.connections, 1);
        Ok(Foe {
            client,
            field,
            place,
        })
    }

    /// Connects up to a tree connect as guest.
    fn guest(field: &'a Field) -> io::Result<Foe<'a>> {
        Foe::connect(field, None)?.logged_in()
    }

    fn logged_in(mut self) -> io::Result<Foe<'a>> {
        self.client.try_guest()?;
        Ok(self)
    }

    /// Sends a request and returns its answer, whatever it is.
    fn call(&mut self, command: u16, body: &[u8]) -> io::Result<Answer> {
        let answer = self.client.try_call(command, body)?;
        self.field.count(|counts| &counts.requests, 1);
        self.taken(&answer);
        Ok(answer)
    }

    fn open(&mut self, body: &[u8]) -> io::Result<FileId> {
        let answer = self.call(super::raw::CREATE, body)?.well()?;
        Ok(answer.file_id())
    }

    /// Sends so many requests at once, then reads their answers; returns the number of refusals.
    fn batch(
        &mut self,
        size: usize,
        mut request: impl FnMut(&mut Client) -> Vec<u8>,
    ) -> io::Result<usize> {
        let messages: Vec<Vec<u8>> = (0..size)
            .map(|_| super::raw::frame(&request(&mut self.client)))
            .collect();
        io::Write::write_all(&mut self.client.stream, &messages.concat())?;
        self.field.count(|counts| &counts.requests, size);
        let mut refused = 0;
        for _ in 0..size {
            let answer = self.client.receive()?;
            refused += usize::from(self.taken(&answer));
        }
        Ok(refused)
    }

    /// Counts an answer; returns whether it is a refusal.
    fn taken(&self, answer: &Answer) -> bool {
        self.field.count(|counts| &counts.answers, 1);
        // an error, not a warning and not an interim status (MS-ERREF 2.3)
        let refusal = answer.status >> 30 == 3
            && answer.status != super::raw::STATUS_MORE_PROCESSING_REQUIRED;
        self.field
            .count(|counts| &counts.refused, usize::from(refusal));
        refusal
    }
}

impl Drop for Foe<'_> {
    fn drop(&mut self) {
        let streams = &self.field.shared.streams;
        let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.remove(&self.place);
    }
}
