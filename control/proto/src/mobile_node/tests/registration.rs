//! Registration (RFC 5944 §3.6): B-01 and B-02.

mod endings;

use super::*;
use crate::message::{Extension, Message, Received, RequestFlags, TextOrigin};
use alloc::borrow::ToOwned;
use alloc::string::ToString;

fn request_of(sent: &Sent) -> Received<'_, RegistrationRequest> {
    match Message::parse(&sent.send.bytes).unwrap() {
        Message::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

/// B-01, B-02: through a foreign agent.
// Shows 5944-3.1-a, 5944-3.2-b, 5944-3.3-b, 5944-3.5.2-a, 5944-3.6.1.1-c, 5944-3.6.1.1-f,
// 5944-3.6.1.1-g, 5944-3.6.1.1-i, 5944-3.6.1.2-b, 5944-3.6.1.2-f, 5944-3.6.1.2-i, 5944-3.6.1.2-k,
// 5944-3.6.1.2-n, 5944-5.7.1-b, 3024-3.2-b, 3024-A.4-a.
#[test]
fn a_request_through_an_agent_goes_to_its_station_from_the_home_address_signed() {
    let mut world = World::up(config());
    world.hear(&Advertised::foreign(FIRST));
    let sent = world.last();
    assert_eq!(sent.at, 1_000, "without any wait");
    assert_eq!(sent.send.path, RegistrationPath::Link(mac_of(FIRST)));
    assert_eq!((sent.send.source, sent.send.destination, sent.send.ttl), (HOME, FIRST, 255));
    let request = request_of(&sent);
    assert_eq!(request.body.flags, RequestFlags::REVERSE_TUNNEL);
    assert_eq!(request.body.lifetime, Lifetime(100));
    assert_eq!(request.body.home_address, HOME);
    assert_eq!(request.body.home_agent, HOME_AGENT);
    assert_eq!(request.body.care_of_address, care_of(FIRST));
    let [only] = request.extensions() else { panic!("{:?}", request.extensions()) };
    assert!(request.verify(only, &with_home_agent()));
    let clock = world.now().ntp;
    assert_eq!(request.body.identification.0, clock.0);
}

/// B-01: directly, with a co-located care-of address.
// Shows 5944-3.1-c, 5944-3.6.1.1-a, 5944-3.6.1.1-h, 5944-3.6.1.2-a.
#[test]
fn a_request_by_itself_goes_to_the_home_agent_from_the_care_of_address() {
    let mut world = World::up(config());
    world.pass(50);
    world.co_located();
    let sent = world.last();
    assert_eq!((sent.send.source, sent.send.destination), (CO_LOCATED.address, HOME_AGENT));
    let flags = RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL);
    assert_eq!(sent.body.flags, flags);
    world.accept(100);
    assert_eq!(world.attachments(), [BY_ITSELF]);
}

#[test]
fn a_registration_by_itself_does_not_outlive_the_lease() {
    let mut world = World::up(config());
    world.pass(50);
    let lease = Some(Duration::from_secs(40));
    world.input(|node, now| node.handle_co_located(CoLocated { lease, ..CO_LOCATED }, now));
    assert_eq!(world.last().body.lifetime, Lifetime(40));
}

// Shows 5944-3.6.1.2-h.
#[test]
fn no_more_is_asked_for_than_the_agent_advertises() {
    let mut world = World::up(config());
    let registration_lifetime = Lifetime(60);
    world.hear(&Advertised { registration_lifetime, ..Advertised::foreign(FIRST) });
    assert_eq!(world.last().body.lifetime, Lifetime(60));
}

/// RFC 3024 §3.3: behind the mobile-home authentication, for the agent to consume.
// Shows 3024-4.1.2-a.
#[test]
fn encapsulating_delivery_is_asked_for_behind_the_authentication() {
    let reverse_tunnel = ReverseTunnel::Encapsulating;
    let mut world = World::up(MobileNodeConfig { reverse_tunnel, ..config() });
    world.hear(&Advertised::foreign(FIRST));
    let sent = world.last();
    let request = request_of(&sent);
    let [first, second] = request.extensions() else { panic!() };
    assert!(request.verify(first, &with_home_agent()));
    assert_eq!(second.extension, Extension::EncapsulatingDelivery);
    world.accept(100);
    let Some(Attachment::ForeignAgent { style, .. }) = world.attachments().pop() else { panic!() };
    assert_eq!(style, reverse_tunnel);
}

