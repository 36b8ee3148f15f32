//! The foreign agent's side of B-01 and B-02.

use core::net::Ipv4Addr;

use homeport_proto::config::{EncapsulationSet, ForeignAgentConfig, Profile};
use homeport_proto::event::{DiscardReason, Event};
use homeport_proto::message::{
    AuthenticationKind, Extension, Identification, MessageWriter, RegistrationRequest, ReplyCode,
    RequestFlags,
};
use homeport_proto::{Action, Datagram, Lifetime, MacAddress, PortId, ReverseTunnel, TenantId};
use homeport_wire::icmpv4::Icmpv4Header;
use homeport_wire::{IpProtocol, Ipv4Header, UdpHeader};
use zerocopy::IntoBytes;

use crate::support::*;

fn ip_in_ip(config: &mut ForeignAgentConfig) {
    config.tunnels.encapsulations = EncapsulationSet::IP_IN_IP;
}

/// The code of the foreign agent's own denial, sent to the station that asked.
pub(crate) fn denied(actions: &[Action]) -> u8 {
    let reply = the_reply(actions);
    let transmit = transmits(actions)[0];
    assert_eq!(transmit.link, Some((VISITED, NODE_MAC)));
    assert_eq!((udp(transmit).0, udp(transmit).1), (434, 40_000));
    reply.code.0
}

pub(crate) fn relayed_bytes(actions: &[Action]) -> Vec<u8> {
    let all = transmits(actions);
    assert_eq!(all.len(), 1, "{actions:?}");
    assert_eq!((all[0].source, all[0].destination), (FOREIGN, HOME_AGENT), "{actions:?}");
    assert_eq!((udp(all[0]).0, udp(all[0]).1, all[0].link), (434, 434, None));
    udp(all[0]).2.to_vec()
}

/// Registers the node and gives the request.
fn register(world: &mut World) -> RegistrationRequest {
    let asked = request(world.timestamp());
    relayed_bytes(&world.visit(&sign(&asked)));
    let actions = world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    assert_eq!(the_code(&actions), 0);
    asked
}

/// B-01: request out by the care-of address unchanged, visitor installed, reply
/// back to the station that asked.
// Shows 5944-3.4-a, 5944-3.7-d, 5944-3.7.1-b, 5944-3.7.2.2-a, 5944-3.7.2.2-b, 5944-3.7.2.2-e,
// 5944-3.7.3.1-b, 5944-3.7.3.2-a, 5944-3.7.3.2-b, 5944-3.7.3.2-e, 3024-3.1-a, 3024-4.2.2-b.
#[test]
fn a_registration_is_relayed_both_ways_and_the_visitor_installed_first() {
    let mut world = World::foreign(|_| {});
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::REVERSE_TUNNEL;
    let message = sign(&asked);
    assert_eq!(relayed_bytes(&world.visit(&message)), message);
    assert_eq!(world.agent.visitors().count(), 0);
    let reply = reply_to(&asked, ReplyCode::ACCEPTED, 45);
    let actions = world.answer(&reply);
    assert_eq!(actions[0], Action::InstallVisitor(visitor(ReverseTunnel::Direct)));
    let transmit = transmits(&actions)[0];
    assert_eq!(udp(transmit), (434, 40_000, &reply[..]));
    assert_eq!(transmit.link, Some((VISITED, NODE_MAC)));
    assert_eq!((transmit.source, transmit.destination), (FOREIGN_LINK, NODE));
    let record = world.agent.visitors().next().unwrap();
    assert_eq!(record.lifetime, Lifetime(45));
    assert_eq!(world.counters().requests_relayed, 1);
    assert_eq!(world.counters().replies_relayed, 1);
    // B-01: it ends with its lifetime, and nobody is told but the operator.
    let expired: Vec<_> = world.pass(45_000).into_iter().map(|(_, action)| action).collect();
    assert_eq!(
        expired,
        [
            the_visitor_is_removed(),
            Action::Event(Event::VisitorExpired {
                tenant: TENANT,
                home_address: NODE,
                home_agent: HOME_AGENT,
            }),
        ]
    );
}

