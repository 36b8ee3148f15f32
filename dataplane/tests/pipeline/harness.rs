//! A box with memory ports and kernel twins, and the frames to send through it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use homeport_dataplane::launch::{Control, DataplaneConfig, PortSetup, SteeringMode, build};
use homeport_dataplane::port::Port;
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::punt::{InjectHeader, InjectKind, PuntHeader};
use homeport_dataplane::stats::PortStats;
use homeport_dataplane::table::binding::{
    BindingEntry, BindingKey, Encapsulation, EntryFlags, TunnelEnd, TunnelFlags,
};
use homeport_dataplane::table::local::{LocalEntry, LocalKey};
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::table::visitor::{ReverseTunnel, VisitorEntry, VisitorKey};
use homeport_dataplane::verdict::{DropReason, PuntReason};
use homeport_dataplane::worker::Worker;
use homeport_dataplane::{MacAddress, PortId, TenantId};
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::{
    ArpPacket, EtherType, EthernetHeader, IpProtocol, Ipv4Header, Ipv4Packet, MinimalHeader,
    MinimalPacket, SourcedMinimalHeader, UdpHeader,
};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) const TENANT: TenantId = TenantId(0);

/// The MAC of port `number` of a box.
pub(crate) const fn port_mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

/// The MAC of a station.
pub(crate) const fn station(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, number])
}

pub(crate) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// A box under test.
pub(crate) struct Rig {
    pub(crate) control: Control,
    pub(crate) worker: Worker,
    /// The workers behind the first, if there are several.
    pub(crate) others: Vec<Worker>,
    pub(crate) links: Vec<MemLink>,
    /// By port, the links of the queues behind its first.
    pub(crate) more_queues: Vec<Vec<MemLink>>,
    pub(crate) twins: Vec<Option<MemLink>>,
    pub(crate) now: Instant,
}

/// How a rig is made.
pub(crate) struct Plan {
    pub(crate) config: DataplaneConfig,
    pub(crate) mtus: Vec<u16>,
    pub(crate) tenants: Vec<TenantId>,
    pub(crate) twins: bool,
    pub(crate) queue_frames: usize,
    /// How many queues each port has.
    pub(crate) queues: usize,
}

impl Plan {
    pub(crate) fn ports(count: usize) -> Self {
        let config = DataplaneConfig {
            bindings: 64,
            visitors: 64,
            locals: 64,
            routes: 64,
            source_routes: 64,
            neighbors: 64,
            buffers: 1024,
            hash_seed: [1, 2],
            ..DataplaneConfig::default()
        };
        Plan {
            config,
            mtus: vec![1500; count],
            tenants: vec![TENANT; count],
            twins: true,
            queue_frames: 512,
            queues: 1,
        }
    }

    /// The same with so many workers.
    pub(crate) fn workers(&mut self, count: usize, steering: SteeringMode) {
        self.config.cores = vec![None; count];
        self.config.steering = steering;
    }

    pub(crate) fn build(self) -> Rig {
        let (mut links, mut twins, mut setups) = (Vec::new(), Vec::new(), Vec::new());
        let mut more_queues = Vec::new();
        for (number, (mtu, tenant)) in self.mtus.iter().zip(&self.tenants).enumerate() {
            let mac = port_mac(number as u8);
            let name = format!("port{number}");
            let queue = |_| {
                let (port, link) =
                    MemPort::with_queues(name.as_str(), mac, *mtu, self.queue_frames);
                (Box::new(port) as Box<dyn Port>, link)
            };
            let (queues, mut queue_links): (Vec<_>, Vec<_>) = (0..self.queues).map(queue).unzip();
            links.push(queue_links.remove(0));
            more_queues.push(queue_links);
            let (twin, twin_link) = MemPort::with_queues("twin", mac, *mtu, self.queue_frames);
            twins.push(self.twins.then_some(twin_link));
            setups.push(PortSetup {
                name,
                tenant: *tenant,
                queues,
                twin: self.twins.then(|| Box::new(twin) as Box<_>),
            });
        }
        let (control, mut workers) = build(&self.config, setups).unwrap();
        let worker = workers.remove(0);
        Rig { control, worker, others: workers, links, more_queues, twins, now: Instant::now() }
    }
}

