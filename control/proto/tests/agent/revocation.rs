//! Registration revocation (RFC 3543): reliability row 20.

mod agreement;
mod attacks;

use core::net::Ipv4Addr;

use homeport_proto::config::AgentConfig;
use homeport_proto::event::{DiscardReason, Event};
use homeport_proto::message::{
    AgentAdvertisement, AuthenticationKind, Extension, Message, MessageWriter, RegistrationRequest,
    RegistrationRevocation, RequestFlags, RevocationAcknowledgement, RevocationSupport,
};
use homeport_proto::{Action, Datagram, Lifetime, Payload, Transmit};
use proptest::prelude::*;

use crate::foreign_agent::relayed_bytes;
use crate::support::*;

/// Another foreign agent that the home agent shares a key with.
pub(crate) const THIRD: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 2);

pub(crate) fn home() -> World {
    World::home(|config| {
        config.revocation = true;
        config.max_simultaneous = 1;
        for agent in [FOREIGN, THIRD] {
            config.security.insert_agent(agent, foreign_home());
        }
    })
}

pub(crate) fn foreign() -> World {
    let mut config = foreign_agent_config();
    config.revocation = true;
    config.security.insert_agent(HOME_AGENT, foreign_home());
    let mut advertiser = advertiser_config();
    advertiser.unsolicited = false;
    World::new(AgentConfig {
        foreign_agents: vec![config],
        advertisers: vec![advertiser],
        ..AgentConfig::default()
    })
}

pub(crate) fn seconds(world: &World) -> u32 {
    u32::try_from(world.now().ntp.0 >> 32).unwrap()
}

/// A request as a foreign agent with revocation relays it.
pub(crate) fn supporting(asked: &RegistrationRequest, inform: bool, timestamp: u32) -> Vec<u8> {
    let mut writer = MessageWriter::relay(&sign(asked));
    let support = RevocationSupport { inform, timestamp };
    writer.extension(&Extension::RevocationSupport(support)).unwrap();
    writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home());
    writer.finish()
}

/// Registers the node through this foreign agent; what the home agent did.
pub(crate) fn bind(world: &mut World, agent: Ipv4Addr) -> Vec<Action> {
    let asked = RegistrationRequest { care_of_address: agent, ..request(world.timestamp()) };
    let timestamp = seconds(world);
    world.relay(agent, &supporting(&asked, true, timestamp))
}

/// Registers a visitor whose home agent has agreed; its timestamp is what the clock says.
pub(crate) fn visit(world: &mut World, inform: bool) {
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    let timestamp = seconds(world);
    let actions = world.answer(&agreeing(&asked, inform, timestamp));
    assert!(matches!(actions[0], Action::InstallVisitor(_)), "{actions:?}");
}

fn agreeing(asked: &RegistrationRequest, inform: bool, timestamp: u32) -> Vec<u8> {
    let reply = reply_to(asked, homeport_proto::message::ReplyCode::ACCEPTED, 60);
    let mut writer = MessageWriter::relay(&reply);
    let support = RevocationSupport { inform, timestamp };
    writer.extension(&Extension::RevocationSupport(support)).unwrap();
    writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home());
    writer.finish()
}

pub(crate) fn revocation(from_home_agent: bool, identifier: u32) -> RegistrationRevocation {
    RegistrationRevocation {
        from_home_agent,
        inform: false,
        home_address: NODE,
        home_agent: HOME_AGENT,
        care_of_address: FOREIGN,
        identifier,
    }
}

pub(crate) fn signed(revocation: &RegistrationRevocation) -> Vec<u8> {
    let mut writer = MessageWriter::revocation(revocation);
    writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home());
    writer.finish()
}

pub(crate) fn acknowledging(revocation: &RegistrationRevocation, inform: bool) -> Vec<u8> {
    let RegistrationRevocation { home_address, identifier, .. } = *revocation;
    let acknowledgement = RevocationAcknowledgement { inform, home_address, identifier };
    let mut writer = MessageWriter::acknowledgement(&acknowledgement);
    writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home());
    writer.finish()
}

