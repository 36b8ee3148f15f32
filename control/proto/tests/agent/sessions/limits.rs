//! How many sessions a NAI may have. (S1-08, S1-14, S1-15)

use super::*;

fn limited(most: u32) -> AgentConfig {
    config(|config| config.sessions.max_sessions_per_nai = most)
}

#[test]
fn a_nai_has_only_so_many_sessions_and_cannot_lay_a_pool_waste() {
    let mut world = World::home(|config| {
        with_pool(config, 150);
        config.sessions.max_sessions_per_nai = 2;
    });
    let mut last = Cause::Accepted;
    for name in 0..20u8 {
        let ask = [name];
        let ask = Ask::new(&ask);
        last = ask.decision(&mut world).ruling.cause;
        if last == Cause::Accepted {
            ask.releases().reply(&mut world);
        }
        world.millis += 1_000;
    }
    assert_eq!(last, Cause::TooManySessions);
    let home_agent = world.agent.home_agents().next().unwrap();
    assert_eq!(home_agent.sessions(None).len(), 4);
    assert_eq!(Ask::new(b"a").of(OTHER_NAI).address(&mut world), pooled(106));
    world.pass(31_000);
    Ask::new(b"x").address(&mut world);
    Ask::new(b"y").address(&mut world);
    assert_eq!(Ask::new(b"z").decision(&mut world).ruling.cause, Cause::TooManySessions);
}

/// What is kept for a session that is not live takes no place of those that are, and gives
/// it none either.
#[test]
fn a_known_session_that_is_not_live_comes_back_only_where_there_is_room_for_it() {
    let (one, two, three) = (Ask::new(b"one"), Ask::new(b"two"), Ask::new(b"three"));
    let (held_down, sticky) = (SessionState::HeldDown, SessionState::Sticky);
    for (end, stands) in [(one.releases(), held_down), (one.ends(), sticky)] {
        let mut world = World::new(limited(2));
        let first = one.address(&mut world);
        let end = end.at(first);
        end.reply(&mut world);
        let (second, third) = (two.address(&mut world), three.address(&mut world));
        let again = [one, one.at(first), one.home(), one.at(first).home()];
        for (denials, ask) in (1..).zip(again) {
            let ruling = ask.decision(&mut world).ruling;
            assert_eq!(
                (ruling.cause, ruling.step),
                (Cause::TooManySessions, Some(PlacementStep::Known)),
                "{stands:?}"
            );
            assert_eq!(world.counters().sessions_over_limit, denials);
            world.millis += 1_000;
        }
        // Nothing has changed for it: the address is its own, for as long as it was.
        assert_eq!(state(&world, first), Some(stands));
        assert_eq!(one.reply(&mut world).code.0, 130);
        // Who is live renews, moves, comes home and goes again.
        for ask in [two, two.at(second), Ask { care_of_address: STRANGER, ..two }] {
            assert_eq!(ask.address(&mut world), second);
        }
        for ask in [three.at(third).home(), three.at(third).home(), three] {
            assert_eq!(ask.address(&mut world), third);
        }
        // What ends something is never denied.
        assert_eq!(end.reply(&mut world).code.0, 0);
        // The other NAI's are other sessions.
        Ask::new(b"one").of(OTHER_NAI).address(&mut world);
        two.at(second).releases().reply(&mut world);
        assert_eq!(one.address(&mut world), first);
        assert_eq!(state(&world, first), Some(SessionState::Bound));
        assert_eq!(two.decision(&mut world).ruling.cause, Cause::TooManySessions);
    }
}

#[test]
fn an_address_ends_in_its_time_though_its_session_was_denied_for_the_limit() {
    let mut world = World::new(limited(1));
    let one = Ask::new(b"one");
    let first = one.address(&mut world);
    one.at(first).releases().reply(&mut world);
    let two = Ask { lifetime: 600, ..Ask::new(b"two") };
    two.address(&mut world);
    world.pass(20_000);
    assert_eq!(one.decision(&mut world).ruling.cause, Cause::TooManySessions);
    assert_eq!(state(&world, first), Some(SessionState::HeldDown));
    // Thirty seconds after it was given back, and not after it was denied.
    world.pass(11_000);
    assert_eq!(state(&world, first), None);
}

/// Whoever comes first after a restart has the places.
#[test]
fn sessions_that_outlive_their_home_agent_come_back_up_to_the_limit() {
    let mut world = World::new(limited(2));
    let names: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    for (last, name) in (101..).zip(names) {
        let (nai, sub_nai) = (NAI.into(), name.into());
        let stored = StoredSession { nai, sub_nai, home_address: pooled(last), kept: true };
        let now = world.now();
        assert!(world.agent.restore_session(TENANT, HOME_AGENT, &stored, now));
    }
    let causes = [b"d", b"b", b"a", b"d"].map(|name| {
        world.millis += 1_000;
        Ask::new(name).decision(&mut world).ruling.cause
    });
    let (yes, no) = (Cause::Accepted, Cause::TooManySessions);
    assert_eq!(causes, [yes, yes, no, yes]);
}

#[test]
fn a_lower_limit_ends_no_session_that_is_live() {
    let mut world = World::new(limited(3));
    let all = [b"a", b"b", b"c"].map(|name| Ask::new(name));
    let addresses = all.map(|one| one.address(&mut world));
    world.agent.handle_config(limited(1), world.now());
    assert_eq!(world.drain(), []);
    for (one, address) in all.iter().zip(addresses) {
        assert_eq!(one.address(&mut world), address);
    }
    // They get fewer as they end.
    for (one, address) in all.iter().zip(addresses).take(2) {
        one.at(address).ends().reply(&mut world);
        assert_eq!(one.decision(&mut world).ruling.cause, Cause::TooManySessions);
        world.millis += 1_000;
    }
    assert_eq!(all[2].address(&mut world), addresses[2]);
    all[2].at(addresses[2]).ends().reply(&mut world);
    assert_eq!(all[0].address(&mut world), addresses[0]);
}
