//! Sessions against a home agent that is a few lines: who is registered where, with
//! what, and when.

mod denials;
mod leaving;
mod own_address;

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

// S1-14.
#[test]
fn a_move_takes_one_round_trip_for_all_and_keeps_the_addresses() {
    let (mut world, mut giver) = with_sessions(named(), &[b"a", b"b", b"c"]);
    world.pass(5_000);
    world.forget();
    giver.answered = 0;
    world.link(false);
    assert_eq!(session(&world, b"a").phase(), Phase::Searching);
    assert_eq!(session(&world, b"a").home_address(), Some(Ipv4Addr::new(10, 1, 0, 100)));
    world.link(true);
    world.hear(&Advertised::foreign(SECOND));
    let sent = world.requests();
    assert_eq!(sent.len(), 4, "all at once, before any reply");
    assert!(sent.iter().all(|one| one.body.care_of_address == care_of(SECOND)));
    assert!(sent.iter().all(|one| !one.body.home_address.is_unspecified()));
    giver.accept_all(&mut world);
    for name in [b"a", b"b", b"c"] {
        assert_eq!(session(&world, name).care_of_address(), Some(care_of(SECOND)));
        assert_eq!(session(&world, name).phase(), Phase::Registered);
    }
    assert_eq!((uses(&world), losses(&world)), (vec![], vec![]), "nothing is new to the host");
}

#[test]
fn what_was_asked_at_the_old_place_is_asked_there_no_more() {
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    world.pass_hearing(46, &mut [Advertised::foreign(FIRST)]);
    let renewal = last_for(&world, b"a");
    assert_eq!(renewal.send.destination, FIRST);
    world.link(false);
    world.forget();
    world.pass(20_000);
    assert_eq!(world.requests().len(), 0);
    // Its reply comes late, and means nothing.
    receive(
        &mut world,
        &renewal,
        &reply_to(&renewal, ReplyCode::ACCEPTED, Ipv4Addr::new(10, 1, 0, 100)),
    );
    assert_eq!(world.discards(), [DiscardReason::NotPending]);
    assert_eq!(session(&world, b"a").phase(), Phase::Searching);
}

// S1-14.
#[test]
fn at_home_the_home_agent_is_told_after_the_node_itself_and_again() {
    let (mut world, mut giver) = with_sessions(named(), &[b"a"]);
    world.pass(5_000);
    let address = session(&world, b"a").home_address().unwrap();
    world.link(false);
    world.link(true);
    world.forget();
    giver.answered = 0;
    world.hear(&Advertised::home());
    let sent = world.requests();
    assert_eq!(sent.len(), 1, "its replies would go to where the node was");
    assert_eq!(sent[0].body.home_address, HOME);
    giver.accept_all(&mut world);
    assert_eq!(world.node.phase(), Phase::AtHome);
    let told = last_for(&world, b"a");
    assert_eq!((told.body.lifetime, told.body.home_address), (Lifetime::ZERO, address));
    assert_eq!(told.body.care_of_address, address);
    assert!(!releases(&told));
    assert_eq!((told.send.source, told.send.destination), (HOME, HOME_AGENT));
    let a = session(&world, b"a");
    assert_eq!((a.phase(), a.care_of_address()), (Phase::AtHome, Some(address)));
    assert_eq!((a.lifetime(), a.expires_at()), (Some(Lifetime::ZERO), None));
    // Every two fifths of the lifetime that it would ask for, and a little.
    let mut home = [Advertised::home()];
    for _ in 0..2 {
        let before = last_for(&world, b"a").at;
        world.forget();
        giver.answered = 0;
        world.pass_hearing(39, &mut home);
        assert_eq!(world.requests().len(), 0);
        while world.requests().is_empty() && world.now < before + 60_000 {
            world.pass_hearing(1, &mut home);
        }
        let after = last_for(&world, b"a").at - before;
        assert!((40_000..=45_000).contains(&after), "{after}");
        giver.accept_all(&mut world);
    }
    assert_eq!(requests_for(&world, b"").len(), 0, "the node itself has nothing to repeat");
}

#[test]
fn a_session_that_begins_at_home_is_given_its_address_there() {
    let mut world = World::up(named());
    let mut giver = Giver::default();
    world.hear(&Advertised::home());
    giver.accept_all(&mut world);
    add(&mut world, b"a");
    let asked = last_for(&world, b"a").body;
    assert_eq!(asked.home_address, Ipv4Addr::UNSPECIFIED);
    assert_eq!(asked.care_of_address, Ipv4Addr::UNSPECIFIED);
    giver.accept_all(&mut world);
    let address = Ipv4Addr::new(10, 1, 0, 100);
    assert_eq!(uses(&world), [(b"a".to_vec(), address)]);
    assert_eq!(announced(&world, address), [world.now], "it is told to the link");
}

