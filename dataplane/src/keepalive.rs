//! Answering the keepalives of UDP tunnels (RFC 3519 §4.9): echo requests of a node to
//! its home agent, whose answer tells the node that the NAT still knows it.

use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST, Icmpv4Header, Icmpv4Packet};
use homeport_wire::{Ipv4Header, Ipv4Packet, checksum};
use zerocopy::{FromBytes, IntoBytes};

use crate::packet::Packet;
use crate::verdict::DropReason;

/// TTL of an answer.
const TTL: u8 = 64;

/// Makes the echo request in `packet` its own answer: back to its sender, with its
/// identifier, sequence number and data (RFC 1122 §3.2.2.6).
///
/// # Errors
/// [`DropReason::MalformedInner`] when it is no whole echo request; then the packet is
/// as it was.
pub fn answer(packet: &mut Packet) -> Result<(), DropReason> {
    let malformed = |_| DropReason::MalformedInner;
    let request = Ipv4Packet::new_checked(packet.bytes()).map_err(malformed)?;
    let icmp = Icmpv4Packet::new_checked(request.payload()).map_err(malformed)?;
    let (ip, header_len) = (*request.header(), request.header().header_len());
    let (kind, rest) = (icmp.header().message_type, icmp.header().rest);
    if kind != ECHO_REQUEST || ip.is_fragment() {
        return Err(DropReason::MalformedInner);
    }
    let reply = Icmpv4Header::new(ECHO_REPLY, 0, rest, icmp.body());
    let mut answer = ip;
    answer.ttl = TTL;
    answer.set_source(ip.destination());
    answer.set_destination(ip.source());
    answer.set_checksum(0);
    let (head, body) =
        packet.bytes_mut().split_at_mut_checked(header_len).ok_or(DropReason::MalformedInner)?;
    let (header, options) =
        Ipv4Header::mut_from_prefix(head).map_err(|_| DropReason::MalformedInner)?;
    let (icmp, _) = Icmpv4Header::mut_from_prefix(body).map_err(|_| DropReason::MalformedInner)?;
    let sum = checksum::Sum::new().add_bytes(answer.as_bytes()).add_bytes(options);
    answer.set_checksum(sum.checksum());
    (*header, *icmp) = (answer, reply);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketPool;
    use homeport_wire::IpProtocol;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);

    fn request(kind: u8, body: &[u8]) -> Vec<u8> {
        let icmp = Icmpv4Header::new(kind, 0, [1, 2, 3, 4], body);
        let len = 28 + body.len() as u16;
        let ip = Ipv4Header::new(NODE, AGENT, IpProtocol::ICMP, 3, len);
        [ip.as_bytes(), icmp.as_bytes(), body].concat()
    }

    proptest! {
        #[test]
        fn an_answer_is_the_request_turned_round(
            body in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut pool = PacketPool::new(1);
            let mut packet = pool.take().unwrap();
            prop_assert!(packet.set_bytes(&request(ECHO_REQUEST, &body)));
            answer(&mut packet).unwrap();
            let reply = Ipv4Packet::new_checked(packet.bytes()).unwrap();
            prop_assert_eq!((reply.header().source(), reply.header().destination()), (AGENT, NODE));
            prop_assert_eq!(reply.header().ttl, TTL);
            let icmp = Icmpv4Packet::new_checked(reply.payload()).unwrap();
            prop_assert_eq!((icmp.header().message_type, icmp.header().rest), (0, [1, 2, 3, 4]));
            prop_assert_eq!(icmp.body(), &body[..]);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut pool = PacketPool::new(1);
            let mut packet = pool.take().unwrap();
            prop_assert!(packet.set_bytes(&bytes));
            let _ = answer(&mut packet);
        }
    }

    #[test]
    fn nothing_but_a_whole_echo_request_is_answered() {
        let mut broken = request(ECHO_REQUEST, b"data");
        broken[30] ^= 1;
        for bytes in [broken, request(ECHO_REPLY, b"data"), request(13, b"data")] {
            let mut pool = PacketPool::new(1);
            let mut packet = pool.take().unwrap();
            assert!(packet.set_bytes(&bytes));
            assert_eq!(answer(&mut packet), Err(DropReason::MalformedInner));
            assert_eq!(packet.bytes(), bytes);
        }
    }
}
