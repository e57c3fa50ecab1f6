//! Our end: the event loop's turn, its application, its crashes, and the laws that are checked after each step.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use outlast_stack::device::{Device, MAX_FRAME_LEN, MemoryDevice};
use outlast_stack::{ConnId, Event, Record, RxChecksum, RxFrame, Seq, Stack, State, TxFrame, Why};
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

use super::client::Client;
use super::journal::Log;
use super::{Random, Scenario, Traffic, config, stream};

pub const SECRET: [u8; 32] = [0x5a; 32];
/// Bytes the application keeps in the send queue.
const SEND_AHEAD: usize = 512 << 10;

pub struct Server {
    pub device: MemoryDevice,
    pub stack: Stack,
    /// A stack that follows by the records alone.
    follower: Stack,
    followed: usize,
    log: Log,
    scenario: Scenario,
    random: Random,
    /// Wire time minus service time.
    outages: Duration,
    down_until: Option<Duration>,
    last_read: Duration,
    /// Bytes read by the application, and how many of them are committed.
    delivered: Vec<u8>,
    delivered_committed: usize,
    sent: usize,
    sent_committed: usize,
    edges: BTreeMap<ConnId, Seq>,
    /// A connection has been recorded.
    began: bool,
    /// It has been closed by both sides.
    done: bool,
    pub crashes: u32,
    pub relocations: u32,
    pub wrapped: bool,
    start: Duration,
    service: Duration,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "read {} sent {} {:#?}",
            self.delivered.len(),
            self.sent,
            self.stack.status()
        )
    }
}

/// The service time at which the first connection's initial sequence number is `iss`; the generator's clock ticks every
/// 4 us.
pub fn start_for_iss(iss: u32) -> Duration {
    let probe = Scenario::new(0, Traffic::Upload, 1);
    let (end, other) = outlast_stack::device::pair(Default::default(), probe.faults, 0);
    let at = Duration::from_secs(1);
    let mut server = Server::new(&probe, end, at);
    let mut client = Client::new(&probe, other);
    for step in 0..100 {
        let now = Duration::from_micros(step * 100);
        server.device.advance(now);
        client.turn(now);
        server.turn_at(now, at);
        if let Some((_, Record::Opened(checkpoint), _)) = server.log.records.first() {
            let ahead = iss.wrapping_sub(checkpoint.iss.0);
            return at + Duration::from_micros(u64::from(ahead) * 4);
        }
    }
    panic!("no SYN came");
}

impl Server {
    pub fn new(scenario: &Scenario, device: MemoryDevice, start: Duration) -> Server {
        let config = config(scenario.server_buffer, scenario.offload);
        let mut server = Server {
            device,
            stack: Stack::new(config.clone(), SECRET, start),
            follower: Stack::new(config, SECRET, start),
            followed: 0,
            log: Log::new(),
            scenario: *scenario,
            random: Random(scenario.seed ^ 0xabcd),
            outages: Duration::ZERO,
            down_until: None,
            last_read: Duration::ZERO,
            delivered: Vec::new(),
            delivered_committed: 0,
            sent: 0,
            sent_committed: 0,
            edges: BTreeMap::new(),
            began: false,
            done: false,
            crashes: 0,
            relocations: 0,
            wrapped: false,
            start,
            service: start,
        };
        let mut out = Vec::new();
        server
            .stack
            .resume(start, scenario.lost, &mut server.log, &mut out);
        server.send(&out);
        server
    }

    /// One turn of the event loop at wire time `now`.
    pub fn turn(&mut self, now: Duration) {
        if let Some(until) = self.down_until {
            if self.scenario.lost == outlast_stack::Lost::Frames {
                self.device.discard();
            }
            if now < until {
                return;
            }
            self.down_until = None;
            self.recover();
        }
        let service = self.service_time(now);
        self.turn_at(now, service);
    }

    /// Service time stands still in an outage.
    fn service_time(&self, now: Duration) -> Duration {
        self.start + now - self.outages
    }

