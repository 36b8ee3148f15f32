//! What the fast path reads in an IPv4 header, and what it writes there, at once and
//! without a branch for each field.
//!
//! A header is taken as words whose lowest byte comes first, whatever machine this is: a
//! one's-complement sum is the same in either order (RFC 1071 §2), and most fields need
//! not be turned.

use zerocopy::byteorder::{big_endian, little_endian};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute, transmute_ref};

use crate::encap::OUTER_TTL;

/// Bytes of a header without options: the only kind that goes fast.
pub(super) const LEN: usize = 20;

/// A header in the words that it is read and written by: from its bytes one by one, the
/// compiler would load and store them one by one.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Words {
    start: little_endian::U64,
    third: little_endian::U32,
    ends: big_endian::U64,
}

/// The same of a minimal forwarding header (RFC 2004 §3).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ForwardingWords {
    first: little_endian::U32,
    /// The destination above the source.
    ends: big_endian::U64,
}

/// What a header says, in words: a struct of smaller fields would be put together in
/// memory, and be read as a whole before they have arrived there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The source above the destination, as numbers.
    ends: u64,
    /// As it lies in the header: version, type of service, length, identification and
    /// fragment.
    start: u64,
    /// As it lies in the header: TTL, protocol, checksum.
    third: u32,
}

impl Head {
    pub(super) const NONE: Head = Head { ends: 0, start: 0, third: 0 };

    #[inline(always)]
    pub(super) const fn source(self) -> u32 {
        (self.ends >> 32) as u32
    }

    #[inline(always)]
    pub(super) const fn destination(self) -> u32 {
        self.ends as u32
    }

    /// Source and destination as they lie in the header.
    #[inline(always)]
    pub(super) fn ends(self) -> [[u8; 4]; 2] {
        transmute!(self.ends.to_be_bytes())
    }

    #[inline(always)]
    pub(super) const fn total_len(self) -> u16 {
        ((self.start >> 16) as u16).swap_bytes()
    }

    #[inline(always)]
    pub(super) const fn tos(self) -> u8 {
        (self.start >> 8) as u8
    }

    #[inline(always)]
    pub(super) const fn protocol(self) -> u8 {
        (self.third >> 8) as u8
    }

    #[inline(always)]
    pub(super) const fn dont_fragment(self) -> bool {
        self.start & DONT_FRAGMENT != 0
    }

    /// The word with the TTL, for a packet that was let go on.
    #[inline(always)]
    pub(super) const fn hopped(self) -> [u8; 4] {
        hop(self.third).to_le_bytes()
    }

    /// The header of a packet with this one that was let go on, summed anew: what minimal
    /// encapsulation makes of a header (RFC 2004 §3).
    #[inline(always)]
    pub(super) fn rewritten(self) -> [u8; LEN] {
        let third = (self.third & 0xffff) - 1;
        let (sum, carry) = self.start.overflowing_add(self.ends.swap_bytes());
        // A carry of 64 bits is one of 16 as well.
        let rest = u64::from(fold(sum)) + u64::from(third) + u64::from(carry);
        let third = third | u32::from(!fold(rest)) << 16;
        transmute!(Words { start: self.start.into(), third: third.into(), ends: self.ends.into() })
    }

    /// The same with another checksum, its byte that comes first in the lower half.
    #[inline(always)]
    pub(super) const fn with_checksum(self, checksum: u16) -> Head {
        Head { third: self.third & 0xffff | (checksum as u32) << 16, ..self }
    }

    /// The same between other ends.
    #[inline(always)]
    pub(super) const fn between(self, source: u32, destination: u32) -> Head {
        Head { ends: (source as u64) << 32 | destination as u64, ..self }
    }

    /// The same of another protocol and length; its checksum is wrong.
    #[inline(always)]
    pub(super) const fn carrying(self, protocol: u8, total_len: u16) -> Head {
        let start = self.start & !0xffff_0000 | (total_len.swap_bytes() as u64) << 16;
        let third = self.third & !0xff00 | (protocol as u32) << 8;
        Head { start, third, ..self }
    }
}

/// Fields as they lie in a header's first two words: the version and the length of the
/// header, which are to be [`PLAIN`]; what tells a fragment; the bit that forbids one.
const VERSION: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0, 0]);
const FRAGMENT: u64 = u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0x3f, 0xff]);
const DONT_FRAGMENT: u64 = u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0x40, 0]);

/// Version 4, no options.
const PLAIN: u64 = 0x45;

