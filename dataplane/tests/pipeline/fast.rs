//! The fast path is a short cut, not a second opinion: whatever comes, it does what the
//! general path does.

use homeport_dataplane::TenantId;
use homeport_dataplane::napt::NaptConfig;
use homeport_dataplane::table::binding::{
    BindingEntry, Encapsulation, EntryFlags, TunnelEnd, TunnelFlags,
};
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_wire::{IpProtocol, MOBILE_IP_PORT};
use proptest::prelude::*;

use crate::harness::*;

const HOME_AGENT: &str = "10.0.1.2";
const CARE_OF: &str = "172.16.2.2";
const EXTERNAL: &str = "203.0.113.1";
const HOST: &str = "10.9.0.50";
/// On the link of that host.
const NEIGHBOR: &str = "10.9.0.1";

/// Every address that something is known of, and some that nothing is known of.
const ADDRESSES: [&str; 18] = [
    "192.0.2.2",
    "192.0.2.77",
    "198.51.100.9",
    HOST,
    HOME_AGENT,
    CARE_OF,
    EXTERNAL,
    "10.0.9.9",
    "10.1.0.10",
    "10.1.0.11",
    "10.1.0.12",
    "10.1.0.13",
    "10.1.0.14",
    "10.1.0.15",
    "10.1.0.16",
    "10.1.0.99",
    "224.0.0.11",
    NEIGHBOR,
];

/// Nodes with each kind of tunnel, from 10.1.0.10 on; then what is special.
fn bindings() -> Vec<(String, BindingEntry)> {
    let one = |encapsulation, flags| [(CARE_OF, encapsulation, flags)];
    let plain = TunnelFlags::REVERSE;
    let mut all: Vec<BindingEntry> =
        EVERY.iter().map(|how| binding_of(HOME_AGENT, None, &one(*how, plain))).collect();
    let unproven = plain.with(TunnelFlags::UNPROVEN, true);
    all.push(binding_of(HOME_AGENT, None, &one(Encapsulation::IpInIp, unproven)));
    all.push(binding(HOME_AGENT, &[CARE_OF, "172.16.2.3"]));
    all.push(binding_of(HOME_AGENT, None, &one(Encapsulation::IpInIp, TunnelFlags::default())));
    let end = TunnelEnd::new(ip(CARE_OF), Encapsulation::IpInIp, plain);
    let flags = EntryFlags::SET_DF.with(EntryFlags::CLAMP_MSS, true);
    all.push(BindingEntry::new(ip(HOME_AGENT), [end], None, flags).unwrap());
    all.push(binding_of(HOME_AGENT, None, &one(Encapsulation::Udp { peer_port: 0 }, plain)));
    (10..).map(|n| format!("10.1.0.{n}")).zip(all).collect()
}

pub(crate) fn rig(fast_path: bool, visitors: bool, napt: bool) -> Rig {
    let mut plan = Plan::ports(2);
    plan.config.fast_path = fast_path;
    plan.mtus = vec![1500, 1400];
    if napt {
        let outside = homeport_dataplane::PortId(0);
        let inside = vec![homeport_dataplane::PortId(1)];
        plan.config.napts = vec![NaptConfig::new("n", inside, outside, vec![ip(EXTERNAL)])];
    }
    let mut rig = plan.build();
    rig.home_agent(HOME_AGENT);
    rig.local(EXTERNAL, LocalEntry::default());
    rig.route("0.0.0.0/0", 0, Some("10.0.9.9"));
    rig.route("10.9.0.0/24", 1, None);
    rig.route("172.16.0.0/16", 1, Some(NEIGHBOR));
    rig.neighbor(0, "10.0.9.9", station(1));
    rig.neighbor(1, NEIGHBOR, station(2));
    rig.neighbor(1, HOST, station(3));
    for (home_address, entry) in bindings() {
        rig.bind(&home_address, entry);
    }
    if visitors {
        let entry = visitor(station(4), 1, "10.0.7.7", HOME_AGENT, ReverseTunnel::Direct);
        rig.visit("10.7.0.1", entry);
    }
    rig
}

