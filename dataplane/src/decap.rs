//! Taking a packet out of its tunnel: what the tunnel's headers say ([`open`]), and
//! taking them off ([`decapsulate`]). Whether it may come out is decided between the
//! two, in [`classify`](crate::classify).
//!
//! **Not done:** the order of GRE's sequence numbers (RFC 2890 §2.2): Mobile IP
//! negotiates none.

use homeport_wire::{
    EtherType, GrePacket, IpProtocol, Ipv4Header, MinimalPacket, MobileIpPayload, TunnelDataPacket,
    UdpPacket, WireError, checksum,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::packet::Packet;
use crate::parse::{self, Ipv4Facts};
use crate::table::binding::Encapsulation;
use crate::verdict::DropReason;

/// The two ECN bits of the type-of-service byte (RFC 3168 §5).
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// What the headers of a tunnelled packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// How it was encapsulated; the peer's port is the source port.
    pub encapsulation: Encapsulation,
    /// Bytes of the header between the outer IPv4 header and the packet.
    pub shim_len: u16,
    /// The packet inside.
    pub inner: Ipv4Facts,
    /// Whether bits are set that are reserved and must be ignored.
    pub reserved_bits: bool,
}

/// Reads the headers of a tunnelled packet: the outer one said `outer`, and `payload`
/// is what follows it. With them comes the payload of the packet inside.
///
/// # Errors
/// [`DropReason::UnknownTunnel`] when it is in no tunnel,
/// [`DropReason::MalformedTunnel`], [`DropReason::BadTunnelChecksum`] or
/// [`DropReason::TunnelNextHeader`] for the tunnel's header,
/// [`DropReason::MalformedInner`] for the packet.
pub fn open<'a>(outer: &Ipv4Facts, payload: &'a [u8]) -> Result<(Opened, &'a [u8]), DropReason> {
    match outer.protocol {
        IpProtocol::IP_IN_IP => whole(Encapsulation::IpInIp, payload, payload),
        IpProtocol::GRE => {
            let gre = GrePacket::new_checked(payload).map_err(refused)?;
            if gre.header().protocol_type() != EtherType::IPV4 {
                return Err(DropReason::TunnelNextHeader);
            }
            whole(Encapsulation::Gre { key: gre.key() }, payload, gre.payload())
        }
        IpProtocol::UDP if outer.is_tunnel_data() => open_udp(outer, payload),
        IpProtocol::MINIMAL => open_minimal(outer, payload),
        _ => Err(DropReason::UnknownTunnel),
    }
}

/// Takes the headers of a tunnel off, which `outer` and `opened` describe. The TTL is
/// not changed (RFC 2003 §3.1); congestion marks of the tunnel are carried inward
/// (RFC 6040 §4.2). After minimal encapsulation, TTL and marks are the packet's own
/// already.
///
/// # Errors
/// [`DropReason::MalformedInner`] when the packet is not the described one,
/// [`DropReason::EcnMismatch`] when the inner packet cannot carry the tunnel's
/// congestion mark.
pub fn decapsulate(
    packet: &mut Packet,
    outer: &Ipv4Facts,
    opened: &Opened,
) -> Result<(), DropReason> {
    let (outer_len, shim_len) = (usize::from(outer.header_len), usize::from(opened.shim_len));
    let stripped_len = if opened.encapsulation == Encapsulation::Minimal {
        restore(packet, outer_len, shim_len, &opened.inner)?;
        shim_len
    } else {
        carry_congestion(packet, outer_len + shim_len)?;
        outer_len + shim_len
    };
    if !packet.strip(stripped_len) {
        return Err(DropReason::MalformedInner);
    }
    packet.truncate(usize::from(opened.inner.total_len));
    Ok(())
}

/// A whole packet inside, `inner`, at the end of `payload`.
fn whole<'a>(
    encapsulation: Encapsulation,
    payload: &[u8],
    inner: &'a [u8],
) -> Result<(Opened, &'a [u8]), DropReason> {
    let facts = parse::ipv4(inner).map_err(|_| DropReason::MalformedInner)?;
    let inside = inner.get(usize::from(facts.header_len)..usize::from(facts.total_len));
    // What lies between is a header, a few bytes long.
    let shim_len = payload.len().saturating_sub(inner.len()) as u16;
    let opened = Opened { encapsulation, shim_len, inner: facts, reserved_bits: false };
    Ok((opened, inside.unwrap_or_default()))
}

