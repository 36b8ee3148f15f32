//! Wall clocks that part while the node is registered (RFC 5944 §5.7.1).

use super::*;
use crate::message::Identification;

impl World {
    /// The home agent, whose clock is so many seconds behind the node's, denies the last
    /// request for its timestamp. Gives what is sent then, and the second of that clock.
    fn deny_by_clock(&mut self, behind: u32) -> (Identification, u32) {
        let second = Identification(self.now().ntp.0).high() - behind;
        let mut reply = self.last().reply(ReplyCode::IDENTIFICATION_MISMATCH, 0);
        reply.identification = Identification::from_halves(second, reply.identification.low());
        self.receive(&signed(&reply));
        (self.last().body.identification, second)
    }

    /// A node that renews what was accepted three seconds ago. Gives what was accepted.
    fn renewing() -> (World, Identification) {
        let mut world = World::up(MobileNodeConfig { lifetime: Lifetime(6), ..config() });
        world.hear(&Advertised { lifetime: 9_000, ..Advertised::foreign(FIRST) });
        let accepted = world.last().body.identification;
        world.accept(6);
        world.pass(3_000);
        assert_eq!(world.requests().len(), 2);
        (world, accepted)
    }
}

/// The home agent takes no timestamp up to what it has accepted, be that ahead of its
/// clock.
#[test]
fn a_node_that_is_too_far_ahead_goes_on_just_after_what_was_accepted() {
    let (mut world, accepted) = World::renewing();
    let (again, second) = world.deny_by_clock(8);
    assert_eq!(again.0, accepted.0 + 1);
    assert!(again.high() - second <= 7, "and it is within the window");
    assert_eq!(world.node.clock_offset(), -8);
    world.accept(6);
    assert_eq!(world.node.phase(), Phase::Registered);
    // By and by the clock that was set overtakes it.
    world.pass(3_000);
    assert_eq!(world.last().body.identification.0, accepted.0 + 2);
    world.accept(6);
    world.pass(3_000);
    world.accept(6);
    world.pass(3_000);
    let last = world.last();
    world.now = last.at;
    assert_eq!(last.body.identification.0, world.now().ntp.0 - (8 << 32));
}

/// Else the home agent's clock went back, and what it accepted is out of its window too.
#[test]
fn a_home_agent_whose_clock_went_far_back_is_given_its_own_time() {
    let (mut world, _) = World::renewing();
    let (again, second) = world.deny_by_clock(3_600);
    assert_eq!(again.high(), second);
}

#[test]
fn what_is_denied_just_after_what_was_accepted_gives_way_to_the_home_agents_time() {
    let (mut world, accepted) = World::renewing();
    let (again, _) = world.deny_by_clock(8);
    assert_eq!(again.0, accepted.0 + 1);
    let (again, second) = world.deny_by_clock(8);
    assert!(again.high() - second <= 1, "{again:?}");
    assert!(again.0 < accepted.0);
}