    fn turn_at(&mut self, now: Duration, service: Duration) {
        self.service = self.service.max(service);
        let crash =
            self.crashes < self.scenario.crashes_max && self.random.chance(self.scenario.crash_ppm);
        let crash_at = if crash {
            self.random.below(4)
        } else {
            usize::MAX
        };
        self.log.room = if self.random.chance(self.scenario.full_ppm) {
            0
        } else {
            usize::MAX
        };
        let mut buffer = vec![0; MAX_FRAME_LEN];
        while let Some((len, checksum)) = self.device.receive(&mut buffer).unwrap() {
            assert_eq!(checksum, RxChecksum::Verify);
            let frame = RxFrame {
                bytes: &buffer[..len],
                checksum,
            };
            self.stack.ingest(frame, self.service, &mut self.log);
        }
        self.check_fold();
        if crash_at == 0 {
            return self.crash(now);
        }
        self.commit();
        self.application(now);
        self.check_fold();
        let mut out = Vec::new();
        self.stack.poll(self.service, &mut self.log, &mut out);
        self.check_fold();
        if crash_at == 1 {
            return self.crash(now);
        }
        self.commit();
        if crash_at == 2 {
            return self.crash(now);
        }
        if crash_at == 3 {
            out.truncate(self.random.below(out.len() + 1));
        }
        self.send(&out);
        self.note_events();
        if crash_at == 3 {
            return self.crash(now);
        }
        if self.random.chance(self.scenario.relocate_ppm) {
            self.relocate();
        }
    }

    fn commit(&mut self) {
        self.log.commit();
        self.began |= self.log.committed > 0;
        self.delivered_committed = self.delivered.len();
        self.sent_committed = self.sent;
    }

    fn crash(&mut self, now: Duration) {
        self.crashes += 1;
        self.down_until = Some(now + self.scenario.outage);
        self.outages += self.scenario.outage;
        self.log.crash();
        self.delivered.truncate(self.delivered_committed);
        self.sent = self.sent_committed;
        self.note_events();
    }

    /// Makes everything from the records, nothing from the old stack.
    fn recover(&mut self) {
        let config = config(self.scenario.server_buffer, self.scenario.offload);
        self.stack = Stack::new(config.clone(), SECRET, self.service);
        self.follower = Stack::new(config, SECRET, self.service);
        self.followed = 0;
        for (conn, record, data) in &self.log.records {
            self.stack.apply(*conn, record, data.clone());
        }
        self.check_fold();
        let mut out = Vec::new();
        self.stack
            .resume(self.service, self.scenario.lost, &mut self.log, &mut out);
        self.check_fold();
        self.commit();
        self.send(&out);
    }

    fn relocate(&mut self) {
        let conns: Vec<ConnId> = self.stack.connections().map(|(conn, _, _)| conn).collect();
        for conn in conns {
            self.relocations += 1;
            let checkpoint = self.stack.checkpoint(conn).unwrap();
            let record = Record::Opened(Box::new(checkpoint));
            outlast_stack::Journal::append(&mut self.log, conn, &record, &[]);
            self.stack.relocate(conn, &mut self.log);
            self.check_fold();
            let before = self.log.records.len();
            self.log.trim(conn);
            self.followed -= before - self.log.records.len();
        }
    }

    /// Law 2: the fold of the records is the live state.
    fn check_fold(&mut self) {
        for (conn, record, data) in &self.log.records[self.followed..] {
            self.follower.apply(*conn, record, data.clone());
        }
        self.followed = self.log.records.len();
        assert!(
            self.stack.durable().eq(self.follower.durable()),
            "state is not the fold of the records"
        );
    }

    fn application(&mut self, now: Duration) {
        let conns: Vec<(ConnId, State)> = self
            .stack
            .connections()
            .map(|(conn, _, state)| (conn, state))
            .collect();
        let reads = now >= self.last_read + self.scenario.server_pause;
        for (conn, state) in conns {
            if state == State::SynReceived {
                continue;
            }
            if reads && self.stack.send_queued(conn) < SEND_AHEAD {
                self.last_read = now;
                self.read(conn);
            }
            if self.scenario.traffic == Traffic::Download {
                while self.sent < self.scenario.bytes && self.stack.send_queued(conn) < SEND_AHEAD {
                    let len = (1 + self.random.below(100_000)).min(self.scenario.bytes - self.sent);
                    let bytes = stream(1, self.sent, len);
                    let (head, tail) = bytes.split_at(self.random.below(len));
                    self.stack.send(conn, &[head, tail], &mut self.log);
                    self.sent += len;
                }
                if self.sent == self.scenario.bytes {
                    self.stack.close(conn, &mut self.log);
                }
            } else if state == State::CloseWait
                && self
                    .stack
                    .received(conn)
                    .is_some_and(|queue| queue.is_empty())
            {
                self.stack.close(conn, &mut self.log);
            }
        }
    }

