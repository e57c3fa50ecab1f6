//! Sends the leader's log at its end of the interconnect: a thread connects, ships batches and sends heartbeats.

use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use outlast_nvram::sink::Batch;
use rustls::{ClientConnection, StreamOwned};

use super::BEAT;
use super::frame::{Beat, Frame, Hello, PIECE, Refusal};
use super::keys::Keys;

/// The interval of attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// The lowest acceptable rate of a partner, in bytes per second: the log keeps the bytes in flight.
const SLOWEST: u64 = 1 << 20;

/// A request to the thread. It is for one connection, and is ignored when that has ended.
enum Job {
    Ship(u64, Batch),
    Anew(u64),
}

/// A report of the thread.
#[derive(Debug)]
pub enum News {
    /// The partner accepts the log. Its copy begins with these bytes.
    Up(Vec<u8>),
    /// The batch is in the partner's copy.
    Done,
    /// The connection has ended or cannot be made, for this reason.
    Down(String),
    /// The partner knows this epoch, which is newer.
    Superseded(u64),
}

/// The partner to connect to, and this node's identity.
#[derive(Clone, Debug)]
pub struct Target {
    /// The other node's address.
    pub address: SocketAddr,
    /// This node's keys.
    pub keys: Keys,
    /// The greeting.
    pub hello: Hello,
    /// The timeout for each of the partner's answers.
    pub timeout: Duration,
}

/// The state that the thread and the loop share.
#[derive(Debug, Default)]
struct Shared {
    committed: AtomicU64,
    round_trip_us: AtomicU64,
    /// The time of the partner's last answer: microseconds since the thread began, plus one.
    heard_us: AtomicU64,
    is_wanted: AtomicBool,
}

/// The loop's handle of the thread.
pub struct Link {
    jobs: Sender<Job>,
    news: Receiver<(u64, News)>,
    /// News that `wait` has received.
    waited_for: Option<(u64, News)>,
    shared: Arc<Shared>,
    /// The connection that jobs are for.
    connection: u64,
    began: Instant,
}

impl Link {
    /// Starts the thread, which ends when this is dropped. It writes to the eventfd `wake` when it has news.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(target: Target, wake: Arc<OwnedFd>) -> io::Result<Link> {
        let (jobs, to_do) = unbounded();
        let (reports, news) = unbounded();
        let shared = Arc::new(Shared::default());
        let began = Instant::now();
        let mut thread = Thread {
            target,
            wake,
            to_do,
            reports,
            shared: shared.clone(),
            connection: 0,
            began,
            reported: String::new(),
        };
        std::thread::Builder::new()
            .name("interconnect".into())
            .spawn(move || thread.run())?;
        Ok(Link {
            jobs,
            news,
            waited_for: None,
            shared,
            connection: 0,
            began,
        })
    }

    /// Sets whether the thread should connect.
    pub fn want(&self, yes: bool) {
        self.shared.is_wanted.store(yes, Ordering::Relaxed);
    }

    /// Ships a batch. The preceding one must be done, or its connection must have ended.
    pub fn ship(&self, batch: Batch) {
        // The thread ends with this.
        let _ = self.jobs.send(Job::Ship(self.connection, batch));
    }

    /// Makes the partner's copy blank; then the connection is `Up` again.
    pub fn begin_anew(&self) {
        let _ = self.jobs.send(Job::Anew(self.connection));
    }

    /// Returns the thread's next report, without waiting.
    pub fn news(&mut self) -> Option<News> {
        let waited_for = self.waited_for.take();
        let (connection, news) = waited_for.or_else(|| self.news.try_recv().ok())?;
        self.connection = connection;
        Some(news)
    }

    /// Waits for news, at most this long.
    pub fn wait(&mut self, most: Duration) {
        if self.waited_for.is_none() {
            self.waited_for = self.news.recv_timeout(most).ok();
        }
    }

    /// Sets the end of the committed log, for the partner's status.
    pub fn set_committed(&self, committed: u64) {
        self.shared.committed.store(committed, Ordering::Relaxed);
    }

    /// Returns the round trip of the last batch, in microseconds.
    #[must_use]
    pub fn round_trip_us(&self) -> u64 {
        self.shared.round_trip_us.load(Ordering::Relaxed)
    }

    /// Returns the time since the partner's last answer; `None`: it has never answered.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        let heard = self
            .shared
            .heard_us
            .load(Ordering::Relaxed)
            .checked_sub(1)?;
        Some(
            self.began
                .elapsed()
                .saturating_sub(Duration::from_micros(heard)),
        )
    }
}

/// An established connection.
type Stream = BufWriter<StreamOwned<ClientConnection, TcpStream>>;

/// The reason for the end of a connection.
enum Ended {
    Failed(String),
    Superseded(u64),
    /// The loop has dropped the thread.
    Over,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Failed(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "it does not answer".to_owned(),
            ErrorKind::UnexpectedEof => "it has closed the connection".to_owned(),
            _ => error.to_string(),
        })
    }
}

struct Thread {
    target: Target,
    wake: Arc<OwnedFd>,
    to_do: Receiver<Job>,
    reports: Sender<(u64, News)>,
    shared: Arc<Shared>,
    connection: u64,
    began: Instant,
    /// The last reported reason for the lack of a connection.
    reported: String,
}

