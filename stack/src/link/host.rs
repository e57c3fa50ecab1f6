//! Everything that is not TCP (ARP, NDP, ICMP echo), done by smoltcp's `Interface` over a queue of one frame in, and a
//! short one out.

use std::net::IpAddr;
use std::time::Duration;

use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::parse::ETHERNET_HEADER_LEN;
use crate::Config;

/// The largest number of answers that wait to be sent; further requests of a flood are not answered.
const QUEUE_LIMIT: usize = 256;

/// smoltcp's interface and the frames on their way into and out of it.
pub(crate) struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    queues: Queues,
}

impl Host {
    pub(crate) fn new(config: &Config, addresses: &[IpCidr], now: Duration) -> Host {
        let mut queues = Queues {
            received: None,
            sent: Vec::new(),
            frame_len: config.mtu + ETHERNET_HEADER_LEN,
        };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(config.mac));
        let interface = Interface::new(
            smoltcp::iface::Config::new(hardware),
            &mut queues,
            instant(now),
        );
        let mut host = Host {
            interface,
            sockets: SocketSet::new(Vec::new()),
            queues,
        };
        host.set_addresses(addresses, &config.gateways);
        host
    }

    /// Changes the addresses and the default routers.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpCidr], gateways: &[IpAddr]) {
        let interface = &mut self.interface;
        interface.update_ip_addrs(|own| {
            own.clear();
            for address in addresses {
                if own.push(*address).is_err() {
                    log::error!("{address} and the addresses after it answer no ARP, NDP or ping: there are too many");
                    break;
                }
            }
        });
        let routes = interface.routes_mut();
        routes.remove_default_ipv4_route();
        routes.remove_default_ipv6_route();
        for gateway in gateways {
            // The table has room: there is at most one of each version.
            let _ = match gateway {
                IpAddr::V4(v4) => routes.add_default_ipv4_route(*v4),
                IpAddr::V6(v6) => routes.add_default_ipv6_route(*v6),
            };
        }
    }

    /// Processes a frame. False if too many answers wait already.
    pub(crate) fn ingest(&mut self, frame: &[u8], now: Duration) -> bool {
        if self.queues.sent.len() >= QUEUE_LIMIT {
            return false;
        }
        self.queues.received = Some(frame.to_vec());
        self.interface
            .poll(instant(now), &mut self.queues, &mut self.sockets);
        true
    }

    /// The answers that wait to be sent.
    pub(crate) fn answers(&mut self) -> std::vec::Drain<'_, Vec<u8>> {
        self.queues.sent.drain(..)
    }

    /// Whether an answer waits.
    pub(crate) fn has_answers(&self) -> bool {
        !self.queues.sent.is_empty()
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

struct Queues {
    received: Option<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    frame_len: usize,
}

impl phy::Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.received.take()?;
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

struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}
