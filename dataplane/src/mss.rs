//! Telling TCP connections of a tunnel's MTU by their maximum segment size: for
//! paths on which Fragmentation Needed gets lost.

use homeport_wire::tcp::TcpHeader;
use homeport_wire::{IpProtocol, checksum};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::parse::Ipv4Facts;

/// Bytes of the smallest IPv4 and TCP headers, which a segment size does not count
/// (RFC 6691 §2).
const HEADERS: u16 = 40;

/// End of the option list, and the filler (RFC 9293 §3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;

/// The option of the maximum segment size, behind its kind.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MaximumSegmentSize {
    kind: u8,
    len: u8,
    size: U16,
}

impl MaximumSegmentSize {
    const KIND: u8 = 2;
    const LEN: u8 = 4;
}

/// Whether the IPv4 packet in `bytes` begins a TCP connection, so that it may offer a
/// maximum segment size.
pub fn is_offer(bytes: &[u8], facts: &Ipv4Facts) -> bool {
    // Ports, flags and options of a fragment are not all there.
    facts.protocol == IpProtocol::TCP
        && !facts.fragment
        && bytes
            .get(usize::from(facts.header_len)..)
            .and_then(|segment| TcpHeader::ref_from_prefix(segment).ok())
            .is_some_and(|(tcp, _)| tcp.flags & TcpHeader::SYN != 0)
}

