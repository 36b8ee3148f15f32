//! The hosts of a [`World`](crate::world::World): the mobile node with a host
//! around its machine, and a correspondent.

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_control::mobile::encapsulation;
use homeport_control::mobile::forwarding::TunnelEnds;
use homeport_proto::config::{MobileNodeConfig, Prefix};
use homeport_proto::message::RegistrationRequest;
use homeport_proto::mobile_node::{
    Attachment, CoLocated, MobileNode, MobileNodeAction, MobileNodeEvent, RegistrationPath, Session,
};
use homeport_proto::security::SecurityAssociations;
use homeport_proto::{Encapsulation, MacAddress, Now, ReverseTunnel};
use homeport_wire::icmpv4::ROUTER_ADVERTISEMENT;
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Packet, UdpPacket};
use zerocopy::FromBytes;

use crate::boxes::RequestName;
use crate::frame;
use crate::world::{
    CO_LOCATED, CORRESPONDENT, CORRESPONDENT_MAC, HOME_ADDRESS, HOME_AGENT, NODE_MAC, Plan,
    VISITED_3, access_address, box_mac, node_association,
};

/// UDP port of the application on both sides.
const APPLICATION: u16 = 5000;
/// UDP port that the node registers from.
const REGISTRATION: u16 = 1434;
/// How long DHCP takes.
const DHCP: Duration = Duration::from_millis(20);

/// Numbered datagrams that one side received: when, and which.
pub type Arrivals = Vec<(Duration, u64)>;

/// The longest time without an arrival between two moments.
pub fn longest_gap(arrivals: &Arrivals, from: Duration, to: Duration) -> Duration {
    let inside = arrivals.iter().map(|(at, _)| *at).filter(|at| (from..=to).contains(at));
    let times: Vec<Duration> = std::iter::once(from).chain(inside).chain([to]).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Where a node gets a co-located care-of address.
#[derive(Clone, Copy, Debug)]
pub struct CoLocatedPlace {
    /// The segment.
    pub segment: usize,
    /// The address there; its prefix has 24 bits.
    pub address: Ipv4Addr,
    /// The router of the segment; `None` where the home agent is on it.
    pub gateway: Option<Ipv4Addr>,
    /// The station that what goes to the home agent is sent to.
    pub next_hop: MacAddress,
}

/// Who a node is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Its home address.
    pub home_address: Ipv4Addr,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// Where it gets a care-of address of its own.
    pub co_located: CoLocatedPlace,
    /// Whom its application speaks with.
    pub correspondent: Ipv4Addr,
    /// The number that its first datagram counts on from.
    pub first: u64,
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            mac: NODE_MAC,
            home_address: HOME_ADDRESS,
            home_agent: HOME_AGENT,
            co_located: CoLocatedPlace {
                segment: VISITED_3,
                address: CO_LOCATED,
                gateway: Some(access_address(3)),
                next_hop: box_mac(3, 1),
            },
            correspondent: CORRESPONDENT,
            first: 0,
        }
    }
}

/// The mobile node and its host.
pub struct NodeHost {
    /// The machine.
    pub machine: MobileNode,
    /// Who it is.
    pub identity: Identity,
    /// Every event that it told.
    pub events: Vec<MobileNodeEvent>,
    /// What arrived from the correspondent.
    pub arrivals: Arrivals,
    /// Time between datagrams to the correspondent; `None` sends none.
    pub interval: Option<Duration>,
    /// What it sends back a datagram's number as; `None`: it sends nothing back.
    pub echo: Option<fn(u64) -> u64>,
    /// Every registration request that it sent for itself, in order.
    pub requests: Vec<RegistrationRequest>,
    /// The same of its sessions: also what gives all addresses back.
    pub session_requests: Vec<(RequestName, RegistrationRequest)>,
    pub(crate) segment: usize,
    pub(crate) send_at: Option<Duration>,
    pub(crate) lease_at: Option<Duration>,
    pub(crate) outbox: Vec<Vec<u8>>,
    sent: u64,
}

