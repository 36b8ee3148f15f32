//! A foreign agent's challenge, answered by hand-made agents (RFC 4721).

use super::*;
use crate::message::{Extension, Message};

fn shared() -> MobilitySecurityAssociation {
    association(257, ReplayProtection::default())
}

fn knows_the_agent() -> MobileNodeConfig {
    let mut config = config();
    config.security.insert_agent(FIRST, shared());
    config
}

fn challenging(challenge: &[u8], sequence: u16) -> Vec<u8> {
    let advertised = Advertised { sequence, ..Advertised::foreign(FIRST) };
    let mut advertisement = AgentAdvertisement::parse(&advertised.emit()).unwrap();
    advertisement.challenge = Some(challenge.to_vec());
    advertisement.emit()
}

impl World {
    fn hear_challenge(&mut self, challenge: &[u8], sequence: u16) {
        let icmp = challenging(challenge, sequence);
        self.input(|node, now| node.handle_advertisement(FIRST, mac_of(FIRST), &icmp, 1, now));
    }

    /// A denial of the agent's own, with the next challenge, signed or not.
    fn deny_with(&mut self, code: ReplyCode, challenge: Option<&[u8]>, sign: bool) {
        let mut writer = MessageWriter::reply(&self.last().reply(code, 0));
        if let Some(challenge) = challenge {
            writer.extension(&Extension::Challenge(challenge)).unwrap();
        }
        if sign {
            writer.authenticate(AuthenticationKind::MobileForeign, &shared());
        }
        self.receive(&writer.finish());
    }
}

/// The challenge that the last request answers, between both authentications.
fn answered(world: &World) -> Option<Vec<u8>> {
    let bytes = world.last().send.bytes;
    let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!() };
    match request.extensions() {
        [_, challenge, signed] if request.verify(signed, &shared()) => match challenge.extension {
            Extension::Challenge(challenge) => Some(challenge.to_vec()),
            other => panic!("{other:?}"),
        },
        _ => None,
    }
}

// Shows 4721-3.1-b, 4721-3.1-d, 4721-3.1-h, 4721-4-a, 3543-3.2-b.
#[test]
fn a_request_answers_the_newest_challenge_of_its_agent() {
    let mut world = World::up(knows_the_agent());
    world.hear_challenge(&[1; 8], 1);
    assert_eq!(answered(&world), Some(vec![1; 8]));
    world.hear_challenge(&[2; 8], 2);
    world.pass(1_500);
    assert_eq!(answered(&world), Some(vec![2; 8]), "sent once more, with what is new");
}

/// RFC 4721 §3.1: there is no answer without a key; and a challenge with no answer
/// behind it would be discarded.
#[test]
fn who_shares_nothing_with_the_agent_answers_nothing() {
    let mut world = World::up(config());
    world.hear_challenge(&[1; 8], 1);
    let bytes = world.last().send.bytes;
    let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!() };
    assert_eq!(request.extensions().len(), 1);
}

#[test]
fn the_challenge_of_a_reply_is_answered_by_the_renewal() {
    let mut world = World::up(knows_the_agent());
    world.hear_challenge(&[1; 8], 1);
    let reply = world.last().reply(ReplyCode::ACCEPTED, 100);
    let mut writer = MessageWriter::reply(&reply);
    writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
    writer.extension(&Extension::Challenge(&[9; 16])).unwrap();
    writer.authenticate(AuthenticationKind::MobileForeign, &shared());
    world.receive(&writer.finish());
    assert_eq!(world.node.phase(), Phase::Registered);
    // Advertisements without one void nothing.
    world.pass_hearing(50, &mut [Advertised { sequence: 10, ..Advertised::foreign(FIRST) }]);
    assert!(world.requests().len() > 1);
    assert_eq!(answered(&world), Some(vec![9; 16]));
}

