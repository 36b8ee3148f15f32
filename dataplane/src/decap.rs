//! Taking a packet out of its tunnel. Whether it may come out is decided before,
//! in [`classify`](crate::classify).
//!
//! **Not done:** minimal encapsulation, GRE, UDP; reassembly of a fragmented
//! outer packet.

use homeport_wire::{Ipv4Header, checksum};
use zerocopy::FromBytes;

use crate::packet::Packet;
use crate::verdict::DropReason;

/// The two ECN bits of the type-of-service byte (RFC 3168 §5).
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// Takes the outer header of an IP-in-IP packet off. The caller has checked both
/// headers. The inner TTL is not changed (RFC 2003 §3.1); congestion marks of the
/// tunnel are carried inward (RFC 6040 §4.2).
///
/// # Errors
/// [`DropReason::MalformedInner`] when there is no inner header,
/// [`DropReason::EcnMismatch`] when the inner packet cannot carry the tunnel's
/// congestion mark.
pub fn decapsulate(packet: &mut Packet) -> Result<(), DropReason> {
    let (outer, _) =
        Ipv4Header::ref_from_prefix(packet.bytes()).map_err(|_| DropReason::MalformedInner)?;
    let (outer_tos, outer_len) = (outer.tos, outer.header_len());
    let inner = packet.bytes_mut().get_mut(outer_len..).ok_or(DropReason::MalformedInner)?;
    let (inner, _) = Ipv4Header::mut_from_prefix(inner).map_err(|_| DropReason::MalformedInner)?;
    let tos = ecn_out_of_tunnel(outer_tos, inner.tos).ok_or(DropReason::EcnMismatch)?;
    if tos != inner.tos {
        let word = |tos| u16::from_be_bytes([0, tos]);
        inner.set_checksum(checksum::update(inner.checksum(), word(inner.tos), word(tos)));
        inner.tos = tos;
    }
    let inner_len = usize::from(inner.total_len());
    if !packet.strip(outer_len) {
        return Err(DropReason::MalformedInner);
    }
    packet.truncate(inner_len);
    Ok(())
}

/// The type of service of a packet that leaves a tunnel: the inner DSCP, and the
/// ECN field of RFC 6040 figure 4. `None`: it must be dropped.
fn ecn_out_of_tunnel(outer: u8, inner: u8) -> Option<u8> {
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
    use crate::encap::encapsulate;
    use crate::packet::PacketPool;
    use crate::table::binding::Encapsulation;
    use homeport_wire::{IpProtocol, Ipv4Packet};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use zerocopy::IntoBytes;

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

    fn tunnelled(pool: &mut PacketPool, tos: u8, outer_ecn: u8) -> Packet {
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&inner(tos)));
        let ends = (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 1, 2));
        encapsulate(&mut packet, Encapsulation::IpInIp, ends.0, ends.1, &mut 0).unwrap();
        let (outer, _) = Ipv4Header::mut_from_prefix(packet.bytes_mut()).unwrap();
        outer.tos = outer.tos & !ECN | outer_ecn;
        outer.fill_checksum();
        packet
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
        for (inner_ecn, results) in rows {
            for (outer_ecn, expected) in outers.into_iter().zip(results) {
                let mut pool = PacketPool::new(1);
                let mut packet = tunnelled(&mut pool, 0xb8 | inner_ecn, outer_ecn);
                let result = decapsulate(&mut packet);
                let Some(expected) = expected else {
                    assert_eq!(result, Err(DropReason::EcnMismatch));
                    continue;
                };
                assert_eq!(result, Ok(()));
                let inner = Ipv4Packet::new_checked(packet.bytes()).unwrap();
                assert_eq!(inner.header().tos, 0xb8 | expected, "{inner_ecn:02b} {outer_ecn:02b}");
                assert_eq!(inner.header().ttl, 9);
            }
        }
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(tos: u8) {
            let mut pool = PacketPool::new(1);
            let mut packet = tunnelled(&mut pool, tos, tos & ECN);
            decapsulate(&mut packet).unwrap();
            prop_assert_eq!(packet.bytes(), inner(tos));
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut pool = PacketPool::new(1);
            let mut packet = pool.take().unwrap();
            prop_assert!(packet.set_bytes(&bytes));
            let _ = decapsulate(&mut packet);
        }
    }
}
