//! Which visitor sent a packet, and which way it goes.

use std::net::Ipv4Addr;

use homeport_wire::TenantId;

use super::{Origin, Tables};
use crate::parse::Ipv4Facts;
use crate::table::route::RouteEntry;
use crate::table::visitor::{Found, ReverseTunnel, VisitorEntry};
use crate::verdict::DropReason;

/// The way of a visitor's own packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Back to its home agent.
    Tunnel,
    /// By the routes of this box, behind the NAPT with this number.
    Local(Option<u16>),
    /// To its home network, and it has no tunnel to go by.
    Closed,
}

/// The visitor that sent a packet, if it was one.
///
/// # Errors
/// [`DropReason::VisitorLinkMismatch`] where the source is a visitor's and the
/// station is not. Where addresses overlap, such a station is a host of the visited
/// network, unless it has the visitor's link-layer address on another link.
pub(crate) fn sender<'t>(
    source: Ipv4Addr,
    origin: &Origin,
    tenant: TenantId,
    tables: &'t Tables,
) -> Result<Option<&'t VisitorEntry>, DropReason> {
    let Origin::Link { port, ethernet } = origin else { return Ok(None) };
    match tables.visitors.at_station(tenant, source, ethernet.source) {
        Found::Visitor(visitor) if visitor.port == *port => Ok(Some(visitor)),
        Found::Other(other) if other.overlapping => Ok(None),
        Found::Visitor(_) | Found::Other(_) => Err(DropReason::VisitorLinkMismatch),
        Found::Nobody => Ok(None),
    }
}

/// Whether a packet is of a visitor whose home address may be another's as well.
pub(super) fn may_be_anothers(
    source: Ipv4Addr,
    origin: &Origin,
    tenant: TenantId,
    tables: &Tables,
) -> bool {
    matches!(sender(source, origin, tenant, tables), Ok(Some(visitor)) if visitor.overlapping)
}

/// The way of a packet that a visitor sent. A visitor without source-restricted
/// routes costs no look-up, unless it speaks to its own address.
pub(super) fn way(
    visitor: &VisitorEntry,
    facts: &Ipv4Facts,
    tenant: TenantId,
    tables: &Tables,
) -> Way {
    let to_itself = facts.destination == facts.source && visitor.overlapping;
    if to_itself && visitor.napt.is_some() && has_twin(facts.source, tenant, tables) {
        return Way::Local(visitor.napt);
    }
    let listed =
        visitor.routes.and_then(|list| tables.source_routes.lookup(list, facts.destination));
    let Some(route) = listed else {
        return match visitor.reverse_tunnel {
            ReverseTunnel::Direct => Way::Tunnel,
            ReverseTunnel::None | ReverseTunnel::Encapsulating => Way::Local(visitor.napt),
        };
    };
    let tunnel = route.tunnel.filter(|_| visitor.reverse_tunnel != ReverseTunnel::None);
    match (tunnel, route.local) {
        (None, None) => Way::Closed,
        (None, Some(local)) => Way::Local(local.napt),
        (Some(cost), Some(local))
            if local.cost < cost && has_route(facts.destination, tenant, tables) =>
        {
            Way::Local(local.napt)
        }
        (Some(_), _) => Way::Tunnel,
    }
}

/// The visitor that a packet from a link is for, when its sender is one that the
/// visitor speaks with by the routes of this box: both ways are the short one. Where
/// another may have the address, nobody says who is meant.
pub(super) fn reached_directly<'t>(
    facts: &Ipv4Facts,
    origin: &Origin,
    tenant: TenantId,
    tables: &'t Tables,
) -> Option<&'t VisitorEntry> {
    if tables.source_routes.is_empty() || !matches!(origin, Origin::Link { .. }) {
        return None;
    }
    let visitor = tables.visitors.alone_at(tenant, facts.destination)?;
    let listed = tables.source_routes.lookup(visitor.routes?, facts.source);
    let back = Ipv4Facts { source: facts.destination, destination: facts.source, ..*facts };
    let is_short = || matches!(way(visitor, &back, tenant, tables), Way::Local(None));
    (listed.is_some() && is_short()).then_some(visitor)
}

/// Whether there is a host with a visitor's own address: a route that leads there
/// and is no default route, and on a link a station that is no visitor.
fn has_twin(address: Ipv4Addr, tenant: TenantId, tables: &Tables) -> bool {
    match tables.routes.lookup_from(1, tenant, address) {
        Some(RouteEntry::Via { port, gateway: None }) => {
            let is_visitor =
                |mac| matches!(tables.visitors.at_station(tenant, address, mac), Found::Visitor(_));
            !tables.neighbor(port, address).is_some_and(is_visitor)
        }
        Some(RouteEntry::Via { gateway: Some(_), .. }) => true,
        Some(RouteEntry::Unreachable | RouteEntry::MobileRouter { .. }) | None => false,
    }
}

fn has_route(destination: Ipv4Addr, tenant: TenantId, tables: &Tables) -> bool {
    let route = tables.routes.lookup(tenant, destination);
    matches!(route, Some(RouteEntry::Via { .. } | RouteEntry::MobileRouter { .. }))
}