/// What one frame is made from.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) port: usize,
    ends: (usize, usize),
    protocol: u8,
    ports: (u16, u16),
    ttl: u8,
    tos: u8,
    fragmentable: bool,
    len: usize,
    tunnel: Option<(usize, usize, usize, u8)>,
    damage: Option<(prop::sample::Index, u8)>,
    padding: usize,
    for_us: bool,
}

pub(crate) fn recipe() -> impl Strategy<Value = Recipe> {
    let address = || 0..ADDRESSES.len();
    let protocol = prop_oneof![4 => Just(6u8), 4 => Just(17), 2 => Just(1), 1 => any::<u8>()];
    let udp_port = || prop_oneof![4 => 5000u16..5003, 1 => Just(MOBILE_IP_PORT), 1 => Just(4711)];
    let ttl = prop_oneof![8 => Just(64u8), 1 => 0u8..3];
    let len = prop_oneof![4 => 20usize..60, 1 => 540usize..600, 1 => 1340usize..1480];
    let tunnel = (0..EVERY.len(), address(), address(), prop_oneof![4 => Just(0u8), 1 => 0u8..4]);
    let tos = prop_oneof![4 => Just(0u8), 1 => 0u8..4];
    let damage = (any::<prop::sample::Index>(), any::<u8>());
    let what = (0..2usize, (address(), address()), protocol, (udp_port(), udp_port()), ttl, tos);
    let how = (
        any::<bool>(),
        len,
        prop::option::of(tunnel),
        prop::option::weighted(0.1, damage),
        prop_oneof![4 => Just(0usize), 1 => 1usize..20],
        prop::bool::weighted(0.95),
    );
    (what, how).prop_map(|(what, how)| {
        let (port, ends, protocol, ports, ttl, tos) = what;
        let (fragmentable, len, tunnel, damage, padding, for_us) = how;
        Recipe {
            port,
            ends,
            protocol,
            ports,
            ttl,
            tos,
            fragmentable,
            len,
            tunnel,
            damage,
            padding,
            for_us,
        }
    })
}

impl Recipe {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let (source, destination) = (ADDRESSES[self.ends.0], ADDRESSES[self.ends.1]);
        let mut packet = match IpProtocol(self.protocol) {
            IpProtocol::UDP => Ip::udp(source, destination, self.ports),
            IpProtocol::ICMP => Ip::icmp(source, destination, 8, &[7; 24]),
            protocol => {
                let mut payload = vec![0x11; self.len];
                payload[..2].copy_from_slice(&self.ports.0.to_be_bytes());
                payload[2..4].copy_from_slice(&self.ports.1.to_be_bytes());
                // A TCP header without options: a SYN now and then.
                payload[12..14]
                    .copy_from_slice(&[0x50, if self.len.is_multiple_of(3) { 2 } else { 0x10 }]);
                Ip { protocol, ..Ip::data(source, destination).payload(payload) }
            }
        };
        packet = packet.ttl(self.ttl).tos(self.tos);
        if self.fragmentable {
            packet = packet.fragmentable();
        }
        if let Some((how, source, destination, ecn)) = self.tunnel {
            // Half of them are what the node at the inner source would send.
            let how = EVERY[how];
            let (source, destination) = if self.len.is_multiple_of(2) {
                (CARE_OF, HOME_AGENT)
            } else {
                (ADDRESSES[source], ADDRESSES[destination])
            };
            packet = packet.arriving(how, source, destination).tos(ecn);
        }
        let mac = if self.for_us { port_mac(self.port as u8) } else { station(99) };
        let mut frame = packet.frame(mac, station(1 + self.port as u8));
        frame.resize(frame.len() + self.padding, 0);
        if let Some((at, value)) = &self.damage {
            let at = at.index(frame.len());
            frame[at] = *value;
        }
        frame
    }
}

