//! The shape of homeportd's config file: its sections, keys and defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use homeport_dataplane::napt::config::DEFAULT_PORTS;

use super::napt::{DependenceName, PortRange};
use super::read::{At, section};
use super::sessions::{NaiText, RangeText, SessionText};
use super::signalling::{ChallengeName, FramingName, InsertionName, RedirectName};
use super::tunnel::{
    EncapsulationName, NatTraversalName, TunnelDfName, UdpTunnelName, all_encapsulations,
};
use super::value::{
    AlgorithmName, BackendKind, InterfaceAddress, LifetimeText, LogFilter, Name, Network, PollMode,
    ProfileName, ReplayName, Span, SteeringName, ViaName, XdpModeName,
};

section! {
    /// A whole file.
    File as "the file" {
        /// The process.
        daemon: Option<DaemonSection>,
        /// The RX cores.
        dataplane: Option<DataplaneSection>,
        /// The ports, in the order of their numbers.
        port: Vec<PortSection>,
        /// Routes put into the kernel.
        route: Vec<RouteSection>,
        /// Home agents.
        home_agent: Vec<HomeAgentSection>,
        /// Foreign agents.
        foreign_agent: Vec<ForeignAgentSection>,
        /// Agent advertisements.
        advertiser: Vec<AdvertiserSection>,
        /// Network address and port translation.
        napt: Vec<NaptSection>,
    }
}

section! {
    /// `[daemon]`: the process.
    DaemonSection as "[daemon]" {
        /// The unix socket of the admin API.
        admin_socket: At<PathBuf> = PathBuf::from("/run/homeport/homeport.sock"),
        /// Where Prometheus finds /metrics; absent: nowhere.
        metrics: Option<At<SocketAddr>>,
        /// What is logged.
        log: At<LogFilter> = LogFilter("info".into()),
        /// How many nodes' last registrations are remembered, for `homeport explain`.
        remembered_nodes: At<usize> = 16_384,
        /// The folder where it is written down which address is whose session's; absent:
        /// nowhere, and a restart forgets it.
        state_dir: Option<At<PathBuf>>,
    }
}

section! {
    /// `[dataplane]`: the RX cores.
    DataplaneSection as "[dataplane]" {
        /// Whether RX cores sleep at rest.
        poll: At<PollMode> = PollMode::Adaptive,
        /// The CPUs that RX cores are pinned to; absent: one worker, not pinned.
        cores: Option<At<Vec<At<usize>>>>,
        /// The CPU that the control loop is pinned to; absent: none, but with busy
        /// workers none of theirs.
        control_core: Option<At<usize>>,
        /// Whether the control loop may share a CPU with a busy worker.
        share_control_core: At<bool> = false,
        /// When packets are handed to the worker that their addresses name.
        steering: At<SteeringName> = SteeringName::Auto,
        /// Packet buffers of each worker.
        buffers: At<usize> = 8192,
        /// How many nodes are claimed one by one on af_xdp ports; beyond it, home
        /// networks are claimed whole.
        exact_claims: At<u32> = 1_000_000,
        /// Registration messages a second from a network that no node is at.
        registrations_per_prefix: At<u32> = 2_000,
        /// Registration messages a second from a network that nodes are at.
        registrations_per_known_prefix: At<u32> = 50_000,
        /// Messages a second of nodes that moved that go before new nodes'.
        moves_first: At<u32> = 10_000,
    }
}

section! {
    /// `[[port]]`: a port of the dataplane.
    PortSection as "[[port]]" {
        /// Its name.
        name: At<Name>,
        /// Whose it is.
        tenant: At<u32> = 0,
        /// What is behind it.
        backend: At<BackendKind>,
        /// The Linux interface, for af_packet and af_xdp.
        interface: Option<At<String>>,
        /// The PCI address, or the vdev with its arguments, for dpdk.
        device: Option<At<String>>,
        /// How many queues of the interface are received from, for af_xdp; absent:
        /// all that it has.
        queues: Option<At<u32>>,
        /// Where the program runs, for af_xdp; absent: auto.
        xdp_mode: Option<At<XdpModeName>>,
        /// The longest IPv4 packet that it carries, in bytes.
        mtu: At<u16> = 1500,
        /// Its kernel twin's interface name; absent: hp- and the port's name.
        kernel_twin: Option<At<String>>,
        /// The addresses on the twin, or on the interface itself.
        addresses: Vec<At<InterfaceAddress>>,
    }
}