// Shows 3024-3.3-c.
#[test]
fn without_a_reverse_tunnel_none_is_asked_for() {
    let reverse_tunnel = ReverseTunnel::None;
    let mut world = World::up(MobileNodeConfig { reverse_tunnel, ..config() });
    let flags = crate::message::advertisement::AgentFlags::FOREIGN_AGENT;
    world.hear(&Advertised { flags, ..Advertised::foreign(FIRST) });
    let sent = world.last();
    assert_eq!(sent.body.flags, RequestFlags::default());
    assert_eq!(request_of(&sent).extensions().len(), 1, "no delivery style without flag T");
}

/// B-01: renewal before half of the lifetime.
// Shows 5944-3.6-d, 5944-3.6.2.2-c.
#[test]
fn a_registration_is_renewed_before_half_of_its_lifetime_while_packets_flow() {
    let mut world = World::at(FIRST, config());
    world.pass_hearing(50, &mut [Advertised::foreign(FIRST)]);
    let renewal = world.requests()[1].clone();
    assert!((41_000..=46_000).contains(&renewal.at), "{}", renewal.at);
    assert_eq!(renewal.body.care_of_address, care_of(FIRST));
    assert_eq!(world.attachments(), [through(FIRST)]);
}

/// RFC 5944 §3.6.2.2: the lifetime counts from the request, and is never more than
/// was asked for (§3.4).
// Shows 5944-3.4-c, 5944-3.6.2.2-d.
#[test]
fn a_lifetime_counts_from_the_request_and_is_never_longer_than_asked_for() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    let asked = world.now;
    world.pass(400);
    world.accept(0xffff);
    let registration = world.node.registration().unwrap();
    assert_eq!(registration.lifetime, Lifetime(100));
    assert_eq!(registration.expires_at, Some(Instant((asked + 100_000) * 1_000_000)));
}

/// RFC 5944 §3.4, §3.6.2.2: what the home agent took off is taken off what is left.
// Shows 5944-3.4-d, 5944-3.6.2.2-e.
#[test]
fn a_lifetime_that_the_home_agent_shortened_counts_from_the_request_too() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    let asked = world.now;
    world.pass(400);
    world.accept(40);
    let registration = world.node.registration().unwrap();
    assert_eq!(registration.lifetime, Lifetime(40));
    assert_eq!(registration.expires_at, Some(Instant((asked + 40_000) * 1_000_000)));
}

#[test]
fn a_registration_that_cannot_be_renewed_ends_with_its_lifetime() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    world.accept(100);
    world.pass(99_999);
    assert_eq!(world.attachments(), [through(FIRST)]);
    world.pass(1);
    assert_eq!(world.attachments(), [through(FIRST), Attachment::None]);
    let care_of_address = care_of(FIRST);
    assert!(world.events().contains(&MobileNodeEvent::Expired { care_of_address }));
}

/// RFC 5944 §3.6.3: a second, doubled each time, with a new identification.
// Shows 5944-3.6.2.1-c, 5944-3.6.3-a, 5944-3.6.3-b, 5944-3.6.3-c, 5944-3.6.3-d, 5944-5.7-e,
// 5944-5.7.1-d.
#[test]
fn a_request_without_reply_is_sent_again_later_and_later_with_a_later_timestamp() {
    let mut world = World::up(MobileNodeConfig { co_located: false, ..config() });
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    world.pass(70_000);
    let requests = world.requests();
    let times: Vec<u64> = requests.iter().map(|sent| sent.at - 1_000).collect();
    assert_eq!(times, [0, 1_000, 3_000, 7_000, 15_000, 31_000, 47_000, 63_000]);
    for pair in requests.windows(2) {
        assert!(pair[1].body.identification.0 > pair[0].body.identification.0);
    }
    // Only the last request is answered (RFC 5944 §3.6.2.1).
    let late = requests[6].reply(ReplyCode::ACCEPTED, 100);
    world.receive(&signed(&late));
    assert_eq!(world.discards(), [DiscardReason::NotPending]);
    world.accept(100);
    assert_eq!(world.node.phase(), Phase::Registered);
}

