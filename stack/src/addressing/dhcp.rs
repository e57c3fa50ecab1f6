//! Implements the DHCP client (RFC 2131) on smoltcp's wire format. The lease is durable, the exchange is not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
};

use super::state::{Acquired, FOREVER, Lease, Record};
use super::{Context, emit, is_host};
use crate::TxFrame;
use crate::link::{Datagram, Ethernet, Protocol, arp_request};

/// The ports of DHCP (RFC 2131, section 4.1).
const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;

const BROADCAST_MAC: [u8; 6] = [0xff; 6];
const HOP_LIMIT: u8 = 64;

/// Options (RFC 2132): subnet mask, router, lease time, renewal time T1, rebinding time T2.
const REQUESTED: &[u8] = &[1, OPTION_ROUTER, 51, 58, 59];
const OPTION_ROUTER: u8 = 3;

/// The shortest message (RFC 1542, section 2.1).
const MESSAGE_LEN_MIN: usize = 300;

/// The number of requests for an offered address before the exchange begins again (RFC 2131, section 3.1, step 5).
const REQUESTS: u32 = 4;

/// The longest delay before a message is sent again is 2^4 times the shortest (RFC 2131, section 4.1).
const DOUBLINGS: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_secs(4);

/// The shortest time between two attempts to extend a lease (RFC 2131, section 4.4.5).
const EXTEND_INTERVAL_MIN: Duration = Duration::from_secs(60);

/// The pause after an address that is in use or was refused (RFC 2131, section 3.1, step 5: at least ten seconds).
const PAUSE: Duration = Duration::from_secs(10);

/// The number of ARP probes for a new address, and their interval. RFC 5227 has three in up to seven seconds; a host on
/// a link of today answers within milliseconds, so the interval is shorter.
const PROBES: u32 = 3;
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// The states of RFC 2131, figure 5, and the check of the address before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Init,
    Selecting,
    /// An address was offered, by this server.
    Requesting {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// This lease is granted; so many ARP probes for its address have been sent.
    Probing(Lease, u32),
    /// Another host has the address of this lease.
    Declining(Lease),
    Bound,
    Renewing,
    Rebinding,
}

/// The client. In the last three states, and in no other, there is a lease.
#[derive(Debug)]
pub(super) struct Dhcp {
    mac: [u8; 6],
    state: State,
    /// The transaction id.
    xid: u32,
    /// The time of the first message of the exchange.
    began: Duration,
    /// The field `secs` of the last DHCPDISCOVER.
    secs: u16,
    /// The time of the first request in this state. The lease counts from it.
    requested: Duration,
    /// The number of messages sent in this state.
    sent: u32,
    /// The time of the next message.
    next: Duration,
}

impl Dhcp {
    pub(super) fn new(mac: [u8; 6], acquired: &Acquired) -> Dhcp {
        Dhcp {
            mac,
            state: match acquired.lease {
                Some(_) => State::Bound,
                None => State::Init,
            },
            xid: 0,
            began: Duration::ZERO,
            secs: 0,
            requested: Duration::ZERO,
            sent: 0,
            next: Duration::ZERO,
        }
    }

    /// Returns the time at which [`poll`](Dhcp::poll) has something to do.
    pub(super) fn deadline(&self, acquired: &Acquired) -> Duration {
        let Some(lease) = &acquired.lease else {
            return self.next;
        };
        let next = match self.state {
            State::Bound => lease.renew_at,
            State::Renewing => self.next.min(lease.rebind_at),
            _ => self.next,
        };
        next.min(lease.expires_at)
    }

    /// Ends a lease that is over, and begins to extend it in time.
    pub(super) fn expire(&mut self, acquired: &mut Acquired, cx: &mut Context<'_>) {
        let Some(lease) = acquired.lease else { return };
        // The address must not be used any more (RFC 2131, section 4.4.5).
        if cx.now >= lease.expires_at {
            emit(acquired, cx, &Record::LeaseEnded);
            self.enter(State::Init, cx.now);
        } else if cx.now >= lease.rebind_at && self.state != State::Rebinding {
            self.begin(State::Rebinding, cx);
        } else if cx.now >= lease.renew_at && self.state == State::Bound {
            self.begin(State::Renewing, cx);
        }
    }

