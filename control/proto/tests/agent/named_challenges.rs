//! Keys and challenges of nodes that a foreign agent knows by NAI, and of their sessions
//! (RFC 2794, RFC 4721). S1-07, S1-11.

use core::net::Ipv4Addr;

use homeport_proto::config::{ChallengePolicy, ForeignAgentConfig, SessionInsertion};
use homeport_proto::decision::Cause;
use homeport_proto::message::{
    AuthenticationKind, Extension, MessageWriter, RegistrationReply, RegistrationRequest, ReplyCode,
};
use homeport_proto::security::{Algorithm, MobilitySecurityAssociation};
use homeport_proto::{Action, Datagram, Lifetime};

use super::challenges::{challenger, newest};
use super::decisions::decided;
use super::foreign_agent::{denied, relayed_bytes};
use super::support::*;
use super::tunnels::signed as naming;

const NAI: &[u8] = b"phone@train.example";
const NAME: Extension<'_> = Extension::NetworkAccessIdentifier(NAI);

fn pooled(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, host)
}

fn by_nai(config: &mut ForeignAgentConfig) {
    config.security = Default::default();
    config
        .security
        .insert_nai(b"phone@TRAIN.example", None, mobile_foreign(), Lifetime::INFINITE)
        .unwrap();
    config.require_mobile_foreign_authentication = true;
}

/// A foreign agent that knows nodes by NAI and challenges them.
fn named_challenger(change: impl FnOnce(&mut ForeignAgentConfig)) -> World {
    challenger(|config| {
        by_nai(config);
        change(config);
    })
}

/// The same without challenges.
fn unchallenged() -> World {
    named_challenger(|config| config.challenge = ChallengePolicy::Off)
}

fn asking(world: &mut World, home_address: Ipv4Addr) -> RegistrationRequest {
    RegistrationRequest { home_address, ..request(world.timestamp()) }
}

/// A session's request, signed for the foreign agent behind what it answers.
fn signed(message: &[u8], challenge: Option<&[u8]>, key: &MobilitySecurityAssociation) -> Vec<u8> {
    let mut writer = MessageWriter::relay(message);
    if let Some(challenge) = challenge {
        writer.extension(&Extension::Challenge(challenge)).unwrap();
    }
    writer.authenticate(AuthenticationKind::MobileForeign, key);
    writer.finish()
}

fn session(world: &mut World, sub_nai: &[u8], challenge: &[u8]) -> (RegistrationRequest, Vec<u8>) {
    let asked = asking(world, Ipv4Addr::UNSPECIFIED);
    let message = naming(&asked, &[NAME, Extension::SubNai(sub_nai)]);
    (asked, signed(&message, Some(challenge), &mobile_foreign()))
}

