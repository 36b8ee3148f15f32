//! What may come out of a tunnel that ends here, and where it goes then.

use std::net::Ipv4Addr;

use homeport_wire::TenantId;
use homeport_wire::icmpv4::{ECHO_REPLY, ECHO_REQUEST};

use super::{Bound, Origin, Tables, sender};
use crate::decap::Opened;
use crate::parse::Ipv4Facts;
use crate::table::binding::{Encapsulation, TunnelEnd, TunnelFlags};
use crate::table::local::{LocalEntry, LocalKey};
use crate::table::visitor::{Found, ReverseTunnel, VisitorEntry};
use crate::verdict::DropReason;

/// Where a packet goes that leaves a tunnel here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelClass<'t> {
    /// To the visitor that it is for (foreign agent, forward tunnel).
    Visitor(&'t VisitorEntry),
    /// On to the home agent of the visitor that sent it (foreign agent,
    /// encapsulating delivery, RFC 3024 §5.2).
    ReverseTunnel(&'t VisitorEntry),
    /// Wherever its destination says (home agent, reverse tunnel). `None`: the inner
    /// one of a mobile router's two tunnels (RFC 5177 §7).
    Home(Option<ReverseEnd<'t>>),
    /// Back through its tunnel: an echo request to the home agent out of a UDP tunnel
    /// (RFC 3519 §4.9).
    Keepalive(ReverseEnd<'t>),
    /// To the control core: an echo reply to the home agent, from an address that is
    /// not proven.
    Proof(ReverseEnd<'t>),
    /// To the control core: an echo request out of a half-bound tunnel, from the
    /// right address. Its port is the tunnel's (RFC 3519 §4.6).
    FirstKeepalive,
    /// Nowhere: all is right but the UDP port. The control core is told.
    Rebound,
}

/// The tunnel that a packet came back through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReverseEnd<'t> {
    /// Whose tunnel it is.
    pub bound: Bound<'t>,
    /// The tunnel.
    pub end: &'t TunnelEnd,
}

/// Whether a tunnelled packet may leave its tunnel at the address `local`, and
/// where it goes then (RFC 3024 §4.3.2, RFC 3519 §4.3, RFC 5944 §3.7.3, §4.2.2).
///
/// # Errors
/// The reason to drop the packet. Nothing is reported to the sender: a foreign
/// agent drops what is for no visitor in silence (RFC 5944 §4.2.2).
pub fn classify_tunnelled<'t>(
    outer: &Ipv4Facts,
    opened: &Opened,
    origin: &Origin,
    local: &LocalEntry,
    tables: &'t Tables,
) -> Result<TunnelClass<'t>, DropReason> {
    let tenant = local.tenant;
    if (local.care_of_address || local.agent)
        && let Some(visitor) = sender(outer.source, origin, tenant, tables)?
    {
        return from_visitor(outer, opened, visitor);
    }
    if local.care_of_address {
        match tables.visitors.of_home_agent(tenant, opened.inner.destination, outer.source) {
            Found::Visitor(visitor) => return to_visitor(outer, opened, visitor),
            Found::Other(_) => return Err(DropReason::OuterSourceMismatch),
            Found::Nobody => {}
        }
    }
    if local.home_agent {
        from_bound_node(outer, opened, origin, tenant, tables)
    } else {
        Err(DropReason::NoVisitor)
    }
}

/// Encapsulating delivery: the visitor tunnels to its foreign agent what shall go
/// on to its home agent.
fn from_visitor<'t>(
    outer: &Ipv4Facts,
    opened: &Opened,
    visitor: &'t VisitorEntry,
) -> Result<TunnelClass<'t>, DropReason> {
    if opened.inner.source != outer.source {
        return Err(DropReason::InnerSourceMismatch);
    }
    match visitor.reverse_tunnel {
        ReverseTunnel::Encapsulating => {}
        ReverseTunnel::None | ReverseTunnel::Direct => {
            return Err(DropReason::ReverseTunnelNotGranted);
        }
    }
    check(Encapsulation::IpInIp, opened.encapsulation)?;
    Ok(TunnelClass::ReverseTunnel(visitor))
}

/// The forward tunnel's end at the foreign agent: it comes from the visitor's home
/// agent.
fn to_visitor<'t>(
    outer: &Ipv4Facts,
    opened: &Opened,
    visitor: &'t VisitorEntry,
) -> Result<TunnelClass<'t>, DropReason> {
    if outer.destination != visitor.care_of_address {
        return Err(DropReason::OuterDestinationMismatch);
    }
    check(visitor.encapsulation, opened.encapsulation)?;
    Ok(TunnelClass::Visitor(visitor))
}

