//! The leader's end of the interconnect: a thread that connects, ships batches and says that the leader lives.

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

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// A partner that takes less in a second is too slow: the log keeps what is on its way. Bytes.
const SLOWEST: u64 = 1 << 20;

/// What the thread is asked for. Each is of a connection, and is passed over when that is gone.
enum Job {
    Ship(u64, Batch),
    Anew(u64),
}

/// What the thread says.
#[derive(Debug)]
pub enum News {
    /// The partner takes the log. Its copy begins with these bytes.
    Up(Vec<u8>),
    /// The batch is in the partner's copy.
    Done,
    /// The connection is gone, or cannot be had, for this reason.
    Down(String),
    /// The partner knows of this epoch, which is newer.
    Superseded(u64),
}

/// Whom to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// The other node's address.
    pub address: SocketAddr,
    /// This node's keys.
    pub keys: Keys,
    /// The greeting.
    pub hello: Hello,
    /// Longest that the partner may take for anything.
    pub timeout: Duration,
}

/// What both sides of it look at.
#[derive(Debug, Default)]
struct Shared {
    committed: AtomicU64,
    round_trip_us: AtomicU64,
    /// When the partner was last heard: microseconds since the thread began, and one.
    heard_us: AtomicU64,
    is_wanted: AtomicBool,
}

/// The thread, as the loop has it.
pub struct Link {
    jobs: Sender<Job>,
    news: Receiver<(u64, News)>,
    /// News that was waited for.
    waited_for: Option<(u64, News)>,
    shared: Arc<Shared>,
    /// The connection that jobs are for.
    connection: u64,
    began: Instant,
}

impl Link {
    /// Starts the thread; it ends with this. `wake`, an eventfd, is written to when there is news.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(target: Target, wake: Arc<OwnedFd>) -> io::Result<Link> {
        let (jobs, to_do) = unbounded();
        let (tell, news) = unbounded();
        let shared = Arc::new(Shared::default());
        let began = Instant::now();
        let mut thread = Thread {
            target,
            wake,
            to_do,
            tell,
            shared: shared.clone(),
            connection: 0,
            began,
            said: String::new(),
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

    /// A connection is wanted, or not.
    pub fn want(&self, yes: bool) {
        self.shared.is_wanted.store(yes, Ordering::Relaxed);
    }

    /// Ships a batch. The one before is done, or its connection is gone.
    pub fn ship(&self, batch: Batch) {
        // The thread ends with this.
        let _ = self.jobs.send(Job::Ship(self.connection, batch));
    }

    /// Has the partner's copy made blank; the connection is `Up` again after that.
    pub fn begin_anew(&self) {
        let _ = self.jobs.send(Job::Anew(self.connection));
    }

    /// What the thread has said. Does not wait.
    pub fn news(&mut self) -> Option<News> {
        let waited_for = self.waited_for.take();
        let (connection, news) = waited_for.or_else(|| self.news.try_recv().ok())?;
        self.connection = connection;
        Some(news)
    }

    /// Waits for news, so long at most.
    pub fn wait(&mut self, most: Duration) {
        if self.waited_for.is_none() {
            self.waited_for = self.news.recv_timeout(most).ok();
        }
    }

    /// Where the log has come to, for the partner's status.
    pub fn set_committed(&self, committed: u64) {
        self.shared.committed.store(committed, Ordering::Relaxed);
    }

    /// How long the last batch took, there and back.
    #[must_use]
    pub fn round_trip_us(&self) -> u64 {
        self.shared.round_trip_us.load(Ordering::Relaxed)
    }

    /// How long ago the partner was last heard; `None`: it never was.
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

/// A connection that is up.
type Stream = BufWriter<StreamOwned<ClientConnection, TcpStream>>;

/// Why a connection has ended.
enum Ended {
    Failed(String),
    Superseded(u64),
    /// Nobody asks any more.
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
    tell: Sender<(u64, News)>,
    shared: Arc<Shared>,
    connection: u64,
    began: Instant,
    /// What was last said of why there is no connection.
    said: String,
}

impl Thread {
    fn run(&mut self) {
        loop {
            if self.shared.is_wanted.load(Ordering::Relaxed) {
                self.connection += 1;
                let ended = self.connect().and_then(|stream| self.serve(stream));
                match ended {
                    Err(Ended::Over) => return,
                    Err(Ended::Failed(why)) if why == self.said => {}
                    Err(Ended::Failed(why)) => {
                        self.said.clone_from(&why);
                        self.say(News::Down(why));
                    }
                    Err(Ended::Superseded(epoch)) => self.say(News::Superseded(epoch)),
                    Ok(()) => {}
                }
            }
            if !self.pause() {
                return;
            }
        }
    }

    fn say(&self, news: News) {
        // Nobody may be there any more.
        let _ = self.tell.send((self.connection, news));
        // Full only if nobody has read it 2^64 times.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits before the next attempt; false: the thread is to end. Jobs that come are of a connection that is gone.
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
                    self.say(News::Done);
                    beat = Instant::now();
                }
                Ok(Job::Anew(connection)) if connection == self.connection => {
                    Frame::Anew.send(&mut stream)?;
                    self.welcome(&mut stream)?;
                }
                // Of a connection that is gone.
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
                self.said.clear();
                self.say(News::Up(beginning));
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
        let patience = self.target.timeout + Duration::from_secs(batch.len() / SLOWEST);
        for (at, bytes) in batch.writes {
            let mut done = 0;
            while done < bytes.len() {
                let end = (done + PIECE).min(bytes.len());
                let at = at + done as u64;
                let bytes = bytes.slice(done..end);
                Frame::Write { at, bytes }.send(stream)?;
                done = end;
                if begun.elapsed() > patience {
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
