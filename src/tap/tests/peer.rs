//! Runs a small host on the stack as the kernel's peer: echo, discard and source services over a journal in memory. It
//! can lose everything except that journal.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use outlast_stack::device::MAX_FRAME_LEN;
use outlast_stack::{
    Config, ConnId, Counters, Journal, Lost, Record, RxFrame, Stack, State, TxFrame,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recvfrom, sendto, socket,
};

use super::Tap;
use super::line::Line;

/// Sends back what it receives.
pub(super) const ECHO: u16 = 7;
/// Reads [`pattern`] bytes until the peer's FIN and answers with their number.
pub(super) const DISCARD: u16 = 9;
/// Reads a number and answers with this many [`pattern`] bytes.
pub(super) const SOURCE: u16 = 19;
pub(super) const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// The largest number of bytes that a service queues for sending.
const SEND_QUEUE: usize = 4 << 20;
/// The largest number of frames received in one turn.
const BATCH: usize = 64;

/// Bytes from `start` on of a stream in which no stretch looks like another nearby.
pub(super) fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len)
        .map(|at| ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

enum Order {
    Crash(Sender<()>),
    Leave(Sender<()>),
    Return(Sender<()>),
    Look(Sender<Option<View>>),
    Stop(Sender<Counters>),
}

/// The visible state of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) snd_nxt: u32,
    pub(super) snd_wnd: u32,
    pub(super) rcv_nxt: u32,
    pub(super) rcv_wnd: u32,
}

/// The options of a host.
pub(super) struct Setup {
    /// Largest receive window, bytes.
    pub(super) receive_buffer: usize,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            receive_buffer: Config::default().receive_buffer,
        }
    }
}

/// The host's thread.
pub(super) struct Host {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

impl Host {
    pub(super) fn start(tap: Tap) -> Host {
        Host::spawn(Line::clean(tap), Setup::default(), true)
    }

    pub(super) fn start_on(line: Line, setup: Setup) -> Host {
        Host::spawn(line, setup, true)
    }

    /// Starts one without a journal, for measurements: it cannot crash.
    pub(super) fn start_forgetful(tap: Tap) -> Host {
        Host::spawn(Line::clean(tap), Setup::default(), false)
    }

    fn spawn(line: Line, setup: Setup, remembers: bool) -> Host {
        let (orders, received) = channel();
        let thread =
            std::thread::spawn(move || Machine::new(line, setup, remembers).run(&received));
        Host { orders, thread }
    }

    /// Loses the stack and the frames in transit, and recovers from the journal.
    pub(super) fn crash(&self) {
        let (done, wait) = channel();
        self.orders.send(Order::Crash(done)).expect("the host runs");
        wait.recv().expect("the host runs");
    }

    /// Answers the next request, then receives nothing more, and ends as for a planned outage: its last reply is not
    /// acknowledged.
    pub(super) fn leave(&self) -> Receiver<()> {
        let (done, wait) = channel();
        self.orders.send(Order::Leave(done)).expect("the host runs");
        wait
    }

    /// Recovers from the journal; frames that arrived meanwhile are lost.
    pub(super) fn recover(&self) {
        let (done, wait) = channel();
        self.orders
            .send(Order::Return(done))
            .expect("the host runs");
        wait.recv().expect("the host runs");
    }

    /// The connection that was opened last, if there is one.
    pub(super) fn newest(&self) -> Option<View> {
        let (done, wait) = channel();
        self.orders.send(Order::Look(done)).expect("the host runs");
        wait.recv().expect("the host runs")
    }

    pub(super) fn stop(self) -> Counters {
        let (done, wait) = channel();
        self.orders.send(Order::Stop(done)).expect("the host runs");
        let counters = wait.recv().expect("the host runs");
        self.thread.join().expect("the host runs");
        counters
    }
}

struct Log {
    remembers: bool,
    records: Vec<(ConnId, Record, Bytes)>,
    last_id: ConnId,
}

impl Journal for Log {
    fn append(&mut self, conn: ConnId, record: &Record, data: &[&[u8]]) -> Bytes {
        let data = Bytes::from(data.concat());
        if self.remembers {
            self.records.push((conn, record.clone(), data.clone()));
        }
        data
    }

    fn room(&self, _conn: ConnId) -> usize {
        1 << 30
    }

