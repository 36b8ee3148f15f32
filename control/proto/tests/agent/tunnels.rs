//! How a home agent negotiates tunnels: flags M and G, GRE keys, UDP (RFC 5944
//! §3.8.3, RFC 6245, RFC 3519 §4.6). Row B-04.

use core::net::Ipv4Addr;

use homeport_proto::config::{EncapsulationSet, HomeAgentConfig, NatTraversal};
use homeport_proto::message::{
    AuthenticationKind, Extension, MessageWriter, RegistrationRequest, RequestFlags,
    UdpTunnelReply, UdpTunnelRequest,
};
use homeport_proto::{Action, Datagram, Encapsulation, Lifetime};
use homeport_wire::IpProtocol;

use super::support::*;

/// What a node behind a NAT calls its own address: half the world does.
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// The NAT's outside.
pub(crate) const NAT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

pub(crate) const UDP: UdpTunnelRequest = UdpTunnelRequest {
    forced: false,
    registration_required: false,
    encapsulation: None,
    reserved: 0,
};

/// A co-located node's request.
pub(crate) fn co_located(world: &mut World, care_of_address: Ipv4Addr) -> RegistrationRequest {
    RegistrationRequest {
        flags: RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL),
        care_of_address,
        ..request(world.timestamp())
    }
}

