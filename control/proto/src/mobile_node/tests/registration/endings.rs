//! Homecomings, stops, and what else ends a registration.

use super::*;

/// B-01: coming home (RFC 5944 §4.6).
// Shows 5944-2.4.3-a, 5944-2.4.3-b, 5944-3.1-d, 5944-3.6.1.2-o, 5944-4.6-h, 5944-4.6-q.
#[test]
fn at_home_the_host_is_configured_and_the_link_told_before_the_deregistration() {
    let mut world = World::at(FIRST, config());
    world.link(false);
    world.link(true);
    world.forget();
    world.hear(&Advertised::home());
    let order: Vec<&MobileNodeAction> = world
        .log
        .iter()
        .map(|(_, action)| action)
        .filter(|action| !matches!(action, MobileNodeAction::Event(_)))
        .collect();
    let [
        MobileNodeAction::StopDhcp,
        MobileNodeAction::UseAttachment(AT_HOME),
        MobileNodeAction::AnnounceHome,
        MobileNodeAction::SendRegistration(send),
    ] = order[..]
    else {
        panic!("{order:?}")
    };
    assert_eq!(send.path, RegistrationPath::Link(mac_of(HOME_GATEWAY)));
    assert_eq!((send.source, send.destination), (HOME, HOME_AGENT));
    let body = world.last().body;
    assert_eq!((body.lifetime, body.care_of_address), (Lifetime::ZERO, HOME));
    assert_eq!(body.flags, RequestFlags::default());
    world.accept(0);
    assert_eq!(world.node.phase(), Phase::AtHome);
}

// Shows 5944-4.6-i.
#[test]
fn the_gratuitous_arp_of_a_homecoming_is_repeated_past_one_second() {
    let mut world = World::up(config());
    world.hear(&Advertised::home());
    world.accept(0);
    world.pass_hearing(10, &mut [Advertised::home()]);
    let times: Vec<u64> = world
        .log
        .iter()
        .filter(|(_, action)| *action == MobileNodeAction::AnnounceHome)
        .map(|(at, _)| at - 1_000)
        .collect();
    assert_eq!(times, [0, 50, 200, 1_100, 2_000, 5_000]);
}

#[test]
fn a_node_that_leaves_home_announces_it_no_longer() {
    let mut world = World::up(config());
    world.hear(&Advertised::home());
    world.link(false);
    world.forget();
    world.pass(10_000);
    assert!(!world.did(&MobileNodeAction::AnnounceHome));
}

#[test]
fn a_deregistration_at_home_is_repeated_until_it_is_answered() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::home() });
    world.pass(40_000);
    assert_eq!(world.requests().len(), 6);
    assert_eq!(world.attachments(), [AT_HOME]);
    world.accept(0);
    world.pass(100_000);
    assert_eq!(world.requests().len(), 6);
}

/// B-01: deregistration when the program ends.
// Shows 3543-4.2.4-a.
#[test]
fn a_stop_away_from_home_deregisters_the_care_of_address_and_waits_for_the_reply() {
    let mut world = World::at(FIRST, config());
    world.input(|node, now| node.handle_stop(now));
    let body = world.last().body;
    assert_eq!((body.lifetime, body.care_of_address), (Lifetime::ZERO, care_of(FIRST)));
    assert!(!world.did(&MobileNodeAction::Stopped));
    world.accept(0);
    assert_eq!(world.attachments().last(), Some(&Attachment::None));
    assert_eq!(world.log.last().unwrap().1, MobileNodeAction::Stopped);
    assert_eq!(world.node.poll_timeout(), None);
}

#[test]
fn a_stop_without_answer_ends_after_two_seconds_and_two_requests() {
    let mut world = World::at(FIRST, config());
    let stopped_at = world.now;
    world.input(|node, now| node.handle_stop(now));
    world.forget();
    world.pass(10_000);
    assert_eq!(world.requests().len(), 1, "one more than the first");
    assert_eq!(world.log.last().unwrap(), &(stopped_at + 2_000, MobileNodeAction::Stopped));
}

#[test]
fn a_stop_at_home_or_without_link_ends_at_once() {
    let mut world = World::up(config());
    world.hear(&Advertised::home());
    world.accept(0);
    for mut world in [world, World::new(config()), World::up(config())] {
        let requests = world.requests().len();
        world.input(|node, now| node.handle_stop(now));
        assert_eq!(world.log.last().unwrap().1, MobileNodeAction::Stopped);
        assert_eq!(world.requests().len(), requests);
    }
}

#[test]
fn a_co_located_address_that_is_lost_ends_its_registration() {
    let mut world = World::up(config());
    world.pass(50);
    world.co_located();
    world.accept(100);
    world.input(|node, now| node.handle_co_located_lost(now));
    assert_eq!(world.attachments(), [BY_ITSELF, Attachment::None]);
    let other = CoLocated { address: Ipv4Addr::new(10, 2, 3, 101), ..CO_LOCATED };
    world.input(|node, now| node.handle_co_located(other, now));
    assert_eq!(world.last().body.care_of_address, other.address);
}

#[test]
fn a_stop_whose_agent_is_lost_meanwhile_ends_all_the_same() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 1, ..Advertised::foreign(FIRST) });
    world.accept(100);
    world.input(|node, now| node.handle_stop(now));
    world.forget();
    world.pass(2_000);
    assert_eq!(world.log.last().unwrap().1, MobileNodeAction::Stopped);
    assert!(!world.did(&MobileNodeAction::StartDhcp));
    assert_eq!(world.node.poll_timeout(), None);
}

/// Its agent stays, but is no foreign agent any more, and nobody else is there.
#[test]
fn a_renewal_that_cannot_be_sent_is_thought_of_once_a_second_until_the_registration_ends() {
    let mut world = World::at(FIRST, MobileNodeConfig { co_located: false, ..config() });
    let flags = AgentFlags::default();
    let mut agent = [Advertised { flags, ..Advertised::foreign(FIRST) }];
    world.forget();
    world.pass_hearing(98, &mut agent);
    assert_eq!((world.requests().len(), world.node.phase()), (0, Phase::Registered));
    agent[0].flags = Advertised::foreign(FIRST).flags;
    world.pass_hearing(1, &mut agent);
    world.pass(500);
    assert_eq!(world.requests().len(), 1);
}
