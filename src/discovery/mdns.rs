//! Implements a multicast DNS responder (RFC 6762): it answers on the link for the server's host name and its services
//! (RFC 6763), so that the Finder, Nautilus and other browsers show the server.
//!
//! The responder is pure: `(frame, now) -> frames`. It has no durable state: the next worker probes for its names
//! again, as after any other change of a link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use log::{info, warn};
use outlast_stack::{Datagram, TxFrame};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, SimpleDnsError,
};

use super::records::{Names, Own};

/// RFC 6762, section 3.
const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const GROUP_MAC_V4: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb];
const GROUP_MAC_V6: [u8; 6] = [0x33, 0x33, 0x00, 0x00, 0x00, 0xfb];
/// Section 11.
const HOP_LIMIT: u8 = 255;
/// Section 8.1.
const PROBES: u32 = 3;
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Section 8.2: after a lost tie-break the next probe waits this long.
const DEFERENCE: Duration = Duration::from_secs(1);
/// Section 8.3.
const ANNOUNCEMENTS: u32 = 2;
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// Section 6: the shortest time between two multicasts of a record.
const PAUSE: Duration = Duration::from_secs(1);
/// Section 6: answers with shared records wait from 20 to 120 ms.
const DELAY_MIN_MS: u64 = 20;
const DELAY_SPAN_MS: u64 = 101;
/// Section 6.7: the TTL of answers to hosts that do not implement multicast DNS.
const LEGACY_TTL_SECONDS: u32 = 10;
/// The largest number of names to try; beyond it the link is hostile.
const NAMES_MAX: u32 = 100;

/// The phase of the responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It probes for its names; `asked`: the number of probes sent.
    Probing { asked: u32 },
    /// The names are free; `made`: the number of announcements sent.
    Announcing { made: u32 },
    /// It answers.
    Answering,
    /// It has no name.
    Silent,
}

/// One of the server's records.
#[derive(Debug)]
struct Entry {
    own: Own,
    /// The time of the last multicast.
    sent_at: Option<Duration>,
    /// The time of the next multicast, if one is due.
    due: Option<Duration>,
}

/// The responder.
#[derive(Debug)]
pub struct Responder {
    name: String,
    number: u32,
    mac: [u8; 6],
    addresses: Vec<IpAddr>,
    names: Names,
    entries: Vec<Entry>,
    phase: Phase,
    /// The time at which the phase continues.
    next: Duration,
    /// Varies the delays.
    random: u64,
    out: Vec<TxFrame>,
}

impl Responder {
    /// Makes a responder for a server of this name, with these addresses on its link. `random`: any number.
    ///
    /// # Errors
    /// The name is invalid in DNS.
    pub fn new(
        name: &str,
        mac: [u8; 6],
        addresses: Vec<IpAddr>,
        random: u64,
        now: Duration,
    ) -> Result<Responder, SimpleDnsError> {
        let names = Names::new(name, 1)?;
        let mut responder = Responder {
            name: name.to_owned(),
            number: 1,
            mac,
            addresses,
            names,
            entries: Vec::new(),
            phase: Phase::Silent,
            next: now,
            random,
            out: Vec::new(),
        };
        responder.probe(1, now)?;
        Ok(responder)
    }

    /// Begins to probe for the names with this number. Section 8.1: the first probe waits up to 250 ms.
    fn probe(&mut self, number: u32, now: Duration) -> Result<(), SimpleDnsError> {
        self.number = number;
        self.names = Names::new(&self.name, number)?;
        let entries = self.names.records(&self.addresses)?.into_iter();
        self.entries = entries
            .map(|own| Entry {
                own,
                sent_at: None,
                due: None,
            })
            .collect();
        self.phase = Phase::Probing { asked: 0 };
        self.next = now + Duration::from_millis(self.draw(250));
        Ok(())
    }

    /// Draws a number less than `bound` (SplitMix64).
    fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Returns the host's name in the usual notation.
    #[must_use]
    pub fn host(&self) -> String {
        self.names.host.to_string()
    }

    /// Processes a received frame, and ignores other protocols.
    pub fn receive(&mut self, frame: &[u8], now: Duration) {
        let Some(datagram) = Datagram::parse(frame).filter(|it| it.destination.port() == PORT)
        else {
            return;
        };
        let to = datagram.destination.ip();
        let is_multicast = to == IpAddr::from(GROUP_V4) || to == IpAddr::from(GROUP_V6);
        if !is_multicast && !self.addresses.contains(&to)
            || self.addresses.contains(&datagram.source.ip())
        {
            return;
        }
        // Section 18: messages with another opcode or response code are ignored.
        let Ok(packet) = Packet::parse(datagram.payload) else {
            return;
        };
        if packet.has_flags(PacketFlag::RESPONSE) {
            // Section 11: responses from another port are ignored.
            if datagram.source.port() == PORT {
                self.process_answers(&packet, now);
            }
        } else {
            self.process_probe(&packet, now);
            self.process_questions(&packet, &datagram, now);
        }
    }