impl NodeHost {
    pub(crate) fn new(plan: &Plan, identity: Identity) -> Self {
        let mut security = SecurityAssociations::default();
        security.insert_agent(identity.home_agent, node_association(plan.replay));
        let config = MobileNodeConfig {
            home_address: identity.home_address,
            home_prefix: Prefix::new(identity.home_address, 24).expect("24 bits"),
            home_agent: identity.home_agent,
            lifetime: plan.lifetime,
            reverse_tunnel: plan.reverse_tunnel,
            co_located: true,
            agent_wait: Duration::from_millis(50),
            encapsulation: homeport_proto::config::PreferredEncapsulation::IpInIp,
            dynamic_home_agent: None,
            nat_traversal: false,
            nai: None,
            session_carriage: homeport_proto::message::SessionCarriage::default(),
            agents_by_nai: std::collections::BTreeSet::new(),
            security,
        };
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&plan.seed.to_be_bytes());
        NodeHost::with_config(config, seed, identity)
    }

    /// The node that is told so about itself.
    pub fn with_config(config: MobileNodeConfig, seed: [u8; 32], identity: Identity) -> Self {
        NodeHost {
            machine: MobileNode::new(config, seed),
            identity,
            events: Vec::new(),
            arrivals: Vec::new(),
            interval: None,
            echo: None,
            requests: Vec::new(),
            session_requests: Vec::new(),
            segment: 0,
            send_at: None,
            lease_at: None,
            outbox: Vec::new(),
            sent: identity.first,
        }
    }

    pub(crate) fn handle_link(&mut self, up: bool, now: Now) {
        self.machine.handle_link(up, now);
        self.do_actions(now);
        if !up {
            // What was not sent before the link went down never is.
            self.outbox.clear();
            self.lease_at = None;
        }
    }

    /// A device is there: it becomes a session of the node, if it is none yet.
    pub fn attach(&mut self, sub_nai: &[u8], wanted: Option<Ipv4Addr>, now: Now) {
        // One that is there, or a node on its way out, is no reason to do anything.
        let _ = self.machine.add_session(sub_nai, wanted, now);
        self.do_actions(now);
    }

    /// A device is gone.
    pub fn detach(&mut self, sub_nai: &[u8], now: Now) {
        self.machine.remove_session(sub_nai, now);
        self.do_actions(now);
    }

    pub(crate) fn run(&mut self, now: Now) {
        let elapsed = Duration::from_nanos(now.monotonic.0);
        if self.lease_at.is_some_and(|at| at <= elapsed) {
            self.lease_at = None;
            let CoLocatedPlace { address, gateway, .. } = self.identity.co_located;
            let lease = CoLocated { address, prefix_len: 24, gateway, lease: None };
            self.machine.handle_co_located(lease, now);
        }
        if self.machine.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            self.machine.handle_timeout(now);
        }
        self.do_actions(now);
        let due = self.send_at.unwrap_or(elapsed);
        match self.interval {
            Some(interval) if due <= elapsed => {
                self.sent += 1;
                let ends = (self.identity.home_address, self.identity.correspondent);
                self.speak(ends, self.sent);
                self.send_at = Some(elapsed + interval);
            }
            Some(_) => {}
            None => self.send_at = None,
        }
    }

    /// Sends a numbered datagram from an address of ours to a correspondent.
    fn speak(&mut self, (from, to): (Ipv4Addr, Ipv4Addr), number: u64) {
        let ends = ((from, APPLICATION), (to, APPLICATION));
        self.forward(from, &frame::udp(ends.0, ends.1, 64, &number.to_be_bytes()));
    }

    /// The addresses that its sessions have.
    pub fn session_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.machine.sessions().filter_map(Session::home_address)
    }

    /// Whether an address is the node's own, or a session's.
    fn is_ours(&self, address: Ipv4Addr) -> bool {
        address == self.identity.home_address || self.session_addresses().any(|one| one == address)
    }

    /// When it has something to do next.
    pub fn next_event(&self) -> Option<Duration> {
        let timeout = self.machine.poll_timeout().map(|at| Duration::from_nanos(at.0));
        [timeout, self.send_at, self.lease_at].into_iter().flatten().min()
    }

    pub(crate) fn receive(&mut self, bytes: &[u8], now: Now) {
        let Ok((header, packet)) = EthernetHeader::ref_from_prefix(bytes) else { return };
        let for_us = header.destination == self.identity.mac || header.destination.is_multicast();
        if for_us && header.ether_type() == EtherType::IPV4 {
            self.receive_packet(packet, header.source, now);
            self.do_actions(now);
        }
    }

    fn receive_packet(&mut self, packet: &[u8], mac: MacAddress, now: Now) {
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return };
        let header = packet.header();
        match header.protocol() {
            IpProtocol::ICMP if packet.payload().first() == Some(&ROUTER_ADVERTISEMENT) => {
                self.machine.handle_advertisement(
                    header.source(),
                    mac,
                    packet.payload(),
                    header.ttl,
                    now,
                );
            }
            // Its own tunnel.
            IpProtocol::IP_IN_IP | IpProtocol::MINIMAL | IpProtocol::GRE => {
                let mut bytes = packet.bytes().to_vec();
                let (is_ours, ends) = (|to| self.is_ours(to), self.tunnel());
                if let Ok(inner) = encapsulation::decapsulate(&mut bytes, is_ours, ends) {
                    self.receive_packet(inner, mac, now);
                }
            }
            IpProtocol::UDP => {
                let Ok(udp) =
                    UdpPacket::new_checked(packet.payload(), header.source(), header.destination())
                else {
                    return;
                };
                match udp.header().destination_port() {
                    REGISTRATION => {
                        self.machine.handle_datagram(
                            header.source(),
                            udp.header().source_port(),
                            udp.payload(),
                            now,
                        );
                    }
                    APPLICATION if self.is_ours(header.destination()) => {
                        note(&mut self.arrivals, now, udp.payload());
                        let number = udp.payload().first_chunk().copied();
                        if let Some((echo, number)) = self.echo.zip(number) {
                            let ends = (header.destination(), header.source());
                            self.speak(ends, echo(u64::from_be_bytes(number)));
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// The tunnel to the home agent, if this is its other end, or the one to a foreign
    /// agent that takes encapsulated packets.
    fn tunnel(&self) -> Option<TunnelEnds> {
        match *self.machine.attachment() {
            Attachment::ForeignAgent { address, style: ReverseTunnel::Encapsulating, .. } => {
                Some(TunnelEnds {
                    local: self.identity.home_address,
                    remote: address,
                    encapsulation: Encapsulation::IpInIp,
                })
            }
            Attachment::CoLocated { co_located, encapsulation, .. } => Some(TunnelEnds {
                local: co_located.address,
                remote: self.identity.home_agent,
                encapsulation,
            }),
            _ => None,
        }
    }

    /// Sends an application's packet as the attachment says.
    fn forward(&mut self, from: Ipv4Addr, packet: &[u8]) {
        let own = self.identity.mac;
        let framed = match *self.machine.attachment() {
            Attachment::None => return,
            Attachment::Home { mac, .. } => frame::ethernet(mac, own, packet),
            Attachment::ForeignAgent { mac, style, .. }
                if style != ReverseTunnel::Encapsulating =>
            {
                frame::ethernet(mac, own, packet)
            }
            Attachment::ForeignAgent { mac, .. } => {
                let Some(outer) = self.encapsulated(from, packet) else { return };
                frame::ethernet(mac, own, &outer)
            }
            Attachment::CoLocated { .. } => {
                let Some(outer) = self.encapsulated(from, packet) else { return };
                frame::ethernet(self.identity.co_located.next_hop, own, &outer)
            }
        };
        self.outbox.push(framed);
    }

    /// A packet in its tunnel.
    fn encapsulated(&self, from: Ipv4Addr, packet: &[u8]) -> Option<Vec<u8>> {
        let ends = self.tunnel()?.of_sender(Some(self.identity.home_address), from);
        let mut buffer = [&[0; encapsulation::ROOM], packet].concat();
        encapsulation::encapsulate(&mut buffer, ends, REGISTRATION, 0).map(<[u8]>::to_vec)
    }

    fn do_actions(&mut self, now: Now) {
        let own = self.identity.mac;
        while let Some(action) = self.machine.poll_action() {
            match action {
                MobileNodeAction::SendSolicitation { icmp } => {
                    let all_routers = Ipv4Addr::new(224, 0, 0, 2);
                    let packet =
                        frame::ipv4(Ipv4Addr::UNSPECIFIED, all_routers, IpProtocol::ICMP, 1, &icmp);
                    self.outbox.push(frame::ethernet(
                        MacAddress::of_multicast(all_routers),
                        own,
                        &packet,
                    ));
                }
                MobileNodeAction::SendRegistration(request) => {
                    let mac = match request.path {
                        RegistrationPath::Link(mac) => mac,
                        RegistrationPath::CoLocated(_) => self.identity.co_located.next_hop,
                    };
                    let sent = RegistrationRequest::parse(&request.bytes).ok();
                    match RequestName::of(&request.bytes).filter(RequestName::is_of_sessions) {
                        Some(name) => {
                            self.session_requests.extend(sent.map(|sent| (name, sent)));
                        }
                        None => self.requests.extend(sent),
                    }
                    let from = (request.source, REGISTRATION);
                    let packet =
                        frame::udp(from, (request.destination, 434), request.ttl, &request.bytes);
                    self.outbox.push(frame::ethernet(mac, own, &packet));
                }
                MobileNodeAction::StartDhcp if self.segment == self.identity.co_located.segment => {
                    self.lease_at = Some(Duration::from_nanos(now.monotonic.0) + DHCP);
                }
                MobileNodeAction::Event(event) => self.events.push(event),
                _ => {}
            }
        }
    }
}

/// A host that knows nothing of mobility.
pub struct Correspondent {
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
    /// The station that its packets to the node are sent to.
    pub next_hop: MacAddress,
    /// The node that it speaks with.
    pub home_address: Ipv4Addr,
    /// What arrived from the node.
    pub arrivals: Arrivals,
    /// Time between datagrams to the node; `None` sends none.
    pub interval: Option<Duration>,
    pub(crate) send_at: Option<Duration>,
    pub(crate) outbox: Vec<Vec<u8>>,
    /// The number of its last datagram.
    pub sent: u64,
}

impl Default for Correspondent {
    fn default() -> Self {
        Correspondent {
            mac: CORRESPONDENT_MAC,
            address: CORRESPONDENT,
            next_hop: box_mac(0, 0),
            home_address: HOME_ADDRESS,
            arrivals: Vec::new(),
            interval: None,
            send_at: None,
            outbox: Vec::new(),
            sent: 0,
        }
    }
}

impl Correspondent {
    pub(crate) fn run(&mut self, elapsed: Duration) {
        let due = self.send_at.unwrap_or(elapsed);
        match self.interval {
            Some(interval) if due <= elapsed => {
                self.sent += 1;
                let data = self.sent.to_be_bytes();
                let ends = ((self.address, APPLICATION), (self.home_address, APPLICATION));
                let packet = frame::udp(ends.0, ends.1, 64, &data);
                self.outbox.push(frame::ethernet(self.next_hop, self.mac, &packet));
                self.send_at = Some(elapsed + interval);
            }
            Some(_) => {}
            None => self.send_at = None,
        }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8], elapsed: Duration) {
        let Ok((header, packet)) = EthernetHeader::ref_from_prefix(bytes) else { return };
        let Ok(packet) = Ipv4Packet::new_checked(packet) else { return };
        let addressed = (packet.header().source(), packet.header().destination());
        if header.destination != self.mac || addressed != (self.home_address, self.address) {
            return;
        }
        if let Ok(udp) = UdpPacket::new_checked(packet.payload(), addressed.0, addressed.1)
            && let Some(number) = udp.payload().first_chunk()
        {
            self.arrivals.push((elapsed, u64::from_be_bytes(*number)));
        }
    }
}

fn note(arrivals: &mut Arrivals, now: Now, data: &[u8]) {
    if let Some(number) = data.first_chunk() {
        arrivals.push((Duration::from_nanos(now.monotonic.0), u64::from_be_bytes(*number)));
    }
}
