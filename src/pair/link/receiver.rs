//! Receives the leader's log at the partner's end of the interconnect, and writes it into this node's NVRAM while the
//! node is on standby.
//!
//! One connection has the seat: the last one with a valid greeting. Each frame is processed under the seat's lock, so
//! that after `admit(None)` ([`Receiver::admit`]) no frame is written or acknowledged.

use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::{debug, info, warn};
use outlast_nvram::copy::{Copy, Standing};
use outlast_nvram::{FileProblem, Incarnation, Mapping};
use rustls::{ServerConnection, StreamOwned};

use super::frame::{Beat, Frame, Hello, Refusal};
use super::keys::Keys;

/// The largest number of simultaneous connections: a leader has one, and its next one may begin before that has ended.
const CONNECTIONS_MAX: usize = 8;
/// The longest silence of a peer. A leader's heartbeats are much more frequent.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest silence before its greeting.
const GREETING: Duration = Duration::from_secs(3);

/// The destination of the log, and its source.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address to listen on, of this node.
    pub address: SocketAddr,
    /// This node's keys.
    pub keys: Keys,
    /// The other node.
    pub partner: String,
    /// `nvram.path`.
    pub nvram: PathBuf,
    /// `nvram.size`.
    pub size_bytes: u64,
    /// This machine, and its kernel's boot.
    pub incarnation: Incarnation,
}

/// What is known of the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// A leader is connected.
    pub is_connected: bool,
    /// The time of its last frame.
    pub heard: Option<Instant>,
    /// Its last heartbeat.
    pub beat: Beat,
    /// The end of the log in the copy.
    pub received: u64,
}

/// The connection that has the seat, and the copy that it writes.
#[derive(Default)]
struct Seat {
    /// The lowest epoch of an admitted leader; `None`: no leader is admitted.
    admitted: Option<u64>,
    /// Counts the connections that have had the seat.
    number: u64,
    copy: Option<Copy>,
    socket: Option<TcpStream>,
    view: View,
}

/// The receiver.
pub struct Receiver {
    seat: Arc<Mutex<Seat>>,
}

impl Receiver {
    /// Listens, and refuses every log before [`Receiver::admit`].
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(place: Place) -> anyhow::Result<Receiver> {
        let listener = TcpListener::bind(place.address)
            .with_context(|| format!("partner.interconnect: {}", place.address))?;
        let seat = Arc::new(Mutex::new(Seat::default()));
        let receiver = Receiver { seat: seat.clone() };
        let place = Arc::new(place);
        let count = Arc::new(AtomicUsize::new(0));
        let accept = move || {
            for socket in listener.incoming() {
                let socket = match socket {
                    Ok(socket) if count.load(Ordering::Relaxed) < CONNECTIONS_MAX => socket,
                    Ok(_) => continue,
                    Err(error) => {
                        debug!("interconnect: {error}");
                        std::thread::sleep(Duration::from_millis(10));
                        continue;
                    }
                };
                let (seat, place, held) = (seat.clone(), place.clone(), Held::new(&count));
                let thread = std::thread::Builder::new().name("interconnect".into());
                let spawned = thread.spawn(move || {
                    let _held = held;
                    if let Err(error) = serve(socket, &place, &seat) {
                        debug!("interconnect: {error:#}");
                    }
                });
                if let Err(error) = spawned {
                    warn!("no thread for the interconnect can be started: {error}");
                }
            }
        };
        std::thread::Builder::new()
            .name("interconnect".into())
            .spawn(accept)
            .context("no thread can be started")?;
        Ok(receiver)
    }

    /// Admits leaders of this epoch or a later one; `None`: no leader. After the return no frame of a leader that is
    /// not admitted is processed, and the NVRAM is free.
    pub fn admit(&self, epoch: Option<u64>) {
        let mut seat = locked(&self.seat);
        if seat.admitted == epoch {
            return;
        }
        seat.admitted = epoch;
        if epoch.is_none() {
            seat.vacate();
        }
    }

    /// What is known of the leader.
    #[must_use]
    pub fn view(&self) -> View {
        locked(&self.seat).view
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.admit(None);
    }
}