    /// Enters a state in which the next message is due at `next`.
    fn enter(&mut self, state: State, next: Duration) {
        self.state = state;
        self.sent = 0;
        self.next = next;
    }

    /// Begins an exchange, with a transaction id of its own.
    fn begin(&mut self, state: State, cx: &mut Context<'_>) {
        self.enter(state, cx.now);
        self.xid = (cx.random)();
        self.began = cx.now;
        self.requested = cx.now;
    }

    /// Sends the message that is due.
    pub(super) fn poll(
        &mut self,
        acquired: &mut Acquired,
        cx: &mut Context<'_>,
        out: &mut Vec<TxFrame>,
    ) {
        if cx.now < self.next {
            return;
        }
        if self.state == State::Init {
            self.begin(State::Selecting, cx);
        }
        self.sent += 1;
        match (self.state, acquired.lease) {
            (State::Requesting { .. }, _) if self.sent > REQUESTS => {
                self.enter(State::Init, cx.now);
                self.poll(acquired, cx, out);
            }
            (State::Selecting | State::Requesting { .. }, _) => {
                out.extend(self.ask(cx.now));
                self.next = cx.now + self.delay(cx);
            }
            (State::Probing(lease, PROBES), _) => {
                emit(acquired, cx, &Record::Leased(lease));
                self.enter(State::Bound, FOREVER);
            }
            (State::Probing(lease, probes), _) => {
                // RFC 5227, section 2.1.1: the sender's address is zero, so that no other host's table changes.
                let probe = arp_request(self.mac, Ipv4Addr::UNSPECIFIED, lease.address);
                out.push(TxFrame::plain(probe));
                self.state = State::Probing(lease, probes + 1);
                self.next = cx.now + PROBE_INTERVAL;
            }
            (State::Declining(lease), _) => {
                out.extend(self.decline(&lease));
                self.enter(State::Init, cx.now + PAUSE);
            }
            (State::Renewing, Some(lease)) => {
                out.extend(self.extend(&lease, Some(lease.server_mac)));
                self.next = cx.now + extend_interval(cx.now, lease.rebind_at);
            }
            (State::Rebinding, Some(lease)) => {
                out.extend(self.extend(&lease, None));
                self.next = cx.now + extend_interval(cx.now, lease.expires_at);
            }
            _ => self.next = FOREVER,
        }
    }

    /// Returns the delay before the message is sent again: doubled each time, with a random second more or less (RFC
    /// 2131, section 4.1).
    fn delay(&self, cx: &mut Context<'_>) -> Duration {
        let base = FIRST_DELAY * 2_u32.pow((self.sent - 1).min(DOUBLINGS));
        let jitter = Duration::from_millis(u64::from((cx.random)() % 2001));
        base - Duration::from_secs(1) + jitter
    }

    /// Makes a DHCPDISCOVER, or a DHCPREQUEST for an offered address.
    fn ask(&mut self, now: Duration) -> Option<TxFrame> {
        let message = self.message(DhcpMessageType::Discover);
        let message = match self.state {
            // The request has the `secs` of the discovery (RFC 2131, section 4.4.1).
            State::Requesting { address, server } => DhcpRepr {
                message_type: DhcpMessageType::Request,
                requested_ip: Some(address),
                server_identifier: Some(server),
                ..message
            },
            _ => {
                let elapsed = now.saturating_sub(self.began).as_secs();
                self.secs = u16::try_from(elapsed).unwrap_or(u16::MAX);
                DhcpRepr {
                    secs: self.secs,
                    ..message
                }
            }
        };
        self.frame(&message, None)
    }

