//! The mobile node against the real agents, in one process on one clock: the whole
//! tour, as bytes. B-01, B-02, B-03.

mod sessions;

use super::*;
use crate::Encapsulation;
use crate::action::CareOf;
use crate::action::{Action, Payload, Transmit};
use crate::agent::{Agent, Datagram};
use crate::config::{
    AdvertiserConfig, AgentConfig, ForeignAgentConfig, HomeAgentConfig, HomeNetwork, NatTraversal,
    Profile,
};
use crate::keepalive::TunnelledEcho;
use homeport_wire::icmpv4::{ECHO_REPLY, Icmpv4Header};
use homeport_wire::{Ipv4Packet, PortId, TenantId};
use zerocopy::IntoBytes;

const TENANT: TenantId = TenantId(0);
const CORE: PortId = PortId(0);
const LINK: PortId = PortId(1);
const NODE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 10]);

/// Where the node's cable leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// The link of the agent of this number: 0 is home.
    Of(usize),
    /// A link with DHCP and no agent.
    Dhcp,
}

/// The node, the agents and the clock.
struct Lab {
    world: World,
    network: Option<Network>,
    /// Home agent, first and second foreign agent.
    agents: [Agent; 3],
    /// Care-of addresses that the home agent has installed.
    binding: Vec<Ipv4Addr>,
    /// The same with all that belongs to them.
    tunnels: Vec<CareOf>,
    /// Where the home agent sees a node that is on the link with DHCP; `None`:
    /// where it is.
    nat: Option<(Ipv4Addr, u16)>,
    /// How far the agents' wall clocks are behind the node's.
    behind: Duration,
    handled: usize,
}

fn advertiser(address: Ipv4Addr, home_agent: bool) -> AdvertiserConfig {
    AdvertiserConfig {
        tenant: TENANT,
        port: LINK,
        address,
        prefix_len: 24,
        home_agent,
        care_of_addresses: if home_agent { vec![] } else { vec![care_of(address)] },
        registration_required: false,
        encapsulations: crate::config::EncapsulationSet::ALL,
        udp_tunnel: false,
        revocation: false,
        reverse_tunnel: true,
        registration_lifetime: Lifetime(300),
        interval: Duration::from_secs(1),
        unsolicited: true,
    }
}

fn home_process(replay: ReplayProtection) -> AgentConfig {
    let mut security = SecurityAssociations::default();
    security.insert_mobile_node(HOME, association(256, replay));
    let home_agent = HomeAgentConfig {
        tenant: TENANT,
        address: HOME_AGENT,
        home_networks: vec![HomeNetwork {
            prefix: Prefix::new(HOME, 24).unwrap(),
            link: Some(LINK),
        }],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_bindings: 10,
        max_simultaneous: 1,
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        administratively_prohibited: false,
        security,
        require_foreign_home_authentication: false,
        tunnels: crate::config::TunnelPolicy::default(),
        nat: crate::config::NatPolicy::default(),
        mobile_networks: Vec::new(),
        message_strings: false,
        revocation: false,
        assignment: crate::config::HomeAgentAssignment::default(),
        sessions: crate::config::SessionPolicy::default(),
    };
    AgentConfig {
        home_agents: vec![home_agent],
        foreign_agents: vec![],
        advertisers: vec![advertiser(HOME_GATEWAY, true)],
    }
}

fn foreign_process(address: Ipv4Addr) -> AgentConfig {
    let mut security = SecurityAssociations::default();
    security.insert_mobile_node(HOME, with_foreign_agent());
    let foreign_agent = ForeignAgentConfig {
        tenant: TENANT,
        care_of_address: care_of(address),
        links: vec![(LINK, address)],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(300),
        max_visitors: 10,
        max_pending_per_node: 5,
        max_sessions_per_nai: 0,
        requests_per_minute_per_nai: 0,
        session_insertion: crate::config::SessionInsertion::default(),
        max_pending: 10,
        pending_timeout: Duration::from_secs(7),
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        encapsulating_delivery: true,
        require_mobile_foreign_authentication: true,
        overlapping_addresses: false,
        napt: None,
        source_routes: Vec::new(),
        tunnels: crate::config::TunnelPolicy::default(),
        challenge: crate::config::ChallengePolicy::Required,
        challenge_window: 2,
        revocation: false,
        assigned_home_agent: None,
        udp_tunnel: crate::config::UdpTunnelling::Off,
        gre_keys: true,
        message_strings: false,
        administratively_prohibited: false,
        security,
    };
    AgentConfig {
        home_agents: vec![],
        foreign_agents: vec![foreign_agent],
        advertisers: vec![advertiser(address, false)],
    }
}

