//! Names without end, each to be remembered for the challenge that it has answered: who
//! makes them up costs the others nothing. (RFC 4721 §12)

use core::net::Ipv4Addr;

use homeport_proto::Lifetime;
use homeport_proto::config::ForeignAgentConfig;
use homeport_proto::decision::Cause;
use homeport_proto::message::{
    AuthenticationKind, Extension, MessageWriter, RegistrationReply, RegistrationRequest, ReplyCode,
};
use homeport_proto::security::Spi;

use super::challenges::{challenger, newest};
use super::decisions::decided;
use super::support::*;
use super::tunnels::signed as naming;

const GREEDY: &[u8] = b"greedy@train.example";
const MODEST: &[u8] = b"modest@train.example";

/// Places for twenty answers: ten for one NAI.
fn world(change: impl FnOnce(&mut ForeignAgentConfig)) -> World {
    challenger(|config| {
        config.security = Default::default();
        for nai in [GREEDY, MODEST] {
            config.security.insert_nai(nai, None, mobile_foreign(), Lifetime::INFINITE).unwrap();
        }
        (config.max_visitors, config.max_pending) = (10, 10);
        change(config);
    })
}

/// A session says that it goes: its answer and its home agent's reply.
fn goes(
    world: &mut World,
    (nai, sub_nai): (&[u8], &[u8]),
    challenge: &[u8],
) -> (Cause, Option<Vec<u8>>) {
    let names = [Extension::NetworkAccessIdentifier(nai), Extension::SubNai(sub_nai)];
    let asked = RegistrationRequest {
        home_address: Ipv4Addr::new(10, 1, 0, 100),
        lifetime: Lifetime::ZERO,
        ..request(world.timestamp())
    };
    let mut writer = MessageWriter::relay(&naming(&asked, &names));
    writer.extension(&Extension::Challenge(challenge)).unwrap();
    if ![GREEDY, MODEST].contains(&nai) {
        let authenticator = &[9; 16];
        let aaa = Extension::GeneralizedAuthentication { subtype: 1, spi: Spi(2), authenticator };
        writer.extension(&aaa).unwrap();
    } else {
        writer.authenticate(AuthenticationKind::MobileForeign, &mobile_foreign());
    }
    let cause = decided(&world.visit(&writer.finish())).ruling.cause;
    if cause != Cause::Relayed {
        return (cause, None);
    }
    let mut writer = MessageWriter::reply(&RegistrationReply {
        code: ReplyCode::ACCEPTED,
        lifetime: Lifetime::ZERO,
        home_address: asked.home_address,
        home_agent: asked.home_agent,
        identification: asked.identification,
    });
    for extension in &names {
        writer.extension(extension).unwrap();
    }
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    let actions = world.answer(&writer.finish());
    let reply = parse_reply(udp(transmits(&actions)[0]).2);
    let given = reply.extensions().iter().find_map(|one| match one.extension {
        Extension::Challenge(challenge) => Some(challenge.to_vec()),
        _ => None,
    });
    (cause, given)
}

/// How many of a hundred names one after the other are taken.
fn taken(world: &mut World, nai: &[u8], first: u8, challenge: &[u8]) -> usize {
    let names = (first..).take(100).filter(|name| {
        let (cause, _) = goes(world, (nai, &[*name]), challenge);
        assert!([Cause::Relayed, Cause::AnswerersFull].contains(&cause), "{cause:?}");
        cause == Cause::Relayed
    });
    names.count()
}

// Shows attack-35.
#[test]
fn one_key_does_not_fill_the_places_of_all() {
    let mut world = world(|_| {});
    let challenge = newest(&mut world);
    assert_eq!(taken(&mut world, GREEDY, 0, &challenge), 10);
    assert_eq!(world.counters().answerers_refused, 90);
    assert_eq!(taken(&mut world, MODEST, 0, &challenge), 10);
    // It may go on with those that it has.
    let (cause, _) = goes(&mut world, (GREEDY, &[9]), &challenge);
    assert_eq!(cause, Cause::StaleChallenge);
}

/// What a reply has given a node is good until it comes again, whoever else comes.
// Shows attack-35.
#[test]
fn one_key_makes_nobody_elses_challenge_void() {
    let mut world = world(|_| {});
    let challenge = newest(&mut world);
    let given: Vec<_> =
        (0..10u8).map(|name| goes(&mut world, (MODEST, &[name]), &challenge).1.unwrap()).collect();
    for round in 0..10 {
        let challenge = newest(&mut world);
        // At most ten of those, and none that it has used can be used again.
        assert_eq!(taken(&mut world, GREEDY, 100 * (round % 2), &challenge), 10);
        world.pass(5_000);
    }
    for (name, challenge) in (0..).zip(&given) {
        assert_eq!(goes(&mut world, (MODEST, &[name]), challenge).0, Cause::Relayed, "{name}");
    }
    for (name, challenge) in (0..).zip(&given) {
        let (cause, _) = goes(&mut world, (MODEST, &[name]), challenge);
        assert_eq!(cause, Cause::StaleChallenge, "{name}");
    }
}

/// Anybody's home agent accepts anybody's names.
// Shows attack-35.
#[test]
fn who_has_no_key_does_not_fill_the_places_of_those_that_have_one() {
    let mut world = world(|_| {});
    let challenge = newest(&mut world);
    for name in 0..100u8 {
        // What the home agent has done is done, remembered or not.
        let nai = [b'x', name];
        assert_eq!(goes(&mut world, (&nai, b"a"), &challenge).0, Cause::Relayed);
    }
    assert_eq!(world.counters().answerers_refused, 90);
    assert_eq!(taken(&mut world, MODEST, 0, &challenge), 10);
}

/// Twice as many as it may have visitors: as many come where as many have gone.
#[test]
fn a_nai_that_may_have_few_visitors_has_few_places() {
    for (visitors, places) in [(1, 2), (3, 6), (7, 10), (0, 10)] {
        let mut world = world(|config| config.max_sessions_per_nai = visitors);
        let challenge = newest(&mut world);
        assert_eq!(taken(&mut world, GREEDY, 0, &challenge), places);
    }
}
