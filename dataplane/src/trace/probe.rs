//! Packets that are only asked about.

use std::net::Ipv4Addr;

use homeport_wire::icmpv4::{ECHO_REQUEST, Icmpv4Header};
use homeport_wire::{IpProtocol, Ipv4Header, TenantId, UdpHeader};
use zerocopy::IntoBytes;

use super::filter::{WordError, words};
use crate::packet::DATA_ROOM;

/// A port number that says: the one that the source of the packet is behind.
pub(crate) const BY_ROUTE: u16 = u16::MAX;

/// The words that there are.
const WORDS: &str = "src=, dst=, proto=, sport=, dport=, port=, tenant=, len= and ttl=";

/// A packet whose way is asked for.
///
/// ```
/// use homeport_dataplane::trace::ProbePacket;
///
/// let packet = ProbePacket::parse("src=192.0.2.7 dst=10.1.0.10 proto=udp dport=53").unwrap();
/// assert_eq!(packet.bytes().len(), 28);
/// assert!(ProbePacket::parse("src=192.0.2.7").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePacket {
    /// Where it comes from.
    pub source: Ipv4Addr,
    /// Where it goes.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub protocol: u8,
    /// Source and destination port of TCP or UDP.
    pub ports: (u16, u16),
    /// The name of the port that it comes in by; `None`: the one that its source is
    /// behind, by the routes.
    pub port: Option<String>,
    /// Whose it is, where the port is not named.
    pub tenant: TenantId,
    /// Its length in bytes, from the IPv4 header on; `None`: as short as it can be.
    pub len: Option<u16>,
    /// Its TTL.
    pub ttl: u8,
}

impl ProbePacket {
    /// Reads words with spaces between: `src=`, `dst=` and `proto=` must be there.
    ///
    /// # Errors
    /// The word that is wrong or missing, with what is allowed.
    pub fn parse(text: &str) -> Result<Self, WordError> {
        let (mut source, mut destination, mut protocol) = (None, None, None);
        let mut packet = ProbePacket {
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::UNSPECIFIED,
            protocol: 0,
            ports: (0, 0),
            port: None,
            tenant: TenantId(0),
            len: None,
            ttl: 64,
        };
        let port = "a port, from 0 to 65535";
        for word in words(text, WORDS) {
            let word = word?;
            match word.key {
                "src" => source = Some(word.address()?),
                "dst" => destination = Some(word.address()?),
                "proto" => protocol = Some(word.protocol()?),
                "sport" => packet.ports.0 = word.number(port)?,
                "dport" => packet.ports.1 = word.number(port)?,
                "port" => packet.port = Some(word.value.into()),
                "tenant" => packet.tenant = TenantId(word.number("a tenant's number")?),
                "len" => {
                    let allowed = "a length from 20 to 1900 bytes, the IPv4 header included";
                    let len = word.number(allowed)?;
                    if !(20..=MAX_LEN).contains(&len) {
                        return Err(word.error("no packet is so long", allowed));
                    }
                    packet.len = Some(len);
                }
                "ttl" => packet.ttl = word.number("a TTL, from 0 to 255")?,
                _ => return Err(word.unknown(WORDS)),
            }
        }
        let missing = |key: &str, allowed: &str| WordError {
            word: key.into(),
            wrong: "it is missing".into(),
            allowed: allowed.into(),
        };
        packet.source = source.ok_or_else(|| missing("src=", "an address, as in src=192.0.2.7"))?;
        packet.destination =
            destination.ok_or_else(|| missing("dst=", "an address, as in dst=10.1.0.10"))?;
        packet.protocol =
            protocol.ok_or_else(|| missing("proto=", "icmp, tcp, udp, or a number"))?;
        Ok(packet)
    }

    /// The packet, from its IPv4 header on: TCP is a SYN, ICMP an echo request.
    pub fn bytes(&self) -> Vec<u8> {
        let room = self.len.map_or(0, |len| usize::from(len).saturating_sub(Ipv4Header::LEN));
        let (from, to) = self.ports;
        let payload = match IpProtocol(self.protocol) {
            IpProtocol::UDP => {
                let data = vec![0; room.saturating_sub(UdpHeader::LEN)];
                let ends = ((self.source, from), (self.destination, to));
                match UdpHeader::new(ends.0, ends.1, &data) {
                    Some(header) => [header.as_bytes(), &data].concat(),
                    None => data,
                }
            }
            IpProtocol::ICMP => {
                let data = vec![0; room.saturating_sub(Icmpv4Header::LEN)];
                let header = Icmpv4Header::new(ECHO_REQUEST, 0, [0, 1, 0, 1], &data);
                [header.as_bytes(), &data].concat()
            }
            IpProtocol::TCP => {
                let mut segment = vec![0; room.max(20)];
                let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
                let head = [a, b, c, d, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff];
                segment.iter_mut().zip(head).for_each(|(to, from)| *to = from);
                segment
            }
            _ => vec![0; room],
        };
        // At most `MAX_LEN`.
        let total_len = (Ipv4Header::LEN + payload.len()) as u16;
        let protocol = IpProtocol(self.protocol);
        let header = Ipv4Header::new(self.source, self.destination, protocol, self.ttl, total_len);
        [header.as_bytes(), &payload].concat()
    }
}

/// The longest packet: a link header fits in front of it.
const MAX_LEN: u16 = 1900;

const _: () = assert!((MAX_LEN as usize) < DATA_ROOM);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn what_is_asked_about_is_a_packet_of_that_length() {
        for (proto, least) in [("udp", 28), ("tcp", 40), ("icmp", 28), ("gre", 20), ("99", 20)] {
            for (len, expected) in [("", least), ("len=20", least), ("len=1500", 1500)] {
                let text = format!("src=192.0.2.7 dst=10.1.0.10 proto={proto} ttl=3 {len}");
                let bytes = ProbePacket::parse(&text).unwrap().bytes();
                let facts = parse::ipv4(&bytes).unwrap();
                assert_eq!((usize::from(facts.total_len), bytes.len()), (expected, expected));
                assert_eq!(bytes[8], 3);
            }
        }
        let packet = ProbePacket::parse("src=1.2.3.4 dst=5.6.7.8 proto=udp sport=7 dport=434");
        let facts = parse::ipv4(&packet.unwrap().bytes()).unwrap();
        assert_eq!(facts.udp_ports, Some((7, 434)));
    }

    #[test]
    fn a_wrong_or_missing_word_is_named() {
        for (text, word) in [
            ("dst=10.1.0.10 proto=udp", "src="),
            ("src=10.1.0.10 proto=udp", "dst="),
            ("src=10.1.0.10 dst=10.1.0.11", "proto="),
            ("src=10.1.0.0/24 dst=10.1.0.11 proto=udp", "src=10.1.0.0/24"),
            ("src=10.1.0.10 dst=10.1.0.11 proto=udp len=2000", "len=2000"),
            ("src=10.1.0.10 dst=10.1.0.11 proto=udp colour=blue", "colour=blue"),
        ] {
            assert_eq!(ProbePacket::parse(text).unwrap_err().word, word);
        }
    }
}
