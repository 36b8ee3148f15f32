//! What may come out of a tunnel that ends here, and where it goes then.

use super::{Origin, Tables};
use crate::parse::Ipv4Facts;
use crate::table::binding::{Encapsulation, TunnelFlags};
use crate::table::local::{LocalEntry, LocalKey};
use crate::table::visitor::{ReverseTunnel, VisitorEntry};
use crate::verdict::DropReason;
use homeport_wire::TenantId;

/// Where a packet goes that leaves a tunnel here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelClass<'t> {
    /// To the visitor that it is for (foreign agent, forward tunnel).
    Visitor(&'t VisitorEntry),
    /// On to the home agent of the visitor that sent it (foreign agent,
    /// encapsulating delivery, RFC 3024 §5.2).
    ReverseTunnel(&'t VisitorEntry),
    /// Wherever its destination says (home agent, reverse tunnel).
    Home,
}

/// Whether a tunnelled packet may leave its tunnel at the address `local`, and
/// where it goes then (RFC 3024 §4.3.2, RFC 5944 §3.7.3, §4.2.2).
///
/// # Errors
/// The reason to drop the packet. Nothing is reported to the sender: a foreign
/// agent drops what is for no visitor in silence (RFC 5944 §4.2.2).
pub fn classify_tunnelled<'t>(
    outer: &Ipv4Facts,
    inner: &Ipv4Facts,
    origin: &Origin,
    local: &LocalEntry,
    tables: &'t Tables,
) -> Result<TunnelClass<'t>, DropReason> {
    let tenant = local.tenant;
    if (local.care_of_address || local.agent)
        && let Some(visitor) = tables.visitor(tenant, outer.source)
    {
        return from_visitor(outer, inner, origin, visitor);
    }
    if local.care_of_address
        && let Some(visitor) = tables.visitor(tenant, inner.destination)
    {
        return if outer.source == visitor.home_agent {
            Ok(TunnelClass::Visitor(visitor))
        } else {
            Err(DropReason::OuterSourceMismatch)
        };
    }
    if local.home_agent {
        from_bound_node(outer, inner, tenant, tables)
    } else {
        Err(DropReason::NoVisitor)
    }
}

/// Encapsulating delivery: the visitor tunnels to its foreign agent what shall go
/// on to its home agent.
fn from_visitor<'t>(
    outer: &Ipv4Facts,
    inner: &Ipv4Facts,
    origin: &Origin,
    visitor: &'t VisitorEntry,
) -> Result<TunnelClass<'t>, DropReason> {
    let on_its_link = matches!(
        origin,
        Origin::Link { port, ethernet } if *port == visitor.port && ethernet.source == visitor.mac
    );
    if !on_its_link {
        return Err(DropReason::VisitorLinkMismatch);
    }
    if inner.source != outer.source {
        return Err(DropReason::InnerSourceMismatch);
    }
    match visitor.reverse_tunnel {
        ReverseTunnel::Encapsulating => Ok(TunnelClass::ReverseTunnel(visitor)),
        ReverseTunnel::None | ReverseTunnel::Direct => Err(DropReason::ReverseTunnelNotGranted),
    }
}

/// The reverse tunnel's end at the home agent: the inner source must be bound to
/// the outer one (RFC 3024 §4.3.2).
fn from_bound_node<'t>(
    outer: &Ipv4Facts,
    inner: &Ipv4Facts,
    tenant: TenantId,
    tables: &Tables,
) -> Result<TunnelClass<'t>, DropReason> {
    let source = inner.source;
    let is_martian = source.is_multicast()
        || source.is_broadcast()
        || source.is_loopback()
        || source.is_unspecified()
        || tables.locals.lookup(&LocalKey { address: source }).is_some();
    if is_martian {
        return Err(DropReason::MartianSource);
    }
    let binding = tables.binding(tenant, source).ok_or(DropReason::NoBinding)?;
    let tunnel = binding
        .tunnels()
        .iter()
        .find(|tunnel| tunnel.care_of_address() == outer.source)
        .ok_or(DropReason::OuterSourceMismatch)?;
    if !tunnel.is(TunnelFlags::REVERSE) {
        return Err(DropReason::ReverseTunnelNotGranted);
    }
    match tunnel.encapsulation() {
        Encapsulation::IpInIp => Ok(TunnelClass::Home),
        _ => Err(DropReason::EncapsulationMismatch),
    }
}
