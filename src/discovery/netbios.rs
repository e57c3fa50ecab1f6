//! Implements the NetBIOS name service (RFC 1001, RFC 1002) as a B node: it claims the server's name by broadcast on
//! its IPv4 subnets, answers queries for it, and defends it. Thus `\\OUTLAST` works for clients that still use NetBIOS
//! names.
//!
//! The node is pure, as the multicast DNS responder: `(frame, now) -> frames`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use log::{info, warn};
use nom::IResult;
use nom::Parser as _;
use nom::bytes::complete::{tag, take};
use nom::number::complete::{be_u16, be_u32};
use outlast_stack::{Datagram, TxFrame};

use crate::config::Cidr;

/// RFC 1002, section 6.
const PORT: u16 = 137;
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
const RETRIES: u32 = 3;
/// The TTL in answers.
const TTL_SECONDS: u32 = 300_000;
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
const HOP_LIMIT: u8 = 64;

/// Section 4.2.1.1: opcodes and flags.
const OPCODE_MASK: u16 = 0x7800;
const QUERY: u16 = 0;
const REGISTRATION: u16 = 5 << 11;
const RELEASE: u16 = 6 << 11;
const RESPONSE: u16 = 0x8000;
const AUTHORITATIVE: u16 = 0x0400;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const BROADCAST: u16 = 0x0010;
const RCODE_MASK: u16 = 0x000f;
/// Section 4.2.6: another node owns the name.
const ACT_ERR: u16 = 6;
/// Section 4.2.1.2.
const NB: u16 = 0x0020;
const NBSTAT: u16 = 0x0021;
const IN: u16 = 1;
/// Section 4.2.2: a pointer to the name of the question, which begins after the header.
const NAME_OF_QUESTION: u16 = 0xc00c;
/// NB_FLAGS (section 4.2.1.3): a group's name.
const GROUP: u16 = 0x8000;
/// NAME_FLAGS (section 4.2.18): the name is in use.
const ACTIVE: u16 = 0x0400;
/// Length of the statistics after the unit id, in bytes.
const STATISTICS_LEN: usize = 40;

/// The 16th byte of a name: that of a workstation and that of a file server.
const SUFFIXES: [u8; 2] = [0x00, 0x20];

/// A name of 15 characters and a suffix.
type NetbiosName = [u8; 16];

/// The phase of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It claims its names; `asked`: the number of requests sent.
    Claiming { asked: u32 },
    /// It owns its names.
    Owning,
    /// Another node owns one of its names.
    Silent,
}

/// The node.
#[derive(Debug)]
pub struct Responder {
    name: String,
    mac: [u8; 6],
    subnets: Vec<(Ipv4Addr, Ipv4Addr)>,
    phase: Phase,
    next: Duration,
    /// NAME_TRN_ID of the requests.
    id: u16,
    out: Vec<TxFrame>,
}

/// A message's header and its first name.
#[derive(Debug, PartialEq)]
struct Message {
    id: u16,
    flags: u16,
    name: NetbiosName,
    /// The encoded name, with its scope.
    written: Vec<u8>,
    kind: u16,
    /// NB_FLAGS and the address of the additional record, if present.
    claim: Option<(u16, Ipv4Addr)>,
}

impl Responder {
    /// Makes a node for a server of this name, with these addresses on its link. `id`: any number.
    #[must_use]
    pub fn new(name: &str, mac: [u8; 6], addresses: &[Cidr], id: u16, now: Duration) -> Responder {
        let subnets = addresses.iter().filter_map(|own| match own.address {
            IpAddr::V4(address) => {
                let hosts = u32::MAX.checked_shr(own.prefix_bits.into()).unwrap_or(0);
                Some((address, Ipv4Addr::from(u32::from(address) | hosts)))
            }
            IpAddr::V6(_) => None,
        });
        Responder {
            name: name.to_owned(),
            mac,
            subnets: subnets.collect(),
            phase: Phase::Claiming { asked: 0 },
            next: now,
            id,
            out: Vec::new(),
        }
    }

    fn own_name(&self, suffix: u8) -> NetbiosName {
        let mut name = [b' '; 16];
        let upper = self.name.bytes().map(|byte| byte.to_ascii_uppercase());
        name.iter_mut()
            .take(15)
            .zip(upper)
            .for_each(|(to, byte)| *to = byte);
        name[15] = suffix;
        name
    }

    fn is_own(&self, name: &NetbiosName) -> bool {
        SUFFIXES
            .iter()
            .any(|suffix| self.own_name(*suffix) == *name)
    }

