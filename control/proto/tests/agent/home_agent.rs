//! The home agent's side of B-01 and B-02.

use core::net::Ipv4Addr;

use homeport_proto::config::Profile;
use homeport_proto::event::{DiscardReason, Event};
use homeport_proto::message::{
    AuthenticationKind, Identification, MessageWriter, RegistrationRequest, ReplyCode, RequestFlags,
};
use homeport_proto::security::{Algorithm, MobilitySecurityAssociation, Spi};
use homeport_proto::{Action, Datagram, Lifetime, MacAddress};

use crate::support::*;

/// B-01: code 0 through a foreign agent. The binding is installed before the
/// reply, which goes back to the address and port that the request came from.
// Shows 5944-3.4-f, 5944-3.8.1-c, 5944-3.8.2.2-a, 5944-3.8.2.2-b, 5944-3.8.3.2-b, 5944-3.8.3.2-e,
// 5944-3.8.3.2-h, 5944-4.6-e, 3024-3.2-a, 3024-4.3.1-c, 3024-A.4-j.
#[test]
fn a_registration_through_a_foreign_agent_is_accepted_with_0() {
    let mut world = World::home(|_| {});
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::REVERSE_TUNNEL.with(RequestFlags::BROADCAST);
    let message = sign(&asked);
    let actions = world.send(&Datagram { source_port: 5_434, ..relayed(FOREIGN, &message) });
    assert_eq!(the_code(&actions), 0);
    let Action::InstallBinding(state) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(state.home_address, NODE);
    assert_eq!(state.home_agent, HOME_AGENT);
    assert_eq!(state.home_link, Some(HOME));
    assert_eq!(state.care_of_addresses.len(), 1);
    let care_of = state.care_of_addresses[0];
    assert_eq!((care_of.address, care_of.lifetime), (FOREIGN, Lifetime(60)));
    assert!(care_of.reverse_tunnel && care_of.broadcast && !care_of.co_located);
    assert!(matches!(actions[1], Action::GratuitousArp { port: HOME, address: NODE, mac: None }));
    let transmit = transmits(&actions)[0];
    assert_eq!((transmit.source, transmit.destination), (HOME_AGENT, FOREIGN));
    assert_eq!((udp(transmit).0, udp(transmit).1), (434, 5_434));
    assert_eq!(transmit.link, None);
    let reply = the_reply(&actions);
    assert_eq!(reply.lifetime, Lifetime(60));
    assert_eq!((reply.home_address, reply.home_agent), (NODE, HOME_AGENT));
    assert_eq!(reply.identification, asked.identification);
    let binding = world.agent.bindings().next().unwrap();
    assert_eq!(binding.registrations[0].foreign_agent, Some(FOREIGN));
    assert_eq!(world.counters().registrations_accepted, 1);
}

/// B-01: directly, with a co-located care-of address.
// Shows 5944-3.8.2.2-b.
#[test]
fn a_co_located_node_registers_directly() {
    let mut world = World::home(|_| {});
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::CO_LOCATED;
    asked.care_of_address = CO_LOCATED;
    let message = sign(&asked);
    let actions = world.send(&direct(CO_LOCATED, &message));
    assert_eq!(the_code(&actions), 0);
    assert!(installed(&actions)[0].co_located);
    assert_eq!(transmits(&actions)[0].destination, CO_LOCATED);
    assert_eq!(world.agent.bindings().next().unwrap().registrations[0].foreign_agent, None);
}

/// B-01: code 1 where no simultaneous bindings are kept.
// Shows 5944-3.8.3.2-a.
#[test]
fn without_simultaneous_bindings_a_registration_gets_1_and_replaces() {
    let mut world = World::home(|config| config.max_simultaneous = 1);
    for (care_of_address, installed_before) in [(FOREIGN, 1), (STRANGER, 1)] {
        let mut asked = request(world.timestamp());
        asked.flags = RequestFlags::SIMULTANEOUS;
        asked.care_of_address = care_of_address;
        let actions = world.relay(care_of_address, &sign(&asked));
        assert_eq!(the_code(&actions), 1);
        assert_eq!(installed(&actions).len(), installed_before);
        assert_eq!(installed(&actions)[0].address, care_of_address);
    }
}

