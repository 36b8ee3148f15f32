//! The control core under a storm, on virtual time: real requests by a memory port,
//! the real worker and agents, and only so much of them in each turn.

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_dataplane::config::{DataplaneConfig, PortSetup};
use homeport_dataplane::launch;
use homeport_dataplane::port::mem::{MemLink, MemPort};
use homeport_dataplane::table::hash;
use homeport_dataplane::table::neighbor::{NeighborEntry, NeighborKey};
use homeport_dataplane::table::route::RouteEntry;
use homeport_dataplane::verdict::DropReason;
use homeport_dataplane::worker::Worker;
use homeport_proto::message::{
    AuthenticationKind, Identification, MessageWriter, RegistrationRequest, RequestFlags,
};
use homeport_proto::security::{Algorithm, Key, MobilitySecurityAssociation, Spi};
use homeport_proto::{Lifetime, NtpTime};
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::IntoBytes;

use homeport_dataplane::verdict::PuntReason;
use homeport_proto::{MacAddress, PortId, TenantId};
use std::collections::BTreeMap;

use super::*;

const OURS: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const NODES: u8 = 100;

/// A home agent for [`NODES`] nodes, its worker, its link, and the clocks.
struct Box {
    event_loop: EventLoop,
    worker: Worker,
    link: MemLink,
    now: Now,
    time: std::time::Instant,
}

fn association() -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(256),
        algorithm: Algorithm::HmacMd5,
        key: Key::new(vec![7; 16]),
        replay: Default::default(),
    }
}

const fn home_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, node)
}

const fn care_of_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, node, 9)
}

fn frame(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let ethernet = EthernetHeader::new(OURS, ROUTER_MAC, EtherType::IPV4);
    let len = u16::try_from(Ipv4Header::LEN + payload.len()).unwrap();
    let mut ip = Ipv4Header::new(from, to, protocol, 64, len);
    ip.fill_checksum();
    [ethernet.as_bytes(), ip.as_bytes(), payload].concat()
}

fn request(from: Ipv4Addr, node: Ipv4Addr, lifetime: u16, now: NtpTime) -> Vec<u8> {
    let mut writer = MessageWriter::request(&RegistrationRequest {
        flags: RequestFlags::CO_LOCATED,
        lifetime: Lifetime(lifetime),
        home_address: node,
        home_agent: AGENT,
        care_of_address: from,
        identification: Identification(now.0),
    });
    writer.authenticate(AuthenticationKind::MobileHome, &association());
    let message = writer.finish();
    let udp = UdpHeader::new((from, 434), (AGENT, 434), &message).unwrap();
    frame(from, AGENT, IpProtocol::UDP, &[udp.as_bytes(), &message].concat())
}

impl Box {
    fn new() -> Self {
        let text = format!(
            "[daemon]\nadmin_socket = \"/run/homeport/test.sock\"\n\
             [[port]]\nname = \"a\"\nbackend = \"af_packet\"\ninterface = \"a\"\n\
             addresses = [\"{AGENT}/24\"]\n[[home_agent]]\nname = \"ha\"\naddress = \"{AGENT}\"\n\
             [[home_agent.home_network]]\nprefix = \"10.1.0.0/24\"\n"
        );
        let mut config = Config::parse(&text, std::path::Path::new("test.toml")).unwrap();
        for node in 1..=NODES {
            let security = &mut config.home_agents[0].config.security;
            security.insert_mobile_node(home_address(node), association());
        }
        let (port, link) = MemPort::with_queues("a", OURS, 1500, 8192);
        let port = PortSetup {
            name: "a".into(),
            tenant: TenantId(0),
            queues: vec![std::boxed::Box::new(port)],
            twin: None,
        };
        let plan = DataplaneConfig { registration_ring: 1 << 17, ..DataplaneConfig::default() };
        let (mut control, mut workers) = launch::build(&plan, vec![port]).unwrap();
        let route = RouteEntry::Via { port: PortId(0), gateway: Some(ROUTER) };
        control.routes.install(TenantId(0), Ipv4Addr::UNSPECIFIED, 0, route).unwrap();
        let router = NeighborKey { port: PortId(0), address: ROUTER };
        control.neighbors.install(router, NeighborEntry { mac: ROUTER_MAC }).unwrap();
        let (event_loop, _) = super::tests::event_loop_of(control, config, || {});
        let (now, time) = (clock::now(), std::time::Instant::now());
        Box { event_loop, worker: workers.remove(0), link, now, time }
    }

    /// Lets time pass, the worker work, and the control core take one turn's punts.
    fn turn(&mut self, by: Duration) {
        self.time += by;
        self.now.monotonic = self.now.monotonic + by;
        self.now.ntp = NtpTime(self.now.ntp.0 + by.as_millis() as u64 * 4_294_967);
        while self.worker.run_once(self.time) {}
        self.event_loop.core.take_punts(self.now, self.time);
        self.event_loop.do_timers(self.now);
        while self.worker.run_once(self.time) {}
    }

    /// How many accepting replies, and how many tunnelled packets, have left.
    fn left(&self) -> (usize, usize) {
        let frames = self.link.take_all();
        let is = |frame: &&Vec<u8>, protocol: IpProtocol| frame[23] == protocol.0;
        let accepting = |frame: &&Vec<u8>| is(frame, IpProtocol::UDP) && frame[42 + 1] <= 1;
        let tunnelled = |frame: &&Vec<u8>| is(frame, IpProtocol::IP_IN_IP);
        (frames.iter().filter(accepting).count(), frames.iter().filter(tunnelled).count())
    }