    /// Processes a received frame, and ignores other protocols.
    pub fn receive(&mut self, frame: &[u8]) {
        let Some(datagram) = Datagram::parse(frame).filter(|it| it.destination.port() == PORT)
        else {
            return;
        };
        let (IpAddr::V4(from), IpAddr::V4(to)) = (datagram.source.ip(), datagram.destination.ip())
        else {
            return;
        };
        let own = self
            .subnets
            .iter()
            .find(|(own, broadcast)| *own == to || *broadcast == to || to.is_broadcast());
        let is_own = |(own, _): &(Ipv4Addr, Ipv4Addr)| *own == from;
        let Some((own, _)) = own.copied().filter(|_| !self.subnets.iter().any(is_own)) else {
            return;
        };
        let Ok((_, message)) = message(datagram.payload) else {
            return;
        };
        let answer = match (message.flags & RESPONSE, message.flags & OPCODE_MASK) {
            (0, QUERY) => self.query(&message, own),
            (0, REGISTRATION) => self.defend(&message),
            (RESPONSE, REGISTRATION) => {
                self.process_refusal(&message);
                None
            }
            _ => None,
        };
        if let Some(answer) = answer {
            let source = SocketAddr::new(own.into(), PORT);
            self.send(&answer, source, datagram.source, datagram.source_mac);
        }
    }

    /// Sections 4.2.12, 4.2.13 and 4.2.17, 4.2.18: answers name queries and node status requests.
    fn query(&self, message: &Message, own: Ipv4Addr) -> Option<Vec<u8>> {
        let asks_all = message.name[0] == b'*' && message.name[1..].iter().all(|byte| *byte == 0);
        let is_own = self.is_own(&message.name);
        if self.phase != Phase::Owning {
            return None;
        }
        let flags = RESPONSE | AUTHORITATIVE;
        match message.kind {
            NB if is_own => {
                let mut data = 0_u16.to_be_bytes().to_vec();
                data.extend_from_slice(&own.octets());
                let desired = message.flags & RECURSION_DESIRED;
                Some(record(message, flags | desired, NB, TTL_SECONDS, &data))
            }
            NBSTAT if is_own || asks_all => {
                let mut data = vec![SUFFIXES.len() as u8];
                for suffix in SUFFIXES {
                    data.extend_from_slice(&self.own_name(suffix));
                    data.extend_from_slice(&ACTIVE.to_be_bytes());
                }
                data.extend_from_slice(&self.mac);
                data.extend_from_slice(&[0; STATISTICS_LEN]);
                Some(record(message, flags, NBSTAT, 0, &data))
            }
            _ => None,
        }
    }

    /// Section 4.2.6: refuses another node's registration of one of the names.
    fn defend(&self, message: &Message) -> Option<Vec<u8>> {
        let (nb_flags, address) = message.claim?;
        let is_owned = self.phase == Phase::Owning && self.is_own(&message.name);
        if !is_owned || nb_flags & GROUP != 0 || message.flags & RECURSION_DESIRED == 0 {
            return None;
        }
        let mut data = nb_flags.to_be_bytes().to_vec();
        data.extend_from_slice(&address.octets());
        let flags =
            RESPONSE | REGISTRATION | AUTHORITATIVE | RECURSION_DESIRED | RECURSION_AVAILABLE;
        Some(record(message, flags | ACT_ERR, NB, 0, &data))
    }

    fn process_refusal(&mut self, message: &Message) {
        let is_refused = message.flags & RCODE_MASK != 0 && message.id == self.id;
        if is_refused && matches!(self.phase, Phase::Claiming { .. }) && self.is_own(&message.name)
        {
            warn!(
                "NetBIOS: another host is called {}: the server cannot be found by this name; give server.name \
                 another one",
                self.name
            );
            self.phase = Phase::Silent;
        }
    }