impl Head {
    /// What these bytes say, and whether they are a header that is nothing special: version
    /// 4, no options, the checksum right, no fragment, TTL left for a hop, in front of a
    /// packet that has `available` bytes with it (at least a header's). Of its addresses
    /// nothing is known.
    #[inline(always)]
    pub(super) fn read(bytes: &[u8; LEN], available: usize) -> (Head, bool) {
        let words: &Words = transmute_ref!(bytes);
        let (start, third, ends) = (words.start.get(), words.third.get(), words.ends.get());
        let head = Head { ends, start, third };
        let beyond = usize::from(head.total_len()).wrapping_sub(LEN);
        // One branch for all of it: it is all so, or the packet is a rare one.
        let is_plain = (start & (VERSION | FRAGMENT) == PLAIN)
            & (third as u8 > 1)
            & is_summed(start, ends.swap_bytes(), third)
            & (beyond <= available.wrapping_sub(LEN));
        (head, is_plain)
    }
}

/// Whether words with a checksum among them sum up to nothing (RFC 1071 §2). Not all of
/// them are zero.
#[inline(always)]
const fn is_summed(first: u64, second: u64, third: u32) -> bool {
    let (sum, carry) = first.overflowing_add(second);
    let (sum, again) = sum.overflowing_add(third as u64 + carry as u64);
    let sum = sum + again as u64;
    // In one's complement, 65535 is nothing. Multiplied by its inverse, its multiples
    // alone become as small as their quotients.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const { assert!(INVERSE.wrapping_mul(0xffff) == 1) };
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// A word with a TTL above 1, one less, with the checksum that then is right (RFC 1812
/// §5.3.1, RFC 1141).
#[inline(always)]
const fn hop(third: u32) -> u32 {
    // One less in the lowest byte is one more in the lower byte of the checksum, as it
    // lies here, and its carry goes around.
    if third < 0xfffe_0000 {
        third + 0xffff
    } else if third < 0xffff_0000 {
        // Zero has two forms; the other one is never stored (RFC 1624 §3).
        (third & 0xffff) - 1
    } else {
        (third & 0xffff) + 0xffff
    }
}

/// The words of the header of a tunnel, up to its addresses, around a packet with the
/// header `inner` (RFC 2003 §3.1). `ends` is the sum of the addresses, see
/// [`TunnelEnd::sum`](crate::table::binding::TunnelEnd::sum).
/// `identification` is asked for only when the outer packet may be fragmented
/// (RFC 6864 §4).
#[inline(always)]
pub(super) const fn outer(
    inner: Head,
    ends: u16,
    (protocol, total_len): (u8, u16),
    set_dont_fragment: bool,
    identification: &mut u16,
) -> (u64, u32) {
    let total_len = total_len.swap_bytes();
    // The half-word that is not zero is all that counts in the sum.
    let (second, half) = if inner.dont_fragment() || set_dont_fragment {
        (0x0040_0000, 0x40)
    } else {
        *identification = identification.wrapping_add(1);
        let identification = identification.swap_bytes() as u32;
        (identification, identification)
    };
    let first = inner.start as u16;
    let third = (protocol as u32) << 8 | OUTER_TTL as u32;
    let sum = first as u32 + total_len as u32 + half + third + ends as u32;
    // What the lower half carries is what the upper one carries around.
    let checksum = !sum.wrapping_add(sum.rotate_left(16)) & 0xffff_0000;
    let start = first as u64 | (total_len as u64) << 16 | (second as u64) << 32;
    (start, third | checksum)
}

/// A minimal forwarding header with the original source (RFC 2004 §3).
#[inline(always)]
pub(super) fn forwarding(head: Head) -> [u8; 12] {
    // S: the source is there.
    let first = u32::from(head.protocol()) | 0x80 << 8;
    let ends = u64::from(head.destination()) << 32 | u64::from(head.source());
    // No carry is lost: half of each sum is there.
    let sum = (ends.swap_bytes() >> 32) + (ends.swap_bytes() & 0xffff_ffff);
    let first = first | u32::from(!fold(u64::from(first) + sum)) << 16;
    transmute!(ForwardingWords { first: first.into(), ends: ends.into() })
}

/// What a minimal forwarding header with the original source says, if its checksum is
/// right: protocol, source and destination. The bits below that of the source are
/// reserved and ignored.
#[inline(always)]
pub(super) fn read_forwarding(bytes: &[u8; 12]) -> Option<(u8, u32, u32)> {
    let words: &ForwardingWords = transmute_ref!(bytes);
    let (first, ends) = (words.first.get(), words.ends.get());
    if first & 0x80 << 8 == 0 || !is_summed(ends.swap_bytes(), 0, first) {
        return None;
    }
    Some((first as u8, ends as u32, (ends >> 32) as u32))
}

/// The one's-complement sum in 16 bits of a sum of words.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    // Where the first sum carries, it leaves room for the carry.
    let (half, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let half = half + carry as u32;
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
    use crate::table::binding::{BindingEntry, Encapsulation, EntryFlags, TunnelEnd, TunnelFlags};

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
                bytes[8..12].copy_from_slice(&head.hopped());
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
            let mut header = Ipv4Header::new(1.into(), 2.into(), IpProtocol::TCP, 64, total_len);
            header.tos = tos;
            header.set_dont_fragment(dont_fragment);
            header.fill_checksum();
            let (inner, is_plain) = Head::read(header.as_bytes().first_chunk().unwrap(), 1500);
            prop_assert!(is_plain && inner.tos() == tos && inner.dont_fragment() == dont_fragment);
            let (from, to) = (Ipv4Addr::from_bits(source), Ipv4Addr::from_bits(destination));
            let end = TunnelEnd::new(to, Encapsulation::IpInIp, TunnelFlags::default());
            let entry = BindingEntry::new(from, [end], None, EntryFlags::default()).unwrap();
            let ends = entry.tunnels()[0].sum();
            let mut identification = before;
            let words_of_outer = outer(inner, ends, (4, total_len + 20), set, &mut identification);
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
            let words: &Words = zerocopy::FromBytes::ref_from_bytes(header.as_bytes()).unwrap();
            prop_assert_eq!(words_of_outer, (words.start.get(), words.third.get()));
        }

        #[test]
        fn a_sum_is_folded_as_it_is_summed(words: [u32; 5]) {
            let bytes = words.map(u32::to_le_bytes).concat();
            let sum = words.into_iter().map(u64::from).sum();
            prop_assert_eq!(!fold(sum).swap_bytes(), homeport_wire::checksum::checksum(&bytes));
        }

        /// Sums of nothing are rare among any words: the last makes it one.
        #[test]
        fn what_sums_up_to_nothing_is_told_from_what_does_not(
            first: u64, second: u64, third: u16, off: u16,
        ) {
            prop_assume!(first != 0);
            let bytes = [first.to_le_bytes(), second.to_le_bytes()].concat();
            let bytes = [&bytes[..], &third.to_le_bytes()].concat();
            let last = homeport_wire::checksum::checksum(&bytes).swap_bytes();
            let third = |last: u16| u32::from(third) | u32::from(last) << 16;
            prop_assert!(is_summed(first, second, third(last)));
            // Zero has two forms.
            let same = last ^ off == !last && (last == 0 || last == 0xffff);
            prop_assert_eq!(is_summed(first, second, third(last ^ off)), off == 0 || same);
        }

        #[test]
        fn a_hop_is_the_general_paths(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..21), edge in 0..4usize,
        ) {
            bytes[8] = bytes[8].max(2);
            // The carries, and both forms of zero.
            if let Some(edge) = [[0xff, 0xff], [0xfe, 0xff], [0xff, 0xfe]].get(edge) {
                bytes[10..12].copy_from_slice(edge);
            }
            let mut expected = bytes.clone();
            Ipv4Header::mut_from_prefix(&mut expected).unwrap().0.decrement_ttl();
            let (head, _) = Head::read(bytes.first_chunk().unwrap(), 1500);
            bytes[8..12].copy_from_slice(&head.hopped());
            prop_assert_eq!(bytes, expected);
        }

        /// What minimal encapsulation makes of a header is right, and says what it shall.
        #[test]
        fn a_header_is_rewritten_for_one_of_its_ttl(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..21),
            protocol: u8, total_len in 20u16..1500, source: u32, destination: u32,
        ) {
            bytes[0] = 0x45;
            bytes[8] = bytes[8].max(2);
            let (head, _) = Head::read(bytes.first_chunk().unwrap(), 1500);
            let head = head.carrying(protocol, total_len).between(source, destination);
            let mut expected = bytes.clone();
            let (header, _) = Ipv4Header::mut_from_prefix(&mut expected).unwrap();
            header.ttl -= 1;
            header.set_protocol(IpProtocol(protocol));
            header.set_total_len(total_len);
            header.set_source(source.into());
            header.set_destination(destination.into());
            header.fill_checksum();
            prop_assert_eq!(&head.rewritten()[..], &expected[..]);
        }

        #[test]
        fn a_forwarding_header_is_read_as_it_was_written(
            protocol: u8, source: u32, destination: u32, broken in 0..12usize, by in 1u8..,
        ) {
            let head = Head::NONE.carrying(protocol, 20).between(source, destination);
            let mut bytes = forwarding(head);
            prop_assert_eq!(homeport_wire::checksum::checksum(&bytes), 0);
            prop_assert_eq!(read_forwarding(&bytes), Some((protocol, source, destination)));
            bytes[broken] ^= by;
            // A whole half-word of zeroes may become one of ones, which is the same.
            if !bytes.chunks(2).any(|half| half == [0, 0] || half == [0xff, 0xff]) {
                prop_assert_eq!(read_forwarding(&bytes), None);
            }
        }
    }
}
