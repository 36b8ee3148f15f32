//! Sessions of a node that moves, or whose agent starts anew.

use super::*;

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
    world.link(true);
    world.hear(&Advertised::foreign(SECOND));
    let anew = last_for(&world, b"a");
    assert_eq!((anew.send.destination, anew.body.care_of_address), (SECOND, care_of(SECOND)));
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
fn a_session_that_was_denied_asks_at_once_where_the_node_goes() {
    let (mut world, mut giver) = with_sessions(named(), &[]);
    add(&mut world, b"a");
    giver.answered = world.requests().len();
    for _ in 0..3 {
        let sent = last_for(&world, b"a");
        let denied = reply_to(&sent, ReplyCode(130), Ipv4Addr::UNSPECIFIED);
        receive(&mut world, &sent, &denied);
        while last_for(&world, b"a").at == sent.at {
            world.pass_hearing(1, &mut [Advertised::foreign(FIRST)]);
        }
    }
    let sent = last_for(&world, b"a");
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode(130), Ipv4Addr::UNSPECIFIED));
    world.link(false);
    world.link(true);
    world.hear(&Advertised::foreign(SECOND));
    let moved = world.now;
    assert_eq!(last_for(&world, b"a").at, moved);
    // And its first denial there counts as the first.
    let sent = last_for(&world, b"a");
    receive(&mut world, &sent, &reply_to(&sent, ReplyCode(130), Ipv4Addr::UNSPECIFIED));
    accept_own(&mut world);
    world.pass_hearing(3, &mut [Advertised::foreign(SECOND)]);
    assert!(last_for(&world, b"a").at > moved);
}
