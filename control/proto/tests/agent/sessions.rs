//! Sessions at a home agent: which address a request of a NAI gets. (S1-01, S1-05, S1-07,
//! S1-08, S1-09, S1-14, S1-15, S1-16, S1-17)

use core::net::Ipv4Addr;
use core::time::Duration;

use homeport_proto::action::StoredSession;
use homeport_proto::config::{
    AddressPool, AddressRange, AgentConfig, HomeAgentConfig, Reservation, SessionPolicy,
};
use homeport_proto::decision::{Cause, Decision, PlacementStep};
use homeport_proto::home_agent::SessionState;
use homeport_proto::message::{
    AuthenticationKind, Extension, MessageWriter, RegistrationReply, RegistrationRequest,
    SessionCarriage, SessionName,
};
use homeport_proto::security::MobilitySecurityAssociation;
use homeport_proto::{Action, Lifetime};

use crate::decisions::decided;
use crate::support::*;

pub(crate) const NAI: &[u8] = b"phone@train.example";
pub(crate) const OTHER_NAI: &[u8] = b"tablet@train.example";
const NO_ADDRESS: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn pooled(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

fn other_key() -> MobilitySecurityAssociation {
    association(258, homeport_proto::security::Algorithm::HmacSha256)
}

/// Two NAIs, and the pool 10.1.0.101 to 10.1.0.`last`.
pub(crate) fn with_pool(config: &mut HomeAgentConfig, last: u8) {
    let forever = Lifetime::INFINITE;
    config.security.insert_nai(NAI, None, mobile_home(), forever).unwrap();
    config.security.insert_nai(OTHER_NAI, Some(pooled(50)), other_key(), forever).unwrap();
    config.sessions = SessionPolicy {
        pools: vec![AddressPool {
            name: "train".into(),
            realm: Some("train.example".into()),
            ranges: vec![AddressRange { first: pooled(101), last: pooled(last) }],
            exclusions: Vec::new(),
        }],
        reservations: vec![Reservation {
            nai: NAI.to_vec(),
            sub_nai: b"printer".to_vec(),
            home_address: pooled(102),
        }],
        max_sessions_per_nai: 8,
        sticky: Duration::from_secs(3_000),
        hold_down: Duration::from_secs(30),
    };
}

fn world(last: u8) -> World {
    World::home(|config| with_pool(config, last))
}

/// What a session asks.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    nai: &'a [u8],
    sub_nai: &'a [u8],
    home_address: Ipv4Addr,
    care_of_address: Ipv4Addr,
    lifetime: u16,
    releases: bool,
    carriage: SessionCarriage,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(sub_nai: &'a [u8]) -> Self {
        Ask {
            nai: NAI,
            sub_nai,
            home_address: NO_ADDRESS,
            care_of_address: FOREIGN,
            lifetime: 60,
            releases: false,
            carriage: SessionCarriage::Separate,
        }
    }

    fn key(&self) -> MobilitySecurityAssociation {
        if self.nai == OTHER_NAI { other_key() } else { mobile_home() }
    }

    pub(crate) fn message(&self, world: &mut World) -> Vec<u8> {
        let mut writer = MessageWriter::request(&RegistrationRequest {
            lifetime: Lifetime(self.lifetime),
            home_address: self.home_address,
            care_of_address: self.care_of_address,
            ..request(world.timestamp())
        });
        let Ask { nai, sub_nai, .. } = *self;
        match self.carriage {
            SessionCarriage::Combined => {
                writer.extension(&Extension::CombinedSession { nai, sub_nai }).unwrap();
            }
            SessionCarriage::Separate => {
                writer.extension(&Extension::NetworkAccessIdentifier(nai)).unwrap();
                if !sub_nai.is_empty() {
                    writer.extension(&Extension::SubNai(sub_nai)).unwrap();
                }
            }
        }
        if self.releases {
            writer.extension(&Extension::SessionRelease).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, &self.key());
        writer.finish()
    }

    /// Sends it through the foreign agent: all that is done.
    fn send(&self, world: &mut World) -> Vec<Action> {
        let message = self.message(world);
        world.relay(FOREIGN, &message)
    }

    /// The same: the reply, whose authenticator and names must be right.
    fn reply(&self, world: &mut World) -> RegistrationReply {
        let actions = self.send(world);
        self.read(&actions)
    }

    fn read(&self, actions: &[Action]) -> RegistrationReply {
        the_code_under(actions, &self.key());
        let reply = parse_reply(udp(transmits(actions)[0]).2);
        let named = SessionName::of(&reply).unwrap().unwrap();
        assert_eq!(named.name, SessionName { nai: self.nai, sub_nai: self.sub_nai });
        assert_eq!((named.carriage, named.inserted), (self.carriage, false));
        reply.body
    }

    /// The same, accepted: the address.
    fn address(&self, world: &mut World) -> Ipv4Addr {
        let reply = self.reply(world);
        assert!(reply.code.is_accepted(), "{reply:?}");
        reply.home_address
    }

    fn decision(&self, world: &mut World) -> Decision {
        let message = self.message(world);
        decided(&world.relay(FOREIGN, &message))
    }

    fn at(self, home_address: Ipv4Addr) -> Self {
        Ask { home_address, ..self }
    }

    pub(crate) fn of(self, nai: &'a [u8]) -> Self {
        Ask { nai, ..self }
    }

    fn ends(self) -> Self {
        Ask { lifetime: 0, ..self }
    }

    pub(crate) fn releases(self) -> Self {
        Ask { lifetime: 0, releases: true, ..self }
    }

    fn home(self) -> Self {
        Ask { lifetime: 0, care_of_address: self.home_address, ..self }
    }
}

