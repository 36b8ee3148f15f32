//! The frames that a generator sends: templates, and the few bytes in which one frame
//! differs from the next.

use std::net::Ipv4Addr;

use homeport_wire::{
    EtherType, EthernetHeader, GreHeader, IpProtocol, Ipv4Header, MOBILE_IP_PORT, MacAddress,
    SourcedMinimalHeader, TunnelDataHeader, UdpHeader, checksum,
};
use zerocopy::IntoBytes;

use crate::addresses;
use crate::case::{Case, Family, FrameLen, Kind};

/// The station that all frames come from and go to.
pub const STATION: MacAddress = MacAddress([2, 0, 0, 0, 1, 1]);

/// The TTL of a packet that nobody has forwarded yet.
pub const TTL: u8 = 64;

/// The link-layer address of a port of the box.
pub const fn port_mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

/// What a frame is on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A datagram whose UDP checksum is left out.
    Plain,
    /// One with its checksum, which a NAPT must mend.
    Summed,
    /// One in a tunnel to the home agent.
    Tunnelled(Kind),
}

/// An IPv4 header in a template, and the sum of all of it but its addresses.
#[derive(Clone, Copy, Debug)]
struct Header {
    at: usize,
    sum: u16,
}

/// A frame without its addresses and ports.
struct Template {
    bytes: Vec<u8>,
    outer: Header,
    /// The header in the tunnel; that of minimal encapsulation is written whole.
    inner: Option<Header>,
    /// Where the datagram's ports are, and the sum of all that its checksum covers but
    /// addresses and ports.
    udp: (usize, u16),
    shape: Shape,
}

fn header(protocol: IpProtocol, payload: usize) -> Ipv4Header {
    let none = Ipv4Addr::UNSPECIFIED;
    // A frame is at most 1,400 bytes long.
    let mut header =
        Ipv4Header::unsummed(none, none, protocol, TTL, (Ipv4Header::LEN + payload) as u16);
    // As nearly all hosts do since path MTU discovery.
    header.set_dont_fragment(true);
    header
}

impl Template {
    fn new(shape: Shape, len: usize, to: MacAddress) -> Self {
        let datagram = len - EthernetHeader::LEN - Ipv4Header::LEN;
        let content = datagram - UdpHeader::LEN;
        let plain = header(IpProtocol::UDP, datagram);
        let udp = UdpHeader::unsummed(0, 0, content).unwrap_or_else(|| unreachable!());
        let mut bytes = EthernetHeader::new(to, STATION, EtherType::IPV4).as_bytes().to_vec();
        let outer_at = bytes.len();
        let mut outer = plain;
        let mut inner_at = None;
        if let Shape::Tunnelled(kind) = shape {
            let shim: Vec<u8> = match kind {
                Kind::IpIp => Vec::new(),
                Kind::Gre => GreHeader::new(EtherType::IPV4).as_bytes().to_vec(),
                Kind::Udp => {
                    let inside = TunnelDataHeader::LEN + Ipv4Header::LEN + datagram;
                    let udp = UdpHeader::unsummed(0, MOBILE_IP_PORT, inside)
                        .unwrap_or_else(|| unreachable!());
                    [udp.as_bytes(), TunnelDataHeader::new(IpProtocol::IP_IN_IP).as_bytes()]
                        .concat()
                }
                Kind::Minimal => vec![0; SourcedMinimalHeader::LEN],
            };
            let (protocol, own) = match kind {
                Kind::IpIp => (IpProtocol::IP_IN_IP, Ipv4Header::LEN),
                Kind::Gre => (IpProtocol::GRE, Ipv4Header::LEN),
                Kind::Udp => (IpProtocol::UDP, Ipv4Header::LEN),
                Kind::Minimal => (IpProtocol::MINIMAL, 0),
            };
            outer = header(protocol, shim.len() + own + datagram);
            bytes.extend_from_slice(outer.as_bytes());
            bytes.extend_from_slice(&shim);
            if own > 0 {
                inner_at = Some(bytes.len());
                bytes.extend_from_slice(plain.as_bytes());
            }
        } else {
            bytes.extend_from_slice(outer.as_bytes());
        }
        let udp_at = bytes.len();
        bytes.extend_from_slice(udp.as_bytes());
        bytes.extend((0..content).map(|n| n as u8));
        let sum = |header: &Ipv4Header| checksum::Sum::new().add_bytes(header.as_bytes()).fold();
        let covered = bytes.get(udp_at..).unwrap_or_default();
        let covered = checksum::Sum::new()
            .add_pseudo_header(
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::UNSPECIFIED,
                IpProtocol::UDP.0,
                datagram as u16,
            )
            .add_bytes(covered)
            .fold();
        Template {
            outer: Header { at: outer_at, sum: sum(&outer) },
            inner: inner_at.map(|at| Header { at, sum: sum(&plain) }),
            udp: (udp_at, covered),
            shape,
            bytes,
        }
    }
}