/// The request with extensions of the node, signed.
pub(crate) fn signed(request: &RegistrationRequest, extensions: &[Extension<'_>]) -> Vec<u8> {
    let mut writer = MessageWriter::request(request);
    for extension in extensions {
        writer.extension(extension).unwrap();
    }
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    writer.finish()
}

/// Extensions of a foreign agent behind what the node has signed.
fn behind(message: &[u8], extensions: &[Extension<'_>]) -> Vec<u8> {
    let mut writer = MessageWriter::relay(message);
    for extension in extensions {
        writer.extension(extension).unwrap();
    }
    writer.finish()
}

/// What comes to the home agent from a NAT's outside.
pub(crate) fn from(source: Ipv4Addr, source_port: u16, payload: &[u8]) -> Datagram<'_> {
    Datagram { source_port, ..relayed(source, payload) }
}

/// The reply among the actions: its code, the extensions in front of the
/// mobile-home authentication, and those behind it. Its authenticators are right.
pub(crate) struct Reply {
    pub(crate) code: u8,
    pub(crate) node: Vec<u8>,
    pub(crate) agent: Vec<u8>,
    pub(crate) to: (Ipv4Addr, u16),
}

pub(crate) fn reply(actions: &[Action]) -> Reply {
    let packet = transmits(actions)[0];
    let (source_port, port, data) = udp(packet);
    assert_eq!(source_port, 434);
    let received = parse_reply(data);
    assert_eq!(received.defect(), None);
    let signature = *received.mobile_home_authentication().expect("it is signed");
    assert!(received.verify(&signature, &mobile_home()));
    let bytes_of = |from: usize, to: usize| {
        let mut bytes = Vec::new();
        for located in received.extensions() {
            if (from..to).contains(&located.offset)
                && located.extension.authentication_kind().is_none()
            {
                located.extension.emit(&mut bytes).unwrap();
            }
        }
        bytes
    };
    Reply {
        code: received.body.code.0,
        node: bytes_of(0, signature.offset),
        agent: bytes_of(signature.end, data.len()),
        to: (packet.destination, port),
    }
}

pub(crate) fn bytes(extension: Extension<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    extension.emit(&mut bytes).unwrap();
    bytes
}

pub(crate) fn assent(forced: bool) -> Vec<u8> {
    bytes(Extension::UdpTunnelReply(UdpTunnelReply { code: 0, forced, keepalive: 110 }))
}

fn declined() -> Vec<u8> {
    bytes(Extension::UdpTunnelReply(UdpTunnelReply { code: 64, forced: false, keepalive: 0 }))
}

fn no_questions(config: &mut HomeAgentConfig) {
    config.nat.path_validation = false;
}

// Shows 3024-4.3.1-a.
#[test]
fn flags_m_and_g_choose_the_encapsulation_that_is_allowed_or_get_139() {
    let (ip, minimal, gre) =
        (EncapsulationSet::IP_IN_IP, EncapsulationSet::MINIMAL, EncapsulationSet::GRE);
    let (m, g) = (RequestFlags::MINIMAL, RequestFlags::GRE);
    let keyless = Encapsulation::Gre { key: None };
    for (allowed, flags, expected) in [
        (ip, RequestFlags::default(), Ok(Encapsulation::IpInIp)),
        (EncapsulationSet::ALL, RequestFlags::default(), Ok(Encapsulation::IpInIp)),
        (ip, m, Err(139)),
        (gre, m, Err(139)),
        (minimal, m, Ok(Encapsulation::Minimal)),
        (ip, g, Err(139)),
        (minimal, g, Err(139)),
        (gre, g, Ok(keyless)),
        // Both: whichever is there.
        (ip, m.with(g), Err(139)),
        (minimal, m.with(g), Ok(Encapsulation::Minimal)),
        (gre, m.with(g), Ok(keyless)),
        (EncapsulationSet::ALL, m.with(g), Ok(keyless)),
    ] {
        let mut world = World::home(|config| config.tunnels.encapsulations = allowed);
        let asked = RegistrationRequest { flags, ..request(world.timestamp()) };
        let actions = world.relay(FOREIGN, &sign(&asked));
        let granted = installed(&actions).first().map(|one| one.encapsulation);
        let code = reply(&actions).code;
        assert_eq!(granted.ok_or(code), expected, "{allowed:?} {flags:?}");
    }
}

/// RFC 6245 §4.2.
#[test]
fn a_gre_key_is_a_request_for_gre_and_is_granted_in_the_place_of_the_asker() {
    let mut world = World::home(|_| {});
    let asked = request(world.timestamp());
    let key = |key| Extension::GreKey(key);
    let message = behind(&sign(&asked), &[key(77)]);
    let actions = world.relay(FOREIGN, &message);
    assert_eq!(installed(&actions)[0].encapsulation, Encapsulation::Gre { key: Some(77) });
    let answer = reply(&actions);
    assert_eq!((answer.code, answer.node, answer.agent), (0, Vec::new(), bytes(key(77))));
    // A co-located node's own.
    let asked = co_located(&mut world, CO_LOCATED);
    let actions = world.send(&direct(CO_LOCATED, &signed(&asked, &[key(78)])));
    assert_eq!(installed(&actions)[0].encapsulation, Encapsulation::Gre { key: Some(78) });
    assert_eq!(reply(&actions).node, bytes(key(78)));
}

/// RFC 6245 §4.2: zero asks for a key of ours; it stays at a renewal.
#[test]
fn a_key_of_zero_is_replaced_by_one_that_a_renewal_keeps() {
    let mut world = World::home(|_| {});
    let granted = |world: &mut World, care_of_address| {
        let asked = RegistrationRequest { care_of_address, ..request(world.timestamp()) };
        let message = behind(&sign(&asked), &[Extension::GreKey(0)]);
        let actions = world.relay(care_of_address, &message);
        let Encapsulation::Gre { key: Some(key) } = installed(&actions)[0].encapsulation else {
            panic!("GRE with a key")
        };
        assert_eq!(reply(&actions).agent, bytes(Extension::GreKey(key)));
        key
    };
    let first = granted(&mut world, FOREIGN);
    assert_ne!(first, 0);
    assert_eq!(granted(&mut world, FOREIGN), first);
    assert_ne!(granted(&mut world, STRANGER), first);
}

#[test]
fn a_gre_key_where_there_is_no_gre_gets_139_and_a_second_one_134() {
    let mut world = World::home(|config| config.tunnels.encapsulations = EncapsulationSet::MINIMAL);
    let key = Extension::GreKey(1);
    let asked = RegistrationRequest { flags: RequestFlags::MINIMAL, ..request(world.timestamp()) };
    assert_eq!(reply(&world.relay(FOREIGN, &behind(&sign(&asked), &[key]))).code, 139);
    let asked = request(world.timestamp());
    let twice = behind(&signed(&asked, &[key]), &[key]);
    assert_eq!(reply(&world.relay(FOREIGN, &twice)).code, 134);
}

/// RFC 3519 §4.6: the outer source is the effective care-of address, and its port
/// the tunnel's; the reply goes to where the request came from.
// Shows 3519-4.6-a, 3519-4.6-b, 3519-4.6-c, 3519-4.6-e.
#[test]
fn a_node_behind_a_nat_gets_a_udp_tunnel_to_the_nat() {
    let mut world = World::home(no_questions);
    let asked = co_located(&mut world, PRIVATE);
    let message = signed(&asked, &[Extension::UdpTunnelRequest(UDP)]);
    let actions = world.send(&from(NAT, 61_001, &message));
    let answer = reply(&actions);
    assert_eq!((answer.code, answer.to), (0, (NAT, 61_001)));
    assert_eq!((answer.node, answer.agent), (assent(false), Vec::new()));
    let care_of = installed(&actions)[0];
    assert_eq!((care_of.address, care_of.registered), (NAT, PRIVATE));
    assert_eq!(care_of.encapsulation, Encapsulation::Udp { peer_port: 61_001 });
    assert!(care_of.co_located && care_of.reverse_tunnel && !care_of.unproven);
    let binding = world.agent.bindings().next().unwrap();
    assert_eq!(binding.registrations[0].foreign_agent, None);
    assert_eq!(binding.registrations[0].keepalive.unwrap().as_secs(), 110);
}

/// RFC 3519 §4.6: declined where it is not needed, and not mentioned to who did
/// not ask.
// Shows 3519-4.6-d, 3519-4.6-k, 3519-4.6-l.
#[test]
fn without_a_nat_the_udp_tunnel_is_declined_and_m_and_g_decide() {
    let mut world = World::home(|_| {});
    let mut asked = co_located(&mut world, CO_LOCATED);
    asked.flags = asked.flags.with(RequestFlags::GRE);
    let gre_in_udp = UdpTunnelRequest { encapsulation: Some(IpProtocol::GRE), ..UDP };
    let message = signed(&asked, &[Extension::UdpTunnelRequest(gre_in_udp)]);
    let actions = world.send(&direct(CO_LOCATED, &message));
    let answer = reply(&actions);
    assert_eq!((answer.code, answer.node), (0, declined()));
    let care_of = installed(&actions)[0];
    assert_eq!(care_of.encapsulation, Encapsulation::Gre { key: None });
    assert_eq!((care_of.address, care_of.registered), (CO_LOCATED, CO_LOCATED));
    let asked = co_located(&mut world, CO_LOCATED);
    let answer = reply(&world.send(&direct(CO_LOCATED, &sign(&asked))));
    assert_eq!((answer.code, answer.node), (0, Vec::new()));
}

/// RFC 3519 §3.1.1, §4.6.1.
// Shows 3519-3.1.1-a, 3519-3.1.1-b, 3519-4.6.1-b.
#[test]
fn flag_f_forces_a_udp_tunnel_where_that_is_allowed_and_gets_129_elsewhere() {
    let forced = [Extension::UdpTunnelRequest(UdpTunnelRequest { forced: true, ..UDP })];
    for (allowed, code) in [(true, 0), (false, 129)] {
        let mut world = World::home(|config| config.nat.forced_udp = allowed);
        let asked = co_located(&mut world, CO_LOCATED);
        let actions = world.send(&direct(CO_LOCATED, &signed(&asked, &forced)));
        let answer = reply(&actions);
        assert_eq!(answer.code, code);
        let tunnel = installed(&actions).first().map(|one| (one.encapsulation, one.unproven));
        // The address is the signed one: there is nothing to prove.
        let udp = Encapsulation::Udp { peer_port: 40_001 };
        assert_eq!(tunnel, allowed.then_some((udp, false)));
        assert_eq!(answer.node, if allowed { assent(true) } else { Vec::new() });
        // Where there is a NAT nothing needs to be forced.
        let asked = co_located(&mut world, PRIVATE);
        let answer = reply(&world.send(&from(NAT, 61_001, &signed(&asked, &forced))));
        assert_eq!((answer.code, answer.node), (0, assent(allowed)));
    }
}

/// RFC 3519 §4.1: what is asked for is granted or gets 142, and what M and G would
/// mean in UDP too. 142 also where UDP is not allowed at all.
// Shows 3519-4.1-d, 3519-4.6.1-f.
#[test]
fn an_encapsulation_that_udp_does_not_have_here_gets_142() {
    let all = EncapsulationSet::ALL;
    let (none, m, g) = (RequestFlags::default(), RequestFlags::MINIMAL, RequestFlags::GRE);
    for (allowed, flags, encapsulation, code) in [
        (all, none, None, 0),
        (all, none, Some(IpProtocol::IP_IN_IP), 0),
        (all, m.with(g), Some(IpProtocol::IP_IN_IP), 0),
        (all, none, Some(IpProtocol::GRE), 142),
        (all, none, Some(IpProtocol::MINIMAL), 142),
        (all, none, Some(IpProtocol::TCP), 142),
        (all, m, None, 142),
        (all, g, None, 142),
        (EncapsulationSet::IP_IN_IP, none, None, 142),
    ] {
        let mut world = World::home(|config| {
            no_questions(config);
            config.tunnels.encapsulations = allowed;
        });
        let mut asked = co_located(&mut world, PRIVATE);
        asked.flags = asked.flags.with(flags);
        let udp = UdpTunnelRequest { encapsulation, ..UDP };
        let message = signed(&asked, &[Extension::UdpTunnelRequest(udp)]);
        let actions = world.send(&from(NAT, 61_001, &message));
        assert_eq!(reply(&actions).code, code, "{flags:?} {encapsulation:?}");
        assert_eq!(installed(&actions).len(), usize::from(code == 0));
    }
}

/// RFC 3519 §4.6.1, reliability row 4.
// Shows 3519-4.6.1-c, 3519-4.6.1-d, 3519-4.6.1-e, attack-4.
#[test]
fn a_udp_tunnel_request_in_the_wrong_place_gets_134() {
    let udp = Extension::UdpTunnelRequest(UDP);
    let reserved = Extension::UdpTunnelRequest(UdpTunnelRequest { reserved: 1, ..UDP });
    let through_agent =
        Extension::UdpTunnelRequest(UdpTunnelRequest { registration_required: true, ..UDP });
    let d = RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL);
    let t = RequestFlags::REVERSE_TUNNEL;
    type Case<'a> = (&'a str, RequestFlags, &'a [Extension<'a>], &'a [Extension<'a>], u8);
    let cases: [Case<'_>; 9] = [
        ("the node's, with D", d, &[udp], &[], 0),
        ("the node's, without D", t, &[udp], &[], 134),
        ("the agent's, without D", t, &[], &[udp], 0),
        ("the agent's, with D", d, &[], &[udp], 134),
        ("the node's, Reserved 3", d, &[reserved], &[], 134),
        ("the agent's, Reserved 3", t, &[], &[reserved], 134),
        ("the agent's, with R", t, &[], &[through_agent], 134),
        ("two of the node's", d, &[udp, udp], &[], 134),
        ("one of each", d, &[udp], &[udp], 134),
    ];
    for (name, flags, node, agent, code) in cases {
        let mut world = World::home(no_questions);
        let asked = RegistrationRequest { flags, ..co_located(&mut world, PRIVATE) };
        let message = behind(&signed(&asked, node), agent);
        let actions = world.send(&from(NAT, 61_001, &message));
        assert_eq!(reply(&actions).code, code, "{name}");
        assert_eq!(installed(&actions).len(), usize::from(code == 0), "{name}");
    }
    // A deregistration is never refused for what it carries beside.
    let mut world = World::home(no_questions);
    let mut asked = co_located(&mut world, PRIVATE);
    (asked.flags, asked.lifetime) = (t, Lifetime::ZERO);
    let message = signed(&asked, &[udp, reserved]);
    assert_eq!(reply(&world.send(&from(NAT, 61_001, &message))).code, 0);
}

