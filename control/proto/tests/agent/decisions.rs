//! Why a message was decided as it was: each cause by a real message. (B-08, B-11)

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use homeport_proto::config::{
    EncapsulationSet, ForeignAgentConfig, HomeAgentConfig, MobileNetwork, NatTraversal, Prefix,
    Profile,
};
use homeport_proto::decision::{Answer, Cause, Decision, Judge, Silence, Standing, Subject};
use homeport_proto::event::Event;
use homeport_proto::message::{
    AuthenticationKind, Extension, MobileNetworkRequest, RegistrationRequest, ReplyCode,
    RequestFlags, RevocationAcknowledgement, UdpTunnelRequest,
};
use homeport_proto::security::Spi;
use homeport_proto::{Action, Datagram, Lifetime, MacAddress, Payload, Transmit};
use homeport_wire::IpProtocol;

use crate::decisions_of_agents;
use crate::foreign_agent::icmp_error;
use crate::named_visitors;
use crate::support::*;
use crate::tunnels::{NAT, PRIVATE, UDP, co_located, from, signed};

/// The only decision among the actions. What it says was said is what was sent.
pub(crate) fn decided(actions: &[Action]) -> Decision {
    let decisions: Vec<Decision> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Event(Event::Decision(decision)) => Some(*decision),
            _ => None,
        })
        .collect();
    let [decision] = decisions.try_into().unwrap_or_else(|all| panic!("one decision: {all:?}"));
    let is_udp = |sent: &&Transmit| matches!(sent.payload, Payload::Udp { .. });
    let sent = transmits(actions).into_iter().filter(is_udp);
    let sent: Vec<&[u8]> = sent.map(|sent| udp(sent).2).collect();
    match decision.ruling.answer {
        Answer::Replied { code, lifetime } => {
            let reply = parse_reply(sent[0]).body;
            assert_eq!((reply.code, reply.lifetime), (code, lifetime));
            let denied = decision.ruling.cause.code();
            assert!(denied.is_none_or(|denied| denied == code), "{decision:?}");
        }
        Answer::Relayed => assert_eq!(sent[0][0], RegistrationRequest::TYPE),
        Answer::Acknowledged => assert_eq!(sent[0][0], RevocationAcknowledgement::TYPE),
        Answer::Silent(_) => assert!(sent.is_empty(), "{decision:?}"),
    }
    decision
}

fn home(configure: fn(&mut HomeAgentConfig), ask: fn(&mut RegistrationRequest)) -> Decision {
    let mut world = World::home(configure);
    let mut asked = request(world.timestamp());
    ask(&mut asked);
    decided(&world.relay(FOREIGN, &sign(&asked)))
}

fn foreign(configure: fn(&mut ForeignAgentConfig), ask: fn(&mut RegistrationRequest)) -> Decision {
    let mut world = World::foreign(configure);
    let mut asked = request(world.timestamp());
    ask(&mut asked);
    decided(&world.visit(&sign(&asked)))
}

fn build_home(
    configure: fn(&mut HomeAgentConfig),
    build: fn(&RegistrationRequest) -> Vec<u8>,
) -> Decision {
    let mut world = World::home(configure);
    let message = build(&request(world.timestamp()));
    decided(&world.relay(FOREIGN, &message))
}

fn build_foreign(
    configure: fn(&mut ForeignAgentConfig),
    build: fn(&RegistrationRequest) -> Vec<u8>,
) -> Decision {
    let mut world = World::foreign(configure);
    let message = build(&request(world.timestamp()));
    decided(&world.visit(&message))
}

fn through_nat(
    configure: fn(&mut HomeAgentConfig),
    ask: fn(&mut RegistrationRequest),
    udp: Option<UdpTunnelRequest>,
) -> Decision {
    let mut world = World::home(configure);
    let mut asked = co_located(&mut world, PRIVATE);
    ask(&mut asked);
    let extensions: Vec<_> = udp.map(Extension::UdpTunnelRequest).into_iter().collect();
    decided(&world.send(&from(NAT, 40_000, &signed(&asked, &extensions))))
}

