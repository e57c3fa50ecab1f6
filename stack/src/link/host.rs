//! Everything that is not TCP (ARP, NDP, ICMP echo) is smoltcp's: its `Interface` over two queues.

use std::collections::VecDeque;
use std::time::Duration;

use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::{LinkConfig, parse::ETHERNET_HEADER_LEN};

/// Frames that wait for the next poll, at most; what a flood brings beyond is dropped.
const QUEUE_LIMIT: usize = 256;

/// smoltcp's interface and the frames on their way into and out of it.
pub(crate) struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
}

impl Host {
    pub(crate) fn new(config: &LinkConfig, addresses: &[IpCidr], now: Duration) -> Host {
        let mut queues = Queues {
            received: VecDeque::new(),
            sent: VecDeque::new(),
            frame_len: usize::from(config.mtu) + ETHERNET_HEADER_LEN,
        };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(config.mac));
        let mut interface =
            Interface::new(smoltcp::iface::Config::new(hardware), &mut queues, instant(now));
        interface.update_ip_addrs(|own| {
            for address in addresses {
                if own.push(*address).is_err() {
                    log::error!("{address} and the addresses after it answer no ARP, NDP or ping: there are too many");
                    break;
                }
            }
        });
        if let Some(gateway) = config.gateway_v4 {
            // The table has room: these are its first entries.
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        if let Some(gateway) = config.gateway_v6 {
            let _ = interface.routes_mut().add_default_ipv6_route(gateway);
        }
        Host { interface, sockets: SocketSet::new(Vec::new()), queues }
    }

    /// Takes a frame for the next poll. False if there is no room for it.
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        if self.queues.received.len() >= QUEUE_LIMIT {
            return false;
        }
        self.queues.received.push_back(frame.to_vec());
        true
    }

    /// Works off the frames taken; returns what is to be sent.
    pub(crate) fn poll(&mut self, now: Duration) -> std::collections::vec_deque::Drain<'_, Vec<u8>> {
        if !self.queues.received.is_empty() {
            self.interface.poll(instant(now), &mut self.queues, &mut self.sockets);
        }
        self.queues.sent.drain(..)
    }

    /// Whether a poll would find frames to work off.
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.received.is_empty()
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    frame_len: usize,
}

impl phy::Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.frame_len;
        capabilities
    }
}

struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
