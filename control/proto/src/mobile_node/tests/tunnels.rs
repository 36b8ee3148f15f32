//! How the tunnel is asked for, granted, denied and kept alive: B-04, S3-31,
//! S3-42, RFC 3519 §4.4, §4.9, §4.10.

use super::*;
use crate::Encapsulation;
use crate::config::PreferredEncapsulation;
use crate::message::{Extension, Message, RequestFlags, UdpTunnelReply, UdpTunnelRequest};
use homeport_wire::IpProtocol;
use homeport_wire::icmpv4::{ECHO_REPLY, Icmpv4Header};
use zerocopy::IntoBytes;

const UDP: Encapsulation = Encapsulation::Udp { peer_port: 434 };
const PLAIN_UDP: Encapsulation = Encapsulation::PlainUdp { peer_port: 434 };
const ASSENT: Extension<'_> =
    Extension::UdpTunnelReply(UdpTunnelReply { code: 0, forced: false, keepalive: 60 });

fn prefers(encapsulation: PreferredEncapsulation, nat_traversal: bool) -> MobileNodeConfig {
    MobileNodeConfig { encapsulation, nat_traversal, lifetime: Lifetime(1000), ..config() }
}

/// A node that has asked for a registration by its own address.
fn by_itself(config: MobileNodeConfig) -> World {
    let mut world = World::up(config);
    world.pass(50);
    world.co_located();
    world
}

/// A node that is registered by itself through a NAT.
fn behind_nat() -> World {
    let mut world = by_itself(prefers(PreferredEncapsulation::IpInIp, true));
    world.answer(ReplyCode::ACCEPTED, 1000, &[ASSENT]);
    assert_eq!(world.encapsulation(), Some(UDP));
    world
}

/// The UDP tunnel request and the challenge in a request; both must stand where
/// the mobile-home authentication covers them.
fn asked(sent: &Sent) -> (Option<UdpTunnelRequest>, Option<Vec<u8>>) {
    let Message::Request(request) = Message::parse(&sent.send.bytes).unwrap() else { panic!() };
    let last = request.extensions().last().unwrap();
    assert!(request.verify(last, &with_home_agent()), "the authentication comes last");
    let mut found = (None, None);
    for located in request.extensions() {
        match located.extension {
            Extension::UdpTunnelRequest(udp) => found.0 = Some(udp),
            Extension::Challenge(challenge) => found.1 = Some(challenge.to_vec()),
            _ => {}
        }
    }
    found
}

