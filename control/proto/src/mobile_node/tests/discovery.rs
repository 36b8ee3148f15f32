//! Agent discovery and move detection (RFC 5944 §2.4): B-03.

use super::*;
use crate::message::advertisement::AgentFlags;

/// B-03
// Shows 5944-2.4-a.
#[test]
fn a_link_that_comes_up_is_solicited_on_at_once_and_dhcp_is_asked_in_parallel() {
    let world = World::up(config());
    assert_eq!(world.solicitations(), [1_000]);
    assert!(world.did(&MobileNodeAction::StartDhcp));
    let MobileNodeAction::SendSolicitation { icmp } = &world.log[1].1 else { panic!() };
    assert_eq!(icmp[..], [10, 0, 0xf5, 0xff, 0, 0, 0, 0]);
    assert_eq!(world.node.phase(), Phase::Searching);
}

/// B-03: three at one per second, then exponentially slower (RFC 5944 §2.4).
// Shows 5944-2.4-c, 5944-2.4-d, 5944-2.4-e, 5944-2.4-g, 5944-2.4-h.
#[test]
fn solicitations_are_three_in_two_seconds_then_ever_rarer_up_to_a_minute() {
    let mut world = World::up(config());
    world.pass(1_000_000);
    let times = world.solicitations();
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, nominal) in
        gaps.iter().zip([1_000, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000])
    {
        assert!((nominal..=nominal * 11 / 10 + 1).contains(gap), "{gaps:?}");
    }
}

// Shows 5944-2.4-b, 5944-2.4-l.
#[test]
fn an_agent_that_is_heard_ends_the_search() {
    let mut world = World::at(FIRST, config());
    world.pass_hearing(10, &mut [Advertised::foreign(FIRST)]);
    assert_eq!(world.solicitations(), [1_000]);
}

/// B-03: the co-located address is the fall-back.
#[test]
fn a_co_located_address_waits_for_an_agent_and_no_longer() {
    let mut world = World::up(config());
    world.pass(5);
    world.co_located();
    assert_eq!(world.requests().len(), 0, "an agent may still answer");
    world.pass(25);
    let request = world.last();
    assert_eq!(request.at, 1_030);
    assert_eq!(request.send.path, RegistrationPath::CoLocated(CO_LOCATED));
    assert_eq!(request.body.care_of_address, CO_LOCATED.address);
}

/// B-03: foreign agents are preferred.
#[test]
fn an_agent_in_time_makes_the_co_located_address_needless() {
    let mut world = World::up(config());
    world.co_located();
    world.pass(20);
    world.hear(&Advertised::foreign(FIRST));
    world.pass(500);
    assert_eq!(world.requests().len(), 1);
    world.accept(100);
    assert_eq!(world.attachments(), [through(FIRST)]);
    assert!(world.did(&MobileNodeAction::StopDhcp));
}

/// B-03: and what works is kept until what is better works.
// Shows 5944-3.1-b.
#[test]
fn an_agent_that_comes_late_takes_over_from_the_co_located_address_without_a_gap() {
    let mut world = World::up(config());
    world.co_located();
    world.pass(50);
    world.accept(100);
    assert_eq!(world.attachments(), [BY_ITSELF]);
    world.hear(&Advertised::foreign(FIRST));
    assert_eq!(world.attachments(), [BY_ITSELF], "kept until the agent accepts");
    world.accept(100);
    assert_eq!(world.attachments(), [BY_ITSELF, through(FIRST)]);
}

/// RFC 5944 §2.1.1: flag R.
// Shows 5944-2.4.1-a.
#[test]
fn where_registration_with_an_agent_is_required_the_co_located_address_is_not_used() {
    let mut world = World::up(config());
    let flags = Advertised::foreign(FIRST).flags.with(AgentFlags::REGISTRATION_REQUIRED);
    world.hear(&Advertised { flags: flags.with(AgentFlags::BUSY), ..Advertised::foreign(FIRST) });
    world.co_located();
    world.pass(1_000);
    assert_eq!(world.requests().len(), 0);
}

#[test]
fn a_node_without_co_located_mode_never_asks_dhcp() {
    let mut world = World::up(MobileNodeConfig { co_located: false, ..config() });
    world.co_located();
    world.pass(10_000);
    assert!(!world.did(&MobileNodeAction::StartDhcp));
    assert_eq!(world.requests().len(), 0);
}

