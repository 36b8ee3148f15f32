//! What the fast path reads in an IPv4 header, at once and without a branch for each
//! field.

use crate::encap::OUTER_TTL;

/// Bytes of a header without options: the only kind that goes fast.
pub(super) const LEN: usize = 20;

/// What a header says, in two words: a struct of smaller fields would be put together in
/// memory, and be read as a whole before they have arrived there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The source above the destination.
    ends: u64,
    /// From the lowest bit: 16 of the total length, 8 of the type of service, 8 of the
    /// protocol, whether it must not be fragmented.
    rest: u64,
}

impl Head {
    pub(super) const NONE: Head = Head { ends: 0, rest: 0 };

    #[inline(always)]
    pub(super) const fn source(self) -> u32 {
        (self.ends >> 32) as u32
    }

    #[inline(always)]
    pub(super) const fn destination(self) -> u32 {
        self.ends as u32
    }

    #[inline(always)]
    pub(super) const fn total_len(self) -> u16 {
        self.rest as u16
    }

    #[inline(always)]
    pub(super) const fn tos(self) -> u8 {
        (self.rest >> 16) as u8
    }

    #[inline(always)]
    pub(super) const fn protocol(self) -> u8 {
        (self.rest >> 24) as u8
    }

    #[inline(always)]
    pub(super) const fn dont_fragment(self) -> bool {
        self.rest >> 32 != 0
    }

    /// The same between other ends.
    #[inline(always)]
    pub(super) const fn between(self, source: u32, destination: u32) -> Head {
        Head { ends: (source as u64) << 32 | destination as u64, ..self }
    }

    /// The same of another protocol and length.
    #[inline(always)]
    pub(super) const fn carrying(self, protocol: u8, total_len: u16) -> Head {
        let kept = self.rest & !0xff00_ffff;
        Head { rest: kept | (protocol as u64) << 24 | total_len as u64, ..self }
    }
}

/// Fields as they lie in a word of a header, read as the machine reads words.
const FRAGMENT: u32 = u32::from_ne_bytes([0, 0, 0x3f, 0xff]);
const DONT_FRAGMENT: u32 = u32::from_ne_bytes([0, 0, 0x40, 0]);

impl Head {
    /// What these bytes say, and whether they are a header that is nothing special: version
    /// 4, no options, the checksum right, no fragment, TTL left for a hop, in front of a
    /// packet that has `available` bytes with it. Of its addresses nothing is known.
    #[inline(always)]
    pub(super) fn read(bytes: &[u8; LEN], available: usize) -> (Head, bool) {
        let words = words(bytes);
        let [first, second, third, source, destination] = words;
        let first = u32::from_be(first);
        let total_len = first as u16;
        let [ttl, protocol, ..] = third.to_ne_bytes();
        // One branch for all of it: it is all so, or the packet is a rare one.
        let is_plain = (first >> 24 == 0x45)
            & (second & FRAGMENT == 0)
            & (ttl > 1)
            & is_summed(words)
            & (usize::from(total_len) >= LEN)
            & (usize::from(total_len) <= available);
        let (source, destination) = (u32::from_be(source), u32::from_be(destination));
        let dont_fragment = u64::from(second & DONT_FRAGMENT != 0);
        let rest = u64::from(first & 0x00ff_ffff) | u64::from(protocol) << 24 | dont_fragment << 32;
        (Head { ends: 0, rest }.between(source, destination), is_plain)
    }
}

/// Whether words with a checksum among them sum up to nothing, which they do in either
/// order of bytes (RFC 1071 §2). Not all of them are zero.
#[inline(always)]
pub(super) fn is_summed<const N: usize>(words: [u32; N]) -> bool {
    // In one's complement, 65535 is nothing.
    sum(words).is_multiple_of(0xffff)
}

/// The header of a tunnel around a packet with the header `inner` (RFC 2003 §3.1).
/// `identification` is asked for only when the outer packet may be fragmented
/// (RFC 6864 §4).
#[inline(always)]
pub(super) fn outer(
    inner: Head,
    (source, destination): (u32, u32),
    (protocol, total_len): (u8, u16),
    set_dont_fragment: bool,
    identification: &mut u16,
) -> [u8; LEN] {
    let second = if inner.dont_fragment() || set_dont_fragment {
        0x4000
    } else {
        *identification = identification.wrapping_add(1);
        u32::from(*identification) << 16
    };
    let first = 0x4500_0000 | u32::from(inner.tos()) << 16 | u32::from(total_len);
    let third = u32::from(OUTER_TTL) << 24 | u32::from(protocol) << 16;
    summed([first, second, third, source, destination])
}

/// Costs a packet one of its TTL, given the word of its header that begins with it
/// (RFC 1812 §5.3.1, RFC 1141).
#[inline(always)]
pub(super) fn hop(bytes: &mut [u8; 4]) {
    let word = u32::from_be_bytes(*bytes);
    // One less in the upper byte of a word under the checksum: one more in that of its
    // complement, the carry around.
    let checksum = (word & 0xffff) + 0x100;
    let checksum = (checksum & 0xffff) + (checksum >> 16);
    // Zero has two forms; this one is never stored (RFC 1624 §3).
    let checksum = if checksum == 0xffff { 0 } else { checksum };
    *bytes = (((word & 0xffff_0000) - 0x0100_0000) | checksum).to_be_bytes();
}