    fn unique_id(&mut self) -> ConnId {
        self.last_id += 1;
        self.last_id
    }
}

struct Machine {
    line: Line,
    setup: Setup,
    stack: Stack,
    log: Log,
    start: Instant,
    /// The number of bytes that discard and source have processed so far.
    done: HashMap<ConnId, usize>,
    /// The number of bytes requested from source.
    asked: HashMap<ConnId, usize>,
    frames: Vec<TxFrame>,
    buffer: Vec<u8>,
    source: Bytes,
}

fn stack(line: &Line, setup: &Setup) -> Stack {
    let config = Config {
        mac: [2, 0, 0, 0, 0, 0x10],
        addresses: vec![(SERVER_V4.into(), 24), (SERVER_V6.into(), 64)],
        capabilities: line.capabilities(),
        ports: vec![ECHO, DISCARD, SOURCE],
        receive_buffer: setup.receive_buffer,
        ..Config::default()
    };
    Stack::new(config, [7; 32], Duration::ZERO)
}

impl Machine {
    fn new(line: Line, setup: Setup, remembers: bool) -> Machine {
        let stack = stack(&line, &setup);
        Machine {
            line,
            setup,
            stack,
            log: Log {
                remembers,
                records: Vec::new(),
                last_id: 0,
            },
            start: Instant::now(),
            done: HashMap::new(),
            asked: HashMap::new(),
            frames: Vec::new(),
            buffer: vec![0; MAX_FRAME_LEN],
            source: Bytes::from(vec![0; if remembers { 0 } else { 1 << 20 }]),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn run(mut self, orders: &Receiver<Order>) {
        self.resume(Lost::Nothing);
        loop {
            match orders.try_recv() {
                Ok(Order::Crash(done)) => {
                    self.recover();
                    // The test may have ended already.
                    let _ = done.send(());
                }
                Ok(Order::Leave(done)) => {
                    self.leave();
                    let _ = done.send(());
                    match orders.recv() {
                        Ok(Order::Return(done)) => {
                            self.recover();
                            let _ = done.send(());
                        }
                        _ => return,
                    }
                }
                Ok(Order::Return(_)) => unreachable!("it has not left"),
                Ok(Order::Look(done)) => {
                    let newest = self.stack.status().into_iter().max_by_key(|conn| conn.conn);
                    let _ = done.send(newest.map(|conn| View {
                        snd_nxt: conn.snd_nxt,
                        snd_wnd: conn.snd_wnd,
                        rcv_nxt: conn.rcv_nxt,
                        rcv_wnd: conn.rcv_wnd,
                    }));
                }
                Ok(Order::Stop(done)) => {
                    let _ = done.send(self.stack.counters());
                    return;
                }
                Err(_) => {}
            }
            self.turn();
        }
    }

    /// Recovers everything from the journal; the frames in transit are lost.
    fn recover(&mut self) {
        let now = self.now();
        while self.line.receive(&mut self.buffer, now).is_some() {}
        self.stack = stack(&self.line, &self.setup);
        for (conn, record, data) in &self.log.records {
            self.stack.apply(*conn, record, data.clone());
        }
        self.resume(Lost::Frames);
    }

    fn leave(&mut self) {
        let is_unacknowledged = |stack: &Stack| {
            let mut conns = stack.connections();
            conns.any(|(conn, ..)| stack.send_queued(conn) > 0)
        };
        while !is_unacknowledged(&self.stack) {
            self.turn();
        }
        self.stack.drain(true);
        while !self.stack.drained() {
            let now = self.now();
            self.stack.poll(now, &mut self.log, &mut self.frames);
            self.send();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn resume(&mut self, lost: Lost) {
        let now = self.now();
        self.stack
            .resume(now, lost, &mut self.log, &mut self.frames);
        self.send();
    }

    fn turn(&mut self) {
        // At most 10 ms, to check for orders.
        let wait = match self.stack.next_deadline() {
            Some(deadline) => deadline
                .saturating_sub(self.now())
                .min(Duration::from_millis(10)),
            None => Duration::from_millis(10),
        };
        self.line.wait(self.now(), wait);
        for _ in 0..BATCH {
            let now = self.now();
            let Some((len, checksum)) = self.line.receive(&mut self.buffer, now) else {
                break;
            };
            self.stack.ingest(
                RxFrame {
                    bytes: &self.buffer[..len],
                    checksum,
                },
                now,
                &mut self.log,
            );
        }
        self.stack.events().for_each(drop);
        let conns: Vec<_> = self
            .stack
            .connections()
            .map(|(conn, _, state)| (conn, self.stack_port(conn), state))
            .collect();
        for (conn, port, state) in conns {
            self.serve(conn, port, state);
        }
        let now = self.now();
        self.stack.poll(now, &mut self.log, &mut self.frames);
        self.send();
    }

    fn send(&mut self) {
        let now = self.now();
        for frame in self.frames.drain(..) {
            self.line.send(&frame, now);
        }
    }

    fn stack_port(&self, conn: ConnId) -> u16 {
        self.stack
            .checkpoint(conn)
            .map_or(0, |checkpoint| checkpoint.path.local.port())
    }

    fn serve(&mut self, conn: ConnId, port: u16, state: State) {
        let received: Vec<Bytes> = self
            .stack
            .received(conn)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let finished = state == State::CloseWait;
        match port {
            ECHO => {
                let mut left = received.len();
                for part in &received {
                    if self.stack.send_queued(conn) >= SEND_QUEUE {
                        break;
                    }
                    self.stack.consume(conn, part.len(), &mut self.log);
                    self.stack.send(conn, &[part], &mut self.log);
                    left -= 1;
                }
                if finished && left == 0 {
                    self.stack.close(conn, &mut self.log);
                }
            }
            DISCARD => {
                let done = self.done.entry(conn).or_default();
                for part in &received {
                    if self.log.remembers {
                        assert!(*part == pattern(*done, part.len()), "damage near {done}");
                    }
                    *done += part.len();
                    self.stack.consume(conn, part.len(), &mut self.log);
                }
                if finished {
                    self.stack
                        .send(conn, &[&(*done as u64).to_be_bytes()], &mut self.log);
                    self.stack.close(conn, &mut self.log);
                }
            }
            SOURCE => {
                if let Some(Ok(request)) = received.first().map(|part| part.as_ref().try_into()) {
                    self.asked
                        .insert(conn, u64::from_be_bytes(request) as usize);
                    self.stack.consume(conn, 8, &mut self.log);
                }
                let Some(asked) = self.asked.get(&conn).copied() else {
                    return;
                };
                let done = self.done.entry(conn).or_default();
                while *done < asked && self.stack.send_queued(conn) < SEND_QUEUE {
                    let len = (asked - *done).min(1 << 20);
                    match self.log.remembers {
                        true => self
                            .stack
                            .send(conn, &[&pattern(*done, len)], &mut self.log),
                        false => self.stack.send(conn, &[&self.source[..len]], &mut self.log),
                    }
                    *done += len;
                }
                if *done == asked {
                    self.asked.remove(&conn);
                    self.stack.close(conn, &mut self.log);
                }
            }
            _ => {}
        }
    }
}

/// Sends an ICMP echo request with `len` bytes and waits for its reply. The first ones may be lost: the kernel drops
/// for up to a second after the link is up, and a host that has just started asks for its neighbour before it answers.
pub(super) fn ping(address: IpAddr, len: usize) {
    let (family, protocol, request, reply) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket = socket(family, SocketType::RAW, Some(protocol)).expect("a raw socket");
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(Duration::from_secs(2)),
    )
    .expect("a timeout");
    let mut message = vec![request, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.extend(pattern(len, len));
    if address.is_ipv4() {
        let sum: u32 = message
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
            .sum();
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = !((sum >> 16) + sum) as u16;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let mut buffer = vec![0; 4096];
    for _ in 0..10 {
        sendto(
            &socket,
            &message,
            SendFlags::empty(),
            &SocketAddr::new(address, 0),
        )
        .expect("a ping");
        // The socket also receives neighbour discovery, and replies to earlier attempts.
        while let Ok((len, ..)) = recvfrom(&socket, &mut buffer[..], RecvFlags::empty()) {
            // A raw IPv4 socket returns the IP header too.
            let heard = &buffer[if address.is_ipv4() { 20 } else { 0 }..len];
            if heard[0] == reply && heard[4..] == message[4..] {
                return;
            }
        }
    }
    panic!("no reply from {address} to {len} bytes");
}
