//! How many sessions ask at once, how often, and when again.

use super::*;

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
