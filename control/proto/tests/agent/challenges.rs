//! The foreign agent's challenges (RFC 4721): reliability row 19.

use homeport_proto::config::{AgentConfig, ChallengePolicy, ForeignAgentConfig};
use homeport_proto::event::DiscardReason;
use homeport_proto::message::advertisement::AgentSolicitation;
use homeport_proto::message::{
    AgentAdvertisement, AuthenticationKind, Extension, MessageWriter, RegistrationRequest,
    ReplyCode,
};
use homeport_proto::security::{Algorithm, Spi};
use homeport_proto::{Action, Datagram, Lifetime, Payload};
use proptest::prelude::*;
use std::net::Ipv4Addr;

use crate::foreign_agent::{denied, relayed_bytes};
use crate::support::*;

/// A foreign agent that challenges, and says so every second.
pub(crate) fn challenger(change: impl FnOnce(&mut ForeignAgentConfig)) -> World {
    let mut config = foreign_agent_config();
    config.challenge = ChallengePolicy::Required;
    config.security.insert_mobile_node(NODE, mobile_foreign());
    config.security.insert_mobile_node(OTHER_NODE, mobile_foreign());
    change(&mut config);
    World::new(AgentConfig {
        foreign_agents: vec![config],
        advertisers: vec![advertiser_config()],
        ..AgentConfig::default()
    })
}

fn advertised(action: &Action) -> Option<Vec<u8>> {
    let Action::Transmit(transmit) = action else { return None };
    let Payload::Icmp(icmp) = &transmit.payload else { return None };
    AgentAdvertisement::parse(icmp).unwrap().challenge
}

/// The challenges of the advertisements in a time.
fn hear(world: &mut World, millis: u64) -> Vec<Vec<u8>> {
    world.pass(millis).iter().filter_map(|(_, action)| advertised(action)).collect()
}

/// The newest of them.
pub(crate) fn newest(world: &mut World) -> Vec<u8> {
    hear(world, 1_000).pop().expect("an advertisement with a challenge")
}

pub(crate) fn answering(asked: &RegistrationRequest, challenge: &[u8]) -> Vec<u8> {
    let mut writer = MessageWriter::relay(&sign(asked));
    writer.extension(&Extension::Challenge(challenge)).unwrap();
    writer.authenticate(AuthenticationKind::MobileForeign, &mobile_foreign());
    writer.finish()
}

/// A fresh request of the node that answers `challenge`.
pub(crate) fn answer(world: &mut World, challenge: &[u8]) -> Vec<Action> {
    let asked = request(world.timestamp());
    world.visit(&answering(&asked, challenge))
}

/// The challenge of the only reply, under a right mobile-foreign authentication.
fn given(actions: &[Action]) -> Vec<u8> {
    let all = transmits(actions);
    let reply = parse_reply(udp(all[0]).2);
    let last = reply.extensions().last().unwrap();
    assert!(reply.verify(last, &mobile_foreign()), "{reply:?}");
    let given = reply.extensions().iter().find_map(|one| match one.extension {
        Extension::Challenge(challenge) if one.end == last.offset => Some(challenge.to_vec()),
        _ => None,
    });
    given.expect("a challenge in front of the mobile-foreign authentication")
}

/// The code and the challenge of a denial.
fn denial(actions: &[Action]) -> (u8, Vec<u8>) {
    (denied(actions), given(actions))
}

// Shows 4721-2-a, 4721-2-b.
#[test]
fn every_unasked_advertisement_has_a_challenge_of_its_own() {
    let mut world = challenger(|_| {});
    let heard = hear(&mut world, 10_000);
    assert!(heard.len() >= 10);
    for (index, challenge) in heard.iter().enumerate() {
        assert_eq!(challenge.len(), 16);
        assert!(!heard[..index].contains(challenge));
    }
    let mut quiet = challenger(|config| config.challenge = ChallengePolicy::Off);
    assert!(hear(&mut quiet, 3_000).is_empty());
}

