//! Announces the server on its link, as configured in `[discovery]`.

pub mod mdns;
pub mod netbios;
mod records;

use std::time::Duration;

use log::warn;
use outlast_stack::TxFrame;

use crate::config::Config;

/// The responders of the server.
#[derive(Debug, Default)]
pub struct Discovery {
    mdns: Option<mdns::Responder>,
    netbios: Option<netbios::Responder>,
}

impl Discovery {
    /// Makes the configured responders. `random`: any number.
    #[must_use]
    pub fn new(config: &Config, random: u64, now: Duration) -> Discovery {
        let (name, network) = (&config.server.name, &config.network);
        let addresses = network.addresses.iter().map(|own| own.address).collect();
        let mdns = config.discovery.mdns.then(|| {
            mdns::Responder::new(name, network.mac, addresses, random, now)
                .inspect_err(|error| warn!("mDNS: {name} is no name for it: {error}"))
        });
        let netbios = config.discovery.netbios.then(|| {
            netbios::Responder::new(name, network.mac, &network.addresses, random as u16, now)
        });
        Discovery {
            mdns: mdns.and_then(Result::ok),
            netbios,
        }
    }

    /// Processes a received frame, and ignores other protocols.
    pub fn hear(&mut self, frame: &[u8], now: Duration) {
        if let Some(mdns) = &mut self.mdns {
            mdns.receive(frame, now);
        }
        if let Some(netbios) = &mut self.netbios {
            netbios.receive(frame);
        }
    }

    /// Returns the time of the next call of `poll`.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let mdns = self.mdns.as_ref().and_then(mdns::Responder::deadline);
        let netbios = self.netbios.as_ref().and_then(netbios::Responder::deadline);
        mdns.into_iter().chain(netbios).min()
    }

    /// Returns the frames to send now.
    pub fn poll(&mut self, now: Duration) -> Vec<TxFrame> {
        let mdns = self.mdns.iter_mut().flat_map(|mdns| mdns.poll(now));
        let netbios = self
            .netbios
            .iter_mut()
            .flat_map(|netbios| netbios.poll(now));
        mdns.chain(netbios).collect()
    }

    /// Withdraws the names, because the server ends and no other one continues it.
    pub fn goodbye(&mut self) -> Vec<TxFrame> {
        let mdns = self.mdns.iter_mut().flat_map(mdns::Responder::goodbye);
        let netbios = self
            .netbios
            .iter_mut()
            .flat_map(netbios::Responder::goodbye);
        mdns.chain(netbios).collect()
    }
}
