//! Cutting a packet that is too long for the next link into fragments (RFC 791
//! §3.2).

use homeport_wire::{Ipv4Header, checksum};
use zerocopy::FromBytes;

use crate::packet::{BURST, Burst, Packet, PacketPool};
use crate::verdict::DropReason;

/// The longest IPv4 header, in bytes.
const MAX_HEADER: usize = 60;

/// End of the option list, and the filler (RFC 791 §3.1).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;

/// The bit of an option's type that says that every fragment has it.
const COPIED: u8 = 0x80;

/// Cuts the IPv4 packet in `packet` into fragments of at most `mtu` bytes, in
/// order, in `fragments`. The buffer of `packet` goes back to the pool. A packet
/// that is a fragment already is cut further. The first fragment has all options,
/// the others those that are to be copied (RFC 791 §3.1).
///
/// # Errors
/// The packet, unchanged, and [`DropReason::TooBig`] when not even eight bytes fit
/// behind its header, or when it would be more than a burst of fragments,
/// [`DropReason::NoBuffer`] when the buffers do not suffice; then `fragments` is as
/// it was.
pub fn fragment(
    packet: Packet,
    mtu: u16,
    pool: &mut PacketPool,
    fragments: &mut Burst,
) -> Result<(), (Packet, DropReason)> {
    let Some(plan) = Plan::new(packet.bytes(), mtu) else {
        return Err((packet, DropReason::TooBig));
    };
    let count = plan.count();
    if count + fragments.len() > BURST {
        return Err((packet, DropReason::TooBig));
    }
    if pool.available() < count {
        return Err((packet, DropReason::NoBuffer));
    }
    let mut rest = plan.payload;
    let mut heading = plan.first;
    let mut offset = plan.offset;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at_checked(heading.room).unwrap_or((rest, &[]));
        let Some(mut part) = pool.take() else { break };
        (part.port, part.tenant) = (packet.port, packet.tenant);
        let more = !behind.is_empty() || plan.more;
        let written = part.set_bytes(piece) && heading.put(&mut part, offset, more);
        debug_assert!(written, "a fragment is shorter than its packet");
        if let Err(part) = fragments.push(part) {
            pool.give(part);
        }
        offset += piece.len();
        (rest, heading) = (behind, plan.others);
    }
    pool.give(packet);
    Ok(())
}

/// How a packet is cut.
struct Plan<'a> {
    first: Heading,
    others: Heading,
    payload: &'a [u8],
    /// Where the payload begins in the datagram's.
    offset: usize,
    /// Whether fragments follow it.
    more: bool,
}

/// The header of a fragment, and how much of the payload fits behind it.
#[derive(Clone, Copy)]
struct Heading {
    bytes: [u8; MAX_HEADER],
    len: usize,
    room: usize,
}

impl<'a> Plan<'a> {
    /// `None` when the packet cannot be cut.
    fn new(packet: &'a [u8], mtu: u16) -> Option<Self> {
        let (header, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
        let (head, payload) = packet.split_at_checked(header.header_len())?;
        let options = head.get(Ipv4Header::LEN..)?;
        let first = Heading::new(header, options, mtu)?;
        let (copied, copied_len) = copied_options(options);
        let others = Heading::new(header, copied.get(..copied_len)?, mtu)?;
        let (offset, more) = (usize::from(header.fragment_offset()), header.more_fragments());
        // A datagram ends before 65,536 bytes: its fragments' offsets have their
        // bits.
        let is_possible = offset + payload.len() <= usize::from(u16::MAX);
        is_possible.then_some(Plan { first, others, payload, offset, more })
    }

    fn count(&self) -> usize {
        let behind_first = self.payload.len().saturating_sub(self.first.room);
        1 + behind_first.div_ceil(self.others.room)
    }
}

impl Heading {
    /// `None` when not even eight bytes fit behind it.
    fn new(header: &Ipv4Header, options: &[u8], mtu: u16) -> Option<Self> {
        let len = Ipv4Header::LEN + options.len();
        let room = usize::from(mtu).saturating_sub(len) / 8 * 8;
        let mut bytes = [0; MAX_HEADER];
        let (fixed, rest) = Ipv4Header::mut_from_prefix(&mut bytes).ok()?;
        *fixed = *header;
        fixed.set_header_len(len);
        rest.get_mut(..options.len())?.copy_from_slice(options);
        (room > 0).then_some(Heading { bytes, len, room })
    }