/// RFC 4721 §3.2: CHALLENGE_WINDOW.
// Shows 4721-3.2-f, 4721-3.2-g, 4721-3.3-k, 4721-9-a, attack-19.
#[test]
fn a_challenge_out_of_the_window_is_denied_with_104() {
    for window in [2, 5] {
        let mut world = challenger(|config| config.challenge_window = window);
        let heard = hear(&mut world, 10_000);
        let gone = &heard[heard.len() - window - 1];
        assert_eq!(denial(&answer(&mut world, gone)).0, 104);
        world.pass(1_000);
        let mut world = challenger(|config| config.challenge_window = window);
        let heard = hear(&mut world, 10_000);
        relayed_bytes(&answer(&mut world, &heard[heard.len() - window]));
    }
    // Of any length, of anybody's, and none of ours at all.
    for challenge in [&[][..], &[7; 4], &[7; 16], &[7; 255]] {
        let mut world = challenger(|_| {});
        world.pass(1_000);
        assert_eq!(denial(&answer(&mut world, challenge)).0, 104);
    }
}

// Shows 4721-3.2-b, attack-19.
#[test]
fn a_request_without_a_challenge_is_denied_with_105_where_one_is_required() {
    let mut world = challenger(|_| {});
    world.pass(1_000);
    let asked = request(world.timestamp());
    let plain = append(&sign(&asked), AuthenticationKind::MobileForeign, &mobile_foreign());
    let (code, fresh) = denial(&world.visit(&plain));
    assert_eq!(code, 105);
    // What the denial gave is good at once (§3.5).
    let asked = request(world.timestamp());
    assert_eq!(relayed_bytes(&world.visit(&answering(&asked, &fresh))), sign(&asked));
    assert_eq!(world.counters().denied_with(ReplyCode::MISSING_CHALLENGE), 1);
    assert_eq!(world.counters().foreign_challenges_answered, 1);
    let mut world = challenger(|config| config.challenge = ChallengePolicy::Offered);
    let asked = request(world.timestamp());
    let plain = append(&sign(&asked), AuthenticationKind::MobileForeign, &mobile_foreign());
    relayed_bytes(&world.visit(&plain));
}

/// §3.2: what a node has used, and all that was advertised before, is stale for it
/// alone.
// Shows 4721-3.2-e, 4721-3.2-h, attack-19.
#[test]
fn a_challenge_that_a_node_has_used_is_denied_with_106() {
    let mut world = challenger(|_| {});
    let heard = hear(&mut world, 3_000);
    let [.., older, newest] = &heard[..] else { panic!() };
    let asked = request(world.timestamp());
    relayed_bytes(&world.visit(&answering(&asked, newest)));
    world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    let (code, fresh) = denial(&answer(&mut world, newest));
    assert_eq!(code, 106);
    assert!(!heard.contains(&fresh));
    world.pass(1_001);
    assert_eq!(denial(&answer(&mut world, newest)).0, 106, "still in the window");
    world.pass(5_000);
    assert_eq!(denial(&answer(&mut world, newest)).0, 106, "long out of it");
    // Another node may use what this one has.
    let mut world = challenger(|_| {});
    let heard = hear(&mut world, 3_000);
    let [.., older_2, newest] = &heard[..] else { panic!() };
    assert_eq!(older, older_2, "the same seed");
    relayed_bytes(&answer(&mut world, newest));
    let asked = RegistrationRequest { home_address: OTHER_NODE, ..request(world.timestamp()) };
    relayed_bytes(&world.visit(&answering(&asked, newest)));
    // Older than the last one that was used, though never used itself.
    assert_eq!(denied(&answer(&mut world, older_2)), 106);
}

/// §3.3: in every reply there is an unused one, so that nobody waits for an
/// advertisement.
// Shows 4721-3.3-a, 4721-3.3-b, 4721-3.3-g.
#[test]
fn a_node_renews_by_the_challenges_of_its_replies_alone() {
    let mut world = challenger(|_| {});
    let mut challenge = newest(&mut world);
    for _ in 0..20 {
        let asked = request(world.timestamp());
        relayed_bytes(&world.visit(&answering(&asked, &challenge)));
        let actions = world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
        assert_eq!(the_code(&actions), 0);
        let next = given(&actions);
        assert_ne!(next, challenge);
        challenge = next;
    }
    assert_eq!(world.counters().foreign_challenges_answered, 20);
}

