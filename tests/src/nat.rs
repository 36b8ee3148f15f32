//! A hundred mobile nodes behind one NAT, all with one private address, and a home
//! agent on the other side: the real agent and the real dataplane worker, on a
//! virtual clock.
//!
//! ```text
//! node 0   192.168.1.2 ─┐
//! node 1   192.168.1.2 ─┼─ NAT 203.0.113.7 ── core ── home agent 10.0.0.2
//!   …                   │                      └───── correspondent 10.0.0.100
//! node 99  192.168.1.2 ─┘
//! ```
//!
//! The nodes are as small as can be: they register, answer challenges and echo
//! requests, and send back what they get.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_control::kernel::Change;
use homeport_dataplane::port::mem::QUEUE_FRAMES;
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_proto::config::{
    AgentConfig, HomeAgentConfig, HomeNetwork, NatPolicy, NatTraversal, Prefix, Profile,
    TunnelPolicy,
};
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, Message, MessageWriter, RegistrationRequest,
    RequestFlags, UdpTunnelRequest,
};
use homeport_proto::security::{ReplayProtection, SecurityAssociations};
use homeport_proto::{Lifetime, MacAddress, Now, PortId, TenantId};
use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST, Icmpv4Header, Icmpv4Packet};
use homeport_wire::{
    EthernetHeader, IpProtocol, Ipv4Header, Ipv4Packet, TunnelDataHeader, UdpHeader, UdpPacket,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::boxes::{AgentBox, BoxPort, BoxSetup, small_dataplane};
use crate::frame;
use crate::world::{
    CORRESPONDENT, CORRESPONDENT_MAC, HOME_AGENT, box_mac, node_association, now_at,
};

/// How many nodes there are.
pub const NODES: usize = 100;
/// What every node calls its own address.
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// The port that every node registers from, and tunnels from.
const PRIVATE_PORT: u16 = 1434;
/// The NAT's address on the other side.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const NAT_MAC: MacAddress = MacAddress([2, 0, 0, 4, 0, 1]);
const APPLICATION: u16 = 5000;
const TENANT: TenantId = TenantId(0);
const CORE_PORT: PortId = PortId(0);

/// A NAT that maps addresses and ports to its own address (RFC 2663). It lets in
/// only what comes from where something went out to.
#[derive(Debug, Default)]
pub struct Nat {
    /// Outside port by inside link and port.
    mappings: BTreeMap<(usize, u16), u16>,
    given: u16,
    /// What was not let in.
    pub refused: u64,
}

impl Nat {
    /// A packet from an inside link, as it goes out.
    fn outward(&mut self, link: usize, packet: &[u8]) -> Vec<u8> {
        let (header, udp) = udp_of(packet);
        let given = &mut self.given;
        let port = *self.mappings.entry((link, udp.0)).or_insert_with(|| {
            *given += 1;
            40_000 + *given
        });
        frame::udp((OUTSIDE, port), (header.destination(), udp.1), header.ttl - 1, udp.2)
    }

    /// A packet from outside: the link that it is for, and as it goes in.
    fn inward(&mut self, packet: &[u8]) -> Option<(usize, Vec<u8>)> {
        let (header, udp) = udp_of(packet);
        let mapping = self.mappings.iter().find(|(_, port)| **port == udp.1);
        let Some(((link, port), _)) = mapping.filter(|_| header.source() == HOME_AGENT) else {
            self.refused += 1;
            return None;
        };
        let inside = frame::udp((header.source(), udp.0), (PRIVATE, *port), header.ttl - 1, udp.2);
        Some((*link, inside))
    }

    /// Forgets every mapping; the next packet of each gets another port.
    pub fn forget(&mut self) {
        self.mappings.clear();
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its home address.
    pub home_address: Ipv4Addr,
    /// The code of each reply that it got.
    pub codes: Vec<u8>,
    /// What it got out of its tunnel from the correspondent.
    pub got: Vec<Vec<u8>>,
    /// Whether it answers echo requests. What answers none is not there.
    pub answers: bool,
    /// Whether it asks for a UDP tunnel by RFC 3519.
    rfc3519: bool,
    outbox: Vec<Vec<u8>>,
}

impl Node {
    fn send(&mut self, data: &[u8]) {
        self.outbox.push(frame::udp((PRIVATE, PRIVATE_PORT), (HOME_AGENT, 434), 64, data));
    }

    fn register(&mut self, challenge: Option<&[u8]>, now: Now) {
        let request = RegistrationRequest {
            flags: RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL),
            lifetime: Lifetime(600),
            home_address: self.home_address,
            home_agent: HOME_AGENT,
            care_of_address: PRIVATE,
            identification: Identification(now.ntp.0 + self.codes.len() as u64),
        };
        let mut writer = MessageWriter::request(&request);
        let udp = Extension::UdpTunnelRequest(UdpTunnelRequest::default());
        let extension = challenge.map(Extension::Challenge).or(self.rfc3519.then_some(udp));
        if let Some(extension) = extension {
            writer.extension(&extension).expect("it fits");
        }
        let association = node_association(ReplayProtection::default());
        writer.authenticate(AuthenticationKind::MobileHome, &association);
        self.send(&writer.finish());
    }

    /// Sends a packet of its home address through its tunnel.
    pub fn tunnel(&mut self, inner: &[u8]) {
        let header = TunnelDataHeader::new(IpProtocol::IP_IN_IP);
        let header = if self.rfc3519 { header.as_bytes() } else { &[] };
        self.send(&[header, inner].concat());
    }

    fn receive(&mut self, packet: &[u8], now: Now) {
        let (_, (_, _, data)) = udp_of(packet);
        match (data[0], self.rfc3519) {
            (3, _) => {
                let Ok(Message::Reply(reply)) = Message::parse(data) else { panic!("a reply") };
                self.codes.push(reply.body.code.0);
                let challenge = reply.extensions().iter().find_map(|one| match one.extension {
                    Extension::Challenge(challenge) => Some(challenge.to_vec()),
                    _ => None,
                });
                if reply.body.code.0 == 131 {
                    self.register(challenge.as_deref(), now);
                }
            }
            (4, true) => self.receive_inner(&data[4..]),
            (0x45, false) => self.receive_inner(data),
            other => panic!("not what was negotiated: {other:?}"),
        }
    }

    fn receive_inner(&mut self, inner: &[u8]) {
        let packet = Ipv4Packet::new_checked(inner).expect("an IPv4 packet");
        let (source, destination) = (packet.header().source(), packet.header().destination());
        assert_eq!(destination, self.home_address, "another's packet");
        if packet.header().protocol() == IpProtocol::ICMP {
            let icmp = Icmpv4Packet::new_checked(packet.payload()).expect("an ICMP message");
            if icmp.header().message_type == ECHO_REQUEST && self.answers {
                let header = Icmpv4Header::new(ECHO_REPLY, 0, icmp.header().rest, icmp.body());
                let reply = [header.as_bytes(), icmp.body()].concat();
                self.tunnel(&checked(&frame::ipv4(
                    destination,
                    source,
                    IpProtocol::ICMP,
                    64,
                    &reply,
                )));
            }
            return;
        }
        let (_, (from, to, data)) = udp_of(inner);
        self.got.push(data.to_vec());
        let answer = frame::udp((self.home_address, to), (source, from), 64, data);
        self.tunnel(&checked(&answer));
    }
}

/// The world.
pub struct NatWorld {
    /// The home agent.
    pub agent: AgentBox,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What is between.
    pub nat: Nat,
    /// What the correspondent got: from whom, and what.
    pub correspondent: Vec<(Ipv4Addr, Vec<u8>)>,
    /// Bytes that left the home agent for the NAT.
    pub sent_to_nat: usize,
    origin: std::time::Instant,
    elapsed: Duration,
    flying: Vec<Vec<u8>>,
}

impl NatWorld {
    /// Nodes that do what the home agent does about NATs.
    pub fn new(traversal: NatTraversal) -> Self {
        let node = |index: usize| Node {
            home_address: Ipv4Addr::new(10, 1, 0, 10 + index as u8),
            codes: Vec::new(),
            got: Vec::new(),
            answers: true,
            rfc3519: traversal == NatTraversal::Rfc3519,
            outbox: Vec::new(),
        };
        let nodes: Vec<Node> = (0..NODES).map(node).collect();
        NatWorld {
            agent: AgentBox::build(setup(&nodes, traversal), now_at(Duration::ZERO)),
            nodes,
            nat: Nat::default(),
            correspondent: Vec::new(),
            sent_to_nat: 0,
            origin: std::time::Instant::now(),
            elapsed: Duration::from_secs(1),
            flying: Vec::new(),
        }
    }

    /// Every node registers.
    pub fn register(&mut self) {
        let now = now_at(self.elapsed);
        self.nodes.iter_mut().for_each(|node| node.register(None, now));
        self.run_for(Duration::from_millis(20));
    }

    /// The correspondent sends each node something that is its own.
    pub fn speak(&mut self, round: u8) {
        for index in 0..self.nodes.len() {
            let to = (self.nodes[index].home_address, APPLICATION);
            let data = word(round, index);
            let packet = checked(&frame::udp((CORRESPONDENT, APPLICATION), to, 64, &data));
            self.flying.push(frame::ethernet(box_mac(0, 0), CORRESPONDENT_MAC, &packet));
        }
        self.run_for(Duration::from_millis(20));
    }

    /// Lets time pass, a millisecond at a time.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.elapsed + duration;
        while self.elapsed < end {
            self.elapsed += Duration::from_millis(1);
            self.settle();
        }
    }

    /// A frame of anybody on the core.
    pub fn inject(&mut self, packet: &[u8]) {
        self.flying.push(frame::ethernet(box_mac(0, 0), NAT_MAC, packet));
    }

    fn settle(&mut self) {
        let now = now_at(self.elapsed);
        loop {
            for (link, node) in self.nodes.iter_mut().enumerate() {
                for packet in node.outbox.drain(..) {
                    let packet = checked(&self.nat.outward(link, &packet));
                    self.flying.push(frame::ethernet(box_mac(0, 0), NAT_MAC, &packet));
                }
            }
            // No more at once than the port's ring takes.
            let batch = self.flying.len().min(64);
            for frame in self.flying.drain(..batch) {
                self.agent.links()[0].push(&frame);
            }
            self.agent.run(now, self.origin + self.elapsed);
            let sent = self.agent.links()[0].take_all();
            if sent.is_empty() && self.flying.is_empty() {
                return;
            }
            for frame in sent {
                self.deliver(&frame, now);
            }
        }
    }

    fn deliver(&mut self, frame: &[u8], now: Now) {
        let (ethernet, packet) = EthernetHeader::ref_from_prefix(frame).expect("a frame");
        if ethernet.destination == CORRESPONDENT_MAC {
            let (header, (_, _, data)) = udp_of(packet);
            self.correspondent.push((header.source(), data.to_vec()));
        } else if ethernet.destination == NAT_MAC {
            self.sent_to_nat += packet.len();
            if let Some((link, packet)) = self.nat.inward(packet) {
                self.nodes[link].receive(&packet, now);
            }
        }
    }
}

