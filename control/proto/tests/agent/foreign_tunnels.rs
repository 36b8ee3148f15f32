//! How a foreign agent's visitors are tunnelled: flags M and G, GRE keys, UDP
//! because it is behind a NAT (RFC 3519 §4.5, RFC 6245 §4.1). Row B-04.

use homeport_proto::config::{AgentConfig, EncapsulationSet, UdpTunnelling};
use homeport_proto::message::{
    AuthenticationKind, Extension, MessageWriter, RegistrationReply, RegistrationRequest,
    ReplyCode, RequestFlags, UdpTunnelReply, UdpTunnelRequest,
};
use homeport_proto::{Action, Encapsulation, Lifetime};
use homeport_wire::icmpv4::{ECHO_REQUEST, Icmpv4Packet};
use homeport_wire::{IpProtocol, Ipv4Packet};

use super::foreign_agent::{denied, relayed_bytes};
use super::support::*;
use super::tunnels::{assent, bytes};

/// A visitor's request that asks for a reverse tunnel and these flags.
fn asking(world: &mut World, flags: RequestFlags) -> RegistrationRequest {
    let flags = flags.with(RequestFlags::REVERSE_TUNNEL);
    RegistrationRequest { flags, ..request(world.timestamp()) }
}

/// An accepting reply with extensions for the node and, behind its authentication,
/// for the foreign agent.
fn accepting(request: &RegistrationRequest, node: &[u8], agent: &[u8]) -> Vec<u8> {
    let reply = RegistrationReply {
        code: ReplyCode::ACCEPTED,
        lifetime: request.lifetime,
        home_address: request.home_address,
        home_agent: request.home_agent,
        identification: request.identification,
    };
    let mut message = MessageWriter::reply(&reply).finish();
    message.extend_from_slice(node);
    let mut message = append(&message, AuthenticationKind::MobileHome, &mobile_home());
    message.extend_from_slice(agent);
    message
}

fn granted(actions: &[Action]) -> Encapsulation {
    match actions.iter().find_map(|action| match action {
        Action::InstallVisitor(state) => Some(state.encapsulation),
        _ => None,
    }) {
        Some(encapsulation) => encapsulation,
        None => panic!("no visitor in {actions:?}"),
    }
}

fn udp_request(forced: bool) -> Vec<u8> {
    bytes(Extension::UdpTunnelRequest(UdpTunnelRequest {
        forced,
        registration_required: false,
        encapsulation: Some(IpProtocol::IP_IN_IP),
        reserved: 0,
    }))
}

// Shows 3024-4.2.1-a.
#[test]
fn a_visitor_may_ask_for_what_the_foreign_agent_has_and_gets_what_was_granted() {
    let (none, m, g) = (RequestFlags::default(), RequestFlags::MINIMAL, RequestFlags::GRE);
    let (minimal, gre) = (EncapsulationSet::MINIMAL, EncapsulationSet::GRE);
    for (allowed, flags, expected) in [
        (minimal, none, Ok(Encapsulation::IpInIp)),
        (minimal, m, Ok(Encapsulation::Minimal)),
        (minimal, g, Err(72)),
        (gre, g, Ok(Encapsulation::Gre { key: None })),
        (gre, m, Err(72)),
        (gre, m.with(g), Err(72)),
        (EncapsulationSet::ALL, m.with(g), Ok(Encapsulation::Gre { key: None })),
    ] {
        let mut world = World::foreign(|config| {
            config.tunnels.encapsulations = allowed;
            config.gre_keys = false;
        });
        let asked = asking(&mut world, flags);
        let message = sign(&asked);
        let actions = world.visit(&message);
        let Ok(expected) = expected else {
            assert_eq!(Err(denied(&actions)), expected, "{flags:?}");
            continue;
        };
        assert_eq!(relayed_bytes(&actions), message, "as it came");
        let actions = world.answer(&accepting(&asked, &[], &[]));
        assert_eq!(granted(&actions), expected, "{flags:?}");
        assert_eq!(world.pass(50_000), [], "nothing to keep alive");
    }
}

