//! Limits: RFC 6888, RFC 7857, and row 31 of what must be survived (B-07).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::kit::*;
use homeport_dataplane::TenantId;
use homeport_dataplane::napt::{Dependence, InsideHost, Napt, Outcome};
use homeport_dataplane::verdict::DropReason;

/// Row 31: one host opens 100,000 flows while fifty others open theirs and keep
/// them: it is capped, and none of theirs fails.
// Shows attack-31.
#[test]
fn one_hosts_exhaustion_costs_the_others_nothing() {
    let mut world = World::new();
    let greedy = inside(200);
    let mut refusals = HashMap::new();
    let mut opened = HashMap::new();
    for flow in 0..100_000u32 {
        let from = at(greedy, 1024 + (flow % 60_000) as u16);
        let to = at(SERVER, 1000 + (flow / 60_000) as u16);
        let outcome = world.try_out(&udp(from, to, b"x"));
        if let Outcome::Refused(reason) = outcome {
            *refusals.entry(reason).or_insert(0u32) += 1;
        }
        if flow % 100 == 0 {
            // One of the others opens a flow, and another uses an old one.
            let number = (flow / 100) % 50;
            let from = at(inside(number), 3000 + (flow / 5000) as u16);
            let external = world.external(from, at(OTHER, 53));
            assert_eq!(*opened.entry(from).or_insert(external), external);
            for (from, external) in opened.iter().take(3) {
                let (host, _) = world.inward(&udp(at(OTHER, 53), *external, b"in"));
                assert_eq!(host.address, from.address);
            }
            world.now += Duration::from_millis(20);
            world.napt.sweep(world.now);
        }
    }
    assert_eq!(opened.len(), 1000);
    assert_eq!(refusals.keys().copied().collect::<Vec<_>>(), [DropReason::NatHostLimit]);
    let mine = 100_000 - refusals[&DropReason::NatHostLimit];
    assert!(mine <= 2048, "{mine} flows");
    assert!(world.count("host-limit") + world.count("rate-limit") == u64::from(100_000 - mine));
    assert_eq!(world.count("exhausted"), 0);
}

/// RFC 6888 REQ-4: the ports of a host are limited, by blocks.
// Shows attack-31.
#[test]
fn req_4_the_ports_of_a_host_are_limited() {
    for blocks in [1, 3] {
        let mut world = World::with(|config| {
            config.max_blocks_per_host = blocks;
            config.block_size = 64;
        });
        let mut given = HashSet::new();
        for port in 0..400 {
            let packet = udp(at(INSIDE, 2000 + port), at(SERVER, 53), b"x");
            let mut bytes = packet.clone();
            match world.napt.outbound(&mut bytes, &host(INSIDE), world.now) {
                Outcome::Translated(()) => assert!(given.insert(source(&bytes))),
                outcome => assert_eq!(outcome, refused(DropReason::NatHostLimit)),
            }
        }
        assert_eq!(given.len(), usize::from(blocks) * 64);
    }
}

/// RFC 6888 REQ-4c, RFC 7857: and so is how fast it opens sessions.
#[test]
fn req_4c_the_rate_of_new_sessions_is_limited() {
    let mut world = World::with(|config| config.sessions_per_second_per_host = 100);
    let open = |world: &mut World, from: u16, count: u16| {
        let ports = from..from + count;
        let opened = ports.filter(|port| {
            let packet = udp(at(INSIDE, *port), at(SERVER, 53), b"x");
            world.try_out(&packet) == Outcome::Translated(())
        });
        opened.count()
    };
    assert_eq!(open(&mut world, 2000, 200), 100);
    world.now += Duration::from_secs(1);
    assert_eq!(open(&mut world, 3000, 200), 100);
    // What is open is not slowed down.
    assert_eq!(open(&mut world, 2000, 100), 100);
}

/// RFC 6888 REQ-5: so are its sessions, over however few ports.
#[test]
fn req_5_the_sessions_of_a_host_are_limited() {
    let mut world = World::with(|config| config.max_sessions_per_host = 50);
    let opened = (0..200).filter(|port| {
        let packet = udp(at(INSIDE, 4000), at(SERVER, 1 + port), b"x");
        world.try_out(&packet) == Outcome::Translated(())
    });
    assert_eq!(opened.count(), 50);
    world.settle();
    assert_eq!(world.count("sessions"), 50);
}

/// RFC 6888 REQ-6: destinations that are reached without translation.
#[test]
fn req_6_some_destinations_are_not_translated_for() {
    let mut world = World::with(|config| {
        config.untranslated = vec![(std::net::Ipv4Addr::new(198, 51, 100, 0), 29)];
    });
    assert_eq!(world.try_out(&udp(at(INSIDE, 1), at(SERVER, 53), b"x")), Outcome::Unclaimed);
    assert_eq!(world.external(at(INSIDE, 1), at(OTHER, 53)).address, EXTERNAL);
}

/// RFC 6888 REQ-8: where nothing tells late packets apart, a port rests for two
/// minutes before it is mapped again; a filter makes it free at once (REQ-8c).
#[test]
fn req_8_a_port_rests_before_it_is_mapped_again() {
    for (filtering, free) in
        [(Dependence::EndpointIndependent, false), (Dependence::AddressDependent, true)]
    {
        let mut world = World::with(|config| {
            config.filtering = filtering;
            (config.block_size, config.max_blocks_per_host) = (2, 1);
        });
        let open = |world: &mut World, port| {
            let outcome = world.try_out(&udp(at(INSIDE, port), at(SERVER, 53), b"x"));
            outcome == Outcome::Translated(())
        };
        assert!(open(&mut world, 1) && open(&mut world, 2) && !open(&mut world, 3));
        world.pass(Duration::from_secs(306));
        assert_eq!(open(&mut world, 4), free, "{}", filtering.name());
        world.pass(Duration::from_secs(125));
        assert!(open(&mut world, 4));
    }
}