/// All that shows of what a box did.
pub(crate) fn outcome(rig: &mut Rig) -> String {
    let twins: Vec<_> = (0..2).map(|port| rig.to_kernel(port)).collect();
    let (sent, punts) = (rig.sent(), rig.punts());
    let stats: Vec<_> = (0..2).map(|port| format!("{:?}", rig.stats(port))).collect();
    let napts: Vec<_> =
        rig.control.napts.iter().flat_map(|napt| napt.counters().collect::<Vec<_>>()).collect();
    let punts: Vec<_> = punts.iter().map(|(header, frame)| (header.reason(), frame)).collect();
    format!("{sent:02x?}\n{twins:02x?}\n{punts:02x?}\n{stats:#?}\n{napts:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_goes_where_the_general_path_takes_it(
        visitors: bool, napt: bool,
        bursts in prop::collection::vec(prop::collection::vec(recipe(), 1..40), 1..6),
    ) {
        let (mut fast, mut general) = (rig(true, visitors, napt), rig(false, visitors, napt));
        for burst in bursts {
            for rig in [&mut fast, &mut general] {
                for recipe in &burst {
                    rig.push(recipe.port, &recipe.frame());
                }
                rig.run();
            }
            prop_assert_eq!(outcome(&mut fast), outcome(&mut general), "{:#?}", burst);
        }
    }
}

/// What the test above compares is not one path with itself.
#[test]
fn the_common_packets_do_go_the_fast_way() {
    let mut fast = rig(true, false, false);
    let taken = |rig: &Rig| rig.worker.fast_packets();
    let tenant = TenantId(0);
    assert_eq!(tenant, TENANT);
    let to_nodes = (10..16).map(|n| Ip::data("192.0.2.2", &format!("10.1.0.{n}")));
    let frames: Vec<_> = to_nodes.map(|packet| packet.frame(port_mac(0), station(1))).collect();
    for frame in &frames {
        fast.exchange(0, frame);
    }
    assert_eq!(taken(&fast), 6, "into tunnels");
    for (how, (home_address, _)) in EVERY.iter().zip(bindings()) {
        let inner = Ip::data(&home_address, "192.0.2.2");
        let frame = inner.arriving(*how, CARE_OF, HOME_AGENT).frame(port_mac(1), station(2));
        fast.exchange(1, &frame);
    }
    assert_eq!(taken(&fast), 12, "out of tunnels");
    let through = |to| Ip::data("192.0.2.2", to).frame(port_mac(0), station(1));
    for to in [HOST, NEIGHBOR, HOST] {
        fast.push(0, &through(to));
    }
    fast.run();
    assert_eq!(taken(&fast), 15, "from link to link");
    let stations: Vec<_> = fast.sent().iter().map(|(_, frame)| frame[..6].to_vec()).collect();
    assert_eq!(stations, [3, 2, 3].map(|n| station(n).0), "each to its own station");
    let mut napt = rig(true, false, true);
    let out = Ip::udp(HOST, "192.0.2.2", (4000, 53)).frame(port_mac(1), station(3));
    let opened = only(napt.exchange(1, &out), 0, station(1));
    assert_eq!(taken(&napt), 0, "who opens a session goes the general way");
    napt.exchange(1, &out);
    let external = u16::from_be_bytes([opened.payload[0], opened.payload[1]]);
    let back = Ip::udp("192.0.2.2", EXTERNAL, (53, external)).frame(port_mac(0), station(1));
    only(napt.exchange(0, &back), 1, station(3));
    assert_eq!(taken(&napt), 2, "through a NAPT, both ways");
    let another = Ip::udp(HOST, "192.0.2.2", (4001, 53)).frame(port_mac(1), station(3));
    only(napt.exchange(1, &another), 0, station(1));
    assert_eq!(taken(&napt), 3, "a known host's next session opens on the fast way");
}
