//! UDP (RFC 768).

use crate::checksum::Sum;
use crate::{IpProtocol, WireError};
use core::net::Ipv4Addr;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// The eight bytes of a UDP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    source_port: U16,
    destination_port: U16,
    len: U16,
    checksum: U16,
}

impl UdpHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header for `payload` with its checksum over the pseudo-header. `None`
    /// when header and payload are longer than a UDP length can say.
    pub fn new(
        (source, source_port): (Ipv4Addr, u16),
        (destination, destination_port): (Ipv4Addr, u16),
        payload: &[u8],
    ) -> Option<Self> {
        let mut header = Self::unsummed(source_port, destination_port, payload.len())?;
        let sum = Sum::new()
            .add_pseudo_header(source, destination, IpProtocol::UDP.0, header.udp_len())
            .add_bytes(header.as_bytes())
            .add_bytes(payload)
            .checksum();
        // A sum of zero is sent as all ones: zero says "no checksum".
        header.checksum.set(if sum == 0 { 0xffff } else { sum });
        Some(header)
    }

    /// A header without a checksum (RFC 768: zero says that none was computed), for
    /// a payload of `payload_len` bytes. `None` when header and payload are longer
    /// than a UDP length can say.
    pub fn unsummed(source_port: u16, destination_port: u16, payload_len: usize) -> Option<Self> {
        let len = u16::try_from(payload_len.checked_add(Self::LEN)?).ok()?;
        Some(UdpHeader {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            len: U16::new(len),
            checksum: U16::new(0),
        })
    }

    /// The sender's port.
    pub fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// The receiver's port.
    pub fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// Sets the sender's port; the checksum is the caller's to mend.
    pub fn set_source_port(&mut self, port: u16) {
        self.source_port.set(port);
    }

    /// Sets the receiver's port; the checksum is the caller's to mend.
    pub fn set_destination_port(&mut self, port: u16) {
        self.destination_port.set(port);
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum.set(checksum);
    }

    /// Bytes of header and payload, as the header says.
    pub fn udp_len(&self) -> u16 {
        self.len.get()
    }

    /// The checksum field; zero says that the sender computed none.
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }
}

/// A UDP datagram whose length and checksum are right.
#[derive(Clone, Copy, Debug)]
pub struct UdpPacket<'a> {
    header: &'a UdpHeader,
    payload: &'a [u8],
}

impl<'a> UdpPacket<'a> {
    /// The datagram in `bytes`, the payload of an IPv4 packet from `source` to
    /// `destination`. A checksum of zero is accepted (RFC 768).
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Length`], [`WireError::Checksum`].
    pub fn new_checked(
        bytes: &'a [u8],
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> Result<Self, WireError> {
        let (header, _) = UdpHeader::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
        let len = usize::from(header.udp_len());
        let bytes = bytes.get(..len).ok_or(WireError::Length)?;
        let payload = bytes.get(UdpHeader::LEN..).ok_or(WireError::Length)?;
        // Only where there is one: tunnels have none, and their payload is long.
        let sum = || {
            Sum::new()
                .add_pseudo_header(source, destination, IpProtocol::UDP.0, header.udp_len())
                .add_bytes(bytes)
        };
        if header.checksum() != 0 && sum().checksum() != 0 {
            return Err(WireError::Checksum);
        }
        Ok(UdpPacket { header, payload })
    }

    /// The header.
    pub const fn header(&self) -> &'a UdpHeader {
        self.header
    }

    /// What follows the header.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use proptest::prelude::*;

    const FROM: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 1025);
    const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 2), 434);

    proptest! {
        #[test]
        fn a_new_header_verifies_and_a_flipped_bit_does_not(
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            bit in 0usize..64,
        ) {
            let header = UdpHeader::new(FROM, TO, &payload).unwrap();
            let mut bytes = header.as_bytes().to_vec();
            bytes.extend_from_slice(&payload);
            let packet = UdpPacket::new_checked(&bytes, FROM.0, TO.0).unwrap();
            prop_assert_eq!(packet.payload(), &payload[..]);
            prop_assert_eq!(packet.header().destination_port(), 434);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(UdpPacket::new_checked(&bytes, FROM.0, TO.0).is_err() || bytes[6..8] == [0, 0]);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = UdpPacket::new_checked(&bytes, FROM.0, TO.0);
        }
    }

    #[test]
    fn a_payload_too_long_for_the_length_field_is_refused() {
        assert!(UdpHeader::new(FROM, TO, &alloc::vec![0; 65_528]).is_none());
        assert!(UdpHeader::new(FROM, TO, &alloc::vec![0; 65_527]).is_some());
        assert!(UdpHeader::unsummed(434, 434, 65_528).is_none());
        assert!(UdpHeader::unsummed(434, 434, usize::MAX).is_none());
    }
}
