//! Sessions against a home agent that is a few lines: who is registered where, with
//! what, and when.

mod denials;
mod home;
mod leaving;
mod moves;
mod own_address;
mod pace;

use super::*;
use crate::message::{Extension, Message, Received, RequestFlags, SessionCarriage, SessionName};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

const NAI: &[u8] = b"phone@train.example";

pub(super) fn named() -> MobileNodeConfig {
    MobileNodeConfig { nai: Some(NAI.to_vec()), ..config() }
}

fn request_of(sent: &Sent) -> Received<'_, RegistrationRequest> {
    match Message::parse(&sent.send.bytes).unwrap() {
        Message::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

/// Who a request is for; empty: the node.
fn name_of(sent: &Sent) -> Vec<u8> {
    let named = SessionName::of(&request_of(sent)).unwrap().unwrap();
    assert_eq!(named.name.nai, NAI);
    named.name.sub_nai.to_vec()
}

fn releases(sent: &Sent) -> bool {
    SessionName::of(&request_of(sent)).unwrap().unwrap().releases
}

/// The home agent's reply, with the name in it.
fn reply_to(sent: &Sent, code: ReplyCode, home_address: Ipv4Addr) -> Vec<u8> {
    reply_for(sent, code, home_address, sent.body.lifetime.0)
}

pub(super) fn reply_for(
    sent: &Sent,
    code: ReplyCode,
    home_address: Ipv4Addr,
    lifetime: u16,
) -> Vec<u8> {
    let reply = RegistrationReply { home_address, ..sent.reply(code, lifetime) };
    let name = name_of(sent);
    let mut writer = MessageWriter::reply(&reply);
    writer.extension(&Extension::NetworkAccessIdentifier(NAI)).unwrap();
    if !name.is_empty() {
        writer.extension(&Extension::SubNai(&name)).unwrap();
    }
    writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
    writer.finish()
}

/// A home agent that gives 10.1.0.(100 + n) to the n-th session it hears of.
#[derive(Default)]
struct Giver {
    given: BTreeMap<Vec<u8>, Ipv4Addr>,
    answered: usize,
}

impl Giver {
    fn address_of(&mut self, sent: &Sent) -> Ipv4Addr {
        let name = name_of(sent);
        if name.is_empty() || releases(sent) {
            return sent.body.home_address;
        }
        let next = 100 + u32::try_from(self.given.len()).unwrap();
        let next = Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + next);
        *self.given.entry(name).or_insert(next)
    }

    /// Accepts what was sent since the last time, until there is nothing more. The most
    /// requests that came at once.
    fn accept_all(&mut self, world: &mut World) -> usize {
        let mut most = 0;
        loop {
            let sent = world.requests().split_off(self.answered);
            if sent.is_empty() {
                return most;
            }
            most = most.max(sent.len());
            self.answered += sent.len();
            for one in &sent {
                let address = self.address_of(one);
                receive(world, one, &reply_to(one, ReplyCode::ACCEPTED, address));
            }
        }
    }
}

fn receive(world: &mut World, to: &Sent, payload: &[u8]) {
    let from = to.send.destination;
    world.input(|node, now| node.handle_datagram(from, 434, payload, now));
}

/// The home agent accepts the node's own last request, and no other.
fn accept_own(world: &mut World) {
    let own = last_for(world, b"");
    receive(world, &own, &reply_to(&own, ReplyCode::ACCEPTED, HOME));
}

fn add(world: &mut World, name: &[u8]) {
    world.input(|node, now| node.add_session(name, None, now).unwrap());
}

/// A node at the first agent with these sessions, all registered.
fn with_sessions(config: MobileNodeConfig, names: &[&[u8]]) -> (World, Giver) {
    let mut world = World::up(config);
    let mut giver = Giver::default();
    for name in names {
        add(&mut world, name);
    }
    world.hear(&Advertised::foreign(FIRST));
    giver.accept_all(&mut world);
    for name in names {
        assert_eq!(session(&world, name).phase(), Phase::Registered);
    }
    (world, giver)
}

fn session<'a>(world: &'a World, name: &[u8]) -> &'a Session {
    world.node.session(name).expect("there is such a session")
}

fn requests_for(world: &World, name: &[u8]) -> Vec<Sent> {
    world.requests().into_iter().filter(|sent| name_of(sent) == name).collect()
}

fn last_for(world: &World, name: &[u8]) -> Sent {
    requests_for(world, name).pop().expect("a request for it was sent")
}

fn uses(world: &World) -> Vec<(Vec<u8>, Ipv4Addr)> {
    let uses = world.log.iter().filter_map(|(_, action)| match action {
        MobileNodeAction::UseSession { sub_nai, home_address } => {
            Some((sub_nai.to_vec(), *home_address))
        }
        _ => None,
    });
    uses.collect()
}

fn losses(world: &World) -> Vec<(Vec<u8>, Option<Ipv4Addr>)> {
    let losses = world.log.iter().filter_map(|(_, action)| match action {
        MobileNodeAction::LoseSession { sub_nai, home_address } => {
            Some((sub_nai.to_vec(), *home_address))
        }
        _ => None,
    });
    losses.collect()
}