/// The home agent's reply that gives an address.
fn giving(asked: &RegistrationRequest, host: u8, names: &[Extension<'_>]) -> Vec<u8> {
    let mut writer = MessageWriter::reply(&RegistrationReply {
        code: ReplyCode::ACCEPTED,
        lifetime: asked.lifetime,
        home_address: pooled(host),
        home_agent: asked.home_agent,
        identification: asked.identification,
    });
    for extension in names {
        writer.extension(extension).unwrap();
    }
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    writer.finish()
}

/// The challenge of the only reply, which the foreign agent has signed with the NAI's key.
fn given(actions: &[Action]) -> Option<Vec<u8>> {
    let reply = parse_reply(udp(transmits(actions)[0]).2);
    let last = reply.extensions().last().unwrap();
    assert!(reply.verify(last, &mobile_foreign()), "{reply:?}");
    reply.extensions().iter().find_map(|one| match one.extension {
        Extension::Challenge(challenge) => Some(challenge.to_vec()),
        _ => None,
    })
}

fn cause(actions: &[Action]) -> Cause {
    decided(actions).ruling.cause
}

#[test]
fn a_session_is_known_by_its_nai_whatever_its_home_address_is() {
    let mut world = unchallenged();
    let sub_nai = Extension::SubNai(b"\x00\xff");
    let combined = Extension::CombinedSession { nai: NAI, sub_nai: b"camera" };
    for (host, names) in [(100, &[NAME, sub_nai][..]), (101, &[combined]), (102, &[NAME])] {
        let asked = asking(&mut world, Ipv4Addr::UNSPECIFIED);
        let message = naming(&asked, names);
        let visit = world.visit(&signed(&message, None, &mobile_foreign()));
        assert_eq!(relayed_bytes(&visit), message);
        let actions = world.answer(&giving(&asked, host, names));
        assert_eq!((the_code(&actions), given(&actions)), (0, None));
        // With the address that it has now, renewed and given back.
        for lifetime in [asked.lifetime, Lifetime::ZERO] {
            let asked = RegistrationRequest { lifetime, ..asking(&mut world, pooled(host)) };
            let message = naming(&asked, names);
            let visit = world.visit(&signed(&message, None, &mobile_foreign()));
            assert_eq!(relayed_bytes(&visit), message);
            assert_eq!(the_code(&world.answer(&giving(&asked, host, names))), 0);
        }
    }
    assert_eq!(world.agent.visitors().count(), 0);
}

#[test]
fn who_has_not_the_key_of_its_nai_is_denied_with_67() {
    let forger = association(400, Algorithm::HmacMd5);
    let other = Extension::NetworkAccessIdentifier(b"other@train.example");
    let sub_nai = Extension::SubNai(b"a");
    // The number that stands for the NAI where associations are found is nobody's address.
    let number = Ipv4Addr::new(0, 0, 0, 1);
    let none = Ipv4Addr::UNSPECIFIED;
    let cases: [(Ipv4Addr, &[Extension<'_>], _, Cause); 6] = [
        (none, &[NAME, sub_nai], Some(&forger), Cause::VisitorWrongKey),
        (none, &[NAME, sub_nai], None, Cause::VisitorUnsigned),
        (NODE, &[NAME], None, Cause::VisitorUnsigned),
        (none, &[other, sub_nai], Some(&forger), Cause::VisitorNotTrusted),
        (number, &[], Some(&forger), Cause::VisitorNotTrusted),
        (NODE, &[], Some(&forger), Cause::VisitorNotTrusted),
    ];
    for (home_address, names, key, expected) in cases {
        let mut world = unchallenged();
        let asked = asking(&mut world, home_address);
        let message = naming(&asked, names);
        let message = key.map_or(message.clone(), |key| signed(&message, None, key));
        let before = world.state();
        let actions = world.visit(&message);
        assert_eq!(cause(&actions), expected, "{home_address} {names:?}");
        assert_eq!(denied(&actions), 67);
        assert_eq!(world.state(), before);
    }
    // Whose names are wrong is told so under its key.
    let mut world = unchallenged();
    let asked = asking(&mut world, none);
    let message = naming(&asked, &[NAME, sub_nai, sub_nai]);
    let actions = world.visit(&signed(&message, None, &mobile_foreign()));
    assert_eq!((denied(&actions), given(&actions)), (70, None));
}

/// A node may be known both ways; that its NAI is not known makes it nobody else.
#[test]
fn without_a_known_nai_a_node_is_known_by_its_home_address() {
    let mut world = challenger(|config| {
        config.challenge = ChallengePolicy::Off;
        config.require_mobile_foreign_authentication = true;
    });
    for names in [&[][..], &[NAME]] {
        let asked = asking(&mut world, NODE);
        let message = naming(&asked, names);
        assert_eq!(denied(&world.visit(&message)), 67);
        world.pass(1_100);
        let visit = world.visit(&signed(&message, None, &mobile_foreign()));
        assert_eq!(relayed_bytes(&visit), message);
    }
}

/// RFC 4721 §3.2: each remembers what it has used by itself.
// Shows attack-19.
#[test]
fn sessions_that_start_at_once_answer_one_challenge_and_a_replay_is_denied_with_106() {
    let mut world = named_challenger(|_| {});
    let challenge = newest(&mut world);
    let names: [&[u8]; 4] = [b"camera", b"\x00\xff", b"tablet", b""];
    let mut sent = Vec::new();
    for name in names.iter().take(3) {
        let (asked, message) = session(&mut world, name, &challenge);
        relayed_bytes(&world.visit(&message));
        sent.push((asked, message));
    }
    // The node itself is one more.
    let asked = asking(&mut world, Ipv4Addr::UNSPECIFIED);
    let message = signed(&naming(&asked, &[NAME]), Some(&challenge), &mobile_foreign());
    relayed_bytes(&world.visit(&message));
    sent.push((asked, message));
    assert_eq!(world.counters().foreign_challenges_answered, 4);
    for (host, ((asked, _), name)) in (100..).zip(sent.iter().zip(names)) {
        let sub_nai = Extension::SubNai(name);
        let extensions = if name.is_empty() { &[NAME][..] } else { &[NAME, sub_nai] };
        let actions = world.answer(&giving(asked, host, extensions));
        let fresh = given(&actions).unwrap();
        assert_ne!(fresh, challenge);
        sent_again(&mut world, name, &fresh);
    }
    // One denial a second is sent.
    world.pass(1_100);
    for (at, (_, message)) in sent.iter().enumerate() {
        let actions = world.visit(message);
        assert_eq!(cause(&actions), Cause::StaleChallenge);
        if at == 0 {
            assert_eq!(denied(&actions), 106);
            assert_ne!(given(&actions), Some(challenge.clone()));
        }
    }
}

/// What a reply has given a session is good for it, and for no other.
fn sent_again(world: &mut World, name: &[u8], fresh: &[u8]) {
    let (_, message) = session(world, b"another", fresh);
    let actions = world.visit(&message);
    assert_eq!(cause(&actions), Cause::UnknownChallenge);
    let own = if name.is_empty() { &[NAME][..] } else { &[NAME, Extension::SubNai(name)] };
    let asked = asking(world, Ipv4Addr::UNSPECIFIED);
    relayed_bytes(&world.visit(&signed(&naming(&asked, own), Some(fresh), &mobile_foreign())));
}

/// Who repeats a request can say something of it, or send it from elsewhere: it is the
/// same answer.
// Shows attack-19.
#[test]
fn what_agents_say_of_a_session_makes_no_replay_fresh() {
    let inserting = |config: &mut ForeignAgentConfig| {
        config.session_insertion = SessionInsertion::Mac;
        config.security.insert_agent(HOME_AGENT, foreign_home());
    };
    let mut world = named_challenger(inserting);
    let challenge = newest(&mut world);
    let asked = asking(&mut world, Ipv4Addr::UNSPECIFIED);
    let message = signed(&naming(&asked, &[NAME]), Some(&challenge), &mobile_foreign());
    relayed_bytes(&world.visit(&message));
    // The link-layer address that it comes from is not what the node has signed.
    let elsewhere = Datagram { source_mac: ROUTER_MAC, ..visiting(&message) };
    assert_eq!(cause(&world.send(&elsewhere)), Cause::StaleChallenge);
    world.pass(8_000);
    // Nor is a name behind its signature.
    let mut world = named_challenger(|_| {});
    let challenge = newest(&mut world);
    let asked = asking(&mut world, Ipv4Addr::UNSPECIFIED);
    let message = signed(&naming(&asked, &[NAME]), Some(&challenge), &mobile_foreign());
    relayed_bytes(&world.visit(&message));
    world.answer(&giving(&asked, 100, &[NAME]));
    let mut writer = MessageWriter::relay(&message);
    writer.extension(&Extension::SubNai(b"another")).unwrap();
    assert_eq!(cause(&world.visit(&writer.finish())), Cause::StaleChallenge);
}

/// RFC 4721 §3.2: the NAI must be that of the pending request.
// Shows 4721-3.2-d.
#[test]
fn one_session_is_no_retransmission_of_another() {
    let mut world = named_challenger(|_| {});
    let challenge = newest(&mut world);
    let (asked, message) = session(&mut world, b"a", &challenge);
    relayed_bytes(&world.visit(&message));
    world.answer(&giving(&asked, 100, &[NAME, Extension::SubNai(b"a")]));
    let (_, message) = session(&mut world, b"b", &challenge);
    relayed_bytes(&world.visit(&message));
    // While b's is pending, b may repeat itself, and a may not.
    let (_, message) = session(&mut world, b"b", &challenge);
    relayed_bytes(&world.visit(&message));
    let (_, message) = session(&mut world, b"a", &challenge);
    assert_eq!(cause(&world.visit(&message)), Cause::StaleChallenge);
}

/// NAIs have other numbers after each change of the config.
#[test]
fn a_reply_is_signed_with_the_key_of_its_nai_after_a_new_config() {
    let mut world = unchallenged();
    let asked = asking(&mut world, Ipv4Addr::UNSPECIFIED);
    let names = [NAME, Extension::SubNai(b"a")];
    let message = naming(&asked, &names);
    relayed_bytes(&world.visit(&signed(&message, None, &mobile_foreign())));
    let mut agent = foreign_agent_config();
    let other = association(400, Algorithm::HmacMd5);
    agent.security.insert_nai(b"first@train.example", None, other, Lifetime::INFINITE).unwrap();
    let security = core::mem::take(&mut agent.security);
    by_nai(&mut agent);
    let mut all = security;
    all.insert_nai(NAI, None, mobile_foreign(), Lifetime::INFINITE).unwrap();
    agent.security = all;
    let config =
        homeport_proto::config::AgentConfig { foreign_agents: vec![agent], ..Default::default() };
    world.agent.handle_config(config, world.now());
    let actions = world.answer(&giving(&asked, 100, &names));
    assert_eq!((the_code(&actions), given(&actions)), (0, None));
}