/// B-03: the home agent's advertisement is home.
#[test]
fn home_is_an_agent_with_flag_h_and_an_address_of_home() {
    let strangers = Advertised { address: FIRST, ..Advertised::home() };
    let without_flag = Advertised { flags: AgentFlags::FOREIGN_AGENT, ..Advertised::home() };
    for stranger in [strangers, without_flag] {
        let mut world = World::up(config());
        world.hear(&stranger);
        assert!(world.attachments().is_empty());
    }
    let itself = Advertised { address: HOME_AGENT, ..Advertised::home() };
    for home in [Advertised::home(), itself] {
        let mut world = World::up(config());
        world.hear(&home);
        assert!(matches!(world.attachments()[..], [Attachment::Home { .. }]));
    }
}

/// B-03: an agent that cannot serve is not asked.
#[test]
fn agents_that_are_busy_or_tunnel_nothing_back_or_grant_nothing_are_passed_over() {
    let unusable = [
        Advertised { flags: AgentFlags::FOREIGN_AGENT, ..Advertised::foreign(FIRST) },
        Advertised {
            flags: Advertised::foreign(FIRST).flags.with(AgentFlags::BUSY),
            ..Advertised::foreign(FIRST)
        },
        Advertised { registration_lifetime: Lifetime::ZERO, ..Advertised::foreign(FIRST) },
    ];
    for agent in unusable {
        let mut world = World::up(config());
        world.hear(&agent);
        assert_eq!(world.requests().len(), 0);
        world.hear(&Advertised::foreign(SECOND));
        assert_eq!(world.last().body.care_of_address, care_of(SECOND));
    }
}

/// B-03: move detection by lifetime.
// Shows 5944-2.4.2.1-a, 5944-2.4.2.1-b, 5944-2.4.2.1-c.
#[test]
fn an_agent_that_falls_silent_is_asked_at_two_thirds_and_lost_at_the_end_of_its_lifetime() {
    let mut world = World::at(FIRST, config());
    let heard = world.now;
    world.forget();
    world.pass(2_999);
    assert_eq!(world.solicitations(), [heard + 2_000]);
    assert!(world.attachments().is_empty());
    world.pass(1);
    assert_eq!(world.attachments(), [Attachment::None]);
    assert!(world.events().contains(&MobileNodeEvent::AgentLost { address: FIRST }));
    assert_eq!(world.solicitations().len(), 2, "and looks for another at once");
    assert!(world.did(&MobileNodeAction::StartDhcp));
}

// Shows 5944-2.4.2-a, 5944-3.6-e.
#[test]
fn when_its_agent_is_lost_the_node_registers_with_another_that_it_hears() {
    let mut world = World::at(FIRST, config());
    world.pass(1_500);
    world.hear(&Advertised::foreign(SECOND));
    assert_eq!(world.requests().len(), 1, "it stays with the first while it is there");
    world.pass(1_500);
    assert_eq!(world.last().body.care_of_address, care_of(SECOND));
    assert_eq!(world.last().at, 4_000);
}

/// RFC 1256 §4.1: a lifetime of zero takes the advertisement back.
#[test]
fn an_agent_that_says_goodbye_is_lost_at_once() {
    let mut world = World::at(FIRST, config());
    world.hear(&Advertised { lifetime: 0, ..Advertised::foreign(FIRST) });
    assert_eq!(world.attachments().last(), Some(&Attachment::None));
}

/// B-03: move detection by prefix (RFC 5944 §2.4.2.2), where no link went down.
// Shows 5944-2.4.2-a.
#[test]
fn an_agent_of_another_prefix_means_a_move_when_our_own_does_not_answer() {
    let first = || Advertised { prefix_len: Some(24), ..Advertised::foreign(FIRST) };
    let second = || Advertised { prefix_len: Some(24), ..Advertised::foreign(SECOND) };
    let mut world = World::up(config());
    world.hear(&first());
    world.accept(100);
    world.forget();
    world.pass(1_000);
    world.hear(&second());
    assert_eq!(world.solicitations(), [2_000], "the first is asked");
    world.pass(249);
    assert_eq!(world.requests().len(), 0);
    world.pass(1);
    assert_eq!(world.last().body.care_of_address, care_of(SECOND));
    assert_eq!(world.last().at, 2_250);
}