/// §3.2: without an authentication behind it, it says nothing of anybody.
// Shows 4721-3.2-j.
#[test]
fn a_challenge_that_nothing_signs_is_discarded() {
    let stranger = Ipv4Addr::new(10, 9, 0, 1);
    for policy in [ChallengePolicy::Required, ChallengePolicy::Offered] {
        let mut world = challenger(|config| config.challenge = policy);
        let challenge = newest(&mut world);
        let asked = request(world.timestamp());
        // In front of it is not behind it.
        let signed = append(&sign(&asked), AuthenticationKind::MobileForeign, &mobile_foreign());
        let mut writer = MessageWriter::relay(&signed);
        writer.extension(&Extension::Challenge(&challenge)).unwrap();
        assert!(transmits(&world.visit(&writer.finish())).is_empty());
        let asked = RegistrationRequest { home_address: stranger, ..request(world.timestamp()) };
        let mut writer = MessageWriter::relay(&sign(&asked));
        writer.extension(&Extension::Challenge(&challenge)).unwrap();
        assert!(transmits(&world.visit(&writer.finish())).is_empty());
        assert_eq!(world.discarded(DiscardReason::NoAuthentication), 2);
    }
}

/// Under a key that is not ours, a challenge proves nothing: where it is required
/// that is not enough.
#[test]
fn an_answer_that_nobody_can_check_is_denied_with_67() {
    let stranger = Ipv4Addr::new(10, 9, 0, 1);
    for (policy, relayed) in [(ChallengePolicy::Required, false), (ChallengePolicy::Offered, true)]
    {
        let mut world = challenger(|config| config.challenge = policy);
        let challenge = newest(&mut world);
        let asked = RegistrationRequest { home_address: stranger, ..request(world.timestamp()) };
        let actions = world.visit(&answering(&asked, &challenge));
        match relayed {
            true => assert_eq!(relayed_bytes(&actions), sign(&asked)),
            false => assert_eq!(denied(&actions), 67),
        }
    }
}

/// §12: forgeries use up no challenge, and void none.
// Shows 4721-3.2.1-b, 4721-12-c, attack-19.
#[test]
fn a_forger_voids_nobodys_challenge() {
    let mut world = challenger(|_| {});
    let used = newest(&mut world);
    let asked = request(world.timestamp());
    relayed_bytes(&world.visit(&answering(&asked, &used)));
    let fresh = given(&world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60)));
    let forger = association(400, Algorithm::HmacMd5);
    for index in 0..50 {
        let asked = request(world.timestamp());
        let mut writer = MessageWriter::relay(&sign(&asked));
        writer.extension(&Extension::Challenge(&fresh)).unwrap();
        writer.authenticate(AuthenticationKind::MobileForeign, &forger);
        let actions = world.visit(&writer.finish());
        // One denial a second is sent.
        assert_eq!(transmits(&actions).len(), usize::from(index == 0));
        if index == 0 {
            assert_eq!(denial(&actions), (67, fresh.clone()));
        }
    }
    relayed_bytes(&answer(&mut world, &fresh));
}

/// §2.1: who asks gets what was advertised last, however often.
// Shows 4721-2.1-a, 4721-2.1-b, 4721-2.1-c.
#[test]
fn solicitations_neither_use_up_nor_void_challenges() {
    let mut world = challenger(|_| {});
    let newest = newest(&mut world);
    let icmp = AgentSolicitation.emit();
    let solicit = |world: &mut World, source: Ipv4Addr| {
        world.millis += 501;
        world.agent.handle_solicitation(TENANT, VISITED, NODE_MAC, source, 1, &icmp, world.now());
        world.drain().iter().find_map(advertised).expect("an answer")
    };
    world.agent.handle_timeout(world.now());
    world.drain();
    let mut quiet = advertiser_config();
    quiet.unsolicited = false;
    let mut agent = foreign_agent_config();
    agent.challenge = ChallengePolicy::Required;
    agent.security.insert_mobile_node(NODE, mobile_foreign());
    world.agent.handle_config(
        AgentConfig {
            foreign_agents: vec![agent],
            advertisers: vec![quiet],
            ..AgentConfig::default()
        },
        world.now(),
    );
    for _ in 0..10 {
        assert_eq!(solicit(&mut world, Ipv4Addr::UNSPECIFIED), newest);
        assert_eq!(solicit(&mut world, NODE), newest);
    }
    relayed_bytes(&answer(&mut world, &newest));
    // What a node has used is of no use to it: it gets another, and always the same.
    let mine = solicit(&mut world, NODE);
    assert_ne!(mine, newest);
    assert_eq!(solicit(&mut world, NODE), mine);
    assert_eq!(solicit(&mut world, OTHER_NODE), newest);
    relayed_bytes(&answer(&mut world, &mine));
}