    fn read(&mut self, conn: ConnId) {
        let Some(queue) = self.stack.received(conn) else {
            return;
        };
        let bytes: Vec<u8> = queue.iter().flat_map(|chunk| chunk.to_vec()).collect();
        let take = if self.random.chance(200_000) {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        let bytes = &bytes[..take];
        if self.scenario.traffic == Traffic::Echo && !bytes.is_empty() {
            self.stack.send(conn, &[bytes], &mut self.log);
        }
        self.delivered.extend_from_slice(bytes);
        self.stack.consume(conn, take, &mut self.log);
    }

    /// Sends frames after checking each: no reset, nothing promised or acknowledged that is not committed, no window
    /// taken back.
    fn send(&mut self, out: &[TxFrame]) {
        for frame in out {
            self.inspect(frame);
            self.device.send(frame).unwrap();
        }
    }

    fn inspect(&mut self, frame: &TxFrame) {
        let ethernet = EthernetFrame::new_checked(&frame.header[..]).unwrap();
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return;
        }
        let ip = Ipv4Packet::new_unchecked(ethernet.payload());
        if ip.next_header() != IpProtocol::Tcp {
            return;
        }
        let header = &frame.header[14 + usize::from(ip.header_len())..];
        let tcp = TcpPacket::new_checked(header).unwrap();
        if tcp.rst() {
            // A late duplicate of a connection that both sides have closed (RFC 9293, section 3.10.7.1).
            let closed =
                |(_, record, _): &(ConnId, Record, Bytes)| matches!(record, Record::Closed);
            let over = self.stack.connections().next().is_none();
            assert!(
                over && self.log.records.iter().any(closed),
                "reset sent: {:?}",
                self.scenario
            );
            return;
        }
        assert!(tcp.ack());
        let Some((conn, _, _)) = self.stack.connections().next() else {
            return;
        };
        let checkpoint = self.stack.checkpoint(conn).unwrap();
        let ack = Seq(tcp.ack_number().0 as u32);
        assert!(
            ack <= checkpoint.rcv_nxt,
            "acknowledged more than is recorded"
        );
        let shift = match (tcp.syn(), checkpoint.options.window_scale) {
            (false, Some((_, ours))) => ours,
            _ => 0,
        };
        let edge = ack + (usize::from(tcp.window_len()) << shift);
        assert!(
            edge <= checkpoint.rcv_edge,
            "promised more than is recorded"
        );
        let last = *self.edges.get(&conn).unwrap_or(&edge);
        assert!(
            edge >= last,
            "the window's right edge moved left by {}",
            last - edge
        );
        self.edges.insert(conn, edge);
        self.wrapped |= checkpoint.snd_una.0 < checkpoint.iss.0;
    }

    fn note_events(&mut self) {
        for event in self.stack.events() {
            if let Event::Closed(_, why) = event {
                // A late duplicate of a SYN may open another connection, which is ignored.
                let stray = why == Why::NeverOpened && self.done;
                assert!(
                    stray || why == Why::Finished,
                    "closed: {why:?} {:?}",
                    self.scenario
                );
                self.done = true;
            }
        }
    }

    /// Returns whether the connection has ended, or is in TIME-WAIT.
    pub fn finished(&self) -> bool {
        let mut states = self.stack.connections().map(|(_, _, state)| state);
        self.began && self.down_until.is_none() && states.all(|state| state == State::TimeWait)
    }

    /// Returns whether only the peer's FIN is missing.
    pub fn only_fin_missing(&self) -> bool {
        self.down_until.is_none()
            && self.stack.connections().all(|(conn, _, state)| {
                let drained = self.stack.send_queued(conn) == 0
                    && self
                        .stack
                        .received(conn)
                        .is_some_and(|queue| queue.is_empty());
                drained && matches!(state, State::Established | State::FinWait2)
            })
    }

    pub fn next(&self, now: Duration) -> Option<Duration> {
        if self.down_until.is_some() {
            return self.down_until;
        }
        let unread = self.stack.connections().any(|(conn, _, _)| {
            self.stack
                .received(conn)
                .is_some_and(|queue| !queue.is_empty())
        });
        let send = self.scenario.traffic == Traffic::Download
            && self.stack.connections().any(|(conn, _, state)| {
                state == State::Established && self.stack.send_queued(conn) < SEND_AHEAD
            });
        let pause = self.scenario.server_pause.max(Duration::from_micros(50));
        let read = unread.then(|| (self.last_read + pause).max(now));
        let send = send.then(|| now + Duration::from_micros(50));
        let deadline = self
            .stack
            .next_deadline()
            .map(|at| now + at.saturating_sub(self.service));
        [deadline, read, send, self.device.next_arrival()]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn check_streams(&self, client: &Client) {
        let bytes = self.scenario.bytes;
        match self.scenario.traffic {
            Traffic::Upload => assert!(self.delivered == stream(2, 0, bytes), "upload differs"),
            Traffic::Download => {
                assert!(client.received == stream(1, 0, bytes), "download differs")
            }
            Traffic::Echo => {
                assert!(self.delivered == stream(2, 0, bytes), "way there differs");
                assert!(client.received == stream(2, 0, bytes), "way back differs");
            }
        }
    }
}