/// The revocations among these, where they go to, each authentic.
pub(crate) fn revocations(actions: &[Action]) -> Vec<(Ipv4Addr, RegistrationRevocation)> {
    let authentic = |transmit: &&Transmit| {
        let Payload::Udp { data, .. } = &transmit.payload else { return None };
        let Ok(Message::Revocation(received)) = Message::parse(data) else { return None };
        let [one] = received.extensions() else { panic!("{received:?}") };
        assert!(received.verify(one, &foreign_home()));
        assert_eq!((udp(transmit).0, udp(transmit).1, transmit.link), (434, 434, None));
        Some((transmit.destination, received.body))
    };
    transmits(actions).iter().filter_map(authentic).collect()
}

fn acknowledgements(actions: &[Action]) -> Vec<RevocationAcknowledgement> {
    let authentic = |transmit: &&Transmit| {
        let Payload::Udp { data, .. } = &transmit.payload else { return None };
        let Ok(Message::Acknowledgement(received)) = Message::parse(data) else { return None };
        assert!(received.verify(&received.extensions()[0], &foreign_home()));
        Some(received.body)
    };
    transmits(actions).iter().filter_map(authentic).collect()
}

/// Advertisements that tell a station that its registration is gone.
fn told(actions: &[Action]) -> usize {
    let resets = |transmit: &&&Transmit| {
        let Payload::Icmp(icmp) = &transmit.payload else { return false };
        let advertisement = AgentAdvertisement::parse(icmp).unwrap();
        assert_eq!(transmit.link, Some((VISITED, NODE_MAC)));
        assert_eq!((transmit.destination, transmit.ttl), (NODE, 1));
        advertisement.mobility.unwrap().sequence == 0
    };
    transmits(actions).iter().filter(resets).count()
}

pub(crate) fn passed(world: &mut World, millis: u64) -> Vec<Action> {
    world.pass(millis).into_iter().map(|(_, action)| action).collect()
}

fn gone(actions: &[Action]) -> bool {
    actions.contains(&Action::RemoveBinding { tenant: TENANT, home_address: NODE })
}

/// From a foreign agent to the home agent, and the other way.
pub(crate) fn to_home(world: &mut World, payload: &[u8]) -> Vec<Action> {
    world.relay(FOREIGN, payload)
}

pub(crate) fn to_foreign(world: &mut World, payload: &[u8]) -> Vec<Action> {
    world.answer(payload)
}

/// §3.3: what ends by itself is no revocation's business.
// Shows 3543-3.3-i.
#[test]
fn what_has_expired_is_not_revoked() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    assert!(revocations(&passed(&mut world, 61_000)).is_empty());
    assert!(!world.agent.clear_binding(TENANT, NODE, world.now()));
    assert!(revocations(&world.drain()).is_empty());
    let mut world = foreign();
    visit(&mut world, true);
    assert!(revocations(&passed(&mut world, 61_000)).is_empty());
    assert_eq!(world.agent.clear_visitor(TENANT, NODE, world.now()), 0);
    assert!(revocations(&world.drain()).is_empty());
}

/// §3.5: several in one second are several, for several nodes.
// Shows 3543-3.5-g.
#[test]
fn revocations_of_one_second_all_count_for_nodes_of_their_own() {
    let mut world = home();
    for home_address in [NODE, OTHER_NODE] {
        let asked = RegistrationRequest { home_address, ..request(world.timestamp()) };
        let timestamp = seconds(&world);
        the_code(&world.relay(FOREIGN, &supporting(&asked, true, timestamp)));
    }
    assert_eq!(world.agent.bindings().count(), 2);
    let identifier = seconds(&world) + 2;
    for home_address in [NODE, OTHER_NODE] {
        let message = RegistrationRevocation { home_address, ..revocation(false, identifier) };
        assert_eq!(acknowledgements(&to_home(&mut world, &signed(&message))).len(), 1);
    }
    assert_eq!(world.agent.bindings().count(), 0);
}

