//! Reconstructs the TCP connections of a capture from its segments: the progress of each side, retransmissions, the
//! server's silences, and how connections began and ended.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Segment;

#[cfg(test)]
pub(crate) mod tests;

/// A TCP connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Address and port of the client.
    pub client: SocketAddr,
    /// Address and port of the server.
    pub server: SocketAddr,
    /// The server's stream.
    pub to_client: Stream,
    /// The client's stream.
    pub to_server: Stream,
    /// SYN, FIN and RST, in the order of the capture.
    pub marks: Vec<Mark>,
    /// The silences of the server, in the order of the capture.
    pub silences: Vec<Silence>,
    /// The initial sequence number of the client's SYN, if it was captured.
    client_isn: Option<u32>,
    wait: Wait,
    last_progress: Option<Duration>,
    /// The recent bytes to the client and to the server.
    latest_bytes: [u64; 2],
}

/// The stream of one side.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The sequence number of the first byte, once it is known.
    first: Option<u32>,
    /// The offset of the next byte to send.
    reached: u64,
    /// The number of bytes that the other side has acknowledged.
    acked: u64,
    /// Segments with payload, in the order of the capture.
    pub points: Vec<Point>,
}

/// A segment with payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The time of its capture.
    pub at: Duration,
    /// The offset of its end in the stream.
    pub offset: u64,
    /// It is a retransmission: all of its bytes were captured before.
    pub is_resent: bool,
}

/// A segment that begins or ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The time of its capture.
    pub at: Duration,
    /// Its kind.
    pub event: Event,
    /// The server has sent it.
    pub from_server: bool,
}

/// The kind of a segment that begins or ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SYN.
    Syn,
    /// A retransmitted SYN.
    SynAgain,
    /// FIN.
    Fin,
    /// RST.
    Reset,
}

/// A client that sends within this time after the server is active: it has waited since the server's segment.
const AT_WORK: Duration = Duration::from_millis(50);
/// The number of recent bytes whose direction determines whether the client downloads or uploads.
const LATEST_BYTES: u64 = 1 << 18;

/// A time in which the client waits and the server makes no progress: it sends no new byte, and acknowledges no new
/// byte of a client that uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The time since which the client waits.
    pub from: Duration,
    /// The time at which the server continues.
    pub until: Duration,
}

impl Silence {
    /// Returns its length.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

/// The client's wait for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// No segment of the server was captured yet.
    Unknown,
    /// The client waits since then: the server has not acknowledged everything.
    Since(Duration),
    /// The client waits since then if it sends nothing, or sends soon. Otherwise it waits since its next segment: until
    /// then it may have been idle.
    UnlessItSends(Duration),
}

impl Stream {
    /// Returns the number of bytes sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.reached
    }

    /// Returns the offset of a sequence number near the present one (RFC 9293, section 3.4: 32 bits that wrap around).
    fn offset(&mut self, seq: u32) -> u64 {
        let first = *self.first.get_or_insert(seq);
        let next = first.wrapping_add(self.reached as u32);
        let distance = i64::from(seq.wrapping_sub(next).cast_signed());
        self.reached.saturating_add_signed(distance)
    }

    /// Adds a segment; returns whether it has a new byte.
    fn send(&mut self, segment: &Segment) -> bool {
        if segment.syn {
            self.first = Some(segment.seq.wrapping_add(1));
            return false;
        }
        let begin = self.offset(segment.seq);
        let offset = begin + u64::from(segment.payload_bytes);
        // RFC 9293, 3.8.4: a keep-alive is a segment just before the next byte, with one byte or without.
        let is_keep_alive = segment.payload_bytes <= 1 && begin + 1 == self.reached;
        if segment.payload_bytes == 0 || is_keep_alive {
            return false;
        }
        let is_resent = offset <= self.reached;
        let at = segment.at;
        self.points.push(Point {
            at,
            offset,
            is_resent,
        });
        self.reached = self.reached.max(offset);
        !is_resent
    }

    /// Processes an acknowledgment of the other side; returns whether it is new.
    fn acknowledge(&mut self, ack: u32) -> bool {
        let offset = self.offset(ack).min(self.reached);
        let is_new = offset > self.acked;
        self.acked = self.acked.max(offset);
        is_new
    }

    fn is_acknowledged(&self) -> bool {
        self.acked >= self.reached
    }
}

