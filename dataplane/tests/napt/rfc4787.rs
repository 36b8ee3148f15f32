//! RFC 4787, a test for each requirement (B-07).

use std::time::Duration;

use crate::kit::*;
use homeport_dataplane::napt::{Dependence, Outcome};
use homeport_dataplane::verdict::DropReason;
use homeport_wire::Ipv4Header;
use zerocopy::FromBytes;

/// REQ-1: wherever a host sends from one endpoint, it has one external endpoint.
#[test]
fn req_1_the_mapping_does_not_depend_on_the_remote_endpoint() {
    let mut world = World::new();
    let from = at(INSIDE, 4000);
    let first = world.external(from, at(SERVER, 53));
    assert_eq!(first.address, EXTERNAL);
    for to in [at(SERVER, 54), at(OTHER, 53), at(OTHER, 9)] {
        assert_eq!(world.external(from, to), first);
    }
    assert_ne!(world.external(at(INSIDE, 4001), at(SERVER, 53)), first);
    assert_ne!(world.external(at(inside(1), 4000), at(SERVER, 53)), first);
}

/// REQ-1 is the default; the other behaviours of RFC 4787 §4.1 can be had.
#[test]
fn req_1_other_mappings_depend_on_what_they_say() {
    let ends = [at(SERVER, 53), at(SERVER, 54), at(OTHER, 53)];
    for (mapping, distinct) in [
        (Dependence::EndpointIndependent, 1),
        (Dependence::AddressDependent, 2),
        (Dependence::AddressAndPortDependent, 3),
    ] {
        let mut world = World::with(|config| config.mapping = mapping);
        let mut seen: Vec<u16> =
            ends.iter().map(|to| world.external(at(INSIDE, 4000), *to).port).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), distinct, "{}", mapping.name());
        // And again the same.
        for to in ends {
            assert!(seen.contains(&world.external(at(INSIDE, 4000), to).port));
        }
    }
}

/// REQ-2: all of a host's mappings are at one external address, whatever the others
/// have; and all addresses are used.
#[test]
fn req_2_a_host_is_paired_with_one_external_address() {
    let second = std::net::Ipv4Addr::new(203, 0, 113, 2);
    let mut world = World::with(|config| config.addresses.push(second));
    let mut used = Vec::new();
    for number in 0..8 {
        let own = world.external(at(inside(number), 1000), at(SERVER, 53)).address;
        used.push(own);
        for port in 1001..1300 {
            let external = world.external(at(inside(number), port), at(OTHER, port));
            assert_eq!(external.address, own);
        }
        let ping = world.out(&query(inside(number), SERVER, 8, 77, b"ping"));
        assert_eq!(source(&ping).address, own);
        let syn = Tcp::new(SYN, 1, 0).between(at(inside(number), 9), at(SERVER, 80));
        assert_eq!(source(&world.out(&syn)).address, own);
    }
    assert!(used.contains(&EXTERNAL) && used.contains(&second));
}

/// REQ-3: no two inside endpoints ever have one external endpoint; REQ-3a: and it
/// is not a well-known port.
#[test]
fn req_3_ports_are_never_overloaded() {
    let mut world = World::with(|config| config.max_blocks_per_host = 16);
    let mut seen = std::collections::HashSet::new();
    for number in 0..10 {
        for port in 0..200 {
            let external = world.external(at(inside(number), 2000 + port), at(SERVER, 53));
            assert!(external.port >= 1024);
            assert!(seen.insert(external), "{external:?} twice");
        }
    }
}

/// REQ-4: an even port becomes an even one and an odd one an odd one; and the port
/// after an even one keeps its place (RFC 4787 §4.2.3).
#[test]
fn req_4_the_parity_of_ports_is_kept() {
    let mut world = World::new();
    for port in 0..64u16 {
        let port = port.wrapping_mul(7919) | 1024;
        let external = world.external(at(INSIDE, port), at(SERVER, 53)).port;
        assert_eq!(external & 1, port & 1);
    }
    let mut world = World::new();
    for rtp in (20_000..20_060).step_by(2) {
        let external = world.external(at(INSIDE, rtp), at(SERVER, 5004)).port;
        let rtcp = world.external(at(INSIDE, rtp + 1), at(SERVER, 5005)).port;
        assert_eq!(rtcp, external + 1);
    }
}