fn open_udp<'a>(outer: &Ipv4Facts, payload: &'a [u8]) -> Result<(Opened, &'a [u8]), DropReason> {
    // A checksum that is there must be right (RFC 1122 §4.1.3.4).
    let udp = UdpPacket::new_checked(payload, outer.source, outer.destination).map_err(refused)?;
    let peer_port = udp.header().source_port();
    // What lies behind the datagram's own length is no part of it.
    let datagram = payload.get(..usize::from(udp.header().udp_len())).unwrap_or(payload);
    if outer.mobile_ip == Some(MobileIpPayload::PlainTunnelData) {
        return whole(Encapsulation::PlainUdp { peer_port }, datagram, udp.payload());
    }
    let data = TunnelDataPacket::new_checked(udp.payload()).map_err(refused)?;
    // RFC 3519 §3.3: it must match the tunnelling mode, which is IP in UDP here.
    if data.header().next_header() != IpProtocol::IP_IN_IP {
        return Err(DropReason::TunnelNextHeader);
    }
    let (opened, inside) = whole(Encapsulation::Udp { peer_port }, datagram, data.payload())?;
    // RFC 3519 §3.3: ignored on reception.
    Ok((Opened { reserved_bits: data.header().reserved() != 0, ..opened }, inside))
}

fn open_minimal<'a>(
    outer: &Ipv4Facts,
    payload: &'a [u8],
) -> Result<(Opened, &'a [u8]), DropReason> {
    let minimal = MinimalPacket::new_checked(payload).map_err(refused)?;
    let shim_len = payload.len().saturating_sub(minimal.payload().len()) as u16;
    let inner = Ipv4Facts {
        source: minimal.source().unwrap_or(outer.source),
        destination: minimal.header().destination(),
        total_len: outer.total_len.saturating_sub(shim_len),
        ..*outer
    };
    let inner = inner.with_payload(minimal.header().protocol(), minimal.payload());
    let encapsulation = Encapsulation::Minimal;
    Ok((Opened { encapsulation, shim_len, inner, reserved_bits: false }, minimal.payload()))
}

fn refused(error: WireError) -> DropReason {
    match error {
        WireError::Checksum => DropReason::BadTunnelChecksum,
        _ => DropReason::MalformedTunnel,
    }
}

/// Makes the outer header the packet's own again, and puts it where the minimal
/// forwarding header ends (RFC 2004 §3).
fn restore(
    packet: &mut Packet,
    outer_len: usize,
    shim_len: usize,
    inner: &Ipv4Facts,
) -> Result<(), DropReason> {
    let head = packet.bytes_mut().get_mut(..outer_len + shim_len);
    let head = head.ok_or(DropReason::MalformedInner)?;
    head.rotate_right(shim_len);
    let header = head.get_mut(shim_len..).unwrap_or_default();
    let (header, options) =
        Ipv4Header::mut_from_prefix(header).map_err(|_| DropReason::MalformedInner)?;
    header.set_protocol(inner.protocol);
    header.set_source(inner.source);
    header.set_destination(inner.destination);
    header.set_total_len(inner.total_len);
    header.set_checksum(0);
    let sum = checksum::Sum::new().add_bytes(header.as_bytes()).add_bytes(options);
    header.set_checksum(sum.checksum());
    Ok(())
}

/// Gives the packet `inner_at` bytes into the tunnelled one the congestion mark that
/// it leaves the tunnel with.
fn carry_congestion(packet: &mut Packet, inner_at: usize) -> Result<(), DropReason> {
    let (outer, _) =
        Ipv4Header::ref_from_prefix(packet.bytes()).map_err(|_| DropReason::MalformedInner)?;
    let outer_tos = outer.tos;
    let inner = packet.bytes_mut().get_mut(inner_at..).ok_or(DropReason::MalformedInner)?;
    let (inner, _) = Ipv4Header::mut_from_prefix(inner).map_err(|_| DropReason::MalformedInner)?;
    let tos = ecn_out_of_tunnel(outer_tos, inner.tos).ok_or(DropReason::EcnMismatch)?;
    if tos != inner.tos {
        let word = |tos| u16::from_be_bytes([0, tos]);
        inner.set_checksum(checksum::update(inner.checksum(), word(inner.tos), word(tos)));
        inner.tos = tos;
    }
    Ok(())
}