/// §4.2.2: the operator's word reaches the foreign agent, until it says so.
// Shows 3543-3.3-f, 3543-3.3-g, 3543-3.5-f, 3543-4.2.2.1-a, 3543-4.2.2.1-b,
// 3543-4.2.2.1-c, 3543-4.2.2.1-f, 3543-4.2.2.1-g, 3543-4.2.2.1-i.
#[test]
fn a_cleared_binding_is_revoked_until_the_foreign_agent_acknowledges_it() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    let registered = seconds(&world);
    world.millis += 5_000;
    assert!(world.agent.clear_binding(TENANT, NODE, world.now()));
    let actions = world.drain();
    assert!(gone(&actions));
    let [(destination, first)] = revocations(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(destination, FOREIGN);
    assert_eq!(first, RegistrationRevocation { inform: true, ..revocation(true, registered + 5) });
    // Again, later each time, and after twice the wait.
    let again = world.pass(1_000);
    let [(at, ref action)] = again[..] else { panic!("{again:?}") };
    let [(_, second)] = revocations(core::slice::from_ref(action))[..] else { panic!() };
    assert!(second.identifier > first.identifier);
    assert_eq!(at % 1_000, (world.millis) % 1_000);
    assert!(world.pass(1_900).is_empty());
    // What acknowledges another one, or nothing that was sent, is no acknowledgement.
    for wrong in [first, revocation(true, second.identifier + 1), revocation(true, 0)] {
        to_home(&mut world, &acknowledging(&wrong, true));
    }
    assert_eq!(world.discarded(DiscardReason::NotPending), 3);
    let other = RegistrationRevocation { home_address: OTHER_NODE, ..second };
    to_home(&mut world, &acknowledging(&other, true));
    world.relay(THIRD, &acknowledging(&second, true));
    assert_eq!(world.discarded(DiscardReason::NotPending), 5);
    to_home(&mut world, &acknowledging(&second, true));
    assert_eq!(world.counters().revocations_acknowledged, 1);
    assert!(world.pass(300_000).is_empty());
    assert_eq!(world.counters().revocations_sent, 2);
    assert_eq!(world.counters().revocations_unanswered, 0);
    // Good once.
    to_home(&mut world, &acknowledging(&second, true));
    assert_eq!(world.discarded(DiscardReason::NotPending), 6);
}

// Shows 3543-4.2.2.1-j.
#[test]
fn a_revocation_that_nobody_answers_is_given_up() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    world.millis += 2_000;
    world.agent.clear_binding(TENANT, NODE, world.now());
    world.drain();
    passed(&mut world, 600_000);
    assert_eq!(world.counters().revocations_sent, 6);
    assert_eq!(world.counters().revocations_unanswered, 1);
    // And not beyond the life of the binding (§4.2.2.1): it had 60 seconds.
    bind(&mut world, FOREIGN);
    world.millis += 55_000;
    world.agent.clear_binding(TENANT, NODE, world.now());
    world.drain();
    passed(&mut world, 600_000);
    assert_eq!(world.counters().revocations_sent, 6 + 3);
    assert_eq!(world.counters().revocations_unanswered, 2);
}

/// §3.3: no two messages about a binding within a second.
// Shows 3543-3.3-j.
#[test]
fn a_registration_is_revoked_a_second_after_it_at_the_earliest() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    let registered = seconds(&world);
    world.agent.clear_binding(TENANT, NODE, world.now());
    let actions = world.drain();
    assert!(gone(&actions) && revocations(&actions).is_empty());
    assert!(passed(&mut world, 990).is_empty());
    let [(_, sent)] = revocations(&passed(&mut world, 20))[..] else { panic!() };
    assert!(sent.identifier > registered);
}