    /// Puts itself in front of `part`, as the header of a fragment at `offset`.
    fn put(mut self, part: &mut Packet, offset: usize, more: bool) -> bool {
        let Some(bytes) = self.bytes.get_mut(..self.len) else { return false };
        let Ok((header, _)) = Ipv4Header::mut_from_prefix(bytes) else { return false };
        // Both are within a datagram's length, which has 16 bits.
        header.set_fragment(offset as u16, more);
        header.set_total_len((self.len + part.len()) as u16);
        header.set_checksum(0);
        let sum = checksum::checksum(bytes);
        let Ok((header, _)) = Ipv4Header::mut_from_prefix(bytes) else { return false };
        header.set_checksum(sum);
        part.prepend(bytes)
    }
}

/// The options that every fragment has, filled up to a multiple of four, and how
/// many bytes they are. Behind an option that is broken nothing is copied.
fn copied_options(options: &[u8]) -> ([u8; MAX_HEADER - Ipv4Header::LEN], usize) {
    let mut copied = [END; MAX_HEADER - Ipv4Header::LEN];
    let mut len = 0;
    let mut rest = options;
    while let [kind, behind @ ..] = rest {
        let option_len = match (*kind, behind.first()) {
            (END, _) => break,
            (NO_OPERATION, _) => 1,
            (_, Some(len)) if *len >= 2 => usize::from(*len),
            _ => break,
        };
        let Some((option, next)) = rest.split_at_checked(option_len) else { break };
        if kind & COPIED != 0
            && let Some(to) = copied.get_mut(len..len + option_len)
        {
            to.copy_from_slice(option);
            len += option_len;
        }
        rest = next;
    }
    (copied, len.next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_wire::{IpProtocol, Ipv4Packet};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use zerocopy::IntoBytes;

    fn packet(pool: &mut PacketPool, offset: u16, more: bool, payload: &[u8]) -> Packet {
        with_options(pool, offset, more, &[], payload)
    }

    fn with_options(
        pool: &mut PacketPool,
        offset: u16,
        more: bool,
        options: &[u8],
        payload: &[u8],
    ) -> Packet {
        let len = u16::try_from(20 + options.len() + payload.len()).unwrap();
        let ends = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 1, 0, 10));
        let mut header = Ipv4Header::unsummed(ends.0, ends.1, IpProtocol::UDP, 64, len);
        header.set_identification(77);
        header.set_fragment(offset, more);
        header.set_header_len(20 + options.len());
        let sum = checksum::checksum(&[header.as_bytes(), options].concat());
        header.set_checksum(sum);
        let mut packet = pool.take_for(usize::from(len)).unwrap();
        assert!(packet.set_bytes(payload) && packet.prepend(options));
        assert!(packet.prepend(header.as_bytes()));
        packet
    }

    proptest! {
        #[test]
        fn fragments_fit_and_together_are_the_packet(
            payload in proptest::collection::vec(any::<u8>(), 1..1900),
            mtu in 576u16..1500, offset in 0u16..100, more: bool,
        ) {
            let mut pool = PacketPool::new(40);
            let mut fragments = Burst::new();
            let whole = packet(&mut pool, offset * 8, more, &payload);
            fragment(whole, mtu, &mut pool, &mut fragments).unwrap();
            let mut joined = Vec::new();
            let last = fragments.len() - 1;
            for (index, part) in fragments.iter().enumerate() {
                prop_assert!(part.len() <= usize::from(mtu));
                let part = Ipv4Packet::new_checked(part.bytes()).unwrap();
                prop_assert_eq!(part.header().identification(), 77);
                let at = usize::from(part.header().fragment_offset());
                prop_assert_eq!(at, usize::from(offset * 8) + joined.len());
                prop_assert_eq!(part.header().more_fragments(), more || index < last);
                joined.extend_from_slice(part.payload());
            }
            prop_assert_eq!(joined, payload);
            for part in fragments.drain() {
                pool.give(part);
            }
            prop_assert_eq!(pool.available(), 40);
        }
    }