    /// Makes a DHCPREQUEST for the extension of the lease: to its server, or to all.
    fn extend(&self, lease: &Lease, to: Option<[u8; 6]>) -> Option<TxFrame> {
        let message = DhcpRepr {
            client_ip: lease.address,
            secs: 0,
            ..self.message(DhcpMessageType::Request)
        };
        self.frame(&message, to.map(|mac| (*lease, mac)))
    }

    /// Makes a DHCPDECLINE: another host has the address.
    fn decline(&self, lease: &Lease) -> Option<TxFrame> {
        let message = DhcpRepr {
            requested_ip: Some(lease.address),
            server_identifier: Some(lease.server),
            parameter_request_list: None,
            max_size: None,
            secs: 0,
            ..self.message(DhcpMessageType::Decline)
        };
        self.frame(&message, None)
    }

    fn message(&self, message_type: DhcpMessageType) -> DhcpRepr<'static> {
        DhcpRepr {
            message_type,
            transaction_id: self.xid,
            secs: self.secs,
            client_hardware_address: EthernetAddress(self.mac),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            // The answer may be sent to the offered address: it is recognized before there is one.
            broadcast: false,
            requested_ip: None,
            client_identifier: Some(EthernetAddress(self.mac)),
            server_identifier: None,
            parameter_request_list: Some(REQUESTED),
            dns_servers: None,
            max_size: Some(1500),
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    /// Makes the frame: to the lease's server at this Ethernet address, or broadcast.
    fn frame(&self, message: &DhcpRepr<'_>, to: Option<(Lease, [u8; 6])>) -> Option<TxFrame> {
        let mut payload = vec![0; message.buffer_len().max(MESSAGE_LEN_MIN)];
        message
            .emit(&mut DhcpPacket::new_unchecked(&mut payload[..]))
            .ok()?;
        let (source, destination, mac) = match to {
            Some((lease, mac)) => (lease.address, lease.server, mac),
            None => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, BROADCAST_MAC),
        };
        let datagram = Datagram {
            source_mac: self.mac,
            source: SocketAddr::new(IpAddr::V4(source), CLIENT_PORT),
            destination: SocketAddr::new(IpAddr::V4(destination), SERVER_PORT),
            payload: &payload,
        };
        datagram.frame(mac, HOP_LIMIT)
    }

    /// Processes a server's message.
    pub(super) fn receive(
        &mut self,
        datagram: &Datagram<'_>,
        acquired: &mut Acquired,
        cx: &mut Context<'_>,
    ) {
        let Ok(packet) = DhcpPacket::new_checked(datagram.payload) else {
            return;
        };
        let Ok(message) = DhcpRepr::parse(&packet) else {
            return;
        };
        // RFC 2131, section 4.4.1: messages of another transaction are discarded.
        if message.transaction_id != self.xid
            || message.client_hardware_address != EthernetAddress(self.mac)
        {
            return;
        }
        let lease = || self.lease(&packet, &message, datagram.source_mac);
        match (self.state, message.message_type) {
            (State::Selecting, DhcpMessageType::Offer) => {
                if let Some(Lease {
                    address, server, ..
                }) = lease()
                {
                    self.requested = cx.now;
                    self.enter(State::Requesting { address, server }, cx.now);
                }
            }
            (State::Requesting { address, .. }, DhcpMessageType::Ack) => {
                if let Some(lease) = lease().filter(|lease| lease.address == address) {
                    self.enter(State::Probing(lease, 0), cx.now);
                }
            }
            (State::Requesting { server, .. }, DhcpMessageType::Nak)
                if message.server_identifier == Some(server) =>
            {
                self.enter(State::Init, cx.now + PAUSE);
            }
            (State::Renewing | State::Rebinding, DhcpMessageType::Ack) => {
                if let Some(lease) = lease() {
                    self.extended(lease, acquired, cx);
                }
            }
            (State::Renewing | State::Rebinding, DhcpMessageType::Nak) => {
                emit(acquired, cx, &Record::LeaseEnded);
                self.enter(State::Init, cx.now);
            }
            _ => {}
        }
    }