fn with_foreign_agent() -> MobilitySecurityAssociation {
    association(257, ReplayProtection::default())
}

impl Lab {
    fn new(replay: ReplayProtection, reverse_tunnel: ReverseTunnel) -> Self {
        let node = MobileNodeConfig { reverse_tunnel, ..config() };
        Lab::with(replay, node, |_| ())
    }

    fn with(
        replay: ReplayProtection,
        mut node: MobileNodeConfig,
        change: impl FnOnce(&mut HomeAgentConfig),
    ) -> Self {
        let mut home = home_process(replay);
        change(&mut home.home_agents[0]);
        node.security.insert_agent(HOME_AGENT, association(256, replay));
        node.security.insert_agent(care_of(FIRST), with_foreign_agent());
        node.security.insert_agent(care_of(SECOND), with_foreign_agent());
        let world = World::new(node);
        let now = world.now();
        let agents = [home, foreign_process(FIRST), foreign_process(SECOND)]
            .map(|config| Agent::new(config, [9; 32], now));
        let (binding, tunnels) = (vec![], vec![]);
        let behind = Duration::ZERO;
        let mut lab =
            Lab { world, network: None, agents, binding, tunnels, nat: None, behind, handled: 0 };
        // A home agent takes no timestamp from before its start.
        lab.pass(1_000);
        lab
    }

    /// Unplugs the node, and plugs it in elsewhere.
    fn move_to(&mut self, network: Network) {
        self.world.link(false);
        self.settle();
        self.network = Some(network);
        self.world.link(true);
        self.settle();
    }

    /// Now, by the agents' clocks.
    fn now(&self) -> Now {
        let now = self.world.now();
        let behind = NtpTime::from_unix(self.behind).0 - NtpTime::from_unix(Duration::ZERO).0;
        Now { ntp: NtpTime(now.ntp.0 - behind), ..now }
    }