impl Thread {
    fn run(&mut self) {
        loop {
            if self.shared.is_wanted.load(Ordering::Relaxed) {
                self.connection += 1;
                let ended = self.connect().and_then(|stream| self.serve(stream));
                match ended {
                    Err(Ended::Over) => return,
                    Err(Ended::Failed(why)) if why == self.reported => {}
                    Err(Ended::Failed(why)) => {
                        self.reported.clone_from(&why);
                        self.report(News::Down(why));
                    }
                    Err(Ended::Superseded(epoch)) => self.report(News::Superseded(epoch)),
                    Ok(()) => {}
                }
            }
            if !self.pause() {
                return;
            }
        }
    }

    fn report(&self, news: News) {
        // The loop may have ended.
        let _ = self.reports.send((self.connection, news));
        // The eventfd is full only after 2^64 unread writes.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits before the next attempt; false: the thread must end. Jobs that arrive are for an ended connection.
    fn pause(&self) -> bool {
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            match self.to_do.recv_timeout(PAUSE) {
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    fn connect(&self) -> Result<Stream, Ended> {
        let Target {
            address,
            keys,
            timeout,
            ..
        } = &self.target;
        let mut socket = TcpStream::connect_timeout(address, *timeout)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(*timeout))?;
        socket.set_write_timeout(Some(*timeout))?;
        let connection = ClientConnection::new(keys.client.clone(), keys.partner.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let stream = StreamOwned::new(connection, socket);
        Ok(BufWriter::with_capacity(64 << 10, stream))
    }

    fn serve(&mut self, mut stream: Stream) -> Result<(), Ended> {
        Frame::Hello(self.target.hello.clone()).send(&mut stream)?;
        self.welcome(&mut stream)?;
        let mut number = 0;
        let mut beat = Instant::now();
        while self.shared.is_wanted.load(Ordering::Relaxed) {
            match self.to_do.recv_timeout(BEAT) {
                Ok(Job::Ship(connection, batch)) if connection == self.connection => {
                    number += 1;
                    self.ship(&mut stream, batch, number)?;
                    self.report(News::Done);
                    beat = Instant::now();
                }
                Ok(Job::Anew(connection)) if connection == self.connection => {
                    Frame::Anew.send(&mut stream)?;
                    self.welcome(&mut stream)?;
                }
                // The job is for an ended connection.
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Over),
            }
            if beat.elapsed() >= BEAT {
                beat = Instant::now();
                self.beat(&mut stream)?;
            }
        }
        Err(Ended::Failed("it is not wanted any more".to_owned()))
    }

    fn welcome(&mut self, stream: &mut Stream) -> Result<(), Ended> {
        match self.answer(stream)? {
            Frame::Welcome { beginning } => {
                self.reported.clear();
                self.report(News::Up(beginning));
                Ok(())
            }
            Frame::Refused(Refusal::Epoch(epoch)) => Err(Ended::Superseded(epoch)),
            Frame::Refused(refusal) => Err(Ended::Failed(refusal.to_string())),
            _ => Err(out_of_turn()),
        }
    }

    fn answer(&self, stream: &mut Stream) -> Result<Frame, Ended> {
        stream.flush()?;
        let answer = Frame::receive(stream.get_mut())?;
        let now = self.began.elapsed().as_micros() as u64;
        self.shared.heard_us.store(now + 1, Ordering::Relaxed);
        Ok(answer)
    }

    fn ship(&self, stream: &mut Stream, batch: Batch, number: u64) -> Result<(), Ended> {
        let begun = Instant::now();
        let most = self.target.timeout + Duration::from_secs(batch.len() / SLOWEST);
        for (at, bytes) in batch.writes {
            let mut done = 0;
            while done < bytes.len() {
                let end = (done + PIECE).min(bytes.len());
                let at = at + done as u64;
                let bytes = bytes.slice(done..end);
                Frame::Write { at, bytes }.send(stream)?;
                done = end;
                if begun.elapsed() > most {
                    return Err(Ended::Failed("it takes the log too slowly".to_owned()));
                }
            }
        }
        Frame::Complete { number }.send(stream)?;
        match self.answer(stream)? {
            Frame::Done { number: of } if of == number => {}
            Frame::Refused(refusal) => return Err(Ended::Failed(refusal.to_string())),
            _ => return Err(out_of_turn()),
        }
        let took = begun.elapsed().as_micros() as u64;
        self.shared.round_trip_us.store(took, Ordering::Relaxed);
        Ok(())
    }

    fn beat(&self, stream: &mut Stream) -> Result<(), Ended> {
        let shared = &self.shared;
        let beat = Beat {
            committed: shared.committed.load(Ordering::Relaxed),
            round_trip_us: shared.round_trip_us.load(Ordering::Relaxed),
        };
        Frame::Beat(beat).send(stream)?;
        match self.answer(stream)? {
            Frame::Heard => Ok(()),
            Frame::Refused(refusal) => Err(Ended::Failed(refusal.to_string())),
            _ => Err(out_of_turn()),
        }
    }
}

fn out_of_turn() -> Ended {
    Ended::Failed("it answers what was not asked".to_owned())
}