/// B-01: the lifetime is the least of what is asked and what is allowed, and
/// 0xffff never ends.
// Shows 5944-3.4-b, 5944-3.8.3.2-b, 5944-3.8.3.2-c, 5944-3.8.3.2-d.
#[test]
fn lifetimes_are_clamped_and_infinity_is_granted_only_where_allowed() {
    for (allowed, asked_for, granted) in
        [(600, 60, 60), (600, 601, 600), (600, 0xffff, 600), (0xffff, 0xffff, 0xffff)]
    {
        let mut world = World::home(|config| config.max_lifetime = Lifetime(allowed));
        let mut asked = request(world.timestamp());
        asked.lifetime = Lifetime(asked_for);
        let actions = world.relay(FOREIGN, &sign(&asked));
        assert_eq!(the_reply(&actions).lifetime, Lifetime(granted));
        assert_eq!(installed(&actions)[0].lifetime, Lifetime(granted));
        world.pass(7_200_000);
        assert_eq!(world.agent.bindings().count(), usize::from(granted == 0xffff));
    }
}

/// B-01: renewal moves the end; without it the binding expires on time, with
/// forwarding state removed, an event, and no reply.
// Shows 5944-3.8-b, 5944-3.8.2.2-g.
#[test]
fn a_binding_ends_when_its_last_renewal_does() {
    let mut world = World::home(|_| {});
    let first = sign(&request(world.timestamp()));
    world.relay(FOREIGN, &first);
    world.pass(40_000);
    let renewal = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &renewal)), 0);
    let renewed_at = world.millis;
    assert_eq!(world.pass(59_999), []);
    let actions = world.pass(1);
    assert_eq!(
        actions,
        [
            (renewed_at + 60_000, Action::RemoveBinding { tenant: TENANT, home_address: NODE }),
            (
                renewed_at + 60_000,
                Action::Event(Event::BindingExpired {
                    tenant: TENANT,
                    home_address: NODE,
                    care_of_address: FOREIGN
                })
            ),
        ]
    );
    assert_eq!(world.counters().bindings_expired, 1);
    assert_eq!(world.agent.poll_timeout(), None);
}

/// B-01: simultaneous bindings, 135 beyond the limit, and the end of each alone.
// Shows 5944-4.2.3-h, attack-16.
#[test]
fn simultaneous_bindings_end_one_by_one_and_the_fifth_is_denied_with_135() {
    let mut world = World::home(|config| config.max_simultaneous = 9);
    let address = |last: u8| Ipv4Addr::new(10, 0, 9, last);
    for count in 1..=4u8 {
        let mut asked = request(world.timestamp());
        asked.flags = RequestFlags::SIMULTANEOUS;
        asked.care_of_address = address(count);
        asked.lifetime = Lifetime(100 * u16::from(count));
        let actions = world.relay(address(count), &sign(&asked));
        assert_eq!(the_code(&actions), 0);
        assert_eq!(installed(&actions).len(), usize::from(count));
    }
    let before = world.state();
    let mut fifth = request(world.timestamp());
    fifth.flags = RequestFlags::SIMULTANEOUS;
    fifth.care_of_address = address(5);
    assert_eq!(the_code(&world.relay(address(5), &sign(&fifth))), 135);
    assert_eq!(world.state(), before);
    // Another node is not affected (reliability row 16).
    let mut other = request(world.timestamp());
    other.home_address = OTHER_NODE;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&other))), 0);
    // Renewing one of the four is no fifth.
    let mut renewal = request(world.timestamp());
    renewal.flags = RequestFlags::SIMULTANEOUS;
    renewal.care_of_address = address(1);
    renewal.lifetime = Lifetime(100);
    assert_eq!(the_code(&world.relay(address(1), &sign(&renewal))), 0);
    let expired = world.pass(101_000);
    let left: Vec<_> =
        expired.iter().filter(|(_, action)| matches!(action, Action::InstallBinding(state) if state.home_address == NODE && state.care_of_addresses.len() == 3)).collect();
    assert_eq!(left.len(), 1);
    // Deregistering one leaves the others (RFC 5944 §3.8.2.2).
    let mut away = request(world.timestamp());
    away.care_of_address = address(2);
    away.lifetime = Lifetime::ZERO;
    let actions = world.relay(address(2), &sign(&away));
    assert_eq!(the_code(&actions), 0);
    let left: Vec<_> = installed(&actions).iter().map(|one| one.address).collect();
    assert_eq!(left, [address(3), address(4)]);
    // Without S the new one is alone.
    let asked = request(world.timestamp());
    let actions = world.relay(FOREIGN, &sign(&asked));
    assert_eq!(installed(&actions), [care_of(FOREIGN, 60)]);
}