/// A header whose words are these, with its checksum in a word that has none yet.
#[inline(always)]
fn summed(words: [u32; 5]) -> [u8; LEN] {
    let checksum = u32::from(!fold(sum(words)));
    let [first, second, third, source, destination] = words;
    bytes_of([first, second, third | checksum, source, destination])
}

/// A minimal forwarding header with the original source (RFC 2004 §3).
#[inline(always)]
pub(super) fn forwarding(head: Head) -> [u8; 12] {
    // S: the source is there.
    let first = u32::from(head.protocol()) << 24 | 0x80 << 16;
    let checksum = u32::from(!fold(sum([first, head.destination(), head.source()])));
    bytes_of([first | checksum, head.destination(), head.source()])
}

#[inline(always)]
fn bytes_of<const WORDS: usize, const N: usize>(words: [u32; WORDS]) -> [u8; N] {
    const { assert!(N == 4 * WORDS) };
    let mut bytes = [0; N];
    let (places, _) = bytes.as_chunks_mut::<4>();
    for (place, word) in places.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    bytes
}

/// The header of a packet on its way, whose header was `old`, with another
/// length, protocol and ends, for one of its TTL: what minimal encapsulation does to it
/// (RFC 2004 §3).
#[inline(always)]
pub(super) fn changed(
    old: &[u8; LEN],
    (protocol, total_len): (u8, u16),
    (source, destination): (u32, u32),
) -> [u8; LEN] {
    let old: [u32; 5] = words(old);
    let [first, second, third, ..] = old.map(u32::from_be);
    let first = (first & 0xffff_0000) | u32::from(total_len);
    let third = ((third & 0xff00_0000) - 0x0100_0000) | (u32::from(protocol) << 16);
    summed([first, second, third, source, destination])
}

/// Words as the machine reads them.
#[inline(always)]
pub(super) fn words<const N: usize, const WORDS: usize>(bytes: &[u8; N]) -> [u32; WORDS] {
    const { assert!(N == 4 * WORDS) };
    let mut words = [0; WORDS];
    let (places, _) = bytes.as_chunks::<4>();
    for (word, place) in words.iter_mut().zip(places) {
        *word = u32::from_ne_bytes(*place);
    }
    words
}

#[inline(always)]
fn sum<const N: usize>(words: [u32; N]) -> u64 {
    words.into_iter().map(u64::from).sum()
}

/// The one's-complement sum in 16 bits of a sum of a few 32-bit words.
#[inline(always)]
pub(super) fn fold(sum: u64) -> u16 {
    // The carries of a few words make none themselves.
    let (half, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let half = half + u32::from(carry);
    // What the lower halves carry is what the upper ones carry around.
    (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
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
            let read = bytes.first_chunk().map(|start| Head::read(start, bytes.len()));
            if let Some((head, true)) = read {
                let facts = parse::ipv4(&bytes).unwrap();
                prop_assert_eq!(Ipv4Addr::from_bits(head.source()), facts.source);
                prop_assert_eq!(Ipv4Addr::from_bits(head.destination()), facts.destination);
                prop_assert_eq!(head.total_len(), facts.total_len);
                prop_assert_eq!(IpProtocol(head.protocol()), facts.protocol);
                prop_assert_eq!(head.dont_fragment(), facts.dont_fragment);
                prop_assert_eq!(facts.header_len, 20);
                prop_assert!(!facts.fragment && bytes[8] > 1);
                hop(bytes[8..].first_chunk_mut().unwrap());
                prop_assert!(parse::ipv4(&bytes).is_ok(), "the checksum is right behind a hop");
            } else if plain && whole && bytes.len() >= LEN {
                prop_assert!(bytes[8] <= 1, "{:?} is nothing special", bytes);
            }
        }

        #[test]
        fn an_outer_header_is_the_general_paths(
            source: u32, destination: u32, tos: u8, dont_fragment: bool, set: bool,
            total_len in 20u16..1500, before: u16,
        ) {
            let rest = u64::from(tos) << 16 | u64::from(dont_fragment) << 32;
            let inner = Head { ends: 0, rest }.between(1, 2).carrying(6, total_len);
            prop_assert_eq!((inner.tos(), inner.dont_fragment()), (tos, dont_fragment));
            let mut identification = before;
            let bytes = outer(inner, (source, destination), (4, total_len + 20), set, &mut identification);
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
        fn a_sum_is_folded_as_it_is_summed(words: [u32; 5]) {
            let bytes = words.map(u32::to_be_bytes).concat();
            prop_assert_eq!(!fold(sum(words)), homeport_wire::checksum::checksum(&bytes));
        }

        #[test]
        fn a_hop_is_the_general_paths(mut bytes in proptest::collection::vec(any::<u8>(), 20..21)) {
            bytes[8] = bytes[8].max(2);
            let mut expected = bytes.clone();
            Ipv4Header::mut_from_prefix(&mut expected).unwrap().0.decrement_ttl();
            hop(bytes[8..].first_chunk_mut().unwrap());
            prop_assert_eq!(bytes, expected);
        }
    }
}