/// RFC 3024 §3.3: the extension is consumed, and the style remembered.
// Shows 5944-3.7.2.2-c, 3024-3.1-b, 3024-3.3-a, 3024-4.2.2-b.
#[test]
fn the_encapsulating_delivery_extension_is_consumed() {
    let mut world = World::foreign(|_| {});
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::REVERSE_TUNNEL;
    let signed = sign(&asked);
    let mut writer = MessageWriter::relay(&signed);
    writer.extension(&Extension::EncapsulatingDelivery).unwrap();
    assert_eq!(relayed_bytes(&world.visit(&writer.finish())), signed);
    let actions = world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    assert_eq!(actions[0], Action::InstallVisitor(visitor(ReverseTunnel::Encapsulating)));
}

/// B-01: deregistration through the foreign agent.
// Shows 5944-3.7-e, 5944-3.7.2-f, 5944-3.7.3.2-c.
#[test]
fn an_accepted_deregistration_removes_the_visitor_before_the_reply() {
    let mut world = World::foreign(|_| {});
    register(&mut world);
    for care_of_address in [FOREIGN, NODE] {
        let mut away = request(world.timestamp());
        away.lifetime = Lifetime::ZERO;
        away.care_of_address = care_of_address;
        relayed_bytes(&world.visit(&sign(&away)));
        assert_eq!(world.agent.visitors().count(), 1, "until the home agent says so");
        let actions = world.answer(&reply_to(&away, ReplyCode::ACCEPTED, 0));
        assert_eq!(actions[0], the_visitor_is_removed());
        assert_eq!(the_code(&actions), 0);
        assert_eq!(world.agent.visitors().count(), 0);
        register(&mut world);
    }
    // The care-of address of the agent before: the visitor stays ours.
    let mut elsewhere = request(world.timestamp());
    elsewhere.lifetime = Lifetime::ZERO;
    elsewhere.care_of_address = STRANGER;
    relayed_bytes(&world.visit(&sign(&elsewhere)));
    let actions = world.answer(&reply_to(&elsewhere, ReplyCode::ACCEPTED, 0));
    assert_eq!(the_code(&actions), 0);
    assert_eq!(world.agent.visitors().count(), 1);
}

/// RFC 5944 §3.7.2: a denied renewal leaves the visitor as it was. Every code of
/// a home agent passes unchanged, 128 among them.
// Shows 5944-3.7.2-d, 5944-3.7.2-g, 5944-3.7.3.2-e.
#[test]
fn the_home_agents_denials_are_relayed_and_leave_the_visitor() {
    for code in 128..=139 {
        let mut world = World::foreign(|_| {});
        register(&mut world);
        let before = world.state();
        let asked = request(world.timestamp());
        relayed_bytes(&world.visit(&sign(&asked)));
        let reply = reply_to(&asked, ReplyCode(code), 60);
        let actions = world.answer(&reply);
        assert_eq!(udp(transmits(&actions)[0]).2, reply);
        assert_eq!(world.state(), before);
        // The pending request is gone: the reply is good once.
        assert!(transmits(&world.answer(&reply)).is_empty());
        assert_eq!(world.discarded(DiscardReason::NotPending), 1);
    }
}

// Shows 5944-3.7.3.2-b.
#[test]
fn the_lifetime_is_the_least_of_granted_asked_and_allowed() {
    for (asked_for, granted, kept) in [(300, 400, 300), (60, 50, 50), (60, 100, 60)] {
        let mut world = World::foreign(|_| {});
        let mut asked = request(world.timestamp());
        asked.lifetime = Lifetime(asked_for);
        world.visit(&sign(&asked));
        world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, granted));
        assert_eq!(world.agent.visitors().next().unwrap().lifetime, Lifetime(kept));
    }
}

