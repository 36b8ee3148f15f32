//! In a storm, registration messages take a short cut to their gate: it is no second
//! opinion.

use std::time::Duration;

use homeport_dataplane::TenantId;
use homeport_dataplane::config::RegistrationLimits;
use homeport_dataplane::table::binding::{Encapsulation, TunnelFlags};
use homeport_dataplane::table::local::LocalEntry;
use homeport_dataplane::table::visitor::ReverseTunnel;
use homeport_dataplane::verdict::DropReason;
use homeport_wire::UdpHeader;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::harness::*;

const HOME_AGENT: &str = "10.0.1.2";
const FOREIGN_AGENT: &str = "10.0.2.2";
/// An address of ours without an agent.
const OWN: &str = "10.0.1.9";

/// Where messages come from: from where nodes are, from elsewhere in their networks, from
/// anywhere, from us, from nowhere, and from where nobody is.
const SOURCES: [&str; 10] = [
    "172.16.0.9",
    "172.16.1.9",
    "172.16.1.77",
    "10.1.0.1",
    "192.0.2.1",
    "192.0.2.200",
    HOME_AGENT,
    "10.0.1.77",
    "0.0.0.0",
    "127.0.0.1",
];

/// Whom they name: bound nodes, a neighbour of theirs, a visitor, nobody that is known.
const NODES: [&str; 5] = ["10.1.0.0", "10.1.0.1", "10.1.0.200", "10.7.0.1", "10.9.0.1"];

/// A home agent of a tenant, which the underlay's packets reach and another tenant's not.
const TENANTS_AGENT: &str = "10.0.3.2";

const DESTINATIONS: [&str; 6] =
    [HOME_AGENT, HOME_AGENT, FOREIGN_AGENT, TENANTS_AGENT, OWN, "198.51.100.1"];

/// A message that is to be made, or something like one.
#[derive(Clone, Debug)]
struct Recipe {
    port: usize,
    ends: (usize, usize),
    ports: (u16, u16),
    station: u8,
    kind: u8,
    node: usize,
    len: usize,
    padding: usize,
    damage: Option<(prop::sample::Index, u8)>,
    for_us: bool,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let port = || prop_oneof![8 => Just(434u16), 1 => Just(4711)];
    let kind = prop_oneof![8 => Just(1u8), 4 => Just(3), 1 => Just(4), 1 => any::<u8>()];
    let len = prop_oneof![8 => Just(24usize), 2 => 24usize..120, 2 => 0usize..24];
    let what = (0..2usize, (0..SOURCES.len(), 0..DESTINATIONS.len()), (port(), port()), 7..9u8);
    let damage = prop::option::weighted(0.05, (any::<prop::sample::Index>(), any::<u8>()));
    let how = (kind, 0..NODES.len(), len, 0..20usize, damage, prop::bool::weighted(0.9));
    (what, how).prop_map(|(what, how)| {
        let (port, ends, ports, station) = what;
        let (kind, node, len, padding, damage, for_us) = how;
        Recipe { port, ends, ports, station, kind, node, len, padding, damage, for_us }
    })
}

impl Recipe {
    fn frame(&self) -> Vec<u8> {
        let (source, destination) = (SOURCES[self.ends.0], DESTINATIONS[self.ends.1]);
        let mut data = vec![self.kind, 0, 0, 60];
        data.extend(ip(NODES[self.node]).octets());
        data.resize(200, 0);
        // What follows a short message looks like the rest of a longer one.
        let padding = data[self.len..][..self.padding].to_vec();
        data.truncate(self.len);
        let ends = ((ip(source), self.ports.0), (ip(destination), self.ports.1));
        let udp = UdpHeader::new(ends.0, ends.1, &data).unwrap();
        let packet = Ip::udp(source, destination, self.ports);
        let packet = packet.payload([udp.as_bytes(), &data].concat());
        let mac = if self.for_us { port_mac(self.port as u8) } else { station(99) };
        let mut frame = packet.frame(mac, station(self.station));
        frame.extend(padding);
        if let Some((at, value)) = &self.damage {
            // Behind the link header: a message to a group of stations is none of these.
            let at = 12 + at.index(frame.len() - 12);
            frame[at] = *value;
        }
        frame
    }
}