/// B-01, B-06: coming home. The reply goes directly onto the home link, after
/// the binding is removed, and gratuitous ARP names the node's own address on
/// the schedule.
// Shows 5944-3.8.3.1-b, 5944-4.6-j, 5944-4.6-k, 5944-4.6-q.
#[test]
fn a_node_that_comes_home_is_answered_on_its_link_and_announced() {
    let mut world = World::home(|_| {});
    let away = sign(&request(world.timestamp()));
    world.relay(FOREIGN, &away);
    let mut home = request(world.timestamp());
    home.lifetime = Lifetime::ZERO;
    home.care_of_address = NODE;
    let message = sign(&home);
    let begun = world.millis;
    let actions = world.send(&direct(NODE, &message));
    assert_eq!(the_code(&actions), 0);
    assert_eq!(actions[0], Action::RemoveBinding { tenant: TENANT, home_address: NODE });
    let own = Action::GratuitousArp { port: HOME, address: NODE, mac: Some(NODE_MAC) };
    assert_eq!(actions[1], own);
    assert_eq!(transmits(&actions)[0].link, Some((HOME, NODE_MAC)));
    assert_eq!(transmits(&actions)[0].destination, NODE);
    assert_eq!(the_reply(&actions).lifetime, Lifetime::ZERO);
    let expected: Vec<_> =
        [50, 200, 1_100, 2_000, 5_000].map(|after| (begun + after, own.clone())).to_vec();
    assert_eq!(world.pass(60_000), expected, "and the home agent's own claim has stopped");
    assert_eq!(world.counters().deregistrations_accepted, 1);
}

/// RFC 5944 §3.8.3.1: also a denial bypasses the binding.
// Shows 5944-3.8.3.1-b, 5944-3.8.3.1-c, 5944-4.6-r.
#[test]
fn a_denial_to_a_node_at_home_goes_directly_onto_its_link() {
    let mut world = World::home(|_| {});
    let away = sign(&request(world.timestamp()));
    world.relay(FOREIGN, &away);
    let mut home = request(Identification(0));
    home.lifetime = Lifetime::ZERO;
    home.care_of_address = NODE;
    let message = sign(&home);
    let actions = world.send(&direct(NODE, &message));
    assert_eq!(the_code(&actions), 133);
    assert_eq!(transmits(&actions)[0].link, Some((HOME, NODE_MAC)));
    // Neither gratuitous nor proxy ARP changes (§4.6).
    assert!(!actions.iter().any(|action| matches!(action, Action::GratuitousArp { .. })));
    assert!(!actions.iter().any(|action| matches!(action, Action::RemoveBinding { .. })));
    assert_eq!(world.agent.bindings().count(), 1);
}

