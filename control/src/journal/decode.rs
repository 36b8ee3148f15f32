//! Frames and messages as fields with names, for people: what differs between two of
//! them is then said field by field, not in hex.

use std::fmt::{Display, Write};

use homeport_proto::message::{Extension, Located, Message};
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{
    ArpPacket, EtherType, EthernetHeader, GrePacket, IpProtocol, Ipv4Header, MOBILE_IP_PORT,
    MinimalPacket, MobileIpPayload, TunnelDataPacket, UdpHeader,
};
use zerocopy::FromBytes;

/// Packets in packets that are looked into.
const MAX_DEPTH: usize = 4;

/// Bytes on one line of what has no fields.
const ROW: usize = 16;

/// A field: its path, as `ipv4.ttl`, and its value.
pub type Field = (String, String);

/// The fields of an Ethernet frame.
pub fn decode_frame(frame: &[u8]) -> Vec<Field> {
    let mut fields = Fields::default();
    fields.ethernet(frame);
    fields.all
}

/// The fields of a registration message.
pub fn decode_message(message: &[u8]) -> Vec<Field> {
    let mut fields = Fields::default();
    fields.registration(message);
    fields.all
}

#[derive(Default)]
struct Fields {
    prefix: String,
    depth: usize,
    all: Vec<Field>,
}

impl Fields {
    fn add(&mut self, name: &str, value: impl Display) {
        self.all.push((format!("{}{name}", self.prefix), value.to_string()));
    }

    /// Bytes that have no fields, row by row.
    fn rest(&mut self, name: &str, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.add(&format!("{name}.length"), bytes.len());
        for (number, row) in bytes.chunks(ROW).enumerate() {
            self.add(&format!("{name}[{}]", number * ROW), hex(row));
        }
    }

    fn ethernet(&mut self, frame: &[u8]) {
        let Ok((header, rest)) = EthernetHeader::ref_from_prefix(frame) else {
            return self.rest("frame", frame);
        };
        self.add("ethernet.destination", header.destination);
        self.add("ethernet.source", header.source);
        match header.ether_type() {
            EtherType::IPV4 => {
                self.add("ethernet.type", "IPv4");
                self.ipv4(rest);
            }
            EtherType::ARP => {
                self.add("ethernet.type", "ARP");
                self.arp(rest);
            }
            EtherType(other) => {
                self.add("ethernet.type", format_args!("{other:#06x}"));
                self.rest("payload", rest);
            }
        }
    }

    fn arp(&mut self, bytes: &[u8]) {
        let Ok(arp) = ArpPacket::new_checked(bytes) else {
            return self.rest("arp", bytes);
        };
        self.add("arp.operation", arp.operation().0);
        self.add("arp.sender_mac", arp.sender_mac);
        self.add("arp.sender", arp.sender_address());
        self.add("arp.target_mac", arp.target_mac);
        self.add("arp.target", arp.target_address());
        self.rest("padding", bytes.get(ArpPacket::LEN..).unwrap_or_default());
    }

    fn ipv4(&mut self, bytes: &[u8]) {
        let Ok((header, _)) = Ipv4Header::ref_from_prefix(bytes) else {
            return self.rest("ipv4", bytes);
        };
        self.add("ipv4.version", header.version());
        self.add("ipv4.header_length", header.header_len());
        self.add("ipv4.tos", format_args!("{:#04x}", header.tos));
        self.add("ipv4.total_length", header.total_len());
        self.add("ipv4.identification", header.identification());
        self.add("ipv4.dont_fragment", header.dont_fragment());
        self.add("ipv4.more_fragments", header.more_fragments());
        self.add("ipv4.fragment_offset", header.fragment_offset());
        self.add("ipv4.ttl", header.ttl);
        self.add("ipv4.protocol", header.protocol().0);
        self.add("ipv4.checksum", format_args!("{:#06x}", header.checksum()));
        self.add("ipv4.source", header.source());
        self.add("ipv4.destination", header.destination());
        let total = usize::from(header.total_len()).min(bytes.len());
        let start = header.header_len().clamp(Ipv4Header::LEN, bytes.len().max(Ipv4Header::LEN));
        self.rest("ipv4.options", bytes.get(Ipv4Header::LEN..start).unwrap_or_default());
        let payload = bytes.get(start..total.max(start)).unwrap_or_default();
        if header.fragment_offset() > 0 {
            self.rest("fragment", payload);
        } else {
            self.payload(header.protocol(), payload);
        }
        self.rest("padding", bytes.get(total..).unwrap_or_default());
    }

    fn payload(&mut self, protocol: IpProtocol, bytes: &[u8]) {
        match protocol {
            IpProtocol::UDP => self.udp(bytes),
            IpProtocol::TCP => self.tcp(bytes),
            IpProtocol::ICMP => self.icmp(bytes),
            IpProtocol::IP_IN_IP => self.inner(bytes),
            IpProtocol::GRE => match GrePacket::new_checked(bytes) {
                Ok(gre) => {
                    self.add(
                        "gre.protocol",
                        format_args!("{:#06x}", gre.header().protocol_type().0),
                    );
                    if let Some(key) = gre.key() {
                        self.add("gre.key", key);
                    }
                    if let Some(sequence) = gre.sequence() {
                        self.add("gre.sequence", sequence);
                    }
                    self.inner(gre.payload());
                }
                Err(_) => self.rest("gre", bytes),
            },
            IpProtocol::MINIMAL => match MinimalPacket::new_checked(bytes) {
                Ok(minimal) => {
                    let protocol = minimal.header().protocol();
                    self.add("minimal.protocol", protocol.0);
                    self.add("minimal.destination", minimal.header().destination());
                    if let Some(source) = minimal.source() {
                        self.add("minimal.source", source);
                    }
                    self.payload(protocol, minimal.payload());
                }
                Err(_) => self.rest("minimal", bytes),
            },
            _ => self.rest("payload", bytes),
        }
    }

