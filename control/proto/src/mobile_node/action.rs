//! What a mobile node asks for and tells.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;
use homeport_wire::MacAddress;

use crate::event::DiscardReason;
use crate::message::{MessageString, ReplyCode};
use crate::{Encapsulation, Lifetime, ReverseTunnel};

/// A co-located care-of address, as DHCP gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoLocated {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its link's prefix in bits.
    pub prefix_len: u8,
    /// The link's router; `None` when DHCP named none.
    pub gateway: Option<Ipv4Addr>,
    /// How long it may be used from now on; `None` is for ever.
    pub lease: Option<Duration>,
}

/// How the host shall forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attachment {
    /// Not at all: what applications send is dropped in silence, so that they
    /// wait and do not fail.
    #[default]
    None,
    /// As any host of the home network.
    Home {
        /// The agent of the home link, which routes for it.
        gateway: Ipv4Addr,
        /// The agent's link-layer address.
        mac: MacAddress,
    },
    /// Through a foreign agent, which is the default router (RFC 5944 §4.2.1).
    ForeignAgent {
        /// Its address on the link.
        address: Ipv4Addr,
        /// Its link-layer address: to be used as it stands, without ARP.
        mac: MacAddress,
        /// The care-of address that was registered.
        care_of_address: Ipv4Addr,
        /// How packets go to it.
        style: ReverseTunnel,
        /// How its tunnel to the home agent encapsulates.
        encapsulation: Encapsulation,
    },
    /// By a tunnel between the node's own care-of address and the home agent.
    CoLocated {
        /// The care-of address and how it is reached.
        co_located: CoLocated,
        /// Whether the node's own packets go through the tunnel too.
        reverse_tunnel: bool,
        /// How the tunnel encapsulates; with UDP, our port is the one that
        /// requests leave from (RFC 3519 §4.4).
        encapsulation: Encapsulation,
    },
}

impl Attachment {
    /// The name for people, logs and JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Attachment::None => "none",
            Attachment::Home { .. } => "home",
            Attachment::ForeignAgent { .. } => "foreign-agent",
            Attachment::CoLocated { .. } => "co-located",
        }
    }
}

/// How a registration request leaves the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationPath {
    /// To this station on the link, in one frame: a foreign agent, or the agent
    /// of the home link.
    Link(MacAddress),
    /// Routed to the home agent, from the co-located address: which must be on
    /// the interface before.
    CoLocated(CoLocated),
}

/// A registration request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendRegistration {
    /// How it leaves.
    pub path: RegistrationPath,
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination; the UDP port is 434, the source port any, but always
    /// the same.
    pub destination: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// Something that happened, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MobileNodeEvent {
    /// The link came up, or went down.
    Link {
        /// Whether it is up.
        up: bool,
    },
    /// An agent was heard for the first time.
    AgentHeard {
        /// Its address.
        address: Ipv4Addr,
        /// Its link-layer address.
        mac: MacAddress,
        /// Whether it is one of the home link.
        home: bool,
    },
    /// An agent was not heard for its lifetime, or an agent of another prefix
    /// has taken its place, or it said goodbye.
    AgentLost {
        /// Its address.
        address: Ipv4Addr,
    },
    /// The agent of the registration started anew, and so forgot it.
    AgentRestarted {
        /// Its address.
        address: Ipv4Addr,
    },
    /// A request was sent.
    Requested {
        /// Where the tunnel shall end; the home address deregisters.
        care_of_address: Ipv4Addr,
        /// The lifetime asked for.
        lifetime: Lifetime,
        /// 1 for the first, then one more for each retransmission.
        attempt: u32,
    },
    /// A request was accepted.
    Registered {
        /// Where the tunnel ends.
        care_of_address: Ipv4Addr,
        /// The lifetime granted.
        lifetime: Lifetime,
        /// How long the reply took.
        after: Duration,
    },
    /// A deregistration was accepted: the node is at home, or stopping.
    Deregistered {
        /// How long the reply took.
        after: Duration,
    },
    /// A request was denied.
    Denied {
        /// The reply's code.
        code: ReplyCode,
    },
    /// No reply came, and another attachment is tried.
    Unanswered {
        /// The care-of address that was to be registered.
        care_of_address: Ipv4Addr,
    },
    /// The registration's lifetime ended without renewal.
    Expired {
        /// Where the tunnel ended.
        care_of_address: Ipv4Addr,
    },
    /// What a denial named was given up, and a request without it follows.
    GaveWay {
        /// The denial's code.
        code: ReplyCode,
    },
    /// A home agent has sent us to another one.
    Redirected {
        /// Who.
        from: Ipv4Addr,
        /// Whom to.
        to: Ipv4Addr,
    },
    /// A home agent has sent us where we do not go: in a circle, too far, or to one that we
    /// share no key with.
    RedirectionRefused {
        /// Who.
        from: Ipv4Addr,
        /// Whom to, if it said so.
        to: Option<Ipv4Addr>,
    },
    /// The home agent saw a NAT between us.
    NatFound {
        /// How packets get through it.
        encapsulation: Encapsulation,
    },
    /// Nothing came through the tunnel for as long as three keepalives waited:
    /// the NAT has forgotten us or changed our port, and we register anew.
    MappingLost {
        /// The keepalive interval from now on.
        interval: Duration,
    },
    /// The clock was set by the home agent's.
    ClockSet {
        /// The home agent's clock less ours, in seconds.
        offset: i64,
    },
    /// A message was discarded.
    Discarded {
        /// Who sent it.
        source: Ipv4Addr,
        /// Why.
        reason: DiscardReason,
    },
}