    /// Takes an extended lease. Another address is checked like a new one.
    fn extended(&mut self, lease: Lease, acquired: &mut Acquired, cx: &mut Context<'_>) {
        let is_same = acquired
            .lease
            .is_some_and(|before| before.address == lease.address);
        if is_same {
            emit(acquired, cx, &Record::Leased(lease));
            self.enter(State::Bound, FOREVER);
        } else {
            emit(acquired, cx, &Record::LeaseEnded);
            self.enter(State::Probing(lease, 0), cx.now);
        }
    }

    /// Makes the lease that a DHCPOFFER or DHCPACK describes. `None`: a host cannot use it.
    fn lease(
        &self,
        packet: &DhcpPacket<&[u8]>,
        message: &DhcpRepr<'_>,
        server_mac: [u8; 6],
    ) -> Option<Lease> {
        let mask = u32::from(message.subnet_mask?);
        let prefix_bits = mask.leading_ones() as u8;
        let is_contiguous = mask.count_ones() == u32::from(prefix_bits);
        let address = message.your_ip;
        if !is_contiguous || !is_host(address, prefix_bits) {
            return None;
        }
        let duration = message.lease_duration.filter(|seconds| *seconds > 0)?;
        // RFC 2131, section 4.4.5: T1 is half, and T2 seven eighths of the lease, unless the server says otherwise.
        let (renew, rebind) = match (message.renew_duration, message.rebind_duration) {
            (Some(renew), Some(rebind)) if renew < rebind && rebind < duration => (renew, rebind),
            _ => (duration / 2, duration - duration / 8),
        };
        let at = |seconds: u32| match duration {
            // RFC 2131, section 3.3: infinity.
            u32::MAX => FOREVER,
            _ => self.requested + Duration::from_secs(seconds.into()),
        };
        let on_link = |router: &Ipv4Addr| {
            let others = u32::from(*router) ^ u32::from(address);
            others & mask == 0 && others != 0 && is_host(*router, prefix_bits)
        };
        Some(Lease {
            address,
            prefix_bits,
            router: router(packet).filter(on_link),
            server: message.server_identifier?,
            server_mac,
            renew_at: at(renew),
            rebind_at: at(rebind),
            expires_at: at(duration),
        })
    }

    /// Looks for another host with the address that is being probed (RFC 5227, section 2.1.1).
    pub(super) fn receive_arp(&mut self, frame: &[u8], now: Duration) {
        let State::Probing(lease, _) = self.state else {
            return;
        };
        if let Some(mac) = claimant(frame, lease.address)
            && mac != self.mac
        {
            log::warn!("DHCP: another host has {}: it is declined", lease.address);
            self.state = State::Declining(lease);
            self.next = now;
        }
    }
}

/// Returns the Ethernet address of the host that has this address, or probes for it, according to an ARP message.
fn claimant(frame: &[u8], address: Ipv4Addr) -> Option<[u8; 6]> {
    let ethernet = Ethernet::parse(frame).ok()?;
    if ethernet.protocol != Protocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let probes = operation == ArpOperation::Request && source_protocol_addr.is_unspecified();
    let claims = source_protocol_addr == address || (probes && target_protocol_addr == address);
    claims.then_some(source_hardware_addr.0)
}

/// Returns the delay until the lease's extension is requested again: half of the time that is left, but at least a
/// minute (RFC 2131, section 4.4.5).
fn extend_interval(now: Duration, until: Duration) -> Duration {
    EXTEND_INTERVAL_MIN.max(until.saturating_sub(now) / 2)
}

/// Returns the first router of a message. smoltcp's representation has it only if there is one router.
fn router(packet: &DhcpPacket<&[u8]>) -> Option<Ipv4Addr> {
    let mut options = packet.options();
    let routers = options.find(|option| option.kind == OPTION_ROUTER)?;
    let first: [u8; 4] = *routers.data.first_chunk()?;
    Some(first.into())
}
