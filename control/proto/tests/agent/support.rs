//! An agent, a clock, and the addresses of a small world.

use core::net::Ipv4Addr;
use core::time::Duration;

use homeport_proto::action::{CareOf, VisitorState};
use homeport_proto::config::{
    AdvertiserConfig, AgentConfig, EncapsulationSet, ForeignAgentConfig, HomeAgentConfig,
    HomeNetwork, Prefix, Profile,
};
use homeport_proto::counters::Counters;
use homeport_proto::event::DiscardReason;
use homeport_proto::message::{
    AuthenticationKind, Identification, Message, MessageWriter, Received, RegistrationReply,
    RegistrationRequest, ReplyCode, RequestFlags,
};
use homeport_proto::security::{
    Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, SecurityAssociations, Spi,
};
use homeport_proto::{
    Action, Agent, Datagram, Encapsulation, Instant, Lifetime, MacAddress, Now, NtpTime, Payload,
    PortId, ReverseTunnel, TenantId, Transmit,
};

pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const CORE: PortId = PortId(0);
pub(crate) const HOME: PortId = PortId(1);
pub(crate) const VISITED: PortId = PortId(2);

pub(crate) const HOME_AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
pub(crate) const NONCE_NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
pub(crate) const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 12);
/// Has an association, but lies in no home network.
pub(crate) const STRAY_NODE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
/// The foreign agent: its care-of address and its address on the visited link.
pub(crate) const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const FOREIGN_LINK: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// A foreign agent that no association is shared with.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 2);
pub(crate) const CO_LOCATED: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 77);

pub(crate) const NODE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x10]);
pub(crate) const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(crate) const OUR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

pub(crate) fn association(spi: u32, algorithm: Algorithm) -> MobilitySecurityAssociation {
    MobilitySecurityAssociation {
        spi: Spi(spi),
        algorithm,
        key: Key::new(spi.to_be_bytes().repeat(4)),
        replay: ReplayProtection::default(),
    }
}

/// Mobile node and home agent.
pub(crate) fn mobile_home() -> MobilitySecurityAssociation {
    association(256, Algorithm::HmacMd5)
}

pub(crate) fn mobile_home_nonces() -> MobilitySecurityAssociation {
    let association = association(257, Algorithm::HmacSha1);
    MobilitySecurityAssociation { replay: ReplayProtection::Nonces, ..association }
}

/// Foreign agent and home agent.
pub(crate) fn foreign_home() -> MobilitySecurityAssociation {
    association(300, Algorithm::HmacSha256)
}

/// Mobile node and foreign agent.
pub(crate) fn mobile_foreign() -> MobilitySecurityAssociation {
    association(400, Algorithm::KeyedMd5)
}

pub(crate) fn home_agent_config() -> HomeAgentConfig {
    let mut security = SecurityAssociations::default();
    security.insert_mobile_node(NODE, mobile_home());
    security.insert_mobile_node(NONCE_NODE, mobile_home_nonces());
    security.insert_mobile_node(OTHER_NODE, mobile_home());
    security.insert_mobile_node(STRAY_NODE, mobile_home());
    HomeAgentConfig {
        tenant: TENANT,
        address: HOME_AGENT,
        home_networks: vec![HomeNetwork {
            prefix: Prefix::new(Ipv4Addr::new(10, 1, 0, 0), 24).unwrap(),
            link: Some(HOME),
        }],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(600),
        max_bindings: 100,
        max_simultaneous: 4,
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        administratively_prohibited: false,
        security,
        require_foreign_home_authentication: false,
        tunnels: homeport_proto::config::TunnelPolicy::default(),
        nat: homeport_proto::config::NatPolicy::default(),
        mobile_networks: Vec::new(),
        message_strings: false,
        revocation: false,
        assignment: homeport_proto::config::HomeAgentAssignment::default(),
        sessions: homeport_proto::config::SessionPolicy::default(),
    }
}

