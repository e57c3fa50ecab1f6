//! What the segments of a capture say about each TCP connection: how far each side has got, what was sent again, how
//! long the server was silent, and how the connection began and ended.

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
    /// What the server sends.
    pub to_client: Stream,
    /// What the client sends.
    pub to_server: Stream,
    /// SYN, FIN and RST, in the order of the capture.
    pub marks: Vec<Mark>,
    /// The silences of the server, in the order of the capture.
    pub silences: Vec<Silence>,
    /// Initial sequence number of the client's SYN, if the capture has that.
    client_isn: Option<u32>,
    wait: Wait,
    heard: Option<Duration>,
    /// Of the latest bytes, those to the client and those to the server.
    latest_bytes: [u64; 2],
}

/// What one side sends.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Sequence number of the first byte, when it is known.
    first: Option<u32>,
    /// Bytes sent: offset of the next one.
    reached: u64,
    /// Bytes acknowledged by the other side.
    acked: u64,
    /// Segments with payload, in the order of the capture.
    pub points: Vec<Point>,
}

/// A segment with payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When it was captured.
    pub at: Duration,
    /// Offset of its end in the stream.
    pub offset: u64,
    /// It has no byte that was not captured before.
    pub is_resent: bool,
}

/// A segment that begins or ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it was captured.
    pub at: Duration,
    /// What it is.
    pub event: Event,
    /// It is the server's.
    pub from_server: bool,
}

/// What begins or ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SYN.
    Syn,
    /// A SYN once more: the first had no answer.
    SynAgain,
    /// FIN.
    Fin,
    /// RST.
    Reset,
}

/// A client that sends something so soon after the server did is at work: it has waited since then.
const AT_WORK: Duration = Duration::from_millis(50);
/// Of so many bytes, the latest, most have one direction: the client downloads or uploads.
const LATEST_BYTES: u64 = 1 << 18;

/// A time in which the client waits and the server does not go on: it sends no byte that it has not sent before, nor,
/// to a client that uploads, acknowledges one that it has not acknowledged before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Since when the client waits.
    pub from: Duration,
    /// When the server continues.
    pub until: Duration,
}

impl Silence {
    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

/// Since when the client waits for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The capture has nothing of the server yet.
    Unknown,
    /// Since then: not everything that the client has sent is acknowledged.
    Since(Duration),
    /// Since then, if it sends nothing, or soon. Else since it does: before, it may have had nothing to ask.
    UnlessItSends(Duration),
}

impl Stream {
    /// Bytes sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.reached
    }

    /// Offset of a sequence number, near to what has been reached (RFC 9293, section 3.4: 32 bits that wrap around).
    fn offset(&mut self, seq: u32) -> u64 {
        let first = *self.first.get_or_insert(seq);
        let next = first.wrapping_add(self.reached as u32);
        let distance = i64::from(seq.wrapping_sub(next).cast_signed());
        self.reached.saturating_add_signed(distance)
    }

    /// Adds a segment; says whether it has a byte that was not captured before.
    fn send(&mut self, segment: &Segment) -> bool {
        if segment.syn {
            self.first = Some(segment.seq.wrapping_add(1));
            return false;
        }
        let begin = self.offset(segment.seq);
        let offset = begin + u64::from(segment.payload_bytes);
        // RFC 9293, 3.8.4: a keep-alive is a segment just before what has been reached, with a byte or without.
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

    /// Notes what the other side acknowledges; says whether that is new.
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
            heard: None,
            latest_bytes: [0; 2],
        }
    }

    /// Bytes that both sides have sent.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to_client.bytes() + self.to_server.bytes()
    }

    /// When the server went on last.
    #[must_use]
    pub fn heard(&self) -> Option<Duration> {
        self.heard
    }

    /// A reset has ended it.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.marks.iter().any(|mark| mark.event == Event::Reset)
    }

    /// SYNs of the client that the capture has.
    #[must_use]
    pub fn syns(&self) -> usize {
        let is_syn = |mark: &&Mark| matches!(mark.event, Event::Syn | Event::SynAgain);
        let syns = self.marks.iter().filter(is_syn);
        syns.filter(|mark| !mark.from_server).count()
    }

    /// The silence that has not ended at this time: there is something that the server has not acknowledged.
    #[must_use]
    pub fn silence_until(&self, now: Duration) -> Option<Silence> {
        match self.wait {
            Wait::Since(from) if now > from => Some(Silence { from, until: now }),
            _ => None,
        }
    }

    /// The longest silence that has ended after this time.
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
            self.hear_server(segment);
        } else {
            self.hear_client(segment);
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
        // Of those that are sent again, one says it.
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

    fn hear_client(&mut self, segment: &Segment) {
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

    fn hear_server(&mut self, segment: &Segment) {
        let sends = self.to_client.send(segment);
        if sends {
            self.count(0, segment.payload_bytes);
        }
        let acknowledges = segment
            .ack
            .is_some_and(|ack| self.to_server.acknowledge(ack));
        let [to_client, to_server] = self.latest_bytes;
        let goes_on = sends || segment.syn || (acknowledges && to_server > to_client);
        if !goes_on || segment.rst {
            return;
        }
        let until = segment.at;
        self.heard = Some(until);
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

    /// Counts bytes of a direction; of those long ago ever less.
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
    /// Client and server, and where the latest of their connections is.
    latest: HashMap<(SocketAddr, SocketAddr), usize>,
}

impl Connections {
    /// Adds the next segment of the capture.
    pub fn add(&mut self, segment: &Segment) {
        let index = self.index(segment);
        self.all[index].add(segment);
    }

    /// All, in the order of their first segments.
    #[must_use]
    pub fn all(&self) -> &[Connection] {
        &self.all
    }

    /// Those of the client's address with the server's address and port that have moved the most bytes; of this client
    /// or server only, if one is named. They follow one another when a client connects again.
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

    /// A SYN of the client with another initial sequence number: the same ports, another connection.
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

/// Client and server: the client sends the SYN. If the capture does not have that, the server's port is the lower one.
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