/// Reliability row 4: behind the foreign-home authentication nothing is signed.
// Shows attack-4.
#[test]
fn an_extension_behind_every_authentication_gets_134() {
    let mut world = World::home(|config| {
        no_questions(config);
        config.security.insert_agent(NAT, foreign_home());
    });
    for extension in [Extension::UdpTunnelRequest(UDP), Extension::GreKey(9)] {
        for (outside, code) in [(false, 0), (true, 134)] {
            let mut asked = co_located(&mut world, PRIVATE);
            asked.flags = RequestFlags::REVERSE_TUNNEL;
            let message = if outside {
                let message =
                    append(&sign(&asked), AuthenticationKind::ForeignHome, &foreign_home());
                behind(&message, &[extension])
            } else {
                let message = behind(&sign(&asked), &[extension]);
                append(&message, AuthenticationKind::ForeignHome, &foreign_home())
            };
            assert_eq!(reply(&world.send(&from(NAT, 434, &message))).code, code);
        }
    }
}

/// RFC 3519 §4.5: the agent's extension, the agent's tunnel, and the answer where
/// the agent reads it.
// Shows 5944-3.5.4-b, 3519-4.6-a, 3519-4.6-e.
#[test]
fn a_foreign_agent_behind_a_nat_gets_the_answer_behind_the_nodes_authentication() {
    let mut world = World::home(|config| {
        no_questions(config);
        config.security.insert_agent(NAT, foreign_home());
    });
    let mut asked = co_located(&mut world, PRIVATE);
    asked.flags = RequestFlags::REVERSE_TUNNEL;
    let message = behind(&sign(&asked), &[Extension::UdpTunnelRequest(UDP)]);
    let message = append(&message, AuthenticationKind::ForeignHome, &foreign_home());
    let actions = world.send(&from(NAT, 50_434, &message));
    let answer = reply(&actions);
    assert_eq!((answer.code, answer.to), (0, (NAT, 50_434)));
    assert_eq!((answer.node, answer.agent), (Vec::new(), assent(false)));
    let care_of = installed(&actions)[0];
    assert_eq!(care_of.encapsulation, Encapsulation::Udp { peer_port: 50_434 });
    assert_eq!((care_of.address, care_of.co_located), (NAT, false));
    let binding = world.agent.bindings().next().unwrap();
    assert_eq!(binding.registrations[0].foreign_agent, Some(NAT));
    // The foreign-home authentication covers the answer.
    let data = udp(transmits(&actions)[0]).2;
    let received = parse_reply(data);
    let last = received.extensions().last().unwrap();
    assert!(received.verify(last, &foreign_home()));
}

