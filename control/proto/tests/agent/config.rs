//! A new configuration takes what was there along, or removes it with actions.

use homeport_proto::config::{AgentConfig, HomeNetwork, Prefix};
use homeport_proto::message::ReplyCode;
use homeport_proto::security::SecurityAssociations;
use homeport_proto::{Action, Lifetime};

use crate::support::*;

fn all() -> AgentConfig {
    let mut foreign_agent = foreign_agent_config();
    foreign_agent.care_of_address = STRANGER;
    AgentConfig {
        home_agents: vec![home_agent_config()],
        foreign_agents: vec![foreign_agent],
        advertisers: vec![advertiser_config()],
    }
}

/// A world with two bindings and a visitor whose home agent is elsewhere.
fn settled() -> World {
    let mut world = World::new(all());
    world.pass(1);
    for home_address in [NODE, OTHER_NODE] {
        let mut asked = request(world.timestamp());
        asked.home_address = home_address;
        assert_eq!(the_code(&world.relay(FOREIGN, &sign(&asked))), 0);
    }
    let mut asked = request(world.timestamp());
    asked.home_agent = ELSEWHERE;
    asked.care_of_address = STRANGER;
    world.visit(&sign(&asked));
    let reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    let mut datagram = relayed(ELSEWHERE, &reply);
    datagram.destination = STRANGER;
    assert_eq!(the_code(&world.send(&datagram)), 0);
    assert_eq!(world.agent.visitors().count(), 1);
    world.pass(5_000);
    world
}

const ELSEWHERE: core::net::Ipv4Addr = core::net::Ipv4Addr::new(192, 0, 2, 77);

fn apply(world: &mut World, config: AgentConfig) -> Vec<Action> {
    let now = world.now();
    world.agent.handle_config(config, now);
    world.drain()
}

#[test]
fn the_same_configuration_changes_nothing() {
    let mut world = settled();
    let (before, timeout) = (world.state(), world.agent.poll_timeout());
    assert_eq!(apply(&mut world, all()), []);
    assert_eq!((world.state(), world.agent.poll_timeout()), (before, timeout));
}

#[test]
fn what_is_no_longer_allowed_is_removed_and_the_rest_stays() {
    let mut world = settled();
    let mut config = all();
    let mut security = SecurityAssociations::default();
    security.insert_mobile_node(OTHER_NODE, mobile_home());
    config.home_agents[0].security = security;
    config.home_agents[0].max_lifetime = Lifetime(30);
    config.foreign_agents[0].links = vec![(HOME, FOREIGN_LINK)];
    assert_eq!(
        apply(&mut world, config),
        [
            Action::RemoveBinding { tenant: TENANT, home_address: NODE },
            Action::RemoveVisitor { tenant: TENANT, home_address: NODE, home_agent: ELSEWHERE },
        ]
    );
    let left: Vec<_> = world.agent.bindings().map(|binding| binding.home_address).collect();
    assert_eq!(left, [OTHER_NODE]);
    assert_eq!(world.agent.visitors().count(), 0);
}

#[test]
fn a_home_network_that_goes_takes_its_bindings_along() {
    let mut world = settled();
    let mut config = all();
    config.home_agents[0].home_networks =
        vec![HomeNetwork { prefix: Prefix::new(NODE, 32).unwrap(), link: Some(HOME) }];
    let actions = apply(&mut world, config);
    assert_eq!(actions, [Action::RemoveBinding { tenant: TENANT, home_address: OTHER_NODE }]);
}

#[test]
fn a_home_network_that_moves_to_another_link_is_installed_and_claimed_there() {
    let mut world = settled();
    let mut config = all();
    config.home_agents[0].home_networks[0].link = Some(CORE);
    let actions = apply(&mut world, config);
    let claim = Action::GratuitousArp { port: CORE, address: NODE, mac: None };
    assert!(matches!(&actions[0], Action::InstallBinding(state) if state.home_link == Some(CORE)));
    assert_eq!(actions[1], claim);
    assert_eq!(actions.len(), 4);
}

#[test]
fn an_agent_that_goes_leaves_nothing_behind() {
    let mut world = settled();
    let actions = apply(&mut world, AgentConfig::default());
    assert_eq!(actions.len(), 3);
    assert_eq!(world.agent.poll_timeout(), None);
    assert!(world.agent.bindings().next().is_none());
    let message = sign(&request(world.timestamp()));
    assert!(transmits(&world.relay(FOREIGN, &message)).is_empty());
}

/// A reload does not reopen the door to replays.
#[test]
fn identifications_stay_accepted_over_a_new_configuration() {
    let mut world = settled();
    let message = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 0);
    apply(&mut world, all());
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 133);
}