// Shows 5944-5.7.1-d.
#[test]
fn timestamps_grow_even_when_the_clock_stands_or_steps_back() {
    let mut world = World::up(config());
    world.wall = Duration::from_secs(60);
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    world.wall = Duration::ZERO;
    world.pass(5_000);
    let requests = world.requests();
    assert!(requests.len() > 2);
    for pair in requests.windows(2) {
        assert!(pair[1].body.identification.0 > pair[0].body.identification.0);
    }
}

#[test]
fn an_agent_that_does_not_answer_is_given_up_for_another() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    world.pass(500);
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(SECOND) });
    world.pass(2_400);
    assert_eq!(world.requests().len(), 2);
    world.pass(200);
    assert_eq!(world.last().body.care_of_address, care_of(SECOND));
    assert!(world.events().iter().any(|e| matches!(e, MobileNodeEvent::Unanswered { .. })));
}

/// B-02, RFC 5944 §3.6.2.1: each reply that is not the answer is discarded by
/// name, and changes nothing.
// Shows 5944-1.8-a, 5944-3.6.2.1-c, 5944-3.6.2.1-i, 5944-3.6.2.1-j.
#[test]
fn a_reply_is_believed_only_when_all_of_it_is_right() {
    let mut world = World::up(config());
    world.hear(&Advertised::foreign(FIRST));
    let sent = world.last();
    let right = sent.reply(ReplyCode::ACCEPTED, 100);
    let other_key = association(300, ReplayProtection::default());
    let same_spi = MobilitySecurityAssociation { spi: Spi(256), ..other_key.clone() };
    let signed_by = |association: &MobilitySecurityAssociation, times: usize| {
        let mut writer = MessageWriter::reply(&right);
        for _ in 0..times {
            writer.authenticate(AuthenticationKind::MobileHome, association);
        }
        writer.finish()
    };
    let mut stale = right;
    stale.identification.0 ^= 1;
    let other_agent = RegistrationReply { home_agent: FIRST, ..right };
    let other_node = RegistrationReply { home_address: FIRST, ..right };
    let denial = RegistrationReply { code: ReplyCode::HA_PROHIBITED, ..right };
    let mut changed = signed(&right);
    changed[3] ^= 1;
    let mut unknown = right.emit().to_vec();
    unknown.extend([99, 0]);
    let mut cut = signed(&right);
    cut.truncate(30);
    use DiscardReason as D;
    let cases = [
        (signed(&stale), D::NotPending),
        (signed(&other_node), D::NotPending),
        (signed(&other_agent), D::WrongHomeAgent),
        (right.emit().to_vec(), D::NoAuthentication),
        (denial.emit().to_vec(), D::NoAuthentication),
        (signed_by(&other_key, 1), D::NoSecurityAssociation),
        (signed_by(&same_spi, 1), D::BadMobileHomeAuthenticator),
        (signed_by(&with_home_agent(), 2), D::BadMobileHomeAuthenticator),
        (changed, D::BadMobileHomeAuthenticator),
        (unknown, D::UnknownExtension),
        (cut, D::Malformed),
        (vec![3, 0], D::Malformed),
        (vec![], D::Malformed),
        (vec![99; 40], D::UnknownType),
        (sent.send.bytes.clone(), D::UnknownType),
    ];
    for (bytes, reason) in cases {
        world.forget_but_requests();
        world.receive(&bytes);
        assert_eq!(world.discards(), [reason], "{bytes:?}");
        assert_eq!(world.node.phase(), Phase::Registering);
        assert!(world.attachments().is_empty());
    }
    world.forget_but_requests();
    world.input(|node, now| node.handle_datagram(FIRST, 4_340, &signed(&right), now));
    assert_eq!(world.discards(), [DiscardReason::NotPending], "not from port 434");
    world.receive(&signed(&right));
    assert_eq!(world.node.phase(), Phase::Registered);
    world.forget_but_requests();
    world.receive(&signed(&right));
    assert_eq!(world.discards(), [DiscardReason::NotPending], "and only once");
}

impl World {
    fn forget_but_requests(&mut self) {
        self.log.retain(|(_, action)| matches!(action, MobileNodeAction::SendRegistration(_)));
    }
}