/// A decision on a datagram that is changed on its way to the home agent.
fn datagram(change: fn(&mut Datagram<'_>)) -> Decision {
    let mut world = World::home(|_| {});
    let message = sign(&request(world.timestamp()));
    let mut datagram = relayed(FOREIGN, &message);
    change(&mut datagram);
    decided(&world.send(&datagram))
}

/// The second of two requests, `seconds` older or newer than the first, at a clock that
/// was stepped by `step`.
fn second(seconds: i64, step: i64) -> Decision {
    let mut world = World::home(|_| {});
    world.millis += 60_000;
    let first = request(world.timestamp());
    the_code(&world.relay(FOREIGN, &sign(&first)));
    world.step = step;
    let mut asked = first;
    asked.identification.0 = asked.identification.0.wrapping_add_signed(seconds << 32);
    decided(&world.relay(FOREIGN, &sign(&asked)))
}

/// What a foreign agent makes of a reply, or of its absence.
fn reply(
    configure: fn(&mut ForeignAgentConfig),
    answer: fn(&mut World, &RegistrationRequest) -> Vec<Action>,
) -> Decision {
    let mut world = World::foreign(configure);
    let asked = request(world.timestamp());
    assert_eq!(decided(&world.visit(&sign(&asked))).ruling.cause, Cause::Relayed);
    decided(&answer(&mut world, &asked))
}

fn unreachable(code: u8) -> Decision {
    let mut world = World::foreign(|_| {});
    let asked = sign(&request(world.timestamp()));
    let actions = world.visit(&asked);
    let relayed = udp(transmits(&actions)[0]).2.to_vec();
    let error = icmp_error(3, code, &relayed, relayed.len());
    world.agent.handle_unreachable(TENANT, ROUTER, &error, world.now());
    decided(&world.drain())
}

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);

fn with_foreign_home(config: &mut HomeAgentConfig) {
    config.security.insert_agent(FOREIGN, foreign_home());
}

fn with_home_agent(config: &mut ForeignAgentConfig) {
    config.security.insert_agent(HOME_AGENT, foreign_home());
}

fn with_visitors_key(config: &mut ForeignAgentConfig) {
    config.security.insert_mobile_node(NODE, mobile_foreign());
}

