//! RFC 5508: ICMP (B-07).

use std::time::Duration;

use crate::kit::*;
use homeport_dataplane::napt::{Dependence, Outcome};
use homeport_dataplane::verdict::DropReason;
use homeport_wire::{IpProtocol, Ipv4Header};
use zerocopy::FromBytes;

/// REQ-1: queries of inside hosts get out and their replies back, the identifier
/// mapped; REQ-1a: to one external identifier whatever the destination.
#[test]
fn req_1_queries_and_replies_pass_with_a_mapped_identifier() {
    for (request, reply) in [(8, 0), (13, 14), (17, 18)] {
        let mut world = World::new();
        let sent = world.out(&query(INSIDE, SERVER, request, 77, b"ping of an odd length"));
        let external = source(&sent);
        assert_eq!(external.address, EXTERNAL);
        assert_eq!(&sent[28..], b"ping of an odd length");
        let (host, got) = world.inward(&query(SERVER, EXTERNAL, reply, external.port, b"pong"));
        assert_eq!(host.address, INSIDE);
        assert_eq!(destination(&got), at(INSIDE, 77));
        assert_eq!(source(&world.out(&query(INSIDE, OTHER, request, 77, b"x"))), external);
        // Another host with the same identifier has another one outside.
        let other = world.out(&query(inside(1), SERVER, request, 77, b"ping"));
        assert_ne!(source(&other), external);
    }
}

/// An identifier is any number, and zero is one.
#[test]
fn an_identifier_of_zero_is_mapped_like_any() {
    let mut world = World::new();
    let external = source(&world.out(&query(INSIDE, SERVER, 8, 0, b"ping")));
    assert_ne!(external.port, 0);
    let (_, got) = world.inward(&query(SERVER, EXTERNAL, 0, external.port, b"pong"));
    assert_eq!(destination(&got), at(INSIDE, 0));
    let reply = query(INSIDE, SERVER, 0, 0, b"pong");
    assert_eq!(world.try_out(&reply), refused(DropReason::NatNoMapping));
}

/// REQ-2: at least sixty seconds, as long as was configured, and not for ever.
#[test]
fn req_2_a_query_session_lasts_as_long_as_configured() {
    for seconds in [60, 200] {
        let mut world = World::with(|config| config.timeouts.icmp = Duration::from_secs(seconds));
        let external = source(&world.out(&query(INSIDE, SERVER, 8, 77, b"ping")));
        let pong = query(SERVER, EXTERNAL, 0, external.port, b"pong");
        world.pass(Duration::from_secs(seconds) - Duration::from_millis(1));
        world.inward(&pong);
        world.settle();
        assert_eq!(world.try_in(&pong), Outcome::Unclaimed);
        // RFC 7857 §11: the mapping went with its last session.
        assert_eq!(world.count("mappings"), 0);
    }
}

/// REQ-3: an error with a wrong checksum is not translated, nor is one whose quoted
/// header is wrong (REQ-3a): it is the box's own to drop, from inside it is dropped.
#[test]
fn req_3_errors_with_wrong_checksums_are_not_translated() {
    let mut world = World::new();
    let sent = world.out(&udp(at(INSIDE, 4000), at(SERVER, 53), b"data"));
    let mut wrong = error(SERVER, EXTERNAL, (3, 3), &sent);
    wrong[22] ^= 1;
    assert_eq!(world.try_in(&wrong), Outcome::Unclaimed);
    let mut quoted = sent.clone();
    quoted[10] ^= 1;
    let wrong = error(SERVER, EXTERNAL, (3, 3), &quoted);
    assert_eq!(world.try_in(&wrong), Outcome::Unclaimed);
    let answer = udp(at(SERVER, 53), source(&sent), b"answer");
    let mut got = world.inward(&answer).1;
    got[10] ^= 1;
    let wrong = error(INSIDE, SERVER, (3, 3), &got);
    assert_eq!(world.try_out(&wrong), refused(DropReason::NatUnsupported));
}