/// A foreign agent's denial carries no authentication of the home agent: so only
/// the agent that was asked may give one, and nobody when none was.
// Shows 5944-3.6.2.3-a.
#[test]
fn a_foreign_agents_denial_is_believed_from_the_agent_that_was_asked_only() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    let denial = world.last().reply(ReplyCode::FA_PROHIBITED, 0).emit();
    world.input(|node, now| node.handle_datagram(SECOND, 434, &denial, now));
    assert_eq!(world.discards(), [DiscardReason::NoAuthentication]);
    world.receive(&denial);
    assert!(world.events().contains(&MobileNodeEvent::Denied { code: ReplyCode::FA_PROHIBITED }));

    let mut world = World::up(config());
    world.pass(50);
    world.co_located();
    let denial = world.last().reply(ReplyCode::FA_PROHIBITED, 0).emit();
    world.receive(&denial);
    assert_eq!(world.discards(), [DiscardReason::NoAuthentication]);
}

fn with_foreign_agent() -> MobilitySecurityAssociation {
    association(257, ReplayProtection::default())
}

/// B-02: mobile-foreign authentication, by either address of the agent.
// Shows 5944-3.6.1.3-a, 5944-3.6.1.3-c, 5944-3.6.2.1-g, 3024-3.3-b.
#[test]
fn with_an_association_the_foreign_agent_is_authenticated_both_ways() {
    for address in [FIRST, care_of(FIRST)] {
        let reverse_tunnel = ReverseTunnel::Encapsulating;
        let mut config = MobileNodeConfig { reverse_tunnel, ..config() };
        config.security.insert_agent(address, with_foreign_agent());
        let mut world = World::up(config);
        world.hear(&Advertised::foreign(FIRST));
        let sent = world.last();
        let request = request_of(&sent);
        // The home agent's, then the foreign agent's, which covers the style of delivery.
        let [first, style, last] = request.extensions() else { panic!() };
        assert_eq!(first.extension.authentication_kind(), Some(AuthenticationKind::MobileHome));
        assert_eq!(style.extension, Extension::EncapsulatingDelivery);
        assert_eq!(last.extension.authentication_kind(), Some(AuthenticationKind::MobileForeign));
        assert!(request.verify(last, &with_foreign_agent()));
        // Neither acceptance nor denial without it.
        let accepting = sent.reply(ReplyCode::ACCEPTED, 100);
        world.receive(&signed(&accepting));
        world.receive(&sent.reply(ReplyCode::FA_PROHIBITED, 0).emit());
        // Nor with that of somebody else.
        let other_key = Key::new(vec![2; 16]);
        let impostor = MobilitySecurityAssociation { key: other_key, ..with_foreign_agent() };
        let mut writer = MessageWriter::reply(&accepting);
        writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
        writer.authenticate(AuthenticationKind::MobileForeign, &impostor);
        world.receive(&writer.finish());
        // Nor with two.
        let mut writer = MessageWriter::reply(&accepting);
        writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
        writer.authenticate(AuthenticationKind::MobileForeign, &with_foreign_agent());
        writer.authenticate(AuthenticationKind::MobileForeign, &with_foreign_agent());
        world.receive(&writer.finish());
        let bad = DiscardReason::BadMobileForeignAuthenticator;
        assert_eq!(world.discards(), [bad, bad, bad, bad]);
        let mut writer = MessageWriter::reply(&accepting);
        writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
        writer.authenticate(AuthenticationKind::MobileForeign, &with_foreign_agent());
        world.receive(&writer.finish());
        assert_eq!(world.node.phase(), Phase::Registered);
    }
}

/// B-02: timestamps. The home agent's clock is a minute ahead.
// Shows 5944-3.6.2.3-c, 5944-5.7.1-h.
#[test]
fn a_clock_that_is_off_is_set_by_a_verified_133_and_the_request_sent_again_at_once() {
    let mut world = World::up(config());
    world.hear(&Advertised::foreign(FIRST));
    let sent = world.last();
    let mut reply = sent.reply(ReplyCode::IDENTIFICATION_MISMATCH, 0);
    let their_clock = sent.body.identification.high() + 60;
    reply.identification =
        crate::message::Identification::from_halves(their_clock, sent.body.identification.low());
    let mut forged = signed(&reply);
    *forged.last_mut().unwrap() ^= 1;
    world.receive(&forged);
    let mut unasked = reply;
    unasked.identification.0 ^= 1;
    world.receive(&signed(&unasked));
    let reasons = [DiscardReason::BadMobileHomeAuthenticator, DiscardReason::NotPending];
    assert_eq!(world.discards(), reasons);
    assert_eq!(world.node.clock_offset(), 0);
    world.pass(5);
    world.receive(&signed(&reply));
    assert_eq!(world.node.clock_offset(), 60);
    let again = world.last();
    assert_eq!(again.at, world.now);
    assert_eq!(again.body.identification.high(), their_clock);
    world.accept(100);
    assert_eq!(world.node.phase(), Phase::Registered);
}

