//! Our stack and smoltcp's TCP at the two ends of a faulty wire, with crashes in between.

#![allow(dead_code)] // each test uses its part

pub mod client;
pub mod journal;
pub mod server;

use std::time::Duration;

use outlast_stack::device::{Faults, MemoryDevice, pair};
use outlast_stack::{Capabilities, Config, Lost};

use client::Client;
use server::Server;

pub const SERVER_IP: [u8; 4] = [10, 0, 0, 1];
pub const CLIENT_IP: [u8; 4] = [10, 0, 0, 2];
pub const PORT: u16 = 445;

/// What the two applications do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// The client sends, the server reads.
    Upload,
    /// The server sends, the client reads.
    Download,
    /// The server sends back what it reads.
    Echo,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub seed: u64,
    pub traffic: Traffic,
    pub bytes: usize,
    pub faults: Faults,
    /// The server crashes about this often, in parts per million of its turns.
    pub crash_ppm: u32,
    pub crashes_max: u32,
    /// Wire time of an outage.
    pub outage: Duration,
    pub lost: Lost,
    pub client_buffer: usize,
    pub server_buffer: usize,
    /// How often the two applications read.
    pub client_pause: Duration,
    pub server_pause: Duration,
    pub offload: bool,
    pub timestamps: bool,
    /// Turns, in parts per million, in which the log has no room.
    pub full_ppm: u32,
    /// Turns, in parts per million, in which the connection is written again at the log's head.
    pub relocate_ppm: u32,
    /// Our initial sequence number.
    pub iss: Option<u32>,
}

impl Scenario {
    pub fn new(seed: u64, traffic: Traffic, bytes: usize) -> Scenario {
        Scenario {
            seed,
            traffic,
            bytes,
            faults: Faults {
                delay: Duration::from_micros(200),
                ..Faults::default()
            },
            crash_ppm: 0,
            crashes_max: u32::MAX,
            outage: Duration::from_millis(300),
            lost: Lost::Frames,
            client_buffer: 256 << 10,
            server_buffer: 1 << 20,
            client_pause: Duration::ZERO,
            server_pause: Duration::ZERO,
            offload: false,
            timestamps: true,
            full_ppm: 0,
            relocate_ppm: 0,
            iss: None,
        }
    }
}

/// Statistics of a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    pub crashes: u32,
    pub relocations: u32,
    pub took: Duration,
    pub server_frames: u64,
    pub wrapped: bool,
}

pub fn config(receive_buffer: usize, offload: bool) -> Config {
    Config {
        addresses: vec![(SERVER_IP.into(), 24)],
        ports: vec![PORT],
        receive_buffer,
        capabilities: Capabilities {
            checksum: offload,
            tso4: offload,
            tso6: offload,
        },
        ..Config::default()
    }
}

/// The stream's byte at a position, different in the two directions.
pub fn stream(seed: u64, from: usize, len: usize) -> Vec<u8> {
    (from..from + len)
        .map(|at| {
            let word = (at as u64 / 8)
                .wrapping_add(seed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (word >> (8 * (at % 8))) as u8
        })
        .collect()
}

/// A small seeded random number generator.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn chance(&mut self, ppm: u32) -> bool {
        self.next() % 1_000_000 < u64::from(ppm)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Runs a scenario to its end; panics if bytes differ, a reset is seen, a law is broken, or it takes too long.
pub fn run(scenario: Scenario) -> Report {
    let capabilities = config(0, scenario.offload).capabilities;
    let (server_end, client_end): (MemoryDevice, MemoryDevice) = pair(
        [capabilities, Capabilities::default()],
        scenario.faults,
        scenario.seed,
    );
    let start = scenario
        .iss
        .map_or(Duration::from_secs(1), server::start_for_iss);
    let mut server = Server::new(&scenario, server_end, start);
    let mut client = Client::new(&scenario, client_end);
    let mut now = Duration::ZERO;
    let limit = Duration::from_secs(3600);
    for turn in 0.. {
        assert!(
            now < limit && turn < 2_000_000,
            "stuck: {scenario:?} {server:?} {client:?}"
        );
        server.turn(now);
        client.turn(now);
        if server.finished() && client.finished() {
            break;
        }
        if server.only_fin_missing()
            && client.forgot_its_fin(now)
            && server.device.next_arrival().is_none()
        {
            break;
        }
        let next = [server.next(now), client.next(now)]
            .into_iter()
            .flatten()
            .min();
        // At least a microsecond, so that time advances.
        now = next.unwrap_or(now).max(now + Duration::from_micros(1));
        server.device.advance(now);
    }
    server.check_streams(&client);
    Report {
        crashes: server.crashes,
        relocations: server.relocations,
        took: now,
        server_frames: server.device.transit().sent,
        wrapped: server.wrapped,
    }
}