section! {
    /// `[[route]]`: a route put into the kernel, out of the twins.
    RouteSection as "[[route]]" {
        /// The prefix.
        destination: At<Network>,
        /// The next hop, on the link of a port.
        gateway: At<Ipv4Addr>,
    }
}

section! {
    /// `[[home_agent]]`: a virtual home agent.
    HomeAgentSection as "[[home_agent]]" {
        /// Its name.
        name: At<Name>,
        /// Whose it is.
        tenant: At<u32> = 0,
        /// Its address, one of a port's.
        address: At<Ipv4Addr>,
        /// RFC 5944 or RFC 2002.
        profile: At<ProfileName> = ProfileName::Rfc5944,
        /// The longest lifetime granted; absent: 36000s, with dmnr 65534s.
        max_lifetime: Option<At<LifetimeText>>,
        /// How many bindings it holds.
        max_bindings: At<usize> = 100_000,
        /// How many simultaneous bindings a node may have.
        max_simultaneous: At<u8> = 4,
        /// Whether reverse tunnels are granted.
        reverse_tunnel: At<bool> = true,
        /// Whether every node must ask for one.
        require_reverse_tunnel: At<bool> = false,
        /// Whether everybody is refused: the off switch.
        administratively_prohibited: At<bool> = false,
        /// Whether foreign agents must authenticate themselves.
        require_foreign_home_authentication: At<bool> = false,
        /// What nodes may ask for, beside plain IP in IP.
        encapsulations: At<Vec<At<EncapsulationName>>> = all_encapsulations(),
        /// What is done when a request comes through a NAT.
        nat_traversal: At<NatTraversalName> = NatTraversalName::Rfc3519,
        /// Whether nodes may have UDP tunnels without a NAT.
        forced_udp: At<bool> = false,
        /// How often nodes behind NATs shall be heard of.
        keepalive: At<Span> = Span::from_secs(110),
        /// Whether an unsigned outer address must answer before it gets much.
        path_validation: At<bool> = true,
        /// Whether outer headers always have DF.
        tunnel_df: At<TunnelDfName> = TunnelDfName::Copy,
        /// Whether TCP is told of a tunnel's MTU.
        mss_clamp: At<bool> = false,
        /// Whether denials say in words why.
        message_strings: At<bool> = false,
        /// Whether it takes part in revocations.
        revocation: At<bool> = true,
        /// Whether nodes that name no home agent are taken.
        dynamic_assignment: At<bool> = false,
        /// The home agent that they are sent to.
        redirect_to: Option<At<Ipv4Addr>>,
        /// When they are sent there.
        redirect: At<RedirectName> = RedirectName::WhenFull,
        /// How that is written.
        redirect_framing: At<FramingName> = FramingName::Rfc4433,
        /// How many sessions a NAI may have at once.
        max_sessions_per_nai: At<u32> = 64,
        /// How long an address stays a session's when its binding has ended.
        session_sticky: At<Span> = Span::from_secs(3600),
        /// How long an address that was given back is nobody's.
        session_hold_down: At<Span> = Span::from_secs(60),
        /// Where the addresses of sessions come from.
        pool: Vec<PoolSection>,
        /// Addresses that are set aside for sessions.
        reservation: Vec<ReservationSection>,
        /// The file with its nodes, one on a line, relative to the config file.
        subscribers: Option<At<PathBuf>>,
        /// The networks that it serves.
        home_network: Vec<HomeNetworkSection>,
        /// The networks behind its mobile routers.
        mobile_network: Vec<MobileNetworkSection>,
        /// Whom it shares keys with.
        security_association: Vec<SecurityAssociationSection>,
    }
}

section! {
    /// `[[home_agent.home_network]]`: addresses that a home agent serves.
    HomeNetworkSection as "[[home_agent.home_network]]" {
        /// The addresses.
        prefix: At<Network>,
        /// The port that they live on; absent: a virtual home network.
        port: Option<At<Name>>,
    }
}

section! {
    /// `[[home_agent.pool]]`: addresses for sessions.
    PoolSection as "[[home_agent.pool]]" {
        /// Its name.
        name: At<Name>,
        /// The realm whose NAIs get them; absent: any.
        realm: Option<At<String>>,
        /// The addresses.
        ranges: Vec<At<RangeText>>,
        /// What of them is given to nobody.
        exclusions: Vec<At<RangeText>>,
    }
}