pub(crate) fn foreign_agent_config() -> ForeignAgentConfig {
    ForeignAgentConfig {
        tenant: TENANT,
        care_of_address: FOREIGN,
        links: vec![(VISITED, FOREIGN_LINK)],
        profile: Profile::Rfc5944,
        max_lifetime: Lifetime(300),
        max_visitors: 100,
        max_pending_per_node: 5,
        max_sessions_per_nai: 0,
        requests_per_minute_per_nai: 0,
        session_insertion: homeport_proto::config::SessionInsertion::default(),
        max_pending: 100,
        pending_timeout: Duration::from_secs(7),
        reverse_tunnel: true,
        require_reverse_tunnel: false,
        encapsulating_delivery: true,
        require_mobile_foreign_authentication: false,
        overlapping_addresses: false,
        napt: None,
        source_routes: Vec::new(),
        tunnels: homeport_proto::config::TunnelPolicy::default(),
        challenge: homeport_proto::config::ChallengePolicy::Off,
        challenge_window: 2,
        revocation: false,
        assigned_home_agent: None,
        udp_tunnel: homeport_proto::config::UdpTunnelling::Off,
        gre_keys: true,
        message_strings: false,
        administratively_prohibited: false,
        security: SecurityAssociations::default(),
    }
}

pub(crate) fn advertiser_config() -> AdvertiserConfig {
    AdvertiserConfig {
        tenant: TENANT,
        port: VISITED,
        address: FOREIGN_LINK,
        prefix_len: 24,
        home_agent: false,
        care_of_addresses: vec![FOREIGN],
        registration_required: false,
        encapsulations: homeport_proto::config::EncapsulationSet::IP_IN_IP,
        udp_tunnel: false,
        revocation: false,
        reverse_tunnel: true,
        registration_lifetime: Lifetime(300),
        interval: Duration::from_secs(1),
        unsolicited: true,
    }
}

/// A home agent that has IP in IP and nothing else.
pub(crate) fn plain_tunnels(config: &mut HomeAgentConfig) {
    config.tunnels.encapsulations = EncapsulationSet::IP_IN_IP;
}

/// An agent under test and its two clocks.
pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) millis: u64,
    /// How far the wall clock is from where it began, beside the time passed.
    pub(crate) step: i64,
}

impl World {
    pub(crate) fn new(config: AgentConfig) -> World {
        let start = now_at(1_000, 0);
        World { agent: Agent::new(config, [7; 32], start), millis: 2_000, step: 0 }
    }

    pub(crate) fn home(change: impl FnOnce(&mut HomeAgentConfig)) -> World {
        let mut config = home_agent_config();
        change(&mut config);
        World::new(AgentConfig { home_agents: vec![config], ..AgentConfig::default() })
    }

    pub(crate) fn foreign(change: impl FnOnce(&mut ForeignAgentConfig)) -> World {
        let mut config = foreign_agent_config();
        change(&mut config);
        World::new(AgentConfig { foreign_agents: vec![config], ..AgentConfig::default() })
    }

    pub(crate) fn now(&self) -> Now {
        now_at(self.millis, self.step)
    }

    /// The present as a timestamp, never the same twice.
    pub(crate) fn timestamp(&mut self) -> Identification {
        self.millis += 1;
        Identification(self.now().ntp.0)
    }

    pub(crate) fn drain(&mut self) -> Vec<Action> {
        core::iter::from_fn(|| self.agent.poll_action()).collect()
    }

