//! Parsers of what comes off the wire: whatever the bytes are, what is said to be there
//! is there, and what is read is written again as it was.

use std::hint::black_box;

use homeport_control::journal::{decode_frame, decode_message};
use homeport_control::{mobile, punted};
use homeport_dataplane::punt::PuntHeader;
use homeport_proto::message::advertisement::{AgentAdvertisement, AgentSolicitation};
use homeport_proto::message::{
    Located, Message, MessageWriter, RegistrationReply, RegistrationRequest,
    RegistrationRevocation, RevocationAcknowledgement,
};
use homeport_wire::icmpv4::Icmpv4Packet;
use homeport_wire::{
    ArpPacket, EthernetHeader, GrePacket, Ipv4Packet, MinimalPacket, MobileIpPayload,
    TunnelDataPacket, UdpPacket,
};
use zerocopy::FromBytes;

/// Every view over the bytes, and over what is in it.
pub(super) fn wire(data: &[u8]) {
    if let Ok(arp) = ArpPacket::new_checked(data) {
        let _ = (arp.operation(), arp.sender_address(), arp.target_address());
    }
    if let Ok((ethernet, _)) = EthernetHeader::ref_from_prefix(data) {
        let _ = ethernet.ether_type();
    }
    payloads(data, 0);
    let Ok(packet) = Ipv4Packet::new_checked(data) else { return };
    let header = packet.header();
    assert!(header.header_len() + packet.payload().len() == packet.bytes().len());
    assert!(packet.bytes().len() == usize::from(header.total_len()));
    assert!(packet.bytes().len() <= data.len());
    if let Ok(udp) = UdpPacket::new_checked(packet.payload(), header.source(), header.destination())
    {
        assert!(udp.payload().len() + 8 == usize::from(udp.header().udp_len()));
        let _ = MobileIpPayload::of(udp.payload());
    }
    payloads(packet.payload(), 0);
}

/// Tunnels in tunnels.
fn payloads(data: &[u8], depth: usize) {
    if depth > 4 {
        return;
    }
    let inside = |inner: &[u8]| {
        assert!(inner.len() <= data.len());
        payloads(inner, depth + 1);
    };
    if let Ok(gre) = GrePacket::new_checked(data) {
        let _ = (gre.key(), gre.sequence(), gre.header().protocol_type());
        inside(gre.payload());
    }
    if let Ok(minimal) = MinimalPacket::new_checked(data) {
        let _ = (minimal.header().destination(), minimal.source());
        inside(minimal.payload());
    }
    if let Ok(data) = TunnelDataPacket::new_checked(data) {
        let _ = (data.header().next_header(), data.header().reserved());
        inside(data.payload());
    }
    if let Ok(icmp) = Icmpv4Packet::new_checked(data) {
        let _ = icmp.header().identifier();
        assert!(icmp.body().len() < data.len());
    }
}

/// A message: its extensions lie in it, one behind the other, and its fixed part is
/// written again as it was.
pub(super) fn registration(data: &[u8]) {
    let (extensions, fixed) = match Message::parse(data) {
        Ok(Message::Request(received)) => {
            assert_eq!(RegistrationRequest::parse(&received.body.emit()), Ok(received.body));
            let _ = (received.defect(), received.mobile_home_authentication());
            (received.extensions().to_vec(), received.body.emit().to_vec())
        }
        Ok(Message::Reply(received)) => {
            assert_eq!(RegistrationReply::parse(&received.body.emit()), Ok(received.body));
            (received.extensions().to_vec(), received.body.emit().to_vec())
        }
        Ok(Message::Revocation(received)) => {
            assert_eq!(RegistrationRevocation::parse(&received.body.emit()), Ok(received.body));
            (received.extensions().to_vec(), received.body.emit().to_vec())
        }
        Ok(Message::Acknowledgement(received)) => {
            assert_eq!(RevocationAcknowledgement::parse(&received.body.emit()), Ok(received.body));
            (received.extensions().to_vec(), received.body.emit().to_vec())
        }
        Err(_) => return,
    };
    let mut end = fixed.len();
    let mut writer = MessageWriter::relay(&fixed);
    for Located { offset, end: next, extension, .. } in &extensions {
        assert!(*offset >= end && *next > *offset && *next <= data.len());
        end = *next;
        // What was read can be written: it was not longer.
        assert!(writer.extension(extension).is_ok());
    }
    let again = writer.finish();
    let read = match Message::parse(&again) {
        Ok(Message::Request(received)) => received.extensions().len(),
        Ok(Message::Reply(received)) => received.extensions().len(),
        Ok(Message::Revocation(received)) => received.extensions().len(),
        Ok(Message::Acknowledgement(received)) => received.extensions().len(),
        Err(_) => 0,
    };
    assert_eq!(read, extensions.len());
}

/// Advertisements and solicitations.
pub(super) fn discovery(data: &[u8]) {
    if let Ok(advertisement) = AgentAdvertisement::parse(data) {
        let again = AgentAdvertisement::parse(&advertisement.emit());
        assert_eq!(again.as_ref(), Ok(&advertisement));
    }
    if let Ok(solicitation) = AgentSolicitation::parse(data) {
        assert!(AgentSolicitation::parse(&solicitation.emit()).is_ok());
    }
}

/// A message of the punt ring: a header, and a frame that it may be wrong about.
pub(super) fn punt(data: &[u8]) {
    let Ok((header, frame)) = PuntHeader::read_from_prefix(data) else { return };
    let _ = black_box(punted::parse(&header, frame));
}

/// What people are shown of a frame and of a message.
pub(super) fn decode(data: &[u8]) {
    for (name, _) in decode_frame(data).into_iter().chain(decode_message(data)) {
        assert!(!name.is_empty() && name.is_ascii());
    }
}

/// What a DHCP server says.
pub(super) fn dhcp(data: &[u8]) {
    let _ = black_box(mobile::dhcp_reply::Reply::parse(data));
}

/// What a mobile node hears on its link.
pub(super) fn heard(data: &[u8]) {
    let (finished, rest) =
        data.split_first().map_or((true, data), |(first, rest)| (*first & 1 == 0, rest));
    let _ = black_box(mobile::frame::parse(rest, !finished));
}
