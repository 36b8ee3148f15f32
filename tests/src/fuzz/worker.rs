//! A worker with random tables: whatever comes, every packet has one verdict, and the
//! short cut does what the general way does.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use homeport_dataplane::config::{DataplaneConfig, PortSetup};
use homeport_dataplane::launch::{self, Control};
use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::port::mem::{MemLink, MemPort};
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
use homeport_wire::{EtherType, EthernetHeader, IpProtocol, Ipv4Header};
use zerocopy::IntoBytes;

const PORTS: u16 = 2;

/// Addresses that mean something to the tables, by a small number.
const fn address(number: u8) -> Ipv4Addr {
    match number % 16 {
        0 => Ipv4Addr::new(10, 0, 1, 2),
        1 => Ipv4Addr::new(10, 0, 2, 2),
        2 => Ipv4Addr::new(203, 0, 113, 1),
        3 => Ipv4Addr::new(10, 0, 1, 255),
        4 => Ipv4Addr::new(192, 0, 2, 9),
        5 => Ipv4Addr::new(224, 0, 0, 11),
        6 => Ipv4Addr::new(172, 16, 2, 2),
        7 => Ipv4Addr::new(172, 16, 2, 3),
        node => Ipv4Addr::new(10, 1, 0, node),
    }
}

const fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 9, last])
}

fn encapsulation(kind: u8) -> Encapsulation {
    match kind % 7 {
        0 => Encapsulation::IpInIp,
        1 => Encapsulation::Minimal,
        2 => Encapsulation::Gre { key: None },
        3 => Encapsulation::Gre { key: Some(7) },
        4 => Encapsulation::Udp { peer_port: 434 },
        5 => Encapsulation::PlainUdp { peer_port: 5000 },
        _ => Encapsulation::Udp { peer_port: 0 },
    }
}

/// A worker, its links and its tables.
struct Rig {
    control: Control,
    worker: Worker,
    links: Vec<MemLink>,
    twins: Vec<MemLink>,
}

impl Rig {
    fn new(fast_path: bool, napt: bool) -> Rig {
        let (mut links, mut twins, mut setups) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..PORTS {
            let own = MacAddress([2, 0, 0, 0, 1, number as u8]);
            let (port, link) = MemPort::new(format!("p{number}"), own, 1500);
            let (twin, twin_link) = MemPort::new(format!("t{number}"), own, 1500);
            let tenant = TenantId(0);
            let queues: Vec<Box<dyn homeport_dataplane::port::Port>> = vec![Box::new(port)];
            setups.push(PortSetup {
                name: format!("p{number}"),
                tenant,
                queues,
                twin: Some(Box::new(twin)),
            });
            links.push(link);
            twins.push(twin_link);
        }
        let napts = match napt {
            true => vec![NaptConfig::new("n", vec![PortId(1)], PortId(0), vec![address(2)])],
            false => Vec::new(),
        };
        let plan = DataplaneConfig {
            bindings: 32,
            visitors: 16,
            locals: 16,
            routes: 32,
            source_routes: 16,
            neighbors: 16,
            buffers: 256,
            // Small, so that one is made in a moment, and full sometimes.
            punt_ring: 1 << 13,
            registration_ring: 1 << 13,
            inject_ring: 1 << 12,
            handover_ring: 1 << 12,
            trace_ring: 1 << 12,
            hash_seed: [1, 2],
            fast_path,
            napts,
            ..DataplaneConfig::default()
        };
        let built = launch::build(&plan, setups);
        let Ok((control, mut workers)) = built else { panic!("no dataplane: {:?}", built.err()) };
        Rig { control, worker: workers.remove(0), links, twins }
    }

    /// One entry of one of the tables, drawn.
    fn entry(&mut self, [what, a, b, c, flags]: [u8; 5]) {
        let tenant = TenantId(0);
        let control = &mut self.control;
        match what % 6 {
            0 => {
                let tunnel = TunnelFlags::default()
                    .with(TunnelFlags::REVERSE, flags & 1 == 0)
                    .with(TunnelFlags::CO_LOCATED, flags & 2 > 0)
                    .with(TunnelFlags::UNPROVEN, flags & 4 > 0)
                    .with(TunnelFlags::BROADCAST, flags & 8 > 0);
                let end = |to| TunnelEnd::new(address(to), encapsulation(c), tunnel);
                let mut ends = vec![end(b)];
                ends.extend((flags & 16 > 0).then(|| end(b.wrapping_add(1))));
                let entry_flags = EntryFlags::SET_DF.with(EntryFlags::CLAMP_MSS, flags & 32 > 0);
                let link = (flags & 64 > 0).then_some(PortId(1));
                let Some(entry) = BindingEntry::new(address(0), ends, link, entry_flags) else {
                    return;
                };
                let key = BindingKey { tenant, home_address: address(a) };
                if control.bindings.install(key, entry).is_ok() {
                    let _ = control.listeners.update(key, Some(&entry));
                }
            }
            1 => {
                let entry = LocalEntry {
                    tenant,
                    home_agent: flags & 1 > 0,
                    care_of_address: flags & 2 > 0,
                    agent: flags & 4 > 0,
                    broadcast: flags & 8 > 0,
                };
                let _ = control.locals.install(LocalKey { address: address(a) }, entry);
            }
            2 => {
                let via = RouteEntry::Via {
                    port: PortId(u16::from(b) % PORTS),
                    gateway: (flags & 1 > 0).then(|| address(c)),
                };
                let _ = control.routes.install(tenant, address(a), flags % 33, via);
            }
            3 => {
                let key = NeighborKey { port: PortId(u16::from(b) % PORTS), address: address(a) };
                let _ = control.neighbors.install(key, NeighborEntry { mac: mac(c % 4) });
            }
            4 => {
                let home_agent = address(b);
                let reverse_tunnel = match flags % 3 {
                    0 => ReverseTunnel::None,
                    1 => ReverseTunnel::Direct,
                    _ => ReverseTunnel::Encapsulating,
                };
                let entry = VisitorEntry {
                    mac: mac(c % 4),
                    port: PortId(1),
                    home_agent,
                    care_of_address: address(1),
                    encapsulation: encapsulation(c),
                    reverse_tunnel,
                    flags: EntryFlags::default(),
                    overlapping: flags & 128 > 0,
                    routes: None,
                    napt: None,
                };
                let key = VisitorKey { tenant, home_address: address(a), home_agent };
                let _ = control.visitors.install(key, entry);
            }
            _ => {
                let key = BindingKey { tenant, home_address: address(a) };
                control.bindings.remove(&key);
                let _ = control.listeners.update(key, None);
            }
        }
    }