impl Connection {
    fn new(client: SocketAddr, server: SocketAddr) -> Connection {
        Connection {
            client,
            server,
            to_client: Stream::default(),
            to_server: Stream::default(),
            marks: Vec::new(),
            silences: Vec::new(),
            client_isn: None,
            wait: Wait::Unknown,
            last_progress: None,
            latest_bytes: [0; 2],
        }
    }

    /// Returns the number of bytes that both sides have sent.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to_client.bytes() + self.to_server.bytes()
    }

    /// Returns the time of the server's last progress.
    #[must_use]
    pub fn last_progress(&self) -> Option<Duration> {
        self.last_progress
    }

    /// Returns whether a reset has ended it.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.marks.iter().any(|mark| mark.event == Event::Reset)
    }

    /// Returns the number of captured SYNs of the client.
    #[must_use]
    pub fn syns(&self) -> usize {
        let is_syn = |mark: &&Mark| matches!(mark.event, Event::Syn | Event::SynAgain);
        let syns = self.marks.iter().filter(is_syn);
        syns.filter(|mark| !mark.from_server).count()
    }

    /// Returns the silence that has not ended at this time, because the server has not acknowledged everything.
    #[must_use]
    pub fn silence_until(&self, now: Duration) -> Option<Silence> {
        match self.wait {
            Wait::Since(from) if now > from => Some(Silence { from, until: now }),
            _ => None,
        }
    }

    /// Returns the longest silence that has ended after this time.
    #[must_use]
    pub fn longest_silence_after(&self, event: Duration) -> Option<Silence> {
        let silences = self.silences.iter().rev();
        let late = silences.take_while(|silence| silence.until > event);
        late.max_by_key(|silence| silence.length()).copied()
    }

    fn add(&mut self, segment: &Segment) {
        let from_server = segment.source == self.server;
        self.mark(segment, from_server);
        if from_server {
            self.process_server(segment);
        } else {
            self.process_client(segment);
        }
    }

    fn mark(&mut self, segment: &Segment, from_server: bool) {
        let event = match segment {
            Segment { rst: true, .. } => Event::Reset,
            Segment { fin: true, .. } => Event::Fin,
            Segment { syn: true, .. } => match self
                .marks
                .iter()
                .any(|mark| mark.from_server == from_server && matches!(mark.event, Event::Syn))
            {
                true => Event::SynAgain,
                false => Event::Syn,
            },
            _ => return,
        };
        // Repeated events are recorded once.
        let last = self.marks.last();
        if last.is_some_and(|last| last.event == event && last.from_server == from_server) {
            return;
        }
        self.marks.push(Mark {
            at: segment.at,
            event,
            from_server,
        });
    }

    fn process_client(&mut self, segment: &Segment) {
        if segment.syn {
            self.client_isn = Some(segment.seq);
        }
        if self.to_server.send(segment) {
            self.count(1, segment.payload_bytes);
        }
        if let Some(ack) = segment.ack {
            self.to_client.acknowledge(ack);
        }
        if segment.payload_bytes == 0 && !segment.syn {
            return;
        }
        self.wait = match self.wait {
            Wait::Since(from) => Wait::Since(from),
            Wait::UnlessItSends(from) if segment.at.saturating_sub(from) < AT_WORK => {
                Wait::Since(from)
            }
            _ => Wait::Since(segment.at),
        };
    }

    fn process_server(&mut self, segment: &Segment) {
        let sends = self.to_client.send(segment);
        if sends {
            self.count(0, segment.payload_bytes);
        }
        let acknowledges = segment
            .ack
            .is_some_and(|ack| self.to_server.acknowledge(ack));
        let [to_client, to_server] = self.latest_bytes;
        let progresses = sends || segment.syn || (acknowledges && to_server > to_client);
        if !progresses || segment.rst {
            return;
        }
        let until = segment.at;
        self.last_progress = Some(until);
        if let Wait::Since(from) | Wait::UnlessItSends(from) = self.wait
            && until > from
        {
            self.silences.push(Silence { from, until });
        }
        self.wait = match self.to_server.is_acknowledged() {
            true => Wait::UnlessItSends(until),
            false => Wait::Since(until),
        };
    }

    /// Counts bytes of a direction; older bytes have less and less weight.
    fn count(&mut self, direction: usize, bytes: u32) {
        self.latest_bytes[direction] += u64::from(bytes);
        while self.latest_bytes.iter().sum::<u64>() > LATEST_BYTES {
            self.latest_bytes = self.latest_bytes.map(|bytes| bytes / 2);
        }
    }
}