/// §3.2: while it is pending, the same with another identification is the same.
// Shows 4721-3.2-c, 4721-3.2-d.
#[test]
fn a_retransmission_of_what_is_pending_is_relayed_with_its_challenge() {
    let mut world = challenger(|_| {});
    let challenge = newest(&mut world);
    relayed_bytes(&answer(&mut world, &challenge));
    relayed_bytes(&answer(&mut world, &challenge));
    let asked = RegistrationRequest { lifetime: Lifetime(30), ..request(world.timestamp()) };
    relayed_bytes(&world.visit(&answering(&asked, &challenge)));
    // Another request is no retransmission.
    let mut asked = request(world.timestamp());
    asked.home_agent = Ipv4Addr::new(10, 0, 1, 3);
    assert_eq!(denied(&world.visit(&answering(&asked, &challenge))), 106);
    // Nor is one that comes when nothing is pending any more.
    world.pass(8_000);
    assert_eq!(denied(&answer(&mut world, &challenge)), 106);
}

#[test]
fn two_challenges_in_a_request_are_one_too_many() {
    let mut world = challenger(|_| {});
    let challenge = newest(&mut world);
    let asked = request(world.timestamp());
    let mut writer = MessageWriter::relay(&sign(&asked));
    writer.extension(&Extension::Challenge(&challenge)).unwrap();
    writer.extension(&Extension::Challenge(&challenge)).unwrap();
    writer.authenticate(AuthenticationKind::MobileForeign, &mobile_foreign());
    assert_eq!(denied(&world.visit(&writer.finish())), 70);
}

/// §3.2: challenge and mobile-AAA authentication are the home agent's, which alone
/// can tell: the challenge counts as used when it has.
// Shows 4721-3.2-a, 4721-3.2-k, 4721-3.3-f.
#[test]
fn a_challenge_under_a_mobile_aaa_authentication_is_relayed_with_it() {
    let stranger = Ipv4Addr::new(10, 9, 0, 1);
    let mut world = challenger(|_| {});
    let challenge = newest(&mut world);
    let ask = |world: &mut World| {
        let asked = RegistrationRequest { home_address: stranger, ..request(world.timestamp()) };
        let mut writer = MessageWriter::relay(&sign(&asked));
        writer.extension(&Extension::Challenge(&challenge)).unwrap();
        let authenticator = &[9; 16];
        let aaa = Extension::GeneralizedAuthentication { subtype: 1, spi: Spi(2), authenticator };
        writer.extension(&aaa).unwrap();
        (asked, writer.finish())
    };
    let (asked, message) = ask(&mut world);
    assert_eq!(relayed_bytes(&world.visit(&message)), message);
    world.answer(&reply_to(&asked, ReplyCode::HA_PROHIBITED, 60));
    let (asked, message) = ask(&mut world);
    assert_eq!(relayed_bytes(&world.visit(&message)), message);
    world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    let (_, message) = ask(&mut world);
    assert_eq!(denied(&world.visit(&message)), 106);
}

/// §3.2: in front of what the agents sign.
// Shows 4721-3.2-l.
#[test]
fn a_relayed_challenge_stands_before_the_foreign_home_authentication() {
    let mut world = challenger(|config| config.security.insert_agent(HOME_AGENT, foreign_home()));
    let challenge = newest(&mut world);
    let home_address = Ipv4Addr::new(10, 9, 0, 1);
    let asked = RegistrationRequest { home_address, ..request(world.timestamp()) };
    let mut writer = MessageWriter::relay(&sign(&asked));
    writer.extension(&Extension::Challenge(&challenge)).unwrap();
    let authenticator = &[9; 16];
    let aaa = Extension::GeneralizedAuthentication { subtype: 1, spi: Spi(2), authenticator };
    writer.extension(&aaa).unwrap();
    let message = writer.finish();
    let relayed = relayed_bytes(&world.visit(&message));
    assert_eq!(relayed, append(&message, AuthenticationKind::ForeignHome, &foreign_home()));
}