    /// Lets time pass, each timer of the node and of the agents at its time.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.world.now + milliseconds;
        loop {
            let agents = self.agents.iter().filter_map(Agent::poll_timeout);
            let next = agents.chain(self.world.node.poll_timeout()).min();
            let next = next.map_or(end, |at| at.0.div_ceil(1_000_000)).min(end);
            self.world.pass(next.saturating_sub(self.world.now));
            let now = self.now();
            for agent in &mut self.agents {
                agent.handle_timeout(now);
            }
            self.settle();
            if next == end {
                return;
            }
        }
    }

    /// Carries messages until there are none.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for at in 0..self.agents.len() {
                while let Some(action) = self.agents[at].poll_action() {
                    moved = true;
                    self.agent_did(at, action);
                }
            }
            while let Some((_, action)) = self.world.log.get(self.handled).cloned() {
                moved = true;
                self.handled += 1;
                self.node_did(&action);
            }
            if !moved {
                return;
            }
        }
    }

    fn node_did(&mut self, action: &MobileNodeAction) {
        let now = self.now();
        match (action, self.network) {
            (MobileNodeAction::SendSolicitation { icmp }, Some(Network::Of(at))) => {
                let nobody = Ipv4Addr::UNSPECIFIED;
                self.agents[at].handle_solicitation(TENANT, LINK, NODE_MAC, nobody, 1, icmp, now);
            }
            (MobileNodeAction::StartDhcp, Some(Network::Dhcp)) => self.world.co_located(),
            (MobileNodeAction::SendRegistration(send), Some(network)) => {
                let (at, port) = match (send.path, network) {
                    (RegistrationPath::Link(_), Network::Of(at)) => (at, LINK),
                    (RegistrationPath::CoLocated(_), Network::Dhcp) => (0, CORE),
                    other => panic!("{other:?}"),
                };
                let own = (send.source, 40_000);
                let through_nat = self.nat.filter(|_| network == Network::Dhcp);
                let (source, source_port) = through_nat.unwrap_or(own);
                let datagram = Datagram {
                    tenant: TENANT,
                    port,
                    source_mac: NODE_MAC,
                    destination_mac: MacAddress([2, 0, 0, 0, 0, 1]),
                    source,
                    destination: send.destination,
                    source_port,
                    destination_port: 434,
                    ttl: send.ttl,
                    payload: &send.bytes,
                };
                self.agents[at].handle_datagram(&datagram, now);
            }
            // The home agent's RX cores answer, if it comes from the tunnel's end.
            (MobileNodeAction::SendKeepalive { icmp }, Some(Network::Dhcp))
                if self.tunnels.iter().any(|to| self.is_outside(to.address, port_of(to))) =>
            {
                let rest = *icmp[4..].first_chunk().unwrap();
                let answer = Icmpv4Header::new(ECHO_REPLY, 0, rest, &[]);
                assert!(self.world.node.is_keepalive_answer(answer.as_bytes()));
                self.world.input(|node, _| node.handle_tunnel_received());
            }
            _ => {}
        }
    }

    fn is_outside(&self, address: Ipv4Addr, port: u16) -> bool {
        self.nat == Some((address, port))
    }

    /// The node's program answers the home agent's echo request in the tunnel.
    fn answer_echo(&mut self, data: &[u8]) {
        let plain = data[0] != 4;
        let inner = Ipv4Packet::new_checked(if plain { data } else { &data[4..] }).unwrap();
        let rest = *inner.payload()[4..].first_chunk().unwrap();
        let body = &inner.payload()[8..];
        let icmp = [Icmpv4Header::new(ECHO_REPLY, 0, rest, body).as_bytes(), body].concat();
        let (source, source_port) = self.nat.unwrap();
        let echo = TunnelledEcho {
            tenant: TENANT,
            source,
            source_port,
            destination: HOME_AGENT,
            inner_source: HOME,
            inner_destination: HOME_AGENT,
            plain,
            icmp: &icmp,
        };
        let now = self.now();
        self.agents[0].handle_keepalive(&echo, now);
    }

    fn agent_did(&mut self, at: usize, action: Action) {
        match action {
            Action::Transmit(transmit) => self.carry(at, &transmit),
            Action::InstallBinding(state) => {
                self.binding = state.care_of_addresses.iter().map(|to| to.address).collect();
                self.tunnels = state.care_of_addresses.to_vec();
            }
            Action::RemoveBinding { .. } => {
                self.binding.clear();
                self.tunnels.clear();
            }
            _ => {}
        }
    }

    fn carry(&mut self, from: usize, transmit: &Transmit) {
        match &transmit.payload {
            Payload::Icmp(icmp) if self.network == Some(Network::Of(from)) => {
                let Transmit { source, ttl, .. } = *transmit;
                let mac = mac_of(source);
                self.world
                    .input(|node, now| node.handle_advertisement(source, mac, icmp, ttl, now));
            }
            Payload::Icmp(_) => {}
            Payload::Udp { source_port, destination_port, data } => {
                let own = self.world.node.config().home_address;
                let to_node = match self.network {
                    Some(Network::Of(at)) => {
                        at == from && transmit.link == Some((LINK, NODE_MAC))
                            || from == 0 && at == 0 && transmit.destination == own
                    }
                    Some(Network::Dhcp) if self.nat.is_some() => {
                        self.is_outside(transmit.destination, *destination_port)
                    }
                    Some(Network::Dhcp) => transmit.destination == CO_LOCATED.address,
                    None => false,
                };
                let Transmit { source, destination, ttl, .. } = *transmit;
                if to_node && matches!(data[0], 4 | 0x45) {
                    return self.answer_echo(data);
                }
                if to_node {
                    return self
                        .world
                        .input(|node, now| node.handle_datagram(source, *source_port, data, now));
                }
                let owner = [HOME_AGENT, care_of(FIRST), care_of(SECOND)]
                    .iter()
                    .position(|address| *address == destination);
                let Some(owner) = owner else { return };
                let now = self.now();
                let datagram = Datagram {
                    tenant: TENANT,
                    port: CORE,
                    source_mac: MacAddress([2, 0, 0, 0, 0, 2]),
                    destination_mac: MacAddress([2, 0, 0, 0, 0, 1]),
                    source,
                    destination,
                    source_port: *source_port,
                    destination_port: *destination_port,
                    ttl: ttl - 1,
                    payload: data,
                };
                self.agents[owner].handle_datagram(&datagram, now);
            }
        }
    }

    #[track_caller]
    fn is(&self, phase: Phase, binding: &[Ipv4Addr]) {
        assert_eq!(self.world.node.phase(), phase, "{:#?}", self.world.events());
        assert_eq!(self.binding, binding);
    }
}

