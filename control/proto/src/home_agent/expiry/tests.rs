use super::*;
use crate::NtpTime;
use crate::action::CareOf;
use crate::binding::{MobilityBinding, Registration, Registrations};
use crate::message::{Identification, RequestFlags};
use crate::{Encapsulation, Lifetime};
use homeport_wire::TenantId;

const SECOND: u64 = 1_000_000_000;
const KEY: (TenantId, Ipv4Addr) = (TenantId(1), Ipv4Addr::new(192, 0, 2, 1));

struct World {
    nodes: NodeList,
    expiries: Expiries,
    now: Instant,
}

impl World {
    fn new(now: u64) -> Self {
        World { nodes: NodeList::default(), expiries: Expiries::default(), now: Instant(now) }
    }

    fn bind(&mut self, node: u32, lifetime: u16) {
        let home_address = Ipv4Addr::from_bits(0x0a00_0000 + node);
        let lifetime = Lifetime(lifetime);
        let address = Ipv4Addr::new(100, 64, 0, 1);
        let care_of = CareOf {
            address,
            registered: address,
            encapsulation: Encapsulation::IpInIp,
            reverse_tunnel: true,
            co_located: false,
            broadcast: false,
            unproven: false,
            lifetime,
        };
        let expires = lifetime.duration().map(|lasts| self.now + lasts);
        let registration = Registration {
            care_of,
            flags: RequestFlags(0),
            identification: Identification(NtpTime(7).0),
            registered_at: self.now,
            expires,
            foreign_agent: None,
            keepalive: None,
            proof: None,
        };
        self.set(home_address, Registrations::from_buf([registration]), expires);
    }

    fn unbind(&mut self, node: u32) {
        self.set(Ipv4Addr::from_bits(0x0a00_0000 + node), Registrations::new(), None);
    }

    fn set(&mut self, home_address: Ipv4Addr, registrations: Registrations, ends: Option<Instant>) {
        let binding = MobilityBinding {
            tenant: KEY.0,
            home_address,
            home_agent: KEY.1,
            home_link: None,
            mobile_networks: Vec::new(),
            set_df: false,
            clamp_mss: false,
            since: self.now,
            registrations,
        };
        let number = self.nodes.make(home_address);
        self.nodes.set_binding(number, binding, self.now);
        self.expiries.set(&mut self.nodes, number, ends, self.now);
    }

    fn next(&self) -> Option<Instant> {
        self.expiries.next(&self.nodes)
    }

    /// Goes on to `end` as an event loop does. Who expired, and when.
    fn run(&mut self, end: u64) -> Vec<(u32, u64)> {
        let mut expired = Vec::new();
        while let Some(at) = self.next().filter(|at| at.0 <= end) {
            self.now = self.now.max(at);
            let mut budget = MOVED_PER_CALL;
            for _ in 0..EXPIRED_PER_CALL {
                let due = self.expiries.pop_due(&mut self.nodes, self.now, &mut budget);
                let Some(number) = due else { break };
                let node = self.nodes.get(number).unwrap().home_address().to_bits() - 0x0a00_0000;
                expired.push((node, self.now.0));
                self.unbind(node);
            }
        }
        self.now = Instant(end);
        expired
    }
}

#[test]
fn every_binding_ends_exactly_at_its_end_and_in_order() {
    let mut world = World::new(123 * SECOND + 456);
    let start = world.now.0;
    let mut expected = Vec::new();
    for (node, lifetime) in [(1, 1), (2, 300), (3, 2), (4, 65_534), (5, 40_000), (6, 300), (7, 2)] {
        world.bind(node, lifetime);
        expected.push((start + u64::from(lifetime) * SECOND, node));
    }
    world.bind(8, u16::MAX);
    expected.sort_unstable();
    let expected: Vec<(u32, u64)> = expected.into_iter().map(|(at, node)| (node, at)).collect();
    assert_eq!(world.next(), Some(Instant(start + SECOND)));
    assert_eq!(world.run(start + 100_000 * SECOND), expected);
    assert_eq!(world.next(), None);
    assert!(world.expiries.is_empty(), "no part is kept without nodes");
}

#[test]
fn a_renewed_binding_ends_at_its_new_end_be_it_later_or_sooner() {
    let mut world = World::new(0);
    world.bind(1, 100);
    world.bind(2, 100);
    assert_eq!(world.run(50 * SECOND), []);
    world.bind(1, 100);
    world.bind(2, 10);
    assert_eq!(world.run(1_000 * SECOND), [(2, 60 * SECOND), (1, 150 * SECOND)]);
}

#[test]
fn a_binding_that_was_given_up_leaves_no_timer() {
    let mut world = World::new(0);
    world.bind(1, 100);
    world.bind(2, 100);
    world.bind(3, 100);
    world.unbind(2);
    world.unbind(3);
    world.unbind(1);
    assert_eq!(world.next(), None);
    world.bind(2, u16::MAX);
    assert_eq!(world.next(), None);
    // Bound for ever, after it had an end.
    world.bind(3, 5);
    world.bind(3, u16::MAX);
    assert_eq!((world.next(), world.run(1_000 * SECOND)), (None, Vec::new()));
}

#[test]
fn many_ends_at_one_moment_are_taken_in_bounded_calls() {
    let mut world = World::new(5 * SECOND);
    let many = 3 * u32::try_from(MOVED_PER_CALL).unwrap() + 7;
    for node in 0..many {
        world.bind(node, 60);
    }
    world.now = Instant(65 * SECOND);
    let mut calls = Vec::new();
    while world.next().is_some_and(|at| at <= world.now) {
        let (mut budget, mut ended) = (MOVED_PER_CALL, 0);
        while ended < EXPIRED_PER_CALL {
            let due = world.expiries.pop_due(&mut world.nodes, world.now, &mut budget);
            let Some(number) = due else { break };
            let home_address = world.nodes.get(number).unwrap().home_address();
            world.set(home_address, Registrations::new(), None);
            ended += 1;
        }
        calls.push(ended);
    }
    assert!(calls.iter().all(|ended| *ended <= EXPIRED_PER_CALL));
    assert_eq!(calls.iter().sum::<usize>(), many as usize);
    assert_eq!((world.next(), world.nodes.bound()), (None, 0));
}

/// Against a plain sorted list, with everything that may happen to a binding.
#[test]
fn random_lives_end_when_they_must() {
    let mut world = World::new(77);
    let mut ends: alloc::collections::BTreeMap<u32, u64> = alloc::collections::BTreeMap::new();
    let mut random = 1u64;
    let mut expired = 0;
    for _ in 0..20_000 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let node = u32::try_from(random >> 56).unwrap();
        let lifetime = match random >> 32 & 7 {
            0 => 1,
            1 => 65_534,
            2 => u16::MAX,
            _ => u16::try_from(random >> 40 & 0x1ff).unwrap().max(1),
        };
        if random >> 36 & 7 == 0 {
            world.unbind(node);
            ends.remove(&node);
        } else {
            world.bind(node, lifetime);
            match Lifetime(lifetime).duration() {
                Some(lasts) => ends.insert(node, (world.now + lasts).0),
                None => ends.remove(&node),
            };
        }
        let until = world.now.0 + (random >> 20 & 0xffff_ffff);
        let mut due: Vec<(u32, u64)> =
            ends.iter().filter(|(_, at)| **at <= until).map(|(node, at)| (*node, *at)).collect();
        due.sort_unstable_by_key(|(node, at)| (*at, *node));
        ends.retain(|_, at| *at > until);
        expired += due.len();
        assert_eq!(world.run(until), due);
    }
    assert!(expired > 1_000, "{expired}");
}