/// A node with a co-located care-of address decapsulates itself.
// Shows 3519-4.5-a.
#[test]
fn what_a_co_located_node_asks_for_is_its_own_business() {
    let mut world = World::foreign(|config| {
        config.tunnels.encapsulations = EncapsulationSet::IP_IN_IP;
        config.udp_tunnel = UdpTunnelling::Forced;
    });
    let flags = RequestFlags::CO_LOCATED.with(RequestFlags::GRE);
    let asked =
        RegistrationRequest { flags, care_of_address: CO_LOCATED, ..request(world.timestamp()) };
    let message = sign(&asked);
    assert_eq!(relayed_bytes(&world.visit(&message)), message, "nothing is added");
}

/// RFC 6245 §4.1: in every request, deregistrations too.
#[test]
fn gre_keys_are_asked_for_and_used() {
    let mut world = World::foreign(|_| {});
    for lifetime in [60, 60, 0] {
        let mut asked = asking(&mut world, RequestFlags::GRE);
        asked.lifetime = Lifetime(lifetime);
        let message = sign(&asked);
        let relayed = relayed_bytes(&world.visit(&message));
        assert_eq!(relayed, [message, bytes(Extension::GreKey(0))].concat());
        let reply = accepting(&asked, &[], &bytes(Extension::GreKey(77)));
        let actions = world.answer(&reply);
        if lifetime > 0 {
            assert_eq!(granted(&actions), Encapsulation::Gre { key: Some(77) });
        }
        // What is the foreign agent's goes no further.
        let relayed = udp(transmits(&actions)[0]).2;
        assert_eq!(relayed, &reply[..reply.len() - 8]);
    }
}

/// RFC 3519 §4.5: behind the node's authentication and in front of its own.
// Shows 3519-4.5-b, 3519-4.5-c, 3519-4.5-d.
#[test]
fn behind_a_nat_it_asks_for_a_udp_tunnel_under_its_own_signature() {
    for (udp_tunnel, forced) in [(UdpTunnelling::On, false), (UdpTunnelling::Forced, true)] {
        let mut world = World::foreign(|config| {
            config.udp_tunnel = udp_tunnel;
            config.security.insert_agent(HOME_AGENT, foreign_home());
        });
        let asked = asking(&mut world, RequestFlags::MINIMAL);
        let message = [sign(&asked), udp_request(forced)].concat();
        let message = append(&message, AuthenticationKind::ForeignHome, &foreign_home());
        assert_eq!(relayed_bytes(&world.visit(&sign(&asked))), message);
        let reply = accepting(&asked, &[], &assent(forced));
        let reply = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
        let actions = world.answer(&reply);
        assert_eq!(granted(&actions), Encapsulation::Udp { peer_port: 434 });
        // A deregistration carries none.
        let mut asked = asking(&mut world, RequestFlags::default());
        asked.lifetime = Lifetime::ZERO;
        let message = sign(&asked);
        assert_eq!(relayed_bytes(&world.visit(&message)), message);
    }
}

// Shows 3519-4.7-a.
#[test]
fn an_answer_that_nobody_signed_or_that_declines_makes_no_udp_tunnel() {
    let declined =
        bytes(Extension::UdpTunnelReply(UdpTunnelReply { code: 64, ..Default::default() }));
    for (name, udp_tunnel, before, behind, expected) in [
        ("declined", UdpTunnelling::On, declined, vec![], Encapsulation::Minimal),
        ("not signed", UdpTunnelling::On, vec![], assent(false), Encapsulation::Minimal),
        ("not asked for", UdpTunnelling::Off, assent(false), vec![], Encapsulation::Minimal),
        ("none", UdpTunnelling::On, vec![], vec![], Encapsulation::Minimal),
        ("assent", UdpTunnelling::On, assent(false), vec![], Encapsulation::Udp { peer_port: 434 }),
    ] {
        let mut world = World::foreign(|config| {
            config.udp_tunnel = udp_tunnel;
            config.security.insert_agent(HOME_AGENT, foreign_home());
        });
        let asked = asking(&mut world, RequestFlags::MINIMAL);
        world.visit(&sign(&asked));
        let reply = accepting(&asked, &[], &before);
        let mut reply = append(&reply, AuthenticationKind::ForeignHome, &foreign_home());
        reply.extend(behind);
        assert_eq!(granted(&world.answer(&reply)), expected, "{name}");
    }
}