fn state(world: &World, address: Ipv4Addr) -> Option<SessionState> {
    let home_agent = world.agent.home_agents().next().unwrap();
    home_agent.session_at(address).map(|session| session.state)
}

// Shows 2794-3-c, 2794-3-e.
#[test]
fn each_session_gets_an_address_of_its_own_and_keeps_it() {
    let mut world = world(110);
    let (one, two) = (Ask::new(b"KleungPC1"), Ask::new(b"KleungPC2"));
    let actions = one.send(&mut world);
    let stored = |home_address, sub_nai: &[u8], kept| Action::StoreSession {
        tenant: TENANT,
        home_agent: HOME_AGENT,
        session: StoredSession { nai: NAI.into(), sub_nai: sub_nai.into(), home_address, kept },
    };
    let first = one.read(&actions).home_address;
    assert_eq!(actions[0], stored(pooled(101), b"KleungPC1", true));
    assert_eq!(first, pooled(101));
    assert_eq!(installed(&actions)[0].address, FOREIGN);
    // 102 is set aside.
    assert_eq!(two.address(&mut world), pooled(103));
    assert_eq!(Ask::new(b"printer").address(&mut world), pooled(102));
    // Another care-of address, the address named or not.
    for ask in [one, one.at(first)] {
        let elsewhere = Ask { care_of_address: STRANGER, ..ask };
        assert_eq!(elsewhere.decision(&mut world).ruling.step, Some(PlacementStep::Known));
        assert_eq!(elsewhere.address(&mut world), first);
    }
    let bindings: Vec<_> = world.agent.bindings().map(|one| one.home_address).collect();
    assert_eq!(bindings, [101, 102, 103].map(pooled));
    let home_agent = world.agent.home_agents().next().unwrap();
    let listed: Vec<_> = home_agent
        .sessions(Some(NAI))
        .into_iter()
        .map(|one| (one.sub_nai.to_vec(), one.home_address, one.state))
        .collect();
    let bound = |name: &[u8], last| (name.to_vec(), pooled(last), SessionState::Bound);
    let all = [bound(b"KleungPC1", 101), bound(b"KleungPC2", 103), bound(b"printer", 102)];
    assert_eq!(listed, all);
    let pools = home_agent.pools();
    assert_eq!((pools[0].count(SessionState::Bound), pools[0].free()), (3, 7));
    // The foreign agent sees only addresses.
    assert!(world.agent.home_agents().next().unwrap().binding(first).is_some());
}

