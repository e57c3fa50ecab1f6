//! Adapts a device to smoltcp's `phy`, so that smoltcp's own TCP can be at the other end of a wire as an independent
//! peer.

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use super::{Device, MAX_FRAME_LEN};
use crate::TxFrame;
use crate::link::ETHERNET_HEADER_LEN;

/// Gives smoltcp any [`Device`]. Errors of the device are lost frames.
pub struct SmoltcpPort<D> {
    device: D,
    mtu: u16,
    buffer: Vec<u8>,
}

impl<D: Device> SmoltcpPort<D> {
    /// Over `device`, for IP packets of up to `mtu` bytes.
    pub fn new(device: D, mtu: u16) -> SmoltcpPort<D> {
        SmoltcpPort {
            device,
            mtu,
            buffer: vec![0; MAX_FRAME_LEN],
        }
    }

    /// The device beneath.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }
}

impl<D: Device> phy::Device for SmoltcpPort<D> {
    type RxToken<'a>
        = Received<'a>
    where
        D: 'a;
    type TxToken<'a>
        = Sent<'a, D>
    where
        D: 'a;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Received<'_>, Sent<'_, D>)> {
        let (len, _) = self.device.receive(&mut self.buffer).ok()??;
        Some((Received(&self.buffer[..len]), Sent(&mut self.device)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Sent<'_, D>> {
        Some(Sent(&mut self.device))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET_HEADER_LEN;
        capabilities
    }
}

/// A frame that has arrived.
pub struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// The right to send a frame.
pub struct Sent<'a, D>(&'a mut D);

impl<D: Device> phy::TxToken for Sent<'_, D> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        // A frame the device does not take is lost, as on any network.
        let _ = self.0.send(&TxFrame::plain(frame));
        result
    }
}
