//! Sessions against the real agents: the whole tour. S1-01 to S1-16.

use super::*;
use crate::action::StoredSession;
use crate::config::{AddressPool, AddressRange, SessionPolicy};
use alloc::collections::BTreeMap;

const NAI: &[u8] = b"phone@train.example";
const NAMES: [&[u8]; 3] = [b"camera", b"\x00\xff", b"tablet"];

fn pooled(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, host)
}

/// Whose keys the foreign agents share.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Nobodys,
    /// By its home address.
    TheNodes,
    /// And so with its sessions. They want them, and their challenges answered.
    TheNais,
}

/// A node with a NAI, and a home agent that knows it by that; foreign agents share no keys.
fn lab(replay: ReplayProtection, node: MobileNodeConfig) -> Lab {
    lab_with_keys(replay, node, Keys::Nobodys)
}

fn lab_with_keys(replay: ReplayProtection, node: MobileNodeConfig, keys: Keys) -> Lab {
    let own = Some(node.home_address).filter(|own| !own.is_unspecified());
    let mut security = SecurityAssociations::default();
    security.insert_agent(HOME_AGENT, association(256, replay));
    for agent in [FIRST, SECOND].into_iter().filter(|_| keys != Keys::Nobodys) {
        security.insert_agent(care_of(agent), with_foreign_agent());
    }
    let by_nai = [FIRST, SECOND].into_iter().filter(|_| keys == Keys::TheNais);
    let agents_by_nai = by_nai.map(care_of).collect();
    let node = MobileNodeConfig { nai: Some(NAI.to_vec()), security, agents_by_nai, ..node };
    let mut lab = Lab::with(replay, node.clone(), |config| {
        config.security = SecurityAssociations::default();
        let nai =
            config.security.insert_nai(NAI, own, association(256, replay), Lifetime::INFINITE);
        nai.unwrap();
        config.max_bindings = 2_000;
        config.sessions = SessionPolicy {
            pools: vec![AddressPool {
                name: "train".into(),
                realm: None,
                ranges: vec![AddressRange { first: pooled(100), last: pooled(200) }],
                exclusions: Vec::new(),
            }],
            ..SessionPolicy::default()
        };
    });
    let now = lab.world.now();
    lab.world.node = MobileNode::new(node, [7; 32]);
    for (at, address) in [(1, FIRST), (2, SECOND)] {
        let mut process = foreign_process(address);
        let agent = &mut process.foreign_agents[0];
        if keys != Keys::TheNodes {
            agent.security = SecurityAssociations::default();
        }
        if keys == Keys::TheNais {
            let association = with_foreign_agent();
            agent.security.insert_nai(NAI, None, association, Lifetime::INFINITE).unwrap();
        } else {
            agent.require_mobile_foreign_authentication = false;
            agent.challenge = crate::config::ChallengePolicy::Off;
        }
        lab.agents[at] = Agent::new(process, [9; 32], now);
    }
    lab
}

fn with_sessions(mut lab: Lab) -> Lab {
    for name in NAMES {
        lab.world.input(|node, now| node.add_session(name, None, now).unwrap());
    }
    lab.settle();
    lab
}

impl Lab {
    /// The address of each session, of which each has one.
    fn addresses(&self) -> BTreeMap<Vec<u8>, Ipv4Addr> {
        let sessions = self.world.node.sessions();
        sessions.map(|one| (one.sub_nai().to_vec(), one.home_address().unwrap())).collect()
    }

    /// The care-of address of each home address, as the home agent has it.
    fn bound(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let bindings = self.agents[0].bindings();
        let bound = bindings.map(|one| (one.home_address, one.registrations[0].care_of.registered));
        bound.collect()
    }

    fn all_are(&self, phase: Phase) {
        let phases: Vec<_> = self.world.node.sessions().map(Session::phase).collect();
        assert_eq!((self.world.node.phase(), phases), (phase, vec![phase; 3]));
    }
}