/// S1-04: both names in one extension, and a name that a foreign agent has put there.
#[test]
fn a_name_is_answered_as_it_came() {
    let mut world = World::home(|config| {
        with_pool(config, 110);
        config.security.insert_agent(FOREIGN, foreign_home());
    });
    let combined = Ask { carriage: SessionCarriage::Combined, ..Ask::new(b"\x00\xff\n") };
    let signed = |message: &[u8]| append(message, AuthenticationKind::ForeignHome, &foreign_home());
    let message = signed(&combined.message(&mut world));
    let reply = combined.read(&world.relay(FOREIGN, &message));
    assert_eq!(reply.home_address, pooled(101));
    // Inserted: what the node has signed has no sub-NAI, nor has the answer to it.
    let plain = Ask::new(b"");
    let mut writer = MessageWriter::relay(&plain.message(&mut world));
    writer.extension(&Extension::SubNai(b"\x02\x00\x00\x00\x00\x10")).unwrap();
    let unsigned = writer.finish();
    let denied = decided(&world.relay(FOREIGN, &unsigned));
    assert_eq!(denied.ruling.cause, Cause::ForeignAgentUnsigned);
    let mut writer = MessageWriter::relay(&plain.message(&mut world));
    writer.extension(&Extension::SubNai(b"\x02\x00\x00\x00\x00\x10")).unwrap();
    writer.authenticate(AuthenticationKind::ForeignHome, &foreign_home());
    let actions = world.relay(FOREIGN, &writer.finish());
    let reply = parse_reply(udp(transmits(&actions)[0]).2);
    assert_eq!((reply.body.code.0, reply.body.home_address), (0, pooled(103)));
    let named = SessionName::of(&reply).unwrap().unwrap();
    assert!(named.inserted && named.name.sub_nai == b"\x02\x00\x00\x00\x00\x10");
    let last = *reply.extensions().last().unwrap();
    assert!(reply.verify(&last, &foreign_home()), "and the foreign-home authentication over it");
}

#[test]
fn a_name_that_nobody_answers_for_is_denied() {
    let mut world = world(110);
    let mut writer = MessageWriter::relay(&Ask::new(b"").message(&mut world));
    writer.extension(&Extension::SubNai(b"forged")).unwrap();
    let decision = decided(&world.relay(FOREIGN, &writer.finish()));
    assert_eq!(decision.ruling.cause, Cause::SubNaiUnproven);
    assert_eq!(world.agent.bindings().count(), 0);
}

/// S1-07, S1-17: one key for all; any bytes may be a NAI; whoever has another's key, or
/// none, gets nothing.
#[test]
fn all_sessions_of_a_nai_are_signed_with_its_key() {
    let mut world = World::home(|config| {
        with_pool(config, 110);
        let any: &[u8] = b"\x00\x01\xfe";
        config.security.insert_nai(any, None, mobile_home(), Lifetime::INFINITE).unwrap();
        config.sessions.pools[0].realm = None;
    });
    assert_eq!(Ask::new(b"a").of(b"\x00\x01\xfe").address(&mut world), pooled(101));
    let mut forged = Ask::new(b"a").message(&mut world);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(decided(&world.relay(FOREIGN, &forged)).ruling.cause, Cause::WrongKey);
    assert_eq!(
        Ask::new(b"a").of(b"x@train.example").decision(&mut world).ruling.cause,
        Cause::UnknownNai
    );
    // The number of a NAI is nobody's home address.
    let asked = RegistrationRequest {
        home_address: Ipv4Addr::new(0, 0, 0, 1),
        ..request(world.timestamp())
    };
    let decision = decided(&world.relay(FOREIGN, &sign(&asked)));
    assert_eq!(decision.ruling.cause, Cause::UnknownNai);
    assert_eq!(world.agent.bindings().count(), 1);
}