/// REQ-5: a mapping lasts at least two minutes, by default five (REQ-5c), as long
/// as was configured (REQ-5b); and not for ever.
#[test]
fn req_5_a_udp_mapping_lasts_as_long_as_configured() {
    for seconds in [120, 300, 900] {
        let mut world = World::with(|config| {
            if seconds != 300 {
                config.timeouts.udp = Duration::from_secs(seconds);
            }
        });
        let external = world.external(at(INSIDE, 4000), at(SERVER, 53));
        let answer = udp(at(SERVER, 53), external, b"answer");
        world.pass(Duration::from_secs(seconds) - Duration::from_millis(1));
        world.inward(&answer);
        world.settle();
        assert_eq!(world.try_in(&answer), refused(DropReason::NatNoMapping), "{seconds} s");
        assert_eq!((world.count("mappings"), world.count("sessions")), (0, 0));
    }
}

/// REQ-6: what goes out keeps the mapping; REQ-6a: what comes in does so by option.
#[test]
fn req_6_outbound_packets_refresh_and_inbound_ones_by_option() {
    for inbound_refresh in [false, true] {
        let mut world = World::with(|config| config.inbound_refresh = inbound_refresh);
        let external = world.external(at(INSIDE, 4000), at(SERVER, 53));
        for _ in 0..4 {
            world.pass(Duration::from_secs(200));
            assert_eq!(world.external(at(INSIDE, 4000), at(SERVER, 53)), external);
        }
        let answer = udp(at(SERVER, 53), external, b"answer");
        world.pass(Duration::from_secs(200));
        world.inward(&answer);
        world.pass(Duration::from_secs(200));
        assert_eq!(matches!(world.try_in(&answer), Outcome::Translated(_)), inbound_refresh);
    }
}

/// REQ-6 and RFC 7857 §7: what is filtered refreshes nothing.
#[test]
fn req_6_what_is_filtered_does_not_refresh() {
    let mut world = World::with(|config| config.inbound_refresh = true);
    let external = world.external(at(INSIDE, 4000), at(SERVER, 53));
    for _ in 0..4 {
        world.pass(Duration::from_secs(100));
        let stranger = udp(at(OTHER, 53), external, b"still there?");
        let outcome = world.try_in(&stranger);
        assert!(matches!(outcome, Outcome::Refused(_)));
    }
    let answer = udp(at(SERVER, 53), external, b"answer");
    assert_eq!(world.try_in(&answer), refused(DropReason::NatNoMapping));
}

/// REQ-7: an inside host talks to an outside one that has the address of another
/// inside host, or its own: addresses of the two sides are never compared.
#[test]
fn req_7_outside_addresses_may_be_those_of_inside_hosts() {
    let mut world = World::new();
    let neighbour = at(inside(1), 53);
    for from in [at(INSIDE, 4000), at(inside(1), 4000)] {
        let external = world.external(from, neighbour);
        let (to, packet) = world.inward(&udp(neighbour, external, b"answer"));
        assert_eq!((to.address, destination(&packet)), (from.address, from));
        assert_eq!(source(&packet), neighbour);
    }
}

/// REQ-8: filtering by address by default; the other behaviours can be had.
#[test]
fn req_8_who_may_send_in_is_configured() {
    let to = at(SERVER, 53);
    for (filtering, passing) in [
        (Dependence::EndpointIndependent, [true, true, true]),
        (Dependence::AddressDependent, [true, true, false]),
        (Dependence::AddressAndPortDependent, [true, false, false]),
    ] {
        let mut world = World::with(|config| config.filtering = filtering);
        let external = world.external(at(INSIDE, 4000), to);
        for (from, passes) in [to, at(SERVER, 54), at(OTHER, 53)].into_iter().zip(passing) {
            let packet = udp(from, external, b"in");
            if passes {
                let (host, inward) = world.inward(&packet);
                assert_eq!(host.address, INSIDE);
                assert_eq!(destination(&inward), at(INSIDE, 4000));
                assert_eq!(source(&inward), from);
            } else {
                let filtered = refused(DropReason::NatFiltered);
                assert_eq!(world.try_in(&packet), filtered, "{}", filtering.name());
            }
        }
    }
    assert_eq!(config().filtering, Dependence::AddressDependent);
}

