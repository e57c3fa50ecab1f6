//! Keeps the addresses that the network assigns: gives the client of `outlast-stack` frames and the time, records its
//! changes, and sets the stack's addresses.

use std::net::IpAddr;
use std::time::Duration;

use log::info;
use outlast_smb::Entropy;
use outlast_stack::addressing::{Acquired, Client, Context, FOREVER, Sources};
use outlast_stack::{MAX_ADDRESSES, TxFrame};

use super::clock::{RealTime, Time};
use super::files::FileSystem;
use super::journal::Journal;
use super::machine::Machine;

/// The client, and what it is composed with.
pub(super) struct Addressing {
    client: Client,
    /// The addresses and default routers of the configuration.
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
    real: RealTime,
    /// The last reading of the clocks.
    read: Time,
}

/// An assigned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// Its source.
    pub source: &'static str,
    /// The time until it ends; `None`: it does not end.
    pub left: Option<Duration>,
}

impl Addressing {
    /// Lets the client act, with its changes going to the journal.
    fn act<R>(
        &mut self,
        time: Time,
        journal: &mut Journal,
        entropy: &mut dyn Entropy,
        f: impl FnOnce(&mut Client, &mut Context<'_>) -> R,
    ) -> R {
        self.read = time;
        let anchor = self.real.anchor(time);
        let mut random = || {
            let mut bytes = [0; 4];
            entropy.fill(&mut bytes);
            u32::from_le_bytes(bytes)
        };
        let mut cx = Context {
            now: anchor.real,
            random: &mut random,
            journal: &mut |record| journal.note_address(*record, anchor),
        };
        f(&mut self.client, &mut cx)
    }

    /// All addresses and default routers. A configured router has precedence.
    fn all(&self) -> (Vec<(IpAddr, u8)>, Vec<IpAddr>) {
        let mut addresses = self.addresses.clone();
        addresses.extend(self.client.addresses());
        addresses.truncate(MAX_ADDRESSES);
        let mut gateways = self.gateways.clone();
        for gateway in self.client.gateways() {
            if !gateways.iter().any(|of| of.is_ipv4() == gateway.is_ipv4()) {
                gateways.push(gateway);
            }
        }
        (addresses, gateways)
    }
}

impl<F: FileSystem> Machine<F> {
    /// Continues with the recorded addresses. Connections on an address whose lease has ended during the outage end.
    pub(super) fn load_addresses(&mut self, sources: Sources, boot: [u8; 16], time: Time) {
        let acquired = self.journal.global().acquired.clone();
        if !sources.any() && acquired == Acquired::default() {
            return;
        }
        let config = self.stack.config();
        self.addressing = Some(Addressing {
            client: Client::new(sources, config.mac, acquired),
            addresses: config.addresses.clone(),
            gateways: config.gateways.clone(),
            real: RealTime::resumed(self.journal.global().anchor, boot, time),
            read: time,
        });
        self.with_addressing(time, |client, cx| client.expire(cx));
        self.set_addresses();
    }

    fn with_addressing<R>(
        &mut self,
        time: Time,
        f: impl FnOnce(&mut Client, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let Machine {
            addressing,
            journal,
            entropy,
            ..
        } = self;
        let addressing = addressing.as_mut()?;
        Some(addressing.act(time, journal, &mut **entropy, f))
    }

    /// Gives the client a received frame. Returns true if nothing else must process it.
    pub(super) fn ingest_address_frame(&mut self, frame: &[u8], time: Time) -> bool {
        self.with_addressing(time, |client, cx| client.ingest(frame, cx))
            .unwrap_or(false)
    }

    /// Extends and ends addresses. The frames leave after the turn's commit.
    pub(super) fn keep_addresses(&mut self, time: Time, frames: &mut Vec<TxFrame>) {
        self.with_addressing(time, |client, cx| client.poll(cx, frames));
        frames.extend(self.set_addresses());
    }

    /// Sets the stack's addresses; returns the announcements of new ones.
    fn set_addresses(&mut self) -> Vec<TxFrame> {
        let Some(addressing) = &self.addressing else {
            return Vec::new();
        };
        let (addresses, gateways) = addressing.all();
        let before = &self.stack.config().addresses;
        let text = |of: &[(IpAddr, u8)]| {
            let all = of.iter().map(|(address, bits)| format!("{address}/{bits}"));
            all.collect::<Vec<_>>().join(", ")
        };
        if *before != addresses {
            info!(
                "addresses: [{}] before, now [{}]",
                text(before),
                text(&addresses)
            );
        }
        self.stack
            .set_addresses(addresses, gateways, &mut self.journal)
    }

    /// Returns the service time at which [`Machine::keep_addresses`] has something to do.
    pub(super) fn addressing_deadline(&self) -> Option<Duration> {
        let addressing = self.addressing.as_ref()?;
        let at = addressing.client.next_deadline()?;
        let wait = at.saturating_sub(addressing.real.at(addressing.read));
        addressing.read.now.checked_add(wait)
    }

    /// The addresses that clients can use. The link-local one, which only serves to acquire others, is left out.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let acquires = self.addressing.is_some();
        let is_own =
            |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let all = self.stack.config().addresses.iter();
        let all = all.map(|(address, _)| *address);
        all.filter(|address| !(acquires && is_own(address)))
            .collect()
    }

    /// The addresses that the network has assigned.
    #[must_use]
    pub fn assigned(&self) -> Vec<Assigned> {
        let Some(Addressing {
            client, real, read, ..
        }) = &self.addressing
        else {
            return Vec::new();
        };
        let now = real.at(*read);
        let left = |at: Duration| (at < FOREVER).then(|| at.saturating_sub(now));
        let acquired = client.acquired();
        let lease = acquired.lease.iter().map(|lease| Assigned {
            address: lease.address.into(),
            source: "dhcp",
            left: left(lease.expires_at),
        });
        let mac = self.stack.config().mac;
        let prefixes = acquired.prefixes.iter().map(|of| Assigned {
            address: of.address(mac).into(),
            source: "router-advertisements",
            left: left(of.expires_at),
        });
        lease.chain(prefixes).collect()
    }
}

#[cfg(test)]
mod tests;