/// B-06: the home agent's own claim is repeated at 0, 50, 200 ms, 1.1, 2 and 5 s.
// Shows 5944-3.8.2.2-j, 5944-4.6-e, 5944-4.6-f, 5944-4.6-g, 5944-4.6-p.
#[test]
fn the_first_binding_is_announced_on_the_schedule_and_a_renewal_is_not() {
    let mut world = World::home(|_| {});
    let message = sign(&request(world.timestamp()));
    let begun = world.millis;
    let first = world.relay(FOREIGN, &message);
    let claim = Action::GratuitousArp { port: HOME, address: NODE, mac: None };
    assert_eq!(first.iter().filter(|action| **action == claim).count(), 1);
    let repeated: Vec<_> = world.pass(10_000);
    let times: Vec<_> =
        repeated.iter().filter(|(_, action)| *action == claim).map(|(at, _)| at - begun).collect();
    assert_eq!(times, [50, 200, 1_100, 2_000, 5_000]);
    let renewal = sign(&request(world.timestamp()));
    let renewed = world.relay(FOREIGN, &renewal);
    assert!(!renewed.contains(&claim));
    // ARP is answered on the home link as before.
    let [Action::InstallBinding(state), ..] = &renewed[..] else { panic!("{renewed:?}") };
    assert_eq!(state.home_link, Some(HOME));
}

#[test]
fn on_a_virtual_home_network_nothing_is_announced() {
    let mut world = World::home(|config| config.home_networks[0].link = None);
    let message = sign(&request(world.timestamp()));
    let actions = world.relay(FOREIGN, &message);
    assert_eq!(the_code(&actions), 0);
    assert!(!actions.iter().any(|action| matches!(action, Action::GratuitousArp { .. })));
    let mut home = request(world.timestamp());
    home.lifetime = Lifetime::ZERO;
    home.care_of_address = NODE;
    let message = sign(&home);
    assert_eq!(transmits(&world.send(&direct(NODE, &message)))[0].link, None);
}

#[test]
fn a_deregistration_without_binding_is_accepted_all_the_same() {
    let mut world = World::home(|_| {});
    let mut asked = request(world.timestamp());
    asked.lifetime = Lifetime::ZERO;
    asked.care_of_address = NODE;
    let actions = world.relay(FOREIGN, &sign(&asked));
    assert_eq!(the_code(&actions), 0);
    assert_eq!(actions.len(), 3, "a reply, its event and why: {actions:?}");
}

/// B-01: each denial of RFC 5944 §3.4 and RFC 3024 §3.4 that depends on what is
/// asked and what is configured. Nothing changes, and the reply is authentic.
// Shows 5944-3.8.2-b, 5944-3.8.2.3-b, 5944-3.8.3.2-f, 5944-3.8.3.2-i, 5944-3.8.3.2-j, 3024-4.3.1-a,
// 3024-4.3.1-b, attack-15.
#[test]
fn every_denial_of_a_valid_request_has_its_code() {
    type Change = (
        &'static str,
        u8,
        fn(&mut homeport_proto::config::HomeAgentConfig),
        fn(&mut homeport_proto::message::RegistrationRequest),
    );
    let cases: [Change; 19] = [
        ("prohibited", 129, |c| c.administratively_prohibited = true, |_| {}),
        ("no home network", 129, |_| {}, |r| r.home_address = STRAY_NODE),
        ("own address", 129, |_| {}, |r| r.care_of_address = HOME_AGENT),
        ("a home address", 129, |_| {}, |r| r.care_of_address = OTHER_NODE),
        ("its own home address", 129, |_| {}, |r| r.care_of_address = NODE),
        ("full", 130, |c| c.max_bindings = 0, |_| {}),
        ("reserved r", 134, |_| {}, |r| r.flags = RequestFlags::RESERVED_R),
        ("reserved x", 134, |_| {}, |r| r.flags = RequestFlags::RESERVED_X),
        ("zero", 134, |_| {}, |r| r.care_of_address = Ipv4Addr::UNSPECIFIED),
        ("multicast", 134, |_| {}, |r| r.care_of_address = Ipv4Addr::new(224, 0, 0, 11)),
        ("broadcast", 134, |_| {}, |r| r.care_of_address = Ipv4Addr::BROADCAST),
        ("loopback", 134, |_| {}, |r| r.care_of_address = Ipv4Addr::LOCALHOST),
        ("another home agent", 136, |_| {}, |r| r.home_agent = STRANGER),
        ("any home agent", 136, |_| {}, |r| r.home_agent = Ipv4Addr::BROADCAST),
        (
            "no tunnel back",
            137,
            |c| c.reverse_tunnel = false,
            |r| {
                r.flags = RequestFlags::REVERSE_TUNNEL;
            },
        ),
        ("tunnel back wanted", 138, |c| c.require_reverse_tunnel = true, |_| {}),
        ("minimal", 139, plain_tunnels, |r| r.flags = RequestFlags::MINIMAL),
        ("GRE", 139, plain_tunnels, |r| r.flags = RequestFlags::GRE),
        ("no foreign-home", 132, |c| c.require_foreign_home_authentication = true, |_| {}),
    ];
    for (name, code, configure, ask) in cases {
        let mut world = World::home(configure);
        let mut asked = request(world.timestamp());
        ask(&mut asked);
        let before = world.state();
        let actions = world.relay(FOREIGN, &sign(&asked));
        assert_eq!(the_code(&actions), code, "{name}");
        let reply = the_reply(&actions);
        assert_eq!(reply.home_address, asked.home_address, "{name}");
        assert_eq!(reply.home_agent, HOME_AGENT, "{name}: our own, so that it can ask again");
        assert_eq!(reply.identification, asked.identification, "{name}");
        assert_eq!(world.state(), before, "{name}");
        assert!(installed(&actions).is_empty(), "{name}");
        let denied: Vec<_> =
            world.counters().denied().map(|(code, count)| (code.0, count)).collect();
        assert_eq!(denied, [(code, 1)], "{name}");
    }
}