// S1-03, S1-14, S1-16.
#[test]
fn sessions_keep_their_addresses_on_the_whole_tour_and_no_request_is_denied() {
    let styles = [ReplayProtection::default(), ReplayProtection::Nonces];
    let keys = [Keys::Nobodys, Keys::TheNais];
    for (replay, keys) in styles.into_iter().flat_map(|one| keys.map(|keys| (one, keys))) {
        let mut lab = with_sessions(lab_with_keys(replay, config(), keys));
        lab.move_to(Network::Of(1));
        lab.all_are(Phase::Registered);
        let addresses = lab.addresses();
        assert_eq!(addresses.len(), 3);
        assert!(addresses.values().all(|one| (pooled(100)..=pooled(200)).contains(one)));
        let at = |care_of: Ipv4Addr| {
            let own = core::iter::once(HOME);
            own.chain(addresses.values().copied()).map(|one| (one, care_of)).collect()
        };
        assert_eq!(lab.bound(), at(care_of(FIRST)));
        assert_eq!(lab.agents[1].visitors().count(), 4);
        lab.pass(3_000);
        lab.move_to(Network::Of(2));
        lab.all_are(Phase::Registered);
        assert_eq!((lab.addresses(), lab.bound()), (addresses.clone(), at(care_of(SECOND))));
        lab.pass(3_000);
        lab.move_to(Network::Dhcp);
        lab.pass(30);
        lab.all_are(Phase::Registered);
        assert_eq!((lab.addresses(), lab.bound()), (addresses.clone(), at(CO_LOCATED.address)));
        lab.pass(3_000);
        lab.move_to(Network::Of(0));
        lab.all_are(Phase::AtHome);
        assert_eq!((lab.addresses(), lab.bound()), (addresses.clone(), BTreeMap::new()));
        lab.pass(3_000);
        lab.move_to(Network::Of(1));
        assert_eq!((lab.addresses(), lab.bound()), (addresses.clone(), at(care_of(FIRST))));
        assert!(lab.world.discards().is_empty(), "{:?}", lab.world.discards());
        let denied = |one: &Session| one.last_denial().is_some();
        assert!(replay == ReplayProtection::Nonces || !lab.world.node.sessions().any(denied));
    }
}

/// A key that a foreign agent shares with the node is that of its home address: of sessions
/// neither signs for it, nor insists on it.
#[test]
fn foreign_agents_that_share_a_key_with_the_node_take_its_sessions() {
    let replay = ReplayProtection::default();
    let mut lab = with_sessions(lab_with_keys(replay, config(), Keys::TheNodes));
    for network in [1, 2] {
        lab.move_to(Network::Of(network));
        lab.all_are(Phase::Registered);
        assert!(lab.world.discards().is_empty(), "{:?}", lab.world.discards());
        let agent = lab.agents[network].foreign_agents().next().unwrap();
        assert!(agent.config().security.knows_mobile_node(HOME));
        lab.pass(3_000);
    }
}

/// RFC 4721: each session answers for itself, one challenge each, and none is denied.
#[test]
fn where_keys_and_answers_are_wanted_sessions_sign_and_answer_as_the_node_does() {
    let replay = ReplayProtection::default();
    let mut lab = with_sessions(lab_with_keys(replay, config(), Keys::TheNais));
    lab.move_to(Network::Of(1));
    lab.all_are(Phase::Registered);
    let counters = lab.agents[1].counters().next().unwrap().1;
    assert_eq!((counters.foreign_challenges_answered, counters.requests_relayed), (4, 4));
    lab.pass(400_000);
    lab.all_are(Phase::Registered);
    lab.world.input(|node, now| assert!(node.remove_session(NAMES[0], now)));
    lab.settle();
    lab.world.input(MobileNode::handle_stop);
    lab.settle();
    assert!(lab.world.did(&MobileNodeAction::Stopped));
    assert_eq!(lab.agents[1].visitors().count(), 0);
    let counters = lab.agents[1].counters().next().unwrap().1;
    assert_eq!(counters.foreign_challenges_answered, counters.requests_relayed);
    assert!(lab.world.discards().is_empty(), "{:?}", lab.world.discards());
}

#[test]
fn sessions_stay_registered_as_long_as_the_node_does() {
    for (network, keys) in [
        (Network::Of(1), Keys::Nobodys),
        (Network::Of(1), Keys::TheNais),
        (Network::Of(0), Keys::Nobodys),
        (Network::Dhcp, Keys::Nobodys),
    ] {
        let mut lab = with_sessions(lab_with_keys(ReplayProtection::default(), config(), keys));
        lab.move_to(network);
        lab.pass(100);
        let addresses = lab.addresses();
        let (used, bound) = (lab.world.log.len(), lab.bound());
        lab.pass(400_000);
        assert_eq!((lab.addresses(), lab.bound()), (addresses, bound));
        let changes = lab.world.log[used..].iter().filter(|(_, action)| {
            matches!(
                action,
                MobileNodeAction::UseSession { .. } | MobileNodeAction::LoseSession { .. }
            )
        });
        assert_eq!(changes.count(), 0);
        let phase = if network == Network::Of(0) { Phase::AtHome } else { Phase::Registered };
        lab.all_are(phase);
    }
}

