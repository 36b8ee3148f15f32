//! Denials that say in words why (RFC 4917). B-11.

use core::net::Ipv4Addr;

use homeport_proto::Action;
use homeport_proto::config::{ChallengePolicy, ForeignAgentConfig, HomeAgentConfig};
use homeport_proto::message::{
    AuthenticationKind, Extension, MessageString, RegistrationRequest, TextOrigin,
};

use crate::support::*;
use crate::tunnels::signed;

fn home(configure: fn(&mut HomeAgentConfig)) -> World {
    World::home(|config| {
        config.message_strings = true;
        configure(config);
    })
}

fn foreign(configure: fn(&mut ForeignAgentConfig)) -> World {
    World::foreign(|config| {
        config.message_strings = true;
        configure(config);
    })
}

fn full(config: &mut HomeAgentConfig) {
    config.max_bindings = 0;
}

fn reply_bytes(actions: &[Action]) -> Vec<u8> {
    udp(transmits(actions)[0]).2.to_vec()
}

/// What the only reply says, and to whom it is attributed.
fn says(actions: &[Action]) -> Option<(TextOrigin, String)> {
    let bytes = reply_bytes(actions);
    let reply = parse_reply(&bytes);
    assert_eq!(reply.defect(), None);
    MessageString::of(&reply).map(|text| (text.origin, text.to_string()))
}

fn of_home_agent(text: &str) -> Option<(TextOrigin, String)> {
    Some((TextOrigin::HomeAgent, text.into()))
}

fn of_foreign_agent(text: &str) -> Option<(TextOrigin, String)> {
    Some((TextOrigin::ForeignAgent, text.into()))
}

/// A request that is longer by a network access identifier.
fn padded(request: &RegistrationRequest, len: usize) -> Vec<u8> {
    signed(request, &[Extension::NetworkAccessIdentifier(&vec![b'n'; len])])
}

fn spoil(message: &mut [u8]) {
    *message.last_mut().unwrap() ^= 1;
}

// Shows 4917-3-a, 4917-5-a.
#[test]
fn a_home_agents_text_stands_under_its_signature() {
    let mut world = home(full);
    let asked = request(world.timestamp());
    let actions = world.relay(FOREIGN, &sign(&asked));
    assert_eq!(the_code(&actions), 130);
    let text = "The home agent has as many bindings as it may hold.";
    assert_eq!(says(&actions), of_home_agent(text));
    // It is covered: another text, and the authenticator is wrong.
    let mut bytes = reply_bytes(&actions);
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    assert_eq!(&bytes[at - 3..at], [145, u8::try_from(text.len() + 1).unwrap(), 1]);
    bytes[at] ^= 1;
    let forged = parse_reply(&bytes);
    let signature = *forged.mobile_home_authentication().unwrap();
    assert!(!forged.verify(&signature, &mobile_home()));
}

#[test]
fn nothing_is_said_by_default_nor_when_all_is_well() {
    let mut world = World::home(full);
    let asked = request(world.timestamp());
    let denied = world.relay(FOREIGN, &sign(&asked));
    assert_eq!((the_code(&denied), says(&denied)), (130, None));
    let mut world = home(|_| {});
    let asked = request(world.timestamp());
    let accepted = world.relay(FOREIGN, &sign(&asked));
    assert_eq!((the_code(&accepted), says(&accepted)), (0, None));
    let mut world = World::foreign(|config| config.administratively_prohibited = true);
    let asked = request(world.timestamp());
    assert_eq!(says(&world.visit(&padded(&asked, 200))), None);
}

/// The node's user is told how wrong its clock is, at the care-of address that the node
/// has signed. From elsewhere it may be a copy, sent to flood whoever is there.
#[test]
fn a_clock_is_told_where_the_node_says_it_is_and_nobody_else() {
    let asked = |world: &mut World| {
        world.millis += 3_600_000;
        let mut asked = request(world.timestamp());
        asked.identification.0 -= 60 << 32;
        sign(&asked)
    };
    let text = "The node's clock is 60 s behind the home agent's.";
    let mut world = home(|_| {});
    let message = asked(&mut world);
    let actions = world.relay(FOREIGN, &message);
    assert_eq!((the_code(&actions), says(&actions)), (133, of_home_agent(text)));
    let actions = world.relay(STRANGER, &message);
    assert_eq!((the_code(&actions), says(&actions)), (133, None));
    assert!(reply_bytes(&actions).len() <= message.len());
}

