//! The veth pair of a command: one end outside, one in its namespace.

use std::net::Ipv4Addr;

use homeport_dataplane::port::interface;
use homeport_proto::MacAddress;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::host::index_of;
use crate::kernel::socket::Requests;
use crate::kernel::{KernelError, Setup};

/// Makes a pair: `name` here and up, and `inside`, with this link-layer address, in the
/// namespace of a process.
///
/// # Errors
/// What the kernel refused.
pub fn create(name: &str, inside: &str, mac: MacAddress, pid: u32) -> anyhow::Result<()> {
    let MacAddress(bytes) = mac;
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(inside.to_owned()),
        LinkAttribute::Address(bytes.to_vec()),
        LinkAttribute::NetNsPid(pid),
    ];
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    let what = format!("making the veth pair {name}");
    let message = RouteNetlinkMessage::NewLink(link);
    Requests::new()?.request(&what, message, NLM_F_CREATE | NLM_F_EXCL)?;
    interface::set_ipv6_disabled(name, true)?;
    interface::set_up(name, true)?;
    Ok(())
}

/// Gives an interface its address, and sends everything to a router on its link.
///
/// # Errors
/// What the kernel refused.
pub fn configure(name: &str, address: Ipv4Addr, router: Ipv4Addr) -> Result<(), KernelError> {
    let index = index_of(name).ok_or_else(|| KernelError::NoInterface(name.to_owned()))?;
    Setup::new()?.add_address(index, address, 32)?;
    let mut requests = Requests::new()?;
    let to_router = route(index, Some(router), None, address);
    requests.request("reaching the router", to_router, NLM_F_CREATE)?;
    let default = route(index, None, Some(router), address);
    requests.request("setting the default route", default, NLM_F_CREATE)
}

fn route(
    index: u32,
    host: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    source: Ipv4Addr,
) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = if host.is_some() { 32 } else { 0 };
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.kind = RouteType::Unicast;
    route.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let inet = RouteAddress::Inet;
    route.attributes.extend(host.map(|host| RouteAttribute::Destination(inet(host))));
    route.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(inet(gateway))));
    route.attributes.push(RouteAttribute::PrefSource(inet(source)));
    route.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(route)
}