/// B-01: each denial that depends on what is asked and what is configured. It
/// goes to the station; nothing is relayed, and nothing changes.
// Shows 5944-3.7.2-b, 5944-3.7.2-c, 5944-3.7.2.1-b, 5944-3.7.2.1-c, 5944-3.7.2.3-c, 5944-3.7.2.3-d,
// 3024-4.2.1-a, 3024-4.2.1-e, 3024-4.2.1-f, attack-18.
#[test]
fn every_denial_of_a_request_has_its_code() {
    type Case = (&'static str, u8, fn(&mut ForeignAgentConfig), fn(&mut RegistrationRequest));
    let cases: [Case; 24] = [
        ("prohibited", 65, |c| c.administratively_prohibited = true, |_| {}),
        ("full", 66, |c| c.max_visitors = 0, |_| {}),
        ("pending full", 66, |c| c.max_pending = 0, |_| {}),
        ("pending of the node full", 66, |c| c.max_pending_per_node = 0, |_| {}),
        ("no authentication", 67, |c| c.require_mobile_foreign_authentication = true, |_| {}),
        ("lifetime", 69, |_| {}, |r| r.lifetime = Lifetime(301)),
        ("infinity", 69, |_| {}, |r| r.lifetime = Lifetime::INFINITE),
        ("reserved r", 70, |_| {}, |r| r.flags = RequestFlags::RESERVED_R),
        ("reserved x", 70, |_| {}, |r| r.flags = RequestFlags::RESERVED_X),
        ("no home address, no NAI", 97, |_| {}, |r| r.home_address = Ipv4Addr::UNSPECIFIED),
        ("group home address", 70, |_| {}, |r| r.home_address = Ipv4Addr::new(224, 0, 0, 1)),
        ("minimal", 72, ip_in_ip, |r| r.flags = RequestFlags::MINIMAL),
        ("GRE", 72, ip_in_ip, |r| r.flags = RequestFlags::GRE),
        (
            "V of RFC 2002",
            73,
            |c| c.profile = Profile::Rfc2002,
            |r| {
                r.flags = RequestFlags::RESERVED_R;
            },
        ),
        (
            "no tunnel back",
            74,
            |c| c.reverse_tunnel = false,
            |r| {
                r.flags = RequestFlags::REVERSE_TUNNEL;
            },
        ),
        ("tunnel back wanted", 75, |c| c.require_reverse_tunnel = true, |_| {}),
        ("another care-of address", 77, |_| {}, |r| r.care_of_address = STRANGER),
        ("co-located with ours", 77, |_| {}, |r| r.flags = RequestFlags::CO_LOCATED),
        ("home agent is our care-of", 194, |_| {}, |r| r.home_agent = FOREIGN),
        ("home agent is our link", 194, |_| {}, |r| r.home_agent = FOREIGN_LINK),
        ("home agent is nobody", 90, |_| {}, |r| r.home_agent = Ipv4Addr::UNSPECIFIED),
        ("home agent is everybody", 90, |_| {}, |r| r.home_agent = Ipv4Addr::BROADCAST),
        ("home agent is a group", 194, |_| {}, |r| r.home_agent = Ipv4Addr::new(224, 0, 0, 11)),
        ("home agent is loopback", 194, |_| {}, |r| r.home_agent = Ipv4Addr::LOCALHOST),
    ];
    for (name, code, configure, ask) in cases {
        let mut world = World::foreign(configure);
        let mut asked = request(world.timestamp());
        ask(&mut asked);
        let before = world.state();
        let actions = world.visit(&sign(&asked));
        assert_eq!(denied(&actions), code, "{name}");
        let reply = the_reply(&actions);
        assert_eq!(reply.home_address, asked.home_address, "{name}");
        assert_eq!(reply.home_agent, asked.home_agent, "{name}");
        assert_eq!(reply.identification, asked.identification, "{name}");
        let lifetime = if code == 69 { Lifetime(300) } else { asked.lifetime };
        assert_eq!(reply.lifetime, lifetime, "{name}");
        let destination = match asked.home_address {
            Ipv4Addr::UNSPECIFIED => Ipv4Addr::BROADCAST,
            home_address => home_address,
        };
        assert_eq!(transmits(&actions)[0].destination, destination, "{name}");
        assert_eq!(world.state(), before, "{name}");
        assert_eq!(world.counters().denied_with(ReplyCode(code)), 1, "{name}");
        // RFC 5944 §3.7.2: at most one denial a second to a node.
        assert!(transmits(&world.visit(&sign(&asked))).is_empty(), "{name}");
        assert_eq!(world.counters().denials_suppressed, 1, "{name}");
        world.pass(1_000);
        assert_eq!(denied(&world.visit(&sign(&asked))), code, "{name}");
    }
}

/// B-01: 70 for an extension in its wrong place, a cut extension, and a request
/// that nothing authorizes.
#[test]
fn a_poorly_formed_request_is_denied_with_70() {
    let build: [fn(&RegistrationRequest) -> Vec<u8>; 3] = [
        |asked| MessageWriter::request(asked).finish(),
        |asked| {
            let mut bytes = sign(asked);
            bytes.extend_from_slice(&[130, 9, 0]);
            bytes
        },
        |asked| {
            let mut writer = MessageWriter::relay(&sign(asked));
            writer.extension(&Extension::EncapsulatingDelivery).unwrap();
            writer.finish()
        },
    ];
    for build in build {
        let mut world = World::foreign(|_| {});
        let message = build(&request(world.timestamp()));
        assert_eq!(denied(&world.visit(&message)), 70);
    }
}

/// B-01: 76 for a node behind a router, reliability row 18.
// Shows 3024-4.2.1-d, attack-18.
#[test]
fn a_distant_node_that_asks_for_a_reverse_tunnel_is_denied_with_76() {
    let mut world = World::foreign(|_| {});
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::REVERSE_TUNNEL;
    let message = sign(&asked);
    assert_eq!(denied(&world.send(&Datagram { ttl: 254, ..visiting(&message) })), 76);
    // Without T the TTL says nothing (RFC 5944 §3.6.1.1: it is 1).
    let message = sign(&request(world.timestamp()));
    relayed_bytes(&world.send(&Datagram { ttl: 1, ..visiting(&message) }));
}

/// B-01: 79.
// Shows 3024-4.2.1-b.
#[test]
fn encapsulating_delivery_that_is_not_offered_is_denied_with_79() {
    let mut world = World::foreign(|config| config.encapsulating_delivery = false);
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::REVERSE_TUNNEL;
    let mut writer = MessageWriter::relay(&sign(&asked));
    writer.extension(&Extension::EncapsulatingDelivery).unwrap();
    assert_eq!(denied(&world.visit(&writer.finish())), 79);
}

fn with_mobile_foreign(config: &mut ForeignAgentConfig) {
    config.security.insert_mobile_node(NODE, mobile_foreign());
}

/// B-02, B-01: 67, and the denial itself is authentic.
// Shows 5944-3.7.2.1-f, 5944-3.7.2.1-g.
#[test]
fn bad_missing_or_doubled_mobile_foreign_authentication_is_denied_with_67() {
    let kind = AuthenticationKind::MobileForeign;
    let spoil: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |signed| signed,
        |signed| append(&signed, AuthenticationKind::MobileForeign, &mobile_home()),
        |signed| {
            let mut bytes = append(&signed, AuthenticationKind::MobileForeign, &mobile_foreign());
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        },
        |signed| {
            let once = append(&signed, AuthenticationKind::MobileForeign, &mobile_foreign());
            append(&once, AuthenticationKind::MobileForeign, &mobile_foreign())
        },
    ];
    for spoil in spoil {
        let mut world = World::foreign(with_mobile_foreign);
        let signed = sign(&request(world.timestamp()));
        let before = world.state();
        let actions = world.visit(&spoil(signed));
        assert_eq!(denied(&actions), 67);
        let reply = parse_reply(udp(transmits(&actions)[0]).2);
        let extension = *reply.authentications(kind).next().unwrap();
        assert!(reply.verify(&extension, &mobile_foreign()));
        assert_eq!(world.discarded(DiscardReason::BadMobileForeignAuthenticator), 1);
        assert_eq!(world.state(), before);
    }
}

