//! The agents' side of B-03.

use core::net::Ipv4Addr;
use core::time::Duration;

use homeport_proto::config::{AdvertiserConfig, AgentConfig};
use homeport_proto::event::DiscardReason;
use homeport_proto::message::advertisement::AgentFlags;
use homeport_proto::message::{AgentAdvertisement, AgentSolicitation};
use homeport_proto::{Action, Lifetime, MacAddress, Payload};

use crate::support::*;

fn advertising(change: impl FnOnce(&mut AdvertiserConfig)) -> World {
    let mut config = advertiser_config();
    change(&mut config);
    World::new(AgentConfig {
        foreign_agents: vec![foreign_agent_config()],
        advertisers: vec![config],
        ..AgentConfig::default()
    })
}

fn advertisement(action: &Action) -> AgentAdvertisement {
    let Action::Transmit(transmit) = action else { panic!("{action:?}") };
    assert_eq!((transmit.source, transmit.ttl), (FOREIGN_LINK, 1));
    let Payload::Icmp(icmp) = &transmit.payload else { panic!("{action:?}") };
    AgentAdvertisement::parse(icmp).unwrap()
}

fn solicit(world: &mut World, mac: MacAddress, source: Ipv4Addr) -> Vec<Action> {
    let now = world.now();
    let icmp = AgentSolicitation.emit();
    world.agent.handle_solicitation(TENANT, VISITED, mac, source, 1, &icmp, now);
    world.drain()
}

/// RFC 3543 §3.1: flag X is the config's.
// Shows 3543-3.1-a, 3543-4.2-a.
#[test]
fn an_agent_that_takes_part_in_revocations_says_so() {
    for revocation in [true, false] {
        let mut world = advertising(|config| config.revocation = revocation);
        let said = advertisement(&world.pass(1_000)[0].1).mobility.unwrap().flags;
        assert_eq!(said.contains(AgentFlags::REVOCATION), revocation);
    }
}

/// B-03: what is advertised unasked, at once and then with jitter.
// Shows 5944-2.1-b, 5944-2.1-c, 5944-2.1-f, 5944-2.1-g, 5944-2.1.1-b, 5944-2.3-a, 5944-2.3-e,
// 5944-2.3-h, 5944-2.3.1-a, 5944-2.3.2-a, 5944-2.3.2-b.
#[test]
fn advertisements_come_at_the_interval_less_a_jitter() {
    let mut world = advertising(|_| {});
    let all = world.pass(60_000);
    let first = advertisement(&all[0].1);
    let mobility = first.mobility.clone().unwrap();
    assert_eq!((first.code, first.lifetime), (0, 3));
    assert_eq!(first.routers, [(FOREIGN_LINK, 0)]);
    assert_eq!(first.prefix_lengths, [24]);
    assert_eq!((mobility.sequence, mobility.registration_lifetime), (0, Lifetime(300)));
    assert_eq!(mobility.care_of_addresses, [FOREIGN]);
    assert_eq!(mobility.flags, AgentFlags::FOREIGN_AGENT.with(AgentFlags::REVERSE_TUNNEL));
    let Action::Transmit(transmit) = &all[0].1 else { panic!() };
    assert_eq!(transmit.destination, Ipv4Addr::new(224, 0, 0, 1));
    let group = MacAddress([1, 0, 0x5e, 0, 0, 1]);
    assert_eq!(transmit.link, Some((VISITED, group)));
    let times: Vec<u64> = all.iter().map(|(at, _)| *at).collect();
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (750..=1_001).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap != gaps[0]), "{gaps:?}");
    for (index, (_, action)) in all.iter().enumerate() {
        let sequence = advertisement(action).mobility.unwrap().sequence;
        assert_eq!(usize::from(sequence), index);
    }
    assert_eq!(world.counters().advertisements_sent, all.len() as u64);
}

/// B-03: RFC 5944 §2.3.2.
// Shows 5944-2.3.2-b.
#[test]
fn the_sequence_rolls_over_to_256() {
    let mut world = advertising(|config| config.interval = Duration::from_millis(100));
    let mut last = None;
    for _ in 0..0xffff {
        let at = world.agent.poll_timeout().unwrap();
        world.millis = at.0.div_ceil(1_000_000);
        world.agent.handle_timeout(world.now());
        last = world.agent.poll_action();
    }
    assert_eq!(advertisement(&last.unwrap()).mobility.unwrap().sequence, 0xfffe);
    let next: Vec<u16> = world
        .pass(250)
        .iter()
        .map(|(_, action)| advertisement(action).mobility.unwrap().sequence)
        .collect();
    assert_eq!(next[..2], [0xffff, 256]);
}

