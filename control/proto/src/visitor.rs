//! A foreign agent's visitors and pending registrations: the records of RFC 5944
//! §3.7.1, from which the forwarding state is derived.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use core::time::Duration;
use homeport_wire::{MacAddress, PortId};

use crate::action::VisitorState;
use crate::foreign_agent::Asker;
use crate::foreign_agent::challenge::Issued;
use crate::message::{Identification, RegistrationRequest, RevocationSupport};
use crate::revocation::Agreement;
use crate::{Instant, Lifetime};

/// Whom a NAI names (RFC 2794).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VisitorName {
    /// The NAI.
    pub nai: Arc<[u8]>,
    /// Which session of it, bytes of any kind; empty: the node itself.
    pub sub_nai: Arc<[u8]>,
}

/// A node that is registered through this foreign agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// Its name, if it gave one.
    pub name: Option<Arc<VisitorName>>,
    /// The forwarding state, the node's addresses in it.
    pub state: VisitorState,
    /// The lifetime granted: the home agent's, or ours where that is less.
    pub lifetime: Lifetime,
    /// The identification of the request.
    pub identification: Identification,
    /// When the accepting reply was relayed.
    pub registered_at: Instant,
    /// When it ends; `None` is never.
    pub expires: Option<Instant>,
    /// How often its UDP tunnel is kept alive, if it has one.
    pub keepalive: Option<Duration>,
    /// What was agreed on with its home agent about revocations.
    pub(crate) revocation: Option<Agreement>,
}

/// Who asked, and how to answer on the link that the question came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// The link.
    pub port: PortId,
    /// The node's link-layer address.
    pub mac: MacAddress,
    /// Source of the request.
    pub source: Ipv4Addr,
    /// Destination of the request, or our address on the link when that was a
    /// group: the source of every answer.
    pub destination: Ipv4Addr,
    /// The UDP port to answer to.
    pub source_port: u16,
    /// The fixed part of the request.
    pub request: RegistrationRequest,
    /// Bytes of the whole request.
    pub request_len: usize,
    /// Whom it is for: its Home Agent field, or who was found where that leaves it open
    /// (RFC 4433 §5.2).
    pub home_agent: Ipv4Addr,
}

/// A request that was relayed and not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRegistration {
    /// Who asked.
    pub station: Station,
    /// Whether the home agent was asked for a UDP tunnel (RFC 3519 §4.5).
    pub asked_udp_tunnel: bool,
    /// Whether the encapsulating delivery style was asked for (RFC 3024 §3.3).
    pub encapsulating_delivery: bool,
    /// Who it is for, as it says.
    pub(crate) asker: Asker,
    /// The challenge of ours that it answers (RFC 4721 §3.3).
    pub(crate) challenge: Option<Issued>,
    /// What was said of revocations, if anything was.
    pub(crate) revocation: Option<RevocationSupport>,
    /// Length and checksum of the relayed UDP datagram: an ICMP error quotes at
    /// least these of it.
    pub(crate) relayed: (u16, u16),
}

impl PendingRegistration {
    /// Who it is for, if it has a NAI (RFC 2794 §3).
    pub fn name(&self) -> Option<&VisitorName> {
        self.asker.name.as_deref()
    }
}

/// Home address, link-layer address, low half of the identification, home agent.
pub(crate) type PendingKey = (Ipv4Addr, MacAddress, u32, Ipv4Addr);

/// The keys of all pending requests for a home address from a range of stations.
pub(crate) const fn pending_range(
    home_address: Ipv4Addr,
    first: MacAddress,
    last: MacAddress,
) -> RangeInclusive<PendingKey> {
    RangeInclusive::new(
        (home_address, first, 0, Ipv4Addr::UNSPECIFIED),
        (home_address, last, u32::MAX, Ipv4Addr::BROADCAST),
    )
}

/// Pending registrations. All of one node stand together.
pub(crate) type PendingList = BTreeMap<PendingKey, PendingRegistration>;

/// Home address and home agent: two nodes may have one home address, if they are of
/// different home networks.
pub(crate) type VisitorKey = (Ipv4Addr, Ipv4Addr);

/// The visitor list. All visitors of one home address stand together.
pub(crate) type VisitorList = BTreeMap<VisitorKey, Visitor>;