    /// Returns the time of the next call of `poll`.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        matches!(self.phase, Phase::Claiming { .. }).then_some(self.next)
    }

    /// Returns the frames to send now. Section 5.1.1.1: three registration requests are followed by an overwrite
    /// demand.
    pub fn poll(&mut self, now: Duration) -> Vec<TxFrame> {
        if let Phase::Claiming { asked } = self.phase
            && now >= self.next
        {
            if asked < RETRIES {
                self.claim(REGISTRATION | RECURSION_DESIRED | BROADCAST);
                self.phase = Phase::Claiming { asked: asked + 1 };
                self.next = now + RETRY_INTERVAL;
            } else {
                self.claim(REGISTRATION | BROADCAST);
                info!("NetBIOS: the server is {}", self.name);
                self.phase = Phase::Owning;
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Section 4.2.9: releases the names, because the server ends and no other one continues it.
    pub fn goodbye(&mut self) -> Vec<TxFrame> {
        if self.phase == Phase::Owning {
            self.claim(RELEASE | BROADCAST);
        }
        self.phase = Phase::Silent;
        std::mem::take(&mut self.out)
    }

    /// Sections 4.2.2 and 4.2.9: sends the same message for each name on each subnet.
    fn claim(&mut self, flags: u16) {
        for (own, broadcast) in self.subnets.clone() {
            for suffix in SUFFIXES {
                let mut message = Vec::new();
                for word in [self.id, flags, 1, 0, 0, 1] {
                    message.extend_from_slice(&word.to_be_bytes());
                }
                message.extend_from_slice(&encode(&self.own_name(suffix)));
                for word in [NB, IN, NAME_OF_QUESTION, NB, IN] {
                    message.extend_from_slice(&word.to_be_bytes());
                }
                let ttl = if flags & OPCODE_MASK == RELEASE {
                    0
                } else {
                    TTL_SECONDS
                };
                message.extend_from_slice(&ttl.to_be_bytes());
                message.extend_from_slice(&6_u16.to_be_bytes());
                message.extend_from_slice(&0_u16.to_be_bytes());
                message.extend_from_slice(&own.octets());
                let [source, to] = [own, broadcast].map(|end| SocketAddr::new(end.into(), PORT));
                self.send(&message, source, to, BROADCAST_MAC);
            }
        }
    }

    fn send(&mut self, payload: &[u8], source: SocketAddr, destination: SocketAddr, mac: [u8; 6]) {
        let datagram = Datagram {
            source_mac: self.mac,
            source,
            destination,
            payload,
        };
        self.out.extend(datagram.frame(mac, HOP_LIMIT));
    }
}

/// Section 4.2.1.3: builds an answer with one record about the name of `message`.
fn record(message: &Message, flags: u16, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    for word in [message.id, flags, 0, 1, 0, 0] {
        answer.extend_from_slice(&word.to_be_bytes());
    }
    answer.extend_from_slice(&message.written);
    answer.extend_from_slice(&kind.to_be_bytes());
    answer.extend_from_slice(&IN.to_be_bytes());
    answer.extend_from_slice(&ttl.to_be_bytes());
    answer.extend_from_slice(&(data.len() as u16).to_be_bytes());
    answer.extend_from_slice(data);
    answer
}

/// RFC 1001, section 14.1: encodes each byte of a name as two letters.
fn encode(name: &NetbiosName) -> Vec<u8> {
    let letters = name
        .iter()
        .flat_map(|byte| [b'A' + (byte >> 4), b'A' + (byte & 15)]);
    std::iter::once(32).chain(letters).chain([0]).collect()
}

/// Parses a name with its scope, and returns it decoded and encoded.
fn name(input: &[u8]) -> IResult<&[u8], (NetbiosName, Vec<u8>)> {
    let (mut rest, (_, letters)) = (tag(&[32][..]), take(32_usize)).parse(input)?;
    let mut name = [0; 16];
    for (to, pair) in name.iter_mut().zip(letters.chunks_exact(2)) {
        let half = |letter: u8| letter.wrapping_sub(b'A') & 15;
        *to = half(pair[0]) << 4 | half(pair[1]);
    }
    // The scope consists of labels up to an empty one. A pointer is invalid.
    loop {
        let (after, len) = take(1_usize)(rest)?;
        match len {
            [0] => {
                let written = input.get(..input.len() - after.len()).unwrap_or_default();
                return Ok((after, (name, written.to_vec())));
            }
            [len] if *len < 64 => (rest, _) = take(*len)(after)?,
            _ => {
                let kind = nom::error::ErrorKind::Verify;
                return Err(nom::Err::Error(nom::error::Error::new(rest, kind)));
            }
        }
    }
}

/// Parses the header, the name of the question or of the first record, and the claim of a registration.
fn message(input: &[u8]) -> IResult<&[u8], Message> {
    let (input, (id, flags)) = (be_u16, be_u16).parse(input)?;
    let (input, (questions, answers, _, additional)) =
        (be_u16, be_u16, be_u16, be_u16).parse(input)?;
    if !matches!((questions, answers), (1, 0) | (0, 1)) {
        let kind = nom::error::ErrorKind::Verify;
        return Err(nom::Err::Error(nom::error::Error::new(input, kind)));
    }
    let (input, (name, written)) = name(input)?;
    let (input, (kind, _)) = (be_u16, be_u16).parse(input)?;
    let claim = match (questions, additional) {
        (1, 1) => claim(input).ok().map(|(_, claim)| claim),
        _ => None,
    };
    let message = Message {
        id,
        flags,
        name,
        written,
        kind,
        claim,
    };
    Ok((input, message))
}

/// Parses NB_FLAGS and address in the additional record of a registration, whose name is a pointer to the question's.
fn claim(input: &[u8]) -> IResult<&[u8], (u16, Ipv4Addr)> {
    let (input, _) = tag(&NAME_OF_QUESTION.to_be_bytes()[..])(input)?;
    let (input, (_, _, _, _)) = (be_u16, be_u16, be_u32, be_u16).parse(input)?;
    let (input, (nb_flags, address)) = (be_u16, be_u32).parse(input)?;
    Ok((input, (nb_flags, Ipv4Addr::from(address))))
}

#[cfg(test)]
mod tests;