/// B-02: right authentication is consumed on the way out and added on the way
/// back.
// Shows 5944-3.7.2.2-c, 5944-3.7.3.2-g, 5944-3.7.3.2-h.
#[test]
fn mobile_foreign_authentication_is_consumed_and_given_back() {
    let mut world = World::foreign(with_mobile_foreign);
    let asked = request(world.timestamp());
    let signed = sign(&asked);
    let message = append(&signed, AuthenticationKind::MobileForeign, &mobile_foreign());
    assert_eq!(relayed_bytes(&world.visit(&message)), signed);
    let reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    // What the home agent added for the foreign agent is consumed as well.
    let mut writer = MessageWriter::relay(&reply);
    writer.extension(&Extension::Unknown { extension_type: 200, data: &[1, 2] }).unwrap();
    let actions = world.answer(&writer.finish());
    let expected = append(&reply, AuthenticationKind::MobileForeign, &mobile_foreign());
    assert_eq!(udp(transmits(&actions)[0]).2, expected);
}

fn with_foreign_home(config: &mut ForeignAgentConfig) {
    config.security.insert_agent(HOME_AGENT, foreign_home());
}

/// B-02: added to registrations, not to deregistrations (RFC 5944 §3.5.4), but
/// to them too with RFC 2002.
// Shows 5944-3.5.4-d, 5944-3.7.2.2-d.
#[test]
fn foreign_home_authentication_is_added_where_the_profile_says() {
    for (profile, lifetime, added) in
        [(Profile::Rfc5944, 60, true), (Profile::Rfc5944, 0, false), (Profile::Rfc2002, 0, true)]
    {
        let mut world = World::foreign(|config| {
            with_foreign_home(config);
            config.profile = profile;
        });
        let mut asked = request(world.timestamp());
        asked.lifetime = Lifetime(lifetime);
        let signed = sign(&asked);
        let expected = match added {
            true => append(&signed, AuthenticationKind::ForeignHome, &foreign_home()),
            false => signed.clone(),
        };
        assert_eq!(relayed_bytes(&world.visit(&signed)), expected, "{profile:?} {lifetime}");
    }
}