/// `nat_traversal = "off"`: like a home agent that does not know the extension,
/// but that a NAT or flag F is refused (RFC 3519 §4.6.1).
// Shows 3519-4.6.1-a.
#[test]
fn where_nat_traversal_is_off_a_nat_gets_129_and_nothing_else_changes() {
    let mut world = World::home(|config| config.nat.traversal = NatTraversal::Off);
    let udp = Extension::UdpTunnelRequest(UDP);
    let asked = co_located(&mut world, PRIVATE);
    assert_eq!(reply(&world.send(&from(NAT, 61_001, &signed(&asked, &[udp])))).code, 129);
    let asked = co_located(&mut world, CO_LOCATED);
    let forced = Extension::UdpTunnelRequest(UdpTunnelRequest { forced: true, ..UDP });
    assert_eq!(reply(&world.send(&direct(CO_LOCATED, &signed(&asked, &[forced])))).code, 129);
    let asked = co_located(&mut world, CO_LOCATED);
    let actions = world.send(&direct(CO_LOCATED, &signed(&asked, &[udp])));
    let answer = reply(&actions);
    assert_eq!((answer.code, answer.node), (0, Vec::new()));
    assert_eq!(installed(&actions)[0].encapsulation, Encapsulation::IpInIp);
}

/// The registered address behind a NAT may be anybody's; where the tunnel goes may
/// not (reliability row 15).
// Shows attack-15.
#[test]
fn a_private_care_of_address_may_be_shared_and_may_look_like_a_home_address() {
    let mut world = World::home(no_questions);
    let udp = [Extension::UdpTunnelRequest(UDP)];
    let at_home = Ipv4Addr::new(10, 1, 0, 99);
    for (node, registered, port) in
        [(NODE, PRIVATE, 61_001), (OTHER_NODE, PRIVATE, 61_002), (OTHER_NODE, at_home, 61_003)]
    {
        let mut asked = co_located(&mut world, registered);
        asked.home_address = node;
        let actions = world.send(&from(NAT, port, &signed(&asked, &udp)));
        assert_eq!(reply(&actions).code, 0);
        assert_eq!(installed(&actions)[0].encapsulation, Encapsulation::Udp { peer_port: port });
    }
    assert_eq!(world.agent.bindings().count(), 2);
    for (registered, source, code) in [
        (Ipv4Addr::new(127, 0, 0, 1), NAT, 134),
        (Ipv4Addr::new(224, 0, 0, 1), NAT, 134),
        (NODE, NAT, 129),
        (PRIVATE, at_home, 129),
    ] {
        let asked = co_located(&mut world, registered);
        let actions = world.send(&from(source, 61_009, &signed(&asked, &udp)));
        assert_eq!(reply(&actions).code, code, "{registered} from {source}");
    }
}