fn without_address() -> MobileNodeConfig {
    MobileNodeConfig { home_address: Ipv4Addr::UNSPECIFIED, ..config() }
}

#[test]
fn a_node_without_home_address_is_given_one_beside_its_sessions_and_keeps_it() {
    for replay in [ReplayProtection::default(), ReplayProtection::Nonces] {
        for start in [Network::Of(0), Network::Of(1), Network::Dhcp] {
            let mut lab = with_sessions(lab(replay, without_address()));
            lab.move_to(start);
            lab.pass(3_000);
            let own = lab.world.node.home_address().unwrap();
            assert!((pooled(100)..=pooled(200)).contains(&own));
            let addresses = lab.addresses();
            assert!(!addresses.values().any(|address| *address == own));
            for network in [Network::Of(2), Network::Dhcp, Network::Of(0), Network::Of(1)] {
                lab.move_to(network);
                // Longer than addresses at home are kept for who is not heard of.
                lab.pass(130_000);
                let at_home = network == Network::Of(0);
                lab.all_are(if at_home { Phase::AtHome } else { Phase::Registered });
                assert_eq!(
                    (lab.addresses(), lab.bound().len()),
                    (addresses.clone(), if at_home { 0 } else { 4 })
                );
                assert_eq!(lab.world.node.home_address(), Some(own));
            }
            // Started anew, stopped or not.
            for stops in [true, false] {
                if stops {
                    lab.world.input(MobileNode::handle_stop);
                    lab.settle();
                    assert!(!lab.bound().contains_key(&own));
                }
                let seed = [u8::from(stops); 32];
                let config = lab.world.node.config().clone();
                let config = MobileNodeConfig { home_address: Ipv4Addr::UNSPECIFIED, ..config };
                lab.world.node = MobileNode::new(config, seed);
                lab.pass(2_000);
                lab.move_to(Network::Of(1));
                assert_eq!(lab.world.node.home_address(), Some(own));
                assert_eq!(lab.world.node.phase(), Phase::Registered);
            }
            assert!(lab.world.discards().is_empty(), "{:?}", lab.world.discards());
        }
    }
}

/// A lower limit, and all of them away for longer than they were registered.
#[test]
fn a_session_that_is_one_too_many_keeps_its_address_and_asks_seldom_until_there_is_room() {
    for network in [Network::Of(0), Network::Of(1), Network::Dhcp] {
        let mut lab = with_sessions(lab(ReplayProtection::default(), without_address()));
        lab.move_to(Network::Of(2));
        lab.pass(3_000);
        let (own, addresses) = (lab.world.node.home_address(), lab.addresses());
        let mut process = home_process(ReplayProtection::default());
        process.home_agents[0] = lab.agents[0].home_agents().next().unwrap().config().clone();
        process.home_agents[0].sessions.max_sessions_per_nai = 3;
        let now = lab.now();
        lab.agents[0].handle_config(process, now);
        lab.pass(400_000);
        lab.all_are(Phase::Registered);
        lab.world.link(false);
        lab.network = None;
        lab.pass(400_000);
        assert_eq!(lab.bound().len(), 0);
        lab.move_to(network);
        lab.pass(3_000);
        let with_code = |lab: &Lab| {
            let denied = lab.world.node.sessions().filter(|one| one.phase() == Phase::Denied);
            let denied = denied.map(|one| (one.sub_nai().to_vec(), one.last_denial().unwrap()));
            denied.collect::<Vec<_>>()
        };
        let denied = with_code(&lab);
        let [(name, ReplyCode::HA_INSUFFICIENT_RESOURCES)] = denied.as_slice() else {
            panic!("{network:?}: {denied:?}");
        };
        let refused = |lab: &Lab| lab.agents[0].counters().next().unwrap().1.sessions_over_limit;
        let before = refused(&lab);
        lab.pass(600_000);
        assert_eq!(with_code(&lab), denied);
        assert_eq!((lab.world.node.home_address(), lab.addresses()), (own, addresses.clone()));
        let times = refused(&lab) - before;
        assert!((8..=16).contains(&times), "{times} requests in ten minutes");
        let other = NAMES.into_iter().find(|other| other != name).unwrap();
        lab.world.input(|node, now| assert!(node.remove_session(other, now)));
        lab.pass(80_000);
        assert_eq!(with_code(&lab), []);
        assert_eq!(lab.addresses()[name], addresses[name]);
    }
}