/// RFC 6888 REQ-11d: when all is used up, new ones are refused and nothing that is
/// there makes room. The first block of a host is given while any is left.
#[test]
fn req_11_when_all_blocks_are_given_the_old_ones_stay() {
    let mut world = World::with(|config| config.block_size = 1024);
    // Sixteen blocks: a quarter is kept for hosts that have none.
    for port in 0..8192 {
        let _ = world.try_out(&udp(at(INSIDE, 1000 + port), at(SERVER, 53), b"x"));
        world.now += Duration::from_millis(2);
    }
    let mut kept = Vec::new();
    for number in 1..40 {
        let from = at(inside(number), 4000);
        let mut packet = udp(from, at(SERVER, 53), b"x");
        match world.napt.outbound(&mut packet, &host(from.address), world.now) {
            Outcome::Translated(()) => kept.push((from, source(&packet))),
            outcome => assert_eq!(outcome, refused(DropReason::NatExhausted)),
        }
    }
    world.settle();
    assert_eq!(world.count("blocks"), 16);
    assert!(kept.len() >= 8, "{} hosts", kept.len());
    for (from, external) in kept {
        let (host, got) = world.inward(&udp(at(SERVER, 53), external, b"in"));
        assert_eq!((host.address, destination(&got)), (from.address, from));
    }
}

/// RFC 6888 REQ-12, RFC 7422: a record for each block given and taken back, which
/// names the host and never whom it spoke to; a block is taken back two minutes
/// after its last mapping.
#[test]
fn req_12_blocks_given_and_taken_back_are_recorded() {
    let mut world = World::new();
    let owner = visitor(INSIDE, 9);
    let packet = udp(at(INSIDE, 4000), at(SERVER, 53), b"x");
    let external = source(&world.out_of(&owner, &packet));
    let [given] = world.log()[..] else { panic!("one record") };
    assert!(given.given());
    assert_eq!((given.napt(), given.host(), given.external()), (0, owner, EXTERNAL));
    assert!((given.first_port()..=given.last_port()).contains(&external.port));
    assert_eq!(given.last_port() - given.first_port(), 127);
    world.pass(Duration::from_secs(300 + 115));
    assert_eq!(world.log(), []);
    world.pass(Duration::from_secs(20));
    let [taken] = world.log()[..] else { panic!("one record") };
    assert!(!taken.given());
    assert_eq!(taken.host(), owner);
    assert_eq!(taken.first_port(), given.first_port());
    assert_eq!((world.count("hosts"), world.count("blocks")), (0, 0));
}

/// A record that nobody takes is kept, up to a limit, and then counted as lost.
#[test]
fn records_wait_and_are_counted_when_lost() {
    let mut world = World::with(|config| (config.block_size, config.max_sessions) = (2, 8192));
    for number in 0..2000 {
        world.external(at(inside(number), 4000), at(SERVER, 53));
    }
    world.napt.drain_log(|_| false);
    assert_eq!(world.log().len(), 1024);
    assert_eq!(world.count("log-lost"), 2000 - 1024);
}

/// Every block has one owner among the cores, by its number, and a core gives out
/// only its own.
#[test]
fn each_core_gives_out_its_own_blocks_only() {
    let mut seen = HashSet::new();
    for core in 0..3 {
        let mut napt = Napt::new(config(), 0, [1, 2], (core, 3));
        let now = std::time::Instant::now();
        for number in 0..40 {
            let mut packet = udp(at(inside(number), 4000), at(SERVER, 53), b"x");
            let outcome = napt.outbound(&mut packet, &host(inside(number)), now);
            assert_eq!(outcome, Outcome::Translated(()));
            let port = source(&packet).port;
            assert_eq!(napt.owner(port), Some(core));
            assert!(seen.insert(port));
        }
        assert_eq!(napt.owner(16_384 + 128 * 5), Some(2));
        assert_eq!((napt.owner(16_383), napt.owner(32_768)), (None, None));
    }
}

/// Row 32: the same address of two tenants is two hosts.
#[test]
fn tenants_with_one_address_are_two_hosts() {
    let mut world = World::new();
    let packet = udp(at(INSIDE, 4000), at(SERVER, 53), b"x");
    let mut seen = HashSet::new();
    for tenant in 0..20 {
        let owner = InsideHost { tenant: TenantId(tenant), ..host(INSIDE) };
        let external = source(&world.out_of(&owner, &packet));
        assert!(seen.insert(external));
        assert_eq!(world.inward(&udp(at(SERVER, 53), external, b"in")).0, owner);
    }
}

/// From outside a host's sessions can be filled up to half: the rest is its own.
// Shows attack-31.
#[test]
fn outsiders_cannot_use_up_a_hosts_sessions() {
    let mut world = World::with(|config| {
        config.filtering = Dependence::EndpointIndependent;
        config.max_sessions_per_host = 100;
    });
    let syn = Tcp::new(SYN, 1, 0);
    let external = source(&world.out(&syn.between(at(INSIDE, 4000), at(SERVER, 80))));
    for port in 1..2000 {
        let _ = world.try_in(&syn.between(at(OTHER, port), external));
    }
    for port in 1..50 {
        world.out(&syn.between(at(INSIDE, 5000 + port), at(SERVER, 80)));
    }
}
