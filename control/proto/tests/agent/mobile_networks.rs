//! Networks behind mobile routers (RFC 5177) and the profile of today's routers.
//! Row B-10.

use core::net::Ipv4Addr;

use homeport_proto::config::{AgentConfig, HomeAgentConfig, MobileNetwork, Prefix, Profile};
use homeport_proto::message::{
    Extension, MobileNetworkAcknowledgement, MobileNetworkCode, MobileNetworkMode,
    MobileNetworkRequest, RegistrationRequest, RequestFlags,
};
use homeport_proto::{Action, Encapsulation, Lifetime};

use super::support::*;
use super::tunnels::{bytes, co_located, reply, signed};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 0);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 0);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 0);

fn prefix(address: Ipv4Addr) -> Prefix {
    Prefix::new(address, 24).unwrap()
}

fn routers(config: &mut HomeAgentConfig) {
    for (mobile_router, address) in [(NODE, SECOND), (NODE, FIRST), (OTHER_NODE, THEIRS)] {
        config.mobile_networks.push(MobileNetwork { mobile_router, prefix: prefix(address) });
    }
}

fn wants(prefix: Ipv4Addr, prefix_len: u8) -> Extension<'static> {
    Extension::MobileNetworkRequest(MobileNetworkRequest { prefix_len, prefix })
}

fn answered(mode: MobileNetworkMode, code: u8, prefix: Ipv4Addr, prefix_len: u8) -> Vec<u8> {
    let code = MobileNetworkCode(code);
    let answer = MobileNetworkAcknowledgement { mode, code, prefix_len, prefix };
    bytes(Extension::MobileNetworkAcknowledgement(answer))
}

fn networks(actions: &[Action]) -> Vec<Prefix> {
    let mut states = actions.iter().filter_map(|action| match action {
        Action::InstallBinding(state) => Some(state.mobile_networks.clone()),
        _ => None,
    });
    states.next().expect("a binding")
}

