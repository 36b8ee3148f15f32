//! A foreign agent's visitors by name: NAI and sub-NAI on their way through, what is
//! counted by NAI, and the denials of RFC 2794.

use core::net::Ipv4Addr;

use homeport_proto::config::{ForeignAgentConfig, SessionInsertion};
use homeport_proto::decision::{Cause, Decision};
use homeport_proto::message::{
    AuthenticationKind, Extension, Message, MessageWriter, RegistrationReply, RegistrationRequest,
    ReplyCode, SessionCarriage, SessionName,
};
use homeport_proto::visitor::Visitor;
use homeport_proto::{Action, Datagram, Lifetime, MacAddress};

use super::decisions::{Case, decided};
use super::foreign_agent::{denied, relayed_bytes};
use super::support::*;
use super::tunnels::signed as naming;

const NAI: &[u8] = b"phone@train.example";
const NAME: Extension<'_> = Extension::NetworkAccessIdentifier(NAI);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, host)
}

/// A request for a home address.
fn asking(world: &mut World) -> RegistrationRequest {
    RegistrationRequest { home_address: NOBODY, ..request(world.timestamp()) }
}

fn session(asked: &RegistrationRequest, sub_nai: &[u8]) -> Vec<u8> {
    naming(asked, &[NAME, Extension::SubNai(sub_nai)])
}