impl Rig {
    /// A box with so many ports, each with a twin.
    pub(crate) fn new(ports: usize) -> Self {
        Plan::ports(ports).build()
    }

    pub(crate) fn local(&mut self, address: &str, entry: LocalEntry) {
        self.control.locals.install(LocalKey { address: ip(address) }, entry).unwrap();
    }

    pub(crate) fn home_agent(&mut self, address: &str) {
        self.local(address, LocalEntry { home_agent: true, ..LocalEntry::default() });
    }

    pub(crate) fn foreign_agent(&mut self, address: &str) {
        self.local(
            address,
            LocalEntry { care_of_address: true, agent: true, ..LocalEntry::default() },
        );
    }

    pub(crate) fn route(&mut self, prefix: &str, port: u16, gateway: Option<&str>) {
        let (prefix, len) = prefix.split_once('/').unwrap();
        let entry = RouteEntry::Via { port: PortId(port), gateway: gateway.map(ip) };
        self.control.routes.install(TENANT, ip(prefix), len.parse().unwrap(), entry).unwrap();
    }

    pub(crate) fn neighbor(&mut self, port: u16, address: &str, mac: MacAddress) {
        let key = NeighborKey { port: PortId(port), address: ip(address) };
        self.control.neighbors.install(key, NeighborEntry { mac }).unwrap();
    }

    pub(crate) fn bind(&mut self, home_address: &str, entry: BindingEntry) {
        let key = BindingKey { tenant: TENANT, home_address: ip(home_address) };
        self.control.bindings.install(key, entry).unwrap();
        self.control.listeners.update(key, Some(&entry)).unwrap();
    }

    pub(crate) fn visit(&mut self, home_address: &str, entry: VisitorEntry) {
        let home_agent = entry.home_agent;
        let key = VisitorKey { tenant: TENANT, home_address: ip(home_address), home_agent };
        self.control.visitors.install(key, entry).unwrap();
    }

    /// Puts a frame before a queue of a port.
    pub(crate) fn push_to(&self, port: usize, queue: usize, frame: &[u8]) {
        let queues = std::iter::once(&self.links[port]).chain(&self.more_queues[port]);
        assert!(queues.into_iter().nth(queue).unwrap().push(frame), "the link's queue is full");
    }

    /// Puts a frame before a port.
    pub(crate) fn push(&self, port: usize, frame: &[u8]) {
        assert!(self.links[port].push(frame), "the link's queue is full");
    }

    /// Lets the workers work until nothing is waiting, and adds up every counter.
    pub(crate) fn run(&mut self) {
        while self.turn() {}
        self.check();
    }

    /// One turn of each worker; whether any had something to do.
    pub(crate) fn turn(&mut self) -> bool {
        let now = self.now;
        let workers = std::iter::once(&mut self.worker).chain(&mut self.others);
        workers.fold(false, |busy, worker| worker.run_once(now) | busy)
    }