/// What the correspondent tells a node in a round.
pub fn word(round: u8, index: usize) -> Vec<u8> {
    format!("round {round} for node {index}").into_bytes()
}

/// The same packet with its header checksum.
fn checked(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (header, _) = Ipv4Header::mut_from_prefix(&mut packet).expect("a header");
    header.fill_checksum();
    packet
}

/// An IPv4 packet's header, and ports and data of the UDP datagram in it, with
/// everything that can be checked found right.
fn udp_of(packet: &[u8]) -> (Ipv4Header, (u16, u16, &[u8])) {
    let header = *Ipv4Header::ref_from_prefix(packet).expect("a header").0;
    let payload = &packet[Ipv4Header::LEN..usize::from(header.total_len())];
    let udp = UdpPacket::new_checked(payload, header.source(), header.destination());
    let udp = udp.expect("a UDP datagram");
    let ports = (udp.header().source_port(), udp.header().destination_port());
    (header, (ports.0, ports.1, &payload[UdpHeader::LEN..]))
}

fn setup(nodes: &[Node], traversal: NatTraversal) -> BoxSetup {
    let mut security = SecurityAssociations::default();
    for node in nodes {
        let association = node_association(ReplayProtection::default());
        security.insert_mobile_node(node.home_address, association);
    }
    let prefix = |address| Prefix::new(address, 24).expect("24 bits");
    let home_agent = HomeAgentConfig {
        tenant: TENANT,
        address: HOME_AGENT,
        home_networks: vec![HomeNetwork { prefix: prefix(Ipv4Addr::new(10, 1, 0, 0)), link: None }],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_bindings: NODES,
        max_simultaneous: 4,
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        administratively_prohibited: false,
        security,
        require_foreign_home_authentication: false,
        tunnels: TunnelPolicy::default(),
        nat: NatPolicy { traversal, ..NatPolicy::default() },
        mobile_networks: Vec::new(),
        message_strings: false,
        revocation: false,
        assignment: homeport_proto::config::HomeAgentAssignment::default(),
        sessions: homeport_proto::config::SessionPolicy::default(),
    };
    let on_link = Some(RouteEntry::Via { port: CORE_PORT, gateway: None });
    let neighbor = |address, mac| {
        let key = NeighborKey { port: CORE_PORT, address };
        Change::Neighbor(key, Some(NeighborEntry { mac }))
    };
    BoxSetup {
        ports: BoxPort::core_and_access(
            [box_mac(0, 0), box_mac(0, 1)],
            [HOME_AGENT, Ipv4Addr::new(10, 7, 0, 1)],
        ),
        config: AgentConfig { home_agents: vec![home_agent], ..AgentConfig::default() },
        kernel: vec![
            Change::Route(prefix(HOME_AGENT), on_link),
            Change::Route(prefix(OUTSIDE), on_link),
            neighbor(CORRESPONDENT, CORRESPONDENT_MAC),
            neighbor(OUTSIDE, NAT_MAC),
        ],
        seed: [1, 0],
        dataplane: small_dataplane(),
        queue_frames: QUEUE_FRAMES,
    }
}