/// B-03: a node that has just arrived is answered at once, alone, wherever its
/// address comes from.
// Shows 5944-2.1-a, 5944-2.1-d, 5944-2.3-d, 5944-2.3-f.
#[test]
fn a_solicitation_is_answered_at_once_to_the_station_that_asked() {
    let mut world = advertising(|config| config.unsolicited = false);
    assert_eq!(world.agent.poll_timeout(), None);
    for (last, source, destination) in [
        (1, NODE, NODE),
        (2, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
        (3, Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::BROADCAST),
        (4, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST),
    ] {
        let mac = MacAddress([2, 0, 0, 0, 1, last]);
        let actions = solicit(&mut world, mac, source);
        assert_eq!(actions.len(), 1);
        let sequence = advertisement(&actions[0]).mobility.unwrap().sequence;
        assert_eq!(sequence, u16::from(last) - 1, "every advertisement counts");
        let Action::Transmit(transmit) = &actions[0] else { panic!() };
        assert_eq!(transmit.link, Some((VISITED, mac)));
        assert_eq!(transmit.destination, destination);
    }
}

/// B-03: the rate is bounded for one station and for all.
#[test]
fn solicitations_are_answered_at_a_bounded_rate() {
    let mut world = advertising(|config| config.unsolicited = false);
    assert_eq!(solicit(&mut world, NODE_MAC, NODE).len(), 1);
    assert!(transmits(&solicit(&mut world, NODE_MAC, NODE)).is_empty());
    world.pass(500);
    assert_eq!(transmits(&solicit(&mut world, NODE_MAC, NODE)).len(), 1);
    let answered = (0..1_000u16)
        .filter(|index| {
            let [high, low] = index.to_be_bytes();
            let mac = MacAddress([2, 0, 0, 9, high, low]);
            !transmits(&solicit(&mut world, mac, NODE)).is_empty()
        })
        .count();
    assert_eq!(answered, 49);
    assert_eq!(world.discarded(DiscardReason::RateLimited), 952);
}

/// B-03, B-09: what is no solicitation, or none for us.
#[test]
fn wrong_solicitations_are_counted_and_not_answered() {
    let mut world = advertising(|config| config.unsolicited = false);
    let right = AgentSolicitation.emit();
    let mut wrong_sum = right.clone();
    wrong_sum[2] ^= 1;
    let now = world.now();
    let agent = &mut world.agent;
    for cut in 0..right.len() {
        agent.handle_solicitation(TENANT, VISITED, NODE_MAC, NODE, 1, &right[..cut], now);
    }
    agent.handle_solicitation(TENANT, VISITED, NODE_MAC, NODE, 1, &wrong_sum, now);
    agent.handle_solicitation(TENANT, VISITED, MacAddress::BROADCAST, NODE, 1, &right, now);
    agent.handle_solicitation(TENANT, VISITED, NODE_MAC, NODE, 2, &right, now);
    agent.handle_solicitation(TENANT, HOME, NODE_MAC, NODE, 1, &right, now);
    agent.handle_solicitation(TENANT, VISITED, NODE_MAC, FOREIGN_LINK, 1, &right, now);
    assert!(transmits(&world.drain()).is_empty());
    assert_eq!(world.discarded(DiscardReason::Malformed), right.len() as u64 + 2);
    assert_eq!(world.discarded(DiscardReason::BadTtl), 1);
    assert_eq!(world.discarded(DiscardReason::NotServed), 1);
    assert_eq!(world.discarded(DiscardReason::OwnAddress), 1);
}

/// B-03: B and R stand only with F, and B when the foreign agent is full.
// Shows 5944-2.1.1-c, 5944-2.1.1-d, 5944-2.1.1-e, 5944-2.1.1-f, 5944-2.3-g.
#[test]
fn flags_say_what_the_agent_is() {
    let flags_of = |world: &mut World| {
        let actions = solicit(world, NODE_MAC, NODE);
        advertisement(&actions[0]).mobility.unwrap().flags
    };
    let mut home = advertising(|config| {
        config.home_agent = true;
        config.care_of_addresses.clear();
        config.registration_required = true;
        config.reverse_tunnel = false;
    });
    assert_eq!(flags_of(&mut home), AgentFlags::HOME_AGENT);
    let mut foreign = foreign_agent_config();
    foreign.max_visitors = 0;
    let mut config = advertiser_config();
    config.registration_required = true;
    let mut full = World::new(AgentConfig {
        foreign_agents: vec![foreign],
        advertisers: vec![config],
        ..AgentConfig::default()
    });
    let flags = flags_of(&mut full);
    assert!(flags.contains(AgentFlags::BUSY.with(AgentFlags::REGISTRATION_REQUIRED)));
    assert!(flags.contains(AgentFlags::FOREIGN_AGENT));
    // Neither F nor H: nothing to advertise (RFC 5944 §2.1.1).
    let mut neither = advertising(|config| config.care_of_addresses.clear());
    assert!(transmits(&solicit(&mut neither, NODE_MAC, NODE)).is_empty());
    assert_eq!(neither.pass(10_000), []);
}

// Shows 5944-2.1-f.
#[test]
fn the_lifetime_is_three_intervals_in_whole_seconds() {
    for (millis, seconds) in [(200, 1), (1_000, 3), (1_500, 5), (30_000_000, 65_535)] {
        let mut world = advertising(|config| config.interval = Duration::from_millis(millis));
        assert_eq!(advertisement(&world.pass(0)[0].1).lifetime, seconds);
    }
}