fn register(world: &mut World, extensions: &[Extension<'_>]) -> Vec<Action> {
    let asked = co_located(world, CO_LOCATED);
    world.send(&direct(CO_LOCATED, &signed(&asked, extensions)))
}

// Shows 5177-4.2-a, 5177-6.1-b.
#[test]
fn a_router_that_names_no_network_gets_all_of_its_own_and_is_told_them() {
    let mut world = World::home(routers);
    let actions = register(&mut world, &[]);
    let answer = reply(&actions);
    assert_eq!(answer.code, 0);
    let mode = MobileNetworkMode::Implicit;
    assert_eq!(answer.node, [answered(mode, 0, FIRST, 24), answered(mode, 0, SECOND, 24)].concat());
    assert_eq!(networks(&actions), [prefix(FIRST), prefix(SECOND)]);
}

// Shows 5177-6.1-b, 5177-6.2.1-a, 5177-6.3-a, 5177-6.3-b, 5177-6.3-c, 5177-6.6-a, 5177-6.6-d,
// 5177-6.6-e, 5177-10-b, 5177-10-c.
#[test]
fn a_router_that_names_networks_gets_those_that_are_its_own_each_with_its_code() {
    let mut world = World::home(routers);
    let wish = [
        wants(FIRST, 24),
        wants(THEIRS, 24),
        wants(FIRST, 16),
        wants(SECOND, 0),
        wants(SECOND, 33),
    ];
    let actions = register(&mut world, &wish);
    let answer = reply(&actions);
    assert_eq!(answer.code, 0);
    let explicit = |code, prefix, len| answered(MobileNetworkMode::Explicit, code, prefix, len);
    let expected = [
        explicit(0, FIRST, 24),
        explicit(2, THEIRS, 24),
        explicit(2, FIRST, 16),
        explicit(1, SECOND, 0),
        explicit(1, SECOND, 33),
    ];
    assert_eq!(answer.node, expected.concat());
    assert_eq!(networks(&actions), [prefix(FIRST)]);
}

/// §6.3: what a later request does not name is forwarded no more.
// Shows 5177-6.3-e, 5177-6.3-f.
#[test]
fn a_renewal_that_names_other_networks_takes_the_first_ones_away() {
    let mut world = World::home(routers);
    assert_eq!(networks(&register(&mut world, &[wants(FIRST, 24)])), [prefix(FIRST)]);
    assert_eq!(networks(&register(&mut world, &[wants(SECOND, 24)])), [prefix(SECOND)]);
    // Twice the same is once.
    let twice = [wants(FIRST, 24), wants(FIRST, 24)];
    assert_eq!(networks(&register(&mut world, &twice)), [prefix(FIRST)]);
}

// Shows 5177-10-b, 5177-10-c.
#[test]
fn a_request_with_no_right_network_gets_147_and_who_is_no_router_148() {
    let mut world = World::home(routers);
    let actions = register(&mut world, &[wants(THEIRS, 24), wants(SECOND, 33)]);
    let answer = reply(&actions);
    let explicit = |code, prefix, len| answered(MobileNetworkMode::Explicit, code, prefix, len);
    assert_eq!(answer.code, 147);
    assert_eq!(answer.node, [explicit(2, THEIRS, 24), explicit(1, SECOND, 33)].concat());
    assert_eq!(world.agent.bindings().count(), 0);
    let mut world = World::home(|_| {});
    let actions = register(&mut world, &[wants(FIRST, 24)]);
    assert_eq!((reply(&actions).code, reply(&actions).node), (148, Vec::new()));
    assert_eq!(world.agent.bindings().count(), 0);
}

/// What stands behind the authentication is not the router's word.
#[test]
fn a_network_that_was_slipped_in_behind_the_signature_is_not_seen() {
    let mut world = World::home(routers);
    let asked = co_located(&mut world, CO_LOCATED);
    let mut message = signed(&asked, &[wants(FIRST, 24)]);
    message.extend(bytes(wants(SECOND, 24)));
    assert_eq!(networks(&world.send(&direct(CO_LOCATED, &message))), [prefix(FIRST)]);
}

/// §6.7: with a deregistration all of them go, whatever it carries.
// Shows 5177-6.7-a, 5177-6.7-b.
#[test]
fn a_deregistration_ignores_the_networks_that_it_names() {
    let mut world = World::home(routers);
    register(&mut world, &[]);
    let asked =
        RegistrationRequest { lifetime: Lifetime::ZERO, ..co_located(&mut world, CO_LOCATED) };
    let actions = world.send(&direct(CO_LOCATED, &signed(&asked, &[wants(THEIRS, 40)])));
    assert_eq!((reply(&actions).code, reply(&actions).node), (0, Vec::new()));
    assert!(matches!(actions[0], Action::RemoveBinding { home_address: NODE, .. }));
}

#[test]
fn a_network_that_the_config_takes_away_is_forwarded_no_more() {
    let mut world = World::home(routers);
    register(&mut world, &[]);
    let mut config = home_agent_config();
    routers(&mut config);
    config.mobile_networks.retain(|network| network.prefix != prefix(FIRST));
    let config = AgentConfig { home_agents: vec![config], ..AgentConfig::default() };
    world.agent.handle_config(config.clone(), world.now());
    assert_eq!(networks(&world.drain()), [prefix(SECOND)]);
    world.agent.handle_config(config, world.now());
    assert_eq!(world.drain(), [], "nothing has changed");
}

/// Today's routers: SPI 256, 65,534 s, IP in IP or GRE, reverse tunnels, and a
/// registration anew as soon as a link changes.
#[test]
fn the_dmnr_profile_grants_what_todays_mobile_routers_ask_for() {
    for (flags, expected) in [
        (RequestFlags::default(), Encapsulation::IpInIp),
        (RequestFlags::GRE, Encapsulation::Gre { key: None }),
    ] {
        let mut world = World::home(|config| {
            routers(config);
            config.profile = Profile::Dmnr;
            config.max_lifetime = Lifetime(65_534);
        });
        // Thirty registrations within a second, as a train passes masts.
        for index in 0..30u8 {
            let care_of_address = Ipv4Addr::new(198, 51, 100, 1 + index);
            let mut asked = co_located(&mut world, care_of_address);
            asked.lifetime = Lifetime(65_534);
            asked.flags = asked.flags.with(flags);
            let message = signed(&asked, &[]);
            let actions = world.send(&direct(care_of_address, &message));
            assert_eq!(reply(&actions).code, 0);
            let care_of = installed(&actions)[0];
            assert_eq!((care_of.encapsulation, care_of.lifetime), (expected, Lifetime(65_534)));
            assert_eq!(networks(&actions).len(), 2);
            world.millis += 30;
        }
        assert_eq!(world.counters().denials_suppressed, 0);
    }
}
