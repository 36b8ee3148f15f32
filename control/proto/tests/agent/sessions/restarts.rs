//! What a home agent has written down of its sessions, behind a restart.

use core::time::Duration;

use homeport_proto::Lifetime;
use homeport_proto::action::StoredSession;
use homeport_proto::home_agent::SessionState;

use super::{Ask, NAI, pooled, state, with_pool, world};
use crate::support::*;

#[test]
fn what_was_stored_comes_back_after_a_restart_unless_it_may_not() {
    let mut world = world(110);
    let stored = |nai: &[u8], sub_nai: &[u8], home_address| StoredSession {
        nai: nai.into(),
        sub_nai: sub_nai.into(),
        home_address,
        kept: true,
    };
    let cases = [
        (stored(NAI, b"one", pooled(101)), true),
        (stored(NAI, b"one", pooled(104)), false),
        (stored(NAI, b"two", pooled(101)), false),
        (stored(b"gone@train.example", b"a", pooled(105)), false),
        (stored(NAI, b"two", CO_LOCATED), false),
    ];
    for (session, taken) in cases {
        let now = world.now();
        assert_eq!(world.agent.restore_session(TENANT, HOME_AGENT, &session, now), taken);
    }
    assert_eq!(state(&world, pooled(101)), Some(SessionState::Sticky));
    assert_eq!(Ask::new(b"two").address(&mut world), pooled(103));
    assert_eq!(Ask::new(b"one").address(&mut world), pooled(101));
}

/// A session that came back may be bound somewhere for longer than others are sticky.
#[test]
fn what_ends_does_not_wait_for_what_came_back_after_a_restart() {
    let sticky = Duration::from_secs(5);
    let mut world = World::home(|config| {
        with_pool(config, 110);
        config.sessions.sticky = sticky;
        config.max_lifetime = Lifetime(600);
    });
    let session = StoredSession {
        nai: NAI.into(),
        sub_nai: b"one".as_slice().into(),
        home_address: pooled(101),
        kept: true,
    };
    let now = world.now();
    assert!(world.agent.restore_session(TENANT, HOME_AGENT, &session, now));
    let two = Ask::new(b"two").address(&mut world);
    world.pass(60_000);
    assert_eq!(state(&world, two), Some(SessionState::Sticky));
    world.pass(5_000);
    assert_eq!(state(&world, two), None);
    assert_eq!(state(&world, session.home_address), Some(SessionState::Sticky));
    world.pass(600_000);
    assert_eq!(state(&world, session.home_address), None);
}
