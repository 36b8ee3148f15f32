//! RFC 5382 and RFC 7857 §2: TCP (B-07).

use std::time::Duration;

use crate::kit::*;
use homeport_dataplane::napt::{Dependence, Endpoint, Outcome};
use homeport_dataplane::verdict::DropReason;

const CLIENT: Endpoint = at(INSIDE, 4000);
const WEB: Endpoint = at(SERVER, 80);

const TRANSITORY: Duration = Duration::from_secs(240);
const ESTABLISHED: Duration = Duration::from_secs(7440);

/// A connection that was opened from inside; what the client said is acknowledged
/// up to 101, and the server up to 501; windows are 8000 unless scaled.
fn connected(world: &mut World) -> Endpoint {
    connected_with(world, &[])
}

fn connected_with(world: &mut World, options: &[u8]) -> Endpoint {
    let mut syn = Tcp::new(SYN, 100, 0);
    syn.options = options.to_vec();
    let external = source(&world.out(&syn.between(CLIENT, WEB)));
    let mut answer = Tcp::new(SYN | ACK, 500, 101);
    answer.options = options.to_vec();
    world.inward(&answer.between(WEB, external));
    world.out(&Tcp::new(ACK, 101, 501).between(CLIENT, WEB));
    external
}

/// Whether something from the server still gets in, asked without keeping anything.
fn is_open(world: &mut World, external: Endpoint) -> bool {
    // A RST outside the window changes nothing.
    let probe = Tcp::new(RST, 501 + (1 << 31), 0).between(WEB, external);
    matches!(world.try_in(&probe), Outcome::Translated(_))
}

/// REQ-1: one external endpoint whatever the connection.
#[test]
fn req_1_connections_of_one_port_share_its_mapping() {
    let mut world = World::new();
    let syn = Tcp::new(SYN, 1, 0);
    let first = source(&world.out(&syn.between(CLIENT, WEB)));
    assert_eq!(source(&world.out(&syn.between(CLIENT, at(OTHER, 443)))), first);
    // RFC 7857 §5: UDP has mappings of its own.
    let packet = udp(at(EXTERNAL, 1), first, b"x");
    assert_eq!(world.try_in(&packet), refused(DropReason::NatNoMapping));
}

/// REQ-2: the three-way handshake, data, and both FINs, each way and payload whole.
#[test]
fn req_2_a_connection_opens_carries_data_and_closes() {
    let mut world = World::new();
    let external = connected(&mut world);
    let mut segment = Tcp::new(ACK, 101, 501);
    segment.data = b"GET /".to_vec();
    let sent = world.out(&segment.between(CLIENT, WEB));
    assert_eq!((source(&sent), destination(&sent)), (external, WEB));
    assert_eq!(&sent[40..], b"GET /");
    let (_, got) = world.inward(&Tcp::new(ACK | FIN, 501, 106).between(WEB, external));
    assert_eq!(destination(&got), CLIENT);
    world.out(&Tcp::new(ACK | FIN, 106, 502).between(CLIENT, WEB));
    world.inward(&Tcp::new(ACK, 502, 107).between(WEB, external));
    // Both FINs were seen: four minutes more, whatever comes.
    world.pass(Duration::from_secs(120));
    world.inward(&Tcp::new(ACK, 502, 107).between(WEB, external));
    world.pass(Duration::from_secs(119));
    assert!(is_open(&mut world, external));
    world.pass(Duration::from_secs(7));
    assert!(!is_open(&mut world, external));
}

/// REQ-2a: both sides send a SYN, and the connection stands.
#[test]
fn req_2a_simultaneous_open_is_an_open() {
    let mut world = World::new();
    let external = source(&world.out(&Tcp::new(SYN, 100, 0).between(CLIENT, WEB)));
    world.inward(&Tcp::new(SYN, 500, 0).between(WEB, external));
    world.inward(&Tcp::new(SYN | ACK, 500, 101).between(WEB, external));
    world.out(&Tcp::new(SYN | ACK, 100, 501).between(CLIENT, WEB));
    world.pass(ESTABLISHED - Duration::from_secs(1));
    assert!(is_open(&mut world, external));
}

