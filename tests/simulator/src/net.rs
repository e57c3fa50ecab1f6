//! Simulates the clients' machine: smoltcp's TCP, which is independent of the server's, at the other end of a wire with
//! faults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use outlast_stack::device::{MemoryDevice, SmoltcpPort};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use crate::board::Board;
use crate::kinds::Kind;
use crate::player::Player;
use crate::progress::{Position, Progress};
use crate::scenario::Scenario;
use crate::unauthenticated::{self, Visit};
use crate::workload::Op;

/// The server's addresses, with the lengths of their prefixes.
pub const SERVER: [(IpAddr, u8); 2] = addresses(1);
/// The port of direct TCP (MS-SMB2 2.1).
pub const PORT: u16 = 445;
const CLIENT: [(IpAddr, u8); 2] = addresses(2);
/// smoltcp 0.14 can lose its retransmission timer after a fast retransmission, and then waits endlessly. Answers to
/// keep-alive probes count as duplicate acknowledgements, which make it retransmit.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(15);
/// The interval where clients wait for the room that others have been promised: a client without its timer would stop
/// them all.
const KEEP_ALIVE_SHARING: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(200);
/// The time for which a client waits for the acknowledgement of its FIN.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
const BUFFER_BYTES: usize = 16 << 10;
/// The first client's port; the others follow.
pub const FIRST_PORT: u16 = 49_152;
/// The difference between the ports of a client's first and second connection.
const AGAIN: u16 = 1000;

const fn addresses(host: u8) -> [(IpAddr, u8); 2] {
    [
        (IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 24),
        (
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host as u16)),
            64,
        ),
    ]
}

/// All clients, on one machine.
pub struct Net {
    port: SmoltcpPort<MemoryDevice>,
    interface: Interface,
    sockets: SocketSet<'static>,
    seats: Vec<Seat>,
    visit: Option<(Visit, SocketHandle)>,
    server: IpAddr,
}