/// RFC 5944 §3.5.4: the care-of address is not one that the agent advertises.
// Shows 5944-3.5.4-c.
#[test]
fn a_co_located_nodes_request_is_relayed_without_foreign_home_authentication() {
    let mut world = World::foreign(with_foreign_home);
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::CO_LOCATED;
    asked.care_of_address = CO_LOCATED;
    let signed = sign(&asked);
    assert_eq!(relayed_bytes(&world.visit(&signed)), signed);
}

/// B-01: 68 to the node, and the visitor does not appear.
// Shows 5944-3.7.3.1-h, 5944-3.7.3.1-i.
#[test]
fn bad_or_missing_foreign_home_authentication_of_a_reply_is_denied_with_68() {
    let spoil: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |reply| reply,
        |reply| append(&reply, AuthenticationKind::ForeignHome, &mobile_home()),
        |reply| {
            let mut bytes = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        },
        |reply| {
            let once = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
            append(&once, AuthenticationKind::ForeignHome, &foreign_home())
        },
    ];
    for spoil in spoil {
        // Also a reply of lifetime zero to a registration must be authentic.
        for lifetime in [60, 0] {
            let mut world = World::foreign(with_foreign_home);
            let asked = request(world.timestamp());
            world.visit(&sign(&asked));
            let reply = reply_to(&asked, ReplyCode::ACCEPTED, lifetime);
            assert_eq!(denied(&world.answer(&spoil(reply))), 68);
            assert_eq!(world.agent.visitors().count(), 0);
            assert_eq!(world.discarded(DiscardReason::BadForeignHomeAuthenticator), 1);
        }
    }
    let mut world = World::foreign(with_foreign_home);
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    let reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    let right = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
    let actions = world.answer(&right);
    assert_eq!(udp(transmits(&actions)[0]).2, reply, "and consumed");
    assert_eq!(world.agent.visitors().count(), 1);
}

/// B-01: 71.
#[test]
fn a_poorly_formed_reply_is_denied_with_71() {
    let mut world = World::foreign(|_| {});
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    let reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    assert_eq!(denied(&world.answer(&reply[..20])), 71, "no mobile-home authentication");
    assert_eq!(world.agent.visitors().count(), 0);
    let asked = request(world.timestamp());
    world.pass(1_000);
    world.visit(&sign(&asked));
    let mut reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    reply.extend_from_slice(&[200, 40]);
    assert_eq!(denied(&world.answer(&reply)), 71, "an extension past the end");
    assert_eq!(world.discarded(DiscardReason::Malformed), 2);
}