/// Lowers the maximum segment size that the IPv4 packet in `bytes` offers, so that
/// the other side's packets are at most `room` bytes long. Only a TCP SYN or
/// SYN-ACK offers one; one that does not is taken to mean 536 (RFC 9293 §3.7.1)
/// and stays. Returns whether anything was changed.
pub fn clamp(bytes: &mut [u8], facts: &Ipv4Facts, room: u16) -> bool {
    if !is_offer(bytes, facts) {
        return false;
    }
    let Some(segment) = bytes.get_mut(usize::from(facts.header_len)..) else { return false };
    let Ok((tcp, rest)) = TcpHeader::mut_from_prefix(segment) else { return false };
    let options = tcp.header_len().saturating_sub(TcpHeader::LEN);
    let Some(mut options) = rest.get_mut(..options) else { return false };
    let limit = room.saturating_sub(HEADERS);
    let mut changed = false;
    let mut at = TcpHeader::LEN;
    // An option is at least one byte long and there are at most forty.
    while let Some(&kind) = options.first() {
        let len = match (kind, options.get(1)) {
            (END, _) | (_, None) => break,
            (NO_OPERATION, _) => 1,
            (_, Some(len)) => usize::from(*len),
        };
        let Some((option, behind)) =
            Some(len).filter(|len| *len > 0).and_then(|len| options.split_at_mut_checked(len))
        else {
            break;
        };
        if kind == MaximumSegmentSize::KIND
            && let Ok(offer) = MaximumSegmentSize::mut_from_bytes(option)
            && offer.len == MaximumSegmentSize::LEN
            && offer.size.get() > limit
        {
            let (old, new) = (offer.size.get(), limit);
            offer.size.set(new);
            // Nobody promises that the option starts at an even place; at an odd
            // one its bytes are summed the other way round (RFC 1071 §2).
            let is_even = at.is_multiple_of(2);
            let word = |size: u16| if is_even { size } else { size.swap_bytes() };
            tcp.checksum.set(checksum::update(tcp.checksum.get(), word(old), word(new)));
            changed = true;
        }
        at += len;
        options = behind;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use homeport_wire::Ipv4Header;
    use homeport_wire::checksum::Sum;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 1, 0, 10), Ipv4Addr::new(192, 0, 2, 1));

    /// A segment with these flags and options, which are filled up with ends.
    fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
        let options_len = options.len().next_multiple_of(4);
        let mut tcp = vec![0; 20 + options_len];
        tcp[0..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
        tcp[12] = ((20 + options_len) * 4) as u8;
        tcp[13] = flags;
        tcp[20..20 + options.len()].copy_from_slice(options);
        tcp.extend(b"data");
        let len = tcp.len() as u16;
        let sum = Sum::new().add_pseudo_header(ENDS.0, ENDS.1, 6, len).add_bytes(&tcp).checksum();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let header = Ipv4Header::new(ENDS.0, ENDS.1, IpProtocol::TCP, 64, 20 + len);
        [header.as_bytes(), &tcp].concat()
    }

    fn clamped(packet: &[u8], room: u16) -> (bool, Vec<u8>) {
        let mut bytes = packet.to_vec();
        let facts = parse::ipv4(&bytes).unwrap();
        let changed = clamp(&mut bytes, &facts, room);
        if packet.len() >= 40 {
            let segment = &bytes[20..];
            let sum = Sum::new().add_pseudo_header(ENDS.0, ENDS.1, 6, segment.len() as u16);
            assert_eq!(sum.add_bytes(segment).checksum(), 0, "the checksum is right");
        }
        (changed, bytes)
    }

    const SYN: u8 = 0x02;
    const SYN_ACK: u8 = 0x12;

    #[test]
    fn the_offer_of_a_syn_is_lowered_to_what_the_tunnel_has_room_for() {
        for flags in [SYN, SYN_ACK, SYN | 0xc0] {
            let (changed, bytes) = clamped(&segment(flags, &[2, 4, 0x05, 0xb4, 4, 2]), 1480);
            assert!(changed);
            assert_eq!(bytes[40..46], [2, 4, 0x05, 0xa0, 4, 2]);
        }
        // Behind others, and at an odd place.
        let options = [1, 3, 3, 7, 1, 2, 4, 0xff, 0xff, 4, 2];
        let (changed, bytes) = clamped(&segment(SYN, &options), 1280);
        assert!(changed);
        assert_eq!(bytes[45..49], [2, 4, 0x04, 0xd8]);
    }

    #[test]
    fn what_is_small_enough_or_no_offer_stays() {
        for (flags, options) in [
            (SYN, [2u8, 4, 0x05, 0xa0].as_slice()), // just right
            (SYN, &[2, 4, 0, 1]),
            (SYN, &[]),
            (SYN, &[0, 2, 4, 0xff, 0xff]),       // behind the end
            (SYN, &[1, 1, 1, 2]),                // cut off
            (SYN, &[2, 0, 0xff, 0xff]),          // no length
            (SYN, &[2, 3, 0xff, 2, 5, 9, 9, 9]), // wrong lengths
            (SYN, &[9, 200, 2, 4, 0xff, 0xff]),  // longer than all
            (0x10, &[2, 4, 0xff, 0xff]),         // no SYN
        ] {
            let packet = segment(flags, options);
            assert_eq!(clamped(&packet, 1480), (false, packet), "{options:?}");
        }
        let mut udp = segment(SYN, &[2, 4, 0xff, 0xff]);
        udp[9] = 17;
        let (header, _) = Ipv4Header::mut_from_prefix(&mut udp).unwrap();
        header.fill_checksum();
        let facts = parse::ipv4(&udp).unwrap();
        assert!(!clamp(&mut udp, &facts, 1480));
        let mut part = segment(SYN, &[2, 4, 0xff, 0xff]);
        let (header, _) = Ipv4Header::mut_from_prefix(&mut part).unwrap();
        header.set_fragment(0, true);
        header.fill_checksum();
        let facts = parse::ipv4(&part).unwrap();
        assert!(!clamp(&mut part, &facts, 1480));
    }

    proptest! {
        /// Reliability, attack 44: whatever the options are, the checksum stays
        /// right and nothing but an offer is touched.
        #[test]
        fn any_options_are_survived_with_a_right_checksum(
            options in proptest::collection::vec(any::<u8>(), 0..=40), room in 68u16..1500,
        ) {
            let packet = segment(SYN, &options);
            let (changed, bytes) = clamped(&packet, room);
            prop_assert_eq!(changed, bytes != packet);
            prop_assert!(!clamped(&bytes, room).0, "once is enough");
        }

        #[test]
        fn noise_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let len = (20 + payload.len()) as u16;
            let header = Ipv4Header::new(ENDS.0, ENDS.1, IpProtocol::TCP, 64, len);
            let mut bytes = [header.as_bytes(), &payload].concat();
            let facts = parse::ipv4(&bytes).unwrap();
            clamp(&mut bytes, &facts, 1280);
        }
    }
}
