//! Whether two agents take part in revocations at all (RFC 3543 §4.2.1).

use super::*;

/// RFC 3543 §3.2, §4.2.1: both say it, under the key that they share, or neither does.
// Shows 3543-3.2-a, 3543-3.2-c, 3543-3.2-d, 3543-3.2-f, 3543-4.2.1-e.
#[test]
fn both_agents_say_that_they_take_part_where_they_share_a_key() {
    let mut world = home();
    let actions = bind(&mut world, FOREIGN);
    let reply = parse_reply(udp(transmits(&actions)[0]).2);
    let timestamp = seconds(&world);
    let support = RevocationSupport { inform: true, timestamp };
    let [_, said, authentication] = reply.extensions() else { panic!("{reply:?}") };
    assert_eq!(said.extension, Extension::RevocationSupport(support));
    assert!(reply.verify(authentication, &foreign_home()));
    // Not to who does not say it, says it where nothing signs it, or is not the agent of
    // the care-of address.
    let plain = |world: &mut World, flags: RequestFlags, support: Option<usize>| {
        let asked = RegistrationRequest { flags, ..request(world.timestamp()) };
        let said = Extension::RevocationSupport(RevocationSupport::default());
        let mut writer = MessageWriter::request(&asked);
        for part in 0..3 {
            if support == Some(part) {
                writer.extension(&said).unwrap();
            }
            match part {
                0 => drop(writer.authenticate(AuthenticationKind::MobileHome, &mobile_home())),
                1 => drop(writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home())),
                _ => {}
            }
        }
        let actions = world.relay(FOREIGN, &writer.finish());
        let reply = parse_reply(udp(transmits(&actions)[0]).2);
        assert!(reply.body.code.is_accepted());
        reply.extensions().len()
    };
    for support in [None, Some(0), Some(2)] {
        assert_eq!(plain(&mut world, RequestFlags::default(), support), 2);
    }
    assert_eq!(plain(&mut world, RequestFlags::default(), Some(1)), 3);
    assert_eq!(plain(&mut world, RequestFlags::CO_LOCATED, Some(1)), 2);
    let mut world = foreign();
    let asked = request(world.timestamp());
    let message = relayed_bytes(&world.visit(&sign(&asked)));
    let Ok(Message::Request(relayed)) = Message::parse(&message) else { panic!() };
    let [_, said, authentication] = relayed.extensions() else { panic!("{relayed:?}") };
    let support = RevocationSupport { inform: true, timestamp: seconds(&world) };
    assert_eq!(said.extension, Extension::RevocationSupport(support));
    assert!(relayed.verify(authentication, &foreign_home()));
    let away = RegistrationRequest { lifetime: Lifetime::ZERO, ..request(world.timestamp()) };
    assert_eq!(relayed_bytes(&world.visit(&sign(&away))), sign(&away), "nothing would sign it");
}

/// §3.2, §4.2.1: whether the node is told is the foreign agent's to offer, and without a
/// key nothing is agreed on.
// Shows 3543-3.2-i, 3543-4.2.1-d, 3543-4.2.3.2-f.
#[test]
fn a_home_agent_agrees_to_no_more_than_was_offered_under_a_key() {
    let mut world = home();
    let asked = request(world.timestamp());
    let timestamp = seconds(&world);
    let actions = world.relay(FOREIGN, &supporting(&asked, false, timestamp));
    let reply = parse_reply(udp(transmits(&actions)[0]).2);
    let support = RevocationSupport { inform: false, timestamp };
    assert_eq!(reply.extensions()[1].extension, Extension::RevocationSupport(support));
    let asks = RegistrationRevocation { inform: true, ..revocation(false, timestamp + 2) };
    let [acknowledged] = acknowledgements(&to_home(&mut world, &signed(&asks)))[..] else {
        panic!()
    };
    assert!(!acknowledged.inform);
    let mut world = World::home(|config| config.revocation = true);
    let mut writer = MessageWriter::relay(&sign(&request(world.timestamp())));
    writer.extension(&Extension::RevocationSupport(support)).unwrap();
    let actions = world.relay(FOREIGN, &writer.finish());
    let reply = parse_reply(udp(transmits(&actions)[0]).2);
    assert!(reply.body.code.is_accepted());
    assert_eq!(reply.extensions().len(), 1);
}

/// §3.2: a node through a foreign agent has nothing to say about it.
// Shows 3543-4.2.1-i.
#[test]
fn a_node_that_says_that_it_takes_part_is_discarded_by_its_foreign_agent() {
    let mut world = foreign();
    let mut writer = MessageWriter::request(&request(world.timestamp()));
    writer.extension(&Extension::RevocationSupport(RevocationSupport::default())).unwrap();
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    assert!(transmits(&world.visit(&writer.finish())).is_empty());
    assert_eq!(world.discarded(DiscardReason::Malformed), 1);
}

/// Without an agreement an operator's word is between him and his box.
// Shows 3543-4.2.1-b.
#[test]
fn what_was_not_agreed_on_is_not_revoked() {
    let mut world = World::home(|config| config.security.insert_agent(FOREIGN, foreign_home()));
    bind(&mut world, FOREIGN);
    world.millis += 2_000;
    world.agent.clear_binding(TENANT, NODE, world.now());
    assert!(transmits(&world.drain()).is_empty());
    let mut world = foreign();
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    let reply = reply_to(&asked, homeport_proto::message::ReplyCode::ACCEPTED, 60);
    world.answer(&append(&reply, AuthenticationKind::ForeignHome, &foreign_home()));
    world.millis += 2_000;
    assert_eq!(world.agent.clear_visitor(TENANT, NODE, world.now()), 1);
    assert!(transmits(&world.drain()).is_empty());
}
