//! A NAPT, its clock, and packets to send through it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_dataplane::TenantId;
use homeport_dataplane::napt::log::NatLogRecord;
use homeport_dataplane::napt::{Endpoint, InsideHost, Napt, NaptConfig, Outcome};
use homeport_dataplane::verdict::DropReason;
use homeport_dataplane::{MacAddress, PortId};
use homeport_wire::checksum::Sum;
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::tcp::TcpHeader;
use homeport_wire::{IpProtocol, Ipv4Header, Ipv4Packet, UdpHeader};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);

pub(crate) const SYN: u8 = TcpHeader::SYN;
pub(crate) const ACK: u8 = TcpHeader::ACK;
pub(crate) const FIN: u8 = TcpHeader::FIN;
pub(crate) const RST: u8 = TcpHeader::RST;

pub(crate) const fn at(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint { address, port }
}

/// A host that is reached by its address.
pub(crate) const fn host(address: Ipv4Addr) -> InsideHost {
    InsideHost { tenant: TenantId(0), address, station: None }
}

/// A visitor: it is told by its station.
pub(crate) const fn visitor(address: Ipv4Addr, station: u8) -> InsideHost {
    let mac = MacAddress([2, 0, 0, 0, 0, station]);
    InsideHost { tenant: TenantId(0), address, station: Some(mac) }
}

/// The `number`th inside address.
pub(crate) fn inside(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(INSIDE.to_bits() + number)
}

pub(crate) fn config() -> NaptConfig {
    let mut config = NaptConfig::new("test", vec![PortId(1)], PortId(0), vec![EXTERNAL]);
    config.max_sessions = 8192;
    config
}

/// A NAPT with its clock.
pub(crate) struct World {
    pub(crate) napt: Napt,
    pub(crate) now: Instant,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut NaptConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        World { napt: Napt::new(config, 0, [11, 22], (0, 1)), now: Instant::now() }
    }

    /// Lets time pass in steps of a worker that is idle.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        // Long waits in longer steps: nothing comes in between.
        let step = (time / 400).max(Duration::from_millis(100));
        while self.now < end {
            self.now = (self.now + step).min(end);
            self.napt.sweep(self.now);
        }
    }

    /// Lets everything that is over be found.
    pub(crate) fn settle(&mut self) {
        self.pass(Duration::from_secs(5));
    }

    /// Sends a packet of a host out, which must be translated: the packet as it
    /// leaves, its checksums looked at.
    pub(crate) fn out_of(&mut self, host: &InsideHost, packet: &[u8]) -> Vec<u8> {
        let mut bytes = packet.to_vec();
        assert_eq!(self.napt.outbound(&mut bytes, host, self.now), Outcome::Translated(()));
        assert_right(&bytes);
        bytes
    }

    /// The same of the host that has the packet's source.
    pub(crate) fn out(&mut self, packet: &[u8]) -> Vec<u8> {
        self.out_of(&host(sender(packet)), packet)
    }

    /// The external endpoint that a UDP packet from one endpoint to another gets.
    pub(crate) fn external(&mut self, from: Endpoint, to: Endpoint) -> Endpoint {
        source(&self.out(&udp(from, to, b"data")))
    }

    /// Sends a packet in, which must be translated.
    pub(crate) fn inward(&mut self, packet: &[u8]) -> (InsideHost, Vec<u8>) {
        let mut bytes = packet.to_vec();
        match self.napt.inbound(&mut bytes, self.now) {
            Outcome::Translated(host) => {
                assert_right(&bytes);
                (host, bytes)
            }
            other => panic!("{other:?}"),
        }
    }

    /// What becomes of a packet that comes in; it must be as it was unless it was
    /// translated.
    pub(crate) fn try_in(&mut self, packet: &[u8]) -> Outcome<InsideHost> {
        let mut bytes = packet.to_vec();
        let outcome = self.napt.inbound(&mut bytes, self.now);
        assert_eq!(matches!(outcome, Outcome::Translated(_)), bytes != packet);
        outcome
    }

    pub(crate) fn try_out(&mut self, packet: &[u8]) -> Outcome<()> {
        let mut bytes = packet.to_vec();
        let outcome = self.napt.outbound(&mut bytes, &host(sender(packet)), self.now);
        assert_eq!(matches!(outcome, Outcome::Translated(())), bytes != packet);
        outcome
    }

    pub(crate) fn log(&mut self) -> Vec<NatLogRecord> {
        let mut records = Vec::new();
        self.napt.drain_log(|record| {
            records.push(*record);
            true
        });
        records
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.napt.shared().counters.all().find(|(counter, _)| *counter == name).unwrap().1
    }
}

pub(crate) const fn refused<T>(reason: DropReason) -> Outcome<T> {
    Outcome::Refused(reason)
}

/// An IPv4 packet.
pub(crate) fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap();
    let header = Ipv4Header::new(from, to, protocol, 64, len);
    [header.as_bytes(), payload].concat()
}

pub(crate) fn udp(from: Endpoint, to: Endpoint, payload: &[u8]) -> Vec<u8> {
    let ends = ((from.address, from.port), (to.address, to.port));
    let header = UdpHeader::new(ends.0, ends.1, payload).unwrap();
    ip(from.address, to.address, IpProtocol::UDP, &[header.as_bytes(), payload].concat())
}