/// What a mobile node asks for, in the order of [`MobileNode::poll_action`](super::MobileNode::poll_action).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MobileNodeAction {
    /// Send this ICMP message to all routers of the link, with a TTL of 1 and
    /// the unspecified address as source (RFC 1256 §5.1, RFC 5944 §2.2).
    SendSolicitation {
        /// The message from its type to its end.
        icmp: Vec<u8>,
    },
    /// The home agent is this one from now on (RFC 4433): requests to it and the tunnel's
    /// other end.
    UseHomeAgent(Ipv4Addr),
    /// The node's own home address is this from now on, as the home agent says, and no other
    /// (RFC 2794); `None`: the home agent will not let it have the one that it had, and it
    /// asks for another.
    UseHomeAddress(Option<Ipv4Addr>),
    /// Send a registration request.
    SendRegistration(SendRegistration),
    /// Ask for a co-located address, and keep it.
    StartDhcp,
    /// Give the co-located address back.
    StopDhcp,
    /// Forward so from now on.
    UseAttachment(Attachment),
    /// Send this ICMP message through the tunnel, from the home address to the
    /// home agent (RFC 3519 §4.9).
    SendKeepalive {
        /// The message from its type to its end.
        icmp: Vec<u8>,
    },
    /// Tell the home link that the home address is here: one gratuitous ARP
    /// (RFC 5944 §4.6).
    AnnounceHome,
    /// The session has this home address from now on.
    UseSession {
        /// Which.
        sub_nai: Arc<[u8]>,
        /// Its home address.
        home_address: Ipv4Addr,
    },
    /// The session has no home address any more: it was removed, or the home agent will
    /// not let it have the one that it had.
    LoseSession {
        /// Which.
        sub_nai: Arc<[u8]>,
        /// What it had, unused from now on; `None`: it had none yet.
        home_address: Option<Ipv4Addr>,
    },
    /// Tell the home link that this home address of a session is here: one gratuitous
    /// ARP.
    AnnounceSession(Ipv4Addr),
    /// Show the node's user what an agent says of the last reply's code (RFC 4917).
    ShowText(Box<MessageString>),
    /// Tell the operator.
    Event(MobileNodeEvent),
    /// What [`MobileNode::handle_stop`](super::MobileNode::handle_stop) began is done.
    Stopped,
}

/// Where the node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The link is down.
    Disconnected,
    /// The link is up, and nothing to register with is known.
    Searching,
    /// A first request on this attachment awaits its reply.
    Registering,
    /// Registered away from home.
    Registered,
    /// At home, and the home agent knows.
    AtHome,
    /// Denied, and waiting before the next request.
    Denied,
    /// On the way out.
    Stopping,
}

impl Phase {
    /// The name for people, logs and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Disconnected => "disconnected",
            Phase::Searching => "searching",
            Phase::Registering => "registering",
            Phase::Registered => "registered",
            Phase::AtHome => "home",
            Phase::Denied => "denied",
            Phase::Stopping => "stopping",
        }
    }
}