/// The old foreign agent frees the visitor at once when its node has moved on, which
/// knows, and need not be told.
// Shows 3543-3.3-c, 3543-4.2.2.1-d.
#[test]
fn a_node_that_moves_is_revoked_at_the_foreign_agent_before() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    world.millis += 2_000;
    let actions = bind(&mut world, THIRD);
    assert_eq!(installed(&actions), [care_of(THIRD, 60)]);
    let [(destination, sent)] = revocations(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((destination, sent.care_of_address, sent.inform), (FOREIGN, FOREIGN, false));
    to_home(&mut world, &acknowledging(&sent, false));
    // A renewal revokes nothing; home, it has left the third one too.
    world.millis += 2_000;
    assert!(revocations(&bind(&mut world, THIRD)).is_empty());
    world.millis += 2_000;
    let mut away = request(world.timestamp());
    away.lifetime = Lifetime::ZERO;
    away.care_of_address = NODE;
    let message = sign(&away);
    let actions = world.send(&direct(NODE, &message));
    assert!(gone(&actions));
    let [(destination, _)] = revocations(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(destination, THIRD);
    // Deregistered through its foreign agent, that one knows.
    bind(&mut world, FOREIGN);
    let mut away = request(world.timestamp());
    away.lifetime = Lifetime::ZERO;
    world.millis += 2_000;
    away.identification = world.timestamp();
    let actions = world.relay(FOREIGN, &sign(&away));
    assert!(gone(&actions) && revocations(&actions).is_empty(), "{actions:?}");
}

/// What is under way must not end what has begun since.
#[test]
fn a_node_that_comes_back_is_not_revoked_any_more() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    world.millis += 2_000;
    world.agent.clear_binding(TENANT, NODE, world.now());
    let [(_, sent)] = revocations(&world.drain())[..] else { panic!() };
    let actions = bind(&mut world, FOREIGN);
    assert!(revocations(&passed(&mut world, 30_000)).is_empty());
    // The one under way is not later than the new registration.
    let reply = parse_reply(udp(transmits(&actions)[0]).2);
    let Extension::RevocationSupport(support) = reply.extensions()[1].extension else { panic!() };
    assert!(support.timestamp >= sent.identifier);
}

/// The same at the foreign agent, from the moment that it relays the request.
#[test]
fn a_visitor_that_comes_back_is_not_revoked_any_more() {
    let mut world = foreign();
    visit(&mut world, true);
    world.millis += 2_000;
    world.agent.clear_visitor(TENANT, NODE, world.now());
    let [(_, sent)] = revocations(&world.drain())[..] else { panic!() };
    let asked = request(world.timestamp());
    let message = relayed_bytes(&world.visit(&sign(&asked)));
    let Ok(Message::Request(relayed)) = Message::parse(&message) else { panic!() };
    let Extension::RevocationSupport(said) = relayed.extensions()[1].extension else { panic!() };
    assert!(said.timestamp >= sent.identifier);
    let timestamp = seconds(&world);
    world.answer(&agreeing(&asked, true, timestamp));
    assert!(revocations(&passed(&mut world, 30_000)).is_empty());
    assert_eq!(world.agent.visitors().count(), 1);
}

/// §4.2.3: the foreign agent's word ends the binding, and is acknowledged each time.
// Shows 3543-3.4-e, 3543-3.4-f, 3543-4.2.3.2-d, 3543-4.2.3.2-e, 3543-4.2.3.2-g.
#[test]
fn a_foreign_agents_revocation_ends_its_binding() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    let now = seconds(&world);
    let asks = RegistrationRevocation { inform: true, ..revocation(false, now + 2) };
    let actions = to_home(&mut world, &signed(&asks));
    assert!(gone(&actions));
    let [acknowledged] = acknowledgements(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(
        acknowledged,
        RevocationAcknowledgement { inform: true, home_address: NODE, identifier: now + 2 }
    );
    let event =
        Event::BindingRevoked { tenant: TENANT, home_address: NODE, care_of_address: FOREIGN };
    assert!(actions.contains(&Action::Event(event)));
    assert!(passed(&mut world, 10_000).is_empty(), "nothing is revoked in return");
    // The acknowledgement was lost, so it comes once more, later.
    let later = RegistrationRevocation { inform: true, ..revocation(false, now + 3) };
    assert_eq!(acknowledgements(&to_home(&mut world, &signed(&later))).len(), 1);
    assert!(to_home(&mut world, &signed(&later)).iter().all(|one| matches!(one, Action::Event(_))));
    assert_eq!(world.discarded(DiscardReason::Replay), 1);
    assert_eq!(world.counters().revocations_accepted, 1);
}

/// §4.1, §4.2.2.2: a node is told if the home agent says so, or has no say in it.
// Shows 3543-3.4-b, 3543-4.1-b, 3543-4.2.2.2-d, 3543-4.2.2.2-e.
#[test]
fn a_node_is_told_by_an_advertisement_with_sequence_number_0() {
    for (agreed, asked, is_told, said) in
        [(true, true, true, true), (true, false, false, false), (false, false, true, false)]
    {
        let mut world = foreign();
        visit(&mut world, agreed);
        let now = seconds(&world);
        let message = RegistrationRevocation { inform: asked, ..revocation(true, now + 2) };
        let actions = to_foreign(&mut world, &signed(&message));
        assert_eq!(actions[0], the_visitor_is_removed());
        assert_eq!(told(&actions), usize::from(is_told), "{agreed} {asked}");
        assert_eq!(acknowledgements(&actions)[0].inform, said);
        let event =
            Event::VisitorRevoked { tenant: TENANT, home_address: NODE, home_agent: HOME_AGENT };
        assert!(actions.contains(&Action::Event(event)));
    }
}