/// A TCP segment to be made.
#[derive(Clone)]
pub(crate) struct Tcp {
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Tcp {
    pub(crate) fn new(flags: u8, sequence: u32, acknowledgment: u32) -> Self {
        let (options, data) = (Vec::new(), Vec::new());
        Tcp { flags, sequence, acknowledgment, window: 8000, options, data }
    }

    pub(crate) fn between(&self, from: Endpoint, to: Endpoint) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(from.port.to_be_bytes());
        bytes.extend(to.port.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgment.to_be_bytes());
        let words = 5 + self.options.len().div_ceil(4);
        bytes.extend([u8::try_from(words << 4).unwrap(), self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.resize(words * 4, 0);
        bytes.extend(&self.data);
        let len = u16::try_from(bytes.len()).unwrap();
        let sum = Sum::new()
            .add_pseudo_header(from.address, to.address, IpProtocol::TCP.0, len)
            .add_bytes(&bytes)
            .checksum();
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        ip(from.address, to.address, IpProtocol::TCP, &bytes)
    }
}

/// An ICMP query or reply with an identifier.
pub(crate) fn query(
    from: Ipv4Addr,
    to: Ipv4Addr,
    message_type: u8,
    identifier: u16,
    body: &[u8],
) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    icmp(from, to, (message_type, 0), [high, low, 0, 1], body)
}

/// An ICMP error about (the start of) a packet.
pub(crate) fn error(from: Ipv4Addr, to: Ipv4Addr, kind: (u8, u8), about: &[u8]) -> Vec<u8> {
    icmp(from, to, kind, [0, 0, 5, 0], about)
}

fn icmp(from: Ipv4Addr, to: Ipv4Addr, kind: (u8, u8), rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let header = Icmpv4Header::new(kind.0, kind.1, rest, body);
    ip(from, to, IpProtocol::ICMP, &[header.as_bytes(), body].concat())
}

/// The packet in fragments of so many bytes of payload.
pub(crate) fn fragments(packet: &[u8], size: usize, identification: u16) -> Vec<Vec<u8>> {
    let (header, payload) = Ipv4Header::read_from_prefix(packet).unwrap();
    let count = payload.len().div_ceil(size);
    let pieces = payload.chunks(size).enumerate().map(|(index, piece)| {
        let mut header = header;
        header.set_identification(identification);
        header.set_fragment(u16::try_from(index * size).unwrap(), index + 1 < count);
        header.set_total_len(u16::try_from(20 + piece.len()).unwrap());
        header.fill_checksum();
        [header.as_bytes(), piece].concat()
    });
    pieces.collect()
}

/// The fragments put together.
pub(crate) fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    let first = Ipv4Packet::new_checked(&fragments[0]).unwrap();
    for fragment in fragments {
        let part = Ipv4Packet::new_checked(fragment).unwrap();
        assert_eq!(part.header().identification(), first.header().identification());
        assert_eq!(part.header().source(), first.header().source());
        assert_eq!(part.header().destination(), first.header().destination());
        payload.extend(part.payload());
    }
    let header = first.header();
    ip(header.source(), header.destination(), header.protocol(), &payload)
}

/// The address that a packet comes from.
fn sender(packet: &[u8]) -> Ipv4Addr {
    Ipv4Header::read_from_prefix(packet).unwrap().0.source()
}

/// The endpoint that a whole TCP, UDP or ICMP query packet comes from.
pub(crate) fn source(packet: &[u8]) -> Endpoint {
    let (header, port) = ends(packet, 0);
    at(header.source(), port)
}

/// The endpoint that it goes to.
pub(crate) fn destination(packet: &[u8]) -> Endpoint {
    let (header, port) = ends(packet, 2);
    at(header.destination(), port)
}

fn ends(packet: &[u8], offset: usize) -> (Ipv4Header, u16) {
    let (header, _) = Ipv4Header::read_from_prefix(packet).unwrap();
    // The identifier of a query is its only port.
    let offset = if header.protocol() == IpProtocol::ICMP { 4 } else { offset };
    let at = header.header_len() + offset;
    (header, u16::from_be_bytes([packet[at], packet[at + 1]]))
}

/// What an ICMP error quotes.
pub(crate) fn quote(packet: &[u8]) -> &[u8] {
    &packet[28..]
}

/// That every checksum of a whole packet, or of what an ICMP error quotes, is right.
pub(crate) fn assert_right(bytes: &[u8]) {
    let packet = Ipv4Packet::new_checked(bytes).expect("the IPv4 header is right");
    let header = packet.header();
    if header.is_fragment() {
        return;
    }
    let payload = packet.payload();
    let sum = match header.protocol() {
        IpProtocol::UDP if payload[6..8] == [0, 0] => return,
        IpProtocol::ICMP => Sum::new(),
        protocol => Sum::new().add_pseudo_header(
            header.source(),
            header.destination(),
            protocol.0,
            u16::try_from(payload.len()).unwrap(),
        ),
    };
    assert_eq!(sum.add_bytes(payload).checksum(), 0, "the transport's checksum is right");
    if header.protocol() == IpProtocol::ICMP && matches!(payload[0], 3 | 11 | 12) {
        let whole = Ipv4Packet::new_checked(quote(bytes)).is_ok();
        if whole {
            assert_right(quote(bytes));
        }
    }
}