// Shows 5944-1.8-a.
#[test]
fn a_reply_with_an_unknown_extension_below_128_might_never_have_come() {
    let mut world = World::foreign(|_| {});
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    let reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    let mut unknown = reply.clone();
    unknown.extend_from_slice(&[120, 0]);
    assert!(transmits(&world.answer(&unknown)).is_empty());
    assert_eq!(world.discarded(DiscardReason::UnknownExtension), 1);
    assert_eq!(the_code(&world.answer(&reply)), 0);
}

/// B-01: 78 after the pending timeout, or the lifetime where that is shorter.
// Shows 5944-3.7.1-f, 5944-3.7.2.2-f, 5944-3.7.2.2-g.
#[test]
fn a_request_that_nobody_answers_is_denied_with_78() {
    for (lifetime, millis) in [(60, 7_000), (3, 3_000)] {
        let mut world = World::foreign(|_| {});
        let mut asked = request(world.timestamp());
        asked.lifetime = Lifetime(lifetime);
        world.visit(&sign(&asked));
        assert_eq!(world.pass(millis - 1), []);
        let actions: Vec<_> = world.pass(1).into_iter().map(|(_, action)| action).collect();
        assert_eq!(denied(&actions), 78);
        // Late is too late.
        let reply = reply_to(&asked, ReplyCode::ACCEPTED, 60);
        assert!(transmits(&world.answer(&reply)).is_empty());
    }
}

/// An ICMP error as a router sends it, quoting `quoted` bytes behind the IP
/// header of a relayed request.
pub(crate) fn icmp_error(message_type: u8, code: u8, relayed: &[u8], quoted: usize) -> Vec<u8> {
    let udp = UdpHeader::new((FOREIGN, 434), (HOME_AGENT, 434), relayed).unwrap();
    let total = u16::try_from(28 + relayed.len()).unwrap();
    let ip = Ipv4Header::new(FOREIGN, HOME_AGENT, IpProtocol::UDP, 60, total);
    let mut body = ip.as_bytes().to_vec();
    body.extend_from_slice(udp.as_bytes());
    body.extend_from_slice(relayed);
    body.truncate(20 + quoted);
    let mut icmp = Icmpv4Header::new(message_type, code, [0; 4], &body).as_bytes().to_vec();
    icmp.extend_from_slice(&body);
    icmp
}

/// B-01: 80, 81, 82 and 88, whether the error quotes all of the request or only
/// the eight bytes of RFC 792.
// Shows 5944-3.7.3-a.
#[test]
fn an_icmp_error_about_a_relayed_request_is_denied_with_80_81_82_or_88() {
    for (message_type, icmp_code, code) in
        [(3, 0, 80), (3, 6, 80), (3, 1, 81), (3, 10, 81), (3, 3, 82), (3, 2, 88), (11, 0, 88)]
    {
        for quoted in [8, 60] {
            let mut world = World::foreign(|_| {});
            let message = sign(&request(world.timestamp()));
            let relayed = relayed_bytes(&world.visit(&message));
            let icmp = icmp_error(message_type, icmp_code, &relayed, quoted);
            let now = world.now();
            world.agent.handle_unreachable(TENANT, STRANGER, &icmp, now);
            assert_eq!(denied(&world.drain()), code, "{message_type} {icmp_code} {quoted}");
            assert_eq!(world.agent.foreign_agents().next().unwrap().pending().len(), 0);
        }
    }
}

/// Reliability row 29, as far as registrations go.
// Shows attack-29.
#[test]
fn an_icmp_error_that_quotes_no_pending_request_changes_nothing() {
    let mut world = World::foreign(|_| {});
    let message = sign(&request(world.timestamp()));
    let relayed = relayed_bytes(&world.visit(&message));
    let other = sign(&request(world.timestamp()));
    let before = world.state();
    let mut forged = vec![
        icmp_error(3, 1, &other, 8),
        icmp_error(3, 1, &other, 60),
        icmp_error(3, 4, &relayed, 60),
        icmp_error(5, 1, &relayed, 60),
        icmp_error(3, 1, &relayed, 7),
    ];
    let mut broken = icmp_error(3, 1, &relayed, 60);
    broken[30] ^= 1;
    forged.push(broken);
    for cut in 0..36 {
        forged.push(icmp_error(3, 1, &relayed, 60)[..cut].to_vec());
    }
    let count = forged.len() as u64;
    for icmp in forged {
        let now = world.now();
        world.agent.handle_unreachable(TENANT, STRANGER, &icmp, now);
        assert!(transmits(&world.drain()).is_empty());
    }
    assert_eq!(world.state(), before);
    assert_eq!(world.discarded(DiscardReason::NotPending), count);
}

