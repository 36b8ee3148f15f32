//! What crosses between RX cores and the control core, as plain data: a header
//! of fixed layout and a packet's bytes. The same messages cross a ring inside
//! one process and a shared-memory ring between two.

use homeport_wire::{PortId, TenantId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::verdict::PuntReason;

/// In front of a punted frame. Native byte order: it never leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PuntHeader {
    /// Whose packet it is.
    tenant: u32,
    /// Bytes of the frame that follows.
    len: u16,
    /// The port that it came in on.
    port: u16,
    /// A [`PuntReason`] by number.
    reason: u8,
    zero: [u8; 3],
    /// [`PuntReason::ResolveNeighbor`]: the next hop; else zero.
    next_hop: [u8; 4],
}

impl PuntHeader {
    /// A header with these fields.
    pub const fn new(tenant: TenantId, port: PortId, reason: PuntReason, len: u16) -> Self {
        PuntHeader {
            tenant: tenant.0,
            len,
            port: port.0,
            reason: reason as u8,
            zero: [0; 3],
            next_hop: [0; 4],
        }
    }

    /// The same header, naming the next hop to resolve.
    #[must_use]
    pub const fn with_next_hop(mut self, next_hop: std::net::Ipv4Addr) -> Self {
        self.next_hop = next_hop.octets();
        self
    }

    /// Whose packet it is.
    pub const fn tenant(&self) -> TenantId {
        TenantId(self.tenant)
    }

    /// The port that it came in on; for [`PuntReason::ResolveNeighbor`] the port
    /// that it shall leave by.
    pub const fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// Why it was punted; `None` when the number is unknown.
    pub fn reason(&self) -> Option<PuntReason> {
        PuntReason::from_u8(self.reason)
    }

    /// Bytes of the frame that follows: from the Ethernet header on.
    pub const fn frame_len(&self) -> usize {
        self.len as usize
    }

    /// The next hop to resolve.
    pub const fn next_hop(&self) -> std::net::Ipv4Addr {
        let [a, b, c, d] = self.next_hop;
        std::net::Ipv4Addr::new(a, b, c, d)
    }
}

/// What the control core hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InjectKind {
    /// A whole Ethernet frame, to leave by the named port as it is.
    Frame,
    /// An IPv4 packet, to be routed (and tunnelled, if its destination has a
    /// binding) like a packet of the tenant.
    Routed,
}

/// In front of injected bytes. Native byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InjectHeader {
    tenant: u32,
    len: u16,
    port: u16,
    kind: u8,
    zero: [u8; 3],
}

impl InjectHeader {
    /// A header with these fields; `port` is ignored for [`InjectKind::Routed`].
    pub const fn new(tenant: TenantId, port: PortId, kind: InjectKind, len: u16) -> Self {
        InjectHeader { tenant: tenant.0, len, port: port.0, kind: kind as u8, zero: [0; 3] }
    }

    /// On whose behalf.
    pub const fn tenant(&self) -> TenantId {
        TenantId(self.tenant)
    }

    /// The port to leave by.
    pub const fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// What follows; `None` when the number is unknown.
    pub const fn kind(&self) -> Option<InjectKind> {
        match self.kind {
            0 => Some(InjectKind::Frame),
            1 => Some(InjectKind::Routed),
            _ => None,
        }
    }

    /// Bytes that follow.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether none follow.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}
