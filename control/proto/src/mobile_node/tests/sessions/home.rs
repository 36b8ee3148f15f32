//! Sessions of a node that is at home, or comes there.

use super::*;

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
    assert_eq!(announced(&world, addresses[0]), [0; 0]);
}