/// REQ-9: two inside hosts reach each other by their external endpoints, and each
/// sees the other's external one (REQ-9a).
#[test]
fn req_9_hairpinning_shows_the_external_source() {
    let mut world = World::new();
    let (one, two) = (at(INSIDE, 4000), at(inside(1), 5000));
    // They met at a server; with address-dependent filtering each has to speak to
    // the other's external address first.
    let external_one = world.external(one, at(SERVER, 3478));
    let external_two = world.external(two, at(SERVER, 3478));
    let mut first = udp(one, external_two, b"hole");
    let outcome = world.napt.hairpin(&mut first, &host(INSIDE), world.now);
    assert_eq!(outcome, refused(DropReason::NatFiltered));
    let mut packet = udp(two, external_one, b"hello");
    let outcome = world.napt.hairpin(&mut packet, &host(two.address), world.now);
    assert_eq!(outcome, Outcome::Translated(host(INSIDE)));
    assert_right(&packet);
    assert_eq!((source(&packet), destination(&packet)), (external_two, one));
    let mut answer = udp(one, external_two, b"answer");
    let outcome = world.napt.hairpin(&mut answer, &host(INSIDE), world.now);
    assert_eq!(outcome, Outcome::Translated(host(two.address)));
    assert_right(&answer);
    assert_eq!((source(&answer), destination(&answer)), (external_one, two));
}

/// REQ-9 can be turned off; and what is for the box itself never is a hairpin.
#[test]
fn req_9_without_hairpinning_nothing_comes_back_in() {
    let mut world = World::with(|config| config.hairpinning = false);
    let external = world.external(at(INSIDE, 4000), at(SERVER, 3478));
    let mut packet = udp(at(inside(1), 5000), external, b"hello");
    let outcome = world.napt.hairpin(&mut packet, &host(inside(1)), world.now);
    assert_eq!(outcome, refused(DropReason::NatFiltered));
    for to in [at(EXTERNAL, 53), at(EXTERNAL, 434), at(EXTERNAL, 40_000)] {
        let mut packet = udp(at(inside(1), 5000), to, b"hello");
        let outcome = world.napt.hairpin(&mut packet, &host(inside(1)), world.now);
        assert_eq!(outcome, Outcome::Unclaimed);
    }
}

/// REQ-10: there is no gateway for any application: payloads pass as they are, even
/// those that name the host's address.
#[test]
fn req_10_payloads_are_never_touched() {
    let mut world = World::new();
    let payload = b"PORT 10,1,0,10,15,160\r\nc=IN IP4 10.1.0.10";
    for port in [21, 53, 69, 5060] {
        let packet = world.out(&udp(at(INSIDE, 4000), at(SERVER, port), payload));
        assert_eq!(&packet[28..], payload);
        let answer = udp(at(SERVER, port), source(&packet), payload);
        assert_eq!(&world.inward(&answer).1[28..], payload);
    }
}

/// REQ-11: translation and filtering stay what they are, however full it gets.
#[test]
fn req_11_behaviour_is_the_same_when_everything_is_used_up() {
    let mut world = World::with(|config| {
        config.max_blocks_per_host = 1;
        config.sessions_per_second_per_host = 100_000;
    });
    let first = world.external(at(INSIDE, 1000), at(SERVER, 53));
    let mut given = 1;
    for port in 1001..2000 {
        let packet = udp(at(INSIDE, port), at(SERVER, 53), b"data");
        given += u32::from(matches!(world.try_out(&packet), Outcome::Translated(())));
    }
    assert_eq!(given, 128);
    // The mapping is the same, for another destination too, and so is the filter.
    assert_eq!(world.external(at(INSIDE, 1000), at(OTHER, 99)), first);
    world.inward(&udp(at(SERVER, 1), first, b"in"));
    let third = std::net::Ipv4Addr::new(198, 51, 100, 9);
    let stranger = udp(at(third, 53), first, b"in");
    assert_eq!(world.try_in(&stranger), refused(DropReason::NatFiltered));
}

/// REQ-12: no ICMP message ends a mapping, whoever sends it (REQ-12a); Destination
/// Unreachable gets through (REQ-12b).
#[test]
fn req_12_icmp_ends_no_mapping() {
    let mut world = World::new();
    let sent = world.out(&udp(at(INSIDE, 4000), at(SERVER, 53), b"data"));
    let external = source(&sent);
    for kind in [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0)] {
        for router in [SERVER, OTHER, std::net::Ipv4Addr::new(192, 0, 2, 1)] {
            let (to, packet) = world.inward(&error(router, EXTERNAL, kind, &sent));
            assert_eq!(to.address, INSIDE);
            assert_eq!(source(quote(&packet)), at(INSIDE, 4000));
            let (header, _) = Ipv4Header::read_from_prefix(&packet).unwrap();
            assert_eq!((header.source(), header.destination()), (router, INSIDE));
        }
    }
    world.inward(&udp(at(SERVER, 53), external, b"answer"));
    assert_eq!(world.external(at(INSIDE, 4000), at(SERVER, 53)), external);
}