    #[test]
    fn what_cannot_be_cut_comes_back_whole() {
        let mut pool = PacketPool::new(4);
        let mut fragments = Burst::new();
        let whole = packet(&mut pool, 0, false, &[7; 1000]);
        // Three buffers are free; five fragments would be needed.
        let (whole, reason) = fragment(whole, 220, &mut pool, &mut fragments).unwrap_err();
        assert_eq!((reason, whole.len()), (DropReason::NoBuffer, 1020));
        let (whole, reason) = fragment(whole, 27, &mut pool, &mut fragments).unwrap_err();
        assert_eq!((reason, whole.len()), (DropReason::TooBig, 1020));
        // Options leave less room.
        pool.give(whole);
        let whole = with_options(&mut pool, 0, false, &[1; 40], &[7; 100]);
        let (whole, reason) = fragment(whole, 67, &mut pool, &mut fragments).unwrap_err();
        assert_eq!(reason, DropReason::TooBig);
        // It would end behind 65,535 bytes.
        pool.give(whole);
        let whole = packet(&mut pool, 65_528, false, &[7; 100]);
        let (_, reason) = fragment(whole, 60, &mut pool, &mut fragments).unwrap_err();
        assert_eq!(reason, DropReason::TooBig);
        assert!(fragments.is_empty());
        assert_eq!(pool.available(), 3);
    }

    /// RFC 791 §3.1: loose and strict source routes and security are copied, record
    /// route and timestamp are not.
    #[test]
    fn the_first_fragment_has_all_options_and_the_others_those_that_are_copied() {
        let source_route: &[u8] = &[0x83, 7, 4, 192, 0, 2, 9];
        let record_route: &[u8] = &[7, 7, 4, 0, 0, 0, 0];
        let security: &[u8] = &[0x82, 3, 5];
        let options = [record_route, &[1], source_route, security, &[0, 0]].concat();
        let copied = [source_route, security, &[0, 0]].concat();
        let payload: Vec<u8> = (0..200).collect();
        for (offset, more) in [(0, false), (800, true)] {
            let mut pool = PacketPool::new(20);
            let mut fragments = Burst::new();
            let whole = with_options(&mut pool, offset, more, &options, &payload);
            fragment(whole, 100, &mut pool, &mut fragments).unwrap();
            let mut joined = Vec::new();
            let last = fragments.len() - 1;
            for (index, part) in fragments.iter().enumerate() {
                let part = Ipv4Packet::new_checked(part.bytes()).unwrap();
                let expected = if index == 0 { &options } else { &copied };
                assert_eq!(part.bytes()[20..part.header().header_len()], expected[..]);
                let header = part.header();
                assert_eq!(
                    usize::from(header.fragment_offset()),
                    usize::from(offset) + joined.len()
                );
                assert_eq!(header.more_fragments(), more || index < last);
                joined.extend_from_slice(part.payload());
            }
            assert_eq!(joined, payload);
        }
    }

    /// B-05: what was put together to 8,000 bytes leaves in pieces again.
    #[test]
    fn a_large_packet_is_cut_to_the_next_link() {
        let mut pool = PacketPool::with_large(8, 1);
        let mut fragments = Burst::new();
        let payload: Vec<u8> = (0..8000).map(|at| (at % 251) as u8).collect();
        let whole = packet(&mut pool, 0, false, &payload);
        assert_eq!(pool.available_large(), 0);
        fragment(whole, 1280, &mut pool, &mut fragments).unwrap();
        assert_eq!((pool.available_large(), fragments.len()), (1, 7));
        let payloads = fragments.iter().map(|part| part.bytes()[20..].to_vec());
        assert_eq!(payloads.collect::<Vec<_>>().concat(), payload);
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_leaks_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), ihl in 5u8..16, mtu in 0u16..120,
        ) {
            let mut pool = PacketPool::new(40);
            let mut fragments = Burst::new();
            let mut whole = pool.take().unwrap();
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = 0x40 | ihl;
            }
            prop_assert!(whole.set_bytes(&bytes));
            if let Err((whole, _)) = fragment(whole, mtu, &mut pool, &mut fragments) {
                pool.give(whole);
            }
            for part in fragments.drain() {
                prop_assert!(part.len() <= usize::from(mtu));
                pool.give(part);
            }
            prop_assert_eq!(pool.available(), 40);
        }
    }
}