/// What makes one packet differ from another.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Of the packet itself.
    pub source: (Ipv4Addr, u16),
    /// Of the packet itself.
    pub destination: (Ipv4Addr, u16),
    /// Where the tunnel begins that it is in, and its UDP port there.
    pub tunnel: (Ipv4Addr, u16),
}

/// What one packet of a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// To be put into the tunnel of this node.
    Encap(u64),
    /// Out of the tunnel of this node.
    Decap(u64),
    /// Of this flow, from the inside.
    Out(u64),
    /// Of this flow, from the outside.
    In(u64),
    /// To be forwarded.
    Forward,
    /// To be dropped.
    Miss,
}

impl Work {
    /// What the next packet of a case is; `number` names its node or flow.
    pub const fn of(case: Case, number: u64, random: u64) -> Self {
        match case {
            Case::Encap(_) => Work::Encap(number),
            Case::Decap(_) => Work::Decap(number),
            Case::NaptOut | Case::NaptNew => Work::Out(number),
            Case::NaptIn => Work::In(number),
            Case::Forward => Work::Forward,
            Case::Miss => Work::Miss,
            Case::Mixed => match random % 100 {
                0..=49 => Work::Encap(number),
                50..=89 => Work::Decap(number),
                90..=98 => Work::Forward,
                _ => Work::Miss,
            },
        }
    }

    /// Its ends, but for an inbound packet of a flow, whose external end the NAPT
    /// chose.
    pub const fn ends(self, random: u64) -> Ends {
        const NOBODY: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);
        let far = (addresses::correspondent(random), 443);
        match self {
            Work::Encap(node) => {
                Ends { source: far, destination: (addresses::home(node), 5000), tunnel: NOBODY }
            }
            Work::Decap(node) => Ends {
                source: (addresses::home(node), 5000),
                destination: far,
                tunnel: (addresses::care_of(node), addresses::peer_port(node)),
            },
            Work::Out(flow) => Ends {
                source: addresses::inside(flow),
                destination: addresses::remote(flow),
                tunnel: NOBODY,
            },
            Work::In(flow) => {
                Ends { source: addresses::remote(flow), destination: NOBODY, tunnel: NOBODY }
            }
            Work::Forward => {
                Ends { source: far, destination: (addresses::plain(random), 80), tunnel: NOBODY }
            }
            Work::Miss => {
                Ends { source: far, destination: (addresses::nowhere(random), 80), tunnel: NOBODY }
            }
        }
    }
}

/// The templates of a case, in each of its lengths.
pub struct Frames {
    family: Family,
    /// Rows by shape, columns by length.
    templates: Vec<[Template; 3]>,
    imix: bool,
}

const PLAIN: usize = 0;
const SUMMED: usize = 1;
const TUNNELLED: usize = 2;

impl Frames {
    /// The frames of a family, to the port with this link-layer address.
    pub fn new(family: Family, len: FrameLen, to: MacAddress) -> Self {
        let lens = match len {
            FrameLen::Fixed(len) => [len; 3],
            FrameLen::Imix => FrameLen::IMIX.map(|(len, _)| len),
        };
        let shapes = [Shape::Plain, Shape::Summed].into_iter();
        let shapes = shapes.chain(Kind::ALL.map(Shape::Tunnelled));
        let templates = shapes
            .map(|shape| lens.map(|len| Template::new(shape, usize::from(len), to)))
            .collect();
        Frames { family, templates, imix: len == FrameLen::Imix }
    }

    /// Writes a packet's frame; how long it is. Nothing when it does not fit.
    #[inline]
    pub fn write(&self, work: Work, ends: &Ends, random: u64, to: &mut [u8]) -> usize {
        let row = match work {
            Work::Encap(_) | Work::Forward | Work::Miss => PLAIN,
            Work::Out(_) | Work::In(_) => SUMMED,
            Work::Decap(node) => TUNNELLED + self.family.kind(node) as usize,
        };
        let column = match random >> 40 & 0xfff {
            _ if !self.imix => 0,
            n if n < 0x1000 * 7 / 12 => 0,
            n if n < 0x1000 * 11 / 12 => 1,
            _ => 2,
        };
        let template = self.templates.get(row).and_then(|row| row.get(column));
        template.map_or(0, |template| template.write(ends, to))
    }
}

