//! Why messages of challenges, of home agents that the network chooses, and of
//! revocations were decided as they were: each cause by a real message.

use core::net::Ipv4Addr;

use homeport_proto::config::Redirection;
use homeport_proto::decision::{Answer, Cause, Decision, Judge, Standing, Subject};
use homeport_proto::event::Event;
use homeport_proto::message::{
    AuthenticationKind, Extension, MessageWriter, RegistrationRequest, RegistrationRevocation,
    ReplyCode,
};
use homeport_proto::{Action, Lifetime};

use crate::assignment::{ANY, OTHER, asking, assigning, open};
use crate::challenges::{answer, answering, challenger, newest};
use crate::decisions::{Case, decided};
use crate::revocation::{
    THIRD, acknowledging, bind, foreign, home, passed, revocation, revocations, seconds, signed,
    supporting, to_foreign, to_home, visit,
};
use crate::support::*;

/// One for each of their causes.
pub(crate) const CASES: &[Case] = &[
    (Cause::Redirected, || {
        let mut world = assigning(Some(OTHER), Redirection::Always);
        let asked = open(&mut world, ANY[0]);
        decided(&world.relay(FOREIGN, &asking(&asked, None)))
    }),
    (Cause::NoHomeAgent, || {
        let mut world = World::foreign(|_| {});
        let asked = open(&mut world, ANY[0]);
        decided(&world.visit(&asking(&asked, None)))
    }),
    (Cause::VisitorSaysRevocable, || {
        let mut world = World::foreign(|_| {});
        let asked = request(world.timestamp());
        decided(&world.visit(&supporting(&asked, true, 1)))
    }),
    (Cause::MissingChallenge, || answered(NODE, |_| Vec::new(), true)),
    (Cause::UnknownChallenge, || answered(NODE, |_| vec![vec![7; 16]], true)),
    (Cause::TwoChallenges, || answered(NODE, |one| vec![one.clone(), one], true)),
    (Cause::ChallengeUnsigned, || answered(UNSHARED, |one| vec![one], false)),
    (Cause::ChallengeUnproven, || answered(UNSHARED, |one| vec![one], true)),
    (Cause::StaleChallenge, || {
        let mut world = challenger(|_| {});
        let challenge = newest(&mut world);
        assert_eq!(decided(&answer(&mut world, &challenge)).ruling.cause, Cause::Relayed);
        world.millis += 2_000;
        world.pass(5_001);
        decided(&answer(&mut world, &challenge))
    }),
    (Cause::AnswerersFull, || {
        let mut world = challenger(|config| (config.max_visitors, config.max_pending) = (0, 1));
        let challenge = newest(&mut world);
        let mut last = None;
        for home_address in [NODE, OTHER_NODE] {
            let lifetime = Lifetime::ZERO;
            let asked = request(world.timestamp());
            let asked = RegistrationRequest { home_address, lifetime, ..asked };
            last = Some(decided(&world.visit(&answering(&asked, &challenge))));
            world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 0));
        }
        last.unwrap()
    }),
    (Cause::Revoked, || at_home(|now| signed(&revocation(false, now + 2)))),
    (Cause::RevokedBefore, || {
        let mut world = home();
        bind(&mut world, FOREIGN);
        let now = seconds(&world);
        to_home(&mut world, &signed(&revocation(false, now + 2)));
        decided(&to_home(&mut world, &signed(&revocation(false, now + 3))))
    }),
    (Cause::RevocationAcknowledged, || {
        let mut world = home();
        bind(&mut world, FOREIGN);
        world.millis += 2_000;
        world.agent.clear_binding(TENANT, NODE, world.now());
        let [(_, sent)] = revocations(&world.drain())[..] else { panic!() };
        decided(&to_home(&mut world, &acknowledging(&sent, false)))
    }),
    (Cause::RevocationReflected, || at_home(|now| signed(&revocation(true, now + 2)))),
    (Cause::RevocationMalformed, || {
        at_home(|now| [&revocation(false, now + 2).emit()[..], &[131, 9]].concat())
    }),
    (Cause::RevocationUnsigned, || at_home(|now| revocation(false, now + 2).emit().to_vec())),
    (Cause::RevocationUnknownSpi, || {
        let mut world = home();
        bind(&mut world, FOREIGN);
        let message = signed(&revocation(false, seconds(&world) + 2));
        decided(&world.relay(STRANGER, &message))
    }),
    (Cause::RevocationWrongKey, || {
        at_home(|now| {
            let mut bytes = signed(&revocation(false, now + 2));
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        })
    }),
    (Cause::RevocationOfAnother, || {
        at_home(|now| {
            let other = revocation(false, now + 2);
            signed(&RegistrationRevocation { home_agent: STRANGER, ..other })
        })
    }),
    (Cause::RevocationElsewhere, || {
        at_foreign(|now| {
            let other = revocation(true, now + 2);
            signed(&RegistrationRevocation { care_of_address: STRANGER, ..other })
        })
    }),
    (Cause::RevocationReplayed, || at_home(|now| signed(&revocation(false, now)))),
    (Cause::RevocationNotAgreed, || {
        let mut world = home();
        bind(&mut world, FOREIGN);
        let message = signed(&revocation(false, seconds(&world) + 2));
        decided(&world.relay(THIRD, &message))
    }),
    (Cause::RevocationNotRegistered, || {
        at_foreign(|now| {
            let other = revocation(true, now + 2);
            signed(&RegistrationRevocation { home_address: OTHER_NODE, ..other })
        })
    }),
    (Cause::AcknowledgementNotAwaited, || {
        at_home(|now| acknowledging(&revocation(false, now + 2), false))
    }),
];