/// RFC 3519 §4.5.
// Shows 3519-4.5-e, 3519-4.5-f.
#[test]
fn behind_a_nat_a_visitor_without_reverse_tunnel_gets_75() {
    let mut world = World::foreign(|config| config.udp_tunnel = UdpTunnelling::On);
    let asked = request(world.timestamp());
    assert_eq!(denied(&world.visit(&sign(&asked))), 75);
    let asked = asking(&mut world, RequestFlags::default());
    assert_eq!(relayed_bytes(&world.visit(&sign(&asked))).len(), sign(&asked).len() + 8);
}

/// RFC 3519 §4.9: an echo request from the visitor to its home agent, in the UDP
/// tunnel, at the interval that was granted.
// Shows 3519-4.9-a, 3519-4.9-b, 3519-4.9-c, 3519-4.10-b.
#[test]
fn a_visitors_tunnel_is_kept_alive_while_it_visits() {
    for (told, interval) in [(30, 30_000), (0, 110_000), (3, 10_000)] {
        let mut world = World::foreign(|config| {
            config.udp_tunnel = UdpTunnelling::On;
            config.max_lifetime = Lifetime(36_000);
        });
        let mut asked = asking(&mut world, RequestFlags::default());
        asked.lifetime = Lifetime(3_600);
        world.visit(&sign(&asked));
        let answer = UdpTunnelReply { keepalive: told, ..Default::default() };
        let answer = bytes(Extension::UdpTunnelReply(answer));
        world.answer(&accepting(&asked, &[], &answer));
        let begun = world.millis;
        let sent = world.pass(3 * interval);
        assert_eq!(sent.len(), 3, "{told}");
        for (index, (at, action)) in (1..).zip(&sent) {
            assert_eq!(at - begun, index * interval);
            let packet = transmits(core::slice::from_ref(action))[0];
            assert_eq!((packet.source, packet.destination), (FOREIGN, HOME_AGENT));
            let (source_port, destination_port, data) = udp(packet);
            assert_eq!((source_port, destination_port, &data[..4]), (434, 434, &[4, 4, 0, 0][..]));
            let inner = Ipv4Packet::new_checked(&data[4..]).unwrap();
            let header = inner.header();
            assert_eq!((header.source(), header.destination()), (NODE, HOME_AGENT));
            let icmp = Icmpv4Packet::new_checked(inner.payload()).unwrap();
            assert_eq!(icmp.header().message_type, ECHO_REQUEST);
        }
        assert_eq!(world.counters().keepalives_sent, 3);
        // It ends with the visit.
        let mut asked = asking(&mut world, RequestFlags::default());
        asked.lifetime = Lifetime::ZERO;
        world.visit(&sign(&asked));
        world.answer(&accepting(&asked, &[], &[]));
        assert_eq!(world.pass(3 * interval), []);
    }
}

/// RFC 3519 §3.4: flag U, and M and G (RFC 5944 §2.1.1).
// Shows 3519-3.4-a, 3519-3.4-b.
#[test]
fn what_is_offered_is_advertised() {
    let (minimal, gre) = (EncapsulationSet::MINIMAL, EncapsulationSet::GRE);
    for (encapsulations, udp_tunnel, flags) in [
        (EncapsulationSet::IP_IN_IP, false, 0x1100),
        (minimal, false, 0x1900),
        (gre, false, 0x1500),
        (EncapsulationSet::ALL, true, 0x1d80),
    ] {
        let mut config = advertiser_config();
        (config.encapsulations, config.udp_tunnel) = (encapsulations, udp_tunnel);
        let advertisers = vec![config];
        let mut world = World::new(AgentConfig { advertisers, ..AgentConfig::default() });
        world.agent.handle_timeout(world.now());
        let actions = world.drain();
        let homeport_proto::Payload::Icmp(icmp) = &transmits(&actions)[0].payload else { panic!() };
        let advertisement =
            homeport_proto::message::AgentAdvertisement::parse(icmp).unwrap().mobility.unwrap();
        assert_eq!(advertisement.flags.0, flags);
    }
}