/// An offset is remembered for the next attachment, and may be negative.
#[test]
fn a_clock_that_was_set_stays_set() {
    let mut world = World::up(config());
    world.hear(&Advertised::foreign(FIRST));
    let mut reply = world.last().reply(ReplyCode::IDENTIFICATION_MISMATCH, 0);
    reply.identification.0 -= 3_600 << 32;
    world.receive(&signed(&reply));
    world.link(false);
    world.pass(999);
    world.link(true);
    world.hear(&Advertised::foreign(SECOND));
    assert_eq!(world.last().body.identification.0, world.now().ntp.0 - (3_600 << 32));
}

#[test]
fn a_home_agent_that_denies_with_133_for_ever_is_not_flooded() {
    let mut world = World::up(config());
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    for _ in 0..10 {
        let before = world.requests().len();
        world.deny(ReplyCode::IDENTIFICATION_MISMATCH);
        if world.requests().len() == before {
            break;
        }
    }
    assert_eq!(world.requests().len(), 3);
    assert_eq!(world.node.phase(), Phase::Denied);
    world.pass(1_999);
    assert_eq!(world.requests().len(), 3);
    world.pass(300);
    assert_eq!(world.requests().len(), 4);
}

/// B-02: nonces (RFC 5944 §5.7.2).
// Shows 5944-3.4-e, 5944-3.6.2.3-d, 5944-5.7.2-a.
#[test]
fn with_nonces_each_request_carries_the_home_agents_last_and_repeats_unchanged() {
    let mut config = config();
    config.security.insert_agent(HOME_AGENT, association(256, ReplayProtection::Nonces));
    let mut world = World::up(config);
    world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
    let first = world.last();
    assert_eq!(first.body.identification.high(), 0, "none is known yet");
    world.pass(1_000);
    let repeated = world.last();
    assert_eq!(repeated.send.bytes, first.send.bytes);
    assert_eq!(repeated.at, 2_000);
    let nonce = |sent: &Sent, code, nonce| {
        let mut reply = sent.reply(code, 100);
        let low = sent.body.identification.low();
        reply.identification = crate::message::Identification::from_halves(nonce, low);
        signed(&reply)
    };
    let denial = nonce(&repeated, ReplyCode::IDENTIFICATION_MISMATCH, 0xaaaa_aaaa);
    world.receive(&denial);
    let second = world.last();
    assert_eq!(second.body.identification.high(), 0xaaaa_aaaa);
    assert_ne!(second.body.identification.low(), first.body.identification.low());
    world.receive(&nonce(&second, ReplyCode::ACCEPTED, 0xbbbb_bbbb));
    assert_eq!(world.node.phase(), Phase::Registered);
    world.pass(46_000);
    assert_eq!(world.last().body.identification.high(), 0xbbbb_bbbb);
}

/// RFC 5944 §3.4: with 69 the agent names the longest lifetime that it takes.
// Shows 5944-3.6.2.3-b.
#[test]
fn a_lifetime_that_is_too_long_is_shortened_to_what_the_agent_takes() {
    let mut world = World::up(config());
    world.hear(&Advertised::foreign(FIRST));
    let denial = world.last().reply(ReplyCode::LIFETIME_TOO_LONG, 20).emit();
    world.receive(&denial);
    assert_eq!((world.last().at, world.last().body.lifetime), (1_000, Lifetime(20)));
    world.accept(20);
    assert_eq!(world.node.registration().unwrap().lifetime, Lifetime(20));
}