    /// Works until nothing is to be done, and gives all that came out.
    fn work(&mut self, now: Instant) -> Vec<(u16, Vec<u8>)> {
        for _ in 0..64 {
            if !self.worker.run_once(now) {
                break;
            }
        }
        let mut out = Vec::new();
        for (number, link) in self.links.iter().chain(&self.twins).enumerate() {
            out.extend(link.take_all().into_iter().map(|frame| (number as u16, frame)));
        }
        let mut buffer = Vec::new();
        while let Some((header, frame)) = self.control.punts.next(&mut buffer) {
            let reason = header.reason().map_or(0, |reason| reason as u16);
            out.push((100 + reason, frame.to_vec()));
        }
        out
    }

    fn counters(&self) -> Vec<u64> {
        let ports = self.control.ports.iter();
        let sum = |count: &dyn Fn(&PortStats) -> u64| -> u64 {
            self.control.ports.iter().map(|port| port.sum(count)).sum()
        };
        assert_eq!(sum(&PortStats::total_in), sum(&PortStats::total_out));
        let dropped = ports.flat_map(|port| {
            DropReason::ALL.iter().map(|reason| port.sum(|stats| stats.dropped(*reason).get()))
        });
        let punted = PuntReason::ALL.iter().map(|reason| sum(&|stats| stats.punted(*reason).get()));
        dropped.chain(punted).collect()
    }
}

/// A frame: some made of packets in packets that could be meant, some of anything.
fn frame(bytes: &mut Unstructured<'_>) -> Result<(usize, Vec<u8>)> {
    let [port, how, source, destination, protocol, depth] = bytes.arbitrary::<[u8; 6]>()?;
    let port = usize::from(port) % usize::from(PORTS);
    let ours = MacAddress([2, 0, 0, 0, 1, port as u8]);
    let len = bytes.len().min(usize::from(bytes.arbitrary::<u8>()?));
    let mut packet = bytes.bytes(len)?.to_vec();
    if how % 8 > 0 {
        for level in 0..=(depth % 3) {
            let protocol = match protocol % 8 {
                _ if level > 0 => IpProtocol::IP_IN_IP,
                0 => IpProtocol::TCP,
                1 => IpProtocol::ICMP,
                2 => IpProtocol::IP_IN_IP,
                3 => IpProtocol::GRE,
                4 => IpProtocol::MINIMAL,
                other => IpProtocol(if other < 7 { 17 } else { protocol }),
            };
            let (from, to) = (source.wrapping_add(level), destination.wrapping_add(level));
            let total = u16::try_from(Ipv4Header::LEN + packet.len()).unwrap_or(u16::MAX);
            let ttl = if how & 8 > 0 { 1 + depth % 4 } else { 64 };
            let mut header = Ipv4Header::new(address(from), address(to), protocol, ttl, total);
            header.set_dont_fragment(how & 16 > 0);
            if how & 32 > 0 && level == 0 {
                header.set_fragment(u16::from(depth / 8) * 8, depth & 4 > 0);
            }
            header.fill_checksum();
            packet.splice(0..0, header.as_bytes().iter().copied());
        }
    }
    let ether_type = if how & 64 > 0 && how % 8 == 0 { EtherType::ARP } else { EtherType::IPV4 };
    let to = if how & 128 > 0 { MacAddress::BROADCAST } else { ours };
    let ethernet = EthernetHeader::new(to, mac(source % 4), ether_type);
    Ok((port, [ethernet.as_bytes(), &packet].concat()))
}

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    let napt = bytes.arbitrary::<bool>()?;
    let (mut fast, mut general) = (Rig::new(true, napt), Rig::new(false, napt));
    let mut now = Instant::now();
    let entries = bytes.arbitrary::<u8>()? % 24;
    for _ in 0..entries {
        let entry = bytes.arbitrary()?;
        fast.entry(entry);
        general.entry(entry);
    }
    while !bytes.is_empty() {
        let [burst, millis, change] = bytes.arbitrary::<[u8; 3]>()?;
        if change % 8 == 0 {
            let entry = bytes.arbitrary()?;
            fast.entry(entry);
            general.entry(entry);
        }
        for _ in 0..=(burst % 36) {
            let (port, frame) = frame(bytes)?;
            for rig in [&fast, &general] {
                if let Some(link) = rig.links.get(port) {
                    link.push(&frame);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        now += Duration::from_millis(u64::from(millis) * 8);
        assert_eq!(fast.work(now), general.work(now));
        assert_eq!(fast.counters(), general.counters());
    }
    Ok(())
}

/// Frames through a worker.
pub(super) fn worker(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}