    fn renew(&self, node: u8) {
        let request = request(care_of_address(node), home_address(node), 1, self.now.ntp);
        assert!(self.link.push(&request));
    }

    fn count(&self, reason: DropReason) -> u64 {
        self.event_loop.core.ports.iter().map(|port| port.sum(|s| s.dropped(reason).get())).sum()
    }

    fn expired(&self) -> u64 {
        self.event_loop.core.agent.counters().map(|(_, counters)| counters.bindings_expired).sum()
    }
}

/// Reliability, row 33 and figures 8 and 10: ten times what the control core takes,
/// from everywhere, and junk for a bound node beside it.
#[test]
fn a_storm_of_new_nodes_costs_no_renewal_no_binding_and_no_packet() {
    let mut agent = Box::new();
    let step = Duration::from_millis(20);
    for node in 1..=NODES {
        agent.renew(node);
    }
    agent.turn(step);
    assert_eq!(agent.left().0, usize::from(NODES));
    let flood: Vec<Vec<u8>> = (0..2_560u32)
        .map(|number| {
            let from = Ipv4Addr::from_bits(0x0b00_0001 + (number << 8));
            let node = Ipv4Addr::from_bits(0x0a02_0000 + number);
            request(from, node, 60, agent.now.ntp)
        })
        .collect();
    let data = frame(Ipv4Addr::new(192, 0, 2, 7), home_address(1), IpProtocol::TCP, &[0; 30]);
    let (mut renewed, mut accepted, mut sent, mut tunnelled) = (0, 0, 0, 0);
    // Three lifetimes; each node renews three times in each.
    for turn in 0..150u32 {
        for request in &flood {
            assert!(agent.link.push(request));
        }
        for node in (1..=NODES).filter(|node| u32::from(*node) % 15 == turn % 15) {
            agent.renew(node);
            renewed += 1;
        }
        for _ in 0..20 {
            assert!(agent.link.push(&data));
            sent += 1;
        }
        agent.turn(step);
        let (replies, packets) = agent.left();
        accepted += replies;
        tunnelled += packets;
    }
    assert_eq!((accepted, tunnelled), (renewed, sent));
    assert_eq!(agent.expired(), 0);
    assert!(agent.count(DropReason::PuntQueueFull) > 100_000);
    // Those who flood had their turn all the same.
    let served: u64 = agent
        .event_loop
        .core
        .agent
        .counters()
        .map(|(_, counters)| counters.requests_received)
        .sum();
    assert!(served > 20_000, "{served}");
    // A node that does not renew expires: the storm did not stop the timers.
    for _ in 0..60 {
        agent.turn(step);
    }
    assert_eq!(agent.expired(), u64::from(NODES));
}

/// Reliability, rule 12.
#[test]
fn what_waited_longer_than_a_second_is_shed_and_counted() {
    let mut agent = Box::new();
    agent.renew(1);
    while agent.worker.run_once(agent.time) {}
    // The control core was stopped meanwhile.
    agent.turn(Duration::from_millis(1_002));
    assert_eq!(agent.left().0, 0);
    let shed = agent.event_loop.core.counts.too_old.clone();
    assert_eq!(shed, BTreeMap::from([(PuntReason::Registration, 1)]));
    agent.renew(1);
    while agent.worker.run_once(agent.time) {}
    agent.turn(Duration::from_millis(998));
    assert_eq!(agent.left().0, 1);
}

/// An RX core that is stopped (SIGSTOP) amid a burst: installs go on as long as there
/// are spare entries, then they are kept and tried again, and it is said.
#[test]
fn a_core_that_stands_still_stops_no_registration_and_is_told_of() {
    let mut writer = hash::table::<NeighborKey, NeighborEntry>(16, [1, 2]);
    let mut reader = writer.reader();
    let key = NeighborKey { port: PortId(0), address: ROUTER };
    let entry = |last: u8| NeighborEntry { mac: MacAddress([2, 0, 0, 0, 1, last]) };
    writer.install(key, entry(0)).unwrap();
    let seen = *reader.lookup(&key).unwrap();
    let mut installed = 0;
    while installed < 255 && writer.install(key, entry(installed + 1)).is_ok() {
        installed += 1;
    }
    assert!((16..255).contains(&installed), "{installed}");
    let held = writer.held().unwrap();
    assert_eq!(held.entries, usize::from(installed));
    assert_eq!(seen, entry(0), "what the reader may see is still there");
    assert_eq!(writer.get(&key), Some(&entry(installed)));

    let mut back = held::HeldBack::default();
    let at = |seconds: u64| Instant(seconds * 1_000_000_000);
    for second in 0..4 {
        back.look([writer.held()], at(second));
    }
    assert!(back.is_told());
    assert_eq!(back.totals(at(4)), (held.entries, Duration::from_secs(4)));
    // It goes on: all is free again.
    reader.quiescent();
    back.look([writer.held()], at(5));
    assert!(!back.is_told() && writer.held().is_none());
    writer.install(key, entry(255)).unwrap();
}
