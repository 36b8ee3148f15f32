//! The node itself as a session of its NAI: the one without a sub-NAI. (S1-08, S1-15)

use homeport_proto::event::DiscardReason;

use super::*;

/// The NAI's own address is of the pool, or set aside for it.
// Shows 2794-3-c.
#[test]
fn a_node_that_has_no_address_is_given_one_as_its_sessions_are() {
    for set_aside in [None, Some(pooled(104))] {
        let mut world = World::home(|config| {
            with_pool(config, 110);
            let own =
                |home_address| Reservation { nai: NAI.to_vec(), sub_nai: Vec::new(), home_address };
            config.sessions.reservations.extend(set_aside.map(own));
        });
        let (own, given) = (Ask::new(b""), set_aside.unwrap_or(pooled(101)));
        let decision = own.decision(&mut world);
        let step = match set_aside {
            None => PlacementStep::Assigned,
            Some(_) => PlacementStep::Reserved,
        };
        assert_eq!((decision.ruling.cause, decision.ruling.step), (Cause::Accepted, Some(step)));
        assert_eq!(decision.request.home_address, given);
        // Asked for again, as by a program that was started anew, and named.
        for again in [own, own.at(given), own.at(pooled(110))] {
            assert_eq!(again.address(&mut world), given);
        }
        assert_ne!(Ask::new(b"a").address(&mut world), given);
        own.at(given).ends().reply(&mut world);
        assert_eq!(state(&world, given), Some(SessionState::Sticky));
        assert_eq!(own.address(&mut world), given);
    }
}

/// On the home link it has no address that it could be answered at, but a station.
#[test]
fn on_the_home_link_a_node_without_address_is_answered_at_its_station() {
    let mut world = world(101);
    let own = Ask::new(b"");
    let message = own.home().message(&mut world);
    let actions = world.send(&direct(NO_ADDRESS, &message));
    assert_eq!(own.read(&actions).home_address, pooled(101));
    let sent = transmits(&actions)[0];
    assert_eq!((sent.link, sent.destination), (Some((HOME, NODE_MAC)), pooled(101)));
    assert_eq!(state(&world, pooled(101)), Some(SessionState::AtHome));
    // Where there is none to be had, the denial is for everybody there.
    let other = Ask { sub_nai: b"a", ..own }.home();
    let message = other.message(&mut world);
    let actions = world.send(&direct(NO_ADDRESS, &message));
    assert_eq!(other.read(&actions).code.0, 130);
    let sent = transmits(&actions)[0];
    assert_eq!((sent.link, sent.destination), (Some((HOME, NODE_MAC)), Ipv4Addr::BROADCAST));
    // Whatever it asks: where it says that it is need not be there.
    let message = own.at(pooled(101)).ends().message(&mut world);
    let actions = world.send(&direct(NO_ADDRESS, &message));
    assert_eq!(transmits(&actions)[0].link, Some((HOME, NODE_MAC)));
    // Elsewhere nobody can be answered there.
    let message = own.message(&mut world);
    let afar = homeport_proto::Datagram { port: CORE, ..direct(NO_ADDRESS, &message) };
    assert_eq!(transmits(&world.send(&afar)), Vec::<&homeport_proto::Transmit>::new());
    assert_eq!(world.discarded(DiscardReason::BadSource), 1);
}

#[test]
fn one_release_ends_all_sessions_of_a_nai_and_no_others_and_not_the_nodes_own() {
    let mut world = world(110);
    let own = Ask::new(b"").address(&mut world);
    let names: [&[u8]; 3] = [b"a", b"b", b"c"];
    let addresses = names.map(|name| Ask::new(name).address(&mut world));
    let other = Ask::new(b"a").of(OTHER_NAI).address(&mut world);
    assert_eq!(Ask::new(b"").releases().reply(&mut world).code.0, 0);
    for address in addresses {
        assert_eq!(state(&world, address), Some(SessionState::HeldDown));
    }
    let bindings: Vec<_> = world.agent.bindings().map(|one| one.home_address).collect();
    assert_eq!(bindings, [own, other]);
    assert_eq!(world.counters().sessions_released, 3);
    // That one goes back by its own name and address.
    Ask::new(b"").at(own).releases().reply(&mut world);
    assert_eq!(state(&world, own), Some(SessionState::HeldDown));
}