/// B-01, B-02, B-03: home, two agents, DHCP, home; with each style of replay
/// protection and of delivery.
// Shows 5944-3.6-c, 5944-5.7-a, 5944-5.7-b.
#[test]
fn a_tour_registers_everywhere_at_once_and_comes_home() {
    let timestamps = ReplayProtection::default();
    for (replay, style) in [
        (timestamps, ReverseTunnel::Direct),
        (timestamps, ReverseTunnel::Encapsulating),
        (timestamps, ReverseTunnel::None),
        (ReplayProtection::Nonces, ReverseTunnel::Direct),
    ] {
        let mut lab = Lab::new(replay, style);
        lab.move_to(Network::Of(0));
        lab.is(Phase::AtHome, &[]);
        lab.pass(3_000);
        lab.move_to(Network::Of(1));
        lab.is(Phase::Registered, &[care_of(FIRST)]);
        lab.pass(3_000);
        lab.move_to(Network::Of(2));
        lab.is(Phase::Registered, &[care_of(SECOND)]);
        lab.pass(3_000);
        lab.move_to(Network::Dhcp);
        lab.pass(30);
        lab.is(Phase::Registered, &[CO_LOCATED.address]);
        lab.pass(3_000);
        lab.move_to(Network::Of(0));
        lab.is(Phase::AtHome, &[]);
        assert!(lab.world.discards().is_empty(), "{:?}", lab.world.discards());
        assert!(
            lab.world.events().iter().all(|event| {
                replay == ReplayProtection::Nonces
                    || !matches!(event, MobileNodeEvent::Denied { .. })
            }),
            "{:#?}",
            lab.world.events()
        );
    }
}

/// B-01: renewal.
#[test]
fn a_node_that_stays_stays_registered() {
    for replay in [ReplayProtection::default(), ReplayProtection::Nonces] {
        let mut lab = Lab::new(replay, ReverseTunnel::Direct);
        lab.move_to(Network::Of(1));
        let attached = lab.world.attachments().len();
        lab.pass(330_000);
        lab.is(Phase::Registered, &[care_of(FIRST)]);
        assert_eq!(lab.world.attachments().len(), attached);
        let renewals = lab.world.requests().len();
        assert!((8..=10).contains(&renewals), "{renewals}");
    }
}

/// B-02: a clock ten minutes off costs one more round trip, once.
// Shows 5944-3.6.2.3-c.
#[test]
fn a_node_with_a_wrong_clock_registers_with_one_denial() {
    let mut lab = Lab::new(ReplayProtection::default(), ReverseTunnel::Direct);
    // The agents' clock is the world's; the node's alone is put ahead, by making
    // it believe that the home agent is behind.
    lab.world.node.identifications.learn_clock(
        crate::message::Identification(lab.world.now().ntp.0 + (600 << 32)),
        lab.world.now().ntp,
        Duration::from_secs(7),
    );
    lab.move_to(Network::Of(1));
    lab.is(Phase::Registered, &[care_of(FIRST)]);
    let denials = lab.world.events().into_iter();
    assert_eq!(denials.filter(|e| matches!(e, MobileNodeEvent::Denied { .. })).count(), 1);
    assert_eq!(lab.world.node.clock_offset(), 0);
}

/// B-02: a clock that runs away is set at a renewal, and the binding outlives it: what
/// was accepted last is nearly as far ahead of the home agent's clock as what is denied.
#[test]
fn a_clock_that_leaves_the_window_costs_no_binding() {
    let node = MobileNodeConfig { lifetime: Lifetime(6), ..config() };
    let mut lab = Lab::with(ReplayProtection::default(), node, |_| ());
    lab.behind = Duration::from_millis(6_900);
    lab.move_to(Network::Of(1));
    lab.is(Phase::Registered, &[care_of(FIRST)]);
    lab.behind = Duration::from_millis(7_100);
    lab.world.forget();
    lab.handled = 0;
    lab.pass(60_000);
    lab.is(Phase::Registered, &[care_of(FIRST)]);
    let events = lab.world.events();
    let denied = events.iter().filter(|event| matches!(event, MobileNodeEvent::Denied { .. }));
    assert_eq!(denied.count(), 1, "{events:#?}");
    assert!(!events.iter().any(|event| matches!(event, MobileNodeEvent::Expired { .. })));
}

/// B-01: the program ends away from home.
#[test]
fn a_stop_away_from_home_leaves_no_binding() {
    let mut lab = Lab::new(ReplayProtection::default(), ReverseTunnel::Direct);
    lab.move_to(Network::Of(1));
    lab.pass(2_000);
    lab.world.input(|node, now| node.handle_stop(now));
    lab.settle();
    assert!(lab.world.did(&MobileNodeAction::Stopped));
    assert!(lab.binding.is_empty());
}

/// B-03: a foreign agent that is restarted has forgotten its visitors.
// Shows 5944-3.6-d.
#[test]
fn a_foreign_agent_that_restarts_is_registered_with_again() {
    let mut lab = Lab::new(ReplayProtection::default(), ReverseTunnel::Direct);
    lab.move_to(Network::Of(1));
    lab.pass(3_500);
    lab.agents[1] = Agent::new(foreign_process(FIRST), [8; 32], lab.now());
    assert_eq!(lab.agents[1].visitors().count(), 0);
    lab.pass(2_000);
    lab.is(Phase::Registered, &[care_of(FIRST)]);
    assert_eq!(lab.agents[1].visitors().count(), 1);
}