/// A node that the challenging foreign agent shares no key with.
const UNSHARED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// A request with what `challenges` makes of the newest challenge.
fn answered(
    home_address: Ipv4Addr,
    challenges: fn(Vec<u8>) -> Vec<Vec<u8>>,
    is_signed: bool,
) -> Decision {
    let mut world = challenger(|_| {});
    let newest = newest(&mut world);
    let asked = RegistrationRequest { home_address, ..request(world.timestamp()) };
    let mut writer = MessageWriter::relay(&sign(&asked));
    for challenge in challenges(newest) {
        writer.extension(&Extension::Challenge(&challenge)).unwrap();
    }
    if is_signed {
        writer.authenticate(AuthenticationKind::MobileForeign, &mobile_foreign());
    }
    decided(&world.visit(&writer.finish()))
}

/// What comes to a home agent where the node is bound, from its foreign agent.
fn at_home(build: fn(u32) -> Vec<u8>) -> Decision {
    let mut world = home();
    bind(&mut world, FOREIGN);
    let message = build(seconds(&world));
    decided(&to_home(&mut world, &message))
}

/// What comes to a foreign agent where the node visits, from its home agent.
fn at_foreign(build: fn(u32) -> Vec<u8>) -> Decision {
    let mut world = foreign();
    visit(&mut world, true);
    let message = build(seconds(&world));
    decided(&to_foreign(&mut world, &message))
}

#[test]
fn a_node_is_told_which_home_agent_it_was_sent_to() {
    let (_, run) = CASES.iter().find(|(cause, _)| *cause == Cause::Redirected).unwrap();
    let sentence = run().ruling.sentence().to_string();
    assert!(sentence.ends_with(&format!("That is {OTHER}.")), "{sentence}");
}

/// What a revocation says is in its decision, at both ends.
#[test]
fn a_revocation_is_told_with_who_spoke_and_what_was_ended() {
    for (decision, judge) in [
        (at_home(|now| signed(&revocation(false, now + 2))), Judge::HomeAgent(HOME_AGENT)),
        (at_foreign(|now| signed(&revocation(true, now + 2))), Judge::ForeignAgent(FOREIGN)),
    ] {
        assert_eq!((decision.judge, decision.subject), (judge, Subject::Revocation));
        let request = &decision.request;
        let ends = (request.home_address, request.home_agent, request.care_of_address);
        assert_eq!(ends, (NODE, HOME_AGENT, FOREIGN));
        assert_eq!(request.lifetime, Lifetime::ZERO);
        let ruling = &decision.ruling;
        assert_eq!((ruling.cause, ruling.answer), (Cause::Revoked, Answer::Acknowledged));
        assert_eq!(ruling.standing, Standing::Authentic);
        assert_eq!(ruling.association.map(|(spi, _)| spi), Some(foreign_home().spi));
        assert_eq!(
            decision.extensions.spi(AuthenticationKind::ForeignHome).map(|spi| spi.0),
            Some(300)
        );
    }
    let mut world = foreign();
    visit(&mut world, true);
    world.millis += 2_000;
    world.agent.clear_visitor(TENANT, NODE, world.now());
    let [(_, sent)] = revocations(&world.drain())[..] else { panic!() };
    let decision = decided(&to_foreign(&mut world, &acknowledging(&sent, true)));
    assert_eq!(
        (decision.judge, decision.subject),
        (Judge::ForeignAgent(FOREIGN), Subject::Acknowledgement)
    );
    assert_eq!(decision.ruling.cause, Cause::RevocationAcknowledged);
    let request = &decision.request;
    assert_eq!((request.home_agent, request.care_of_address), (HOME_AGENT, FOREIGN));
    assert_eq!(request.identification.0 >> 32, u64::from(sent.identifier));
}

/// What merely names a node, or is about nobody known here, is not kept in its story.
#[test]
fn a_revocation_stands_by_what_its_sender_has_shown() {
    let standing = |cause: Cause| {
        let (_, run) = CASES.iter().find(|(other, _)| *other == cause).unwrap();
        run().ruling.standing
    };
    for (cause, expected) in [
        (Cause::RevocationUnsigned, Standing::Claimed),
        (Cause::RevocationUnknownSpi, Standing::Claimed),
        (Cause::RevocationWrongKey, Standing::Claimed),
        (Cause::RevocationReplayed, Standing::Copied),
        (Cause::RevocationNotAgreed, Standing::Copied),
        (Cause::RevocationNotRegistered, Standing::Unknown),
        (Cause::RevocationAcknowledged, Standing::Authentic),
        (Cause::RevokedBefore, Standing::Authentic),
    ] {
        assert_eq!(standing(cause), expected, "{cause:?}");
    }
}

/// A revocation that nobody answers, and an unasked one, tell no decision of their own.
#[test]
fn what_an_agent_sends_unasked_is_no_decision() {
    let mut world = home();
    bind(&mut world, FOREIGN);
    world.millis += 2_000;
    world.agent.clear_binding(TENANT, NODE, world.now());
    let mut actions = world.drain();
    actions.extend(passed(&mut world, 60_000));
    assert!(revocations(&actions).len() > 1);
    let is_decision = |action: &Action| matches!(action, Action::Event(Event::Decision(_)));
    assert!(!actions.iter().any(is_decision), "{actions:?}");
}
