//! Putting a packet into a tunnel.
//!
//! One body for every encapsulation; today that is IP in IP (RFC 2003).
//!
//! **Not done:** minimal encapsulation, GRE, UDP.

use std::net::Ipv4Addr;

use homeport_wire::{IpProtocol, Ipv4Header, Ipv4Packet};
use zerocopy::{FromBytes, IntoBytes};

use crate::packet::Packet;
use crate::table::binding::Encapsulation;
use crate::verdict::DropReason;

/// TTL of an outer header: the tunnel's own, so that the inner TTL says nothing
/// about the tunnel's length (RFC 2003 §3.1).
pub const OUTER_TTL: u8 = 64;

/// How deep tunnels may lie in tunnels before a packet is refused. A loop of
/// home agents, each encapsulating what the other sent, ends here.
pub const MAX_NESTING: u8 = 4;

/// Bytes that an encapsulation puts in front of a packet.
pub const fn overhead(encapsulation: Encapsulation) -> usize {
    match encapsulation {
        Encapsulation::IpInIp => Ipv4Header::LEN,
        Encapsulation::Minimal => 12,
        Encapsulation::Gre { key: None } => Ipv4Header::LEN + 4,
        Encapsulation::Gre { key: Some(_) } => Ipv4Header::LEN + 8,
        Encapsulation::Udp { .. } => Ipv4Header::LEN + 12,
        Encapsulation::PlainUdp { .. } => Ipv4Header::LEN + 8,
    }
}

/// Puts an outer header in front of the IPv4 packet in `packet`, from `source` to
/// `destination`. The inner TTL is the caller's business: it is decremented only
/// when the packet is forwarded (RFC 2003 §3.1).
///
/// `identification` counts the outer headers of one worker; it moves on only when
/// the outer packet may be fragmented (RFC 6864 §4).
///
/// # Errors
/// [`DropReason::MalformedInner`] when `packet` holds no IPv4 header,
/// [`DropReason::NoHeadroom`] when there is no room for the outer one.
pub fn encapsulate(
    packet: &mut Packet,
    encapsulation: Encapsulation,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: &mut u16,
) -> Result<(), DropReason> {
    let (inner, _) =
        Ipv4Header::ref_from_prefix(packet.bytes()).map_err(|_| DropReason::MalformedInner)?;
    let total_len = usize::from(inner.total_len()) + overhead(encapsulation);
    let total_len = u16::try_from(total_len).map_err(|_| DropReason::NoHeadroom)?;
    match encapsulation {
        Encapsulation::IpInIp => {
            let protocol = IpProtocol::IP_IN_IP;
            let mut outer =
                Ipv4Header::unsummed(source, destination, protocol, OUTER_TTL, total_len);
            // DSCP and ECN are copied (RFC 2003 §3.1, RFC 6040 §4.1 normal mode).
            outer.tos = inner.tos;
            if inner.dont_fragment() {
                // Must be set when the inner one is (RFC 2003 §3.1).
                outer.set_dont_fragment(true);
            } else {
                *identification = identification.wrapping_add(1);
                outer.set_identification(*identification);
            }
            outer.fill_checksum();
            if packet.prepend(outer.as_bytes()) { Ok(()) } else { Err(DropReason::NoHeadroom) }
        }
        _ => Err(DropReason::EncapsulationMismatch),
    }
}

/// How many tunnels the packet in `bytes` is in, counted up to one more than
/// [`MAX_NESTING`].
pub fn nesting(bytes: &[u8]) -> u8 {
    let mut depth = 0;
    let mut rest = bytes;
    while depth <= MAX_NESTING {
        let Ok(packet) = Ipv4Packet::new_checked(rest) else { break };
        if packet.header().protocol() != IpProtocol::IP_IN_IP
            || packet.header().fragment_offset() != 0
        {
            break;
        }
        depth += 1;
        rest = packet.payload();
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HEADROOM, PacketPool};
    use proptest::prelude::*;

    const INNER_SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const CARE_OF: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    fn inner(tos: u8, dont_fragment: bool, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(Ipv4Header::LEN + payload.len()).unwrap();
        let mut header = Ipv4Header::unsummed(INNER_SOURCE, HOME, IpProtocol::TCP, 17, len);
        header.tos = tos;
        header.set_dont_fragment(dont_fragment);
        header.fill_checksum();
        [header.as_bytes(), payload].concat()
    }

    fn packet(pool: &mut PacketPool, bytes: &[u8]) -> Packet {
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(bytes));
        packet
    }

    proptest! {
        #[test]
        fn the_outer_header_is_rfc_2003s_and_the_inner_packet_untouched(
            tos: u8, dont_fragment: bool, payload in proptest::collection::vec(any::<u8>(), 0..1400),
        ) {
            let mut pool = PacketPool::new(1);
            let bytes = inner(tos, dont_fragment, &payload);
            let mut packet = packet(&mut pool, &bytes);
            let mut identification = 41;
            encapsulate(&mut packet, Encapsulation::IpInIp, AGENT, CARE_OF, &mut identification).unwrap();
            let outer = Ipv4Packet::new_checked(packet.bytes()).unwrap();
            prop_assert_eq!(outer.payload(), &bytes[..]);
            let header = outer.header();
            prop_assert_eq!(header.source(), AGENT);
            prop_assert_eq!(header.destination(), CARE_OF);
            prop_assert_eq!(header.protocol(), IpProtocol::IP_IN_IP);
            prop_assert_eq!(header.ttl, OUTER_TTL);
            prop_assert_eq!(header.tos, tos);
            prop_assert_eq!(header.dont_fragment(), dont_fragment);
            prop_assert_eq!(header.identification(), if dont_fragment { 0 } else { 42 });
            prop_assert_eq!(nesting(packet.bytes()), 1);
        }

        #[test]
        fn noise_is_counted_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut pool = PacketPool::new(1);
            let mut packet = packet(&mut pool, &bytes);
            let _ = encapsulate(&mut packet, Encapsulation::IpInIp, AGENT, CARE_OF, &mut 0);
            prop_assert!(nesting(&bytes) <= MAX_NESTING + 1);
        }
    }

    #[test]
    fn tunnels_in_tunnels_are_counted_up_to_one_past_the_limit() {
        let mut pool = PacketPool::new(1);
        let mut packet = packet(&mut pool, &inner(0, true, b"data"));
        for depth in 0..10u8 {
            assert_eq!(nesting(packet.bytes()), depth.min(MAX_NESTING + 1));
            if encapsulate(&mut packet, Encapsulation::IpInIp, AGENT, CARE_OF, &mut 0).is_err() {
                break;
            }
        }
    }

    #[test]
    fn without_headroom_the_packet_stays_as_it_was() {
        let mut pool = PacketPool::new(1);
        let bytes = inner(0, true, b"data");
        let mut packet = packet(&mut pool, &[]);
        packet.fill(|_| 0);
        // All headroom but one outer header's, less one byte, is used up.
        assert!(packet.prepend(&bytes));
        while packet.prepend(&[0]) {}
        assert!(packet.strip(Ipv4Header::LEN - 1));
        packet.truncate(bytes.len());
        packet.bytes_mut().copy_from_slice(&bytes);
        let result = encapsulate(&mut packet, Encapsulation::IpInIp, AGENT, CARE_OF, &mut 0);
        assert_eq!(result, Err(DropReason::NoHeadroom));
        assert_eq!(packet.bytes(), bytes);
        const { assert!(HEADROOM >= 14 + 20 * MAX_NESTING as usize) };
    }
}