/// REQ-3: who may open a connection inwards is the filter's to say.
#[test]
fn req_3_connections_from_outside_are_filtered() {
    for (filtering, passing) in [
        (Dependence::EndpointIndependent, [true, true]),
        (Dependence::AddressDependent, [true, false]),
        (Dependence::AddressAndPortDependent, [false, false]),
    ] {
        let mut world = World::with(|config| config.filtering = filtering);
        let external = connected(&mut world);
        for (from, passes) in [at(SERVER, 81), at(OTHER, 80)].into_iter().zip(passing) {
            let syn = Tcp::new(SYN, 7, 0).between(from, external);
            let outcome = world.try_in(&syn);
            assert_eq!(matches!(outcome, Outcome::Translated(_)), passes, "{}", filtering.name());
            if passes {
                // And the connection is one: it goes both ways.
                world.out(&Tcp::new(SYN | ACK, 9, 8).between(CLIENT, from));
                world.inward(&Tcp::new(ACK, 8, 10).between(from, external));
            }
            // What opens nothing belongs to nothing.
            let stray = Tcp::new(ACK, 7, 7).between(at(from.address, 9999), external);
            assert_eq!(world.try_in(&stray), refused(DropReason::NatFiltered));
        }
    }
}

/// REQ-4: a SYN that nobody asked for is dropped in silence (REQ-4a), and then the
/// inside may open the same connection.
#[test]
fn req_4_an_unsolicited_syn_is_dropped_in_silence() {
    let mut world = World::new();
    let external = source(&world.out(&Tcp::new(SYN, 1, 0).between(CLIENT, at(OTHER, 9))));
    let syn = Tcp::new(SYN, 500, 0).between(WEB, external);
    assert_eq!(world.try_in(&syn), refused(DropReason::NatFiltered));
    world.out(&Tcp::new(SYN, 100, 0).between(CLIENT, WEB));
    world.inward(&Tcp::new(SYN, 500, 0).between(WEB, external));
}

/// REQ-5: 2 h 4 min when it stands, 4 min when it does not, and then it is gone.
#[test]
fn req_5_idle_connections_last_as_long_as_the_rfc_says() {
    let mut world = World::new();
    let external = connected(&mut world);
    world.pass(ESTABLISHED - Duration::from_millis(1));
    assert!(is_open(&mut world, external));
    world.pass(Duration::from_secs(40));
    assert!(!is_open(&mut world, external));
    let external = source(&world.out(&Tcp::new(SYN, 1, 0).between(CLIENT, WEB)));
    world.pass(TRANSITORY - Duration::from_millis(1));
    assert!(is_open(&mut world, external));
    world.pass(Duration::from_secs(7));
    assert!(!is_open(&mut world, external));
}

/// REQ-5: a packet either way keeps a connection that stands.
#[test]
fn req_5_both_sides_keep_a_connection_alive() {
    let mut world = World::new();
    let external = connected(&mut world);
    for _ in 0..3 {
        world.pass(Duration::from_secs(7000));
        world.inward(&Tcp::new(ACK, 501, 101).between(WEB, external));
        world.pass(Duration::from_secs(7000));
        world.out(&Tcp::new(ACK, 101, 501).between(CLIENT, WEB));
    }
    assert!(is_open(&mut world, external));
}

/// REQ-7: no two connections to one server have one external endpoint.
#[test]
fn req_7_ports_are_never_overloaded() {
    let mut world = World::new();
    let mut seen = std::collections::HashSet::new();
    for number in 0..8 {
        for port in 0..100 {
            let syn = Tcp::new(SYN, 1, 0).between(at(inside(number), 3000 + port), WEB);
            assert!(seen.insert(source(&world.out(&syn))));
        }
    }
}

/// REQ-8: hairpinning, with the external source.
#[test]
fn req_8_inside_hosts_connect_through_their_external_endpoints() {
    let mut world = World::with(|config| config.filtering = Dependence::EndpointIndependent);
    let service = at(inside(1), 8080);
    let external = source(&world.out(&Tcp::new(SYN, 1, 0).between(service, WEB)));
    let mut syn = Tcp::new(SYN, 5, 0).between(CLIENT, external);
    let outcome = world.napt.hairpin(&mut syn, &host(INSIDE), world.now);
    assert_eq!(outcome, Outcome::Translated(host(service.address)));
    assert_right(&syn);
    assert_eq!(source(&syn).address, EXTERNAL);
    assert_eq!(destination(&syn), service);
    let mut answer = Tcp::new(SYN | ACK, 9, 6).between(service, source(&syn));
    let outcome = world.napt.hairpin(&mut answer, &host(service.address), world.now);
    assert_eq!(outcome, Outcome::Translated(host(INSIDE)));
    assert_right(&answer);
    assert_eq!((source(&answer), destination(&answer)), (external, CLIENT));
}