#[test]
fn an_agent_that_calls_every_lifetime_too_long_is_passed_over() {
    let mut world = World::up(config());
    world.hear(&Advertised::foreign(FIRST));
    let denial = world.last().reply(ReplyCode::LIFETIME_TOO_LONG, 0xffff).emit();
    world.receive(&denial);
    assert_eq!(world.requests().len(), 1);
}

/// B-01: a full agent sends the node to the next, and any other denial of an
/// agent does too.
// Shows 3024-3.4-b.
#[test]
fn an_agent_that_denies_is_passed_over_for_the_next_and_tried_again_later() {
    for code in ReplyCode::ALL.iter().filter(|code| code.is_from_foreign_agent()) {
        if *code == ReplyCode::LIFETIME_TOO_LONG {
            continue;
        }
        let mut world = World::up(MobileNodeConfig { co_located: false, ..config() });
        let long = |address| Advertised { lifetime: 9_000, ..Advertised::foreign(address) };
        world.hear(&long(FIRST));
        world.hear(&long(SECOND));
        world.deny(*code);
        assert_eq!(world.last().body.care_of_address, care_of(SECOND), "{code:?}");
        world.deny(*code);
        assert_eq!(world.requests().len(), 2);
        world.pass(9_999);
        assert_eq!(world.requests().len(), 2);
        world.pass(1);
        assert_eq!(world.requests().len(), 3);
        assert_eq!(world.last().at, 11_000);
    }
}

#[test]
fn where_the_only_agent_denies_the_co_located_address_is_used() {
    let mut world = World::up(config());
    world.co_located();
    world.hear(&Advertised::foreign(FIRST));
    world.pass(100);
    world.deny(ReplyCode::FA_INSUFFICIENT_RESOURCES);
    assert_eq!(world.last().body.care_of_address, CO_LOCATED.address);
}

/// A denial by the home agent holds wherever the node asks from.
// Shows 3024-3.4-b.
#[test]
fn a_home_agent_that_denies_is_asked_again_later_and_later() {
    for code in ReplyCode::ALL.iter().filter(|code| {
        (128..=139).contains(&code.0) && **code != ReplyCode::IDENTIFICATION_MISMATCH
    }) {
        let mut world = World::up(config());
        world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
        world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(SECOND) });
        let mut gaps = vec![];
        for _ in 0..8 {
            let at = world.last().at;
            world.deny(*code);
            let count = world.requests().len();
            while world.requests().len() == count {
                let next = world.node.poll_timeout().unwrap().0.div_ceil(1_000_000);
                world.pass(next - world.now);
            }
            gaps.push(world.last().at - at);
        }
        for (gap, nominal) in
            gaps.iter().zip([2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000])
        {
            assert!((nominal..=nominal * 11 / 10 + 1).contains(gap), "{code:?} {gaps:?}");
        }
    }
}

#[test]
fn a_renewed_lease_changes_nothing() {
    let mut world = World::up(config());
    world.pass(50);
    world.co_located();
    world.accept(100);
    world.pass(500);
    world.co_located();
    assert_eq!(world.requests().len(), 1);
    assert_eq!(world.attachments(), [BY_ITSELF]);
}

/// RFC 4917: shown as it came, and nothing follows from it.
#[test]
fn what_an_agent_says_of_its_reply_is_shown_to_the_user() {
    let mut world = World::up(config());
    world.hear(&Advertised::foreign(FIRST));
    let code = ReplyCode::HA_PROHIBITED;
    let mut writer = MessageWriter::reply(&world.last().reply(code, 0));
    let text = b"no\x1b\xff";
    writer.extension(&Extension::MessageString { subtype: 1, text }).unwrap();
    writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
    let denial = writer.finish();
    // A text that was changed on the way is not shown: the reply is not believed.
    let mut forged = denial.clone();
    forged[23] ^= 1;
    world.receive(&forged);
    assert_eq!(world.discards(), [DiscardReason::BadMobileHomeAuthenticator]);
    world.receive(&denial);
    assert!(world.events().contains(&MobileNodeEvent::Denied { code }));
    let shown: Vec<_> = world
        .log
        .iter()
        .filter_map(|(_, action)| match action {
            MobileNodeAction::ShowText(text) => Some((text.origin, text.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(shown, [(TextOrigin::HomeAgent, "no\\u{1b}\\xff".to_owned())]);
}