/// §3.5: at once, with the challenge of the denial, and no more often than any other
/// correction.
// Shows 4721-3.5-a.
#[test]
fn a_denial_with_a_new_challenge_is_answered_at_once() {
    for code in
        [ReplyCode::UNKNOWN_CHALLENGE, ReplyCode::MISSING_CHALLENGE, ReplyCode::STALE_CHALLENGE]
    {
        let mut world = World::up(knows_the_agent());
        world.hear_challenge(&[1; 8], 1);
        world.deny_with(code, Some(&[2; 8]), true);
        assert_eq!(answered(&world), Some(vec![2; 8]));
        world.deny_with(code, Some(&[3; 8]), true);
        assert_eq!(answered(&world), Some(vec![3; 8]));
        let sent = world.requests().len();
        world.deny_with(code, Some(&[4; 8]), true);
        assert_eq!(world.requests().len(), sent, "the agent is given up for a while");
    }
    // The same once more would get the same answer.
    for challenge in [None, Some(&[1; 8][..])] {
        let mut world = World::up(knows_the_agent());
        world.hear_challenge(&[1; 8], 1);
        world.deny_with(ReplyCode::STALE_CHALLENGE, challenge, true);
        assert_eq!(world.requests().len(), 1);
    }
}

/// What a reply gives may be known for the session alone that it answers.
#[test]
fn the_challenge_of_a_sessions_reply_is_answered_by_that_session_alone() {
    let mut config = MobileNodeConfig { nai: Some(b"phone@x".to_vec()), ..knows_the_agent() };
    config.agents_by_nai.insert(FIRST);
    let mut world = World::up(config);
    for name in [b"a", b"b"] {
        world.input(|node, now| node.add_session(name, None, now).unwrap());
    }
    world.hear_challenge(&[1; 8], 1);
    let sent = world.requests();
    let [own, a, b] = &sent[..] else { panic!("{}", sent.len()) };
    assert!([own, a, b].iter().all(|sent| answer_in(sent) == [1; 8]));
    let reply = |sent: &Sent, given: &[u8]| {
        let mut writer = MessageWriter::reply(&sent.reply(ReplyCode::STALE_CHALLENGE, 0));
        writer.extension(&Extension::Challenge(given)).unwrap();
        writer.authenticate(AuthenticationKind::MobileForeign, &shared());
        writer.finish()
    };
    for (sent, given) in [(a, [2; 8]), (b, [3; 8]), (own, [4; 8])] {
        world.receive(&reply(sent, &given));
        assert_eq!(answer_in(&world.last()), given);
    }
    // Sent once more, each has its own still, until there is a newer advertisement.
    let answers = |world: &World, from: usize| {
        let mut answers: Vec<_> = world.requests()[from..].iter().map(answer_in).collect();
        answers.sort();
        answers.dedup();
        answers
    };
    let from = world.requests().len();
    // Heard again, it is not new.
    world.hear_challenge(&[1; 8], 2);
    world.pass(1_500);
    assert_eq!(answers(&world, from), [[2; 8], [3; 8], [4; 8]]);
    world.hear_challenge(&[5; 8], 3);
    let from = world.requests().len();
    world.pass(2_000);
    assert_eq!(answers(&world, from), [[5; 8]]);
}

/// The challenge that a request answers.
fn answer_in(sent: &Sent) -> [u8; 8] {
    let Ok(Message::Request(request)) = Message::parse(&sent.send.bytes) else { panic!() };
    let signed = request.extensions().last().unwrap();
    assert!(request.verify(signed, &shared()));
    let mut challenges = request.extensions().iter().filter_map(|one| match one.extension {
        Extension::Challenge(challenge) => Some(challenge),
        _ => None,
    });
    challenges.next().unwrap().try_into().unwrap()
}

#[test]
fn a_challenge_that_the_agent_has_not_signed_is_not_taken() {
    let mut world = World::up(knows_the_agent());
    world.hear_challenge(&[1; 8], 1);
    world.deny_with(ReplyCode::STALE_CHALLENGE, Some(&[2; 8]), false);
    assert_eq!(world.discards(), [DiscardReason::BadMobileForeignAuthenticator]);
    assert_eq!(world.requests().len(), 1);
}
