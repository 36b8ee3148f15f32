//! Overlapping address realms at a foreign agent: rows S3-11 and S3-13, the
//! protocol's side.

use core::net::Ipv4Addr;

use homeport_proto::config::AgentConfig;
use homeport_proto::config::ForeignAgentConfig;
use homeport_proto::event::{DiscardReason, Event};
use homeport_proto::message::{RegistrationRequest, ReplyCode};
use homeport_proto::{Action, Datagram, Lifetime, MacAddress, PortId};

use crate::support::*;

/// Another home network's agent, which has nodes with the same addresses.
const OTHER_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 7, 2);
const OTHER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x11]);
const SECOND_LINK: PortId = PortId(3);

/// A node that sends from [`NODE`]: its station and its home agent.
#[derive(Clone, Copy)]
struct Guest {
    mac: MacAddress,
    port: PortId,
    home_agent: Ipv4Addr,
}

const FIRST: Guest = Guest { mac: NODE_MAC, port: VISITED, home_agent: HOME_AGENT };
const SECOND: Guest = Guest { mac: OTHER_MAC, port: VISITED, home_agent: OTHER_AGENT };

fn overlapping(config: &mut ForeignAgentConfig) {
    config.overlapping_addresses = true;
    config.links.push((SECOND_LINK, FOREIGN));
}

fn ask(world: &mut World, guest: Guest, asked: &RegistrationRequest) -> Vec<Action> {
    let message = sign(asked);
    let destination = if guest.port == VISITED { FOREIGN_LINK } else { FOREIGN };
    let datagram = Datagram { source_mac: guest.mac, port: guest.port, ..visiting(&message) };
    world.send(&Datagram { destination, ..datagram })
}

fn answer(world: &mut World, home_agent: Ipv4Addr, reply: &[u8]) -> Vec<Action> {
    world.send(&Datagram { destination: FOREIGN, source_port: 434, ..relayed(home_agent, reply) })
}

/// Registers a guest, all the way: the actions of the reply.
fn register(world: &mut World, guest: Guest) -> Vec<Action> {
    let asked = RegistrationRequest { home_agent: guest.home_agent, ..request(world.timestamp()) };
    let relayed = ask(world, guest, &asked);
    assert_eq!(transmits(&relayed)[0].destination, guest.home_agent, "{relayed:?}");
    answer(world, guest.home_agent, &reply_to(&asked, ReplyCode::ACCEPTED, 60))
}

/// Who visits: link-layer address, port and home agent of each.
fn guests(world: &World) -> Vec<(MacAddress, PortId, Ipv4Addr)> {
    let visitors = world.agent.visitors().map(|visitor| visitor.state);
    visitors.map(|state| (state.mac, state.port, state.home_agent)).collect()
}

const fn entry(guest: Guest) -> (MacAddress, PortId, Ipv4Addr) {
    (guest.mac, guest.port, guest.home_agent)
}

/// S3-11: even with one identification, each reply finds the station that asked its
/// home agent, and each visitor goes alone.
// Shows 3024-A.4-g.
#[test]
fn two_nodes_of_different_home_agents_visit_with_one_home_address() {
    let mut world = World::foreign(overlapping);
    let identification = world.timestamp();
    let asked = |guest: Guest| RegistrationRequest {
        home_agent: guest.home_agent,
        ..request(identification)
    };
    for guest in [FIRST, SECOND] {
        let actions = ask(&mut world, guest, &asked(guest));
        assert_eq!(transmits(&actions)[0].destination, guest.home_agent);
    }
    assert_eq!(world.agent.foreign_agents().next().unwrap().pending().count(), 2);
    // A home agent speaks for its own node only.
    let forged = reply_to(&asked(FIRST), ReplyCode::ACCEPTED, 60);
    assert!(transmits(&answer(&mut world, OTHER_AGENT, &forged)).is_empty());
    assert_eq!(world.discarded(DiscardReason::WrongHomeAgent), 1);
    for guest in [SECOND, FIRST] {
        let reply = reply_to(&asked(guest), ReplyCode::ACCEPTED, 60);
        let actions = answer(&mut world, guest.home_agent, &reply);
        let [Action::InstallVisitor(state), ..] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!((state.mac, state.home_agent), (guest.mac, guest.home_agent));
        assert!(state.overlapping);
        assert_eq!(transmits(&actions)[0].link, Some((guest.port, guest.mac)));
    }
    assert_eq!(guests(&world), [entry(FIRST), entry(SECOND)]);
    // Each has a lifetime of its own, and goes alone.
    world.pass(30_000);
    register(&mut world, SECOND);
    let expired: Vec<_> = world.pass(31_000).into_iter().map(|(_, action)| action).collect();
    assert_eq!(expired[0], the_visitor_is_removed());
    assert!(matches!(
        expired[1],
        Action::Event(Event::VisitorExpired { home_agent: HOME_AGENT, .. })
    ));
    assert_eq!(guests(&world), [entry(SECOND)]);
    let away = RegistrationRequest {
        lifetime: Lifetime::ZERO,
        home_agent: OTHER_AGENT,
        ..request(world.timestamp())
    };
    ask(&mut world, SECOND, &away);
    answer(&mut world, OTHER_AGENT, &reply_to(&away, ReplyCode::ACCEPTED, 0));
    assert_eq!(guests(&world), []);
}