    /// Lets time pass and the workers work.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.run();
    }

    /// Sends a frame in by a port and returns what leaves by which port.
    pub(crate) fn exchange(&mut self, port: usize, frame: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.push(port, frame);
        self.run();
        self.sent()
    }

    /// Everything that left, by port.
    pub(crate) fn sent(&self) -> Vec<(usize, Vec<u8>)> {
        let more = self.more_queues.iter().enumerate();
        let more = more.flat_map(|(port, links)| links.iter().map(move |link| (port, link)));
        let ports = self.links.iter().enumerate().chain(more);
        ports.flat_map(|(port, link)| link.take_all().into_iter().map(move |f| (port, f))).collect()
    }

    /// What the kernel twin of a port got.
    pub(crate) fn to_kernel(&self, port: usize) -> Vec<Vec<u8>> {
        self.twins[port].as_ref().unwrap().take_all()
    }

    /// Everything that was punted.
    pub(crate) fn punts(&mut self) -> Vec<(PuntHeader, Vec<u8>)> {
        let mut buffer = Vec::new();
        let mut punts = Vec::new();
        while let Some((header, frame)) = self.control.punts.next(&mut buffer) {
            punts.push((header, frame.to_vec()));
        }
        punts
    }

    pub(crate) fn inject(&mut self, port: u16, kind: InjectKind, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).unwrap();
        let header = InjectHeader::new(TENANT, PortId(port), kind, len);
        assert!(self.control.injects.send(header, bytes));
    }

    pub(crate) fn stats(&self, port: usize) -> &PortStats {
        self.control.ports[port].workers().next().unwrap()
    }

    /// How many packets were dropped for a reason, at all ports.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.control.ports.iter().map(|port| port.sum(|stats| stats.dropped(reason).get())).sum()
    }

    pub(crate) fn punted(&self, reason: PuntReason) -> u64 {
        self.control.ports.iter().map(|port| port.sum(|stats| stats.punted(reason).get())).sum()
    }

    /// That this frame is dropped for this reason, once, and nothing comes of it.
    pub(crate) fn assert_drops(&mut self, port: usize, frame: &[u8], reason: DropReason) {
        let before = self.dropped(reason);
        let sent = self.exchange(port, frame);
        assert_eq!(self.dropped(reason), before + 1, "{}\n{}", reason.counter(), self.drops());
        assert_eq!(sent, []);
        for twin in self.twins.iter().flatten() {
            assert_eq!(twin.take_all(), Vec::<Vec<u8>>::new());
        }
    }

    /// What was dropped so far, for a failure's message.
    pub(crate) fn drops(&self) -> String {
        let counts = DropReason::ALL.iter().map(|reason| (reason, self.dropped(*reason)));
        counts.filter(|(_, n)| *n > 0).map(|(r, n)| format!("{} {n}\n", r.counter())).collect()
    }

    /// The conservation law, for each port and worker and in sum; the rings are empty.
    pub(crate) fn check(&self) {
        for port in self.control.ports.iter() {
            for stats in port.workers() {
                assert_eq!(stats.total_in(), stats.total_out(), "{}: {stats:#?}", port.name);
            }
        }
        let sum = |count: fn(&PortStats) -> u64| -> u64 {
            self.control.ports.iter().map(|port| port.sum(count)).sum()
        };
        assert_eq!(sum(|stats| stats.tx.get()), sum(|stats| stats.transmitted.get()));
        assert_eq!(sum(|stats| stats.handed_over.get()), sum(|stats| stats.taken_over.get()));
    }
}

/// A binding with tunnels to these care-of addresses, reverse tunnels granted.
pub(crate) fn binding(home_agent: &str, care_of_addresses: &[&str]) -> BindingEntry {
    let ends: Vec<_> = care_of_addresses
        .iter()
        .map(|address| (*address, Encapsulation::IpInIp, TunnelFlags::REVERSE))
        .collect();
    binding_of(home_agent, None, &ends)
}

/// A binding with these tunnels, and the home link to answer ARP on.
pub(crate) fn binding_of(
    home_agent: &str,
    home_link: Option<u16>,
    tunnels: &[(&str, Encapsulation, TunnelFlags)],
) -> BindingEntry {
    let ends = tunnels
        .iter()
        .map(|(address, encapsulation, flags)| TunnelEnd::new(ip(address), *encapsulation, *flags));
    let link = home_link.map(PortId);
    BindingEntry::new(ip(home_agent), ends, link, EntryFlags::default()).unwrap()
}

/// Every encapsulation, with a port behind a NAT.
pub(crate) const EVERY: [Encapsulation; 6] = [
    Encapsulation::IpInIp,
    Encapsulation::Minimal,
    Encapsulation::Gre { key: None },
    Encapsulation::Gre { key: Some(0xdead_beef) },
    Encapsulation::Udp { peer_port: 4711 },
    Encapsulation::PlainUdp { peer_port: 4711 },
];

/// A visitor at `mac` on `port`.
pub(crate) fn visitor(
    mac: MacAddress,
    port: u16,
    home_agent: &str,
    care_of_address: &str,
    reverse_tunnel: ReverseTunnel,
) -> VisitorEntry {
    VisitorEntry {
        mac,
        port: PortId(port),
        home_agent: ip(home_agent),
        care_of_address: ip(care_of_address),
        encapsulation: Encapsulation::IpInIp,
        reverse_tunnel,
        flags: EntryFlags::default(),
        overlapping: false,
        routes: None,
        napt: None,
    }
}

/// An IPv4 packet to be made.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: IpProtocol,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) fragment: (u16, bool),
    pub(crate) payload: Vec<u8>,
}