/// The home agent has lost its memory, and what it gave before is not its to give.
#[test]
fn a_node_is_given_another_address_when_its_own_is_anothers() {
    for network in [Network::Of(0), Network::Of(1), Network::Dhcp] {
        let mut lab = with_sessions(lab(ReplayProtection::default(), without_address()));
        lab.move_to(network);
        lab.pass(3_000);
        let before = lab.world.node.home_address().unwrap();
        let mut process = home_process(ReplayProtection::default());
        process.home_agents[0] = lab.agents[0].home_agents().next().unwrap().config().clone();
        process.home_agents[0].sessions.pools[0].ranges =
            vec![AddressRange { first: pooled(220), last: pooled(230) }];
        let now = lab.now();
        lab.agents[0] = Agent::new(process, [8; 32], now);
        lab.pass(100_000);
        let own = lab.world.node.home_address().unwrap();
        assert!((pooled(220)..=pooled(230)).contains(&own), "{own} after {before}");
        lab.all_are(if network == Network::Of(0) { Phase::AtHome } else { Phase::Registered });
        let told = lab.world.log.iter().filter_map(|(_, action)| match action {
            MobileNodeAction::UseHomeAddress(address) => Some(*address),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [Some(before), None, Some(own)]);
    }
}

/// Started anew, and its home agent too, which remembers nothing.
#[test]
fn a_node_that_asks_for_the_address_that_it_had_gets_it_unless_another_has_it() {
    let pool = |lab: &mut Lab, replay, first: u8| {
        let mut process = home_process(replay);
        process.home_agents[0] = lab.agents[0].home_agents().next().unwrap().config().clone();
        process.home_agents[0].sessions.pools[0].ranges =
            vec![AddressRange { first: pooled(first), last: pooled(200) }];
        let now = lab.now();
        lab.agents[0] = Agent::new(process, [8; 32], now);
        lab.pass(1_000);
    };
    let styles = [ReplayProtection::default(), ReplayProtection::Nonces];
    let networks = [Network::Of(0), Network::Of(1), Network::Dhcp];
    for (replay, network) in styles.into_iter().flat_map(|one| networks.map(|it| (one, it))) {
        for keys in [Keys::Nobodys, Keys::TheNais] {
            // Free, another's, and outside the pool.
            for (first, held, expected) in [(90, false, 150), (90, true, 90), (160, false, 160)] {
                let mut lab = lab_with_keys(replay, without_address(), keys);
                pool(&mut lab, replay, first);
                if held {
                    let (nai, sub_nai, home_address) =
                        (NAI.into(), b"a".as_slice().into(), pooled(150));
                    let other = StoredSession { nai, sub_nai, home_address, kept: true };
                    let now = lab.now();
                    assert!(lab.agents[0].restore_session(TENANT, HOME_AGENT, &other, now));
                }
                lab.world.input(|node, _| node.ask_for_home_address(pooled(150)));
                assert_eq!(lab.world.node.home_address(), None);
                lab.move_to(network);
                // Nobody is told of an address that may be another's.
                let announced = |action| lab.world.log.iter().position(|(_, it)| *it == action);
                let used =
                    lab.world.log.iter().position(|(_, it)| {
                        matches!(it, MobileNodeAction::UseHomeAddress(Some(_)))
                    });
                let announced = announced(MobileNodeAction::AnnounceHome);
                assert!(announced.is_none_or(|at| used.is_some_and(|used| used < at)));
                lab.pass(1_000);
                let own = lab.world.node.home_address().unwrap();
                assert_eq!(own, pooled(expected), "{network:?} {replay:?}");
                let told = lab.world.log.iter().filter_map(|(_, action)| match action {
                    MobileNodeAction::UseHomeAddress(address) => Some(*address),
                    _ => None,
                });
                assert_eq!(told.collect::<Vec<_>>(), [Some(own)]);
                assert!(lab.world.discards().is_empty(), "{:?}", lab.world.discards());
            }
        }
    }
}

#[test]
fn a_node_without_home_address_passes_agents_that_want_keys_beside_its_sessions() {
    let home_address = Ipv4Addr::UNSPECIFIED;
    for keys in [Keys::Nobodys, Keys::TheNais] {
        let node = MobileNodeConfig { home_address, ..config() };
        let mut lab = with_sessions(lab_with_keys(ReplayProtection::default(), node, keys));
        lab.move_to(Network::Of(1));
        lab.all_are(Phase::Registered);
        let own = lab.world.node.home_address().unwrap();
        assert!((pooled(100)..=pooled(200)).contains(&own));
        let mut addresses: Vec<_> = lab.addresses().into_values().chain([own]).collect();
        addresses.sort();
        assert_eq!(addresses, lab.bound().into_keys().collect::<Vec<_>>());
        lab.pass(3_000);
        lab.move_to(Network::Of(2));
        lab.all_are(Phase::Registered);
        assert_eq!(lab.world.node.home_address().unwrap(), own);
    }
}

// Shows 5944-3.6.2.3-c.
#[test]
fn a_wrong_clock_costs_sessions_one_denial() {
    let mut lab = with_sessions(lab(ReplayProtection::default(), config()));
    lab.world.node.identifications.learn_clock(
        crate::message::Identification(lab.world.now().ntp.0 + (600 << 32)),
        lab.world.now().ntp,
        Duration::from_secs(7),
    );
    lab.move_to(Network::Of(1));
    lab.all_are(Phase::Registered);
    assert_eq!(lab.world.requests().len(), 8, "each of the four was sent twice");
    assert!(lab.world.node.clock_offset().abs() <= 1);
}

// S1-14.
#[test]
fn what_is_removed_is_the_home_agents_again_and_after_a_stop_all_of_the_node_and_none_of_others() {
    let mut lab = with_sessions(lab(ReplayProtection::default(), config()));
    lab.move_to(Network::Of(1));
    let address = lab.addresses()[NAMES[0]];
    lab.world.input(|node, now| assert!(node.remove_session(NAMES[0], now)));
    lab.settle();
    assert!(!lab.bound().contains_key(&address));
    assert_eq!(lab.agents[1].visitors().count(), 3);
    lab.pass(1_000);
    // Another node of the NAI has sessions here too.
    let others = lab.bound();
    let mut other = MobileNode::new(lab.world.node.config().clone(), [11; 32]);
    core::mem::swap(&mut lab.world.node, &mut other);
    lab.pass(1_000);
    lab.world.input(|node, now| node.add_session(b"other", None, now).unwrap());
    lab.world.link(true);
    lab.settle();
    lab.pass(3_000);
    let others: Vec<_> = lab.bound().into_keys().filter(|one| !others.contains_key(one)).collect();
    assert_eq!(others.len(), 1);
    core::mem::swap(&mut lab.world.node, &mut other);
    lab.world.input(MobileNode::handle_stop);
    lab.settle();
    assert!(lab.world.did(&MobileNodeAction::Stopped));
    assert_eq!(lab.bound().into_keys().collect::<Vec<_>>(), others);
    assert_eq!(lab.agents[1].visitors().count(), 1);
    // Unless somebody wants that.
    core::mem::swap(&mut lab.world.node, &mut other);
    lab.world.input(|node, now| node.remove_all_sessions(now).unwrap());
    lab.settle();
    assert_eq!(lab.bound().into_keys().collect::<Vec<_>>(), [HOME]);
    let left = lab.agents[1].visitors().map(|one| one.state.home_address);
    assert_eq!(left.collect::<Vec<_>>(), [HOME]);
    let live = lab.agents[0].home_agents().next().unwrap();
    assert!(live.sessions(None).iter().all(|one| one.sub_nai.is_empty() || !one.state.is_live()));
}

// S1-16.
#[test]
fn behind_a_nat_sessions_are_registered_by_the_nodes_tunnel() {
    let node = MobileNodeConfig { nat_traversal: true, ..config() };
    for traversal in [NatTraversal::Rfc3519, NatTraversal::Challenge] {
        let mut lab = with_sessions(lab(ReplayProtection::default(), node.clone()));
        let mut process = home_process(ReplayProtection::default());
        let mut agent = lab.agents[0].home_agents().next().unwrap().config().clone();
        agent.nat.traversal = traversal;
        agent.nat.path_validation = false;
        process.home_agents[0] = agent;
        let now = lab.world.now();
        lab.agents[0] = Agent::new(process, [9; 32], now);
        lab.pass(1_000);
        lab.nat = Some((Ipv4Addr::new(10, 0, 9, 9), 61_000));
        lab.move_to(Network::Dhcp);
        lab.pass(100);
        lab.all_are(Phase::Registered);
        assert!(lab.world.node.registration().unwrap().nat);
        assert_eq!(lab.bound().len(), 4);
    }
}