// Shows 5944-3.6-e.
#[test]
fn an_agent_of_another_prefix_beside_our_own_is_no_move_and_no_reason_to_ask_for_ever() {
    let first = || Advertised { prefix_len: Some(24), ..Advertised::foreign(FIRST) };
    let second = || Advertised { prefix_len: Some(24), ..Advertised::foreign(SECOND) };
    let mut world = World::up(config());
    world.hear(&first());
    world.accept(100);
    world.forget();
    world.hear(&second());
    world.pass(3);
    world.hear(&Advertised { sequence: 2, ..first() });
    world.pass_hearing(2, &mut [first(), second()]);
    assert_eq!(world.requests().len(), 0);
    assert_eq!(world.solicitations().len(), 1);
}

/// RFC 5944 §2.4.2.2: only when both tell their prefixes.
// Shows 5944-2.4.2.2-a.
#[test]
fn an_agent_that_tells_no_prefix_is_no_sign_of_a_move() {
    let mut world = World::at(FIRST, config());
    world.hear(&Advertised { prefix_len: Some(24), ..Advertised::foreign(SECOND) });
    world.pass(1_000);
    assert_eq!(world.requests().len(), 1);
}

/// B-03: sequence numbers (RFC 5944 §2.3.2).
// Shows 5944-2.4.4-a, 5944-3.6-d.
#[test]
fn an_agent_that_counts_from_the_start_again_is_registered_with_again() {
    let mut world = World::up(config());
    world.hear(&Advertised { sequence: 700, ..Advertised::foreign(FIRST) });
    world.accept(100);
    world.hear(&Advertised { sequence: 255, ..Advertised::foreign(FIRST) });
    assert!(world.events().contains(&MobileNodeEvent::AgentRestarted { address: FIRST }));
    assert_eq!(world.requests().len(), 2);
    assert_eq!(world.attachments().len(), 1, "and its packets flow on");
}

