//! Multicast DNS (RFC 6762): the server answers on its link for its host name and its services (RFC 6763), so that the
//! Finder, Nautilus and other browsers show it.
//!
//! Pure: `(frame, now) -> frames`. It keeps nothing that has to survive: the next worker makes sure of its names anew,
//! as after any other change of a link.

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
/// Section 8.2: who loses against another host that probes waits so long.
const DEFERENCE: Duration = Duration::from_secs(1);
/// Section 8.3.
const ANNOUNCEMENTS: u32 = 2;
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);
/// Section 6: a record is not multicast again before that.
const PAUSE: Duration = Duration::from_secs(1);
/// Section 6: answers that other hosts may have, too, wait from 20 to 120 ms.
const DELAY_MIN_MS: u64 = 20;
const DELAY_SPAN_MS: u64 = 101;
/// Section 6.7: of answers to hosts that do not speak multicast DNS.
const LEGACY_TTL_SECONDS: u32 = 10;
/// More names are not tried: the link is hostile.
const NAMES_MAX: u32 = 100;

/// What the responder is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It makes sure that its names are free; so many questions have been asked.
    Probing { asked: u32 },
    /// They are; so many announcements have been made.
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
    /// When it was multicast last.
    told: Option<Duration>,
    /// When it is to be.
    due: Option<Duration>,
}

/// Answers for the server.
#[derive(Debug)]
pub struct Responder {
    name: String,
    number: u32,
    mac: [u8; 6],
    addresses: Vec<IpAddr>,
    names: Names,
    entries: Vec<Entry>,
    phase: Phase,
    /// When the phase continues.
    next: Duration,
    /// Varies the delays.
    random: u64,
    out: Vec<TxFrame>,
}

impl Responder {
    /// For a server of this name, with these addresses on its link. `random`: any number.
    ///
    /// # Errors
    /// It is no name for DNS.
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

    /// Begins with the names of this number. Section 8.1: the first question waits up to 250 ms.
    fn probe(&mut self, number: u32, now: Duration) -> Result<(), SimpleDnsError> {
        self.number = number;
        self.names = Names::new(&self.name, number)?;
        let entries = self.names.records(&self.addresses)?.into_iter();
        self.entries = entries
            .map(|own| Entry {
                own,
                told: None,
                due: None,
            })
            .collect();
        self.phase = Phase::Probing { asked: 0 };
        self.next = now + Duration::from_millis(self.draw(250));
        Ok(())
    }

    /// A number less than `bound` (SplitMix64).
    fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// The host's name, as people write it.
    #[must_use]
    pub fn host(&self) -> String {
        self.names.host.to_string()
    }

    /// Takes a frame; most are something else.
    pub fn hear(&mut self, frame: &[u8], now: Duration) {
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
        // Section 18: a message with another code is not for this protocol.
        let Ok(packet) = Packet::parse(datagram.payload) else {
            return;
        };
        if packet.has_flags(PacketFlag::RESPONSE) {
            // Section 11: what is not from that port is no answer.
            if datagram.source.port() == PORT {
                self.hear_answers(&packet, now);
            }
        } else {
            self.hear_probe(&packet, now);
            self.hear_questions(&packet, &datagram, now);
        }
    }

    /// Section 9: another host has a record of a name that is to be this server's alone.
    fn hear_answers(&mut self, packet: &Packet<'_>, now: Duration) {
        let is_conflict = |record: &ResourceRecord<'_>| {
            let same = |entry: &&Entry| is_same_set(&entry.own, record);
            let mut own = self.entries.iter().filter(same).peekable();
            own.peek().is_some() && !own.any(|entry| entry.own.record.rdata == record.rdata)
        };
        let told = packet.answers.iter().chain(&packet.additional_records);
        // Section 10.1: one that is taken back is none.
        let conflict = told.filter(|record| record.ttl > 0).any(is_conflict);
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

    /// Section 8.2: another host asks at the same time whether a name is free. Whose data are later wins.
    fn hear_probe(&mut self, packet: &Packet<'_>, now: Duration) {
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

    fn hear_questions(&mut self, packet: &Packet<'_>, from: &Datagram<'_>, now: Duration) {
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
                // Section 5.4: who wants to hear it alone does, if the others have heard it not long ago.
                let ttl = Duration::from_secs(record.ttl.into());
                let is_recent = entry.told.is_some_and(|told| now < told + ttl / 4);
                if is_legacy || (question.unicast_response && is_recent) {
                    unicast.push(entry.own.clone());
                    continue;
                }
                let wait = match entry.own.is_unique {
                    true => Duration::ZERO,
                    false => Duration::from_millis(delay),
                };
                let due = entry.told.map_or(now, |told| now.max(told + PAUSE)) + wait;
                entry.due = Some(entry.due.map_or(due, |before| before.min(due)));
            }
        }
        if !unicast.is_empty() {
            self.answer_alone(packet, from, is_legacy, &unicast);
        }
    }

    fn answer_alone(
        &mut self,
        packet: &Packet<'_>,
        from: &Datagram<'_>,
        is_legacy: bool,
        own: &[Own],
    ) {
        // Section 6.7: as an ordinary name server would, with the question.
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

    /// When there is something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Probing { .. } | Phase::Announcing { .. } => Some(self.next),
            Phase::Answering | Phase::Silent => None,
        };
        let due = self.entries.iter().filter_map(|entry| entry.due);
        due.chain(phase).min()
    }

    /// What is to be sent now.
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
        self.tell_what_is_due(now);
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

    fn tell_what_is_due(&mut self, now: Duration) {
        let mut reply = new_answer();
        for entry in &mut self.entries {
            if entry.due.take_if(|due| *due <= now).is_some() {
                entry.told = Some(now);
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

    /// Section 10.1: takes all of it back. The server ends, and no other continues.
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

    /// To all hosts on the link, once for each family of addresses.
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
        // It is for zone transfers.
        && question.qtype != QTYPE::AXFR
}

/// Section 7.1: who asks knows it, for half of its time at least.
fn is_known(record: &ResourceRecord<'_>, packet: &Packet<'_>) -> bool {
    packet.answers.iter().any(|known| {
        known.name == record.name && known.rdata == record.rdata && known.ttl >= record.ttl / 2
    })
}

/// Is the record of a name, type and class of which this server alone may have one?
fn is_same_set(own: &Own, record: &ResourceRecord<'_>) -> bool {
    own.is_unique
        && own.record.name == record.name
        && own.record.class == record.class
        && own.record.rdata.type_code() == record.rdata.type_code()
}

/// Section 8.2.1: class, type and data, as they are compared. The name is the same.
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
    // After the header, the empty name, type, class, time and length.
    let data = bytes.get(12 + 1 + 10..).unwrap_or_default();
    [&[0, CLASS::IN as u8][..], &kind.to_be_bytes(), data].concat()
}

#[cfg(test)]
mod tests;