/// A retransmission is not relayed again; neither is a copy that another station
/// sends to get the reply itself.
#[test]
fn a_pending_request_is_relayed_once() {
    let mut world = World::foreign(|_| {});
    let asked = request(world.timestamp());
    let message = sign(&asked);
    relayed_bytes(&world.visit(&message));
    assert!(transmits(&world.visit(&message)).is_empty());
    let thief = Datagram { source_mac: MacAddress([2, 0, 0, 0, 0, 0]), ..visiting(&message) };
    assert!(transmits(&world.send(&thief)).is_empty());
    assert_eq!(world.discarded(DiscardReason::Duplicate), 2);
    let actions = world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    assert_eq!(transmits(&actions)[0].link, Some((VISITED, NODE_MAC)));
}

/// A visitor moves to another station only when the home agent accepts it there.
// Shows 5944-3.7.2-d, 5944-3.7.2-e.
#[test]
fn another_station_takes_over_a_visitor_only_with_an_accepted_reply() {
    let mut world = World::foreign(|_| {});
    register(&mut world);
    let other = MacAddress([2, 0, 0, 0, 0, 0x66]);
    for (code, station) in
        [(ReplyCode::HA_MOBILE_NODE_FAILED_AUTHENTICATION, NODE_MAC), (ReplyCode::ACCEPTED, other)]
    {
        let asked = request(world.timestamp());
        let message = sign(&asked);
        world.send(&Datagram { source_mac: other, ..visiting(&message) });
        assert_eq!(world.agent.visitors().next().unwrap().state.mac, NODE_MAC);
        let actions = world.answer(&reply_to(&asked, code, 60));
        assert_eq!(transmits(&actions)[0].link, Some((VISITED, other)));
        assert_eq!(world.agent.visitors().next().unwrap().state.mac, station);
    }
}

/// "Wrong Home Agent fields": source and field must be the one that was asked.
// Shows 5944-3.7.3.1-b, 5944-3.7.3.1-d, 5944-3.7.3.1-e.
#[test]
fn a_reply_from_or_about_another_home_agent_is_discarded() {
    let mut world = World::foreign(|_| {});
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    let before = world.state();
    let right = reply_to(&asked, ReplyCode::ACCEPTED, 60);
    let other = Datagram { destination: FOREIGN, ..relayed(STRANGER, &right) };
    assert!(transmits(&world.send(&other)).is_empty());
    let wrong_field =
        reply_to(&RegistrationRequest { home_agent: STRANGER, ..asked }, ReplyCode::ACCEPTED, 60);
    assert!(transmits(&world.answer(&wrong_field)).is_empty());
    assert_eq!(world.discarded(DiscardReason::WrongHomeAgent), 2);
    let wrong_low = Identification(asked.identification.0 ^ 1);
    let unasked = RegistrationRequest { identification: wrong_low, ..asked };
    assert!(transmits(&world.answer(&reply_to(&unasked, ReplyCode::ACCEPTED, 60))).is_empty());
    let unasked = RegistrationRequest { home_address: OTHER_NODE, ..asked };
    assert!(transmits(&world.answer(&reply_to(&unasked, ReplyCode::ACCEPTED, 60))).is_empty());
    assert_eq!(world.discarded(DiscardReason::NotPending), 2);
    assert_eq!(world.state(), before);
    // The high half is the home agent's (RFC 5944 §5.7).
    let high = Identification::from_halves(1, asked.identification.low());
    let answered = RegistrationRequest { identification: high, ..asked };
    assert_eq!(the_code(&world.answer(&reply_to(&answered, ReplyCode::ACCEPTED, 60))), 0);
}