/// The denials of `every_denial…` concern registrations: a deregistration of the
/// same node is accepted, because at home it needs no tunnel.
// Shows 5944-3.5.4-e.
#[test]
fn a_deregistration_passes_where_a_registration_is_denied() {
    let mut world = World::home(|config| {
        config.administratively_prohibited = true;
        config.require_reverse_tunnel = true;
        config.require_foreign_home_authentication = true;
        config.max_bindings = 0;
    });
    let mut asked = request(world.timestamp());
    asked.lifetime = Lifetime::ZERO;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&asked))), 0);
}

/// At the bound the old work is protected (reliability rule 11).
// Shows 5944-3.8.2-b.
#[test]
fn a_full_home_agent_renews_and_denies_the_new_with_130() {
    let mut world = World::home(|config| config.max_bindings = 1);
    let message = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 0);
    let mut other = request(world.timestamp());
    other.home_address = OTHER_NODE;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&other))), 130);
    let renewal = sign(&request(world.timestamp()));
    assert_eq!(the_code(&world.relay(FOREIGN, &renewal)), 0);
}

/// B-01, reliability row 9: discovery by broadcast gets 136 with our address.
// Shows 5944-3.8.2.1-u, 5944-3.8.3.1-a, 5944-3.8.3.2-i, 5944-3.8.3.2-j, attack-9.
#[test]
fn a_broadcast_request_is_denied_with_136_and_the_unicast_address() {
    for destination in [Ipv4Addr::new(10, 1, 0, 255), Ipv4Addr::BROADCAST] {
        let mut world = World::home(|_| {});
        let mut asked = request(world.timestamp());
        asked.home_agent = destination;
        asked.care_of_address = CO_LOCATED;
        asked.flags = RequestFlags::CO_LOCATED;
        let message = sign(&asked);
        let datagram = Datagram { destination, port: HOME, ..direct(CO_LOCATED, &message) };
        let actions = world.send(&datagram);
        assert_eq!(the_code(&actions), 136);
        assert_eq!(the_reply(&actions).home_agent, HOME_AGENT);
        assert_eq!(transmits(&actions)[0].source, HOME_AGENT);
        assert_eq!(world.agent.bindings().count(), 0);
    }
    // 255.255.255.255 from elsewhere than a home link is nobody's.
    let mut world = World::home(|_| {});
    let message = sign(&request(world.timestamp()));
    let datagram = Datagram { destination: Ipv4Addr::BROADCAST, ..relayed(FOREIGN, &message) };
    assert!(transmits(&world.send(&datagram)).is_empty());
    assert_eq!(world.discarded(DiscardReason::WrongDestination), 1);
}