fn announced(world: &World, address: Ipv4Addr) -> Vec<u64> {
    let told = world
        .log
        .iter()
        .filter(|(_, action)| *action == MobileNodeAction::AnnounceSession(address));
    told.map(|(at, _)| *at).collect()
}

// S1-01, S1-02, S1-03, S1-05.
#[test]
fn a_session_asks_for_an_address_by_name_as_the_node_does_for_itself() {
    let mut world = World::up(named());
    world.hear(&Advertised::foreign(FIRST));
    add(&mut world, b"\x00\xffcamera");
    let sent = last_for(&world, b"\x00\xffcamera");
    assert_eq!(sent.at, 1_000, "without waiting for the node's own reply");
    assert_eq!(sent.send.path, RegistrationPath::Link(mac_of(FIRST)));
    assert_eq!((sent.send.source, sent.send.destination, sent.send.ttl), (HOME, FIRST, 255));
    let request = request_of(&sent);
    assert_eq!(request.body.home_address, Ipv4Addr::UNSPECIFIED);
    assert_eq!(request.body.home_agent, HOME_AGENT);
    assert_eq!(request.body.care_of_address, care_of(FIRST));
    assert_eq!(request.body.flags, RequestFlags::REVERSE_TUNNEL);
    assert_eq!(request.body.lifetime, Lifetime(100));
    let [nai, sub_nai, signature] = request.extensions() else { panic!() };
    assert_eq!(nai.extension, Extension::NetworkAccessIdentifier(NAI));
    assert_eq!(sub_nai.extension, Extension::SubNai(b"\x00\xffcamera"));
    assert!(request.verify(signature, &with_home_agent()));
    let own = requests_for(&world, b"").pop().unwrap();
    assert_eq!(own.body.home_address, HOME);
    assert_ne!(own.body.identification.low(), request.body.identification.low());
}

// S1-04.
#[test]
fn nai_and_sub_nai_may_be_carried_in_one_extension() {
    let session_carriage = SessionCarriage::Combined;
    let mut world = World::up(MobileNodeConfig { session_carriage, ..named() });
    world.hear(&Advertised::foreign(FIRST));
    add(&mut world, b"a");
    let sent = last_for(&world, b"a");
    let combined = Extension::CombinedSession { nai: NAI, sub_nai: b"a" };
    assert_eq!(request_of(&sent).extensions()[0].extension, combined);
    assert_eq!(request_of(&sent).extensions().len(), 2);
}

// S1-13.
#[test]
fn an_accepted_session_has_the_address_of_the_reply() {
    let (world, _) = with_sessions(named(), &[b"a", b"b"]);
    let (one, other) = (Ipv4Addr::new(10, 1, 0, 100), Ipv4Addr::new(10, 1, 0, 101));
    assert_eq!(uses(&world), [(b"a".to_vec(), one), (b"b".to_vec(), other)]);
    let a = session(&world, b"a");
    assert_eq!((a.sub_nai(), a.home_address()), (&b"a"[..], Some(one)));
    assert_eq!(a.care_of_address(), Some(care_of(FIRST)));
    assert_eq!(a.lifetime(), Some(Lifetime(100)));
    assert_eq!(a.expires_at(), Some(Instant(101_000_000_000)));
    assert_eq!(world.node.sessions().count(), 2);
}

// S1-16.
#[test]
fn by_itself_the_node_registers_its_sessions_from_the_care_of_address() {
    let mut world = World::up(named());
    let mut giver = Giver::default();
    add(&mut world, b"a");
    world.pass(50);
    world.co_located();
    giver.accept_all(&mut world);
    let sent = last_for(&world, b"a");
    assert_eq!(sent.send.path, RegistrationPath::CoLocated(CO_LOCATED));
    assert_eq!((sent.send.source, sent.send.destination), (CO_LOCATED.address, HOME_AGENT));
    let flags = RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL);
    assert_eq!(sent.body.flags, flags);
    assert_eq!(session(&world, b"a").care_of_address(), Some(CO_LOCATED.address));
}

#[test]
fn who_may_not_be_a_session_is_told_why() {
    let mut nameless = World::up(config());
    nameless.input(|node, now| {
        assert_eq!(node.add_session(b"a", None, now), Err(SessionError::NoNai));
    });
    let session_carriage = SessionCarriage::Combined;
    for (config, most) in
        [(named(), 247), (MobileNodeConfig { session_carriage, ..named() }, 246 - NAI.len())]
    {
        let mut world = World::up(config);
        world.input(|node, now| {
            assert_eq!(node.add_session(b"", None, now), Err(SessionError::NameLength));
            let long = vec![b'x'; most + 1];
            assert_eq!(node.add_session(&long, None, now), Err(SessionError::NameLength));
            assert_eq!(node.add_session(&long[1..], None, now), Ok(()));
            assert_eq!(node.add_session(&long[1..], None, now), Err(SessionError::Duplicate));
            for n in 1..MAX_SESSIONS {
                assert_eq!(node.add_session(&n.to_be_bytes(), None, now), Ok(()));
            }
            assert_eq!(node.add_session(b"more", None, now), Err(SessionError::TooMany));
            node.handle_stop(now);
        });
    }
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    world.input(|node, now| {
        node.handle_stop(now);
        assert_eq!(node.add_session(b"b", None, now), Err(SessionError::Stopping));
    });
}

