//! Defines the configuration of a stack.

use std::net::IpAddr;
use std::time::Duration;

use crate::Capabilities;

/// Addresses, ports, limits and timers of a [`Stack`](crate::Stack).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Our Ethernet address.
    pub mac: [u8; 6],
    /// Our addresses and their prefix lengths, both families.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routers, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet of the link, bytes.
    pub mtu: usize,
    /// What the device does for us (offload).
    pub capabilities: Capabilities,
    /// TCP ports we listen on, on every address.
    pub ports: Vec<u16>,
    /// Bytes that a connection may hold without a grant: its receive queue, and the window that is opened again as the
    /// application consumes. At most 16 MiB. An application that waits for longer messages grants more
    /// ([`Stack::grant`](crate::Stack::grant)).
    pub receive_buffer: usize,
    /// The largest window that is ever granted, in bytes, if it is more than `receive_buffer`. At most 16 MiB.
    pub largest_window: usize,
    /// Bytes that all connections may hold together, queued or offered: room that the journal has set aside. At least
    /// `max_connections` times `receive_least`, and at least `receive_reserve`.
    pub receive_total: usize,
    /// Bytes of `receive_total` that are kept for grants.
    pub receive_reserve: usize,
    /// Bytes that a connection may hold without a grant however many connections there are.
    pub receive_least: usize,
    /// Connections in total, half-open ones included. Beyond it the oldest one in TIME-WAIT or, failing that, in
    /// SYN-RECEIVED is closed; if there is none, a SYN is dropped silently.
    pub max_connections: usize,
    /// Connections in SYN-RECEIVED. SYNs beyond it are answered with a cookie, and no state is kept for them (RFC 4987,
    /// section 3.6).
    pub max_half_open: usize,
    /// Bytes of out-of-order segments kept, over all connections. Beyond it those of a connection that holds more than
    /// its share are dropped, and the peer sends them again (RFC 2018, section 8).
    pub max_out_of_order: usize,
    /// Echo requests answered in one second.
    pub max_echoes_per_second: u32,
    /// TTL or hop limit of segments.
    pub hop_limit: u8,
    /// Differentiated Services codepoint of segments (RFC 2474), 0 to 63.
    pub dscp: u8,
    /// Silence after which a keep-alive probe is sent (RFC 9293, section 3.8.4); `None`: never.
    pub keep_alive_idle: Option<Duration>,
    /// Time between unanswered keep-alive probes.
    pub keep_alive_interval: Duration,
    /// Unanswered keep-alive probes after which the connection is given up.
    pub keep_alive_probes: u32,
    /// Time without progress of sent data after which the connection is given up (R2 of RFC 9293, section 3.8.3).
    pub user_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mac: [0x02, 0, 0, 0, 0, 0x10],
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: 1500,
            capabilities: Capabilities::default(),
            ports: Vec::new(),
            receive_buffer: 16 << 20,
            largest_window: 0,
            receive_total: usize::MAX,
            receive_reserve: 0,
            receive_least: 0,
            max_connections: 4096,
            max_half_open: 512,
            max_out_of_order: 64 << 20,
            max_echoes_per_second: 1000,
            hop_limit: 64,
            dscp: 0,
            keep_alive_idle: Some(Duration::from_secs(120)),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_probes: 8,
            user_timeout: Duration::from_secs(900),
        }
    }
}

impl Config {
    /// The largest window that a connection may be promised, bytes.
    pub(crate) fn window_max(&self) -> usize {
        self.receive_buffer.max(self.largest_window)
    }
}
