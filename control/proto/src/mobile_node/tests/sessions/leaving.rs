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
fn a_stop_gives_back_each_sessions_address_and_waits_for_all_replies() {
    let (mut world, _) = with_sessions(named(), &[b"a", b"b"]);
    let addresses = [b"a", b"b"].map(|name| session(&world, name).home_address());
    add(&mut world, b"never answered");
    world.input(|node, now| assert!(node.remove_session(b"never answered", now)));
    world.forget();
    world.input(MobileNode::handle_stop);
    let sent = world.requests();
    let [own, a, b] = &sent[..] else { panic!("{sent:?}") };
    assert!(!releases(own) && name_of(own).is_empty());
    assert_eq!(own.body.home_address, HOME);
    for (one, name, address) in [(a, b"a", addresses[0]), (b, b"b", addresses[1])] {
        assert!(releases(one) && name_of(one) == name);
        assert_eq!((one.body.lifetime, Some(one.body.home_address)), (Lifetime::ZERO, address));
        assert_eq!(one.body.care_of_address, care_of(FIRST));
    }
    for one in [own, b, a] {
        assert!(!world.did(&MobileNodeAction::Stopped));
        receive(&mut world, one, &reply_to(one, ReplyCode::ACCEPTED, one.body.home_address));
    }
    let before = requests_for(&world, b"never answered");
    assert!(!world.did(&MobileNodeAction::Stopped), "what was on its way is waited for too");
    assert_eq!(before.len(), 0, "but not sent again before its time");
    world.pass(2_000);
    assert!(world.did(&MobileNodeAction::Stopped));
}

#[test]
fn a_stop_with_many_sessions_has_no_more_requests_on_their_way_than_ever() {
    let names: Vec<[u8; 2]> = (0..100u16).map(u16::to_be_bytes).collect();
    let mut world = World::up(named());
    let mut giver = Giver::default();
    names.iter().for_each(|name| add(&mut world, name));
    world.hear(&Advertised::foreign(FIRST));
    giver.accept_all(&mut world);
    world.forget();
    giver.answered = 0;
    world.input(MobileNode::handle_stop);
    assert_eq!(giver.accept_all(&mut world), 1 + MAX_KNOWN);
    assert_eq!(world.requests().len(), 101);
    assert!(world.did(&MobileNodeAction::Stopped));
    // What is not answered is sent again, and waits no longer than a stop may.
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    world.forget();
    world.input(MobileNode::handle_stop);
    accept_own(&mut world);
    world.pass(1_999);
    assert!(!world.did(&MobileNodeAction::Stopped));
    assert_eq!(requests_for(&world, b"a").len(), 2);
    world.pass(1);
    assert!(world.did(&MobileNodeAction::Stopped));
}

#[test]
fn a_stop_at_home_gives_back_and_where_there_is_no_way_it_ends_at_once() {
    let mut world = World::up(named());
    let mut giver = Giver::default();
    world.hear(&Advertised::home());
    giver.accept_all(&mut world);
    add(&mut world, b"a");
    giver.accept_all(&mut world);
    world.forget();
    world.input(MobileNode::handle_stop);
    let sent = world.requests();
    let [one] = &sent[..] else { panic!("{sent:?}") };
    assert!(releases(one) && name_of(one) == b"a");
    assert_eq!(one.body.care_of_address, one.body.home_address);
    world.link(false);
    assert!(world.did(&MobileNodeAction::Stopped));
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    world.link(false);
    world.forget();
    world.input(MobileNode::handle_stop);
    assert_eq!(world.requests().len(), 0);
    assert!(world.did(&MobileNodeAction::Stopped));
}

#[test]
fn all_sessions_of_the_nai_end_by_one_request_and_new_ones_wait_for_it() {
    let (mut world, mut giver) = with_sessions(named(), &[b"a", b"b"]);
    world.forget();
    giver.answered = 0;
    world.input(|node, now| node.remove_all_sessions(now).unwrap());
    let lost = losses(&world);
    assert_eq!(lost.len(), 2);
    assert!(lost.iter().all(|(_, address)| address.is_some()));
    let sent = world.requests();
    let [all] = &sent[..] else { panic!("{sent:?}") };
    assert!(releases(all) && name_of(all).is_empty());
    assert_eq!((all.body.lifetime, all.body.home_address), (Lifetime::ZERO, Ipv4Addr::UNSPECIFIED));
    assert_eq!(all.body.care_of_address, care_of(FIRST));
    add(&mut world, b"c");
    world.pass(1_500);
    assert_eq!(requests_for(&world, b"c").len(), 0);
    assert_eq!(world.requests().len(), 2, "it is sent again");
    let all = world.last();
    receive(&mut world, &all, &reply_to(&all, ReplyCode::ACCEPTED, Ipv4Addr::UNSPECIFIED));
    assert_eq!(requests_for(&world, b"c").len(), 1);
    let own = last_for(&world, b"");
    assert!(!releases(&own) && own.body.lifetime == Lifetime(100), "it may have gone with them");
    assert_eq!(world.node.phase(), Phase::Registered);
}

#[test]
fn a_release_of_all_goes_where_the_node_goes_and_is_given_up_some_day() {
    let (mut world, _) = with_sessions(named(), &[b"a"]);
    world.link(false);
    world.forget();
    world.input(|node, now| node.remove_all_sessions(now).unwrap());
    world.pass(10_000);
    assert_eq!(world.requests().len(), 0);
    world.link(true);
    world.hear(&Advertised::foreign(FIRST));
    let of_all = |world: &World| -> Vec<Sent> {
        requests_for(world, b"").into_iter().filter(releases).collect()
    };
    assert_eq!(of_all(&world).len(), 1);
    world.link(false);
    world.link(true);
    world.hear(&Advertised::foreign(SECOND));
    let again = of_all(&world).pop().unwrap();
    assert_eq!(again.body.care_of_address, care_of(SECOND));
    let own = requests_for(&world, b"").into_iter().rfind(|sent| !releases(sent)).unwrap();
    receive(&mut world, &own, &reply_to(&own, ReplyCode::ACCEPTED, HOME));
    add(&mut world, b"b");
    world.pass_hearing(30, &mut [Advertised::foreign(SECOND)]);
    assert_eq!(of_all(&world).len(), 1 + 4);
    assert!(!requests_for(&world, b"b").is_empty());
}
