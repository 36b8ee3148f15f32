//! Proxy ARP for the home addresses of nodes that are away (RFC 5944 §4.6, B-06).

use homeport_wire::{ArpOperation, ArpPacket, EtherType, EthernetHeader, MacAddress};
use zerocopy::IntoBytes;

use crate::packet::Packet;

/// Makes the ARP request in `packet` the answer to it, in place: the address that
/// it asks for is at `mac`. Link-layer padding is kept.
///
/// `false`, and nothing changed, when the frame is too short for an answer.
#[must_use]
pub fn answer(packet: &mut Packet, request: &ArpPacket, mac: MacAddress) -> bool {
    let reply = ArpPacket::new(
        ArpOperation::REPLY,
        mac,
        request.target_address(),
        request.sender_mac,
        request.sender_address(),
    );
    let ethernet = EthernetHeader::new(request.sender_mac, mac, EtherType::ARP);
    let Some(to) = packet.bytes_mut().get_mut(..EthernetHeader::LEN + ArpPacket::LEN) else {
        return false;
    };
    let Some((link, network)) = to.split_at_mut_checked(EthernetHeader::LEN) else {
        return false;
    };
    link.copy_from_slice(ethernet.as_bytes());
    network.copy_from_slice(reply.as_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketPool;
    use std::net::Ipv4Addr;
    use zerocopy::FromBytes;

    // Shows 5944-4.6-d.
    #[test]
    fn the_answer_is_unicast_and_names_the_asked_address() {
        let (asker, ours) = (MacAddress([2, 0, 0, 0, 0, 9]), MacAddress([2, 0, 0, 0, 0, 1]));
        let (from, home) = (Ipv4Addr::new(10, 1, 0, 99), Ipv4Addr::new(10, 1, 0, 10));
        let request =
            ArpPacket::new(ArpOperation::REQUEST, asker, from, MacAddress::UNSPECIFIED, home);
        let ethernet = EthernetHeader::new(MacAddress::BROADCAST, asker, EtherType::ARP);
        let bytes = [ethernet.as_bytes(), request.as_bytes(), &[0xa5; 18]].concat();
        let mut pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        assert!(packet.set_bytes(&bytes));
        assert!(answer(&mut packet, &request, ours));
        assert_eq!(packet.len(), 60);
        let (ethernet, rest) = EthernetHeader::ref_from_prefix(packet.bytes()).unwrap();
        assert_eq!((ethernet.destination, ethernet.source), (asker, ours));
        let reply = ArpPacket::new_checked(rest).unwrap();
        assert_eq!(reply.operation(), ArpOperation::REPLY);
        assert_eq!((reply.sender_mac, reply.sender_address()), (ours, home));
        assert_eq!((reply.target_mac, reply.target_address()), (asker, from));
        packet.truncate(EthernetHeader::LEN + ArpPacket::LEN - 1);
        assert!(!answer(&mut packet, &request, ours));
    }
}