fn with_foreign_home(config: &mut homeport_proto::config::HomeAgentConfig) {
    config.security.insert_agent(FOREIGN, foreign_home());
}

/// B-02: foreign-home authentication, required where an association is shared.
// Shows 5944-3.8.1-f, 5944-3.8.3.3-a.
#[test]
fn foreign_home_authentication_is_checked_and_given_back() {
    let mut world = World::home(with_foreign_home);
    let signed = sign(&request(world.timestamp()));
    let right = append(&signed, AuthenticationKind::ForeignHome, &foreign_home());
    let actions = world.relay(FOREIGN, &right);
    assert_eq!(the_code(&actions), 0);
    let bytes = udp(transmits(&actions)[0]).2.to_vec();
    let reply = parse_reply(&bytes);
    let last = *reply.extensions().last().unwrap();
    assert_eq!(last.extension.authentication_kind(), Some(AuthenticationKind::ForeignHome));
    assert!(reply.verify(&last, &foreign_home()));
    assert_eq!(reply.extensions().len(), 2);
}

/// B-01: code 132.
// Shows 5944-3.8.2.1-q, 5944-3.8.2.1-r.
#[test]
fn bad_missing_or_doubled_foreign_home_authentication_is_denied_with_132() {
    for case in ["wrong key", "missing", "two"] {
        let mut world = World::home(with_foreign_home);
        let signed = sign(&request(world.timestamp()));
        let kind = AuthenticationKind::ForeignHome;
        let message = match case {
            "wrong key" => {
                let mut bytes = append(&signed, kind, &foreign_home());
                *bytes.last_mut().unwrap() ^= 1;
                bytes
            }
            "missing" => signed.clone(),
            _ => append(&append(&signed, kind, &foreign_home()), kind, &foreign_home()),
        };
        let before = world.state();
        assert_eq!(the_code(&world.relay(FOREIGN, &message)), 132, "{case}");
        assert_eq!(world.state(), before, "{case}");
        // The identification was not used up by whoever spoiled the extension.
        let right = append(&signed, kind, &foreign_home());
        assert_eq!(the_code(&world.relay(FOREIGN, &right)), 0, "{case}");
    }
}

/// RFC 5944 §3.5.4: a deregistration carries none.
// Shows 5944-3.5.4-e.
#[test]
fn a_deregistration_needs_no_foreign_home_authentication() {
    let mut world = World::home(with_foreign_home);
    let mut asked = request(world.timestamp());
    asked.lifetime = Lifetime::ZERO;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&asked))), 0);
}

/// RFC 5944 §3.8.2.1 d.
// Shows 5944-3.8.2.1-s.
#[test]
fn foreign_home_authentication_without_association_is_discarded() {
    let mut world = World::home(|_| {});
    let signed = sign(&request(world.timestamp()));
    let message = append(&signed, AuthenticationKind::ForeignHome, &foreign_home());
    let before = world.state();
    assert!(transmits(&world.relay(FOREIGN, &message)).is_empty());
    assert_eq!(world.discarded(DiscardReason::NoSecurityAssociation), 1);
    assert_eq!(world.state(), before);
}

/// B-02: every algorithm, by the SPI of the request, and in the reply.
// Shows 5944-3.5.1-b, 5944-3.5.1-c, 5944-3.8.2.1-j, 5944-5.1-d.
#[test]
fn each_algorithm_authenticates_by_its_spi() {
    for (spi, right, wrong) in [
        (1_001, Algorithm::HmacMd5, Algorithm::KeyedMd5),
        (1_002, Algorithm::KeyedMd5, Algorithm::HmacMd5),
        (1_003, Algorithm::HmacSha1, Algorithm::HmacSha256),
        (1_004, Algorithm::HmacSha256, Algorithm::HmacMd5),
    ] {
        let theirs = association(spi, right);
        let mut world =
            World::home(|config| config.security.insert_mobile_node(NODE, theirs.clone()));
        let message = sign_with(&request(world.timestamp()), &theirs);
        assert_eq!(the_code_under(&world.relay(FOREIGN, &message), &theirs), 0, "{right:?}");
        let message = sign_with(&request(world.timestamp()), &association(spi, wrong));
        let actions = world.relay(FOREIGN, &message);
        // Never a reply that is longer than an unauthenticated request.
        if wrong.authenticator_len() < right.authenticator_len() {
            assert!(transmits(&actions).is_empty(), "{right:?}");
        } else {
            assert_eq!(the_code_under(&actions, &theirs), 131, "{right:?}");
        }
        assert_eq!(world.discarded(DiscardReason::BadMobileHomeAuthenticator), 1);
    }
}