impl Ip {
    /// A TCP packet's worth of bytes.
    pub(crate) fn data(source: &str, destination: &str) -> Self {
        Ip {
            source: ip(source),
            destination: ip(destination),
            protocol: IpProtocol::TCP,
            ttl: 64,
            tos: 0,
            dont_fragment: true,
            fragment: (0, false),
            payload: b"twenty bytes of data".to_vec(),
        }
    }

    pub(crate) fn udp(source: &str, destination: &str, ports: (u16, u16)) -> Self {
        let data = b"datagram";
        let ends = ((ip(source), ports.0), (ip(destination), ports.1));
        let header = UdpHeader::new(ends.0, ends.1, data).unwrap();
        let payload = [header.as_bytes(), data].concat();
        Ip { protocol: IpProtocol::UDP, payload, ..Ip::data(source, destination) }
    }

    pub(crate) fn icmp(source: &str, destination: &str, kind: u8, body: &[u8]) -> Self {
        let header = Icmpv4Header::new(kind, 0, [0; 4], body);
        let payload = [header.as_bytes(), body].concat();
        Ip { protocol: IpProtocol::ICMP, payload, ..Ip::data(source, destination) }
    }

    /// This packet in a tunnel.
    pub(crate) fn tunnelled(&self, source: &str, destination: &str) -> Self {
        let tunnel = IpProtocol::IP_IN_IP;
        Ip { protocol: tunnel, payload: self.bytes(), ..Ip::data(source, destination) }
    }

    /// This packet as it arrives here by a tunnel of this kind, byte by byte; the port
    /// of the kind is the other end's, ours is 434.
    pub(crate) fn arriving(&self, how: Encapsulation, source: &str, destination: &str) -> Self {
        self.in_tunnel(how, source, destination, |port| (port, 434))
    }

    /// This packet as it leaves here by a tunnel of this kind.
    pub(crate) fn leaving(&self, how: Encapsulation, source: &str, destination: &str) -> Self {
        self.in_tunnel(how, source, destination, |port| (434, port))
    }

    fn in_tunnel(
        &self,
        how: Encapsulation,
        source: &str,
        destination: &str,
        ports: impl Fn(u16) -> (u16, u16),
    ) -> Self {
        let udp = |port: u16, header: &[u8]| {
            let (from, to) = ports(port);
            let bytes = [header, &self.bytes()].concat();
            let len = u16::try_from(bytes.len() + 8).unwrap();
            [from, to, len, 0].map(u16::to_be_bytes).concat().into_iter().chain(bytes).collect()
        };
        let gre = |header: &[u8]| [header, &self.bytes()].concat();
        let (protocol, payload) = match how {
            Encapsulation::IpInIp => (4, self.bytes()),
            Encapsulation::Gre { key: None } => (47, gre(&[0, 0, 8, 0])),
            Encapsulation::Gre { key: Some(key) } => {
                (47, gre(&[&[0x20, 0, 8, 0][..], &key.to_be_bytes()].concat()))
            }
            Encapsulation::Udp { peer_port } => (17, udp(peer_port, &[4, 4, 0, 0])),
            Encapsulation::PlainUdp { peer_port } => (17, udp(peer_port, &[])),
            Encapsulation::Minimal => {
                let (from, to) = (self.source, self.destination);
                let sourced = SourcedMinimalHeader::new(self.protocol, from, to);
                let short = MinimalHeader::new(self.protocol, to);
                // The source is left out where it is the tunnel's own (RFC 2004 §3).
                let header = if from == ip(source) { short.as_bytes() } else { sourced.as_bytes() };
                let payload = [header, &self.payload].concat();
                let protocol = IpProtocol::MINIMAL;
                let (source, destination) = (ip(source), ip(destination));
                return Ip { protocol, payload, source, destination, ..self.clone() };
            }
        };
        Ip { protocol: IpProtocol(protocol), payload, ..Ip::data(source, destination) }
    }

    pub(crate) fn ttl(self, ttl: u8) -> Self {
        Ip { ttl, ..self }
    }

    pub(crate) fn tos(self, tos: u8) -> Self {
        Ip { tos, ..self }
    }

    pub(crate) fn payload(self, payload: Vec<u8>) -> Self {
        Ip { payload, ..self }
    }

    pub(crate) fn fragmentable(self) -> Self {
        Ip { dont_fragment: false, ..self }
    }