/// The home agent's reply that gives an address, with these extensions in front of the
/// mobile-home authentication and behind it.
fn giving(
    asked: &RegistrationRequest,
    home_address: Ipv4Addr,
    names: &[Extension<'_>],
    behind: &[Extension<'_>],
) -> Vec<u8> {
    let mut writer = MessageWriter::reply(&RegistrationReply {
        code: ReplyCode::ACCEPTED,
        lifetime: asked.lifetime,
        home_address,
        home_agent: asked.home_agent,
        identification: asked.identification,
    });
    for extension in names {
        writer.extension(extension).unwrap();
    }
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    for extension in behind {
        writer.extension(extension).unwrap();
    }
    writer.finish()
}

/// Registers a session, which gets this address.
fn register(world: &mut World, sub_nai: &[u8], host: u8) -> Vec<Action> {
    let asked = asking(world);
    relayed_bytes(&world.visit(&session(&asked, sub_nai)));
    let names = [NAME, Extension::SubNai(sub_nai)];
    world.answer(&giving(&asked, address(host), &names, &[]))
}

fn visitors(world: &World) -> Vec<Visitor> {
    world.agent.visitors().cloned().collect()
}

fn from_station(mac: MacAddress, payload: &[u8]) -> Datagram<'_> {
    Datagram { source_mac: mac, ..visiting(payload) }
}

// S1-06, S1-10, S1-12.
#[test]
fn three_sessions_of_one_station_start_at_once_and_each_reply_finds_its_own() {
    let mut world = World::foreign(|config| config.max_pending_per_node = 1);
    let names: [&[u8]; 3] = [b"camera", b"\x00\xff", b"tablet"];
    let mut asked: Vec<RegistrationRequest> = Vec::new();
    for name in names {
        let one = asking(&mut world);
        let message = session(&one, name);
        assert_eq!(relayed_bytes(&world.visit(&message)), message, "with all extensions");
        asked.push(one);
    }
    assert_eq!(world.agent.foreign_agents().next().unwrap().pending().count(), 3);
    // A second of the same name is one too many.
    let again = asking(&mut world);
    assert_eq!(denied(&world.visit(&session(&again, b"camera"))), 66);
    for (at, (one, name)) in asked.iter().zip(names).enumerate().rev() {
        let host = 100 + u8::try_from(at).unwrap();
        let names = [NAME, Extension::SubNai(name)];
        let actions = world.answer(&giving(one, address(host), &names, &[]));
        assert_eq!(the_code(&actions), 0);
        let transmit = transmits(&actions)[0];
        assert_eq!(
            (transmit.link, transmit.destination),
            (Some((VISITED, NODE_MAC)), address(host))
        );
        assert!(actions.iter().any(|action| matches!(
            action,
            Action::InstallVisitor(state) if state.home_address == address(host)
                && state.mac == NODE_MAC && state.home_agent == HOME_AGENT
        )));
    }
    for (visitor, (host, name)) in visitors(&world).iter().zip((100..).zip(names)) {
        assert_eq!(visitor.state.home_address, address(host));
        let known = visitor.name.as_ref().unwrap();
        assert_eq!((&*known.nai, &*known.sub_nai), (NAI, name));
    }
}

// S1-10.
#[test]
fn a_reply_with_another_name_is_nobodys_even_with_the_right_low_half() {
    let mut world = World::foreign(|_| {});
    let asked = asking(&mut world);
    relayed_bytes(&world.visit(&session(&asked, b"a")));
    let stranger = Extension::NetworkAccessIdentifier(b"other@train.example");
    for names in
        [vec![NAME, Extension::SubNai(b"b")], vec![NAME], vec![stranger, Extension::SubNai(b"a")]]
    {
        let actions = world.answer(&giving(&asked, address(100), &names, &[]));
        assert_eq!(decided(&actions).ruling.cause, Cause::NotPending);
    }
    assert!(visitors(&world).is_empty());
    let combined = Extension::CombinedSession { nai: NAI, sub_nai: b"a" };
    the_code(&world.answer(&giving(&asked, address(100), &[combined], &[])));
    assert_eq!(visitors(&world).len(), 1);
}

/// A home agent that has forgotten a session may know it by another address by now, and
/// answers with that one, whatever the session asks for.
// S1-10.
#[test]
fn a_session_that_is_known_by_another_address_is_told_so() {
    let mut world = World::foreign(|_| {});
    let names = [NAME, Extension::SubNai(b"a")];
    register(&mut world, b"a", 100);
    let asked = RegistrationRequest { home_address: address(100), ..asking(&mut world) };
    relayed_bytes(&world.visit(&session(&asked, b"a")));
    // To be told so takes the name.
    let actions = world.answer(&giving(&asked, address(101), &[], &[]));
    assert_eq!(decided(&actions).ruling.cause, Cause::NotPending);
    let actions = world.answer(&giving(&asked, address(101), &names, &[]));
    assert_eq!(the_code(&actions), 0);
    assert_eq!(transmits(&actions)[0].link, Some((VISITED, NODE_MAC)));
    let known: Vec<Ipv4Addr> =
        visitors(&world).iter().map(|visitor| visitor.state.home_address).collect();
    assert_eq!(known, [address(101)]);
    // Two that ask alike, for different addresses, cannot be told apart.
    let asked = asking(&mut world);
    for (mac, host) in [(NODE_MAC, 101), (MacAddress([2, 0, 0, 0, 9, 9]), 102)] {
        let asked = RegistrationRequest { home_address: address(host), ..asked };
        let message = session(&asked, b"a");
        relayed_bytes(&world.send(&from_station(mac, &message)));
    }
    let actions = world.answer(&giving(&asked, address(103), &names, &[]));
    assert_eq!(decided(&actions).ruling.cause, Cause::NotPending);
}

/// RFC 2794 §3: 70 is ours, 97 to 99 are its own.
// S1-06.
#[test]
fn who_is_named_twice_or_wrongly_is_denied_with_70_and_who_is_not_with_97() {
    let (one, other) = (Extension::SubNai(b"a"), Extension::SubNai(b"b"));
    let cases: [(&[Extension<'_>], u8); 5] = [
        (&[NAME, NAME], 70),
        (&[NAME, one, other], 70),
        (&[one], 70),
        (&[Extension::NetworkAccessIdentifier(b"")], 70),
        (&[], 97),
    ];
    for (extensions, code) in cases {
        let mut world = World::foreign(|_| {});
        let asked = asking(&mut world);
        let before = world.state();
        assert_eq!(denied(&world.visit(&naming(&asked, extensions))), code, "{extensions:?}");
        assert_eq!(world.state(), before);
    }
}

// Shows 2794-3-d, 2794-3-f.
#[test]
fn a_reply_that_gives_no_address_names_no_home_agent_or_no_nai_is_denied() {
    let names: [Extension<'_>; 2] = [NAME, Extension::SubNai(b"a")];
    for (code, home_address, home_agent, names) in [
        (97, address(100), HOME_AGENT, &names[..0]),
        (98, address(100), NOBODY, &names[..]),
        (99, NOBODY, HOME_AGENT, &names[..]),
    ] {
        let mut world = World::foreign(|_| {});
        let asked = asking(&mut world);
        relayed_bytes(&world.visit(&session(&asked, b"a")));
        let told = RegistrationRequest { home_agent, ..asked };
        assert_eq!(denied(&world.answer(&giving(&told, home_address, names, &[]))), code);
        assert!(visitors(&world).is_empty());
    }
    // A home agent that knows nothing of NAIs may still serve who has an address.
    let mut world = World::foreign(|_| {});
    let asked = request(world.timestamp());
    relayed_bytes(&world.visit(&naming(&asked, &[NAME])));
    assert_eq!(the_code(&world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60))), 0);
}

// S1-11.
#[test]
fn a_nai_has_as_many_visitors_as_it_may_and_who_is_one_may_stay_and_go() {
    let mut world = World::foreign(|config| config.max_sessions_per_nai = 2);
    register(&mut world, b"a", 100);
    register(&mut world, b"b", 101);
    let third = asking(&mut world);
    let actions = world.visit(&session(&third, b"c"));
    assert_eq!(decided(&actions).session.unwrap().to_string(), "c");
    assert_eq!(decided(&actions).ruling.cause, Cause::SessionsOfNaiFull);
    assert_eq!(denied(&actions), 66);
    assert_eq!(world.counters().visitors_over_nai_limit, 1);
    // Another NAI has a share of its own.
    let other = [Extension::NetworkAccessIdentifier(b"x@y"), Extension::SubNai(b"a")];
    let asked = asking(&mut world);
    relayed_bytes(&world.visit(&naming(&asked, &other)));
    // A renewal, by address or without.
    world.millis += 1_000;
    let known = RegistrationRequest { home_address: address(100), ..asking(&mut world) };
    relayed_bytes(&world.visit(&session(&known, b"a")));
    let known = asking(&mut world);
    relayed_bytes(&world.visit(&session(&known, b"b")));
    // Who leaves makes room.
    let leaves = RegistrationRequest {
        home_address: address(100),
        lifetime: Lifetime::ZERO,
        ..asking(&mut world)
    };
    relayed_bytes(&world.visit(&session(&leaves, b"a")));
    the_code(&world.answer(&giving(&leaves, address(100), &[NAME, Extension::SubNai(b"a")], &[])));
    the_code(&register(&mut world, b"c", 102));
    assert_eq!(visitors(&world).len(), 2);
}

// S1-11.
#[test]
fn those_that_were_asked_for_together_do_not_get_past_the_limit() {
    let mut world = World::foreign(|config| config.max_sessions_per_nai = 1);
    let mut asked = Vec::new();
    for name in [b"a", b"b"] {
        let one = asking(&mut world);
        relayed_bytes(&world.visit(&session(&one, name)));
        asked.push((one, name));
    }
    let codes = asked.iter().zip(100..).map(|((one, name), host)| {
        let names = [NAME, Extension::SubNai(*name)];
        the_reply(&world.answer(&giving(one, address(host), &names, &[]))).code.0
    });
    assert_eq!(codes.collect::<Vec<_>>(), [0, 66]);
    assert_eq!(visitors(&world).len(), 1);
}

// S1-11.
#[test]
fn a_station_asks_for_a_nai_as_often_in_a_minute_as_it_may() {
    let mut world = World::foreign(|config| config.requests_per_minute_per_nai = 3);
    let visit = |world: &mut World, mac, name: Extension<'_>| {
        let asked = asking(world);
        let message = naming(&asked, &[name]);
        let decision = decided(&world.send(&from_station(mac, &message)));
        let code = decision.ruling.cause.code().map_or(0, |code| code.0);
        world.pass(7_000);
        (decision.ruling.cause, code)
    };
    for _ in 0..3 {
        assert_eq!(visit(&mut world, NODE_MAC, NAME).0, Cause::Relayed);
    }
    // Seven seconds each have passed: one has come back, and is used.
    assert_eq!(visit(&mut world, NODE_MAC, NAME).0, Cause::Relayed);
    assert_eq!(visit(&mut world, NODE_MAC, NAME), (Cause::NaiRateLimited, 66));
    assert_eq!(world.counters().requests_over_nai_rate, 1);
    // Neither another station's share nor another NAI's is used up by that.
    assert_eq!(visit(&mut world, ROUTER_MAC, NAME).0, Cause::Relayed);
    let other = Extension::NetworkAccessIdentifier(b"x@y");
    assert_eq!(visit(&mut world, NODE_MAC, other).0, Cause::Relayed);
}

fn inserting(config: &mut ForeignAgentConfig) {
    config.session_insertion = SessionInsertion::Mac;
    config.security.insert_agent(HOME_AGENT, foreign_home());
}

// S1-04.
#[test]
fn a_node_without_sub_nai_gets_its_link_layer_address_for_one() {
    let mut world = World::foreign(inserting);
    let asked = asking(&mut world);
    let message = naming(&asked, &[NAME]);
    let relayed = relayed_bytes(&world.visit(&message));
    assert_eq!(&relayed[..message.len()], message, "what the node has signed is as it was");
    let Ok(Message::Request(received)) = Message::parse(&relayed) else { panic!() };
    let named = SessionName::of(&received).unwrap().unwrap();
    assert_eq!((named.name.nai, named.name.sub_nai), (NAI, &NODE_MAC.0[..]));
    assert!(named.inserted);
    assert_eq!(named.carriage, SessionCarriage::Separate);
    // The foreign-home authentication covers it.
    let [.., inserted, signature] = received.extensions() else { panic!() };
    assert_eq!(inserted.extension, Extension::SubNai(&NODE_MAC.0));
    assert!(received.verify(signature, &foreign_home()));
    let echo = [Extension::SubNai(&NODE_MAC.0)];
    let reply = giving(&asked, address(100), &[NAME], &echo);
    let node = giving(&asked, address(100), &[NAME], &[]);
    let reply = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
    let actions = world.answer(&reply);
    assert_eq!(udp(transmits(&actions)[0]).2, node, "the node is told nothing of it");
    let [visitor] = &visitors(&world)[..] else { panic!() };
    assert_eq!(&*visitor.name.as_ref().unwrap().sub_nai, &NODE_MAC.0);
}

// S1-04.
#[test]
fn nothing_is_inserted_where_nobody_would_believe_it() {
    type Configure = fn(&mut ForeignAgentConfig);
    type Ask = fn(&mut RegistrationRequest);
    let cases: [(Configure, Ask, &[Extension<'_>]); 5] = [
        (|config| config.session_insertion = SessionInsertion::Mac, |_| {}, &[NAME]),
        (|config| config.security.insert_agent(HOME_AGENT, foreign_home()), |_| {}, &[NAME]),
        (inserting, |_| {}, &[NAME, Extension::SubNai(b"a")]),
        (inserting, |asked| asked.lifetime = Lifetime::ZERO, &[NAME]),
        (inserting, |asked| asked.home_address = NODE, &[]),
    ];
    for (configure, ask, extensions) in cases {
        let mut world = World::foreign(configure);
        let mut asked = asking(&mut world);
        ask(&mut asked);
        let message = naming(&asked, extensions);
        let relayed = relayed_bytes(&world.visit(&message));
        let Ok(Message::Request(received)) = Message::parse(&relayed) else { panic!() };
        let behind = received.extensions().iter().skip(extensions.len() + 1);
        let signature = |one: &Extension<'_>| {
            matches!(one, Extension::Authentication { kind: AuthenticationKind::ForeignHome, .. })
        };
        assert!(behind.into_iter().all(|one| signature(&one.extension)), "{extensions:?}");
    }
}

// S1-14.
#[test]
fn a_session_that_gets_another_address_leaves_the_one_it_had() {
    let mut world = World::foreign(|_| {});
    register(&mut world, b"a", 100);
    register(&mut world, b"b", 101);
    let actions = register(&mut world, b"a", 102);
    assert!(actions.iter().any(|action| matches!(
        action,
        Action::RemoveVisitor { home_address, .. } if *home_address == address(100)
    )));
    let left: Vec<Ipv4Addr> = visitors(&world).iter().map(|one| one.state.home_address).collect();
    assert_eq!(left, [address(101), address(102)]);
}

// S1-14.
#[test]
fn who_gives_back_what_is_anothers_by_now_takes_it_from_nobody() {
    let mut world = World::foreign(|_| {});
    register(&mut world, b"a", 100);
    let release = |world: &mut World, name: &[u8]| {
        let asked = RegistrationRequest {
            home_address: address(100),
            lifetime: Lifetime::ZERO,
            ..asking(world)
        };
        let names = [NAME, Extension::SubNai(name), Extension::SessionRelease];
        relayed_bytes(&world.visit(&naming(&asked, &names)));
        the_code(&world.answer(&giving(&asked, address(100), &names[..2], &[])))
    };
    assert_eq!(release(&mut world, b"b"), 0);
    assert_eq!(visitors(&world).len(), 1);
    assert_eq!(release(&mut world, b"a"), 0);
    assert_eq!(visitors(&world).len(), 0);
}

// S1-14.
#[test]
fn when_all_sessions_are_given_back_those_of_the_station_go_and_the_node_stays() {
    let mut world = World::foreign(|_| {});
    let own = asking(&mut world);
    relayed_bytes(&world.visit(&naming(&own, &[NAME])));
    world.answer(&giving(&own, address(99), &[NAME], &[]));
    register(&mut world, b"a", 100);
    register(&mut world, b"b", 101);
    // The same user's, at another station.
    let asked = asking(&mut world);
    let message = session(&asked, b"c");
    relayed_bytes(&world.send(&from_station(ROUTER_MAC, &message)));
    world.answer(&giving(&asked, address(102), &[NAME, Extension::SubNai(b"c")], &[]));
    let all = RegistrationRequest { lifetime: Lifetime::ZERO, ..asking(&mut world) };
    relayed_bytes(&world.visit(&naming(&all, &[NAME, Extension::SessionRelease])));
    the_code(&world.answer(&giving(&all, NOBODY, &[NAME], &[])));
    let left: Vec<Ipv4Addr> = visitors(&world).iter().map(|one| one.state.home_address).collect();
    assert_eq!(left, [address(99), address(102)]);
}

fn named(
    configure: fn(&mut ForeignAgentConfig),
    extensions: &[Extension<'_>],
    before: fn(&mut World),
) -> Decision {
    let mut world = World::foreign(configure);
    before(&mut world);
    let asked = asking(&mut world);
    decided(&world.visit(&naming(&asked, extensions)))
}

fn replied(answer: fn(&RegistrationRequest) -> Vec<u8>) -> Decision {
    let mut world = World::foreign(|_| {});
    let asked = asking(&mut world);
    world.visit(&naming(&asked, &[NAME]));
    decided(&world.answer(&answer(&asked)))
}

/// One for each of their causes.
pub(crate) const CASES: &[Case] = &[
    (Cause::MissingNai, || named(|_| {}, &[], |_| {})),
    (Cause::VisitorBadName, || named(|_| {}, &[NAME, NAME], |_| {})),
    (Cause::SessionsOfNaiFull, || {
        named(
            |config| config.max_sessions_per_nai = 1,
            &[NAME],
            |world| drop(register(world, b"a", 100)),
        )
    }),
    (Cause::NaiRateLimited, || {
        named(
            |config| config.requests_per_minute_per_nai = 1,
            &[NAME],
            |world| drop(register(world, b"a", 100)),
        )
    }),
    (Cause::ReplyWithoutNai, || replied(|asked| giving(asked, NODE, &[], &[]))),
    (Cause::ReplyWithoutHomeAgent, || {
        replied(|asked| {
            giving(&RegistrationRequest { home_agent: NOBODY, ..*asked }, NODE, &[NAME], &[])
        })
    }),
    (Cause::ReplyWithoutHomeAddress, || replied(|asked| giving(asked, NOBODY, &[NAME], &[]))),
];
