//! What the machines ask of the world around them.
//!
//! Each action is plain data: it may be recorded, replayed, and sent from one
//! process to another.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use homeport_wire::{MacAddress, PortId, TenantId};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::Lifetime;
use crate::config::Prefix;

/// A tunnel's encapsulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encapsulation {
    /// IP in IP, protocol 4 (RFC 2003).
    #[default]
    IpInIp,
    /// Minimal encapsulation, protocol 55 (RFC 2004).
    Minimal,
    /// Generic routing encapsulation, protocol 47 (RFC 2784).
    Gre {
        /// The key (RFC 2890, RFC 6245), if one was agreed.
        key: Option<u32>,
    },
    /// IP in UDP with a tunnel data header, our own port 434 (RFC 3519).
    Udp {
        /// The other end's port; zero while the tunnel is half-bound: it is not
        /// known before the first keepalive (RFC 3519 §4.11).
        peer_port: u16,
    },
    /// IP in UDP without a header between, our own port 434.
    PlainUdp {
        /// The other end's port.
        peer_port: u16,
    },
}

/// How a node's packets go back to its home agent (RFC 3024).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReverseTunnel {
    /// Not at all: they are routed by their destination.
    #[default]
    None,
    /// The node sends them plain to the foreign agent, which encapsulates all.
    Direct,
    /// The node encapsulates to the foreign agent what is to be tunnelled.
    Encapsulating,
}

/// The tunnels of a binding. Most have one, which takes no memory of its own.
pub type CareOfAddresses = SmallVec<[CareOf; 1]>;

/// Forwarding state of one mobility binding, whole: it replaces what was
/// installed for the same tenant and home address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingState {
    /// The virtual home agent.
    pub tenant: TenantId,
    /// The node's home address.
    pub home_address: Ipv4Addr,
    /// Outer source of what is tunnelled: the Home Agent field of the reply.
    pub home_agent: Ipv4Addr,
    /// Every current care-of address; more than one with simultaneous bindings
    /// (RFC 5944 §3.3, flag S). Never empty.
    pub care_of_addresses: CareOfAddresses,
    /// The home link to answer ARP on; `None` on a virtual home network.
    pub home_link: Option<PortId>,
    /// The networks behind the node, if it is a mobile router (RFC 5177).
    pub mobile_networks: Vec<Prefix>,
    /// Whether outer headers always have DF; else it is copied.
    pub set_df: bool,
    /// Whether TCP is told of the tunnel's MTU.
    pub clamp_mss: bool,
}

/// One tunnel of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CareOf {
    /// Where the tunnel ends: the outer address that packets go to and come from.
    /// Behind a NAT it is the NAT's (RFC 3519 §4.6).
    pub address: Ipv4Addr,
    /// The care-of address that was registered: what the node itself calls it.
    pub registered: Ipv4Addr,
    /// How it encapsulates.
    pub encapsulation: Encapsulation,
    /// Whether reverse tunnelling was granted (flag T).
    pub reverse_tunnel: bool,
    /// Whether the node decapsulates itself (flag D).
    pub co_located: bool,
    /// Whether the home network's broadcasts are wanted (flag B).
    pub broadcast: bool,
    /// Whether nobody has shown yet that the node is at `address`: what is sent
    /// there is limited until somebody has.
    pub unproven: bool,
    /// The lifetime granted with it.
    pub lifetime: Lifetime,
}

/// Forwarding state of one visitor of a foreign agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisitorState {
    /// The foreign agent's tenant.
    pub tenant: TenantId,
    /// The visitor's home address.
    pub home_address: Ipv4Addr,
    /// Its link-layer address on the visited link.
    pub mac: MacAddress,
    /// The visited link.
    pub port: PortId,
    /// The only address whose tunnel may carry packets for it.
    pub home_agent: Ipv4Addr,
    /// The care-of address that it registered with, one of ours.
    pub care_of_address: Ipv4Addr,
    /// How the tunnel encapsulates.
    pub encapsulation: Encapsulation,
    /// How its own packets go back.
    pub reverse_tunnel: ReverseTunnel,
    /// Whether its home address may be another's as well, visitor or host of the
    /// visited network.
    pub overlapping: bool,
    /// Whether outer headers always have DF; else it is copied.
    pub set_df: bool,
    /// Whether TCP is told of the tunnel's MTU.
    pub clamp_mss: bool,
}

/// What follows the IPv4 header of a [`Transmit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A UDP datagram: the header is made from the ports.
    Udp {
        /// The port that it leaves from.
        source_port: u16,
        /// The port that it goes to.
        destination_port: u16,
        /// The datagram's data.
        #[serde(with = "crate::hex")]
        data: Vec<u8>,
    },
    /// An ICMP message, from its type to its end, checksum included.
    Icmp(#[serde(with = "crate::hex")] Vec<u8>),
}

/// An IPv4 packet to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transmit {
    /// On whose behalf.
    pub tenant: TenantId,
    /// The link to send it on, and the station on that link to send it to
    /// without asking ARP. `None`: routed by its destination.
    pub link: Option<(PortId, MacAddress)>,
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// What it carries.
    pub payload: Payload,
}

/// Which address is whose: what must outlive the process, so that no address is given to
/// two sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    /// The NAI, its realm in lower case.
    #[serde(with = "crate::hex")]
    pub nai: SmallVec<[u8; 32]>,
    /// The session; empty: the node itself.
    #[serde(with = "crate::hex")]
    pub sub_nai: SmallVec<[u8; 16]>,
    /// The address.
    pub home_address: Ipv4Addr,
    /// Whether it is the session's from now on, or no more.
    pub kept: bool,
}

/// What an agent asks for, in the order of `Agent::poll_action`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Put the binding into the forwarding table, or replace it there.
    InstallBinding(BindingState),
    /// Take the binding out of the forwarding table.
    RemoveBinding {
        /// The virtual home agent.
        tenant: TenantId,
        /// The node's home address.
        home_address: Ipv4Addr,
    },
    /// Put the visitor into the forwarding table, or replace it there.
    InstallVisitor(VisitorState),
    /// Take the visitor out of the forwarding table.
    RemoveVisitor {
        /// The foreign agent's tenant.
        tenant: TenantId,
        /// The visitor's home address.
        home_address: Ipv4Addr,
        /// Its home agent.
        home_agent: Ipv4Addr,
    },
    /// Tell a link that `address` is now at `mac` (RFC 5944 §4.6). The agent
    /// itself repeats it on its schedule.
    GratuitousArp {
        /// The link.
        port: PortId,
        /// The address that moved.
        address: Ipv4Addr,
        /// Who answers for it: a station's address, or `None` for the port's own.
        mac: Option<MacAddress>,
    },
    /// Send a packet.
    Transmit(Transmit),
    /// Write down which address is whose, before anything that was pushed behind is done.
    StoreSession {
        /// The virtual home agent.
        tenant: TenantId,
        /// Its address.
        home_agent: Ipv4Addr,
        /// Which.
        session: StoredSession,
    },
    /// Tell the operator.
    Event(crate::event::Event),
}