    pub(crate) fn fragment(self, offset: u16, more: bool) -> Self {
        Ip { fragment: (offset, more), dont_fragment: false, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let len = u16::try_from(Ipv4Header::LEN + self.payload.len()).unwrap();
        let mut header =
            Ipv4Header::unsummed(self.source, self.destination, self.protocol, self.ttl, len);
        header.tos = self.tos;
        header.set_dont_fragment(self.dont_fragment);
        header.set_fragment(self.fragment.0, self.fragment.1);
        header.fill_checksum();
        [header.as_bytes(), &self.payload].concat()
    }

    /// The frame of this packet.
    pub(crate) fn frame(&self, to: MacAddress, from: MacAddress) -> Vec<u8> {
        let ethernet = EthernetHeader::new(to, from, EtherType::IPV4);
        [ethernet.as_bytes(), &self.bytes()].concat()
    }

    /// The packet of these bytes.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let packet = Ipv4Packet::new_checked(bytes).unwrap();
        let header = packet.header();
        Ip {
            source: header.source(),
            destination: header.destination(),
            protocol: header.protocol(),
            ttl: header.ttl,
            tos: header.tos,
            dont_fragment: header.dont_fragment(),
            fragment: (header.fragment_offset(), header.more_fragments()),
            payload: packet.payload().to_vec(),
        }
    }

    /// The packet that an error quotes, as far as it does, with the rest of
    /// `packet` behind it.
    pub(crate) fn read_quote(quote: &[u8], packet: &Ip) -> Self {
        let whole = packet.bytes();
        Ip::read(&[quote, &whole[quote.len()..]].concat())
    }

    /// The packet in this tunnelled packet.
    pub(crate) fn inner(&self) -> Self {
        assert_eq!(self.protocol, IpProtocol::IP_IN_IP);
        Ip::read(&self.payload)
    }

    /// The packet in this one, which must have left by a tunnel of this kind.
    pub(crate) fn opened(&self, how: Encapsulation) -> Self {
        let inner = match how {
            Encapsulation::IpInIp => Ip::read(&self.payload),
            Encapsulation::Gre { key: None } => Ip::read(&self.payload[4..]),
            Encapsulation::Gre { key: Some(_) } => Ip::read(&self.payload[8..]),
            Encapsulation::Udp { .. } => Ip::read(&self.payload[12..]),
            Encapsulation::PlainUdp { .. } => Ip::read(&self.payload[8..]),
            Encapsulation::Minimal => {
                let minimal = MinimalPacket::new_checked(&self.payload).unwrap();
                Ip {
                    protocol: minimal.header().protocol(),
                    source: minimal.source().unwrap_or(self.source),
                    destination: minimal.header().destination(),
                    payload: minimal.payload().to_vec(),
                    ..self.clone()
                }
            }
        };
        let (source, destination) = self.ends();
        let again = inner.leaving(how, &source, &destination);
        assert_eq!((again.protocol, &again.payload), (self.protocol, &self.payload), "{how:?}");
        inner
    }

    pub(crate) fn ends(&self) -> (String, String) {
        (self.source.to_string(), self.destination.to_string())
    }
}

/// The link header and the packet of a frame.
pub(crate) fn parse(frame: &[u8]) -> (EthernetHeader, Ip) {
    let (ethernet, rest) = EthernetHeader::ref_from_prefix(frame).unwrap();
    assert_eq!(ethernet.ether_type(), EtherType::IPV4);
    (*ethernet, Ip::read(rest))
}

/// That exactly one frame left, by this port and to this station.
pub(crate) fn only(sent: Vec<(usize, Vec<u8>)>, port: usize, to: MacAddress) -> Ip {
    assert_eq!(sent.len(), 1, "{sent:?}");
    let (by, frame) = &sent[0];
    let (ethernet, packet) = parse(frame);
    assert_eq!((*by, ethernet.destination), (port, to));
    assert_eq!(ethernet.source, port_mac(port as u8));
    packet
}

/// The frame of an ARP packet.
pub(crate) fn arp_frame(to: MacAddress, arp: &ArpPacket) -> Vec<u8> {
    let ethernet = EthernetHeader::new(to, arp.sender_mac, EtherType::ARP);
    [ethernet.as_bytes(), arp.as_bytes()].concat()
}