/// A home agent with two nodes that are away, and a foreign agent with a visitor. A ring
/// for registration messages holds some dozens.
fn rig(short_cut: bool) -> Rig {
    let mut plan = Plan::ports(2);
    plan.config.fast_path = short_cut;
    plan.tenants = vec![TENANT, TenantId(1)];
    plan.config.registrations =
        RegistrationLimits { per_prefix: 40, per_known_prefix: 60, moves_first: 100 };
    plan.config.registration_ring = 1 << 12;
    let mut rig = plan.build();
    rig.home_agent(HOME_AGENT);
    rig.foreign_agent(FOREIGN_AGENT);
    rig.local(OWN, LocalEntry::default());
    let of_another = LocalEntry { tenant: TenantId(2), home_agent: true, ..LocalEntry::default() };
    rig.local(TENANTS_AGENT, of_another);
    rig.route("0.0.0.0/0", 0, Some("10.0.9.9"));
    rig.neighbor(0, "10.0.9.9", station(1));
    for number in 0..2 {
        let care_of = format!("172.16.{number}.9");
        let tunnels = [(care_of.as_str(), Encapsulation::IpInIp, TunnelFlags::REVERSE)];
        rig.bind(&format!("10.1.0.{number}"), binding_of(HOME_AGENT, Some(1), &tunnels));
    }
    let visitor = visitor(station(7), 1, "192.0.2.1", FOREIGN_AGENT, ReverseTunnel::Direct);
    rig.visit("10.7.0.1", visitor);
    rig
}

/// What the control core takes, if it takes so many: each frame with the port, the tenant
/// and the reason that it is told.
fn serve(rig: &mut Rig, count: usize) -> Vec<String> {
    let mut buffer = Vec::new();
    let mut next = || {
        let (header, frame) = rig.control.punts.next(&mut buffer)?;
        let (port, tenant, reason) = (header.port(), header.tenant(), header.reason());
        Some(format!("{port:?} {tenant:?} {reason:?} {frame:02x?}"))
    };
    std::iter::from_fn(&mut next).take(count).collect()
}

/// All that shows of what a box did, but for what the control core has not taken yet.
fn outcome(rig: &mut Rig, served: usize) -> String {
    let twins: Vec<_> = (0..2).map(|port| rig.to_kernel(port)).collect();
    let (sent, served) = (rig.sent(), serve(rig, served));
    let stats: Vec<_> = (0..2).map(|port| format!("{:?}", rig.stats(port))).collect();
    format!("{sent:02x?}\n{twins:02x?}\n{served:#?}\n{stats:#?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn in_a_storm_messages_go_where_the_general_path_takes_them(
        bursts in prop::collection::vec(
            (prop::collection::vec(recipe(), 1..60), 0usize..60, 0u64..60), 4..12),
    ) {
        let (mut short, mut general) = (rig(true), rig(false));
        for (burst, served, time) in bursts {
            for rig in [&mut short, &mut general] {
                for recipe in &burst {
                    rig.push(recipe.port, &recipe.frame());
                }
                rig.advance(Duration::from_millis(time));
            }
            let (short, general) = (outcome(&mut short, served), outcome(&mut general, served));
            prop_assert_eq!(short, general, "{:#?}", burst);
        }
    }
}

/// A request of a bound node from where it is.
const REQUEST: Recipe = Recipe {
    port: 0,
    ends: (0, 0),
    ports: (434, 434),
    station: 7,
    kind: 1,
    node: 0,
    len: 24,
    padding: 0,
    damage: None,
    for_us: true,
};

/// What the test above compares is not one path with itself, and the short cut is for
/// storms alone.
#[test]
fn messages_take_the_short_cut_while_some_are_shed_and_no_longer() {
    let mut rig = rig(true);
    let request = Recipe { ends: (4, 0), node: 4, ..REQUEST };
    let mut taken = |count: usize| {
        (0..count).for_each(|_| rig.push(0, &request.frame()));
        rig.advance(Duration::from_millis(30));
        (rig.worker.surge_packets(), rig.dropped(DropReason::RegistrationRate))
    };
    // The network has a budget of 40.
    assert_eq!(taken(32), (0, 0));
    assert_eq!(taken(32), (0, 23), "nine are within it by now");
    assert_eq!(taken(10).0, 10);
    rig.advance(Duration::from_millis(150));
    let dropped = rig.dropped(DropReason::RegistrationRate);
    (0..5).for_each(|_| rig.push(0, &request.frame()));
    rig.run();
    assert_eq!(rig.dropped(DropReason::RegistrationRate), dropped);
    assert_eq!(rig.worker.surge_packets(), 10, "it is over");
}

/// Link-layer padding behind a message that is cut off is no part of it.
#[test]
fn what_is_cut_off_names_nobody_whatever_follows_it() {
    let mut rig = rig(true);
    let flood = Recipe { ends: (4, 0), node: 4, ..REQUEST };
    (0..50).for_each(|_| rig.push(0, &flood.frame()));
    rig.run();
    serve(&mut rig, 100);
    let mut reason = |len| {
        let before = rig.worker.surge_packets();
        let recipe = Recipe { ends: (0, 0), node: 0, len, padding: 19, ..REQUEST };
        rig.push(0, &recipe.frame());
        rig.run();
        assert_eq!(rig.worker.surge_packets() - before, 1, "it went the general way");
        serve(&mut rig, 1).pop().unwrap()
    };
    assert!(reason(24).contains("Some(Renewal)"));
    assert!(reason(7).contains("Some(Registration)"));
}
