//! Looking ahead changes nothing but when replies are sent, whatever it looks at.

use core::net::Ipv4Addr;

use homeport_proto::config::HomeAgentConfig;
use homeport_proto::message::{ReplyCode, RequestFlags};
use homeport_proto::{Action, Datagram, Instant, Lifetime};
use proptest::prelude::*;

use crate::sessions::{Ask, NAI, OTHER_NAI, with_pool};
use crate::support::*;

/// What is done of each message, and the replies, each in its order.
type Parted = (Vec<Vec<Action>>, Vec<Action>);

fn parted(all: impl IntoIterator<Item = Vec<Action>>) -> Parted {
    let is_reply = |action: &Action| matches!(action, Action::Transmit(_));
    let (mut rest, mut replies) = (Vec::new(), Vec::new());
    for actions in all {
        let (of_it, others) = actions.into_iter().partition(is_reply);
        replies.extend::<Vec<_>>(of_it);
        rest.push(others);
    }
    (rest, replies)
}

/// Hands messages to two agents that are alike, one of which looks ahead at `seen`: what
/// that one does, and what the other does, parted.
fn handled(
    plain: &mut World,
    ahead: &mut World,
    messages: &[Vec<u8>],
    seen: &[&Vec<u8>],
) -> (Vec<Vec<Action>>, Parted) {
    ahead.agent.foresee(seen.iter().map(|message| relayed(FOREIGN, message)), |_, _| {});
    let expected = parted(messages.iter().map(|message| plain.relay(FOREIGN, message)));
    (messages.iter().map(|message| ahead.relay(FOREIGN, message)).collect(), expected)
}

/// They do the same, and the replies of that one are all there as soon as they are signed.
fn assert_alike(plain: &mut World, ahead: &mut World, messages: &[Vec<u8>], seen: &[&Vec<u8>]) {
    let (mut done, expected) = handled(plain, ahead, messages, seen);
    ahead.agent.sign_replies();
    done.push(ahead.drain());
    let (mut rest, replies) = parted(done);
    assert_eq!(rest.pop(), Some(Vec::new()));
    assert_eq!((rest, replies), expected);
    assert_eq!(ahead.state(), plain.state());
    assert_eq!(ahead.counters(), plain.counters());
}

fn two_worlds(change: impl Fn(&mut HomeAgentConfig)) -> (World, World) {
    (World::home(&change), World::home(&change))
}

/// Of a node that is known, of a stranger, forged, twice the same, and of one at home.
fn messages(world: &mut World) -> Vec<Vec<u8>> {
    let known = request(world.timestamp());
    let mut stranger = known;
    stranger.home_address = CO_LOCATED;
    let mut forged = sign(&known);
    *forged.last_mut().unwrap() ^= 1;
    let mut home = request(world.timestamp());
    home.lifetime = Lifetime::ZERO;
    home.flags = RequestFlags::REVERSE_TUNNEL;
    vec![forged, sign(&known), sign(&known), sign(&stranger), sign(&home)]
}

#[test]
fn requests_that_were_foreseen_are_answered_as_they_would_be() {
    let (mut plain, mut ahead) = two_worlds(|_| {});
    let messages = messages(&mut plain);
    ahead.millis = plain.millis;
    let mut about: Vec<Ipv4Addr> = Vec::new();
    let datagrams = messages.iter().map(|other| relayed(FOREIGN, other));
    ahead.agent.foresee(datagrams, |_, home_address| about.push(home_address));
    assert_eq!(about, [NODE, NODE, NODE, CO_LOCATED, NODE]);
    let seen: Vec<&Vec<u8>> = messages.iter().collect();
    assert_alike(&mut plain, &mut ahead, &messages, &seen);
}

#[test]
fn replies_are_sent_in_the_order_of_their_requests_when_they_are_signed() {
    let mut world = World::home(|_| {});
    let messages: Vec<_> = (0..9).map(|_| sign(&request(world.timestamp()))).collect();
    world.agent.foresee(messages.iter().map(|message| relayed(FOREIGN, message)), |_, _| {});
    for message in &messages {
        assert!(transmits(&world.relay(FOREIGN, message)).is_empty());
    }
    world.agent.sign_replies();
    let actions = world.drain();
    let identification = |bytes: &[u8]| bytes[12..20].to_vec();
    let replies: Vec<_> =
        transmits(&actions).iter().map(|one| identification(udp(one).2)).collect();
    let asked: Vec<_> = messages.iter().map(|message| message[16..24].to_vec()).collect();
    assert_eq!(replies, asked);
}

