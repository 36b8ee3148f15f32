//! Sessions that end, and what becomes of their addresses.

use super::*;

// S1-14.
#[test]
fn a_removed_session_gives_its_address_back_and_is_forgotten() {
    let (mut world, mut giver) = with_sessions(named(), &[b"a", b"b"]);
    let address = session(&world, b"a").home_address();
    world.input(|node, now| assert!(node.remove_session(b"a", now)));
    assert_eq!(losses(&world), [(b"a".to_vec(), address)]);
    assert!(world.node.session(b"a").is_none());
    let sent = last_for(&world, b"a");
    assert!(releases(&sent));
    assert_eq!((sent.body.lifetime, Some(sent.body.home_address)), (Lifetime::ZERO, address));
    assert_eq!(sent.body.care_of_address, care_of(FIRST));
    giver.accept_all(&mut world);
    world.forget();
    world.pass_hearing(30, &mut [Advertised::foreign(FIRST)]);
    assert_eq!(requests_for(&world, b"a").len(), 0);
    world.input(|node, now| assert!(!node.remove_session(b"a", now)));
    assert!(world.node.session(b"b").is_some());
}

#[test]
fn a_release_that_nobody_answers_is_given_up_and_waits_for_a_place_before() {
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    world.link(false);
    world.forget();
    world.input(|node, now| assert!(node.remove_session(b"a", now)));
    world.pass(10_000);
    assert_eq!(world.requests().len(), 0);
    world.link(true);
    let mut agent = [Advertised::foreign(FIRST)];
    world.hear(&agent[0]);
    assert!(releases(&last_for(&world, b"a")));
    accept_own(&mut world);
    world.pass_hearing(38, &mut agent);
    assert_eq!(requests_for(&world, b"a").len(), 4);
    assert_eq!(world.node.sessions.all().count(), 0);
}

#[test]
fn a_session_that_was_never_asked_for_is_removed_without_a_word() {
    let mut world = World::up(named());
    add(&mut world, b"a");
    world.input(|node, now| assert!(node.remove_session(b"a", now)));
    world.hear(&Advertised::foreign(FIRST));
    assert_eq!(requests_for(&world, b"a").len(), 0);
    assert_eq!(losses(&world), [(b"a".to_vec(), None)]);
}

#[test]
fn a_session_that_comes_back_while_it_is_given_back_wants_its_address() {
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    let address = session(&world, b"a").home_address().unwrap();
    world.input(|node, now| assert!(node.remove_session(b"a", now)));
    add(&mut world, b"a");
    let sent = last_for(&world, b"a");
    assert!(!releases(&sent));
    assert_eq!((sent.body.home_address, sent.body.lifetime), (address, Lifetime(100)));
}

#[test]
fn a_stop_gives_all_addresses_back_in_one_request_and_waits_for_both_replies() {
    let (mut world, _) = with_sessions(named(), &[b"a", b"b"]);
    world.forget();
    world.input(MobileNode::handle_stop);
    let sent = world.requests();
    let [all, own] = &sent[..] else { panic!("{sent:?}") };
    assert!(releases(all) && name_of(all).is_empty());
    assert_eq!((all.body.lifetime, all.body.home_address), (Lifetime::ZERO, Ipv4Addr::UNSPECIFIED));
    assert_eq!(all.body.care_of_address, care_of(FIRST));
    assert!(!releases(own));
    assert_eq!(own.body.home_address, HOME);
    receive(&mut world, own, &reply_to(own, ReplyCode::ACCEPTED, HOME));
    assert!(!world.did(&MobileNodeAction::Stopped));
    receive(&mut world, all, &reply_to(all, ReplyCode::ACCEPTED, Ipv4Addr::UNSPECIFIED));
    assert!(world.did(&MobileNodeAction::Stopped));
}

#[test]
fn a_stop_at_home_gives_back_and_one_that_nobody_answers_ends_after_two_seconds() {
    let mut world = World::up(named());
    let mut giver = Giver::default();
    world.hear(&Advertised::home());
    giver.accept_all(&mut world);
    add(&mut world, b"a");
    giver.accept_all(&mut world);
    world.forget();
    world.input(MobileNode::handle_stop);
    let sent = world.requests();
    let [all] = &sent[..] else { panic!("{sent:?}") };
    assert!(releases(all) && name_of(all).is_empty());
    assert_eq!(all.body.care_of_address, Ipv4Addr::UNSPECIFIED);
    world.pass(1_999);
    assert!(!world.did(&MobileNodeAction::Stopped));
    assert_eq!(world.requests().len(), 2, "it is asked twice");
    world.pass(1);
    assert!(world.did(&MobileNodeAction::Stopped));
}