#[test]
fn a_homecoming_is_announced_for_each_session() {
    let (mut world, mut giver) = with_sessions(named(), &[b"a", b"b"]);
    world.pass(5_000);
    world.link(false);
    world.link(true);
    world.forget();
    giver.answered = 0;
    let start = world.now;
    world.hear(&Advertised::home());
    let addresses = [Ipv4Addr::new(10, 1, 0, 100), Ipv4Addr::new(10, 1, 0, 101)];
    for address in addresses {
        assert_eq!(announced(&world, address), [start], "before the home agent is told");
    }
    world.pass(10);
    giver.accept_all(&mut world);
    world.pass_hearing(8, &mut [Advertised::home()]);
    for address in addresses {
        let again =
            ANNOUNCEMENTS.map(|after| start + 10 + u64::try_from(after.as_millis()).unwrap());
        assert_eq!(announced(&world, address), [&[start], &again[..]].concat());
    }
    world.forget();
    world.link(false);
    world.pass(10_000);
    assert_eq!(announced(&world, addresses[0]), []);
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
fn no_more_than_four_without_address_ask_at_once_and_a_thousand_get_theirs() {
    let mut world = World::up(named());
    let mut giver = Giver::default();
    for n in 0..1_000u32 {
        add(&mut world, &n.to_be_bytes());
    }
    world.hear(&Advertised::foreign(FIRST));
    assert_eq!(world.requests().len(), 1 + MAX_NEW);
    giver.accept_all(&mut world);
    assert_eq!(uses(&world).len(), 1_000);
    assert_eq!(giver.given.len(), 1_000);
    // With their addresses they move faster, but not all at once.
    world.pass(5_000);
    world.forget();
    giver.answered = 0;
    world.link(false);
    world.link(true);
    world.hear(&Advertised::foreign(SECOND));
    assert_eq!(world.requests().len(), 1 + MAX_KNOWN);
    giver.accept_all(&mut world);
    let arrived = world.node.sessions().filter(|one| one.phase() == Phase::Registered);
    assert_eq!(arrived.count(), 1_000);
    assert_eq!(world.requests().len(), 1_001);
    assert!(uses(&world).is_empty() && losses(&world).is_empty());
}

#[test]
fn those_that_nobody_answers_do_not_keep_the_others_waiting_for_ever() {
    let mut world = World::up(named());
    for n in 0..6u32 {
        add(&mut world, &n.to_be_bytes());
    }
    let mut agent = [Advertised::foreign(FIRST)];
    world.hear(&agent[0]);
    accept_own(&mut world);
    world.pass_hearing(9, &mut agent);
    for n in 0..6u32 {
        let sent = requests_for(&world, &n.to_be_bytes());
        assert!(!sent.is_empty(), "{n}");
        let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        assert!(gaps.iter().all(|gap| *gap >= 1_000), "{gaps:?}");
    }
}

#[test]
fn an_unanswered_session_asks_again_ever_more_slowly() {
    let (mut world, _) = with_sessions(named(), &[]);
    add(&mut world, b"a");
    world.pass_hearing(20, &mut [Advertised::foreign(FIRST)]);
    let sent = requests_for(&world, b"a");
    let times: Vec<_> = sent.iter().map(|one| one.at).collect();
    assert_eq!(times, [1_000, 2_000, 4_000, 8_000, 16_000]);
    let mut lows: Vec<_> = sent.iter().map(|one| one.body.identification.0).collect();
    assert!(lows.is_sorted());
    lows.dedup();
    assert_eq!(lows.len(), 5);
}

#[test]
fn sessions_are_renewed_before_half_and_expire_alone() {
    let (mut world, mut giver) = with_sessions(named(), &[b"a"]);
    let mut agent = [Advertised::foreign(FIRST)];
    world.pass_hearing(39, &mut agent);
    assert_eq!(requests_for(&world, b"a").len(), 1);
    world.pass_hearing(10, &mut agent);
    assert!(requests_for(&world, b"a").len() > 1);
    giver.accept_all(&mut world);
    // From now on the home agent answers the node alone.
    while session(&world, b"a").phase() == Phase::Registered {
        world.pass_hearing(1, &mut agent);
        let sent = world.requests().split_off(giver.answered);
        giver.answered += sent.len();
        for own in sent.iter().filter(|sent| name_of(sent).is_empty()) {
            receive(&mut world, own, &reply_to(own, ReplyCode::ACCEPTED, HOME));
        }
        assert!(world.now < 400_000);
    }
    let a = session(&world, b"a");
    assert_eq!((a.phase(), a.expires_at()), (Phase::Registering, None));
    assert!(a.home_address().is_some(), "the address stays its own");
    assert_eq!(losses(&world), []);
    assert_eq!(world.node.phase(), Phase::Registered);
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
fn an_agent_that_restarts_is_told_of_all_sessions_again() {
    let (mut world, mut giver) = with_sessions(named(), &[b"a", b"b"]);
    world.pass(1_000);
    world.hear(&Advertised { sequence: 5, ..Advertised::foreign(FIRST) });
    world.forget();
    giver.answered = 0;
    world.pass(100);
    world.hear(&Advertised { sequence: 0, ..Advertised::foreign(FIRST) });
    assert_eq!(world.requests().len(), 3);
    assert_eq!(session(&world, b"a").phase(), Phase::Registered, "until then it stands");
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
