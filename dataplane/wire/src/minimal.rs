//! Minimal encapsulation within IP (RFC 2004): the datagram's own IP header goes in
//! front, and what was changed in it is kept in a small header behind it.

use crate::{IpProtocol, WireError, checksum};
use core::net::Ipv4Addr;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// S: the original source address is present. The seven bits below it are reserved
/// and ignored on reception (RFC 2004 §3).
const SOURCE_PRESENT: u8 = 0x80;

/// The minimal forwarding header without the original source: when the tunnel's
/// entrance is the datagram's source.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MinimalHeader {
    protocol: u8,
    flags: u8,
    checksum: U16,
    destination: [u8; 4],
}

impl MinimalHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header, its checksum filled in.
    pub fn new(protocol: IpProtocol, destination: Ipv4Addr) -> Self {
        let mut header = Self::unsummed(protocol, 0, destination);
        header.checksum.set(checksum::checksum(header.as_bytes()));
        header
    }

    const fn unsummed(protocol: IpProtocol, flags: u8, destination: Ipv4Addr) -> Self {
        let (checksum, destination) = (U16::new(0), destination.octets());
        MinimalHeader { protocol: protocol.0, flags, checksum, destination }
    }

    /// The datagram's protocol.
    pub const fn protocol(&self) -> IpProtocol {
        IpProtocol(self.protocol)
    }

    /// Where the datagram goes.
    pub const fn destination(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.destination;
        Ipv4Addr::new(a, b, c, d)
    }
}

/// The minimal forwarding header with the original source.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SourcedMinimalHeader {
    minimal: MinimalHeader,
    source: [u8; 4],
}

impl SourcedMinimalHeader {
    /// Bytes of the header.
    pub const LEN: usize = 12;

    /// A header, its checksum filled in.
    pub fn new(protocol: IpProtocol, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let minimal = MinimalHeader::unsummed(protocol, SOURCE_PRESENT, destination);
        let mut header = SourcedMinimalHeader { minimal, source: source.octets() };
        header.minimal.checksum.set(checksum::checksum(header.as_bytes()));
        header
    }
}

/// The payload of an IPv4 packet of protocol 55, its checksum right.
#[derive(Clone, Copy, Debug)]
pub struct MinimalPacket<'a> {
    header: &'a MinimalHeader,
    source: Option<Ipv4Addr>,
    payload: &'a [u8],
}

impl<'a> MinimalPacket<'a> {
    /// The packet in `bytes`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Checksum`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, mut payload) =
            MinimalHeader::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
        let mut source = None;
        if header.flags & SOURCE_PRESENT != 0 {
            let (sourced, rest) =
                SourcedMinimalHeader::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
            (source, payload) = (Some(Ipv4Addr::from(sourced.source)), rest);
        }
        let (head, _) =
            bytes.split_at_checked(bytes.len() - payload.len()).ok_or(WireError::Truncated)?;
        if checksum::checksum(head) != 0 {
            return Err(WireError::Checksum);
        }
        Ok(MinimalPacket { header, source, payload })
    }

    /// The part of the header that is always there.
    pub const fn header(&self) -> &'a MinimalHeader {
        self.header
    }

    /// Where the datagram comes from; `None`: from the outer source.
    pub const fn source(&self) -> Option<Ipv4Addr> {
        self.source
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
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn packet(source: Option<Ipv4Addr>, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let protocol = IpProtocol(protocol);
        match source {
            Some(source) => {
                [SourcedMinimalHeader::new(protocol, source, to).as_bytes(), payload].concat()
            }
            None => [MinimalHeader::new(protocol, to).as_bytes(), payload].concat(),
        }
    }

    proptest! {
        #[test]
        fn what_we_send_is_read_back_and_a_flipped_bit_shows(
            source: Option<u32>, to: u32, protocol: u8,
            payload in proptest::collection::vec(any::<u8>(), 0..40), at: proptest::sample::Index,
        ) {
            let (source, to) = (source.map(Ipv4Addr::from_bits), Ipv4Addr::from_bits(to));
            let mut bytes = packet(source, to, protocol, &payload);
            let head = if source.is_some() { 12 } else { 8 };
            prop_assert_eq!(bytes.len(), head + payload.len());
            let read = MinimalPacket::new_checked(&bytes).unwrap();
            prop_assert_eq!((read.source(), read.header().destination()), (source, to));
            prop_assert_eq!(read.header().protocol(), IpProtocol(protocol));
            prop_assert_eq!(read.payload(), &payload[..]);
            for cut in 0..head {
                let error = MinimalPacket::new_checked(&bytes[..cut]).unwrap_err();
                prop_assert_eq!(error, WireError::Truncated);
            }
            let bit = at.index(head * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(MinimalPacket::new_checked(&bytes).is_err(), "bit {}", bit);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = MinimalPacket::new_checked(&bytes);
        }
    }

    /// RFC 2004 §3: sent as zero, ignored on reception.
    #[test]
    fn reserved_bits_are_read_over() {
        let mut bytes = packet(None, Ipv4Addr::new(10, 1, 0, 10), 6, b"data");
        assert_eq!(bytes[1], 0);
        bytes[1] = 0x7f;
        bytes[2..4].fill(0);
        let sum = checksum::checksum(&bytes[..8]);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(MinimalPacket::new_checked(&bytes).unwrap().payload(), b"data");
    }
}