/// The connections of a capture.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    all: Vec<Connection>,
    /// The index of the latest connection of each client and server.
    latest: HashMap<(SocketAddr, SocketAddr), usize>,
}

impl Connections {
    /// Adds the next segment of the capture.
    pub fn add(&mut self, segment: &Segment) {
        let index = self.index(segment);
        self.all[index].add(segment);
    }

    /// Returns all connections, in the order of their first segments.
    #[must_use]
    pub fn all(&self) -> &[Connection] {
        &self.all
    }

    /// Returns the connections between the client address and the server that have moved the most bytes; only those
    /// with this port, if one is given. They follow one another when a client reconnects.
    #[must_use]
    pub fn busiest(&self, port: Option<u16>) -> Vec<&Connection> {
        let between = |one: &Connection| (one.client.ip(), one.server);
        let eligible = |one: &&Connection| {
            port.is_none_or(|port| one.server.port() == port || one.client.port() == port)
        };
        let mut bytes = HashMap::new();
        for one in self.all.iter().filter(eligible) {
            *bytes.entry(between(one)).or_insert(0) += one.bytes();
        }
        let most = bytes
            .into_iter()
            .max_by_key(|(pair, bytes)| (*bytes, *pair));
        let Some((chosen, _)) = most else {
            return Vec::new();
        };
        let belongs = |one: &&Connection| between(one) == chosen && eligible(one);
        self.all.iter().filter(belongs).collect()
    }

    fn index(&mut self, segment: &Segment) -> usize {
        let (source, destination) = (segment.source, segment.destination);
        let known = [(source, destination), (destination, source)]
            .into_iter()
            .find_map(|pair| Some((pair, *self.latest.get(&pair)?)));
        match known {
            Some(((client, server), index)) if self.begins_anew(segment, client, index) => {
                self.insert(client, server)
            }
            Some((_, index)) => index,
            None => {
                let (client, server) = roles(segment);
                self.insert(client, server)
            }
        }
    }

    /// Returns whether a segment is a SYN of the client with another initial sequence number, which begins another
    /// connection with the same ports.
    fn begins_anew(&self, segment: &Segment, client: SocketAddr, index: usize) -> bool {
        let is_request = segment.syn && segment.ack.is_none() && segment.source == client;
        is_request
            && self.all[index]
                .client_isn
                .is_none_or(|isn| isn != segment.seq)
    }

    fn insert(&mut self, client: SocketAddr, server: SocketAddr) -> usize {
        self.latest.insert((client, server), self.all.len());
        self.all.push(Connection::new(client, server));
        self.all.len() - 1
    }
}

/// Determines client and server: the client sends the SYN. If the SYN was not captured, the server has the lower port.
fn roles(segment: &Segment) -> (SocketAddr, SocketAddr) {
    let (source, destination) = (segment.source, segment.destination);
    let source_is_client = match (segment.syn, segment.ack) {
        (true, None) => true,
        (true, Some(_)) => false,
        (false, _) => source.port() > destination.port(),
    };
    match source_is_client {
        true => (source, destination),
        false => (destination, source),
    }
}