// Shows 5944-3.8.3.3-a.
#[test]
fn a_reply_that_was_held_is_signed_for_the_node_and_then_for_the_foreign_agent() {
    for ready in [true, false] {
        let (mut plain, mut ahead) = two_worlds(|config| {
            let algorithm = match ready {
                true => homeport_proto::security::Algorithm::HmacMd5,
                false => homeport_proto::security::Algorithm::HmacSha256,
            };
            config.security.insert_agent(FOREIGN, association(300, algorithm));
        });
        let messages = messages(&mut plain);
        ahead.millis = plain.millis;
        let seen: Vec<&Vec<u8>> = messages.iter().collect();
        let (mut done, expected) = handled(&mut plain, &mut ahead, &messages, &seen);
        assert!(transmits(&done.concat()).is_empty());
        ahead.agent.sign_replies();
        done.push(ahead.drain());
        let (_, replies) = parted(done);
        assert!(transmits(&replies).len() > 2);
        assert_eq!(replies, expected.1);
    }
}

#[test]
fn replies_that_nobody_signs_are_sent_by_the_next_timeout_which_is_due_at_once() {
    let mut world = World::home(|_| {});
    let messages = messages(&mut world);
    world.agent.foresee(messages.iter().map(|message| relayed(FOREIGN, message)), |_, _| {});
    assert!(transmits(&world.relay(FOREIGN, &messages[1])).is_empty());
    assert_eq!(world.agent.poll_timeout(), Some(Instant(0)));
    let now = world.now();
    world.agent.handle_timeout(now);
    assert_eq!(transmits(&world.drain()).len(), 1);
    assert_ne!(world.agent.poll_timeout(), Some(Instant(0)));
    // No longer.
    let next = sign(&request(world.timestamp()));
    assert_eq!(transmits(&world.relay(FOREIGN, &next)).len(), 1);
}

/// A message of a session or of a plain node.
#[derive(Clone, Debug)]
enum From {
    Session { nai: bool, upper: bool, name: u8, releases: bool },
    Node(bool),
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        4 => (any::<bool>(), any::<bool>(), 0..4u8, prop::bool::weighted(0.2)).prop_map(
            |(nai, upper, name, releases)| From::Session { nai, upper, name, releases }
        ),
        1 => any::<bool>().prop_map(From::Node),
    ]
}

proptest! {
    /// Sessions that begin, are renewed and end among those looked at; some look-ups see
    /// messages that never come, or come in another order.
    #[test]
    fn whatever_was_foreseen_sessions_get_the_addresses_that_they_would_get(
        rounds in prop::collection::vec(
            (prop::collection::vec(from(), 1..12), any::<bool>(), any::<prop::sample::Index>()),
            1..6,
        ),
    ) {
        let (mut plain, mut ahead) = two_worlds(|config| with_pool(config, 106));
        for (round, turned, unseen) in rounds {
            let messages: Vec<Vec<u8>> = round
                .iter()
                .map(|from| match *from {
                    From::Session { nai, upper, name, releases } => {
                        let upper_case: &[u8] = b"phone@TRAIN.example";
                        let name = [name];
                        let ask = match (nai, upper) {
                            (true, false) => Ask::new(&name).of(NAI),
                            (true, true) => Ask::new(&name).of(upper_case),
                            (false, _) => Ask::new(&name).of(OTHER_NAI),
                        };
                        let ask = if releases { ask.releases() } else { ask };
                        ask.message(&mut plain)
                    }
                    From::Node(other) => {
                        let mut asked = request(plain.timestamp());
                        asked.home_address = if other { OTHER_NODE } else { NODE };
                        sign(&asked)
                    }
                })
                .collect();
            ahead.millis = plain.millis;
            let mut seen: Vec<&Vec<u8>> = messages.iter().collect();
            if turned {
                seen.reverse();
                seen.remove(unseen.index(seen.len()));
            }
            assert_alike(&mut plain, &mut ahead, &messages, &seen);
        }
    }
}

#[test]
fn what_is_foreseen_is_whose_node_it_is_and_only_of_requests_to_a_home_agent_here() {
    let mut world = World::home(|_| {});
    let asked = request(world.timestamp());
    let message = sign(&asked);
    let mut foreseen = |datagram: Datagram<'_>| {
        let mut found = Vec::new();
        world.agent.foresee([datagram], |tenant, home_address| found.push((tenant, home_address)));
        found
    };
    assert_eq!(foreseen(relayed(FOREIGN, &message)), [(TENANT, NODE)]);
    let reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    assert_eq!(foreseen(relayed(FOREIGN, &reply)), []);
    assert_eq!(foreseen(relayed(FOREIGN, &message[..message.len().min(20)])), []);
    let mut elsewhere = asked;
    elsewhere.home_agent = STRANGER;
    let elsewhere = sign(&elsewhere);
    let datagram = Datagram { destination: STRANGER, ..relayed(FOREIGN, &elsewhere) };
    assert_eq!(foreseen(datagram), []);
}