// Shows 5944-2.4.4-b.
#[test]
fn a_sequence_number_that_went_round_is_no_restart() {
    let mut world = World::up(config());
    world.hear(&Advertised { sequence: 0xffff, ..Advertised::foreign(FIRST) });
    world.accept(100);
    world.hear(&Advertised { sequence: 256, ..Advertised::foreign(FIRST) });
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn an_agent_with_another_link_layer_address_is_forwarded_to_there() {
    let mut world = World::at(FIRST, config());
    let icmp = Advertised { sequence: 2, ..Advertised::foreign(FIRST) }.emit();
    let mac = MacAddress([2, 9, 9, 9, 9, 9]);
    world.input(|node, now| node.handle_advertisement(FIRST, mac, &icmp, 1, now));
    let Some(Attachment::ForeignAgent { mac: now, .. }) = world.attachments().last().copied()
    else {
        panic!()
    };
    assert_eq!(now, mac);
}

#[test]
fn with_a_link_that_goes_down_everything_is_stale() {
    let mut world = World::at(FIRST, config());
    world.forget();
    world.link(false);
    assert_eq!(world.attachments(), [Attachment::None]);
    assert_eq!(world.node.phase(), Phase::Disconnected);
    assert!(world.node.agents().is_empty());
    assert_eq!(world.node.poll_timeout(), None);
    world.hear(&Advertised::foreign(FIRST));
    world.co_located();
    assert_eq!(world.requests().len(), 0, "what still comes is of the old link");
}

// Shows 5944-2.4-c, 5944-2.4.2-b.
#[test]
fn a_flapping_link_costs_four_messages_of_each_kind_at_once_then_one_a_second() {
    let mut world = World::new(config());
    for _ in 0..50 {
        world.link(true);
        world.hear(&Advertised::foreign(FIRST));
        world.pass(10);
        world.link(false);
    }
    assert_eq!(world.requests().len(), 4);
    assert_eq!(world.solicitations().len(), 4);
    world.link(true);
    world.hear(&Advertised::foreign(FIRST));
    world.pass_hearing(3, &mut [Advertised::foreign(FIRST)]);
    assert!(world.requests().len() <= 4 + 4, "{}", world.requests().len());
    assert!(world.requests().len() > 4, "but the last one is registered in the end");
}

/// B-09
// Shows 5944-1.8-a.
#[test]
fn advertisements_from_afar_broken_ones_and_unknown_extensions_are_discarded_by_name() {
    let mut world = World::up(config());
    let icmp = Advertised::foreign(FIRST).emit();
    let mac = mac_of(FIRST);
    world.input(|node, now| node.handle_advertisement(FIRST, mac, &icmp, 64, now));
    world.input(|node, now| node.handle_advertisement(FIRST, mac, &icmp[..12], 1, now));
    let group = MacAddress::BROADCAST;
    world.input(|node, now| node.handle_advertisement(FIRST, group, &icmp, 1, now));
    let mut unknown = icmp.clone();
    unknown.extend([20, 0]);
    unknown[2..4].copy_from_slice(&[0, 0]);
    let sum = homeport_wire::checksum::checksum(&unknown);
    unknown[2..4].copy_from_slice(&sum.to_be_bytes());
    world.input(|node, now| node.handle_advertisement(FIRST, mac, &unknown, 1, now));
    use DiscardReason::{BadTtl, Malformed, UnknownExtension};
    assert_eq!(world.discards(), [BadTtl, Malformed, Malformed, UnknownExtension]);
    assert!(world.node.agents().is_empty());
}

/// After a registration the next search begins as quickly as the first.
// Shows 5944-2.4-i.
#[test]
fn a_search_that_had_become_slow_is_quick_again_after_a_registration() {
    let mut world = World::up(MobileNodeConfig { co_located: false, ..config() });
    world.pass(600_000);
    let slow = world.solicitations();
    let [.., before, last] = slow[..] else { panic!("{slow:?}") };
    assert!(last - before >= 60_000);
    world.hear(&Advertised::foreign(FIRST));
    world.accept(100);
    let lost_at = world.now + 3_000;
    world.pass(6_000);
    let again: Vec<u64> =
        world.solicitations().into_iter().filter(|sent| *sent >= lost_at).collect();
    assert_eq!(again[0], lost_at);
    assert!(again[1] - again[0] <= 1_101 && again[2] - again[1] <= 1_101, "{again:?}");
}

/// Nodes that lost one agent together do not ask together.
// Shows 5944-2.4-k.
#[test]
fn two_nodes_that_search_do_not_keep_step() {
    let searches = [[7; 32], [8; 32]].map(|seed| {
        let mut world = World::new(config());
        world.node = MobileNode::new(config(), seed);
        world.link(true);
        world.pass(100_000);
        world.solicitations()
    });
    let apart = searches[0].iter().zip(&searches[1]).filter(|(one, other)| one != other);
    assert!(apart.count() >= 6, "{searches:?}");
}

/// RFC 5944 §2.4: not discarded for them.
// Shows 5944-2.4-o.
#[test]
fn reserved_bits_of_an_advertisement_are_ignored() {
    let mut world = World::up(config());
    let reserved = AgentFlags(0x021f);
    let flags = Advertised::foreign(FIRST).flags.with(reserved);
    world.hear(&Advertised { flags, ..Advertised::foreign(FIRST) });
    assert_eq!(world.last().body.care_of_address, care_of(FIRST));
    assert_eq!(world.discards(), []);
}

// Shows 5944-2.4-m.
#[test]
fn of_two_care_of_addresses_the_first_is_registered() {
    let mut world = World::up(config());
    let agent = Advertised::foreign(FIRST).emit();
    let mut advertisement = AgentAdvertisement::parse(&agent).unwrap();
    let mobility = advertisement.mobility.as_mut().unwrap();
    mobility.care_of_addresses = vec![care_of(SECOND), care_of(FIRST)];
    let icmp = advertisement.emit();
    world.input(|node, now| node.handle_advertisement(FIRST, mac_of(FIRST), &icmp, 1, now));
    assert_eq!(world.last().body.care_of_address, care_of(SECOND));
}

/// RFC 5944 §2.4.2.2: an agent that was heard is one as long as it said.
// Shows 5944-2.4.2.2-c.
#[test]
fn an_advertisement_that_has_expired_is_no_reason_to_register_there() {
    for (lifetime, registers) in [(1, false), (9, true)] {
        let mut world = World::at(FIRST, config());
        world.hear(&Advertised { lifetime, ..Advertised::foreign(SECOND) });
        world.forget();
        world.pass(3_000);
        assert_eq!(world.attachments(), [Attachment::None]);
        assert_eq!(world.requests().len(), usize::from(registers), "{lifetime}");
    }
}

/// B-09: at the bound the old is protected.
#[test]
fn a_flood_of_agents_displaces_none_that_is_known() {
    let mut world = World::at(FIRST, config());
    for host in 0..200 {
        world.hear(&Advertised::foreign(Ipv4Addr::new(10, 9, 9, host)));
    }
    assert_eq!(world.node.agents().len(), MAX_AGENTS);
    assert_eq!(world.node.phase(), Phase::Registered);
    assert_eq!(world.requests().len(), 1);
}