/// B-02: nonces. The first request is out of step; its 133 brings the nonce.
// Shows 5944-3.8.2.1-l, 5944-3.8.2.2-h, 5944-5.7-c.
#[test]
fn nonces_come_into_step_by_one_133_and_a_retransmission_extends_nothing() {
    let mut world = World::home(|_| {});
    let nonces = mobile_home_nonces();
    let mut asked = request(Identification::from_halves(5, 1));
    asked.home_address = NONCE_NODE;
    let actions = world.relay(FOREIGN, &sign_with(&asked, &nonces));
    assert_eq!(the_code_under(&actions, &nonces), 133);
    let told = the_reply(&actions).identification;
    assert_eq!(told.low(), 1);
    asked.identification = Identification::from_halves(told.high(), 2);
    let accepted = sign_with(&asked, &nonces);
    let actions = world.relay(FOREIGN, &accepted);
    assert_eq!(the_code_under(&actions, &nonces), 0);
    let next = the_reply(&actions).identification;
    assert_ne!(next.high(), told.high());
    // The same message once more: the same answer, and nothing happens.
    world.pass(20_000);
    let before = world.state();
    let actions = world.relay(FOREIGN, &accepted);
    assert_eq!(the_code_under(&actions, &nonces), 0);
    assert_eq!(the_reply(&actions).identification, next);
    assert_eq!(the_reply(&actions).lifetime, Lifetime(40), "what is left of sixty seconds");
    assert!(installed(&actions).is_empty());
    assert_eq!(world.state(), before);
    // A nonce is good once.
    asked.identification = Identification::from_halves(told.high(), 3);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &sign_with(&asked, &nonces)), &nonces), 133);
    asked.identification = Identification::from_halves(next.high(), 4);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &sign_with(&asked, &nonces)), &nonces), 0);
}

/// The node's next request, in step under this association.
fn in_step(world: &mut World, nonces: &MobilitySecurityAssociation) -> RegistrationRequest {
    let mut asked = request(Identification::from_halves(0, 1));
    asked.home_address = NONCE_NODE;
    let actions = world.relay(FOREIGN, &sign_with(&asked, nonces));
    let nonce = the_reply(&actions).identification.high();
    asked.identification = Identification::from_halves(nonce, 2);
    asked
}

/// B-02: a denied request is answered with its denial again, not accepted.
#[test]
fn a_repeated_request_that_was_denied_stays_denied() {
    for (lifetime, flags, code) in
        [(0, RequestFlags::RESERVED_X, 134), (60, RequestFlags::GRE, 139)]
    {
        let mut world = World::home(plain_tunnels);
        let nonces = mobile_home_nonces();
        let mut asked = in_step(&mut world, &nonces);
        asked.lifetime = Lifetime(lifetime);
        asked.flags = flags;
        let message = sign_with(&asked, &nonces);
        for _ in 0..2 {
            assert_eq!(the_code_under(&world.relay(FOREIGN, &message), &nonces), code);
        }
        assert_eq!(world.counters().denied_with(ReplyCode(code)), 2);
    }
}