    /// Section 9: detects conflicts, where another host has a record of a name that is unique to this server.
    fn process_answers(&mut self, packet: &Packet<'_>, now: Duration) {
        let is_conflict = |record: &ResourceRecord<'_>| {
            let same = |entry: &&Entry| is_same_set(&entry.own, record);
            let mut own = self.entries.iter().filter(same).peekable();
            own.peek().is_some() && !own.any(|entry| entry.own.record.rdata == record.rdata)
        };
        let records = packet.answers.iter().chain(&packet.additional_records);
        // Section 10.1: a record with TTL 0 is withdrawn and causes no conflict.
        let conflict = records.filter(|record| record.ttl > 0).any(is_conflict);
        if !conflict || self.phase == Phase::Silent {
            return;
        }
        let number = self.number + 1;
        warn!(
            "mDNS: another host is called {}; this server continues with number {number}",
            self.names.host
        );
        if number > NAMES_MAX || self.probe(number, now).is_err() {
            warn!("mDNS: no name is free: the server does not announce itself");
            self.phase = Phase::Silent;
        }
    }

    /// Section 8.2: breaks the tie with another host that probes for the same name. The lexicographically later data
    /// win.
    fn process_probe(&mut self, packet: &Packet<'_>, now: Duration) {
        let Phase::Probing { .. } = self.phase else {
            return;
        };
        let mut theirs: Vec<Vec<u8>> = Vec::new();
        let mut ours: Vec<Vec<u8>> = Vec::new();
        for record in &packet.name_servers {
            if self
                .entries
                .iter()
                .any(|entry| is_same_set(&entry.own, record))
            {
                theirs.push(data(record));
            }
        }
        if theirs.is_empty() {
            return;
        }
        let unique = self.entries.iter().filter(|entry| entry.own.is_unique);
        ours.extend(unique.map(|entry| data(&entry.own.record)));
        ours.sort();
        theirs.sort();
        if ours < theirs {
            self.phase = Phase::Probing { asked: 0 };
            self.next = now + DEFERENCE;
        }
    }

    fn process_questions(&mut self, packet: &Packet<'_>, from: &Datagram<'_>, now: Duration) {
        if matches!(self.phase, Phase::Probing { .. } | Phase::Silent) {
            return;
        }
        let is_legacy = from.source.port() != PORT;
        let delay = DELAY_MIN_MS + self.draw(DELAY_SPAN_MS);
        let mut unicast = Vec::new();
        for question in &packet.questions {
            for entry in &mut self.entries {
                let record = &entry.own.record;
                if !answers(record, question) || is_known(record, packet) {
                    continue;
                }
                // Section 5.4: a request for a unicast response receives one, if the record was multicast recently.
                let ttl = Duration::from_secs(record.ttl.into());
                let is_recent = entry.sent_at.is_some_and(|at| now < at + ttl / 4);
                if is_legacy || (question.unicast_response && is_recent) {
                    unicast.push(entry.own.clone());
                    continue;
                }
                let wait = match entry.own.is_unique {
                    true => Duration::ZERO,
                    false => Duration::from_millis(delay),
                };
                let due = entry.sent_at.map_or(now, |at| now.max(at + PAUSE)) + wait;
                entry.due = Some(entry.due.map_or(due, |before| before.min(due)));
            }
        }
        if !unicast.is_empty() {
            self.answer_by_unicast(packet, from, is_legacy, &unicast);
        }
    }

    fn answer_by_unicast(
        &mut self,
        packet: &Packet<'_>,
        from: &Datagram<'_>,
        is_legacy: bool,
        own: &[Own],
    ) {
        // Section 6.7: the response is that of a conventional name server, with the question.
        let mut reply = Packet::new_reply(if is_legacy { packet.id() } else { 0 });
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        if is_legacy {
            reply.questions = packet.questions.clone();
        }
        reply.answers.extend(own.iter().map(|own| {
            let mut record = own
                .record
                .clone()
                .with_cache_flush(own.is_unique && !is_legacy);
            if is_legacy {
                record.ttl = record.ttl.min(LEGACY_TTL_SECONDS);
            }
            record
        }));
        let same_family = |address: &&IpAddr| address.is_ipv4() == from.source.is_ipv4();
        let Some(own) = self.addresses.iter().find(same_family).copied() else {
            return;
        };
        self.send(
            &reply,
            SocketAddr::new(own, PORT),
            from.source,
            from.source_mac,
        );
    }

    /// Returns the time of the next call of `poll`.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Probing { .. } | Phase::Announcing { .. } => Some(self.next),
            Phase::Answering | Phase::Silent => None,
        };
        let due = self.entries.iter().filter_map(|entry| entry.due);
        due.chain(phase).min()
    }

    /// Returns the frames to send now.
    pub fn poll(&mut self, now: Duration) -> Vec<TxFrame> {
        match self.phase {
            Phase::Probing { asked } if now >= self.next => self.ask(asked, now),
            Phase::Announcing { made } if now >= self.next => {
                let all = self.entries.iter_mut();
                all.for_each(|entry| entry.due = Some(now));
                let made = made + 1;
                self.next = now + ANNOUNCEMENT_INTERVAL;
                self.phase = match made {
                    ANNOUNCEMENTS => Phase::Answering,
                    _ => Phase::Announcing { made },
                };
            }
            _ => {}
        }
        self.send_due(now);
        std::mem::take(&mut self.out)
    }

    fn ask(&mut self, asked: u32, now: Duration) {
        if asked == PROBES {
            info!("mDNS: the server is {}", self.names.host);
            self.phase = Phase::Announcing { made: 0 };
            self.next = now;
            return;
        }
        let mut query = Packet::new_query(0);
        for name in [&self.names.host, &self.names.smb] {
            let any = Question::new(name.clone(), QTYPE::ANY, QCLASS::CLASS(CLASS::IN), true);
            query.questions.push(any);
        }
        let unique = self.entries.iter().filter(|entry| entry.own.is_unique);
        query
            .name_servers
            .extend(unique.map(|entry| entry.own.record.clone()));
        self.multicast(&query);
        self.phase = Phase::Probing { asked: asked + 1 };
        self.next = now + PROBE_INTERVAL;
    }

    fn send_due(&mut self, now: Duration) {
        let mut reply = new_answer();
        for entry in &mut self.entries {
            if entry.due.take_if(|due| *due <= now).is_some() {
                entry.sent_at = Some(now);
                let record = entry.own.record.clone();
                reply
                    .answers
                    .push(record.with_cache_flush(entry.own.is_unique));
            }
        }
        if !reply.answers.is_empty() {
            self.multicast(&reply);
        }
    }

    /// Section 10.1: withdraws all records, because the server ends and no other one continues it.
    pub fn goodbye(&mut self) -> Vec<TxFrame> {
        if matches!(self.phase, Phase::Announcing { .. } | Phase::Answering) {
            let mut reply = new_answer();
            reply
                .answers
                .extend(self.entries.iter().map(|entry| ResourceRecord {
                    ttl: 0,
                    ..entry.own.record.clone()
                }));
            self.multicast(&reply);
        }
        self.phase = Phase::Silent;
        std::mem::take(&mut self.out)
    }

    /// Sends to all hosts on the link, once for each address family.
    fn multicast(&mut self, packet: &Packet<'_>) {
        for (group, mac) in [
            (IpAddr::from(GROUP_V4), GROUP_MAC_V4),
            (IpAddr::from(GROUP_V6), GROUP_MAC_V6),
        ] {
            let same_family = |address: &&IpAddr| address.is_ipv4() == group.is_ipv4();
            if let Some(own) = self.addresses.iter().find(same_family).copied() {
                self.send(
                    packet,
                    SocketAddr::new(own, PORT),
                    SocketAddr::new(group, PORT),
                    mac,
                );
            }
        }
    }

    fn send(
        &mut self,
        packet: &Packet<'_>,
        source: SocketAddr,
        destination: SocketAddr,
        mac: [u8; 6],
    ) {
        let Ok(payload) = packet.build_bytes_vec_compressed() else {
            return;
        };
        let datagram = Datagram {
            source_mac: self.mac,
            source,
            destination,
            payload: &payload,
        };
        self.out.extend(datagram.frame(mac, HOP_LIMIT));
    }
}