impl World {
    /// The home agent's reply to the last request, with these extensions.
    fn answer(&mut self, code: ReplyCode, lifetime: u16, extensions: &[Extension<'_>]) {
        let mut writer = MessageWriter::reply(&self.last().reply(code, lifetime));
        for extension in extensions {
            writer.extension(extension).unwrap();
        }
        writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
        self.receive(&writer.finish());
    }

    fn encapsulation(&self) -> Option<Encapsulation> {
        match self.node.attachment() {
            Attachment::CoLocated { encapsulation, .. }
            | Attachment::ForeignAgent { encapsulation, .. } => Some(*encapsulation),
            _ => None,
        }
    }

    /// When keepalives were sent, and what they were.
    fn keepalives(&self) -> Vec<(u64, Vec<u8>)> {
        let keepalive = |(at, action): &(u64, MobileNodeAction)| match action {
            MobileNodeAction::SendKeepalive { icmp } => Some((*at, icmp.clone())),
            _ => None,
        };
        self.log.iter().filter_map(keepalive).collect()
    }

    /// The home agent answers the last keepalive, as long as it is ours.
    fn answer_keepalive(&mut self) {
        let (_, request) = self.keepalives().pop().unwrap();
        let rest = *request[4..].first_chunk().unwrap();
        let reply = Icmpv4Header::new(ECHO_REPLY, 0, rest, &[]);
        assert!(self.node.is_keepalive_answer(reply.as_bytes()));
        self.input(|node, _| node.handle_tunnel_received());
    }
}

/// B-04: flags M and G, only of agents that say that they take them.
// Shows 5944-3.6.1.2-g, 3519-4.4-a.
#[test]
fn an_encapsulation_is_asked_of_agents_that_advertise_it() {
    let rows = [
        (PreferredEncapsulation::Minimal, AgentFlags::MINIMAL, RequestFlags::MINIMAL),
        (PreferredEncapsulation::Gre, AgentFlags::GRE, RequestFlags::GRE),
    ];
    for (wanted, advertised, flag) in rows {
        for offered in [AgentFlags::MINIMAL, AgentFlags::GRE] {
            let mut world = World::up(prefers(wanted, true));
            let mut agent = Advertised::foreign(FIRST);
            agent.flags = agent.flags.with(offered);
            world.hear(&agent);
            assert_eq!(world.last().body.flags.contains(flag), offered == advertised);
            assert_eq!(asked(&world.last()), (None, None), "RFC 3519 §4.4: never through an agent");
            world.accept(100);
            let granted = match world.last().body.flags {
                flags if flags.contains(RequestFlags::MINIMAL) => Encapsulation::Minimal,
                flags if flags.contains(RequestFlags::GRE) => Encapsulation::Gre { key: None },
                _ => Encapsulation::IpInIp,
            };
            assert_eq!(world.encapsulation(), Some(granted));
        }
    }
}

/// B-04: with a co-located address as configured, and IP in UDP for a NAT.
// Shows 3519-3.1.1-c, 3519-3.1.5-a, 3519-3.1.5-b, 3519-4.4-b.
#[test]
fn by_itself_the_node_asks_as_configured_and_says_that_udp_would_do() {
    let rows = [
        (PreferredEncapsulation::IpInIp, RequestFlags::default(), None, Encapsulation::IpInIp),
        (
            PreferredEncapsulation::Minimal,
            RequestFlags::MINIMAL,
            Some(IpProtocol::IP_IN_IP),
            Encapsulation::Minimal,
        ),
        (
            PreferredEncapsulation::Gre,
            RequestFlags::GRE,
            Some(IpProtocol::IP_IN_IP),
            Encapsulation::Gre { key: None },
        ),
    ];
    for (wanted, flags, encapsulation, granted) in rows {
        let mut world = by_itself(prefers(wanted, true));
        let common = RequestFlags::CO_LOCATED.with(RequestFlags::REVERSE_TUNNEL);
        assert_eq!(world.last().body.flags, common.with(flags));
        let request = UdpTunnelRequest { encapsulation, ..Default::default() };
        assert_eq!(asked(&world.last()), (Some(request), None));
        // No NAT: the home agent declines, or knows nothing of it.
        let declined = UdpTunnelReply { code: 64, ..Default::default() };
        world.answer(ReplyCode::ACCEPTED, 100, &[Extension::UdpTunnelReply(declined)]);
        assert_eq!(world.encapsulation(), Some(granted));
        assert_eq!(world.node.keepalive_interval(), None);
        assert!(!world.node.registration().unwrap().nat);
    }
    let world = by_itself(prefers(PreferredEncapsulation::IpInIp, false));
    assert_eq!(asked(&world.last()), (None, None));
}

/// RFC 6245: the home agent's key is used.
#[test]
fn a_key_that_the_home_agent_grants_is_the_tunnels() {
    let mut world = by_itself(prefers(PreferredEncapsulation::Gre, true));
    world.answer(ReplyCode::ACCEPTED, 100, &[Extension::GreKey(7)]);
    assert_eq!(world.encapsulation(), Some(Encapsulation::Gre { key: Some(7) }));
}

/// RFC 3519 §3.2, §4.4: assent is UDP; nothing, or what nobody signed, is not.
// Shows 3519-4.4-c, 3519-4.6-m, 3519-4.7-a.
#[test]
fn only_a_signed_assent_makes_a_udp_tunnel() {
    let mut world = behind_nat();
    assert_eq!(world.node.keepalive_interval(), Some(Duration::from_secs(60)));
    assert!(world.node.registration().unwrap().nat);
    assert!(world.events().contains(&MobileNodeEvent::NatFound { encapsulation: UDP }));
    // A renewal without it ends the UDP tunnel.
    world.pass(500_000);
    world.answer(ReplyCode::ACCEPTED, 1000, &[]);
    assert_eq!(world.encapsulation(), Some(Encapsulation::IpInIp));

    let mut world = by_itself(prefers(PreferredEncapsulation::IpInIp, true));
    let mut writer = MessageWriter::reply(&world.last().reply(ReplyCode::ACCEPTED, 100));
    writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
    writer.extension(&ASSENT).unwrap();
    world.receive(&writer.finish());
    assert_eq!(world.encapsulation(), Some(Encapsulation::IpInIp));

    // Nor one that was not asked for.
    let mut world = by_itself(prefers(PreferredEncapsulation::IpInIp, false));
    world.answer(ReplyCode::ACCEPTED, 100, &[ASSENT]);
    assert_eq!(world.encapsulation(), Some(Encapsulation::IpInIp));
}

/// RFC 3519 §3.1.1, §4.6.1: F, and what is done when the home agent forces none.
// Shows 3519-3.2-c.
#[test]
fn a_forced_tunnel_that_is_prohibited_is_asked_for_without_force() {
    let mut world = by_itself(prefers(PreferredEncapsulation::Udp, true));
    assert!(asked(&world.last()).0.unwrap().forced);
    let forced = Extension::UdpTunnelReply(UdpTunnelReply { code: 0, forced: true, keepalive: 0 });
    let mut granted = by_itself(prefers(PreferredEncapsulation::Udp, true));
    granted.answer(ReplyCode::ACCEPTED, 100, &[forced]);
    assert_eq!(granted.encapsulation(), Some(UDP));
    assert!(!granted.node.registration().unwrap().nat, "forced is not found");
    assert_eq!(granted.node.keepalive_interval(), Some(DEFAULT_KEEPALIVE));

    world.deny(ReplyCode::HA_PROHIBITED);
    assert_eq!(asked(&world.last()).0, Some(UdpTunnelRequest::default()));
    assert_eq!(world.last().at, world.now, "at once");
    // Without F the same code is final: it waits as after any denial.
    let count = world.requests().len();
    world.deny(ReplyCode::HA_PROHIBITED);
    world.pass(1_900);
    assert_eq!(world.requests().len(), count);
}

/// B-04: codes 72, 139, 142 and 134.
#[test]
fn what_is_denied_is_given_up_until_the_link_changes() {
    let minimal = prefers(PreferredEncapsulation::Minimal, true);
    let flags = |world: &World| world.last().body.flags.contains(RequestFlags::MINIMAL);
    let udp = |world: &World| asked(&world.last()).0.is_some();

    let mut world = by_itself(minimal.clone());
    assert!(flags(&world));
    world.deny(ReplyCode::HA_ENCAPSULATION_UNAVAILABLE);
    assert!(!flags(&world) && udp(&world));
    world.accept(100);
    world.pass(46_000);
    assert!(world.requests().len() > 2 && !flags(&world), "and the renewal is the same");
    world.link(false);
    world.link(true);
    world.pass(50);
    world.co_located();
    assert!(flags(&world), "another link, another try");

    // First without M, then without UDP.
    let mut world = by_itself(minimal.clone());
    world.deny(ReplyCode::HA_UDP_ENCAPSULATION_UNAVAILABLE);
    assert!(!flags(&world) && udp(&world));
    world.deny(ReplyCode::HA_UDP_ENCAPSULATION_UNAVAILABLE);
    assert!(!flags(&world) && !udp(&world));

    let mut world = by_itself(minimal.clone());
    world.deny(ReplyCode::HA_POORLY_FORMED_REQUEST);
    assert!(flags(&world) && !udp(&world));

    let mut world = World::up(minimal);
    let mut agent = Advertised::foreign(FIRST);
    agent.flags = agent.flags.with(AgentFlags::MINIMAL);
    world.hear(&agent);
    assert!(flags(&world));
    world.deny(ReplyCode::FA_ENCAPSULATION_UNAVAILABLE);
    assert!(!flags(&world));
    assert_eq!(world.last().send.destination, FIRST, "the same agent");
}

#[test]
fn a_home_agent_that_denies_everything_is_not_stormed() {
    for code in [129, 134, 139, 142, 72, 131] {
        let mut world = by_itself(prefers(PreferredEncapsulation::Gre, true));
        for _ in 0..600 {
            let pending = world.requests().len();
            let reply = world.last().reply(ReplyCode(code), 0);
            world.receive(&signed(&reply));
            world.pass(100);
            assert!(world.requests().len() <= pending + 1);
        }
        // A minute: two corrections at once, then waits of 2, 4, 8 s and so on.
        assert!(world.requests().len() <= 10, "{code}: {}", world.requests().len());
    }
}

/// S3-31: a signed 131 with a challenge means a NAPT; the challenge comes back
/// signed, and then payload runs in plain UDP (S3-32, S3-42).
#[test]
fn a_challenge_is_answered_at_once_and_plain_udp_follows_and_is_kept() {
    let mut world = by_itself(prefers(PreferredEncapsulation::IpInIp, true));
    let code = ReplyCode::HA_MOBILE_NODE_FAILED_AUTHENTICATION;
    world.answer(code, 0, &[Extension::Challenge(b"prove it")]);
    assert_eq!(world.last().at, world.now);
    assert_eq!(asked(&world.last()).1.as_deref(), Some(&b"prove it"[..]));
    let next = Extension::Challenge(b"there is a NAT");
    world.answer(ReplyCode::ACCEPTED, 1000, &[next]);
    assert_eq!(world.encapsulation(), Some(PLAIN_UDP));
    assert!(world.node.registration().unwrap().nat);
    assert_eq!(world.node.keepalive_interval(), Some(DEFAULT_KEEPALIVE));
    // A renewal that needs no answer keeps the mode; one that does answers anew.
    for challenged in [false, true] {
        let count = world.requests().len();
        while world.requests().len() == count {
            world.pass(1_000);
            world.input(|node, _| node.handle_tunnel_received());
        }
        assert_eq!(asked(&world.last()).1, None, "a challenge is answered once");
        if challenged {
            world.answer(code, 0, &[Extension::Challenge(b"again")]);
            assert_eq!(asked(&world.last()).1.as_deref(), Some(&b"again"[..]));
        }
        world.answer(ReplyCode::ACCEPTED, 1000, &[next]);
        assert_eq!(world.encapsulation(), Some(PLAIN_UDP));
    }
    // A node that comes back to where it was known is told as well.
    world.link(false);
    world.link(true);
    world.pass(50);
    world.co_located();
    world.answer(ReplyCode::ACCEPTED, 100, &[next]);
    assert_eq!(world.encapsulation(), Some(PLAIN_UDP));
    // Elsewhere it begins without.
    world.link(false);
    world.link(true);
    world.pass(50);
    world.co_located();
    world.accept(100);
    assert_eq!(world.encapsulation(), Some(Encapsulation::IpInIp));
}

/// S3-31: who does not prove to be the home agent gets no answer.
#[test]
fn a_challenge_that_nobody_signed_is_not_answered() {
    let code = ReplyCode::HA_MOBILE_NODE_FAILED_AUTHENTICATION;
    let challenge = Extension::Challenge(b"prove it");
    let world = || by_itself(prefers(PreferredEncapsulation::IpInIp, true));
    let head = |world: &World| MessageWriter::reply(&world.last().reply(code, 0));

    let mut unsigned = world();
    let mut writer = head(&unsigned);
    writer.extension(&challenge).unwrap();
    unsigned.receive(&writer.finish());
    assert_eq!(unsigned.discards(), [DiscardReason::NoAuthentication]);

    let mut behind = world();
    let mut writer = head(&behind);
    writer.authenticate(AuthenticationKind::MobileHome, &with_home_agent());
    writer.extension(&challenge).unwrap();
    behind.receive(&writer.finish());

    let mut forged = world();
    let mut writer = head(&forged);
    writer.extension(&challenge).unwrap();
    writer.authenticate(
        AuthenticationKind::MobileHome,
        &MobilitySecurityAssociation { key: Key::new(vec![9; 16]), ..with_home_agent() },
    );
    forged.receive(&writer.finish());

    let mut off = by_itself(prefers(PreferredEncapsulation::IpInIp, false));
    off.answer(code, 0, &[challenge]);
    for world in [unsigned, behind, forged, off] {
        assert_eq!(world.requests().len(), 1);
    }
}

/// RFC 3519 §4.9: the interval is the home agent's, counted from what was sent.
// Shows 3519-3.2-a, 3519-3.2-b, 3519-4.9-b.
#[test]
fn a_tunnel_through_a_nat_is_kept_alive_when_nothing_else_is_sent() {
    let mut world = behind_nat();
    let start = world.last().at;
    world.pass(59_900);
    assert_eq!(world.keepalives(), []);
    world.pass(200);
    assert_eq!(world.keepalives()[0].0, start + 60_000);
    world.answer_keepalive();
    for _ in 0..200 {
        world.pass(1_000);
        world.input(|node, now| node.handle_tunnel_sent(now));
        world.input(|node, _| node.handle_tunnel_received());
    }
    assert_eq!(world.keepalives().len(), 1, "traffic does as well");
}

/// RFC 3519 §4.10: lost, registered anew at once, and a shorter interval, which a
/// move takes back.
// Shows 3519-4.10-a, 3519-4.10-b, 3519-4.10-c.
#[test]
fn a_lost_mapping_is_registered_anew_and_the_interval_shortened_here_only() {
    let mut world = behind_nat();
    let mut intervals = vec![];
    for _ in 0..4 {
        let (before, start) = (world.requests().len(), world.now);
        let interval = world.node.keepalive_interval().unwrap();
        while world.requests().len() == before {
            world.pass(100);
        }
        let after = Duration::from_millis(world.now - start);
        assert!(
            (interval + Duration::from_secs(3)).abs_diff(after).as_millis() <= 100,
            "{after:?}"
        );
        world.answer(ReplyCode::ACCEPTED, 1000, &[ASSENT]);
        intervals.push(world.node.keepalive_interval().unwrap().as_secs());
    }
    assert_eq!(intervals, [30, 15, 10, 10]);
    assert_eq!(world.attachments().len(), 1, "the attachment stayed all the time");
    world.link(false);
    world.link(true);
    world.pass(50);
    world.co_located();
    world.answer(ReplyCode::ACCEPTED, 1000, &[ASSENT]);
    assert_eq!(world.node.keepalive_interval(), Some(Duration::from_secs(60)));
}

/// A NAT that changes the port under traffic: nobody is idle, and nothing comes.
#[test]
fn traffic_that_brings_nothing_back_finds_a_rebinding_within_seconds() {
    let mut world = behind_nat();
    let (before, start) = (world.requests().len(), world.now);
    while world.requests().len() == before {
        world.pass(100);
        world.input(|node, now| node.handle_tunnel_sent(now));
    }
    assert!((10_000..=14_000).contains(&(world.now - start)), "{}", world.now - start);
    world.answer(ReplyCode::ACCEPTED, 1000, &[ASSENT]);
    assert_eq!(world.node.keepalive_interval(), Some(Duration::from_secs(60)));
}

#[test]
fn a_home_agent_that_is_gone_is_asked_no_more_often_than_by_any_registration() {
    let mut world = behind_nat();
    world.pass(300_000);
    // Three keepalives, then requests at intervals that double up to 16 s.
    assert_eq!(world.keepalives().len(), 3);
    assert!(world.requests().len() < 25, "{}", world.requests().len());
    world.answer(ReplyCode::ACCEPTED, 1000, &[ASSENT]);
    assert_eq!(world.encapsulation(), Some(UDP));
}

#[test]
fn a_stop_behind_a_nat_deregisters_as_it_registered() {
    let mut world = behind_nat();
    world.input(|node, now| node.handle_stop(now));
    let last = world.last();
    assert!(last.body.lifetime.is_zero() && asked(&last).0.is_some());
    let code = ReplyCode::HA_MOBILE_NODE_FAILED_AUTHENTICATION;
    world.answer(code, 0, &[Extension::Challenge(b"who?")]);
    assert!(asked(&world.last()).1.is_some());
    world.accept(0);
    assert!(world.did(&MobileNodeAction::Stopped));
}