/// A player and its socket.
struct Seat {
    player: Player,
    socket: SocketHandle,
    /// It connects only when the others have left.
    connects_late: bool,
    port: u16,
    /// The time at which it last took the received bytes, and the interval until it takes them again.
    took_at: Duration,
    takes_every: Duration,
    /// Bytes given to TCP, and taken from it.
    sent: usize,
    received: usize,
    /// Checks its progress after an outage, if that is required.
    progress: Option<Progress>,
    /// The time at which it sent its FIN.
    closing: Option<Duration>,
    /// The time at which the server has ended its connection; the client then makes another one.
    cut_at: Option<Duration>,
    gone: bool,
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

impl Net {
    /// Makes the clients, which have not connected yet.
    ///
    /// # Panics
    /// smoltcp rejects the addresses.
    #[must_use]
    pub fn new(device: MemoryDevice, players: Vec<Player>, scenario: &Scenario) -> Net {
        let mut port = SmoltcpPort::new(device, 1500);
        let address = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 0x20]));
        let mut config = Config::new(address);
        config.random_seed = scenario.seed;
        let mut interface = Interface::new(config, &mut port, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for (address, prefix_len) in CLIENT {
                let cidr = IpCidr::new(IpAddress::from(address), prefix_len);
                addresses.push(cidr).expect("room for two addresses");
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let (server, _) = SERVER[usize::from(scenario.ipv6)];
        let mut connect = |port: Option<u16>, keep_alive| {
            let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_nagle_enabled(false);
            socket.set_keep_alive(Some(keep_alive));
            if scenario.timestamps {
                // smoltcp's generator takes no argument; a constant clock is permitted (RFC 7323, section 5.4, requires
                // a monotonic one).
                socket.set_tsval_generator(Some(|| 1000));
            }
            if let Some(port) = port {
                let remote = (IpAddress::from(server), PORT);
                socket
                    .connect(interface.context(), remote, port)
                    .expect("a free port");
            }
            sockets.add(socket)
        };
        let seats = players.into_iter().zip(FIRST_PORT..);
        let keep_alive = match scenario.kind {
            Kind::Uploads { .. } => KEEP_ALIVE_SHARING,
            _ => KEEP_ALIVE,
        };
        let newcomer = scenario.kind.limits().map(|limits| limits.newcomer);
        let seats = seats.enumerate().map(|(index, (player, port))| {
            let connects_late = newcomer == Some(index);
            // Progress is not checked where a medium takes time, or where a client takes its replies only at intervals.
            let is_clean = scenario.faults.loss_ppm + scenario.faults.corrupt_ppm == 0;
            let is_checked = !scenario.rules.is_alone(index)
                && is_clean
                && scenario.power.is_none()
                && scenario.kind.pause_of(index).is_zero();
            Seat {
                player,
                socket: connect((!connects_late).then_some(port), keep_alive),
                connects_late,
                port,
                took_at: Duration::ZERO,
                takes_every: scenario.kind.pause_of(index),
                sent: 0,
                received: 0,
                progress: is_checked.then(|| Progress::new(scenario.kind.shares_room())),
                closing: None,
                cut_at: None,
                gone: false,
            }
        });
        let seats = seats.collect();
        let visit = scenario.unauthenticated.map(|how| {
            let socket = connect(Some(unauthenticated::PORT), unauthenticated::KEEP_ALIVE);
            (Visit::new(how), socket)
        });
        Net {
            port,
            interface,
            sockets,
            seats,
            visit,
            server,
        }
    }

    /// Processes everything that is due at this instant.
    ///
    /// # Panics
    /// The server has ended a connection that it must keep, or has given a wrong answer.
    pub fn turn(&mut self, now: Duration, ops: &[Op], board: &mut Board) {
        self.port.device().advance(now);
        if board.vacant {
            self.connect_newcomer();
        }
        self.connect_again();
        self.poll(now);
        // A message to one client may allow another one to continue.
        for _ in 0..2 {
            for seat in &mut self.seats {
                let socket: &mut tcp::Socket = self.sockets.get_mut(seat.socket);
                seat.exchange(socket, now, ops, board);
            }
        }
        if let Some((visit, socket)) = &mut self.visit {
            visit.exchange(self.sockets.get_mut(*socket), now, board);
        }
        self.poll(now);
    }

    /// Connects the newcomer when the others have left and the server has no state of them.
    fn connect_newcomer(&mut self) {
        if !self
            .seats
            .iter()
            .all(|seat| seat.gone || seat.connects_late)
        {
            return;
        }
        let Some(late) = self.seats.iter_mut().find(|seat| seat.connects_late) else {
            return;
        };
        late.connects_late = false;
        let (socket, port) = (late.socket, late.port);
        let socket: &mut tcp::Socket = self.sockets.get_mut(socket);
        let remote = (IpAddress::from(self.server), PORT);
        socket
            .connect(self.interface.context(), remote, port)
            .expect("a free port");
    }

    /// Connects clients again whose connections the server has ended.
    fn connect_again(&mut self) {
        for seat in &mut self.seats {
            let socket: &mut tcp::Socket = self.sockets.get_mut(seat.socket);
            if seat.cut_at.is_none() || socket.state() != tcp::State::Closed {
                continue;
            }
            seat.cut_at = None;
            seat.port += AGAIN;
            let remote = (IpAddress::from(self.server), PORT);
            socket
                .connect(self.interface.context(), remote, seat.port)
                .expect("a free port");
        }
    }

    fn poll(&mut self, now: Duration) {
        self.interface
            .poll(instant(now), &mut self.port, &mut self.sockets);
    }

    /// Returns whether every client has done all its operations and closed its connection.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let visit = self.visit.as_ref();
        self.seats.iter().all(|seat| seat.gone) && visit.is_none_or(|(visit, _)| visit.is_over())
    }

    /// Returns whether the server may end the connection with this port: the client has sent its FIN, or has not logged
    /// in for long enough.
    #[must_use]
    pub fn may_end(&self, port: u16) -> bool {
        if let Some((visit, _)) = self
            .visit
            .as_ref()
            .filter(|_| port == unauthenticated::PORT)
        {
            return visit.is_due();
        }
        let seat = self.seats.iter().find(|seat| seat.port == port);
        seat.is_some_and(|seat| seat.closing.is_some())
    }

    /// Describes what each client waits for.
    #[must_use]
    pub fn state(&self) -> String {
        let seats = self.seats.iter().map(|seat| {
            let socket: &tcp::Socket = self.sockets.get(seat.socket);
            let queued = socket.send_queue();
            format!(
                "{} tcp {}, {queued} bytes not acknowledged",
                seat.player.state(),
                socket.state()
            )
        });
        seats.collect::<Vec<_>>().join("\n")
    }

    /// Returns the time of the clients' next event.
    pub fn next(&mut self, now: Duration) -> Option<Duration> {
        let at = self
            .interface
            .poll_at(instant(now), &self.sockets)
            .map(|at| Duration::from_micros(at.total_micros().max(0) as u64));
        let arrival = self.port.device().next_arrival();
        let players = self.seats.iter().filter_map(|seat| seat.player.next());
        let takes = self.seats.iter().filter(|seat| !seat.gone);
        let takes = takes.map(|seat| seat.took_at + seat.takes_every);
        [at, arrival]
            .into_iter()
            .flatten()
            .chain(players.chain(takes).filter(|at| *at > now))
            .min()
            .map(|at| at.max(now))
    }
}

