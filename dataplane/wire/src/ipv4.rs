//! IPv4 (RFC 791).

use crate::{WireError, checksum};
use core::net::Ipv4Addr;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// The protocol of a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// ICMP (RFC 792).
    pub const ICMP: IpProtocol = IpProtocol(1);
    /// IP in IP (RFC 2003).
    pub const IP_IN_IP: IpProtocol = IpProtocol(4);
    /// TCP.
    pub const TCP: IpProtocol = IpProtocol(6);
    /// UDP.
    pub const UDP: IpProtocol = IpProtocol(17);
    /// GRE (RFC 2784).
    pub const GRE: IpProtocol = IpProtocol(47);
    /// Minimal encapsulation (RFC 2004).
    pub const MINIMAL: IpProtocol = IpProtocol(55);
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The twenty fixed bytes of an IPv4 header.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Ipv4Header {
    version_ihl: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    total_len: U16,
    identification: U16,
    flags_fragment: U16,
    /// Time to live.
    pub ttl: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

impl Ipv4Header {
    /// Bytes of the header without options.
    pub const LEN: usize = 20;

    /// A header without options, its checksum filled in. `total_len` counts
    /// header and payload in bytes.
    pub fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: IpProtocol,
        ttl: u8,
        total_len: u16,
    ) -> Self {
        let mut header = Self::unsummed(source, destination, protocol, ttl, total_len);
        header.fill_checksum();
        header
    }

    /// The same, the checksum left zero: for callers that set more fields before
    /// they call [`Ipv4Header::fill_checksum`].
    pub const fn unsummed(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: IpProtocol,
        ttl: u8,
        total_len: u16,
    ) -> Self {
        Ipv4Header {
            version_ihl: 0x45,
            tos: 0,
            total_len: U16::new(total_len),
            identification: U16::new(0),
            flags_fragment: U16::new(0),
            ttl,
            protocol: protocol.0,
            checksum: U16::new(0),
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// The version field: 4, or it is not IPv4.
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header with its options, as the header says.
    pub const fn header_len(&self) -> usize {
        ((self.version_ihl & 0x0f) as usize) * 4
    }

    /// Sets the length of header and options, in bytes: a multiple of four, at most
    /// 60; the checksum is the caller's to mend.
    pub const fn set_header_len(&mut self, len: usize) {
        // Four bits.
        self.version_ihl = 0x40 | (len / 4) as u8 & 0x0f;
    }

    /// Bytes of header and payload, as the header says.
    pub fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// Sets the length; the checksum is the caller's to mend.
    pub fn set_total_len(&mut self, len: u16) {
        self.total_len.set(len);
    }

    /// The identification that fragments share.
    pub fn identification(&self) -> u16 {
        self.identification.get()
    }

    /// Sets the identification; the checksum is the caller's to mend.
    pub fn set_identification(&mut self, identification: u16) {
        self.identification.set(identification);
    }

    /// Whether the packet must not be fragmented.
    pub fn dont_fragment(&self) -> bool {
        self.flags_fragment.get() & DONT_FRAGMENT != 0
    }

    /// Sets DF; the checksum is the caller's to mend.
    pub fn set_dont_fragment(&mut self, dont_fragment: bool) {
        let rest = self.flags_fragment.get() & !DONT_FRAGMENT;
        self.flags_fragment.set(if dont_fragment { rest | DONT_FRAGMENT } else { rest });
    }

    /// Whether fragments follow this one.
    pub fn more_fragments(&self) -> bool {
        self.flags_fragment.get() & MORE_FRAGMENTS != 0
    }

    /// Offset of this fragment's payload in bytes.
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_fragment.get() & FRAGMENT_OFFSET) * 8
    }

    /// Sets offset (in bytes, a multiple of eight) and the more-fragments flag,
    /// and leaves DF; the checksum is the caller's to mend.
    pub fn set_fragment(&mut self, offset: u16, more: bool) {
        let kept = self.flags_fragment.get() & DONT_FRAGMENT;
        let more = if more { MORE_FRAGMENTS } else { 0 };
        self.flags_fragment.set(kept | more | (offset / 8) & FRAGMENT_OFFSET);
    }

    /// Whether this is a fragment of a larger packet.
    pub fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// The protocol of the payload.
    pub const fn protocol(&self) -> IpProtocol {
        IpProtocol(self.protocol)
    }

    /// Sets the protocol; the checksum is the caller's to mend.
    pub const fn set_protocol(&mut self, protocol: IpProtocol) {
        self.protocol = protocol.0;
    }

    /// Sets where the packet comes from; the checksum is the caller's to mend.
    pub const fn set_source(&mut self, source: Ipv4Addr) {
        self.source = source.octets();
    }

    /// Sets where the packet goes; the checksum is the caller's to mend.
    pub const fn set_destination(&mut self, destination: Ipv4Addr) {
        self.destination = destination.octets();
    }

    /// Where the packet comes from.
    pub const fn source(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.source;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Where the packet goes.
    pub const fn destination(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.destination;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Puts another source in and mends the checksum (RFC 1624).
    pub fn replace_source(&mut self, source: Ipv4Addr) {
        let sum = checksum::update_address(self.checksum.get(), self.source(), source);
        self.checksum.set(sum);
        self.source = source.octets();
    }

    /// Puts another destination in and mends the checksum (RFC 1624).
    pub fn replace_destination(&mut self, destination: Ipv4Addr) {
        let sum = checksum::update_address(self.checksum.get(), self.destination(), destination);
        self.checksum.set(sum);
        self.destination = destination.octets();
    }

    /// Puts another identification in and mends the checksum (RFC 1624).
    pub fn replace_identification(&mut self, identification: u16) {
        let sum = checksum::update(self.checksum.get(), self.identification(), identification);
        self.checksum.set(sum);
        self.identification.set(identification);
    }

    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum.set(checksum);
    }

    /// Computes the checksum of a header that has no options.
    pub fn fill_checksum(&mut self) {
        self.checksum.set(0);
        let sum = checksum::checksum(self.as_bytes());
        self.checksum.set(sum);
    }

    /// Takes one from the TTL and mends the checksum (RFC 1141). At zero the
    /// packet must not be forwarded; then nothing changes.
    ///
    /// Returns the new TTL, or `None` when it was 0 or would become 0.
    pub fn decrement_ttl(&mut self) -> Option<u8> {
        let ttl = self.ttl.checked_sub(1).filter(|ttl| *ttl > 0)?;
        let old = u16::from_be_bytes([self.ttl, self.protocol]);
        let new = u16::from_be_bytes([ttl, self.protocol]);
        self.checksum.set(checksum::update(self.checksum.get(), old, new));
        self.ttl = ttl;
        Some(ttl)
    }
}

/// An IPv4 packet whose lengths and header checksum are right.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Packet<'a> {
    header: &'a Ipv4Header,
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Ipv4Packet<'a> {
    /// The packet at the start of `bytes`; link-layer padding behind it is cut.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Version`],
    /// [`WireError::HeaderLength`], [`WireError::Length`] or
    /// [`WireError::Checksum`] (RFC 791 §3.1, RFC 1122 §3.2.1).
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, _) = Ipv4Header::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
        if header.version() != 4 {
            return Err(WireError::Version);
        }
        let header_len = header.header_len();
        let total_len = usize::from(header.total_len());
        if header_len < Ipv4Header::LEN || header_len > total_len {
            return Err(WireError::HeaderLength);
        }
        let bytes = bytes.get(..total_len).ok_or(WireError::Length)?;
        let (head, payload) = bytes.split_at_checked(header_len).ok_or(WireError::HeaderLength)?;
        if checksum::checksum(head) != 0 {
            return Err(WireError::Checksum);
        }
        Ok(Ipv4Packet { header, bytes, payload })
    }

    /// The fixed header.
    pub const fn header(&self) -> &'a Ipv4Header {
        self.header
    }

    /// Header, options and payload, without padding.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows header and options.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn sample(payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + payload.len()).unwrap();
        let header = Ipv4Header::new(
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::new(198, 51, 100, 2),
            IpProtocol::UDP,
            64,
            len,
        );
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn padding_behind_the_packet_is_cut() {
        let mut bytes = sample(b"four");
        bytes.extend_from_slice(&[0xa5; 22]);
        let packet = Ipv4Packet::new_checked(&bytes).unwrap();
        assert_eq!(packet.payload(), b"four");
        assert_eq!(packet.bytes().len(), 24);
    }

    #[test]
    fn each_broken_rule_has_its_error() {
        let good = sample(b"data");
        for cut in 0..20 {
            assert_eq!(Ipv4Packet::new_checked(&good[..cut]).unwrap_err(), WireError::Truncated);
        }
        assert_eq!(Ipv4Packet::new_checked(&good[..22]).unwrap_err(), WireError::Length);
        let broken = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Ipv4Packet::new_checked(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(broken(0, 0x65), WireError::Version);
        assert_eq!(broken(0, 0x44), WireError::HeaderLength);
        assert_eq!(broken(0, 0x4f), WireError::HeaderLength);
        assert_eq!(broken(3, 19), WireError::HeaderLength);
        assert_eq!(broken(8, 63), WireError::Checksum);
    }

    #[test]
    fn ttl_of_one_is_not_forwarded() {
        let mut header =
            Ipv4Header::new(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, IpProtocol::TCP, 2, 20);
        assert_eq!(header.decrement_ttl(), Some(1));
        assert_eq!(checksum::checksum(header.as_bytes()), 0);
        let before = header;
        assert_eq!(header.decrement_ttl(), None);
        assert_eq!(header, before);
    }

    proptest! {
        #[test]
        fn what_is_replaced_keeps_the_checksum_right(
            source: [u8; 4], destination: [u8; 4], id: u16,
        ) {
            let mut bytes = sample(b"");
            let (header, _) = Ipv4Header::mut_from_prefix(&mut bytes).unwrap();
            header.replace_source(source.into());
            header.replace_destination(destination.into());
            header.replace_identification(id);
            let packet = Ipv4Packet::new_checked(&bytes).unwrap();
            prop_assert_eq!(packet.header().source().octets(), source);
            prop_assert_eq!(packet.header().destination().octets(), destination);
            prop_assert_eq!(packet.header().identification(), id);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(packet) = Ipv4Packet::new_checked(&bytes) {
                prop_assert!(packet.bytes().len() <= bytes.len());
                prop_assert!(packet.payload().len() < packet.bytes().len());
            }
        }

        #[test]
        fn a_new_header_is_read_back(ttl in any::<u8>(), len in 20u16..60, df in any::<bool>(), id in any::<u16>()) {
            let mut header = Ipv4Header::new(Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8), IpProtocol::IP_IN_IP, ttl, len);
            header.set_dont_fragment(df);
            header.set_identification(id);
            header.fill_checksum();
            let mut bytes = vec![0xa5u8; usize::from(len)];
            bytes[..20].copy_from_slice(header.as_bytes());
            let packet = Ipv4Packet::new_checked(&bytes).unwrap();
            prop_assert_eq!(packet.header().ttl, ttl);
            prop_assert_eq!(packet.header().dont_fragment(), df);
            prop_assert_eq!(packet.header().identification(), id);
            prop_assert_eq!(packet.header().source(), Ipv4Addr::new(1, 2, 3, 4));
            prop_assert_eq!(packet.header().destination(), Ipv4Addr::new(5, 6, 7, 8));
            prop_assert!(!packet.header().is_fragment());
        }
    }
}
