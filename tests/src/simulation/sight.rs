//! What a frame on a link shows: an application's datagram, plain or in a tunnel, or
//! an accepting reply.

use std::net::Ipv4Addr;

use homeport_proto::message::{AgentAdvertisement, Message, RegistrationReply};
use homeport_wire::gre::GrePacket;
use homeport_wire::minimal::MinimalPacket;
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Packet, MacAddress, UdpPacket};
use zerocopy::FromBytes;

use super::layout::{ECHO, FORGED};
use crate::boxes::challenge_of;

const APPLICATION: u16 = 5000;
const MOBILE_IP: u16 = 434;

/// A numbered datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl Tag {
    /// The home agent of the node that it is of or for.
    pub const fn home_agent(self) -> usize {
        (self.0 >> 56) as usize - 1
    }

    /// The node's number at home.
    pub const fn number(self) -> usize {
        (self.0 >> 48 & 0xff) as usize - 1
    }

    /// Whether the node sent it.
    pub const fn is_from_node(self) -> bool {
        self.0 & ECHO != 0
    }

    /// Whether a stranger made it.
    pub const fn is_forged(self) -> bool {
        self.0 & FORGED != 0
    }

    /// What tells it from others of its node.
    pub const fn sequence(self) -> u64 {
        self.0 & (ECHO - 1)
    }

    fn of(number: u64) -> Option<Self> {
        let [home_agent, node, ..] = number.to_be_bytes();
        (home_agent > 0 && node > 0).then_some(Tag(number))
    }
}

/// What there is to see in a frame.
#[derive(Clone, Copy, Debug)]
pub enum Sight {
    /// A datagram of an application.
    Datagram {
        /// Its number.
        tag: Tag,
        /// The ends of the tunnel that it is in.
        tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    },
    /// A registration reply.
    Reply(RegistrationReply),
}

/// What a frame shows, and the station that it is for.
pub fn look(frame: &[u8]) -> Option<(MacAddress, Sight)> {
    let (ethernet, packet) = EthernetHeader::ref_from_prefix(frame).ok()?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let header = packet.header();
    let ends = (header.source(), header.destination());
    let datagram = |tag, tunnel| Sight::Datagram { tag, tunnel };
    let inner = |bytes| {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let header = packet.header();
        let inner = (header.source(), header.destination());
        (header.protocol() == IpProtocol::UDP).then(|| tag(packet.payload(), inner))?
    };
    let sight = match header.protocol() {
        IpProtocol::UDP => {
            let udp = UdpPacket::new_checked(packet.payload(), ends.0, ends.1).ok()?;
            match udp.header().source_port() {
                MOBILE_IP => match Message::parse(udp.payload()) {
                    Ok(Message::Reply(reply)) => Sight::Reply(reply.body),
                    _ => return None,
                },
                _ => datagram(tag(packet.payload(), ends)?, None),
            }
        }
        IpProtocol::IP_IN_IP => datagram(inner(packet.payload())?, Some(ends)),
        IpProtocol::GRE => {
            let gre = GrePacket::new_checked(packet.payload()).ok()?;
            datagram(inner(gre.payload())?, Some(ends))
        }
        IpProtocol::MINIMAL => {
            let minimal = MinimalPacket::new_checked(packet.payload()).ok()?;
            let source = minimal.source().unwrap_or(ends.0);
            let inner = (source, minimal.header().destination());
            datagram(tag(minimal.payload(), inner)?, Some(ends))
        }
        _ => return None,
    };
    Some((ethernet.destination, sight))
}

/// The foreign agent's challenge in an advertisement or a reply (RFC 4721 §2, §3.3).
pub fn challenge(frame: &[u8]) -> Option<Vec<u8>> {
    let (_, packet) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let header = packet.header();
    match header.protocol() {
        IpProtocol::ICMP => AgentAdvertisement::parse(packet.payload()).ok()?.challenge,
        IpProtocol::UDP => {
            let (from, to) = (header.source(), header.destination());
            let udp = UdpPacket::new_checked(packet.payload(), from, to).ok()?;
            (udp.header().source_port() == MOBILE_IP).then(|| challenge_of(udp.payload()))?
        }
        _ => None,
    }
}

fn tag(udp: &[u8], (source, destination): (Ipv4Addr, Ipv4Addr)) -> Option<Tag> {
    let udp = UdpPacket::new_checked(udp, source, destination).ok()?;
    let is_ours = udp.header().destination_port() == APPLICATION;
    let number = udp.payload().first_chunk().filter(|_| is_ours)?;
    Tag::of(u64::from_be_bytes(*number))
}