    /// Lets time pass, timer by timer, and gives every action with its time.
    pub(crate) fn pass(&mut self, millis: u64) -> Vec<(u64, Action)> {
        let end = self.millis + millis;
        let mut actions = Vec::new();
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= now_at(end, 0).monotonic)
        {
            self.millis = self.millis.max(at.0.div_ceil(1_000_000));
            self.agent.handle_timeout(self.now());
            let at = self.millis;
            actions.extend(self.drain().into_iter().map(|action| (at, action)));
        }
        self.millis = end;
        actions
    }

    pub(crate) fn send(&mut self, datagram: &Datagram<'_>) -> Vec<Action> {
        self.agent.handle_datagram(datagram, self.now());
        self.drain()
    }

    /// A request as a foreign agent relays it to the home agent.
    pub(crate) fn relay(&mut self, foreign_agent: Ipv4Addr, payload: &[u8]) -> Vec<Action> {
        self.send(&relayed(foreign_agent, payload))
    }

    /// A request as a node on the visited link sends it to the foreign agent.
    pub(crate) fn visit(&mut self, payload: &[u8]) -> Vec<Action> {
        self.send(&visiting(payload))
    }

    /// A reply as the home agent sends it to the foreign agent.
    pub(crate) fn answer(&mut self, payload: &[u8]) -> Vec<Action> {
        let source_port = 434;
        self.send(&Datagram { destination: FOREIGN, source_port, ..relayed(HOME_AGENT, payload) })
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut all = self.agent.counters();
        all.find(|(tenant, _)| *tenant == TENANT).map(|(_, one)| one.clone()).unwrap_or_default()
    }

    pub(crate) fn discarded(&self, reason: DiscardReason) -> u64 {
        self.counters().discarded_for(reason)
    }

    /// Bindings and visitors: what a refused message must leave as it was.
    pub(crate) fn state(&self) -> String {
        let bindings: Vec<_> = self.agent.bindings().collect();
        let visitors: Vec<_> = self.agent.visitors().collect();
        let pending: Vec<_> =
            self.agent.foreign_agents().flat_map(|agent| agent.pending()).collect();
        format!("{bindings:?} {visitors:?} {pending:?}")
    }
}

pub(crate) fn now_at(millis: u64, step: i64) -> Now {
    let since_epoch = Duration::from_millis(1_800_000_000_000 + millis);
    let ntp = NtpTime::from_unix(since_epoch);
    let step = u64::from_ne_bytes((step << 32).to_ne_bytes());
    Now { monotonic: Instant(millis * 1_000_000), ntp: NtpTime(ntp.0.wrapping_add(step)) }
}

pub(crate) fn relayed(foreign_agent: Ipv4Addr, payload: &[u8]) -> Datagram<'_> {
    Datagram {
        tenant: TENANT,
        port: CORE,
        source_mac: ROUTER_MAC,
        destination_mac: OUR_MAC,
        source: foreign_agent,
        destination: HOME_AGENT,
        source_port: 434,
        destination_port: 434,
        ttl: 60,
        payload,
    }
}

pub(crate) fn visiting(payload: &[u8]) -> Datagram<'_> {
    Datagram {
        tenant: TENANT,
        port: VISITED,
        source_mac: NODE_MAC,
        destination_mac: OUR_MAC,
        source: NODE,
        destination: FOREIGN_LINK,
        source_port: 40_000,
        destination_port: 434,
        ttl: 255,
        payload,
    }
}

/// A node that has come home, or sends from its co-located address.
pub(crate) fn direct(source: Ipv4Addr, payload: &[u8]) -> Datagram<'_> {
    let port = if source == CO_LOCATED { CORE } else { HOME };
    Datagram {
        port,
        source,
        source_mac: NODE_MAC,
        source_port: 40_001,
        ..relayed(FOREIGN, payload)
    }
}

pub(crate) fn request(identification: Identification) -> RegistrationRequest {
    RegistrationRequest {
        flags: RequestFlags::default(),
        lifetime: Lifetime(60),
        home_address: NODE,
        home_agent: HOME_AGENT,
        care_of_address: FOREIGN,
        identification,
    }
}

/// The request with its mobile-home authentication.
pub(crate) fn sign(request: &RegistrationRequest) -> Vec<u8> {
    sign_with(request, &mobile_home())
}

pub(crate) fn sign_with(
    request: &RegistrationRequest,
    association: &MobilitySecurityAssociation,
) -> Vec<u8> {
    let mut writer = MessageWriter::request(request);
    writer.authenticate(AuthenticationKind::MobileHome, association);
    writer.finish()
}