section! {
    /// `[[home_agent.reservation]]`: an address that is set aside for a session.
    ReservationSection as "[[home_agent.reservation]]" {
        /// The NAI.
        nai: At<NaiText>,
        /// The session; empty: the node itself.
        session: At<SessionText> = SessionText(String::new()),
        /// The address.
        home_address: At<Ipv4Addr>,
    }
}

section! {
    /// `[[home_agent.mobile_network]]`: a network behind a mobile router.
    MobileNetworkSection as "[[home_agent.mobile_network]]" {
        /// The router's home address.
        mobile_router: At<Ipv4Addr>,
        /// The network.
        prefix: At<Network>,
    }
}

section! {
    /// `security_association`: a key shared with one peer.
    SecurityAssociationSection as "the security association" {
        /// The peer, a mobile node: its home address.
        mobile_node: Option<At<Ipv4Addr>>,
        /// The peer, a mobile node: its NAI, beside or instead of its home address. Of a
        /// mobile node, beside a foreign agent: that knows it by this.
        nai: Option<At<NaiText>>,
        /// The peer, a foreign agent: its care-of address.
        foreign_agent: Option<At<Ipv4Addr>>,
        /// The peer, a home agent: its address.
        home_agent: Option<At<Ipv4Addr>>,
        /// The security parameter index, 256 or more.
        spi: At<u32>,
        /// How authenticators are computed.
        algorithm: At<AlgorithmName> = AlgorithmName::HmacMd5,
        /// The file with the key in hex, relative to the config file.
        key_file: At<PathBuf>,
        /// How replays are found.
        replay: At<ReplayName> = ReplayName::Timestamps,
        /// How far the clocks may differ, with timestamps; absent: 7s.
        tolerance: Option<At<Span>>,
    }
}

section! {
    /// `[[foreign_agent]]`: a foreign agent.
    ForeignAgentSection as "[[foreign_agent]]" {
        /// Its name.
        name: At<Name>,
        /// Whose it is.
        tenant: At<u32> = 0,
        /// Its care-of address, one of a port's.
        care_of_address: At<Ipv4Addr>,
        /// The ports that its visitors are on.
        ports: At<Vec<At<Name>>>,
        /// RFC 5944 or RFC 2002.
        profile: At<ProfileName> = ProfileName::Rfc5944,
        /// The longest lifetime relayed; absent: 36000s, with dmnr 65534s.
        max_lifetime: Option<At<LifetimeText>>,
        /// How many visitors it holds.
        max_visitors: At<usize> = 10_000,
        /// How many requests of one node may be pending.
        max_pending_per_node: At<usize> = 5,
        /// How many requests may be pending in all.
        max_pending: At<usize> = 1_000,
        /// How many visitors may have one NAI; 0 is no limit.
        max_sessions_per_nai: At<usize> = 0,
        /// How many requests with one NAI a node may send in a minute; 0 is no limit.
        requests_per_minute_per_nai: At<u32> = 0,
        /// Whether it makes sessions of nodes that name none.
        insert_sessions: At<InsertionName> = InsertionName::Off,
        /// When a pending request is given up.
        pending_timeout: At<Span> = Span::from_secs(7),
        /// Whether reverse tunnels are offered.
        reverse_tunnel: At<bool> = true,
        /// Whether every node must ask for one.
        require_reverse_tunnel: At<bool> = false,
        /// Whether nodes may encapsulate to it.
        encapsulating_delivery: At<bool> = true,
        /// Whether nodes must authenticate themselves to it.
        require_mobile_foreign_authentication: At<bool> = false,
        /// Whether it challenges its visitors.
        challenge: At<ChallengeName> = ChallengeName::Off,
        /// The home agent of nodes that name none; absent: they are denied.
        assigned_home_agent: Option<At<Ipv4Addr>>,
        /// How many of the last challenges of a link are good.
        challenge_window: At<usize> = 2,
        /// Whether it takes part in revocations.
        revocation: At<bool> = true,
        /// Whether everybody is refused: the off switch.
        administratively_prohibited: At<bool> = false,
        /// Whether two visitors may have one home address.
        overlapping_addresses: At<bool> = false,
        /// The NAPT that visitors are hidden behind where their packets go by the
        /// routes of this box.
        napt: Option<At<Name>>,
        /// Which way visitors' packets go.
        source_route: Vec<SourceRouteSection>,
        /// What visitors may ask for, beside plain IP in IP.
        encapsulations: At<Vec<At<EncapsulationName>>> = all_encapsulations(),
        /// Whether home agents are asked for the keys of GRE tunnels.
        gre_keys: At<bool> = true,
        /// Whether its own denials say in words why.
        message_strings: At<bool> = false,
        /// Whether it is behind a NAT and asks home agents for UDP tunnels.
        udp_tunnel: At<UdpTunnelName> = UdpTunnelName::Off,
        /// Whether outer headers always have DF.
        tunnel_df: At<TunnelDfName> = TunnelDfName::Copy,
        /// Whether TCP is told of a tunnel's MTU.
        mss_clamp: At<bool> = false,
        /// Whom it shares keys with.
        security_association: Vec<SecurityAssociationSection>,
    }
}