/// The type of service of a packet that leaves a tunnel: the inner DSCP, and the
/// ECN field of RFC 6040 figure 4. `None`: it must be dropped.
pub fn ecn_out_of_tunnel(outer: u8, inner: u8) -> Option<u8> {
    let ecn = match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (ECT_0, ECT_1) => ECT_1,
        (_, CE) => CE,
        (inner, _) => inner,
    };
    Some(inner & !ECN | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encap::{Tunnel, encapsulate};
    use crate::packet::PacketPool;
    use homeport_wire::{IpProtocol, Ipv4Packet};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn inner(tos: u8) -> Vec<u8> {
        let mut header = Ipv4Header::unsummed(
            Ipv4Addr::new(10, 1, 0, 10),
            Ipv4Addr::new(192, 0, 2, 1),
            IpProtocol::TCP,
            9,
            24,
        );
        header.tos = tos;
        header.fill_checksum();
        [header.as_bytes(), b"data"].concat()
    }

    const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 1, 2));

    const EVERY: [Encapsulation; 6] = [
        Encapsulation::IpInIp,
        Encapsulation::Minimal,
        Encapsulation::Gre { key: None },
        Encapsulation::Gre { key: Some(7) },
        // What arrives shows the port of who sent it, which is ours here.
        Encapsulation::Udp { peer_port: 434 },
        Encapsulation::PlainUdp { peer_port: 434 },
    ];

    fn tunnelled(pool: &mut PacketPool, how: Encapsulation, tos: u8, outer_ecn: u8) -> Packet {
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&inner(tos)));
        let (source, destination) = ENDS;
        let tunnel = Tunnel { source, destination, encapsulation: how, set_dont_fragment: false };
        encapsulate(&mut packet, &tunnel, &mut 0).unwrap();
        let (outer, _) = Ipv4Header::mut_from_prefix(packet.bytes_mut()).unwrap();
        outer.tos = outer.tos & !ECN | outer_ecn;
        outer.fill_checksum();
        packet
    }

    fn come_out(packet: &mut Packet) -> Result<Opened, DropReason> {
        let outer = parse::ipv4(packet.bytes())?;
        let (opened, inside) = open(&outer, &packet.bytes()[usize::from(outer.header_len)..])?;
        let inside = inside.to_vec();
        decapsulate(packet, &outer, &opened)?;
        let facts = parse::ipv4(packet.bytes()).unwrap();
        assert_eq!(facts, opened.inner);
        assert_eq!(&packet.bytes()[usize::from(facts.header_len)..], inside);
        Ok(opened)
    }

    /// The table of RFC 6040 §4.2, figure 4, row by row.
    #[test]
    fn congestion_marks_leave_the_tunnel_as_rfc_6040_says() {
        let outers = [NOT_ECT, ECT_0, ECT_1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for how in EVERY {
            for (inner_ecn, results) in rows {
                for (outer_ecn, expected) in outers.into_iter().zip(results) {
                    let mut pool = PacketPool::new(1);
                    let mut packet = tunnelled(&mut pool, how, 0xb8 | inner_ecn, outer_ecn);
                    let result = come_out(&mut packet);
                    // A minimal forwarding header has none of its own: what was marked
                    // was the packet.
                    let expected =
                        if how == Encapsulation::Minimal { Some(outer_ecn) } else { expected };
                    let Some(expected) = expected else {
                        assert_eq!(result, Err(DropReason::EcnMismatch));
                        continue;
                    };
                    assert!(result.is_ok());
                    let inner = Ipv4Packet::new_checked(packet.bytes()).unwrap();
                    assert_eq!(
                        inner.header().tos,
                        0xb8 | expected,
                        "{inner_ecn:02b} {outer_ecn:02b}"
                    );
                    assert_eq!(inner.header().ttl, 9);
                }
            }
        }
    }

    /// RFC 2004 §3: hops in the tunnel cost the packet its own TTL.
    #[test]
    fn the_ttl_that_a_minimal_tunnel_took_is_gone() {
        let mut pool = PacketPool::new(1);
        let mut packet = tunnelled(&mut pool, Encapsulation::Minimal, 0, 0);
        let (outer, _) = Ipv4Header::mut_from_prefix(packet.bytes_mut()).unwrap();
        outer.decrement_ttl().unwrap();
        come_out(&mut packet).unwrap();
        let inner = Ipv4Packet::new_checked(packet.bytes()).unwrap();
        assert_eq!(inner.header().ttl, 8);
    }

    /// RFC 2784 §2.2, RFC 2890 §2: every field of a received header is accepted.
    // Shows 2784-2.2-a.
    #[test]
    fn gre_with_checksum_key_and_sequence_number_comes_out() {
        let mut pool = PacketPool::new(1);
        let mut gre =
            [&[0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1][..], &inner(3)].concat();
        let sum = checksum::checksum(&gre);
        gre[4..6].copy_from_slice(&sum.to_be_bytes());
        let len = 20 + gre.len() as u16;
        let outer = Ipv4Header::new(ENDS.0, ENDS.1, IpProtocol::GRE, 64, len);
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&[outer.as_bytes(), &gre].concat()));
        let opened = come_out(&mut packet).unwrap();
        assert_eq!(opened.encapsulation, Encapsulation::Gre { key: Some(7) });
        assert_eq!(packet.bytes(), inner(3));
    }

    /// RFC 2004 allows options in the header that goes in front.
    #[test]
    fn options_come_out_of_a_minimal_tunnel_with_their_packet() {
        let mut bytes = inner(0);
        bytes[0] = 0x46;
        bytes[3] += 4;
        bytes.splice(20..20, [1, 1, 1, 0]);
        bytes[10..12].fill(0);
        let sum = checksum::checksum(&bytes[..24]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&bytes));
        let encapsulation = Encapsulation::Minimal;
        let (source, destination) = ENDS;
        let tunnel = Tunnel { source, destination, encapsulation, set_dont_fragment: false };
        encapsulate(&mut packet, &tunnel, &mut 0).unwrap();
        come_out(&mut packet).unwrap();
        assert_eq!(packet.bytes(), bytes);
    }

    /// B-09: each wrong header has its reason.
    // Shows 2784-2.2-a, 2784-2.3.1-a, 2784-2.4-a, 3519-3.3-c.
    #[test]
    fn each_wrong_tunnel_header_has_its_reason() {
        let refused = |how: Encapsulation, at: usize, value: u8| {
            let mut pool = PacketPool::new(1);
            let mut packet = tunnelled(&mut pool, how, 0, 0);
            packet.bytes_mut()[at] = value;
            come_out(&mut packet).unwrap_err()
        };
        let [_, minimal, gre, keyed, udp, plain] = EVERY;
        // Next header GRE, minimal, TCP; a UDP checksum that is there and wrong; a UDP
        // length past the packet, and below its own header.
        for next in [0, 6, 47, 55] {
            assert_eq!(refused(udp, 29, next), DropReason::TunnelNextHeader);
        }
        assert_eq!(refused(udp, 27, 1), DropReason::BadTunnelChecksum);
        assert_eq!(refused(plain, 27, 1), DropReason::BadTunnelChecksum);
        assert_eq!(refused(udp, 24, 9), DropReason::MalformedTunnel);
        assert_eq!(refused(udp, 25, 7), DropReason::MalformedTunnel);
        // Version 1; routing; a checksum that is not there; another protocol inside.
        assert_eq!(refused(gre, 21, 1), DropReason::MalformedTunnel);
        assert_eq!(refused(keyed, 20, 0x60), DropReason::MalformedTunnel);
        assert_eq!(refused(gre, 20, 0x80), DropReason::BadTunnelChecksum);
        assert_eq!(refused(gre, 23, 6), DropReason::TunnelNextHeader);
        assert_eq!(refused(minimal, 24, 9), DropReason::BadTunnelChecksum);
        for (how, header_at) in [(gre, 24), (keyed, 28), (udp, 32), (plain, 28)] {
            assert_eq!(refused(how, header_at + 8, 1), DropReason::MalformedInner);
        }
    }

    /// RFC 3519 §3.3: ignored on reception, and seen.
    // Shows 3519-3.3-a.
    #[test]
    fn reserved_bits_of_the_tunnel_data_header_are_ignored() {
        let mut pool = PacketPool::new(1);
        let mut packet = tunnelled(&mut pool, EVERY[4], 0, 0);
        assert!(!come_out(&mut packet).unwrap().reserved_bits);
        pool.give(packet);
        let mut packet = tunnelled(&mut pool, EVERY[4], 0, 0);
        packet.bytes_mut()[30] = 0x80;
        assert!(come_out(&mut packet).unwrap().reserved_bits);
        assert_eq!(packet.bytes(), inner(0));
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(tos: u8) {
            for how in EVERY {
                let mut pool = PacketPool::new(1);
                let mut packet = tunnelled(&mut pool, how, tos, tos & ECN);
                let opened = come_out(&mut packet).unwrap();
                prop_assert_eq!(opened.encapsulation, how);
                prop_assert_eq!(packet.bytes(), inner(tos));
            }
        }

        // Shows attack-34.
        #[test]
        fn noise_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut pool = PacketPool::new(2);
            let mut packet = pool.take().unwrap();
            prop_assert!(packet.set_bytes(&bytes));
            let _ = come_out(&mut packet);
            pool.give(packet);
            for how in EVERY {
                let mut packet = tunnelled(&mut pool, how, 0, 0);
                for (at, value) in &flips {
                    let len = packet.len();
                    packet.bytes_mut()[20 + at.index(len - 20)] = *value;
                }
                let outer = parse::ipv4(packet.bytes()).unwrap();
                if let Ok((opened, _)) = open(&outer, &packet.bytes()[20..]) {
                    let _ = decapsulate(&mut packet, &outer, &opened);
                }
                pool.give(packet);
            }
        }
    }
}