#[test]
fn a_reply_counts_for_the_session_that_it_names_alone() {
    let mut world = World::up(named());
    for name in [b"a", b"b"] {
        add(&mut world, name);
    }
    world.hear(&Advertised::foreign(FIRST));
    accept_own(&mut world);
    let (a, b) = (last_for(&world, b"a"), last_for(&world, b"b"));
    let address = Ipv4Addr::new(10, 1, 0, 100);
    let right = RegistrationReply { home_address: address, ..a.reply(ReplyCode::ACCEPTED, 100) };
    let write = |reply: &RegistrationReply, extensions: &[Extension<'_>]| {
        let mut writer = MessageWriter::reply(reply);
        for extension in extensions {
            writer.extension(extension).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
        writer.finish()
    };
    let nai = Extension::NetworkAccessIdentifier(NAI);
    let (is_a, is_b) = (Extension::SubNai(b"a"), Extension::SubNai(b"b"));
    let stranger = Extension::NetworkAccessIdentifier(b"x@y");
    let addressed = |home_address| RegistrationReply { home_address, ..right };
    let wrong = [
        write(&right, &[]),
        write(&right, &[nai]),
        write(&right, &[nai, is_b]),
        write(&right, &[stranger, is_a]),
        write(&right, &[nai, is_a, is_a]),
        write(&addressed(Ipv4Addr::UNSPECIFIED), &[nai, is_a]),
        write(&addressed(Ipv4Addr::BROADCAST), &[nai, is_a]),
        write(&addressed(HOME), &[nai, is_a]),
        write(&RegistrationReply { identification: b.body.identification, ..right }, &[nai, is_a]),
    ];
    for wrong in &wrong {
        receive(&mut world, &a, wrong);
    }
    assert_eq!(world.discards(), [DiscardReason::NotPending; 9]);
    let mut forged = write(&right, &[nai, is_a]);
    *forged.last_mut().unwrap() ^= 1;
    receive(&mut world, &a, &forged);
    assert_eq!(world.discards()[9], DiscardReason::BadMobileHomeAuthenticator);
    assert_eq!(uses(&world), []);
    receive(&mut world, &a, &write(&right, &[nai, is_a]));
    assert_eq!(uses(&world), [(b"a".to_vec(), address)]);
    assert_eq!(session(&world, b"b").phase(), Phase::Registering);
}

#[test]
fn an_address_that_changes_is_lost_before_the_new_one_is_used() {
    let (mut world, _) = with_sessions(named(), &[b"a", b"b"]);
    let (old, new) = (Ipv4Addr::new(10, 1, 0, 100), Ipv4Addr::new(10, 1, 0, 101));
    world.forget();
    world.pass_hearing(46, &mut [Advertised::foreign(FIRST)]);
    // The home agent gives it what the other had.
    let sent = last_for(&world, b"a");
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode::ACCEPTED, new));
    let told: Vec<_> = world.log.iter().map(|(_, action)| action.clone()).collect();
    let told: Vec<_> = told
        .into_iter()
        .filter(|action| {
            matches!(
                action,
                MobileNodeAction::UseSession { .. } | MobileNodeAction::LoseSession { .. }
            )
        })
        .collect();
    let name = |name: &[u8]| -> Arc<[u8]> { Arc::from(name) };
    assert_eq!(
        told,
        [
            MobileNodeAction::LoseSession { sub_nai: name(b"b"), home_address: Some(new) },
            MobileNodeAction::LoseSession { sub_nai: name(b"a"), home_address: Some(old) },
            MobileNodeAction::UseSession { sub_nai: name(b"a"), home_address: new },
        ]
    );
    assert_eq!(last_for(&world, b"b").body.home_address, Ipv4Addr::UNSPECIFIED);
}

#[test]
fn nonces_are_each_sessions_own() {
    let mut config = named();
    let with_nonces = association(256, ReplayProtection::Nonces);
    config.security = SecurityAssociations::default();
    config.security.insert_agent(HOME_AGENT, with_nonces);
    let (mut world, _) = with_sessions(config, &[b"a", b"b"]);
    let mut agent = [Advertised::foreign(FIRST)];
    world.pass_hearing(46, &mut agent);
    accept_own(&mut world);
    for (name, nonce) in [(b"a", 7u32), (b"b", 9)] {
        let mut sent = last_for(&world, name);
        let home_address = sent.body.home_address;
        let low = sent.body.identification.low();
        sent.body.identification = crate::message::Identification::from_halves(nonce, low);
        let payload = reply_to(&sent, ReplyCode::ACCEPTED, home_address);
        receive(&mut world, &sent, &payload);
    }
    world.forget();
    world.pass_hearing(46, &mut agent);
    assert_eq!(last_for(&world, b"a").body.identification.high(), 7);
    assert_eq!(last_for(&world, b"b").body.identification.high(), 9);
}