section! {
    /// `[[foreign_agent.source_route]]`: which way some visitors' packets go.
    SourceRouteSection as "[[foreign_agent.source_route]]" {
        /// Visitors of this home agent; absent: of any.
        home_agent: Option<At<Ipv4Addr>>,
        /// Visitors from this home network; absent: from any.
        home_prefix: Option<At<Network>>,
        /// Their packets to here.
        destination: At<Network>,
        /// Go by the tunnel, or locally.
        via: At<ViaName>,
        /// The cheaper way of two is taken.
        cost: At<u16> = 10,
        /// The NAPT that they are hidden behind on a local way; absent: the agent's.
        napt: Option<At<Name>>,
    }
}

impl ForeignAgentSection {
    /// The names of the NAPTs that its visitors are hidden behind.
    pub(super) fn napts(&self) -> impl Iterator<Item = &str> {
        let routes = self.source_route.iter().filter_map(|route| route.napt.as_ref());
        self.napt.iter().chain(routes).map(|name| name.0.as_str())
    }
}

section! {
    /// `[[advertiser]]`: agent advertisements on one port.
    AdvertiserSection as "[[advertiser]]" {
        /// The port.
        port: At<Name>,
        /// The home agent that it advertises, by name.
        home_agent: Option<At<Name>>,
        /// The foreign agent that it advertises, by name.
        foreign_agent: Option<At<Name>>,
        /// Time between two advertisements.
        interval: At<Span> = Span::from_secs(1),
        /// Whether to advertise unasked.
        unsolicited: At<bool> = true,
        /// Whether nodes must register through the foreign agent.
        registration_required: At<bool> = false,
        /// The longest lifetime, as advertised; absent: the agent's.
        registration_lifetime: Option<At<LifetimeText>>,
    }
}

section! {
    /// `[[napt]]`: network address and port translation between ports.
    NaptSection as "[[napt]]" {
        /// Its name.
        name: At<Name>,
        /// The ports whose hosts are hidden; absent: only the visitors of the foreign
        /// agents that name it.
        inside: Vec<At<Name>>,
        /// The port to the outside.
        outside: At<Name>,
        /// The external addresses, of the outside port; absent: its first.
        addresses: Vec<At<Ipv4Addr>>,
        /// The ports of each external address that are the NAPT's.
        port_range: At<PortRange> = PortRange(*DEFAULT_PORTS.start(), *DEFAULT_PORTS.end()),
        /// How many ports a host is given at a time.
        block_size: At<u16> = 128,
        /// How many blocks one host may have.
        max_blocks_per_host: At<u16> = 8,
        /// How many sessions one host may have.
        max_sessions_per_host: At<u32> = 2048,
        /// How many sessions all hosts together may have.
        max_sessions: At<usize> = 65_536,
        /// How many sessions one host may open in a second.
        max_sessions_per_second: At<u32> = 500,
        /// What a mapping depends on.
        mapping: At<DependenceName> = DependenceName::EndpointIndependent,
        /// What inbound packets are filtered by.
        filtering: At<DependenceName> = DependenceName::AddressDependent,
        /// Whether inside hosts reach each other by their external endpoints.
        hairpinning: At<bool> = true,
        /// Whether inbound packets keep a session alive, too.
        inbound_refresh: At<bool> = false,
        /// Destinations that are not translated for.
        untranslated: Vec<At<Network>>,
        /// How long UDP lasts without a packet.
        udp_timeout: At<Span> = Span::from_secs(300),
        /// How long a TCP connection that stands does.
        tcp_established_timeout: At<Span> = Span::from_secs(7440),
        /// How long a TCP connection that opens or closes does.
        tcp_transitory_timeout: At<Span> = Span::from_secs(240),
        /// How long an ICMP query does.
        icmp_timeout: At<Span> = Span::from_secs(60),
    }
}