/// §4.2.3.1: the operator of the foreign agent takes a visitor away.
// Shows 3543-3.3-b, 3543-3.4-c, 3543-4.2.3.1-a, 3543-4.2.3.1-b, 3543-4.2.3.1-d.
#[test]
fn a_cleared_visitor_is_revoked_and_told_as_its_home_agent_says() {
    for (agreed, answer, at_once, in_the_end) in [
        (true, true, 0, 1),
        (true, false, 0, 0),
        (false, false, 1, 1),
        // Flag I of what did not ask for it means nothing (§3.4).
        (false, true, 1, 1),
    ] {
        let mut world = foreign();
        visit(&mut world, agreed);
        world.millis += 2_000;
        assert_eq!(world.agent.clear_visitor(TENANT, NODE, world.now()), 1);
        let actions = world.drain();
        assert_eq!(actions[0], the_visitor_is_removed());
        let [(destination, sent)] = revocations(&actions)[..] else { panic!("{actions:?}") };
        assert_eq!(destination, HOME_AGENT);
        let expected = revocation(false, sent.identifier);
        assert_eq!(sent, RegistrationRevocation { inform: agreed, ..expected });
        assert_eq!(told(&actions), at_once);
        let actions = to_foreign(&mut world, &acknowledging(&sent, answer));
        assert_eq!(at_once + told(&actions), in_the_end, "{agreed} {answer}");
        assert!(passed(&mut world, 100_000).is_empty());
    }
    let mut world = foreign();
    assert_eq!(world.agent.clear_visitor(TENANT, NODE, world.now()), 0);
}

/// §4.2.3.1: until it is acknowledged, later each time and after twice the wait, and
/// never beyond the life of the registration.
// Shows 3543-4.2.3.1-f, 3543-4.2.3.1-g, 3543-4.2.3.1-i, 3543-4.2.3.1-j.
#[test]
fn a_foreign_agent_repeats_its_revocation_until_it_is_acknowledged() {
    let cleared = |after: u64| {
        let mut world = foreign();
        visit(&mut world, true);
        world.millis += after;
        world.agent.clear_visitor(TENANT, NODE, world.now());
        let [(_, first)] = revocations(&world.drain())[..] else { panic!() };
        (world, first)
    };
    let (mut world, first) = cleared(2_000);
    let mut identifiers = vec![first.identifier];
    for wait in [1_000, 2_000, 4_000, 8_000, 16_000] {
        assert!(revocations(&passed(&mut world, wait - 1)).is_empty());
        let [(_, sent)] = revocations(&passed(&mut world, 1))[..] else { panic!("{wait}") };
        identifiers.push(sent.identifier);
    }
    assert!(identifiers.is_sorted_by(|earlier, later| earlier < later), "{identifiers:?}");
    assert!(passed(&mut world, 600_000).is_empty());
    assert_eq!(world.counters().revocations_unanswered, 1);
    let (mut world, _) = cleared(55_000);
    assert_eq!(revocations(&passed(&mut world, 600_000)).len(), 2, "it had 60 seconds");
    let (mut world, first) = cleared(2_000);
    to_foreign(&mut world, &acknowledging(&first, true));
    assert!(revocations(&passed(&mut world, 600_000)).is_empty());
}

/// Both ends at once: neither waits for the other for ever.
#[test]
fn revocations_that_cross_acknowledge_each_other() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    world.millis += 2_000;
    world.agent.clear_binding(TENANT, NODE, world.now());
    world.drain();
    let theirs = revocation(false, seconds(&world));
    assert_eq!(acknowledgements(&to_home(&mut world, &signed(&theirs))).len(), 1);
    assert!(transmits(&to_home(&mut world, &signed(&theirs))).is_empty());
}