/// The port that a tunnel's other end has; zero where there is no UDP in it.
const fn port_of(tunnel: &CareOf) -> u16 {
    match tunnel.encapsulation {
        Encapsulation::Udp { peer_port } | Encapsulation::PlainUdp { peer_port } => peer_port,
        _ => 0,
    }
}

const NAT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// A node behind a NAT, registered by itself in this mode.
fn behind_nat(traversal: NatTraversal) -> Lab {
    let node = MobileNodeConfig { nat_traversal: true, lifetime: Lifetime(600), ..config() };
    let mut lab =
        Lab::with(ReplayProtection::default(), node, |home| home.nat.traversal = traversal);
    lab.nat = Some((NAT, 20_001));
    lab.move_to(Network::Dhcp);
    lab.pass(100);
    lab.is(Phase::Registered, &[NAT]);
    lab
}

/// B-04, S3-31, S3-32, RFC 3519: both ends agree, in both modes, at renewals, and
/// when the node has forgotten what the home agent remembers.
// Shows 3519-4.6-e.
#[test]
fn behind_a_nat_both_ends_agree_on_udp_to_where_the_request_came_from() {
    let peer_port = 434;
    let rows = [
        (NatTraversal::Rfc3519, Encapsulation::Udp { peer_port }),
        (NatTraversal::Challenge, Encapsulation::PlainUdp { peer_port }),
    ];
    for (traversal, encapsulation) in rows {
        let mut lab = behind_nat(traversal);
        let agrees = |lab: &Lab| {
            let registration = lab.world.node.registration().unwrap();
            assert_eq!((registration.encapsulation, registration.nat), (encapsulation, true));
            let [tunnel] = lab.tunnels[..] else { panic!("{:?}", lab.tunnels) };
            assert_eq!((tunnel.address, port_of(&tunnel)), (NAT, 20_001));
            assert_eq!(tunnel.registered, CO_LOCATED.address);
            assert!(!tunnel.unproven, "the node has answered");
        };
        agrees(&lab);
        let requests = lab.world.requests().len();
        assert_eq!(requests, if traversal == NatTraversal::Challenge { 2 } else { 1 });
        lab.pass(400_000);
        assert!(lab.world.requests().len() > requests, "renewed");
        agrees(&lab);
        // Elsewhere, and back where it is known.
        lab.move_to(Network::Of(1));
        lab.pass(1_000);
        lab.move_to(Network::Dhcp);
        lab.pass(1_000);
        agrees(&lab);
        let node = MobileNode::new(lab.world.node.config().clone(), [8; 32]);
        lab.world.node = node;
        lab.move_to(Network::Dhcp);
        lab.pass(1_000);
        agrees(&lab);
    }
}

/// RFC 3519 §4.10: keepalives find that the NAT has changed the port.
#[test]
fn a_nat_that_changes_the_port_is_registered_through_anew() {
    for traversal in [NatTraversal::Rfc3519, NatTraversal::Challenge] {
        let mut lab = behind_nat(traversal);
        lab.nat = Some((NAT, 20_002));
        lab.pass(100_000);
        assert_eq!(port_of(&lab.tunnels[0]), 20_001, "nobody has noticed yet");
        lab.pass(15_000);
        let lost = |lab: &Lab| {
            let events = lab.world.events();
            events
                .iter()
                .filter(|event| matches!(event, MobileNodeEvent::MappingLost { .. }))
                .count()
        };
        assert_eq!((port_of(&lab.tunnels[0]), lost(&lab)), (20_002, 1));
        lab.pass(400_000);
        assert_eq!(lost(&lab), 1, "then it is quiet");
        lab.is(Phase::Registered, &[NAT]);
    }
}

/// RFC 3519 §4.6.1: where a NAT may not be traversed, the node waits and tries.
#[test]
fn a_nat_that_may_not_be_traversed_makes_no_storm() {
    let node = MobileNodeConfig { nat_traversal: true, ..config() };
    let mut lab = Lab::with(ReplayProtection::default(), node, |home| {
        home.nat.traversal = NatTraversal::Off;
    });
    lab.nat = Some((NAT, 20_001));
    lab.move_to(Network::Dhcp);
    lab.pass(60_000);
    lab.is(Phase::Denied, &[]);
    assert!(lab.world.requests().len() < 8, "{}", lab.world.requests().len());
}