/// §3.3: what the home agent gives back is not the node's, which gets one of ours.
// Shows 4721-3.3-c.
#[test]
fn the_challenge_that_a_home_agent_gives_back_is_taken_out() {
    let mut world = challenger(|_| {});
    let challenge = newest(&mut world);
    let asked = request(world.timestamp());
    relayed_bytes(&world.visit(&answering(&asked, &challenge)));
    let mut writer = MessageWriter::relay(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    writer.extension(&Extension::Challenge(&challenge)).unwrap();
    let actions = world.answer(&writer.finish());
    assert_ne!(given(&actions), challenge);
    let bytes = udp(transmits(&actions)[0]).2;
    let reply = parse_reply(bytes);
    let challenges = reply.extensions().iter();
    let challenges = challenges.filter(|one| matches!(one.extension, Extension::Challenge(_)));
    assert_eq!(challenges.count(), 1);
}

/// §3.3: that its AAA server does not believe it is the home agent's to say.
// Shows 4721-3.3-j.
#[test]
fn ha_bad_aaa_auth_is_relayed() {
    let mut world = challenger(|_| {});
    let challenge = newest(&mut world);
    let asked = request(world.timestamp());
    relayed_bytes(&world.visit(&answering(&asked, &challenge)));
    let actions = world.answer(&reply_to(&asked, ReplyCode(144), 0));
    assert_eq!(the_code(&actions), 144);
    assert_eq!(world.agent.visitors().count(), 0);
}

/// Whose challenge cannot be remembered could use it again.
#[test]
fn a_node_that_cannot_be_remembered_is_denied_with_66() {
    let mut world = challenger(|config| {
        config.max_visitors = 0;
        config.max_pending = 1;
    });
    let challenge = newest(&mut world);
    let away = |world: &mut World, home_address, challenge: &[u8]| {
        let asked = RegistrationRequest {
            home_address,
            lifetime: Lifetime::ZERO,
            ..request(world.timestamp())
        };
        let actions = world.visit(&answering(&asked, challenge));
        world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 0));
        actions
    };
    relayed_bytes(&away(&mut world, NODE, &challenge));
    assert_eq!(denied(&away(&mut world, OTHER_NODE, &challenge)), 66);
    // When the first one's is out of the window, it need not be remembered.
    let challenge = hear(&mut world, 3_000).pop().unwrap();
    relayed_bytes(&away(&mut world, OTHER_NODE, &challenge));
}

/// RFC 4721 §3.4: what comes behind the mobile-home authentication goes back there,
/// under the foreign-home authentication.
// Shows 4721-3.4-a, 4721-3.4-b.
#[test]
fn a_home_agent_gives_a_foreign_agents_challenge_back() {
    let mut world = World::home(|config| config.security.insert_agent(FOREIGN, foreign_home()));
    let asked = request(world.timestamp());
    let mut writer = MessageWriter::relay(&sign(&asked));
    writer.extension(&Extension::Challenge(&[5; 24])).unwrap();
    writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home());
    let actions = world.relay(FOREIGN, &writer.finish());
    assert_eq!(the_code(&actions), 0);
    let transmit = transmits(&actions)[0];
    let reply = parse_reply(udp(transmit).2);
    let [_, challenge, authentication] = reply.extensions() else { panic!("{reply:?}") };
    assert_eq!(challenge.extension, Extension::Challenge(&[5; 24]));
    assert!(reply.verify(authentication, &foreign_home()));
}

