//! The NAPT against the plainest model of one: a map (B-07).

use std::collections::HashMap;
use std::time::Duration;

use crate::kit::*;
use homeport_dataplane::napt::{Endpoint, InsideHost, Outcome};
use homeport_dataplane::verdict::DropReason;
use proptest::prelude::*;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A host sends: which one, from which port, to which remote endpoint.
    Out(u8, u8, u8, u8),
    /// A remote endpoint sends to the external endpoint of a mapping.
    In(usize, u8, u8),
    /// Somebody sends to any port.
    Stray(u16, u8),
    /// Time passes.
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6, 0u8..6, 0u8..3, 0u8..3).prop_map(|(h, p, a, r)| Step::Out(h, p, a, r)),
        4 => (any::<usize>(), 0u8..3, 0u8..3).prop_map(|(m, a, r)| Step::In(m, a, r)),
        1 => (any::<u16>(), 0u8..3).prop_map(|(port, a)| Step::Stray(port, a)),
        1 => (1u16..400).prop_map(Step::Pass),
    ]
}

/// What is known of one inside endpoint.
struct Known {
    external: Endpoint,
    /// When it last sent to each remote endpoint, in seconds.
    sent: HashMap<Endpoint, u64>,
}

/// Six hosts: four addresses, two of which are shared by two stations each.
fn owner(number: u8) -> InsideHost {
    match number {
        0..4 => visitor(inside(u32::from(number / 2)), number),
        _ => host(inside(u32::from(number))),
    }
}

fn remote(address: u8, port: u8) -> Endpoint {
    at(std::net::Ipv4Addr::new(198, 51, 100, address), 50 + u16::from(port))
}

/// How late the sweep may be, in seconds.
const SLACK: u64 = 6;
const TIMEOUT: u64 = 300;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens: two inside endpoints never have one external endpoint, a
    /// packet and its answer find each other, the filter is the address's, checksums
    /// are right, and what was silent for long is forgotten.
    #[test]
    fn the_napt_does_what_a_map_would(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::with(|config| config.max_sessions = 512);
        let mut known: HashMap<(InsideHost, u16), Known> = HashMap::new();
        let mut clock = 0u64;
        for step in steps {
            match step {
                Step::Out(number, port, address, rport) => {
                    let (owner, to) = (owner(number), remote(address, rport));
                    let from = at(owner.address, 4000 + u16::from(port));
                    let sent = world.out_of(&owner, &udp(from, to, b"out"));
                    prop_assert_eq!(destination(&sent), to);
                    let external = source(&sent);
                    prop_assert_eq!(external.address, EXTERNAL);
                    for ((other, port), known) in &known {
                        let same = (*other, *port) == (owner, from.port);
                        let alive = known.sent.values().any(|at| clock < at + TIMEOUT);
                        if alive {
                            prop_assert_eq!(known.external == external, same);
                        }
                    }
                    let entry = known.entry((owner, from.port));
                    let entry = entry.or_insert(Known { external, sent: HashMap::new() });
                    entry.external = external;
                    entry.sent.insert(to, clock);
                }
                Step::In(which, address, rport) => {
                    let mut keys: Vec<_> = known.keys().copied().collect();
                    keys.sort_by_key(|(host, port)| (host.address, *port, format!("{host:?}")));
                    if keys.is_empty() {
                        continue;
                    }
                    let key = keys[which % keys.len()];
                    let from = remote(address, rport);
                    let external = known[&key].external;
                    // Somebody else may have it by now.
                    let holders: Vec<_> = known
                        .iter()
                        .filter(|(_, known)| known.external == external)
                        .filter(|(_, known)| {
                            known.sent.values().any(|at| clock < at + TIMEOUT + SLACK)
                        })
                        .collect();
                    let age = |known: &Known| {
                        let to_it = known.sent.iter().filter(|(to, _)| to.address == from.address);
                        to_it.map(|(_, at)| clock - at).min()
                    };
                    let packet = udp(from, external, b"in");
                    let mut bytes = packet.clone();
                    let outcome = world.napt.inbound(&mut bytes, world.now);
                    let youngest = holders.iter().filter_map(|(_, known)| age(known)).min();
                    match outcome {
                        Outcome::Translated(host) => {
                            assert_right(&bytes);
                            let to = (host, destination(&bytes).port);
                            prop_assert!(holders.iter().any(|(key, _)| **key == to));
                            prop_assert!(youngest.is_some_and(|age| age < TIMEOUT + SLACK));
                            prop_assert_eq!(source(&bytes), from);
                        }
                        Outcome::Refused(reason) => {
                            prop_assert!(youngest.is_none_or(|age| age >= TIMEOUT));
                            prop_assert!(matches!(
                                reason,
                                DropReason::NatFiltered | DropReason::NatNoMapping
                            ));
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Stray(port, address) => {
                    let packet = udp(remote(address, 0), at(EXTERNAL, port), b"stray");
                    let outcome = world.try_in(&packet);
                    let ours = (16_384..32_768).contains(&port);
                    prop_assert_eq!(outcome == Outcome::Unclaimed, !ours);
                }
                Step::Pass(seconds) => {
                    world.pass(Duration::from_secs(u64::from(seconds)));
                    clock += u64::from(seconds);
                }
            }
        }
        // In the end nothing is left.
        world.pass(Duration::from_secs(600));
        for gauge in ["hosts", "blocks", "mappings", "sessions"] {
            prop_assert_eq!(world.count(gauge), 0, "{}", gauge);
        }
        let (given, taken): (Vec<_>, Vec<_>) =
            world.log().into_iter().partition(|record| record.given());
        prop_assert_eq!(given.len(), taken.len());
    }

    /// Noise never panics, and what is not translated is as it was.
    #[test]
    fn noise_is_left_alone(
        mut bytes in proptest::collection::vec(any::<u8>(), 20..120),
        protocol in prop_oneof![Just(1u8), Just(6), Just(17), any::<u8>()],
        fragment in prop_oneof![Just(0u16), any::<u16>()],
        shape in any::<bool>(),
    ) {
        // A header that is right, noise behind it.
        bytes[0] = 0x45;
        bytes[9] = protocol;
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[16..20].copy_from_slice(&EXTERNAL.octets());
        if shape && bytes.len() > 56 {
            // An ICMP error, more or less.
            (bytes[9], bytes[20], bytes[28]) = (1, 3, 0x45);
        }
        bytes[10..12].copy_from_slice(&[0, 0]);
        let sum = homeport_wire::checksum::checksum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut world = World::new();
        let _ = world.try_in(&bytes);
        let _ = world.try_out(&bytes);
        let _ = world.napt.hairpin(&mut bytes, &host(INSIDE), world.now);
    }
}