/// Section 18: the id is zero, and the answer is authoritative.
fn new_answer() -> Packet<'static> {
    let mut reply = Packet::new_reply(0);
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    reply
}

fn answers(record: &ResourceRecord<'_>, question: &Question<'_>) -> bool {
    record.name == question.qname
        && record.match_qtype(question.qtype)
        && record.match_qclass(question.qclass)
        // AXFR is for zone transfers.
        && question.qtype != QTYPE::AXFR
}

/// Section 7.1: returns whether the querier knows the record, for at least half of its TTL.
fn is_known(record: &ResourceRecord<'_>, packet: &Packet<'_>) -> bool {
    packet.answers.iter().any(|known| {
        known.name == record.name && known.rdata == record.rdata && known.ttl >= record.ttl / 2
    })
}

/// Returns whether a record has the name, type and class of a unique record of this server.
fn is_same_set(own: &Own, record: &ResourceRecord<'_>) -> bool {
    own.is_unique
        && own.record.name == record.name
        && own.record.class == record.class
        && own.record.rdata.type_code() == record.rdata.type_code()
}

/// Section 8.2.1: returns class, type and data in the form for the comparison. The names are equal.
fn data(record: &ResourceRecord<'_>) -> Vec<u8> {
    let mut alone = Packet::new_reply(0);
    let bare = ResourceRecord {
        name: Name::new_with_labels(&[]),
        ttl: 0,
        ..record.clone()
    };
    alone.answers.push(bare);
    let bytes = alone.build_bytes_vec().unwrap_or_default();
    let kind = u16::from(record.rdata.type_code());
    // The data follow the header, the empty name, type, class, TTL and length.
    let data = bytes.get(12 + 1 + 10..).unwrap_or_default();
    [&[0, CLASS::IN as u8][..], &kind.to_be_bytes(), data].concat()
}

#[cfg(test)]
mod tests;
