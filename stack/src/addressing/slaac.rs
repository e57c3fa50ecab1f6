//! Processes router advertisements (RFC 4861, section 6.3.4): addresses by stateless autoconfiguration (RFC 4862) and
//! default routers.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{
    Icmpv6Message, Icmpv6Packet, NdiscOption, NdiscOptionType, NdiscPrefixInfoFlags,
};

use super::state::{ADVERTISED_MAX, Acquired, Advertised, FOREVER, Record, Router};
use super::{Context, emit};
use crate::TxFrame;
use crate::link::{Ethernet, Extent, PROTOCOL_ICMPV6, Packet, probe_address, router_solicitation};

/// The number of router solicitations and their interval (RFC 4861, section 10: MAX_RTR_SOLICITATIONS,
/// RTR_SOLICITATION_INTERVAL).
const SOLICITATIONS: u32 = 3;
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// The time without an answer after which no other host has an address (RFC 4861, section 10: RETRANS_TIMER).
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The hop limit of a packet that no router has forwarded (RFC 4861, section 6.1.2).
const HOP_LIMIT: u8 = 255;

/// Bytes of an advertisement before its options (RFC 4861, section 4.2).
const ADVERTISEMENT_LEN: usize = 16;

/// A shorter remaining lifetime is not set by an unauthenticated advertisement (RFC 4862, section 5.5.3 e).
const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);

/// The number of advertisements that are processed in a second. Each may take space in the log.
const ADVERTISEMENTS_PER_SECOND: u32 = 10;

/// The volatile state.
#[derive(Debug)]
pub(super) struct Slaac {
    mac: [u8; 6],
    /// The number of solicitations sent; [`SOLICITATIONS`] if a router has answered.
    solicited: u32,
    next: Duration,
    /// Prefixes whose addresses are checked for another host that has them, and the times at which they can be used.
    tentative: Vec<(Advertised, Duration)>,
    /// Probes to send.
    probes: Vec<Ipv6Addr>,
    /// A second, and the advertisements processed in it.
    second: (u64, u32),
}

impl Slaac {
    /// Makes the state of an interface that has just begun. Also after a crash routers are solicited: an advertisement
    /// may have been missed.
    pub(super) fn new(mac: [u8; 6]) -> Slaac {
        Slaac {
            mac,
            solicited: 0,
            next: Duration::ZERO,
            tentative: Vec::new(),
            probes: Vec::new(),
            second: (0, 0),
        }
    }

    /// Returns the time at which [`poll`](Slaac::poll) has something to do.
    pub(super) fn deadline(&self) -> Duration {
        let solicits = self.solicited < SOLICITATIONS;
        let next = if solicits { self.next } else { FOREVER };
        let probed = self.tentative.iter().map(|(_, at)| *at);
        let probe = self.probes.first().map(|_| Duration::ZERO);
        probed.chain(probe).fold(next, Duration::min)
    }

    /// Sends the solicitation that is due, and uses the addresses that no other host has.
    pub(super) fn poll(
        &mut self,
        acquired: &mut Acquired,
        cx: &mut Context<'_>,
        out: &mut Vec<TxFrame>,
    ) {
        if self.solicited < SOLICITATIONS && cx.now >= self.next {
            out.push(TxFrame::plain(router_solicitation(self.mac)));
            self.solicited += 1;
            self.next = cx.now + SOLICITATION_INTERVAL;
        }
        let probes = self.probes.drain(..);
        let probes = probes.map(|address| TxFrame::plain(probe_address(self.mac, address)));
        out.extend(probes);
        let is_ready = |of: &mut (Advertised, Duration)| of.1 <= cx.now;
        let ready: Vec<_> = self.tentative.extract_if(.., is_ready).collect();
        for (advertised, _) in ready {
            emit(acquired, cx, &Record::Advertised(advertised));
        }
    }

    /// Processes a frame.
    pub(super) fn receive(&mut self, frame: &[u8], acquired: &mut Acquired, cx: &mut Context<'_>) {
        let Some((source, message)) = discovery(frame, self.mac) else {
            return;
        };
        match Icmpv6Message::from(message[0]) {
            Icmpv6Message::RouterAdvert if self.may_process(cx.now) => {
                self.advertisement(source, message, acquired, cx);
            }
            Icmpv6Message::NeighborAdvert => self.neighbour(message),
            // RFC 4862, section 5.4.3: a solicitation from the unspecified address is another host's probe.
            Icmpv6Message::NeighborSolicit if source.is_unspecified() => self.neighbour(message),
            _ => {}
        }
    }

    /// Limits the rate.
    fn may_process(&mut self, now: Duration) -> bool {
        if self.second.0 != now.as_secs() {
            self.second = (now.as_secs(), 0);
        }
        self.second.1 += 1;
        self.second.1 <= ADVERTISEMENTS_PER_SECOND
    }

    /// Drops a tentative address that another host has (RFC 4862, section 5.4).
    fn neighbour(&mut self, message: &[u8]) {
        let target = message
            .get(8..24)
            .and_then(|bytes| bytes.first_chunk::<16>());
        let Some(target) = target.map(|octets| Ipv6Addr::from(*octets)) else {
            return;
        };
        let mac = self.mac;
        let before = self.tentative.len();
        self.tentative.retain(|(of, _)| of.address(mac) != target);
        if self.tentative.len() < before {
            log::warn!("router advertisement: another host has {target}: it is not used");
        }
    }

