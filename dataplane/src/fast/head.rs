//! What the fast path reads in an IPv4 header, at once and without a branch for each
//! field.

use crate::encap::OUTER_TTL;

/// Bytes of a header without options: the only kind that goes fast.
pub(super) const LEN: usize = 20;

/// Whether an address needs a closer look, by its first octet: this network, loopback,
/// link local (with all of 169/8), multicast and above (RFC 1812 §5.3.7, RFC 6890).
#[inline(always)]
pub(super) const fn is_unusual(address: u32) -> bool {
    let octet = address >> 24;
    octet.wrapping_sub(1) >= 223 || octet == 127 || octet == 169
}

/// A header that is nothing special: version 4, no options, the checksum right, no
/// fragment, TTL left for a hop, addresses that may be forwarded between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) total_len: u16,
    pub(super) tos: u8,
    pub(super) protocol: u8,
    pub(super) dont_fragment: bool,
}

impl Head {
    /// The header at the start of `bytes`, which hold the whole packet; `None` when it
    /// is anything special.
    #[inline(always)]
    pub(super) fn read(bytes: &[u8]) -> Option<Head> {
        let words = words(bytes.first_chunk::<LEN>()?);
        let [first, second, third, source, destination] = words;
        let (total_len, tos) = (first as u16, (first >> 16) as u8);
        let (ttl, protocol) = ((third >> 24) as u8, (third >> 16) as u8);
        let is_plain = first >> 24 == 0x45
            && second & 0x3fff == 0
            && ttl > 1
            && fold(sum(words)) == 0xffff
            && usize::from(total_len) >= LEN
            && usize::from(total_len) <= bytes.len()
            && !is_unusual(source)
            && !is_unusual(destination);
        let dont_fragment = second & 0x4000 != 0;
        is_plain.then_some(Head { source, destination, total_len, tos, protocol, dont_fragment })
    }
}

/// The header of a tunnel around a packet with the header `inner` (RFC 2003 §3.1).
/// `identification` is asked for only when the outer packet may be fragmented
/// (RFC 6864 §4).
#[inline(always)]
pub(super) fn outer(
    inner: &Head,
    (source, destination): (u32, u32),
    (protocol, overhead): (u8, u16),
    set_dont_fragment: bool,
    identification: &mut u16,
) -> [u8; LEN] {
    let total_len = u32::from(inner.total_len) + u32::from(overhead);
    let second = if inner.dont_fragment || set_dont_fragment {
        0x4000
    } else {
        *identification = identification.wrapping_add(1);
        u32::from(*identification) << 16
    };
    let first = 0x4500_0000 | u32::from(inner.tos) << 16 | total_len;
    let third = u32::from(OUTER_TTL) << 24 | u32::from(protocol) << 16;
    let checksum = !fold(sum([first, second, third, source, destination]));
    let mut bytes = [0; LEN];
    let (places, _) = bytes.as_chunks_mut::<4>();
    let words = [first, second, third | u32::from(checksum), source, destination];
    for (place, word) in places.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    bytes
}

/// Costs the packet at the start of `bytes` one of its TTL (RFC 1812 §5.3.1, RFC 1141).
#[inline(always)]
pub(super) fn hop(bytes: &mut [u8]) {
    if let Some(bytes) = bytes.get_mut(8..12).and_then(|bytes| bytes.first_chunk_mut::<4>()) {
        let word = u32::from_be_bytes(*bytes);
        // One less in the upper byte of a word under the checksum: one more in that of
        // its complement, the carry around.
        let checksum = (word & 0xffff) + 0x100;
        let checksum = (checksum & 0xffff) + (checksum >> 16);
        // Zero has two forms; this one is never stored (RFC 1624 §3).
        let checksum = if checksum == 0xffff { 0 } else { checksum };
        *bytes = (((word & 0xffff_0000) - 0x0100_0000) | checksum).to_be_bytes();
    }
}

#[inline(always)]
fn words(bytes: &[u8; LEN]) -> [u32; 5] {
    let mut words = [0; 5];
    let (places, _) = bytes.as_chunks::<4>();
    for (word, place) in words.iter_mut().zip(places) {
        *word = u32::from_be_bytes(*place);
    }
    words
}

#[inline(always)]
fn sum(words: [u32; 5]) -> u64 {
    words.into_iter().map(u64::from).sum()
}

/// The one's-complement sum in 16 bits of a sum of a few 32-bit words.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use homeport_wire::{IpProtocol, Ipv4Header};
    use proptest::prelude::*;
    use zerocopy::{FromBytes, IntoBytes};

    use super::*;
    use crate::parse;

    proptest! {
        /// What goes fast is what the general path reads in it.
        #[test]
        fn a_head_is_what_the_general_path_reads(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..60), whole: bool, plain: bool,
        ) {
            if plain && let Some(first) = bytes.first_mut() {
                *first = 0x45;
            }
            if plain && bytes.len() >= LEN {
                bytes[2..4].copy_from_slice(&[0, 20]);
                bytes[6] &= 0xc0;
                bytes[7] = 0;
            }
            if whole && let Ok((header, _)) = Ipv4Header::mut_from_prefix(&mut bytes) {
                header.fill_checksum();
            }
            if let Some(head) = Head::read(&bytes) {
                let facts = parse::ipv4(&bytes).unwrap();
                prop_assert_eq!(Ipv4Addr::from_bits(head.source), facts.source);
                prop_assert_eq!(Ipv4Addr::from_bits(head.destination), facts.destination);
                prop_assert_eq!(head.total_len, facts.total_len);
                prop_assert_eq!(IpProtocol(head.protocol), facts.protocol);
                prop_assert_eq!(head.dont_fragment, facts.dont_fragment);
                prop_assert_eq!(facts.header_len, 20);
                prop_assert!(!facts.fragment && bytes[8] > 1);
                hop(&mut bytes);
                prop_assert!(parse::ipv4(&bytes).is_ok(), "the checksum is right behind a hop");
            } else if plain && whole && bytes.len() >= LEN {
                let unusual = |octet: u8| matches!(octet, 0 | 127 | 169 | 224..);
                let special = bytes[8] <= 1 || unusual(bytes[12]) || unusual(bytes[16]);
                prop_assert!(special, "{:?} is nothing special", bytes);
            }
        }

        #[test]
        fn an_outer_header_is_the_general_paths(
            source: u32, destination: u32, tos: u8, dont_fragment: bool, set: bool,
            total_len in 20u16..1500, before: u16,
        ) {
            let inner = Head { source: 1, destination: 2, total_len, tos, protocol: 6, dont_fragment };
            let mut identification = before;
            let bytes = outer(&inner, (source, destination), (4, 20), set, &mut identification);
            let (from, to) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            let mut header =
                Ipv4Header::unsummed(from, to, IpProtocol::IP_IN_IP, OUTER_TTL, total_len + 20);
            header.tos = tos;
            if dont_fragment || set {
                header.set_dont_fragment(true);
                prop_assert_eq!(identification, before);
            } else {
                header.set_identification(before.wrapping_add(1));
            }
            header.fill_checksum();
            prop_assert_eq!(&bytes[..], header.as_bytes());
        }

        #[test]
        fn a_hop_is_the_general_paths(mut bytes in proptest::collection::vec(any::<u8>(), 20..21)) {
            bytes[8] = bytes[8].max(2);
            let mut expected = bytes.clone();
            Ipv4Header::mut_from_prefix(&mut expected).unwrap().0.decrement_ttl();
            hop(&mut bytes);
            prop_assert_eq!(bytes, expected);
        }
    }
}
