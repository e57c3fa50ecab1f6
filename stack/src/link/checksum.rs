//! Computes the Internet checksum (RFC 1071) over bytes in several pieces.

use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, checksum as wire};

/// A one's complement sum that is still being added to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    /// The pseudo header of an IPv4 (RFC 9293 section 3.1) or IPv6 (RFC 8200 section 8.1) packet with `length` bytes
    /// above IP.
    pub(crate) fn pseudo_header(
        source: IpAddr,
        destination: IpAddr,
        protocol: IpProtocol,
        length: usize,
    ) -> Sum {
        let mut sum = Sum::default();
        sum.add_address(source);
        sum.add_address(destination);
        sum.add(&(length as u32).to_be_bytes());
        sum.add(&[0, u8::from(protocol)]);
        sum
    }

    /// Adds bytes that follow all those added before; a piece may end at an odd offset.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        // The 32-bit accumulator of `data` holds 64 KiB and not much more.
        for piece in bytes.chunks(32 * 1024) {
            let piece_sum = wire::data(piece);
            self.total += u64::from(if self.odd {
                piece_sum.swap_bytes()
            } else {
                piece_sum
            });
            self.odd ^= piece.len() % 2 == 1;
        }
    }

    fn add_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.add(&v4.octets()),
            IpAddr::V6(v6) => self.add(&v6.octets()),
        }
    }

    /// The sum folded to 16 bits, without the final complement: the value that a device which completes the checksum
    /// expects.
    pub(crate) fn partial(self) -> u16 {
        let mut total = self.total;
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        total as u16
    }

    /// The checksum as it is written into a header.
    pub(crate) fn checksum(self) -> u16 {
        !self.partial()
    }

    /// Returns whether bytes that contain their own checksum add up.
    pub(crate) fn is_valid(self) -> bool {
        self.partial() == 0xffff
    }
}