/// An authentication behind what is there already.
pub(crate) fn append(
    message: &[u8],
    kind: AuthenticationKind,
    association: &MobilitySecurityAssociation,
) -> Vec<u8> {
    let mut writer = MessageWriter::relay(message);
    writer.authenticate(kind, association);
    writer.finish()
}

/// A reply to `request` as its home agent makes it.
pub(crate) fn reply_to(request: &RegistrationRequest, code: ReplyCode, lifetime: u16) -> Vec<u8> {
    let reply = RegistrationReply {
        code,
        lifetime: Lifetime(lifetime),
        home_address: request.home_address,
        home_agent: request.home_agent,
        identification: request.identification,
    };
    let mut writer = MessageWriter::reply(&reply);
    writer.authenticate(AuthenticationKind::MobileHome, &mobile_home());
    writer.finish()
}

pub(crate) fn transmits(actions: &[Action]) -> Vec<&Transmit> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Transmit(transmit) => Some(transmit),
            _ => None,
        })
        .collect()
}

pub(crate) fn udp(transmit: &Transmit) -> (u16, u16, &[u8]) {
    match &transmit.payload {
        Payload::Udp { source_port, destination_port, data } => {
            (*source_port, *destination_port, data)
        }
        Payload::Icmp(_) => panic!("not UDP"),
    }
}

pub(crate) fn parse_reply(bytes: &[u8]) -> Received<'_, RegistrationReply> {
    match Message::parse(bytes) {
        Ok(Message::Reply(reply)) => reply,
        other => panic!("not a reply: {other:?}"),
    }
}

/// The only reply among the actions, its bytes read back.
pub(crate) fn the_reply(actions: &[Action]) -> RegistrationReply {
    let all = transmits(actions);
    assert_eq!(all.len(), 1, "{actions:?}");
    parse_reply(udp(all[0]).2).body
}

/// The code of the only reply; its mobile-home authentication must be right.
pub(crate) fn the_code(actions: &[Action]) -> u8 {
    the_code_under(actions, &mobile_home())
}

pub(crate) fn the_code_under(actions: &[Action], association: &MobilitySecurityAssociation) -> u8 {
    let all = transmits(actions);
    assert_eq!(all.len(), 1, "{actions:?}");
    let reply = parse_reply(udp(all[0]).2);
    assert_eq!(reply.defect(), None);
    let extension = *reply.mobile_home_authentication().expect("a mobile-home authentication");
    assert!(reply.verify(&extension, association), "a right authenticator");
    reply.body.code.0
}

pub(crate) fn installed(actions: &[Action]) -> Vec<CareOf> {
    actions
        .iter()
        .find_map(|action| match action {
            Action::InstallBinding(state) => Some(state.care_of_addresses.to_vec()),
            _ => None,
        })
        .unwrap_or_default()
}

pub(crate) fn care_of(address: Ipv4Addr, lifetime: u16) -> CareOf {
    CareOf {
        address,
        registered: address,
        encapsulation: Encapsulation::IpInIp,
        reverse_tunnel: false,
        co_located: false,
        broadcast: false,
        unproven: false,
        lifetime: Lifetime(lifetime),
    }
}

pub(crate) fn visitor(reverse_tunnel: ReverseTunnel) -> VisitorState {
    VisitorState {
        tenant: TENANT,
        home_address: NODE,
        mac: NODE_MAC,
        port: VISITED,
        home_agent: HOME_AGENT,
        care_of_address: FOREIGN,
        encapsulation: Encapsulation::IpInIp,
        reverse_tunnel,
        overlapping: false,
        set_df: false,
        clamp_mss: false,
    }
}

/// The action that takes the visitor of [`visitor`] away.
pub(crate) fn the_visitor_is_removed() -> Action {
    Action::RemoveVisitor { tenant: TENANT, home_address: NODE, home_agent: HOME_AGENT }
}