/// B-01: 65, before the request is relayed, and also where both are on their way.
#[test]
fn without_overlapping_addresses_a_second_node_with_a_visitors_address_is_denied_with_65() {
    let mut world = World::foreign(|_| {});
    let asked = RegistrationRequest { home_agent: OTHER_AGENT, ..request(world.timestamp()) };
    ask(&mut world, SECOND, &asked);
    register(&mut world, FIRST);
    let denied = answer(&mut world, OTHER_AGENT, &reply_to(&asked, ReplyCode::ACCEPTED, 60));
    assert_eq!(the_reply(&denied).code, ReplyCode::FA_PROHIBITED);
    assert_eq!(transmits(&denied)[0].link, Some((VISITED, OTHER_MAC)));
    world.pass(1_000);
    let again = RegistrationRequest { home_agent: OTHER_AGENT, ..request(world.timestamp()) };
    assert_eq!(the_reply(&ask(&mut world, SECOND, &again)).code, ReplyCode::FA_PROHIBITED);
    assert_eq!(guests(&world), [entry(FIRST)]);
    // The same home agent says that it is the same node, at another station.
    register(&mut world, Guest { mac: OTHER_MAC, ..FIRST });
    assert_eq!(guests(&world), [(OTHER_MAC, VISITED, HOME_AGENT)]);
}

/// The same station with another home agent is the same node: one visitor.
#[test]
fn a_station_that_changes_its_home_agent_stays_one_visitor() {
    for configure in [(|_| {}) as fn(&mut ForeignAgentConfig), overlapping] {
        let mut world = World::foreign(configure);
        register(&mut world, FIRST);
        let changed = Guest { home_agent: OTHER_AGENT, ..FIRST };
        let actions = register(&mut world, changed);
        assert_eq!(actions[0], the_visitor_is_removed());
        assert_eq!(guests(&world), [entry(changed)]);
    }
}

/// S3-11: the link-layer address tells them apart, so nobody takes a visitor's on
/// another link by a home agent of his own.
#[test]
fn a_visitors_link_layer_address_on_another_link_is_denied_with_65() {
    let mut world = World::foreign(overlapping);
    register(&mut world, FIRST);
    let thief = Guest { mac: NODE_MAC, port: SECOND_LINK, home_agent: OTHER_AGENT };
    let asked = RegistrationRequest { home_agent: OTHER_AGENT, ..request(world.timestamp()) };
    assert_eq!(the_reply(&ask(&mut world, thief, &asked)).code, ReplyCode::FA_PROHIBITED);
    // The node itself moves there with its home agent's word.
    let moved = Guest { port: SECOND_LINK, ..FIRST };
    register(&mut world, moved);
    assert_eq!(guests(&world), [entry(moved)]);
}

#[test]
fn visitors_with_one_address_go_when_that_is_allowed_no_longer() {
    let mut world = World::foreign(overlapping);
    register(&mut world, FIRST);
    register(&mut world, SECOND);
    let mut config = foreign_agent_config();
    let now = world.now();
    let alone = |config| AgentConfig { foreign_agents: vec![config], ..AgentConfig::default() };
    world.agent.handle_config(alone(config.clone()), now);
    let removed = world.drain();
    assert_eq!((removed.len(), guests(&world).len()), (2, 0), "{removed:?}");
    // One that is alone stays, and the dataplane is told what may be now.
    register(&mut world, FIRST);
    config.overlapping_addresses = true;
    world.agent.handle_config(alone(config), now);
    let told = world.drain();
    assert!(matches!(told[..], [Action::InstallVisitor(state)] if state.overlapping), "{told:?}");
}
