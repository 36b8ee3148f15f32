//! Sessions that are denied, and what the node makes of it.

use super::*;

fn deny(world: &mut World, sent: &Sent, code: ReplyCode) {
    if code.is_from_foreign_agent() {
        receive(world, sent, &sent.reply(code, 0).emit());
    } else {
        receive(world, sent, &reply_to(sent, code, sent.body.home_address));
    }
}

#[test]
fn a_denied_session_waits_twice_as_long_each_time_and_stays() {
    for code in [ReplyCode::HA_INSUFFICIENT_RESOURCES, ReplyCode::FA_INSUFFICIENT_RESOURCES] {
        let (mut world, mut giver) = with_sessions(named(), &[]);
        let mut agent = [Advertised::foreign(FIRST)];
        add(&mut world, b"a");
        for wait in [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000] {
            let sent = last_for(&world, b"a");
            deny(&mut world, &sent, code);
            assert_eq!(session(&world, b"a").phase(), Phase::Denied);
            assert_eq!(session(&world, b"a").last_denial(), Some(code));
            let denied = world.now;
            while last_for(&world, b"a").at == sent.at {
                world.pass_hearing(1, &mut agent);
                let new = world.requests().split_off(giver.answered);
                giver.answered += new.len();
                for own in new.iter().filter(|sent| name_of(sent).is_empty()) {
                    receive(&mut world, own, &reply_to(own, ReplyCode::ACCEPTED, HOME));
                }
                assert!(world.now < denied + 100_000);
            }
            let waited = last_for(&world, b"a").at - denied;
            assert!((wait..=wait * 11 / 10).contains(&waited), "{waited} and not {wait}");
        }
        // The node itself was not denied.
        assert_eq!(world.node.phase(), Phase::Registered);
    }
}

// Shows 5944-3.6.2.3-c.
#[test]
fn a_wrong_clock_is_set_once_for_all_and_they_ask_again_at_once() {
    let mut world = World::up(named());
    for name in [b"a", b"b", b"c"] {
        add(&mut world, name);
    }
    world.hear(&Advertised::foreign(FIRST));
    let first = world.requests();
    assert_eq!(first.len(), 4);
    for sent in &first {
        let home_address = sent.body.home_address;
        let mut denied = sent.clone();
        denied.body.identification.0 += 600 << 32;
        let payload = reply_to(&denied, ReplyCode::IDENTIFICATION_MISMATCH, home_address);
        receive(&mut world, sent, &payload);
    }
    assert_eq!(world.node.clock_offset(), 600, "not moved by each of them");
    let second = world.requests().split_off(4);
    assert_eq!(second.len(), 4);
    assert!(second.iter().all(|sent| sent.at == first[0].at));
    let own_clock = world.now().ntp;
    for sent in &second {
        let ahead = NtpTime(sent.body.identification.0).wrapping_distance(own_clock) >> 32;
        assert_eq!(ahead, 600);
    }
}

#[test]
fn an_encapsulation_that_is_denied_is_given_up_by_all() {
    let encapsulation = crate::config::PreferredEncapsulation::Minimal;
    let mut world = World::up(MobileNodeConfig { encapsulation, ..named() });
    add(&mut world, b"a");
    let flags = Advertised::foreign(FIRST).flags.with(AgentFlags::MINIMAL);
    world.hear(&Advertised { flags, ..Advertised::foreign(FIRST) });
    let sent = world.requests();
    assert_eq!(sent.len(), 2);
    for one in &sent {
        assert!(one.body.flags.contains(RequestFlags::MINIMAL));
        deny(&mut world, one, ReplyCode::HA_ENCAPSULATION_UNAVAILABLE);
    }
    let again = world.requests().split_off(2);
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|one| !one.body.flags.contains(RequestFlags::MINIMAL)));
}

#[test]
fn an_address_that_is_wished_for_is_asked_for_and_if_denied_any() {
    let (mut world, mut giver) = with_sessions(named(), &[]);
    let wanted = Ipv4Addr::new(10, 1, 0, 77);
    world.input(|node, now| node.add_session(b"a", Some(wanted), now).unwrap());
    let sent = last_for(&world, b"a");
    assert_eq!(sent.body.home_address, wanted);
    assert_eq!(session(&world, b"a").home_address(), None, "not before it is given");
    deny(&mut world, &sent, ReplyCode::HA_PROHIBITED);
    assert_eq!(last_for(&world, b"a").body.home_address, Ipv4Addr::UNSPECIFIED);
    giver.answered = world.requests().len() - 1;
    giver.accept_all(&mut world);
    assert_eq!(uses(&world), [(b"a".to_vec(), Ipv4Addr::new(10, 1, 0, 100))]);
    assert_eq!(losses(&world), []);
}

#[test]
fn an_address_that_the_home_agent_prohibits_is_lost_and_another_asked_for() {
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    let mut agent = [Advertised::foreign(FIRST)];
    world.pass_hearing(46, &mut agent);
    let address = session(&world, b"a").home_address();
    let sent = last_for(&world, b"a");
    deny(&mut world, &sent, ReplyCode::HA_PROHIBITED);
    assert_eq!(losses(&world), [(b"a".to_vec(), address)]);
    assert_eq!(session(&world, b"a").phase(), Phase::Denied);
    world.pass_hearing(3, &mut agent);
    assert_eq!(last_for(&world, b"a").body.home_address, Ipv4Addr::UNSPECIFIED);
}

/// RFC 5944 §5.7.1: each timestamp is greater than those before it, though the denial of
/// another session has set the clock back meanwhile.
#[test]
fn a_denied_session_makes_no_other_repeat_its_timestamps() {
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    world.pass_hearing(45, &mut [Advertised::foreign(FIRST)]);
    let own = last_for(&world, b"");
    accept_own(&mut world);
    let session = last_for(&world, b"a");
    assert!(own.at > 40_000 && session.at > 40_000, "both are renewed");
    let mut denied = session.clone();
    denied.body.identification.0 -= 3 << 32;
    let home_address = session.body.home_address;
    let payload = reply_to(&denied, ReplyCode::IDENTIFICATION_MISMATCH, home_address);
    receive(&mut world, &session, &payload);
    let again = last_for(&world, b"a").body.identification;
    assert!(again.0 < session.body.identification.0, "it goes back behind what was denied");
    world.link(false);
    world.link(true);
    world.hear(&Advertised::foreign(SECOND));
    let next = last_for(&world, b"").body.identification;
    assert!(next.0 > own.body.identification.0, "{next:?} behind {:?}", own.body.identification);
}