/// RFC 5944 §3.7.2.3: a node without home address is reached by broadcast, on
/// its link-layer address, or at the address that the home agent gives it.
// Shows 5944-3.7.3.1-c, 2794-3-a.
#[test]
fn a_node_without_home_address_is_told_by_its_nai() {
    for (given, destination) in
        [(OTHER_NODE, OTHER_NODE), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)]
    {
        let mut world = World::foreign(|_| {});
        let mut asked = request(world.timestamp());
        asked.home_address = Ipv4Addr::UNSPECIFIED;
        let send = |world: &mut World, name: &[u8], mac: MacAddress| {
            let mut writer = MessageWriter::request(&asked);
            writer.extension(&Extension::NetworkAccessIdentifier(name)).unwrap();
            writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
            let message = writer.finish();
            let source = Ipv4Addr::UNSPECIFIED;
            relayed_bytes(&world.send(&Datagram { source, source_mac: mac, ..visiting(&message) }));
        };
        send(&mut world, b"other@example.org", ROUTER_MAC);
        send(&mut world, b"me@example.org", NODE_MAC);
        let code = match given {
            Ipv4Addr::UNSPECIFIED => ReplyCode::HA_PROHIBITED,
            _ => ReplyCode::ACCEPTED,
        };
        let answered = RegistrationRequest { home_address: given, ..asked };
        let reply = reply_to(&answered, code, 60);
        let mut named = MessageWriter::relay(&reply[..20]);
        named.extension(&Extension::NetworkAccessIdentifier(b"me@example.org")).unwrap();
        named.authenticate(AuthenticationKind::MobileHome, &mobile_home());
        let actions = world.answer(&named.finish());
        let transmit = transmits(&actions)[0];
        assert_eq!(transmit.link, Some((VISITED, NODE_MAC)));
        assert_eq!(transmit.destination, destination);
    }
}

/// A node with an address of its own registers through the agent (flag R), but
/// nothing is forwarded for it.
#[test]
fn a_co_located_node_is_relayed_for_and_is_no_visitor() {
    let mut world = World::foreign(|_| {});
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::CO_LOCATED;
    asked.care_of_address = CO_LOCATED;
    relayed_bytes(&world.visit(&sign(&asked)));
    let actions = world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    assert_eq!(the_code(&actions), 0);
    assert_eq!(world.agent.visitors().count(), 0);
}

// Shows 5944-2.3-c, 5944-3.7.2.3-e.
#[test]
fn a_reply_is_answered_from_the_address_that_was_asked() {
    for (asked_at, source) in [
        (FOREIGN_LINK, FOREIGN_LINK),
        (FOREIGN, FOREIGN),
        (Ipv4Addr::new(224, 0, 0, 11), FOREIGN_LINK),
    ] {
        let mut world = World::foreign(|config| config.administratively_prohibited = true);
        let message = sign(&request(world.timestamp()));
        let actions = world.send(&Datagram { destination: asked_at, ..visiting(&message) });
        assert_eq!(denied(&actions), 65);
        assert_eq!(transmits(&actions)[0].source, source);
    }
}

#[test]
fn a_request_from_elsewhere_than_a_visited_link_is_nobodys() {
    let mut world = World::foreign(|_| {});
    let message = sign(&request(world.timestamp()));
    let datagram = Datagram { port: PortId(9), destination: FOREIGN, ..visiting(&message) };
    assert!(transmits(&world.send(&datagram)).is_empty());
    assert_eq!(world.discarded(DiscardReason::WrongDestination), 1);
    let other_tenant = Datagram { tenant: TenantId(9), ..visiting(&message) };
    assert!(transmits(&world.send(&other_tenant)).is_empty());
    assert_eq!(world.agent.foreign_agents().next().unwrap().pending().len(), 0);
}

/// A visitor too many, accepted while the last place went: 66, not a record.
#[test]
fn two_pending_nodes_do_not_overfill_the_visitor_list() {
    let mut world = World::foreign(|config| config.max_visitors = 1);
    let first = request(world.timestamp());
    let mut second = request(world.timestamp());
    second.home_address = OTHER_NODE;
    world.visit(&sign(&first));
    world.visit(&sign(&second));
    assert_eq!(the_code(&world.answer(&reply_to(&first, ReplyCode::ACCEPTED, 60))), 0);
    assert_eq!(denied(&world.answer(&reply_to(&second, ReplyCode::ACCEPTED, 60))), 66);
    assert_eq!(world.agent.visitors().count(), 1);
    // The visitor that is there renews.
    register(&mut world);
}