/// A renewal may come from another port or address: the mapping was lost, and
/// there is one tunnel, the new one.
#[test]
fn a_renewal_moves_the_tunnel_to_where_it_comes_from() {
    let mut world = World::home(no_questions);
    let udp = [Extension::UdpTunnelRequest(UDP)];
    let moved = Ipv4Addr::new(198, 51, 100, 4);
    for (source, port) in [(NAT, 61_001), (NAT, 61_002), (moved, 61_002)] {
        let mut asked = co_located(&mut world, PRIVATE);
        asked.flags = asked.flags.with(RequestFlags::SIMULTANEOUS);
        let actions = world.send(&from(source, port, &signed(&asked, &udp)));
        let tunnels = installed(&actions);
        assert_eq!(tunnels.len(), 1);
        assert_eq!(tunnels[0].address, source);
        assert_eq!(tunnels[0].encapsulation, Encapsulation::Udp { peer_port: port });
    }
}

/// RFC 3519 §4.7: simultaneous bindings may be tunnelled in different ways. Each
/// is deregistered by the address that the node knows.
#[test]
fn simultaneous_bindings_mix_udp_with_others_and_are_deregistered_by_their_own_address() {
    let mut world = World::home(no_questions);
    let udp = [Extension::UdpTunnelRequest(UDP)];
    let mut asked = co_located(&mut world, PRIVATE);
    world.send(&from(NAT, 61_001, &signed(&asked, &udp)));
    asked = co_located(&mut world, CO_LOCATED);
    asked.flags = asked.flags.with(RequestFlags::SIMULTANEOUS);
    let actions = world.send(&direct(CO_LOCATED, &signed(&asked, &udp)));
    let kinds: Vec<_> = installed(&actions).iter().map(|one| one.encapsulation).collect();
    assert_eq!(kinds, [Encapsulation::Udp { peer_port: 61_001 }, Encapsulation::IpInIp]);
    // From another port than ever, and answered there.
    asked = RegistrationRequest { lifetime: Lifetime::ZERO, ..co_located(&mut world, PRIVATE) };
    let actions = world.send(&from(NAT, 61_777, &sign(&asked)));
    assert_eq!((reply(&actions).code, reply(&actions).to), (0, (NAT, 61_777)));
    let left: Vec<_> = installed(&actions).iter().map(|one| one.registered).collect();
    assert_eq!(left, [CO_LOCATED]);
}