/// REQ-3b: the quoted packet may have options; REQ-3c: its transport checksum may be
/// anything.
#[test]
fn req_3_quoted_options_are_passed_over_and_quoted_sums_not_checked() {
    let mut world = World::new();
    let plain = udp(at(INSIDE, 4000), at(SERVER, 53), b"data");
    // Four no-operations behind the header.
    let mut packet = plain[..20].to_vec();
    packet.extend([1, 1, 1, 1]);
    packet.extend(&plain[20..]);
    packet[0] = 0x46;
    packet[3] += 4;
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = homeport_wire::checksum::checksum(&packet[..24]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut sent = world.out(&packet);
    sent[24 + 6] ^= 0x55;
    let mut about = error(OTHER, EXTERNAL, (3, 3), &sent);
    let outcome = world.napt.inbound(&mut about, world.now);
    assert_eq!(outcome, Outcome::Translated(host(INSIDE)));
    assert_eq!(source(quote(&about)), at(INSIDE, 4000));
}

/// REQ-4: an error from outside without a session is dropped; with one, the quoted
/// packet is as the host sent it, type and code stay, and it goes to the host. The
/// quote may be as short as RFC 792 has it.
#[test]
fn req_4_errors_from_outside_quote_what_the_host_sent() {
    let mut world = World::new();
    let packets = [
        udp(at(INSIDE, 4000), at(SERVER, 53), b"some data"),
        Tcp::new(SYN, 100, 0).between(at(INSIDE, 4000), at(SERVER, 80)),
        query(INSIDE, SERVER, 8, 77, b"ping"),
    ];
    for original in packets {
        let sent = world.out(&original);
        for len in [28, sent.len()] {
            for kind in [(3, 0), (3, 4), (11, 0), (11, 1), (12, 0)] {
                let (host, got) = world.inward(&error(OTHER, EXTERNAL, kind, &sent[..len]));
                assert_eq!(host.address, INSIDE);
                assert_eq!((got[20], got[21]), kind);
                // But for the identification, which only the outside has seen.
                let mut quoted = quote(&got).to_vec();
                let (header, _) = Ipv4Header::mut_from_prefix(&mut quoted).unwrap();
                header.replace_identification(0);
                assert_eq!(quoted, original[..len]);
                let (outer, _) = Ipv4Header::read_from_prefix(&got).unwrap();
                assert_eq!((outer.source(), outer.destination()), (OTHER, INSIDE));
            }
        }
        // About what was never sent: to another remote endpoint, or to no mapping.
        let mut forged = sent.clone();
        let (header, _) = Ipv4Header::mut_from_prefix(&mut forged).unwrap();
        header.replace_destination(OTHER);
        let outcome = world.try_in(&error(OTHER, EXTERNAL, (3, 4), &forged));
        let is_query = header_protocol(&sent) == IpProtocol::ICMP;
        let expected =
            if is_query { Outcome::Unclaimed } else { refused(DropReason::NatNoMapping) };
        assert_eq!(outcome, expected);
    }
}

fn header_protocol(packet: &[u8]) -> IpProtocol {
    Ipv4Header::read_from_prefix(packet).unwrap().0.protocol()
}

/// What quotes a packet of the box itself stays the box's.
#[test]
fn errors_about_the_boxs_own_packets_are_left_alone() {
    let mut world = World::new();
    for port in [434, 53, 40_000] {
        let own = udp(at(EXTERNAL, port), at(SERVER, 53), b"data");
        let about = error(SERVER, EXTERNAL, (3, 3), &own);
        assert_eq!(world.try_in(&about), Outcome::Unclaimed);
    }
    // And one that quotes a packet from somewhere else altogether.
    let alien = udp(at(OTHER, 20_000), at(SERVER, 53), b"data");
    let outcome = world.try_in(&error(SERVER, EXTERNAL, (3, 3), &alien));
    assert_eq!(outcome, Outcome::Unclaimed);
}

/// REQ-5: an error from inside goes out quoting the packet as it came, from the
/// external address, be it the host itself or a router before it; without a mapping
/// it is dropped.
#[test]
fn req_5_errors_from_inside_quote_what_the_remote_host_sent() {
    let mut world = World::new();
    let external = world.external(at(INSIDE, 4000), at(SERVER, 53));
    let answer = udp(at(SERVER, 53), external, b"answer");
    let (_, got) = world.inward(&answer);
    let router = std::net::Ipv4Addr::new(10, 1, 0, 1);
    for teller in [INSIDE, router] {
        for kind in [(3, 3), (3, 4), (11, 0)] {
            let sent = world.out(&error(teller, SERVER, kind, &got));
            assert_eq!((sent[20], sent[21]), kind);
            assert_eq!(quote(&sent), answer);
            let (outer, _) = Ipv4Header::read_from_prefix(&sent).unwrap();
            assert_eq!((outer.source(), outer.destination()), (EXTERNAL, SERVER));
        }
    }
    let stray = udp(at(SERVER, 53), at(INSIDE, 4001), b"never came");
    let outcome = world.try_out(&error(INSIDE, SERVER, (3, 3), &stray));
    assert_eq!(outcome, refused(DropReason::NatNoMapping));
}

/// REQ-5 with two visitors of one address: each one's error names its own mapping.
#[test]
fn req_5_errors_of_stations_name_their_own_mapping() {
    let mut world = World::new();
    let packet = udp(at(INSIDE, 4000), at(SERVER, 53), b"data");
    for station in [visitor(INSIDE, 1), visitor(INSIDE, 2)] {
        let external = source(&world.out_of(&station, &packet));
        let answer = udp(at(SERVER, 53), external, b"answer");
        let (_, got) = world.inward(&answer);
        let sent = world.out_of(&station, &error(INSIDE, SERVER, (3, 3), &got));
        assert_eq!(quote(&sent), answer);
    }
}

/// REQ-6: an error about a query neither refreshes nor ends its session.
#[test]
fn req_6_an_error_about_a_query_changes_nothing() {
    let mut world = World::new();
    let sent = world.out(&query(INSIDE, SERVER, 8, 77, b"ping"));
    let pong = query(SERVER, EXTERNAL, 0, source(&sent).port, b"pong");
    let unreachable = error(OTHER, EXTERNAL, (3, 1), &sent);
    world.pass(Duration::from_secs(50));
    world.inward(&unreachable);
    world.inward(&pong);
    world.pass(Duration::from_secs(17));
    assert_eq!(world.try_in(&pong), Outcome::Unclaimed);
}

/// REQ-7: an error between two inside hosts is translated at both ends of what it
/// quotes, and goes where the quoted packet came from (REQ-7a).
#[test]
fn req_7_hairpinned_errors_come_back_to_who_sent() {
    let mut world = World::with(|config| config.filtering = Dependence::EndpointIndependent);
    let (one, two) = (at(INSIDE, 4000), at(inside(1), 5000));
    let external_two = world.external(two, at(SERVER, 3478));
    let original = udp(one, external_two, b"hello");
    let mut packet = original.clone();
    let outcome = world.napt.hairpin(&mut packet, &host(INSIDE), world.now);
    assert_eq!(outcome, Outcome::Translated(host(two.address)));
    let mut about = error(two.address, source(&packet).address, (3, 3), &packet);
    let outcome = world.napt.hairpin(&mut about, &host(two.address), world.now);
    assert_eq!(outcome, Outcome::Translated(host(INSIDE)));
    assert_right(&about);
    let mut quoted = quote(&about).to_vec();
    let (header, _) = Ipv4Header::mut_from_prefix(&mut quoted).unwrap();
    header.replace_identification(0);
    assert_eq!(quoted, original);
    let (outer, _) = Ipv4Header::read_from_prefix(&about).unwrap();
    assert_eq!((outer.source(), outer.destination()), (EXTERNAL, INSIDE));
}

/// REQ-10c and REQ-11: source quench, redirects and information requests do not
/// pass; and a ping to the external address itself is the box's own.
#[test]
fn req_10_what_is_no_query_and_no_error_does_not_pass() {
    let mut world = World::new();
    world.out(&query(INSIDE, SERVER, 8, 77, b"ping"));
    for kind in [4, 5, 9, 10, 15, 16, 30, 42] {
        let packet = query(INSIDE, SERVER, kind, 77, b"?");
        assert_eq!(world.try_out(&packet), refused(DropReason::NatUnsupported));
    }
    assert_eq!(world.try_in(&query(SERVER, EXTERNAL, 8, 20_000, b"ping")), Outcome::Unclaimed);
    // A reply to a query that never came in has no session.
    let reply = query(INSIDE, SERVER, 0, 77, b"pong");
    assert_eq!(world.try_out(&reply), refused(DropReason::NatNoMapping));
}

/// Large pings: queries in fragments.
#[test]
fn queries_pass_in_fragments() {
    let mut world = World::new();
    let ping = query(INSIDE, SERVER, 8, 77, &[5; 8000]);
    let sent: Vec<Vec<u8>> =
        fragments(&ping, 1480, 3).iter().map(|fragment| world.out(fragment)).collect();
    let sent = reassemble(&sent);
    assert_right(&sent);
    let pong = query(SERVER, EXTERNAL, 0, source(&sent).port, &[5; 8000]);
    let parts: Vec<Vec<u8>> =
        fragments(&pong, 1480, 3).iter().map(|fragment| world.inward(fragment).1).collect();
    let pong = reassemble(&parts);
    assert_right(&pong);
    assert_eq!(destination(&pong), at(INSIDE, 77));
}