/// B-02: a repeated deregistration is not confirmed when the node has registered
/// under another association since.
#[test]
fn a_repeated_request_is_stale_once_another_was_accepted() {
    let first = mobile_home_nonces();
    let second = MobilitySecurityAssociation { spi: Spi(258), ..mobile_home_nonces() };
    let mut world =
        World::home(|config| config.security.insert_mobile_node(NONCE_NODE, second.clone()));
    let mut away = in_step(&mut world, &first);
    away.lifetime = Lifetime::ZERO;
    let away = sign_with(&away, &first);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &away), &first), 0);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &away), &first), 0);
    let back = in_step(&mut world, &second);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &sign_with(&back, &second)), &second), 0);
    assert_eq!(the_code_under(&world.relay(FOREIGN, &away), &first), 133);
}

/// RFC 2002 against RFC 5944: reliability's table of deltas, row 3.
// Shows 5944-3.8.2.1-f, attack-3.
#[test]
fn profile_rfc2002_denies_with_131_where_rfc5944_is_silent() {
    let bare = |world: &mut World| MessageWriter::request(&request(world.timestamp())).finish();
    let mut world = World::home(|_| {});
    let message = bare(&mut world);
    assert!(transmits(&world.relay(FOREIGN, &message)).is_empty());
    assert_eq!(world.discarded(DiscardReason::NoAuthentication), 1);

    let mut world = World::home(|config| config.profile = Profile::Rfc2002);
    let message = bare(&mut world);
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 131);
    // A node without association is not answered in either.
    let mut unknown = request(world.timestamp());
    unknown.home_address = Ipv4Addr::new(10, 1, 0, 99);
    let message = MessageWriter::request(&unknown).finish();
    assert!(transmits(&world.relay(FOREIGN, &message)).is_empty());
    assert_eq!(world.discarded(DiscardReason::NoSecurityAssociation), 1);
}

/// Two right authenticators: all are checked in RFC 5944, too many in RFC 2002.
// Shows 5944-3.8.2.1-c, attack-3.
#[test]
fn a_second_mobile_home_authentication_is_checked_or_denied_by_profile() {
    for (profile, spoil, code) in [
        (Profile::Rfc5944, false, 0),
        (Profile::Rfc5944, true, 131),
        (Profile::Rfc2002, false, 131),
    ] {
        let mut world = World::home(|config| config.profile = profile);
        let signed = sign(&request(world.timestamp()));
        let mut message = append(&signed, AuthenticationKind::MobileHome, &mobile_home());
        if spoil {
            *message.last_mut().unwrap() ^= 1;
        }
        assert_eq!(the_code(&world.relay(FOREIGN, &message)), code, "{profile:?} {spoil}");
    }
}

/// RFC 2002 has V where RFC 5944 has a reserved bit: not the home agent's matter.
#[test]
fn profile_rfc2002_ignores_the_header_compression_bit() {
    let mut world = World::home(|config| config.profile = Profile::Rfc2002);
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::RESERVED_R;
    assert_eq!(the_code(&world.relay(FOREIGN, &sign(&asked))), 0);
}

#[test]
fn an_operator_clears_a_binding_and_its_claims() {
    let mut world = World::home(|_| {});
    let message = sign(&request(world.timestamp()));
    world.relay(FOREIGN, &message);
    let now = world.now();
    assert!(world.agent.clear_binding(TENANT, NODE, now));
    assert_eq!(world.drain(), [Action::RemoveBinding { tenant: TENANT, home_address: NODE }]);
    assert!(!world.agent.clear_binding(TENANT, NODE, now));
    assert_eq!(world.agent.poll_timeout(), None);
    // The cleared request is still no good a second time.
    assert_eq!(the_code(&world.relay(FOREIGN, &message)), 133);
}

#[test]
fn a_group_station_is_never_told_to_the_home_link() {
    let mut world = World::home(|_| {});
    let mut home = request(world.timestamp());
    home.lifetime = Lifetime::ZERO;
    home.care_of_address = NODE;
    let message = sign(&home);
    let datagram = Datagram { source_mac: MacAddress::BROADCAST, ..direct(NODE, &message) };
    let actions = world.send(&datagram);
    assert!(!actions.iter().any(|action| matches!(action, Action::GratuitousArp { .. })));
}