fn spoiled(mut bytes: Vec<u8>) -> Vec<u8> {
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

fn rfc2002(config: &mut HomeAgentConfig) {
    config.profile = Profile::Rfc2002;
}

fn no_nat(config: &mut HomeAgentConfig) {
    config.nat.traversal = NatTraversal::Off;
}

fn one_more_visitor(configure: fn(&mut ForeignAgentConfig), home_agent: Ipv4Addr) -> Decision {
    let mut world = World::foreign(configure);
    let asked = request(world.timestamp());
    world.visit(&sign(&asked));
    world.answer(&reply_to(&asked, ReplyCode::ACCEPTED, 60));
    let mut other = request(world.timestamp());
    other.home_agent = home_agent;
    let message = sign(&other);
    let mac = MacAddress([2, 0, 0, 0, 0, 0x77]);
    decided(&world.send(&Datagram { source_mac: mac, ..visiting(&message) }))
}

/// A cause, and a message that leads to it.
pub(crate) type Case = (Cause, fn() -> Decision);

/// One for each cause.
const CASES: &[Case] = &[
    (Cause::Accepted, || home(|_| {}, |_| {})),
    (Cause::Deregistered, || home(|_| {}, |asked| asked.lifetime = Lifetime::ZERO)),
    (Cause::Repeated, || {
        let (mut world, message) = nonces();
        the_code_under(&world.relay(FOREIGN, &message), &mobile_home_nonces());
        decided(&world.relay(FOREIGN, &message))
    }),
    (Cause::Relayed, || foreign(|_| {}, |_| {})),
    (Cause::NoAgentHere, || datagram(|datagram| datagram.destination = STRANGER)),
    (Cause::BadSource, || datagram(|datagram| datagram.source_port = 0)),
    (Cause::OwnAddress, || datagram(|datagram| datagram.source = HOME_AGENT)),
    (Cause::RateLimited, || {
        let mut world = World::home(|_| {});
        world.agent.set_messages_per_second(1, world.now());
        let message = sign(&request(world.timestamp()));
        the_code(&world.relay(FOREIGN, &message));
        decided(&world.relay(FOREIGN, &message))
    }),
    (Cause::Truncated, || build_home(|_| {}, |asked| [sign(asked), vec![0; 1_024]].concat())),
    (Cause::UnexpectedReply, || {
        build_home(|_| {}, |asked| reply_to(asked, ReplyCode::ACCEPTED, 60))
    }),
    (Cause::UnknownNode, || home(|_| {}, |asked| asked.home_address = STRANGER)),
    (Cause::UnknownSpi, || build_home(|_| {}, |asked| sign_with(asked, &mobile_foreign()))),
    (Cause::WrongKey, || build_home(|_| {}, |asked| spoiled(sign(asked)))),
    (Cause::TwoSignatures, || {
        build_home(rfc2002, |asked| {
            append(&sign(asked), AuthenticationKind::MobileHome, &mobile_home())
        })
    }),
    (Cause::Unsigned, || build_home(|_| {}, |asked| asked.emit().to_vec())),
    (Cause::UnsignedDenied, || build_home(rfc2002, |asked| asked.emit().to_vec())),
    (Cause::UnsupportedAuthentication, || {
        build_home(
            |_| {},
            |asked| {
                let authenticator = &[1; 16];
                signed(
                    asked,
                    &[Extension::GeneralizedAuthentication {
                        subtype: 1,
                        spi: Spi(300),
                        authenticator,
                    }],
                )
            },
        )
    }),
    (Cause::UnknownForeignAgentSpi, || {
        build_home(
            |_| {},
            |asked| append(&sign(asked), AuthenticationKind::ForeignHome, &foreign_home()),
        )
    }),
    (Cause::WrongForeignAgentKey, || {
        build_home(with_foreign_home, |asked| {
            spoiled(append(&sign(asked), AuthenticationKind::ForeignHome, &foreign_home()))
        })
    }),
    (Cause::ForeignAgentUnsigned, || home(with_foreign_home, |_| {})),
    (Cause::ForeignAgentNotTrusted, || {
        home(|config| config.require_foreign_home_authentication = true, |_| {})
    }),
    (Cause::ClockOff, || home(|_| {}, |asked| asked.identification.0 += 60 << 32)),
    (Cause::Replayed, || second(0, 0)),
    (Cause::OutOfOrder, || second(-1, 0)),
    (Cause::MarkAhead, || second(-4, -5)),
    (Cause::BeforeStart, || home(|_| {}, |asked| asked.identification.0 -= 3 << 32)),
    (Cause::NonceMismatch, || {
        let mut world = World::home(|_| {});
        let mut asked = request(world.timestamp());
        asked.home_address = NONCE_NODE;
        decided(&world.relay(FOREIGN, &sign_with(&asked, &mobile_home_nonces())))
    }),
    (Cause::UnknownExtension, || {
        build_home(|_| {}, |asked| [asked.emit().to_vec(), vec![99, 0]].concat())
    }),
    (Cause::Malformed, || {
        build_home(|_| {}, |asked| [asked.emit().to_vec(), vec![131, 9]].concat())
    }),
    (Cause::BrokenExtensions, || build_home(|_| {}, |asked| [sign(asked), vec![131, 9]].concat())),
    (Cause::ReservedFlags, || home(|_| {}, |asked| asked.flags = RequestFlags::RESERVED_X)),
    (Cause::MisplacedExtension, || {
        through_nat_with(&[Extension::UdpTunnelRequest(UDP), Extension::UdpTunnelRequest(UDP)])
    }),
    (Cause::BadTunnelRequest, || {
        through_nat(|_| {}, |_| {}, Some(UdpTunnelRequest { reserved: 1, ..UDP }))
    }),
    (Cause::ImpossibleCareOfAddress, || {
        home(|_| {}, |asked| asked.care_of_address = Ipv4Addr::BROADCAST)
    }),
    (Cause::WrongHomeAgent, || home(|_| {}, |asked| asked.home_agent = STRANGER)),
    (Cause::Discovery, || {
        let mut world = World::home(|_| {});
        let mut asked = request(world.timestamp());
        asked.home_agent = Ipv4Addr::BROADCAST;
        let message = sign(&asked);
        let destination = Ipv4Addr::new(10, 1, 0, 255);
        decided(&world.send(&Datagram { destination, ..relayed(FOREIGN, &message) }))
    }),
    (Cause::OutsideHomeNetworks, || home(|_| {}, |asked| asked.home_address = STRAY_NODE)),
    (Cause::Prohibited, || home(|config| config.administratively_prohibited = true, |_| {})),
    (Cause::CareOfAddressAtHome, || home(|_| {}, |asked| asked.care_of_address = OTHER_NODE)),
    (Cause::NatNotTraversed, || through_nat(no_nat, |_| {}, Some(UDP))),
    (Cause::ForcedUdpNotAllowed, || {
        let mut world = World::home(|_| {});
        let asked = co_located(&mut world, CO_LOCATED);
        let udp = UdpTunnelRequest { forced: true, ..UDP };
        let message = signed(&asked, &[Extension::UdpTunnelRequest(udp)]);
        decided(&world.send(&from(CO_LOCATED, 40_000, &message)))
    }),
    (Cause::TableFull, || home(|config| config.max_bindings = 0, |_| {})),
    (Cause::TooManyCareOfAddresses, || {
        let mut world = World::home(|config| config.max_simultaneous = 2);
        let mut last = None;
        for number in 1..=3 {
            let mut asked = request(world.timestamp());
            asked.flags = RequestFlags::SIMULTANEOUS;
            asked.care_of_address = Ipv4Addr::new(10, 0, 9, number);
            last = Some(decided(&world.relay(FOREIGN, &sign(&asked))));
        }
        last.unwrap()
    }),
    (Cause::ReverseTunnelRefused, || {
        home(
            |config| config.reverse_tunnel = false,
            |asked| asked.flags = RequestFlags::REVERSE_TUNNEL,
        )
    }),
    (Cause::ReverseTunnelMandatory, || home(|config| config.require_reverse_tunnel = true, |_| {})),
    (Cause::ReverseTunnelForProof, || {
        through_nat(|_| {}, |asked| asked.flags = RequestFlags::CO_LOCATED, Some(UDP))
    }),
    (Cause::EncapsulationRefused, || home(plain_tunnels, |asked| asked.flags = RequestFlags::GRE)),
    (Cause::UdpRefused, || through_nat(plain_tunnels, |_| {}, Some(UDP))),
    (Cause::UdpEncapsulationUnknown, || {
        let encapsulation = Some(IpProtocol::GRE);
        through_nat(|_| {}, |_| {}, Some(UdpTunnelRequest { encapsulation, ..UDP }))
    }),
    (Cause::ChallengeGiven, || {
        through_nat(|config| config.nat.traversal = NatTraversal::Challenge, |_| {}, None)
    }),
    (Cause::NoMobileNetwork, || names_networks(true)),
    (Cause::NotMobileRouter, || names_networks(false)),
    (Cause::StationUnknown, || {
        let mut world = World::foreign(|_| {});
        let message = sign(&request(world.timestamp()));
        let source_mac = MacAddress::BROADCAST;
        decided(&world.send(&Datagram { source_mac, ..visiting(&message) }))
    }),
    (Cause::Duplicate, || {
        let mut world = World::foreign(|_| {});
        let message = sign(&request(world.timestamp()));
        world.visit(&message);
        decided(&world.visit(&message))
    }),
    (Cause::VisitorWrongKey, || {
        build_foreign(with_visitors_key, |asked| {
            spoiled(append(&sign(asked), AuthenticationKind::MobileForeign, &mobile_foreign()))
        })
    }),
    (Cause::VisitorUnsigned, || foreign(with_visitors_key, |_| {})),
    (Cause::VisitorNotTrusted, || {
        foreign(|config| config.require_mobile_foreign_authentication = true, |_| {})
    }),
    (Cause::VisitorReservedFlags, || {
        foreign(|_| {}, |asked| asked.flags = RequestFlags::RESERVED_X)
    }),
    (Cause::HeaderCompression, || {
        foreign(
            |config| config.profile = Profile::Rfc2002,
            |asked| asked.flags = RequestFlags::RESERVED_R,
        )
    }),
    (Cause::NoHomeAddress, || foreign(|_| {}, |asked| asked.home_address = Ipv4Addr::BROADCAST)),
    (Cause::VisitorUnsignedForHome, || build_foreign(|_| {}, |asked| asked.emit().to_vec())),
    (Cause::VisitorBrokenExtensions, || {
        build_foreign(|_| {}, |asked| [sign(asked), vec![131, 9]].concat())
    }),
    (Cause::DeliveryWithoutReverseTunnel, || {
        build_foreign(|_| {}, |asked| [sign(asked), vec![130, 0]].concat())
    }),
    (Cause::VisitorProhibited, || {
        foreign(|config| config.administratively_prohibited = true, |_| {})
    }),
    (Cause::AddressTaken, || one_more_visitor(|_| {}, STRANGER)),
    (Cause::InvalidHomeAgent, || foreign(|_| {}, |asked| asked.home_agent = FOREIGN)),
    (Cause::InvalidCareOfAddress, || foreign(|_| {}, |asked| asked.care_of_address = STRANGER)),
    (Cause::LifetimeTooLong, || foreign(|_| {}, |asked| asked.lifetime = Lifetime(301))),
    (Cause::VisitorEncapsulationRefused, || {
        foreign(
            |config| config.tunnels.encapsulations = EncapsulationSet::IP_IN_IP,
            |asked| asked.flags = RequestFlags::GRE,
        )
    }),
    (Cause::VisitorReverseTunnelRefused, || {
        foreign(
            |config| config.reverse_tunnel = false,
            |asked| asked.flags = RequestFlags::REVERSE_TUNNEL,
        )
    }),
    (Cause::VisitorReverseTunnelMandatory, || {
        foreign(|config| config.require_reverse_tunnel = true, |_| {})
    }),
    (Cause::DeliveryStyleRefused, || {
        build_foreign(
            |config| config.encapsulating_delivery = false,
            |asked| {
                let asked = RegistrationRequest { flags: RequestFlags::REVERSE_TUNNEL, ..*asked };
                [sign(&asked), vec![130, 0]].concat()
            },
        )
    }),
    (Cause::TooDistant, || {
        let mut world = World::foreign(|_| {});
        let mut asked = request(world.timestamp());
        asked.flags = RequestFlags::REVERSE_TUNNEL;
        let message = sign(&asked);
        decided(&world.send(&Datagram { ttl: 254, ..visiting(&message) }))
    }),
    (Cause::VisitorsFull, || foreign(|config| config.max_visitors = 0, |_| {})),
    (Cause::PendingFull, || foreign(|config| config.max_pending = 0, |_| {})),
    (Cause::PendingOfNodeFull, || foreign(|config| config.max_pending_per_node = 0, |_| {})),
    (Cause::HomeAgentDenied, || {
        reply(|_| {}, |world, asked| world.answer(&reply_to(asked, ReplyCode::HA_PROHIBITED, 0)))
    }),
    (Cause::HomeAgentSilent, || {
        reply(|_| {}, |world, _| world.pass(7_000).into_iter().map(|(_, action)| action).collect())
    }),
    (Cause::HomeNetworkUnreachable, || unreachable(0)),
    (Cause::HomeAgentHostUnreachable, || unreachable(1)),
    (Cause::HomeAgentPortUnreachable, || unreachable(3)),
    (Cause::HomeAgentUnreachable, || unreachable(2)),
    (Cause::ReplyWrongKey, || {
        reply(with_home_agent, |world, asked| {
            world.answer(&reply_to(asked, ReplyCode::ACCEPTED, 60))
        })
    }),
    (Cause::ReplyMalformed, || {
        reply(
            |_| {},
            |world, asked| {
                let bytes = reply_to(asked, ReplyCode::ACCEPTED, 60);
                world.answer(&bytes[..20])
            },
        )
    }),
    (Cause::NotPending, || {
        reply(
            |_| {},
            |world, asked| {
                let mut other = *asked;
                other.identification.0 ^= 1;
                world.answer(&reply_to(&other, ReplyCode::ACCEPTED, 60))
            },
        )
    }),
    (Cause::ReplyOfAnother, || {
        reply(
            |_| {},
            |world, asked| {
                let other = RegistrationRequest { home_agent: STRANGER, ..*asked };
                world.answer(&reply_to(&other, ReplyCode::ACCEPTED, 60))
            },
        )
    }),
];

/// Causes that no message leads to, and why there they are.
const UNREACHABLE: &[(Cause, &str)] = &[(
    Cause::LinkNotServed,
    "requests from links that a foreign agent does not serve are never handed to it; it looks \
     again because it could not answer on such a link",
)];

fn through_nat_with(extensions: &[Extension<'_>]) -> Decision {
    let mut world = World::home(|_| {});
    let asked = co_located(&mut world, PRIVATE);
    decided(&world.send(&from(NAT, 40_000, &signed(&asked, extensions))))
}

/// A home agent, and a request of a node with nonces that are in step.
fn nonces() -> (World, Vec<u8>) {
    let nonces = mobile_home_nonces();
    let mut world = World::home(|_| {});
    let mut asked = request(world.timestamp());
    asked.home_address = NONCE_NODE;
    let actions = world.relay(FOREIGN, &sign_with(&asked, &nonces));
    asked.identification = the_reply(&actions).identification;
    asked.identification.0 ^= 0xff;
    (world, sign_with(&asked, &nonces))
}

fn names_networks(is_router: bool) -> Decision {
    let mut world = World::home(|config| {
        let prefix = Prefix::new(Ipv4Addr::new(10, 9, 0, 0), 24).unwrap();
        let mobile_router = if is_router { NODE } else { OTHER_NODE };
        config.mobile_networks = vec![MobileNetwork { mobile_router, prefix }];
    });
    let asked = request(world.timestamp());
    let prefix = Ipv4Addr::new(10, 8, 0, 0);
    let wanted = Extension::MobileNetworkRequest(MobileNetworkRequest { prefix_len: 24, prefix });
    decided(&world.relay(FOREIGN, &signed(&asked, &[wanted])))
}

#[test]
fn every_cause_is_reached_by_a_real_message() {
    let mut reached: BTreeMap<Cause, u32> = BTreeMap::new();
    let others = decisions_of_agents::CASES.iter().chain(named_visitors::CASES);
    for (cause, run) in CASES.iter().chain(others).chain(crate::sessions::CASES) {
        let decision = run();
        assert_eq!(decision.ruling.cause, *cause, "{decision:?}");
        assert_eq!(decision.tenant, TENANT, "{cause:?}");
        *reached.entry(*cause).or_default() += 1;
    }
    for cause in Cause::ALL {
        let reason = UNREACHABLE.iter().find(|(other, _)| other == cause);
        let cases = reached.get(cause).copied().unwrap_or(0);
        assert_eq!(cases, u32::from(reason.is_none()), "{cause:?}: {reason:?}");
    }
}

/// What an operator is told of a request: all of it, and never a key.
#[test]
fn a_decision_has_what_came_who_judged_it_by_what_and_what_was_said() {
    let mut world = World::home(with_foreign_home);
    let mut asked = request(world.timestamp());
    asked.flags = RequestFlags::REVERSE_TUNNEL;
    let message = append(&sign(&asked), AuthenticationKind::ForeignHome, &foreign_home());
    let decision = decided(&world.relay(FOREIGN, &message));
    assert_eq!(
        (decision.judge, decision.subject),
        (Judge::HomeAgent(HOME_AGENT), Subject::Request)
    );
    assert_eq!((decision.source, decision.source_port, decision.port), (FOREIGN, 434, CORE));
    assert_eq!(decision.request, asked);
    let ruling = decision.ruling;
    assert_eq!((ruling.standing, ruling.clock_offset), (Standing::Authentic, Some(0)));
    assert_eq!(ruling.association, Some((mobile_home().spi, mobile_home().algorithm)));
    let lifetime = Lifetime(60);
    assert_eq!(ruling.answer, Answer::Replied { code: ReplyCode::ACCEPTED, lifetime });
    let seen = decision.extensions;
    assert_eq!(seen.spi(AuthenticationKind::MobileHome), Some(Spi(256)));
    assert_eq!(seen.spi(AuthenticationKind::ForeignHome), Some(Spi(300)));
    assert_eq!(seen.spi(AuthenticationKind::MobileForeign), None);
    let names: Vec<_> = seen.names().collect();
    assert_eq!(names, ["mobile-home authentication", "foreign-home authentication"]);
    assert!(!decision.is_through_nat() && !decision.is_co_located());
}

#[test]
fn a_clock_that_is_off_is_told_with_its_sign() {
    for offset in [60i64, -60, 3_600, 8, -8] {
        let mut world = World::home(|_| {});
        world.millis += 4_000_000;
        let mut asked = request(world.timestamp());
        asked.identification.0 = asked.identification.0.wrapping_add_signed(offset << 32);
        let ruling = decided(&world.relay(FOREIGN, &sign(&asked))).ruling;
        assert_eq!(ruling.cause, Cause::ClockOff);
        assert_eq!(ruling.clock_offset.map(i64::from), Some(offset));
        let side = if offset > 0 { "ahead of" } else { "behind" };
        let sentence = format!("The node's clock is {} s {side} the home agent's.", offset.abs());
        assert_eq!(ruling.sentence().to_string(), sentence);
    }
}

#[test]
fn a_nat_is_seen_by_the_outer_source_alone() {
    let decision = through_nat(|_| {}, |_| {}, Some(UDP));
    assert!(decision.is_through_nat() && decision.extensions.asks_udp_tunnel());
    assert_eq!((decision.source, decision.request.care_of_address), (NAT, PRIVATE));
    let direct = home(|_| {}, |_| {});
    assert!(!direct.is_through_nat());
    let mut world = World::home(|_| {});
    let mut back = request(world.timestamp());
    (back.lifetime, back.care_of_address) = (Lifetime::ZERO, NODE);
    assert!(!decided(&world.send(&direct_from_home(&sign(&back)))).is_through_nat());
}

fn direct_from_home(payload: &[u8]) -> Datagram<'_> {
    Datagram { destination: HOME_AGENT, ..crate::support::direct(NODE, payload) }
}

/// What is remembered of a node depends on who can have sent it.
#[test]
fn a_standing_tells_what_anybody_can_send_from_what_only_the_node_can() {
    let standing = |cause: Cause| {
        let (_, run) = CASES.iter().find(|(other, _)| *other == cause).unwrap();
        run().ruling.standing
    };
    for (cause, expected) in [
        (Cause::UnknownNode, Standing::Unknown),
        (Cause::NoAgentHere, Standing::Unknown),
        (Cause::RateLimited, Standing::Unknown),
        (Cause::UnknownSpi, Standing::Claimed),
        (Cause::WrongKey, Standing::Claimed),
        (Cause::Unsigned, Standing::Claimed),
        (Cause::ClockOff, Standing::Copied),
        (Cause::Replayed, Standing::Copied),
        (Cause::TableFull, Standing::Authentic),
        (Cause::Accepted, Standing::Authentic),
        (Cause::Relayed, Standing::Unknown),
        (Cause::VisitorWrongKey, Standing::Claimed),
        (Cause::HomeAgentDenied, Standing::Claimed),
    ] {
        assert_eq!(standing(cause), expected, "{cause:?}");
    }
}

#[test]
fn a_silence_says_why() {
    let silence = |decision: Decision| match decision.ruling.answer {
        Answer::Silent(why) => why,
        other => panic!("{other:?}"),
    };
    let unknown = home(|_| {}, |asked| asked.home_address = STRANGER);
    assert_eq!(silence(unknown), Silence::NotOwed);
    let forged = |source, source_port, build: fn(&RegistrationRequest) -> Vec<u8>| {
        let mut world = World::home(|_| {});
        let message = spoiled(build(&request(world.timestamp())));
        decided(&world.send(&from(source, source_port, &message)))
    };
    assert_eq!(silence(forged(STRANGER, 434, sign)), Silence::FromServer);
    // A request that is shorter than its denial, which RFC 2002 would answer.
    let short = |asked: &RegistrationRequest| {
        let mut bytes = sign(asked);
        bytes.truncate(24 + 8);
        bytes[25] = 6;
        bytes
    };
    assert_eq!(silence(forged(FOREIGN, 434, short)), Silence::Longer);
    let mut world = World::home(|_| {});
    for expected in [false, true] {
        let message = spoiled(sign(&request(world.timestamp())));
        let answer = decided(&world.relay(FOREIGN, &message)).ruling.answer;
        assert_eq!(answer == Answer::Silent(Silence::Rationed), expected, "{answer:?}");
    }
    let distrusted = build_home(with_foreign_home, |asked| spoiled(sign(asked)));
    assert_eq!(silence(distrusted), Silence::ForeignAgentDistrusted);
}