/// REQ-9 and REQ-10: ICMP errors get through with what they quote, and the
/// connection stands afterwards.
#[test]
fn req_9_and_10_errors_are_translated_and_end_nothing() {
    let mut world = World::new();
    let external = connected(&mut world);
    let sent = world.out(&Tcp::new(ACK, 101, 501).between(CLIENT, WEB));
    for kind in [(3, 1), (3, 3), (3, 4), (11, 0)] {
        // The least that a router quotes (RFC 792), and all of it.
        for len in [28, sent.len()] {
            let (_, packet) = world.inward(&error(OTHER, EXTERNAL, kind, &sent[..len]));
            assert_eq!((source(quote(&packet)), destination(quote(&packet))), (CLIENT, WEB));
        }
    }
    world.pass(ESTABLISHED - Duration::from_secs(1));
    assert!(is_open(&mut world, external));
}

/// A RST whose number lies outside the receiver's window is passed on and changes
/// nothing (row 31; RFC 7857 §2.2: it has to be verified).
// Shows attack-31.
#[test]
fn a_rst_outside_the_window_keeps_the_mapping() {
    let mut world = World::new();
    let external = connected(&mut world);
    for far in [8001, 100_000, 1 << 31, u32::MAX] {
        let server = Tcp::new(RST, 501u32.wrapping_add(far), 0);
        world.inward(&server.between(WEB, external));
        let client = Tcp::new(RST, 101u32.wrapping_add(far), 0);
        world.out(&client.between(CLIENT, WEB));
    }
    world.pass(ESTABLISHED - Duration::from_secs(1));
    assert!(is_open(&mut world, external));
}

/// A RST inside the window ends it after four minutes (RFC 7857 §2.2), and not at
/// once.
#[test]
fn a_rst_inside_the_window_leaves_four_minutes() {
    for sequence in [501, 501 + 8000] {
        let mut world = World::new();
        let external = connected(&mut world);
        world.inward(&Tcp::new(RST, sequence, 0).between(WEB, external));
        world.pass(TRANSITORY - Duration::from_millis(1));
        assert!(is_open(&mut world, external));
        world.pass(Duration::from_secs(7));
        assert!(!is_open(&mut world, external));
    }
}

/// The window that counts is the scaled one (RFC 7323), if both sides scale.
#[test]
fn windows_are_scaled_when_both_sides_offered_it() {
    let inside_scaled = Tcp::new(RST, 501 + 8000 * 4, 0);
    for (options, ends) in [(&[1, 3, 3, 2][..], true), (&[2, 4, 5, 180], false), (&[3, 9], false)] {
        let mut world = World::new();
        let external = connected_with(&mut world, options);
        world.inward(&inside_scaled.between(WEB, external));
        world.pass(TRANSITORY + Duration::from_secs(7));
        assert_eq!(!is_open(&mut world, external), ends, "{options:?}");
    }
}

/// Data after a RST: the connection stood after all (RFC 7857 §2, figure 1).
#[test]
fn data_after_a_rst_brings_the_connection_back() {
    let mut world = World::new();
    let external = connected(&mut world);
    world.inward(&Tcp::new(RST, 501, 0).between(WEB, external));
    world.pass(Duration::from_secs(100));
    world.out(&Tcp::new(ACK, 101, 501).between(CLIENT, WEB));
    world.pass(ESTABLISHED - Duration::from_secs(1));
    assert!(is_open(&mut world, external));
}

/// A guessed FIN ends nothing: with the client's own FIN alone the connection stands
/// half open for as long as any.
#[test]
fn a_fin_outside_the_window_does_not_count() {
    let mut world = World::new();
    let external = connected(&mut world);
    world.inward(&Tcp::new(FIN | ACK, 501 + 100_000, 101).between(WEB, external));
    world.out(&Tcp::new(FIN | ACK, 101, 501).between(CLIENT, WEB));
    world.pass(ESTABLISHED - Duration::from_secs(1));
    assert!(is_open(&mut world, external));
}

/// A connection that the NAPT does not know is opened by nothing but a SYN.
#[test]
fn only_a_syn_opens_a_connection() {
    let mut world = World::new();
    for flags in [ACK, FIN | ACK, RST, 0, SYN | RST, SYN | FIN] {
        let packet = Tcp::new(flags, 1, 1).between(CLIENT, WEB);
        assert_eq!(world.try_out(&packet), refused(DropReason::NatNoMapping));
    }
    world.settle();
    assert_eq!(world.count("mappings"), 0);
}

/// The ports of a connection that has closed can be used again at once.
#[test]
fn a_syn_after_the_end_begins_anew() {
    let mut world = World::new();
    let external = connected(&mut world);
    world.out(&Tcp::new(FIN | ACK, 101, 501).between(CLIENT, WEB));
    world.inward(&Tcp::new(FIN | ACK, 501, 102).between(WEB, external));
    world.out(&Tcp::new(ACK, 102, 502).between(CLIENT, WEB));
    assert_eq!(connected(&mut world), external);
    world.pass(ESTABLISHED - Duration::from_secs(1));
    assert!(is_open(&mut world, external));
}