/// The reverse tunnel's end at the home agent: the inner source must be bound to
/// the outer one (RFC 3024 §4.3.2), and the tunnel be the negotiated one in all that
/// there is to it (RFC 3519 §4.3).
///
/// It is found by the inner source alone. So a hundred nodes behind one NAT, or with
/// one private address behind two, are nothing special.
fn from_bound_node<'t>(
    outer: &Ipv4Facts,
    opened: &Opened,
    origin: &Origin,
    tenant: TenantId,
    tables: &'t Tables,
) -> Result<TunnelClass<'t>, DropReason> {
    let inner = &opened.inner;
    if is_martian(inner.source, tables) {
        return Err(DropReason::MartianSource);
    }
    let bound = tables.bound(tenant, inner.source).ok_or(DropReason::NoBinding)?;
    if outer.destination != bound.entry.home_agent {
        return Err(DropReason::OuterDestinationMismatch);
    }
    // A mobile router behind a foreign agent has a second tunnel inside the first,
    // from its home address (RFC 5177 §7). What came out of a tunnel with a home
    // address as its source came out of that node's.
    if matches!(origin, Origin::Tunnel) && outer.source == bound.home_address {
        check(Encapsulation::IpInIp, opened.encapsulation)?;
        return Ok(TunnelClass::Home(None));
    }
    let is_end = |end: &&TunnelEnd| {
        #[cfg(feature = "planted-bugs")]
        if opened.encapsulation == Encapsulation::Minimal
            && crate::planted::is(crate::planted::Bug::MinimalSourceUnchecked)
        {
            return true;
        }
        end.care_of_address() == outer.source
    };
    let ends = || bound.entry.tunnels().iter().filter(is_end);
    let is_right = |end: &&TunnelEnd| check(end.encapsulation(), opened.encapsulation).is_ok();
    if let Some(end) = ends().find(is_right) {
        return from_its_tunnel(outer, opened, ReverseEnd { bound, end });
    }
    let refusals = ends().filter_map(|end| check(end.encapsulation(), opened.encapsulation).err());
    let is_first_keepalive = || echo_with_agent(inner, &bound) == Some(ECHO_REQUEST);
    // With several tunnels to one address, the one that is nearest says why.
    match refusals.max_by_key(nearness).unwrap_or(DropReason::OuterSourceMismatch) {
        DropReason::HalfBoundTunnel if is_first_keepalive() => Ok(TunnelClass::FirstKeepalive),
        DropReason::TunnelPortMismatch => Ok(TunnelClass::Rebound),
        reason => Err(reason),
    }
}

/// Out of the tunnel that was negotiated.
fn from_its_tunnel<'t>(
    outer: &Ipv4Facts,
    opened: &Opened,
    from: ReverseEnd<'t>,
) -> Result<TunnelClass<'t>, DropReason> {
    let is_udp =
        matches!(opened.encapsulation, Encapsulation::Udp { .. } | Encapsulation::PlainUdp { .. });
    match echo_with_agent(&opened.inner, &from.bound) {
        Some(ECHO_REQUEST) if is_udp => return Ok(TunnelClass::Keepalive(from)),
        Some(ECHO_REPLY) if from.end.is(TunnelFlags::UNPROVEN) => {
            return Ok(TunnelClass::Proof(from));
        }
        _ => {}
    }
    if !from.end.is(TunnelFlags::REVERSE) {
        return Err(DropReason::ReverseTunnelNotGranted);
    }
    // RFC 2784 §3.1: a payload for the encapsulator itself must be discarded.
    let is_gre = matches!(opened.encapsulation, Encapsulation::Gre { .. });
    if is_gre && opened.inner.destination == outer.source {
        return Err(DropReason::TunnelLoop);
    }
    Ok(TunnelClass::Home(Some(from)))
}

/// Whether what arrived is what was negotiated. Who negotiated minimal encapsulation
/// gets fragments as IP in IP (RFC 2004 §3).
fn check(negotiated: Encapsulation, arrived: Encapsulation) -> Result<(), DropReason> {
    use Encapsulation::{Gre, IpInIp, Minimal, PlainUdp, Udp};
    match (negotiated, arrived) {
        (IpInIp, IpInIp) | (Minimal, Minimal | IpInIp) => Ok(()),
        (Gre { key: expected }, Gre { key }) if key == expected => Ok(()),
        (Gre { .. }, Gre { .. }) => Err(DropReason::GreKeyMismatch),
        (Udp { peer_port: 0 }, Udp { .. }) | (PlainUdp { peer_port: 0 }, PlainUdp { .. }) => {
            Err(DropReason::HalfBoundTunnel)
        }
        (Udp { peer_port: expected }, Udp { peer_port })
        | (PlainUdp { peer_port: expected }, PlainUdp { peer_port }) => {
            if peer_port == expected {
                Ok(())
            } else {
                Err(DropReason::TunnelPortMismatch)
            }
        }
        _ => Err(DropReason::EncapsulationMismatch),
    }
}

fn nearness(reason: &DropReason) -> u8 {
    match reason {
        DropReason::HalfBoundTunnel => 2,
        DropReason::TunnelPortMismatch | DropReason::GreKeyMismatch => 1,
        _ => 0,
    }
}

/// The type of an ICMP message between the node itself and its home agent.
fn echo_with_agent(inner: &Ipv4Facts, bound: &Bound<'_>) -> Option<u8> {
    let between = inner.source == bound.home_address && inner.destination == bound.entry.home_agent;
    inner.icmp_type.filter(|_| between)
}

/// Whether nobody bound can have this address.
fn is_martian(source: Ipv4Addr, tables: &Tables) -> bool {
    source.is_multicast()
        || source.is_broadcast()
        || source.is_loopback()
        || source.is_unspecified()
        || tables.locals.lookup(&LocalKey { address: source }).is_some()
}
