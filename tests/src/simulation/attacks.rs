//! What strangers send.

use std::net::Ipv4Addr;

use homeport_proto::message::{
    AuthenticationKind, Identification, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{Algorithm, ReplayProtection};
use homeport_proto::{Lifetime, MacAddress, Now};
use homeport_wire::{
    EtherType, EthernetHeader, GreHeader, IpProtocol, Ipv4Packet, KeyedGreHeader,
    SourcedMinimalHeader, TunnelDataHeader, UdpPacket,
};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{
    FORGED, STRANGER, STRANGER_MAC, care_of_address, correspondent_address, home_address,
    home_agent_address, link_address, tag_of,
};
use super::plan::{NodePlan, Shape};
use crate::frame;
use crate::world::{association, box_mac};

const APPLICATION: u16 = 5000;

/// A request for a node's home address that leads to the stranger, signed with the
/// stranger's own key.
pub fn made_up_request(shape: &Shape, node: &NodePlan, now: Now) -> Vec<u8> {
    let to = home_agent_address(node.home_agent);
    let request = RegistrationRequest {
        flags: RequestFlags::default()
            .with(RequestFlags::CO_LOCATED)
            .with(RequestFlags::REVERSE_TUNNEL),
        lifetime: Lifetime(300),
        home_address: home_address(node.number),
        home_agent: to,
        care_of_address: STRANGER,
        identification: Identification(now.ntp.0),
    };
    let key = association(256, Algorithm::HmacMd5, b"stranger", ReplayProtection::default());
    let mut writer = MessageWriter::request(&request);
    writer.authenticate(AuthenticationKind::MobileHome, &key);
    let packet = frame::udp((STRANGER, 434), (to, 434), 64, &writer.finish());
    frame::ethernet(box_mac(shape.home_agents[node.home_agent].at, 0), STRANGER_MAC, &packet)
}

/// Whether a frame is a genuine request to a home agent.
pub fn is_request_to(bytes: &[u8], home_agent: Ipv4Addr) -> bool {
    parts(bytes).is_some_and(|(_, (_, to), data)| to.0 == home_agent && data.first() == Some(&1))
}

type Ends = ((Ipv4Addr, u16), (Ipv4Addr, u16));

fn parts(bytes: &[u8]) -> Option<(EthernetHeader, Ends, &[u8])> {
    let (ethernet, packet) = EthernetHeader::ref_from_prefix(bytes).ok()?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let (from, to) = (packet.header().source(), packet.header().destination());
    if packet.header().protocol() != IpProtocol::UDP {
        return None;
    }
    let len = packet.payload().len();
    let udp = UdpPacket::new_checked(packet.payload(), from, to).ok()?;
    let ends = ((from, udp.header().source_port()), (to, udp.header().destination_port()));
    let data_len = udp.payload().len();
    let start = EthernetHeader::LEN + packet.header().header_len() + len - data_len;
    Some((*ethernet, ends, bytes.get(start..start + data_len)?))
}

/// A genuine request with the stranger's care-of address in it.
pub fn diverted(bytes: &[u8]) -> Option<Vec<u8>> {
    let (ethernet, (from, to), data) = parts(bytes)?;
    let mut data = data.to_vec();
    data.get_mut(12..16)?.copy_from_slice(&STRANGER.octets());
    let packet = frame::udp(from, to, 64, &data);
    Some(frame::ethernet(ethernet.destination, ethernet.source, &packet))
}

/// A stranger's packet in a tunnel that nobody made, of one of five kinds: for the
/// node by a foreign agent, or as if from the node by its home agent.
pub fn tunnelled(
    shape: &Shape,
    node: &NodePlan,
    foreign_agent: Option<usize>,
    kind: u8,
    sequence: u64,
) -> Vec<u8> {
    let home = (home_address(node.number), APPLICATION);
    let correspondent = (correspondent_address(shape, node), APPLICATION);
    let number = (tag_of(node) | FORGED | sequence).to_be_bytes();
    let (to, at, ends) = match foreign_agent {
        Some(one) => (care_of_address(one), shape.home_boxes() + one, (correspondent, home)),
        None => {
            let at = shape.home_agents[node.home_agent].at;
            (home_agent_address(node.home_agent), at, (home, correspondent))
        }
    };
    let inner = frame::udp(ends.0, ends.1, 64, &number);
    let outer = |protocol, payload: &[u8]| frame::ipv4(STRANGER, to, protocol, 64, payload);
    let packet = match kind {
        0 => outer(IpProtocol::IP_IN_IP, &inner),
        1 => {
            let header = SourcedMinimalHeader::new(IpProtocol::UDP, ends.0.0, ends.1.0);
            outer(IpProtocol::MINIMAL, &[header.as_bytes(), &inner[20..]].concat())
        }
        2 => {
            let header = GreHeader::new(EtherType::IPV4);
            outer(IpProtocol::GRE, &[header.as_bytes(), &inner].concat())
        }
        3 => {
            let header = KeyedGreHeader::new(EtherType::IPV4, 7);
            outer(IpProtocol::GRE, &[header.as_bytes(), &inner].concat())
        }
        _ => {
            let header = TunnelDataHeader::new(IpProtocol::IP_IN_IP);
            let data = [header.as_bytes(), &inner].concat();
            frame::udp((STRANGER, 434), (to, 434), 64, &data)
        }
    };
    frame::ethernet(box_mac(at, 0), STRANGER_MAC, &packet)
}

/// The so-manyth request of a node that nobody knows, on a foreign agent's link.
pub fn unknown_request(shape: &Shape, foreign_agent: usize, count: usize, now: Now) -> Vec<u8> {
    let [high, low] = (count as u16).to_be_bytes();
    let home = Ipv4Addr::new(10, 9, high, low);
    let request = RegistrationRequest {
        flags: RequestFlags::default(),
        lifetime: Lifetime(300),
        home_address: home,
        home_agent: home_agent_address(count % shape.home_agents.len()),
        care_of_address: care_of_address(foreign_agent),
        identification: Identification(now.ntp.0),
    };
    let key = association(256, Algorithm::HmacMd5, b"stranger", ReplayProtection::default());
    let mut writer = MessageWriter::request(&request);
    writer.authenticate(AuthenticationKind::MobileHome, &key);
    let to = (link_address(foreign_agent), 434);
    let packet = frame::udp((home, 1434), to, 255, &writer.finish());
    let from = MacAddress([2, 0, 0x66, 0x66, high, low]);
    frame::ethernet(box_mac(shape.home_boxes() + foreign_agent, 1), from, &packet)
}