impl Template {
    #[inline]
    fn write(&self, ends: &Ends, to: &mut [u8]) -> usize {
        let Some(to) = to.get_mut(..self.bytes.len()) else { return 0 };
        to.copy_from_slice(&self.bytes);
        let (source, destination) = (ends.source.0, ends.destination.0);
        match self.shape {
            Shape::Tunnelled(kind) => {
                self.outer.write(to, ends.tunnel.0, addresses::HOME_AGENT);
                match (kind, self.inner) {
                    (_, Some(inner)) => inner.write(to, source, destination),
                    (_, None) => {
                        let shim = SourcedMinimalHeader::new(IpProtocol::UDP, source, destination);
                        put(to, self.outer.at + Ipv4Header::LEN, shim.as_bytes());
                    }
                }
                if kind == Kind::Udp {
                    put(to, self.outer.at + Ipv4Header::LEN, &ends.tunnel.1.to_be_bytes());
                }
            }
            Shape::Plain | Shape::Summed => self.outer.write(to, source, destination),
        }
        let (at, sum) = self.udp;
        put(to, at, &ends.source.1.to_be_bytes());
        put(to, at + 2, &ends.destination.1.to_be_bytes());
        if self.shape == Shape::Summed {
            let sum = checksum::Sum::new()
                .add_u16(sum)
                .add_bytes(&source.octets())
                .add_bytes(&destination.octets())
                .add_u16(ends.source.1)
                .add_u16(ends.destination.1)
                .checksum();
            // Zero says that there is none (RFC 768).
            put(to, at + 6, &if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        }
        self.bytes.len()
    }
}

impl Header {
    #[inline]
    fn write(self, to: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
        let (source, destination) = (source.octets(), destination.octets());
        let sum = checksum::Sum::new().add_u16(self.sum);
        let sum = sum.add_bytes(&source).add_bytes(&destination).checksum();
        put(to, self.at + 10, &sum.to_be_bytes());
        put(to, self.at + 12, &source);
        put(to, self.at + 16, &destination);
    }
}

#[inline]
fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = to.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// Numbers without a pattern that a cache could learn (xorshift64*).
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Random(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next number.
    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below `bound`, which is at most 2³².
    #[inline]
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() >> 32) * bound) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use homeport_dataplane::decap;
    use homeport_dataplane::parse;
    use homeport_wire::UdpPacket;

    #[test]
    fn every_frame_parses_and_its_tunnel_opens() {
        let mut random = Random::new(1);
        for len in [FrameLen::Fixed(64), FrameLen::Fixed(1400), FrameLen::Imix] {
            let frames = Frames::new(Family::MixedBindings, len, port_mac(0));
            for number in 0..100 {
                let random = random.next();
                for work in [Work::Encap(number), Work::Decap(number), Work::Out(number)] {
                    let mut bytes = [0xa5; 2048];
                    let written = frames.write(work, &work.ends(random), random, &mut bytes);
                    let packet = &bytes[EthernetHeader::LEN..written];
                    let facts = parse::ipv4(packet).unwrap();
                    assert_eq!(usize::from(facts.total_len), packet.len());
                    let payload = &packet[usize::from(facts.header_len)..];
                    match work {
                        Work::Decap(node) => {
                            let (opened, _) = decap::open(&facts, payload).unwrap();
                            assert_eq!(facts.source, addresses::care_of(node));
                            assert_eq!(opened.inner.source, addresses::home(node));
                            let kind = Family::MixedBindings.kind(node);
                            assert_eq!(opened.encapsulation, kind.encapsulation(node));
                        }
                        Work::Out(flow) => {
                            let ends = (facts.source, facts.destination);
                            let udp = UdpPacket::new_checked(payload, ends.0, ends.1).unwrap();
                            assert_ne!(udp.header().checksum(), 0);
                            assert_eq!(ends.0, addresses::inside(flow).0);
                        }
                        _ => assert_eq!(facts.destination, addresses::home(number)),
                    }
                }
            }
        }
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let frames = Frames::new(Family::Flows, FrameLen::Imix, port_mac(0));
        let (mut random, mut lens) = (Random::new(7), std::collections::BTreeMap::new());
        for _ in 0..12_000 {
            let random = random.next();
            let ends = Work::Forward.ends(random);
            let len = frames.write(Work::Forward, &ends, random, &mut [0; 2048]);
            *lens.entry(len).or_insert(0u32) += 1;
        }
        let (seven, four, one) = (lens[&64], lens[&570], lens[&1400]);
        assert!(
            seven.abs_diff(7000) < 200 && four.abs_diff(4000) < 200 && one.abs_diff(1000) < 200
        );
    }
}