#[derive(Clone, Debug)]
enum Step {
    Advertise,
    /// A node answers this challenge of all that it was given, counted from the last.
    Answer {
        node: bool,
        back: usize,
        signed: bool,
        accepted: bool,
    },
    Solicit {
        node: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Advertise),
        6 => (any::<bool>(), 0..6usize, proptest::bool::weighted(0.8), any::<bool>()).prop_map(
            |(node, back, signed, accepted)| Step::Answer { node, back, signed, accepted }
        ),
        1 => any::<bool>().prop_map(|node| Step::Solicit { node }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Row 19: whatever happens, a node's challenge is good once, only if it was one
    /// of the last two advertised or the node's own, and never after a later one; and
    /// what a node was given last by a reply is good.
    #[test]
    fn a_challenge_is_good_once_and_only_while_it_is_new(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = challenger(|config| config.max_lifetime = Lifetime(600));
        let mut advertised_so_far = hear(&mut world, 1_000);
        // All that each node has heard of, and all that it has used, in order.
        let mut heard = [advertised_so_far.clone(), advertised_so_far.clone()];
        let mut used: [Vec<Vec<u8>>; 2] = Default::default();
        let mut own: [Option<Vec<u8>>; 2] = [None, None];
        let icmp = AgentSolicitation.emit();
        for step in steps {
            match step {
                Step::Advertise => {
                    let new = hear(&mut world, 1_000);
                    heard.iter_mut().for_each(|heard| heard.extend(new.clone()));
                    advertised_so_far.extend(new);
                }
                Step::Solicit { node } => {
                    world.millis += 501;
                    let source = if node { NODE } else { OTHER_NODE };
                    let now = world.now();
                    world.agent.handle_solicitation(
                        TENANT, VISITED, NODE_MAC, source, 1, &icmp, now,
                    );
                    if let Some(challenge) = world.drain().iter().find_map(advertised) {
                        prop_assert!(!used[usize::from(node)].contains(&challenge));
                        heard[usize::from(node)].push(challenge.clone());
                        // What everybody was given is good for as long as for everybody.
                        if !advertised_so_far.contains(&challenge) {
                            own[usize::from(node)] = Some(challenge);
                        }
                    }
                }
                Step::Answer { node, back, signed, accepted } => {
                    // One denial a second is sent.
                    let new = hear(&mut world, 1_000);
                    heard.iter_mut().for_each(|heard| heard.extend(new.clone()));
                    advertised_so_far.extend(new);
                    let index = usize::from(node);
                    let home_address = if node { NODE } else { OTHER_NODE };
                    let asked =
                        RegistrationRequest { home_address, ..request(world.timestamp()) };
                    let heard_of = &mut heard[index];
                    let challenge = heard_of[heard_of.len().saturating_sub(back + 1)].clone();
                    let mut message = answering(&asked, &challenge);
                    if !signed {
                        *message.last_mut().unwrap() ^= 1;
                    }
                    let actions = world.send(&Datagram { ..visiting(&message) });
                    let relayed = transmits(&actions)[0].destination == HOME_AGENT;
                    let in_window = advertised_so_far.iter().rev().take(2).any(|one| *one == challenge);
                    let is_own = own[index].as_ref() == Some(&challenge);
                    if relayed {
                        prop_assert!(signed);
                        prop_assert!(in_window || is_own);
                        prop_assert!(!used[index].contains(&challenge), "used twice");
                        used[index].push(challenge.clone());
                        own[index] = None;
                        let code = if accepted { 0 } else { 129 };
                        let actions = world.answer(&reply_to(&asked, ReplyCode(code), 60));
                        let fresh = given(&actions);
                        prop_assert!(!used[index].contains(&fresh));
                        heard[index].push(fresh.clone());
                        if !advertised_so_far.contains(&fresh) {
                            own[index] = Some(fresh);
                        }
                    } else {
                        let (code, fresh) = denial(&actions);
                        let right = match (signed, used[index].contains(&challenge)) {
                            (false, _) => code == 67,
                            (true, true) => code == 106 || code == 104,
                            (true, false) => code == 104 && !is_own || code == 106,
                        };
                        prop_assert!(right, "{code} {signed} {in_window} {is_own}");
                        prop_assert!(back > 0 || !signed, "what it was given last is good: {code}");
                        prop_assert!(!used[index].contains(&fresh));
                        heard[index].push(fresh.clone());
                        if !advertised_so_far.contains(&fresh) {
                            own[index] = Some(fresh);
                        }
                    }
                }
            }
        }
    }
}