impl Seat {
    fn vacate(&mut self) {
        self.number += 1;
        self.copy = None;
        self.view.is_connected = false;
        if let Some(socket) = self.socket.take() {
            // The connection may have ended.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Counts one connection, until it is dropped.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(count: &Arc<AtomicUsize>) -> Held {
        count.fetch_add(1, Ordering::Relaxed);
        Held(count.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Locks the seat. No code panics while it holds the lock.
fn locked(seat: &Mutex<Seat>) -> MutexGuard<'_, Seat> {
    seat.lock().unwrap_or_else(PoisonError::into_inner)
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

fn serve(mut socket: TcpStream, place: &Place, seat: &Mutex<Seat>) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(GREETING))?;
    socket.set_write_timeout(Some(GREETING))?;
    let mut connection = ServerConnection::new(place.keys.server.clone())?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut socket) {
            if error.kind() == io::ErrorKind::InvalidData {
                let peer = socket.peer_addr();
                warn!(
                    "interconnect: a peer is refused ({peer:?}): {error}; see partner.key on both nodes"
                );
            }
            return Err(error.into());
        }
    }
    let other = socket.try_clone()?;
    let mut stream = BufReader::with_capacity(256 << 10, StreamOwned::new(connection, socket));
    let hello = match Frame::receive(&mut stream) {
        Ok(Frame::Hello(hello)) => hello,
        Ok(_) => anyhow::bail!("a peer that does not greet"),
        Err(error) => {
            if error.kind() == io::ErrorKind::Unsupported {
                send(
                    stream.get_mut(),
                    &Frame::Refused(Refusal::Version(super::frame::VERSION)),
                )?;
            }
            return Err(error.into());
        }
    };
    let seated = {
        let mut seat = locked(seat);
        seat.take(place, &hello, other)
            .map(|beginning| (seat.number, beginning))
    };
    let (number, beginning) = match seated {
        Ok(seated) => seated,
        Err(refusal) => {
            send(stream.get_mut(), &Frame::Refused(refusal))?;
            return Ok(());
        }
    };
    info!(
        "interconnect: node {} ships its log, epoch {}",
        hello.node, hello.epoch
    );
    stream.get_mut().sock.set_read_timeout(Some(SILENCE))?;
    send(stream.get_mut(), &Frame::Welcome { beginning })?;
    let ended = process_frames(&mut stream, seat, number);
    let mut seat = locked(seat);
    if seat.number == number {
        seat.vacate();
        info!(
            "interconnect: node {} is not connected any more",
            hello.node
        );
    }
    ended
}

impl Seat {
    /// Gives the seat to a leader, if it is admitted, and returns the beginning of the copy.
    fn take(
        &mut self,
        place: &Place,
        hello: &Hello,
        socket: TcpStream,
    ) -> Result<Vec<u8>, Refusal> {
        let admitted = self.admitted.ok_or(Refusal::NotNow)?;
        if hello.node != place.partner {
            let named = &hello.node;
            let why = format!(
                "it is the partner of node {}, not of {named}",
                place.partner
            );
            return Err(Refusal::Cannot(why));
        }
        if hello.epoch < admitted {
            return Err(Refusal::Epoch(admitted));
        }
        if hello.memory_len != place.size_bytes {
            return Err(Refusal::Length(place.size_bytes));
        }
        self.vacate();
        let memory = Arc::new(nvram(place).map_err(|why| Refusal::Cannot(format!("{why:#}")))?);
        if let Ok(Some(standing)) = Standing::of(&*memory) {
            let term = standing.superblock.term;
            if term > hello.epoch || (term == hello.epoch && standing.received_in.is_none()) {
                return Err(Refusal::Epoch(term));
            }
        }
        let copy = Copy::open(memory, place.incarnation);
        let copy = copy.map_err(|error| Refusal::Cannot(error.to_string()))?;
        let beginning = copy.beginning();
        self.copy = Some(copy);
        self.socket = Some(socket);
        self.admitted = Some(hello.epoch);
        self.view = View {
            is_connected: true,
            heard: Some(Instant::now()),
            ..View::default()
        };
        Ok(beginning)
    }
}

fn nvram(place: &Place) -> Result<Mapping, outlast_nvram::Error> {
    match Mapping::open(&place.nvram, place.size_bytes) {
        Err(outlast_nvram::Error::File {
            problem: FileProblem::Missing,
            ..
        }) => Mapping::create(&place.nvram, place.size_bytes),
        opened => opened,
    }
}

/// Processes the leader's frames until the connection ends, or another connection has the seat.
fn process_frames(
    stream: &mut BufReader<Stream>,
    seat: &Mutex<Seat>,
    number: u64,
) -> anyhow::Result<()> {
    loop {
        let frame = Frame::receive(stream)?;
        let mut seat = locked(seat);
        anyhow::ensure!(seat.number == number, "another connection has the seat");
        let Some(copy) = &mut seat.copy else {
            return Ok(());
        };
        let answer = match frame {
            Frame::Write { at, bytes } => match copy.write(at, &bytes) {
                Ok(()) => continue,
                Err(error) => Frame::Refused(Refusal::Cannot(error.to_string())),
            },
            Frame::Complete { number } => match copy.complete() {
                Ok(head) => {
                    seat.view.received = head.0;
                    Frame::Done { number }
                }
                Err(error) => Frame::Refused(Refusal::Cannot(error.to_string())),
            },
            Frame::Anew => match copy.begin_anew() {
                Ok(()) => Frame::Welcome {
                    beginning: copy.beginning(),
                },
                Err(error) => Frame::Refused(Refusal::Cannot(error.to_string())),
            },
            Frame::Beat(beat) => {
                seat.view.beat = beat;
                Frame::Heard
            }
            _ => Frame::Refused(Refusal::Cannot("it was sent what a partner answers".into())),
        };
        seat.view.heard = Some(Instant::now());
        // The answer is sent under the lock: a leader that is no longer admitted receives none.
        send(stream.get_mut(), &answer)?;
        if let Frame::Refused(refusal) = answer {
            anyhow::bail!("{refusal}");
        }
    }
}

fn send(stream: &mut Stream, frame: &Frame) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame.send(&mut bytes)?;
    stream.write_all(&bytes)?;
    stream.flush()
}

#[cfg(test)]
mod tests;