impl Seat {
    fn check_progress(&mut self, socket: &tcp::Socket<'_>, now: Duration, board: &Board) {
        let Some(progress) = &mut self.progress else {
            return;
        };
        let queued = socket.send_queue();
        let position = Position {
            acknowledged: self.sent - queued.min(self.sent),
            received: self.received,
            is_waiting: self.closing.is_none()
                && (queued > 0 || self.player.client.is_waiting() || !socket.may_send()),
        };
        let looked = progress.look(position, now, &board.outages, board.frames_lost);
        if let Err(waited) = looked {
            panic!(
                "the server restarted {waited:?} ago, and this client makes no progress: {}; tcp {}, {queued} bytes \
                 not acknowledged",
                self.player.state(),
                socket.state()
            );
        }
    }

    fn exchange(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        now: Duration,
        ops: &[Op],
        board: &mut Board,
    ) {
        if self.gone || self.connects_late {
            return;
        }
        if let Some(since) = self.cut_at {
            if now > since + CLOSE_TIMEOUT {
                socket.abort();
            }
            return;
        }
        if socket.may_send() {
            self.player.connected(board);
        }
        let takes = now >= self.took_at + self.takes_every;
        if takes {
            self.took_at = now;
        }
        while takes && socket.can_recv() {
            let bytes = socket
                .recv(|bytes| (bytes.len(), bytes.to_vec()))
                .expect("bytes that are there");
            self.received += bytes.len();
            self.player.receive(&bytes, board, now);
        }
        self.player.play(ops, board, now);
        let outbox = &mut self.player.client.outbox;
        if !outbox.is_empty() && socket.can_send() {
            let sent = socket.send_slice(outbox).expect("room that is there");
            outbox.drain(..sent);
            self.sent += sent;
        }
        self.check_progress(socket, now, board);
        if self.player.is_leaving() && self.closing.is_none() && socket.may_send() {
            assert!(
                self.player.client.is_drained(),
                "a part of a message is left"
            );
            socket.close();
            self.closing = Some(now);
        }
        // smoltcp 0.14 can lose the timer of its FIN when acknowledgements repeat: such a client resets its connection
        // instead.
        if self
            .closing
            .is_some_and(|since| now > since + CLOSE_TIMEOUT)
        {
            socket.abort();
        }
        let state = socket.state();
        self.gone =
            self.closing.is_some() && matches!(state, tcp::State::Closed | tcp::State::TimeWait);
        let lost = matches!(
            state,
            tcp::State::Closed | tcp::State::TimeWait | tcp::State::CloseWait | tcp::State::LastAck
        );
        if lost && self.closing.is_none() && self.player.may_be_cut(board) {
            self.player.cut(board);
            socket.close();
            self.cut_at = Some(now);
            return;
        }
        assert!(
            self.closing.is_some() || !lost,
            "the server has ended the connection: {state}; {}",
            self.player.state()
        );
    }
}