/// Reliability row 10: what is not authentic gets no more bytes than it sent, whatever
/// its length.
#[test]
fn a_denial_of_what_is_not_authentic_is_never_longer_than_the_request() {
    let (mut long, mut short, mut none) = (0, 0, 0);
    for len in 1..220 {
        let mut world = home(|_| {});
        let mut message = padded(&request(world.timestamp()), len);
        spoil(&mut message);
        let actions = world.relay(FOREIGN, &message);
        assert_eq!(the_code(&actions), 131);
        assert!(reply_bytes(&actions).len() <= message.len(), "{len}");
        match says(&actions) {
            None => none += 1,
            Some((_, text)) if text == "wrong key" => short += 1,
            Some(_) => long += 1,
        }

        let mut world = foreign(|config| config.administratively_prohibited = true);
        let message = padded(&request(world.timestamp()), len);
        let actions = world.visit(&message);
        assert_eq!(the_reply(&actions).code.0, 65);
        assert!(reply_bytes(&actions).len() <= message.len(), "{len}");

        // A challenge of either agent takes its room too.
        let mut world = foreign(|config| {
            config.administratively_prohibited = true;
            config.challenge = ChallengePolicy::Offered;
        });
        let message = padded(&request(world.timestamp()), len);
        let actions = world.visit(&message);
        assert_eq!(the_reply(&actions).code.0, 65);
        assert!(reply_bytes(&actions).len() <= message.len(), "{len}");
        let mut world = home(|_| {});
        let mut message = padded(&request(world.timestamp()), len);
        spoil(&mut message);
        message.extend([132, 16]);
        message.extend([7; 16]);
        let reply = reply_bytes(&world.relay(FOREIGN, &message));
        assert!(reply.ends_with(&[7; 16]) && reply.len() <= message.len(), "{len}");
    }
    assert!(long > 100 && short > 10 && none > 4, "{long} {short} {none}");
}

// Shows 4917-5-b, 4917-5-c.
#[test]
fn a_foreign_agent_says_what_there_is_room_for() {
    let mut world = foreign(|config| config.administratively_prohibited = true);
    let asked = request(world.timestamp());
    let actions = world.visit(&sign(&asked));
    assert_eq!(says(&actions), of_foreign_agent("not admitted"));
    let mut world = foreign(|config| config.administratively_prohibited = true);
    let asked = request(world.timestamp());
    let actions = world.visit(&padded(&asked, 80));
    let sentence = "The foreign agent admits nobody: it is switched off.";
    assert_eq!(says(&actions), of_foreign_agent(sentence));
    // To a node that has signed for it, all of it, under the signature of its own.
    let mut world = foreign(|config| {
        config.administratively_prohibited = true;
        config.security.insert_mobile_node(NODE, mobile_foreign());
    });
    let kind = AuthenticationKind::MobileForeign;
    let message = append(&sign(&request(world.timestamp())), kind, &mobile_foreign());
    let actions = world.visit(&message);
    assert_eq!(says(&actions), of_foreign_agent(sentence));
    let bytes = reply_bytes(&actions);
    let reply = parse_reply(&bytes);
    let signature = *reply.authentications(kind).next().unwrap();
    assert!(reply.verify(&signature, &mobile_foreign()));
    assert_eq!(signature.end, bytes.len(), "the last extension, over the text too");
}

/// RFC 5944 §3.7.3.2: what the home agent has signed, its text included, goes on as it
/// came.
#[test]
fn a_foreign_agent_relays_the_home_agents_text() {
    let (mut at_home, mut visited) = (home(full), foreign(|_| {}));
    let asked = request(visited.timestamp());
    at_home.millis = visited.millis;
    let relayed = reply_bytes(&visited.visit(&sign(&asked)));
    let denial = reply_bytes(&at_home.relay(FOREIGN, &relayed));
    let actions = visited.answer(&denial);
    assert_eq!(reply_bytes(&actions), denial);
    let text = "The home agent has as many bindings as it may hold.";
    assert_eq!(says(&actions), of_home_agent(text));
    assert_eq!(transmits(&actions)[0].destination, Ipv4Addr::new(10, 1, 0, 10));
}