    /// A packet in a packet.
    fn inner(&mut self, bytes: &[u8]) {
        if self.depth >= MAX_DEPTH {
            return self.rest("inner", bytes);
        }
        self.depth += 1;
        let len = self.prefix.len();
        self.prefix.push_str("inner.");
        self.ipv4(bytes);
        self.prefix.truncate(len);
        self.depth -= 1;
    }

    fn udp(&mut self, bytes: &[u8]) {
        let Ok((header, payload)) = UdpHeader::ref_from_prefix(bytes) else {
            return self.rest("udp", bytes);
        };
        self.add("udp.source_port", header.source_port());
        self.add("udp.destination_port", header.destination_port());
        self.add("udp.length", header.udp_len());
        self.add("udp.checksum", format_args!("{:#06x}", header.checksum()));
        if ![header.source_port(), header.destination_port()].contains(&MOBILE_IP_PORT) {
            return self.rest("payload", payload);
        }
        match MobileIpPayload::of(payload) {
            MobileIpPayload::TunnelData => match TunnelDataPacket::new_checked(payload) {
                Ok(data) => {
                    self.add("tunnel.next_header", data.header().next_header().0);
                    self.add("tunnel.reserved", data.header().reserved());
                    self.inner(data.payload());
                }
                Err(_) => self.rest("tunnel", payload),
            },
            MobileIpPayload::PlainTunnelData => self.inner(payload),
            MobileIpPayload::Signalling => self.registration(payload),
        }
    }

    fn tcp(&mut self, bytes: &[u8]) {
        let Ok((header, rest)) = TcpHeader::ref_from_prefix(bytes) else {
            return self.rest("tcp", bytes);
        };
        self.add("tcp.source_port", header.source_port);
        self.add("tcp.destination_port", header.destination_port);
        self.add("tcp.sequence", header.sequence);
        self.add("tcp.acknowledgment", header.acknowledgment);
        self.add("tcp.flags", format_args!("{:#04x}", header.flags));
        self.add("tcp.window", header.window);
        self.add("tcp.checksum", format_args!("{:#06x}", header.checksum.get()));
        self.add("tcp.urgent", header.urgent);
        let options = header.header_len().saturating_sub(size_of::<TcpHeader>()).min(rest.len());
        let (options, payload) = rest.split_at_checked(options).unwrap_or((&[], rest));
        self.rest("tcp.options", options);
        self.rest("payload", payload);
    }

    fn icmp(&mut self, bytes: &[u8]) {
        let Ok((header, body)) = Icmpv4Header::ref_from_prefix(bytes) else {
            return self.rest("icmp", bytes);
        };
        self.add("icmp.type", header.message_type);
        self.add("icmp.code", header.code);
        self.add("icmp.rest", hex(&header.rest));
        self.rest("icmp.body", body);
    }

    fn registration(&mut self, bytes: &[u8]) {
        match Message::parse(bytes) {
            Ok(Message::Request(received)) => {
                let body = &received.body;
                self.add("registration.message", "request");
                self.add("registration.flags", format_args!("{:#04x}", body.flags.0));
                self.add("registration.lifetime", body.lifetime);
                self.add("registration.home_address", body.home_address);
                self.add("registration.home_agent", body.home_agent);
                self.add("registration.care_of_address", body.care_of_address);
                self.add("registration.identification", body.identification.0);
                self.extensions(received.extensions());
            }
            Ok(Message::Reply(received)) => {
                let body = &received.body;
                self.add("registration.message", "reply");
                self.add("registration.code", body.code);
                self.add("registration.lifetime", body.lifetime);
                self.add("registration.home_address", body.home_address);
                self.add("registration.home_agent", body.home_agent);
                self.add("registration.identification", body.identification.0);
                self.extensions(received.extensions());
            }
            Ok(Message::Revocation(received)) => {
                let body = &received.body;
                self.add("registration.message", "revocation");
                self.add("registration.from_home_agent", body.from_home_agent);
                self.add("registration.inform", body.inform);
                self.add("registration.home_address", body.home_address);
                self.add("registration.home_agent", body.home_agent);
                self.add("registration.care_of_address", body.care_of_address);
                self.add("registration.identifier", body.identifier);
                self.extensions(received.extensions());
            }
            Ok(Message::Acknowledgement(received)) => {
                let body = &received.body;
                self.add("registration.message", "revocation acknowledgement");
                self.add("registration.inform", body.inform);
                self.add("registration.home_address", body.home_address);
                self.add("registration.identifier", body.identifier);
                self.extensions(received.extensions());
            }
            Err(_) => self.rest("registration", bytes),
        }
    }

    fn extensions(&mut self, extensions: &[Located<'_>]) {
        for (number, located) in extensions.iter().enumerate() {
            let name = format!("registration.extension[{number}]");
            match located.extension {
                Extension::Authentication { kind, spi, authenticator } => {
                    self.add(&name, format_args!("{kind:?} authentication, SPI {spi}"));
                    self.add(&format!("{name}.authenticator"), hex(authenticator));
                }
                other => self.add(&name, format_args!("{other:?}")),
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