/// After a start the clock goes on where it was, and so do the timestamps: what is
/// registered anew can be revoked, and what is older ends nothing.
// Shows 3543-3.2-g.
#[test]
fn revocations_work_after_a_restart_of_either_end() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    world.millis += 10_000;
    let mut again = home();
    again.millis = world.millis + 1_000;
    let old = revocation(false, seconds(&again) - 5);
    assert!(transmits(&to_home(&mut again, &signed(&old))).is_empty());
    bind(&mut again, FOREIGN);
    assert!(transmits(&to_home(&mut again, &signed(&old))).is_empty());
    assert_eq!(again.discarded(DiscardReason::Replay), 1);
    let good = revocation(false, seconds(&again) + 1);
    assert_eq!(acknowledgements(&to_home(&mut again, &signed(&good))).len(), 1);
    // The clock of this end is set back: what it sends is still later than before.
    bind(&mut again, FOREIGN);
    let registered = seconds(&again);
    again.step = -3_600;
    again.millis += 5_000;
    again.agent.clear_binding(TENANT, NODE, again.now());
    let [(_, sent)] = revocations(&again.drain())[..] else { panic!() };
    assert_eq!(sent.identifier, registered + 1);
}

/// However many, only so many wait.
#[test]
fn a_tenant_that_is_emptied_keeps_a_bounded_number_of_revocations() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    world.millis += 2_000;
    let mut config = home_agent_config();
    config.revocation = true;
    config.security = Default::default();
    config.security.insert_agent(FOREIGN, foreign_home());
    let home_agents = vec![config];
    world.agent.handle_config(AgentConfig { home_agents, ..AgentConfig::default() }, world.now());
    let actions = world.drain();
    assert!(gone(&actions));
    assert_eq!(revocations(&actions).len(), 1, "its node is no longer served");
    // Without the agent nothing is sent any more.
    world.agent.handle_config(AgentConfig::default(), world.now());
    assert!(passed(&mut world, 100_000).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Register,
    Revoke { ahead: i32 },
    Replay { index: usize },
    Clear,
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Register),
        2 => (-3..6i32).prop_map(|ahead| Step::Revoke { ahead }),
        4 => (0..100usize).prop_map(|index| Step::Replay { index }),
        1 => Just(Step::Clear),
        3 => (0..2_500u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Row 20: of whatever was ever seen on the wire, nothing ends a registration twice,
    /// and nothing from before a registration ends it.
    // Shows attack-20.
    #[test]
    fn no_revocation_is_good_twice(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = home();
        // What was on the wire, either way, and whether it has ended something.
        let mut seen: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut used: Vec<u32> = Vec::new();
        let mut since: Option<u32> = None;
        for step in steps {
            match step {
                Step::Pass { millis } => {
                    for (destination, sent) in revocations(&passed(&mut world, millis)) {
                        prop_assert_eq!(destination, FOREIGN);
                        seen.push((sent.identifier, signed(&sent)));
                    }
                }
                Step::Register => {
                    let before = since;
                    bind(&mut world, FOREIGN);
                    since = Some(seconds(&world).max(before.unwrap_or(0)));
                }
                Step::Clear => {
                    world.agent.clear_binding(TENANT, NODE, world.now());
                    for (_, sent) in revocations(&world.drain()) {
                        seen.push((sent.identifier, signed(&sent)));
                    }
                }
                Step::Revoke { ahead } => {
                    let identifier = seconds(&world).saturating_add_signed(ahead);
                    let message = signed(&revocation(false, identifier));
                    let bound = world.agent.bindings().count();
                    let actions = to_home(&mut world, &message);
                    if gone(&actions) {
                        prop_assert_eq!(bound, 1);
                        prop_assert!(since.is_some_and(|since| identifier > since));
                        prop_assert!(!used.contains(&identifier), "good twice");
                        used.push(identifier);
                    }
                    seen.push((identifier, message));
                }
                Step::Replay { index } if !seen.is_empty() => {
                    let (identifier, message) = seen[index % seen.len()].clone();
                    let actions = world.send(&Datagram { ..relayed(FOREIGN, &message) });
                    if gone(&actions) {
                        prop_assert!(since.is_some_and(|since| identifier > since));
                        prop_assert!(!used.contains(&identifier), "good twice");
                        used.push(identifier);
                    }
                }
                Step::Replay { .. } => {}
            }
        }
    }
}
