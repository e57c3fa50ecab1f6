//! Implements the peer by smoltcp's TCP, an independent implementation.

use std::time::Duration;

use outlast_stack::device::{MemoryDevice, SmoltcpPort};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::{CLIENT_IP, PORT, SERVER_IP, Scenario, Traffic, stream};

pub struct Client {
    port: SmoltcpPort<MemoryDevice>,
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    scenario: Scenario,
    sent: usize,
    pub received: Vec<u8>,
    last_read: Duration,
    done: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let socket: &tcp::Socket = self.sockets.get(self.handle);
        write!(
            f,
            "client {} sent {} received {}",
            socket.state(),
            self.sent,
            self.received.len()
        )
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

impl Client {
    pub fn new(scenario: &Scenario, device: MemoryDevice) -> Client {
        let mut port = SmoltcpPort::new(device, 1500);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress([
            2, 0, 0, 0, 0, 0x20,
        ])));
        config.random_seed = scenario.seed;
        let mut iface = Interface::new(config, &mut port, Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(
                    IpAddress::from(std::net::Ipv4Addr::from(CLIENT_IP)),
                    24,
                ))
                .unwrap()
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; scenario.client_buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        if scenario.timestamps {
            // smoltcp's generator takes no argument; a constant clock is legal (RFC 7323, section 5.4 asks for
            // monotony).
            socket.set_tsval_generator(Some(|| 1000));
        }
        let mut sockets = SocketSet::new(Vec::new());
        let remote = (IpAddress::from(std::net::Ipv4Addr::from(SERVER_IP)), PORT);
        socket.connect(iface.context(), remote, 49_152).unwrap();
        let handle = sockets.add(socket);
        Client {
            port,
            iface,
            sockets,
            handle,
            scenario: *scenario,
            sent: 0,
            received: Vec::new(),
            last_read: Duration::ZERO,
            done: false,
        }
    }

    pub fn turn(&mut self, now: Duration) {
        self.iface
            .poll(instant(now), &mut self.port, &mut self.sockets);
        let reads = now >= self.last_read + self.scenario.client_pause;
        let socket: &mut tcp::Socket = self.sockets.get_mut(self.handle);
        let sends = self.scenario.traffic != Traffic::Download;
        while sends && self.sent < self.scenario.bytes && socket.can_send() {
            let len = (self.scenario.bytes - self.sent).min(16 << 10);
            self.sent += socket.send_slice(&stream(2, self.sent, len)).unwrap();
        }
        if reads && socket.can_recv() {
            self.last_read = now;
            while socket.can_recv() {
                let bytes = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
                self.received.extend_from_slice(&bytes);
            }
        }
        let all_read =
            self.scenario.traffic == Traffic::Upload || self.received.len() == self.scenario.bytes;
        if socket.may_send() && self.sent == if sends { self.scenario.bytes } else { 0 } && all_read
        {
            socket.close();
        }
        self.done = all_read && matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
        self.iface
            .poll(instant(now), &mut self.port, &mut self.sockets);
    }

    pub fn finished(&self) -> bool {
        self.done
    }

    /// smoltcp 0.14 can lose the timer of its FIN when acknowledgements repeat; its connection then waits for ever.
    pub fn forgot_its_fin(&mut self, now: Duration) -> bool {
        let socket: &tcp::Socket = self.sockets.get(self.handle);
        let waits = matches!(
            socket.state(),
            tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck
        );
        let empty = socket.send_queue() == 0;
        waits && empty && self.iface.poll_at(instant(now), &self.sockets).is_none()
    }

    pub fn next(&mut self, now: Duration) -> Option<Duration> {
        let at = self
            .iface
            .poll_at(instant(now), &self.sockets)
            .map(|at| Duration::from_micros(at.total_micros().max(0) as u64));
        let socket: &tcp::Socket = self.sockets.get(self.handle);
        let read = socket
            .can_recv()
            .then(|| self.last_read + self.scenario.client_pause);
        [at, read, self.port.device().next_arrival()]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now))
    }
}
