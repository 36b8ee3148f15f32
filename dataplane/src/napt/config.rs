//! What a NAPT is made from. Values only.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use homeport_wire::PortId;

/// What a mapping or a filter depends on besides the inside endpoint (RFC 4787
/// §4.1, §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// On nothing.
    #[default]
    EndpointIndependent,
    /// On the remote address.
    AddressDependent,
    /// On the remote address and port.
    AddressAndPortDependent,
}

impl Dependence {
    /// All of them, and what people call them.
    pub const NAMES: [(&str, Dependence); 3] = [
        ("endpoint-independent", Dependence::EndpointIndependent),
        ("address-dependent", Dependence::AddressDependent),
        ("address-and-port-dependent", Dependence::AddressAndPortDependent),
    ];

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Dependence::EndpointIndependent => "endpoint-independent",
            Dependence::AddressDependent => "address-dependent",
            Dependence::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

/// How long a session lasts without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP (RFC 4787 REQ-5: at least two minutes, five are recommended).
    pub udp: Duration,
    /// TCP between its handshake and its end (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: Duration,
    /// TCP that opens or closes (RFC 5382 REQ-5: at least 4 min).
    pub tcp_transitory: Duration,
    /// ICMP queries (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
}

impl Timeouts {
    /// The least that the RFCs allow.
    pub const LEAST: Timeouts = Timeouts {
        udp: Duration::from_secs(120),
        tcp_established: Duration::from_secs(7440),
        tcp_transitory: Duration::from_secs(240),
        icmp: Duration::from_secs(60),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { udp: Duration::from_secs(300), ..Timeouts::LEAST }
    }
}

/// The ports of the external addresses that a NAPT has unless told otherwise:
/// below those that Linux gives to the box's own sockets (32768 to 60999).
pub const DEFAULT_PORTS: RangeInclusive<u16> = 16384..=32767;

/// One NAPT: which hosts it hides behind which addresses, and how.
#[derive(Clone, Debug)]
pub struct NaptConfig {
    /// Its name in the configuration.
    pub name: String,
    /// Packets that come in by these ports and leave by [`NaptConfig::outside`]
    /// are translated. None: only those that a caller names.
    pub inside: Vec<PortId>,
    /// The port to the outside.
    pub outside: PortId,
    /// The external addresses, all on the outside port. Each belongs to one NAPT
    /// only.
    pub addresses: Vec<Ipv4Addr>,
    /// The ports (and ICMP query identifiers) of each external address that are
    /// the NAPT's; the others stay the box's own. It starts at an even port.
    pub ports: RangeInclusive<u16>,
    /// How many ports a host is given at a time; even.
    pub block_size: u16,
    /// How many blocks one host may have.
    pub max_blocks_per_host: u16,
    /// How many sessions one host may have.
    pub max_sessions_per_host: u32,
    /// How many sessions all hosts together may have.
    pub max_sessions: usize,
    /// How many new sessions one host may open in a second.
    pub sessions_per_second_per_host: u32,
    /// What a mapping depends on.
    pub mapping: Dependence,
    /// What inbound packets are filtered by.
    pub filtering: Dependence,
    /// Whether inside hosts reach each other by their external endpoints.
    pub hairpinning: bool,
    /// Whether inbound packets keep a UDP or ICMP session alive, too (RFC 4787
    /// REQ-6a).
    pub inbound_refresh: bool,
    /// Destinations that are not translated for: prefix and its length (RFC 6888
    /// REQ-6).
    pub untranslated: Vec<(Ipv4Addr, u8)>,
    /// How long sessions last.
    pub timeouts: Timeouts,
}

impl NaptConfig {
    /// A NAPT of these ports and addresses, the rest by default.
    pub fn new(name: &str, inside: Vec<PortId>, outside: PortId, addresses: Vec<Ipv4Addr>) -> Self {
        NaptConfig {
            name: name.to_owned(),
            inside,
            outside,
            addresses,
            ports: DEFAULT_PORTS,
            block_size: 128,
            max_blocks_per_host: 8,
            max_sessions_per_host: 2048,
            max_sessions: 65_536,
            sessions_per_second_per_host: 500,
            mapping: Dependence::EndpointIndependent,
            filtering: Dependence::AddressDependent,
            hairpinning: true,
            inbound_refresh: false,
            untranslated: Vec::new(),
            timeouts: Timeouts::default(),
        }
    }
}