    fn advertisement(
        &mut self,
        source: Ipv6Addr,
        message: &[u8],
        acquired: &mut Acquired,
        cx: &mut Context<'_>,
    ) {
        // RFC 4861, section 6.1.2: an advertisement comes from a link-local address, and has options of whole lengths.
        if !source.is_unicast_link_local() || message.len() < ADVERTISEMENT_LEN {
            return;
        }
        let packet = Icmpv6Packet::new_unchecked(message);
        let Some(prefixes) = prefixes(&message[ADVERTISEMENT_LEN..]) else {
            return;
        };
        self.solicited = SOLICITATIONS;
        let lifetime = Duration::from_secs(packet.router_lifetime().secs());
        router(source, lifetime, acquired, cx);
        for (prefix, valid) in prefixes {
            self.prefix(prefix, valid, acquired, cx);
        }
    }

    /// RFC 4862, section 5.5.3, d and e.
    fn prefix(
        &mut self,
        prefix: Ipv6Addr,
        valid: Duration,
        acquired: &mut Acquired,
        cx: &mut Context<'_>,
    ) {
        let expires_at = match valid {
            FOREVER => FOREVER,
            valid => cx.now + valid,
        };
        let advertised = Advertised { prefix, expires_at };
        let mut known = acquired.prefixes.iter();
        if let Some(known) = known.find(|of| of.prefix == prefix) {
            let left = known.expires_at.saturating_sub(cx.now);
            // A lifetime is shortened to two hours at the least, lest a forged advertisement end all connections.
            let expires_at = match () {
                () if valid > TWO_HOURS || valid > left => expires_at,
                () if left <= TWO_HOURS => return,
                () => cx.now + TWO_HOURS,
            };
            emit(
                acquired,
                cx,
                &Record::Advertised(Advertised { prefix, expires_at }),
            );
        } else if let Some((tentative, _)) = self
            .tentative
            .iter_mut()
            .find(|(of, _)| of.prefix == prefix)
        {
            *tentative = advertised;
        } else if !valid.is_zero()
            && acquired.prefixes.len() + self.tentative.len() < ADVERTISED_MAX
        {
            self.probes.push(advertised.address(self.mac));
            self.tentative.push((advertised, cx.now + PROBE_TIME));
        }
    }
}

/// Notes a default router (RFC 4861, section 6.3.4).
fn router(address: Ipv6Addr, lifetime: Duration, acquired: &mut Acquired, cx: &mut Context<'_>) {
    let is_known = acquired.routers.iter().any(|of| of.address == address);
    let record = match lifetime.is_zero() {
        true => Record::RouterEnded(address),
        false => Record::Router(Router {
            address,
            expires_at: cx.now + lifetime,
        }),
    };
    let has_room = acquired.routers.len() < ADVERTISED_MAX;
    if is_known || (has_room && !lifetime.is_zero()) {
        emit(acquired, cx, &record);
    }
}

/// Returns the source and the ICMPv6 message of a neighbour discovery packet from another host of the link.
fn discovery(frame: &[u8], mac: [u8; 6]) -> Option<(Ipv6Addr, &[u8])> {
    let ethernet = Ethernet::parse(frame).ok()?;
    let packet = Packet::parse(ethernet.payload, Extent::Whole).ok()?;
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
        return None;
    };
    let hop_limit = *ethernet.payload.get(7)?;
    if packet.protocol != PROTOCOL_ICMPV6
        || packet.fragment
        || hop_limit != HOP_LIMIT
        || ethernet.source == mac
    {
        return None;
    }
    let message = packet.payload;
    let icmp = Icmpv6Packet::new_checked(message).ok()?;
    let is_valid = icmp.msg_code() == 0 && icmp.verify_checksum(&source, &destination);
    is_valid.then_some((source, message))
}

/// Returns the prefixes for autonomous addresses, each with its valid lifetime. `None`: the options are malformed.
fn prefixes(mut options: &[u8]) -> Option<Vec<(Ipv6Addr, Duration)>> {
    let mut prefixes = Vec::new();
    while !options.is_empty() {
        let option = NdiscOption::new_checked(options).ok()?;
        let (_, rest) = options.split_at_checked(usize::from(option.data_len()) * 8)?;
        options = rest;
        if option.option_type() != NdiscOptionType::PrefixInformation {
            continue;
        }
        let valid = option.valid_lifetime().secs();
        let preferred = option.preferred_lifetime().secs();
        let prefix = option.prefix();
        let is_usable = option
            .prefix_flags()
            .contains(NdiscPrefixInfoFlags::ADDRCONF)
            && option.prefix_len() == 64
            && preferred <= valid
            && !prefix.is_unicast_link_local()
            && crate::link::is_unicast(prefix.into())
            && prefix.octets()[8..] == [0; 8];
        if is_usable {
            prefixes.push((prefix, lifetime(valid)));
        }
    }
    Some(prefixes)
}

/// Returns a lifetime of this many seconds; all bits one are infinity (RFC 4861, section 4.6.2).
fn lifetime(seconds: u64) -> Duration {
    match seconds {
        0xffff_ffff => FOREVER,
        seconds => Duration::from_secs(seconds),
    }
}