/// REQ-14: fragments are translated in order, the others like the one that has the
/// ports; REQ-13's tests are the pipeline's.
#[test]
fn req_14_fragments_are_translated_in_order() {
    let mut world = World::new();
    let whole = udp(at(INSIDE, 4000), at(SERVER, 53), &[7; 4000]);
    let sent: Vec<Vec<u8>> =
        fragments(&whole, 1480, 99).iter().map(|fragment| world.out(fragment)).collect();
    let sent = reassemble(&sent);
    assert_right(&sent);
    let answer = udp(at(SERVER, 53), source(&sent), &[8; 4000]);
    let parts: Vec<Vec<u8>> =
        fragments(&answer, 1480, 5).iter().map(|fragment| world.inward(fragment).1).collect();
    let answer = reassemble(&parts);
    assert_right(&answer);
    assert_eq!(destination(&answer), at(INSIDE, 4000));
}

/// REQ-14: a fragment that comes before the one with the ports waits, and then goes
/// the same way.
#[test]
fn req_14_fragments_may_come_in_any_order() {
    let mut world = World::new();
    let whole = udp(at(INSIDE, 4000), at(SERVER, 53), &[7; 4000]);
    let parts = fragments(&whole, 1480, 99);
    for early in [&parts[2], &parts[1]] {
        assert!(matches!(world.try_out(early), Outcome::Early(_)));
    }
    let sent: Vec<Vec<u8>> = parts.iter().map(|part| world.out(part)).collect();
    let sent = reassemble(&sent);
    assert_right(&sent);
    let answer = udp(at(SERVER, 53), source(&sent), &[8; 4000]);
    let parts = fragments(&answer, 1480, 5);
    assert!(matches!(world.try_in(&parts[1]), Outcome::Early(_)));
    world.inward(&parts[0]);
    assert_eq!(world.inward(&parts[1]).0.address, INSIDE);
}

/// REQ-14a: a flood of fragments from outside leaves those from inside, and whole
/// packets, alone.
#[test]
fn req_14a_floods_of_fragments_harm_nobody_else() {
    let mut world = World::new();
    let whole = udp(at(INSIDE, 4000), at(SERVER, 53), &[7; 4000]);
    let parts = fragments(&whole, 1480, 99);
    let first = world.out(&parts[0]);
    for number in 0..100_000u32 {
        let liar = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
        let lie = udp(at(liar, 9), at(EXTERNAL, 20_000), &[9; 64]);
        let _ = world.try_in(&fragments(&lie, 32, 1)[0]);
    }
    assert_eq!(source(&world.out(&parts[1])).address, source(&first).address);
    world.inward(&udp(at(SERVER, 53), source(&first), b"answer"));
}

/// REQ-14 and RFC 7857 §10: what may be fragmented gets an identification of its
/// own, so that fragments of two hosts behind one address are never mixed up.
#[test]
fn two_hosts_never_share_an_identification() {
    let mut world = World::new();
    let sent = |world: &mut World, number| {
        let whole = udp(at(inside(number), 4000), at(SERVER, 53), &[7; 2000]);
        let first = world.out(&fragments(&whole, 1480, 99)[0]);
        Ipv4Header::read_from_prefix(&first).unwrap().0.identification()
    };
    assert_ne!(sent(&mut world, 0), sent(&mut world, 1));
}

/// A UDP checksum of zero stays zero (RFC 768), and none becomes zero.
#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    let mut world = World::new();
    let mut packet = udp(at(INSIDE, 4000), at(SERVER, 53), b"data");
    packet[26..28].copy_from_slice(&[0, 0]);
    let sent = world.out(&packet);
    assert_eq!(sent[26..28], [0, 0]);
    let mut answer = udp(at(SERVER, 53), source(&sent), b"data");
    answer[26..28].copy_from_slice(&[0, 0]);
    assert_eq!(world.inward(&answer).1[26..28], [0, 0]);
    // Payloads whose sum runs through every value: one of them would be zero.
    for word in 0..=u16::MAX {
        let packet = udp(at(INSIDE, 4000), at(SERVER, 53), &word.to_be_bytes());
        assert_ne!(world.out(&packet)[26..28], [0, 0]);
    }
}

/// Two visitors with one home address and one port are two inside hosts (B-07,
/// S3-11).
#[test]
fn two_stations_with_one_address_are_two_hosts() {
    let mut world = World::new();
    let packet = udp(at(INSIDE, 4000), at(SERVER, 53), b"data");
    let (one, two) = (visitor(INSIDE, 1), visitor(INSIDE, 2));
    let first = source(&world.out_of(&one, &packet));
    let second = source(&world.out_of(&two, &packet));
    assert_ne!(first, second);
    for (external, host) in [(first, one), (second, two)] {
        assert_eq!(world.inward(&udp(at(SERVER, 53), external, b"in")).0, host);
    }
}