#[test]
fn a_malformed_name_is_denied_with_134_and_counted() {
    let mut world = world(110);
    let mut ask = |extensions: &[Extension<'_>]| {
        let mut writer = MessageWriter::request(&RegistrationRequest {
            home_address: NO_ADDRESS,
            ..request(world.timestamp())
        });
        for extension in extensions {
            writer.extension(extension).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
        let actions = world.relay(FOREIGN, &writer.finish());
        world.millis += 1_000;
        (decided(&actions).ruling.cause, the_code(&actions))
    };
    let nai = Extension::NetworkAccessIdentifier(NAI);
    let empty = Extension::NormalVendor { vendor: 32473, vendor_type: 1, value: b"" };
    let (a, b) = (Extension::SubNai(b"a"), Extension::SubNai(b"b"));
    for extensions in [&[nai, nai][..], &[nai, a, b], &[nai, empty]] {
        assert_eq!(ask(extensions), (Cause::BadName, 134), "{extensions:?}");
    }
    assert_eq!(world.counters().denied_with(homeport_proto::message::ReplyCode(134)), 3);
    let longest = [b'n'; 247];
    assert_eq!(Ask::new(&longest).address(&mut world), pooled(101));
    assert_eq!(Ask::new(b"n").address(&mut world), pooled(103));
}

/// S1-14: kept until it is given back, then for a while for nobody, then for others.
#[test]
fn an_address_that_is_given_back_is_another_sessions_after_the_hold_down() {
    let mut world = world(101);
    let (one, two) = (Ask::new(b"one"), Ask::new(b"two").of(OTHER_NAI));
    let first = one.address(&mut world);
    assert_eq!(two.decision(&mut world).ruling.cause, Cause::PoolExhausted);
    let actions = one.at(first).releases().send(&mut world);
    assert_eq!(the_code(&actions), 0);
    let removed = Action::RemoveBinding { tenant: TENANT, home_address: first };
    assert!(actions.contains(&removed));
    assert_eq!(state(&world, first), Some(SessionState::HeldDown));
    world.pass(28_000);
    assert_eq!(two.decision(&mut world).ruling.cause, Cause::PoolExhausted);
    world.pass(3_000);
    assert_eq!(state(&world, first), None);
    assert_eq!(two.address(&mut world), first);
    let counters = world.counters();
    assert_eq!((counters.sessions_begun, counters.sessions_released), (2, 1));
    assert_eq!((counters.sessions_ended, counters.pools_exhausted), (1, 2));
}

#[test]
fn an_address_stays_a_sessions_for_a_while_after_its_binding() {
    let mut world = world(101);
    let one = Ask::new(b"one");
    let first = one.address(&mut world);
    world.pass(70_000);
    assert_eq!(state(&world, first), Some(SessionState::Sticky));
    assert_eq!(Ask::new(b"two").reply(&mut world).code.0, 130);
    assert_eq!(one.address(&mut world), first);
    // A deregistration of its care-of address is no release.
    assert_eq!(one.at(first).ends().address(&mut world), first);
    assert_eq!(state(&world, first), Some(SessionState::Sticky));
    world.pass(3_001_000);
    assert_eq!(state(&world, first), None);
    assert_eq!(Ask::new(b"two").address(&mut world), first);
}

/// A session that is at home needs no binding, and gets and keeps its address all the
/// same. It is answered on its link, whatever address speaks for it.
#[test]
fn a_session_at_home_has_its_address_without_a_binding() {
    let mut world = world(101);
    let one = Ask::new(b"one");
    let message = one.home().message(&mut world);
    let actions = world.send(&direct(NODE, &message));
    let reply = one.read(&actions);
    assert_eq!(
        (reply.code.0, reply.lifetime, reply.home_address),
        (0, Lifetime::ZERO, pooled(101))
    );
    assert_eq!(transmits(&actions)[0].link, Some((HOME, NODE_MAC)));
    assert_eq!(transmits(&actions)[0].destination, NODE);
    assert_eq!(state(&world, pooled(101)), Some(SessionState::AtHome));
    world.pass(2_000_000);
    let again = one.at(pooled(101)).home();
    assert_eq!(again.address(&mut world), pooled(101));
    world.pass(2_000_000);
    assert_eq!(one.address(&mut world), pooled(101), "heard of in time");
    let message = again.message(&mut world);
    let actions = world.send(&direct(NODE, &message));
    let removed = Action::RemoveBinding { tenant: TENANT, home_address: pooled(101) };
    assert!(actions.contains(&removed));
    assert_eq!(state(&world, pooled(101)), Some(SessionState::AtHome));
    world.pass(3_001_000);
    assert_eq!(state(&world, pooled(101)), None, "not heard of");
}

/// What a request may name: what is set aside for it, or what is free of its realm's pool.
#[test]
fn a_new_session_gets_the_address_that_it_names_if_it_may() {
    let mut world = world(110);
    let cases = [
        (Ask::new(b"a").at(pooled(105)), Ok(PlacementStep::Named)),
        (Ask::new(b"printer").at(pooled(102)), Ok(PlacementStep::Named)),
        (Ask::new(b"").of(OTHER_NAI), Ok(PlacementStep::Reserved)),
        (Ask::new(b"b").at(pooled(105)), Err(Cause::AddressHeld)),
        (Ask::new(b"b").at(pooled(102)), Err(Cause::AddressNotTheirs)),
        (Ask::new(b"b").at(pooled(50)), Err(Cause::AddressNotTheirs)),
        (Ask::new(b"b").at(NODE), Err(Cause::AddressNotTheirs)),
        (Ask::new(b"b").at(CO_LOCATED), Err(Cause::AddressNotTheirs)),
        (Ask::new(b"b"), Ok(PlacementStep::Assigned)),
    ];
    for (ask, expected) in cases {
        let ruling = ask.decision(&mut world).ruling;
        match expected {
            Ok(step) => assert_eq!((ruling.cause, ruling.step), (Cause::Accepted, Some(step))),
            Err(cause) => assert_eq!(ruling.cause, cause),
        }
        world.millis += 1_000;
    }
}

/// No request is accepted twice, be it of a session that is no more or never was.
#[test]
fn a_replayed_first_request_is_never_accepted() {
    let mut world = world(101);
    let one = Ask::new(b"one");
    let first = one.message(&mut world);
    assert_eq!(one.read(&world.relay(FOREIGN, &first)).code.0, 0);
    assert_eq!(the_code(&world.relay(FOREIGN, &first)), 133);
    one.at(pooled(101)).releases().reply(&mut world);
    world.millis += 1_000;
    assert_eq!(the_code(&world.relay(FOREIGN, &first)), 133);
    world.pass(31_000);
    assert_eq!(the_code(&world.relay(FOREIGN, &first)), 133);
    // Denied for want of an address: not accepted when there is one.
    let mut world = super::sessions::world(101);
    one.address(&mut world);
    let second = Ask::new(b"two").message(&mut world);
    assert_eq!(the_code(&world.relay(FOREIGN, &second)), 130);
    one.at(pooled(101)).releases().reply(&mut world);
    world.millis += 1_000;
    assert_eq!(the_code(&world.relay(FOREIGN, &second)), 133);
}

/// S1-15: one NAI at two nodes whose clocks differ.
#[test]
fn a_nai_may_be_used_by_several_nodes_at_once() {
    let mut world = world(110);
    let (mut ahead, behind) = (world.now(), Ask::new(b"behind"));
    ahead.ntp.0 += 5 << 32;
    let mut writer = MessageWriter::request(&RegistrationRequest {
        home_address: NO_ADDRESS,
        ..request(homeport_proto::message::Identification(ahead.ntp.0))
    });
    writer.extension(&Extension::NetworkAccessIdentifier(NAI)).unwrap();
    writer.extension(&Extension::SubNai(b"ahead")).unwrap();
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    assert_eq!(the_code(&world.relay(FOREIGN, &writer.finish())), 0);
    assert_eq!(behind.address(&mut world), pooled(103));
    assert_eq!(behind.at(pooled(103)).address(&mut world), pooled(103));
}

fn config(change: impl FnOnce(&mut HomeAgentConfig)) -> AgentConfig {
    let mut config = home_agent_config();
    with_pool(&mut config, 110);
    change(&mut config);
    AgentConfig { home_agents: vec![config], ..AgentConfig::default() }
}

fn renumbered() -> AgentConfig {
    config(|config| {
        let mut security = homeport_proto::security::SecurityAssociations::default();
        for nai in [&b"new@train.example"[..], OTHER_NAI, NAI] {
            let key = if nai == OTHER_NAI { other_key() } else { mobile_home() };
            security.insert_nai(nai, None, key, Lifetime::INFINITE).unwrap();
        }
        config.security = security;
    })
}

#[test]
fn what_is_remembered_of_a_nai_follows_it_to_another_number() {
    let mut world = world(101);
    Ask::new(b"one").address(&mut world);
    let denied = Ask::new(b"two").message(&mut world);
    assert_eq!(the_code(&world.relay(FOREIGN, &denied)), 130);
    world.agent.handle_config(renumbered(), world.now());
    world.drain();
    assert_eq!(the_code(&world.relay(FOREIGN, &denied)), 133, "it has been judged before");
    assert_eq!(Ask::new(b"two").address(&mut world), pooled(103));
}

#[test]
fn sessions_stay_in_a_new_config_though_nais_have_other_numbers() {
    let mut world = world(110);
    let (one, two) = (Ask::new(b"one"), Ask::new(b"two").of(OTHER_NAI));
    let addresses = (one.address(&mut world), two.address(&mut world));
    world.agent.handle_config(renumbered(), world.now());
    assert_eq!(world.drain(), []);
    assert_eq!((one.address(&mut world), two.address(&mut world)), addresses);
    // Who is gone from the config is gone.
    let without = config(|config| {
        let mut security = homeport_proto::security::SecurityAssociations::default();
        security.insert_nai(NAI, None, mobile_home(), Lifetime::INFINITE).unwrap();
        config.security = security;
    });
    world.agent.handle_config(without, world.now());
    let removed = Action::RemoveBinding { tenant: TENANT, home_address: addresses.1 };
    assert!(world.drain().contains(&removed));
    assert_eq!(one.address(&mut world), addresses.0);
    assert_eq!(state(&world, addresses.1), None);
}

/// Who gets an address has nothing to do with who had it before.
#[test]
fn nothing_is_remembered_of_whoever_had_the_address_before() {
    let mut world = world(101);
    // A clock that is ahead leaves a mark in the future.
    world.step = 5;
    let first = Ask::new(b"one").address(&mut world);
    Ask::new(b"one").at(first).releases().reply(&mut world);
    world.step = 0;
    world.agent.handle_config(
        config(|config| {
            with_pool(config, 101);
            config.sessions.hold_down = Duration::ZERO;
        }),
        world.now(),
    );
    world.drain();
    world.pass(31_000);
    world.step = -27;
    let two = Ask::new(b"two").of(OTHER_NAI);
    assert_eq!(two.address(&mut world), first);
    assert_eq!(two.address(&mut world), first);
}

fn asks(change: fn(&mut Ask<'_>), configure: fn(&mut HomeAgentConfig)) -> Decision {
    let mut world = World::home(|config| {
        with_pool(config, 101);
        configure(config);
    });
    let mut ask = Ask::new(b"one");
    Ask::new(b"first").send(&mut world);
    change(&mut ask);
    ask.decision(&mut world)
}

fn nothing(_: &mut HomeAgentConfig) {}

type Case = (Cause, fn() -> Decision);

/// What is decided of sessions, each by a real message.
pub(crate) const CASES: &[Case] = &[
    (Cause::UnknownNai, || asks(|ask| ask.nai = b"x@y", nothing)),
    (Cause::PoolExhausted, || asks(|_| {}, nothing)),
    (Cause::AddressNotTheirs, || asks(|ask| ask.home_address = NODE, nothing)),
    (Cause::AddressHeld, || asks(|ask| ask.home_address = pooled(101), nothing)),
    (Cause::TooManySessions, || asks(|_| {}, |config| config.sessions.max_sessions_per_nai = 1)),
    (Cause::BadName, || {
        let mut world = world(110);
        let mut writer = MessageWriter::request(&request(world.timestamp()));
        for _ in 0..2 {
            writer.extension(&Extension::NetworkAccessIdentifier(NAI)).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
        decided(&world.relay(FOREIGN, &writer.finish()))
    }),
    (Cause::SubNaiUnproven, || {
        let mut world = world(110);
        let mut writer = MessageWriter::relay(&Ask::new(b"").message(&mut world));
        writer.extension(&Extension::SubNai(b"forged")).unwrap();
        decided(&world.relay(FOREIGN, &writer.finish()))
    }),
];

mod limits;
mod model;
mod own;
mod restarts;
