//! The XDP program: which frames are the dataplane's.
//!
//! It looks at each frame that an interface receives and redirects what the
//! dataplane claims (see [`Claims`]) to the socket of the frame's queue; everything
//! else goes on to the kernel as if no program were there. It is written here in
//! eBPF instructions, so that no compiler for eBPF is needed.
//!
//! Taken are, of the frames for the port's own link-layer address or for a group:
//!
//! * ARP requests for a home address on its home link, unless the node itself asks
//!   (RFC 5944 §4.6);
//! * IPv4 packets to a bound node or a claimed prefix, from a claimed source, and on
//!   the inside of a NAPT all that is not for this box;
//! * to an agent's address: registrations and tunnels, fragments that may be either,
//!   solicitations, and ICMP errors that quote a tunnel or a registration;
//! * to a translated address: its port range, and ICMP that quotes or answers it;
//! * registrations and solicitations to the groups and broadcast addresses that
//!   agents listen to (RFC 5944 §2.4).
//!
//! **Not done:** IPv6 and frames with a VLAN tag in them go to the kernel. A tag that
//! the card or a veth took off the frame is not seen: such frames are taken for
//! untagged ones, unless `ethtool -K IF rxvlan off` leaves the tag in its place.

use homeport_wire::icmpv4::{
    DESTINATION_UNREACHABLE, ECHO_REPLY, PARAMETER_PROBLEM, ROUTER_SOLICITATION, TIME_EXCEEDED,
    TIMESTAMP_REPLY,
};
use homeport_wire::{IpProtocol, MOBILE_IP_PORT, MacAddress, PortId, TenantId};

use super::bpf::Map;
use super::claims::{
    Claims, IS_AGENT, IS_BROADCAST, IS_DESTINATION, IS_SOURCE, IS_TRANSLATED, IS_TUNNEL_END,
    PROXY_ARP,
};
use super::instruction::{
    Assembler, BadJump, FRAME, Function, If, Instruction, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9,
    Size,
};

/// Which frames a port takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// What the dataplane claims.
    #[default]
    Claimed,
    /// That, and all IPv4 packets that are to be forwarded: on the inside of a NAPT.
    Transit,
    /// Every frame; the kernel gets none.
    Everything,
}

/// What one interface's program is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub(super) mac: MacAddress,
    pub(super) tenant: TenantId,
    pub(super) port: PortId,
    pub(super) scope: Scope,
}

/// Verdicts (`enum xdp_action`).
pub(super) const PASS: u32 = 2;
#[cfg(test)]
pub(super) const REDIRECT: u32 = 4;

/// Places in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const QUEUE: i16 = 16;

/// Places in a frame, from its start.
const NETWORK: i32 = 14;
const ETHER_TYPE: i16 = 12;
const VERSION: i16 = 14;
const FRAGMENT: i16 = 20;
const PROTOCOL: i16 = 23;
const SOURCE: i16 = 26;
const DESTINATION: i16 = 30;
const ARP_OPERATION: i16 = 20;
const ARP_SENDER: i16 = 28;
const ARP_TARGET: i16 = 38;
/// Bytes of the Ethernet and the shortest IPv4 header, and of an ARP frame.
const IPV4_LEN: i32 = 34;
const ARP_LEN: i32 = 42;

/// Places in an ICMP error, from the ICMP header: of the quoted packet, whose header
/// has no options as all that are sent here.
const QUOTED_VERSION: i16 = 8;
const QUOTED_PROTOCOL: i16 = 17;
const QUOTED_SOURCE: i16 = 20;
const QUOTED_PORTS: i16 = 28;
const QUOTED_IDENTIFIER: i16 = 32;
const QUOTED_LEN: i32 = 36;
/// The identifier of an ICMP query.
const IDENTIFIER: i16 = 4;

/// Places of the keys on the stack. A prefix's key is a node's with the length in
/// front.
const KEY_ADDRESS: i16 = -4;
const KEY_NODE: i16 = -8;
const KEY_PREFIX: i16 = -12;

const MORE_FRAGMENTS_AND_OFFSET: u16 = 0x3fff;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Label {
    Addressed,
    Arp,
    ArpClaim,
    ArpLink,
    NotADestination,
    NotASource,
    Local,
    Fragment,
    FragmentedUdp,
    OfAgent,
    OfTunnel,
    Udp,
    Ports,
    PortsInRange,
    Icmp,
    Answer,
    AnswerInRange,
    IcmpError,
    QuotedTunnel,
    QuotedTranslated,
    QuotedInRange,
    QuotedQuery,
    Range,
    Group,
    GroupIcmp,
    Take,
    Pass,
}

/// A 16-bit value of a frame as it is loaded from there.
const fn net16(value: u16) -> u32 {
    u16::from_ne_bytes(value.to_be_bytes()) as u32
}

/// Four bytes of a frame as they are loaded from there.
const fn net32(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

/// The program for a site: `sockets` are those of its queues.
///
/// # Errors
/// None, as long as the tests pass.
pub(super) fn program(
    site: &Site,
    claims: &Claims,
    sockets: &Map,
) -> Result<Vec<Instruction>, BadJump> {
    let mut code = Assembler::new();
    code.copy(R6, R1);
    if site.scope != Scope::Everything {
        code.load(Size::Word, R7, R6, DATA);
        code.load(Size::Word, R8, R6, DATA_END);
        look(&mut code, site, claims);
        arp(&mut code, site, claims);
        local(&mut code);
        icmp(&mut code);
        group(&mut code);
        code.label(Label::Pass);
        code.set(R0, PASS.cast_signed());
        code.exit();
        code.label(Label::Take);
    }
    code.load(Size::Word, R2, R6, QUEUE);
    code.map(R1, sockets.number());
    // Where the queue has no socket the kernel gets the frame.
    code.set(R3, PASS.cast_signed());
    code.call(Function::RedirectMap);
    code.exit();
    code.finish()
}

/// From a frame to what it is. R7 is its start, R8 its end.
fn look(code: &mut Assembler<Label>, site: &Site, claims: &Claims) {
    let MacAddress([a, b, c, d, e, f]) = site.mac;
    needs(code, R7, IPV4_LEN);
    code.load(Size::Byte, R3, R7, 0);
    code.jump_if(R3, If::AnyOf, 1, Label::Addressed);
    code.load(Size::Word, R3, R7, 0);
    code.jump_if(R3, If::NotEqual, net32([a, b, c, d]), Label::Pass);
    code.load(Size::Half, R3, R7, 4);
    code.jump_if(R3, If::NotEqual, net16(u16::from_be_bytes([e, f])), Label::Pass);
    code.label(Label::Addressed);
    code.load(Size::Half, R3, R7, ETHER_TYPE);
    code.jump_if(R3, If::Equal, net16(0x0806), Label::Arp);
    code.jump_if(R3, If::NotEqual, net16(0x0800), Label::Pass);
    code.load(Size::Byte, R3, R7, VERSION);
    code.shift_right(R3, 4);
    code.jump_if(R3, If::NotEqual, 4, Label::Pass);

    code.load(Size::Word, R3, R7, DESTINATION);
    code.store(KEY_ADDRESS, R3);
    find(code, claims.locals(), KEY_ADDRESS);
    code.jump_if_null(R0, false, Label::Local);
    code.load(Size::Word, R3, R7, DESTINATION);
    for address in [[255; 4], [224, 0, 0, 11], [224, 0, 0, 2]] {
        code.jump_if(R3, If::Equal, net32(address), Label::Group);
    }
    // What came to a group of stations is not forwarded, nor is what is for one.
    code.load(Size::Byte, R3, R7, 0);
    code.jump_if(R3, If::AnyOf, 1, Label::Pass);
    code.load(Size::Byte, R3, R7, DESTINATION);
    code.jump_if(R3, If::AtLeast, 224, Label::Pass);
    if site.scope == Scope::Transit {
        code.jump(Label::Take);
        return;
    }

    code.store_value(KEY_NODE, site.tenant.0);
    find(code, claims.nodes(), KEY_NODE);
    code.jump_if_null(R0, true, Label::NotADestination);
    code.load(Size::Word, R3, R0, 0);
    code.jump_if(R3, If::AnyOf, IS_DESTINATION, Label::Take);
    code.label(Label::NotADestination);
    code.load(Size::Word, R3, R7, SOURCE);
    code.store(KEY_ADDRESS, R3);
    find(code, claims.nodes(), KEY_NODE);
    code.jump_if_null(R0, true, Label::NotASource);
    code.load(Size::Word, R3, R0, 0);
    code.jump_if(R3, If::AnyOf, IS_SOURCE, Label::Take);
    code.label(Label::NotASource);
    code.load(Size::Word, R3, R7, DESTINATION);
    code.store(KEY_ADDRESS, R3);
    code.store_value(KEY_PREFIX, 64);
    find(code, claims.prefixes(), KEY_PREFIX);
    code.jump_if_null(R0, false, Label::Take);
    code.jump(Label::Pass);
}

/// A request for an address that the dataplane answers for on this link.
fn arp(code: &mut Assembler<Label>, site: &Site, claims: &Claims) {
    code.label(Label::Arp);
    needs(code, R7, ARP_LEN);
    code.load(Size::Half, R3, R7, ARP_OPERATION);
    code.jump_if(R3, If::NotEqual, net16(1), Label::Pass);
    code.load(Size::Word, R3, R7, ARP_SENDER);
    code.jump_if(R3, If::Equal, 0, Label::Pass);
    code.load(Size::Word, R4, R7, ARP_TARGET);
    code.jump_if_register(R3, If::Equal, R4, Label::Pass);
    code.store(KEY_ADDRESS, R4);
    code.store_value(KEY_NODE, site.tenant.0);
    find(code, claims.nodes(), KEY_NODE);
    code.jump_if_null(R0, false, Label::ArpClaim);
    code.store_value(KEY_PREFIX, 64);
    find(code, claims.prefixes(), KEY_PREFIX);
    code.jump_if_null(R0, true, Label::Pass);
    code.label(Label::ArpClaim);
    code.load(Size::Word, R3, R0, 0);
    code.jump_if(R3, If::AnyOf, PROXY_ARP, Label::ArpLink);
    code.jump(Label::Pass);
    code.label(Label::ArpLink);
    code.load(Size::Word, R3, R0, 4);
    code.jump_if(R3, If::Equal, u32::from(site.port.0), Label::Take);
    code.jump(Label::Pass);
}

/// To an address of this box; R0 is its claim. From here on R9 are its flags, R4 and
/// R5 its port range, R3 the protocol, R1 where the transport header starts.
fn local(code: &mut Assembler<Label>) {
    code.label(Label::Local);
    code.load(Size::Word, R9, R0, 0);
    code.load(Size::Half, R4, R0, 4);
    code.load(Size::Half, R5, R0, 6);
    code.jump_if(R9, If::AnyOf, IS_BROADCAST, Label::Group);
    code.load(Size::Byte, R3, R7, PROTOCOL);
    code.load(Size::Half, R2, R7, FRAGMENT);
    code.jump_if(R2, If::AnyOf, net16(MORE_FRAGMENTS_AND_OFFSET), Label::Fragment);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::IP_IN_IP), Label::OfAgent);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::GRE), Label::OfTunnel);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::MINIMAL), Label::OfTunnel);
    transport(code);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::UDP), Label::Udp);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::TCP), Label::Ports);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::ICMP), Label::Icmp);
    code.jump(Label::Pass);

    // Only the whole says what it is.
    code.label(Label::Fragment);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::GRE), Label::OfTunnel);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::MINIMAL), Label::OfTunnel);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::IP_IN_IP), Label::OfAgent);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::UDP), Label::FragmentedUdp);
    code.jump_if(R9, If::AnyOf, IS_TRANSLATED, Label::Take);
    code.jump(Label::Pass);
    code.label(Label::FragmentedUdp);
    code.jump_if(R9, If::AnyOf, IS_TRANSLATED, Label::Take);
    code.jump(Label::OfAgent);

    code.label(Label::OfTunnel);
    code.jump_if(R9, If::AnyOf, IS_TUNNEL_END, Label::Take);
    code.jump(Label::Pass);

    code.label(Label::Udp);
    code.load(Size::Half, R2, R1, 2);
    code.jump_if(R2, If::Equal, net16(MOBILE_IP_PORT), Label::OfAgent);
    code.label(Label::Ports);
    code.jump_if(R9, If::AnyOf, IS_TRANSLATED, Label::PortsInRange);
    code.jump(Label::Pass);
    code.label(Label::PortsInRange);
    code.load(Size::Half, R2, R1, 2);
    code.jump(Label::Range);
}

/// ICMP to an address of this box.
fn icmp(code: &mut Assembler<Label>) {
    code.label(Label::Icmp);
    code.load(Size::Byte, R2, R1, 0);
    code.jump_if(R2, If::Equal, u32::from(ROUTER_SOLICITATION), Label::OfAgent);
    for kind in [DESTINATION_UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM] {
        code.jump_if(R2, If::Equal, u32::from(kind), Label::IcmpError);
    }
    code.jump_if(R9, If::AnyOf, IS_TRANSLATED, Label::Answer);
    code.jump(Label::Pass);
    code.label(Label::Answer);
    code.jump_if(R2, If::Equal, u32::from(ECHO_REPLY), Label::AnswerInRange);
    code.jump_if(R2, If::NotEqual, u32::from(TIMESTAMP_REPLY), Label::Pass);
    code.label(Label::AnswerInRange);
    code.load(Size::Half, R2, R1, IDENTIFIER);
    code.jump(Label::Range);

    // About a packet that this address sent, or seems to have sent.
    code.label(Label::IcmpError);
    needs(code, R1, QUOTED_LEN);
    code.load(Size::Word, R0, R1, QUOTED_SOURCE);
    code.load(Size::Word, R2, R7, DESTINATION);
    code.jump_if_register(R0, If::NotEqual, R2, Label::Pass);
    code.load(Size::Byte, R0, R1, QUOTED_VERSION);
    code.jump_if(R0, If::NotEqual, 0x45, Label::Pass);
    code.load(Size::Byte, R0, R1, QUOTED_PROTOCOL);
    code.jump_if(R9, If::AnyOf, IS_TUNNEL_END, Label::QuotedTunnel);
    code.jump(Label::QuotedTranslated);
    code.label(Label::QuotedTunnel);
    for tunnel in [IpProtocol::IP_IN_IP, IpProtocol::GRE, IpProtocol::MINIMAL] {
        code.jump_if(R0, If::Equal, protocol(tunnel), Label::Take);
    }
    code.jump_if(R0, If::NotEqual, protocol(IpProtocol::UDP), Label::QuotedTranslated);
    for port in [QUOTED_PORTS, QUOTED_PORTS + 2] {
        code.load(Size::Half, R2, R1, port);
        code.jump_if(R2, If::Equal, net16(MOBILE_IP_PORT), Label::Take);
    }
    code.label(Label::QuotedTranslated);
    code.jump_if(R9, If::AnyOf, IS_TRANSLATED, Label::QuotedInRange);
    code.jump(Label::Pass);
    code.label(Label::QuotedInRange);
    code.jump_if(R0, If::Equal, protocol(IpProtocol::ICMP), Label::QuotedQuery);
    code.load(Size::Half, R2, R1, QUOTED_PORTS);
    code.jump(Label::Range);
    code.label(Label::QuotedQuery);
    code.load(Size::Half, R2, R1, QUOTED_IDENTIFIER);

    // R2 is a port or an identifier, in network byte order.
    code.label(Label::Range);
    code.host_order(R2);
    code.jump_if_register(R2, If::Below, R4, Label::Pass);
    code.jump_if_register(R2, If::Above, R5, Label::Pass);
    code.jump(Label::Take);

    code.label(Label::OfAgent);
    code.jump_if(R9, If::AnyOf, IS_AGENT, Label::Take);
    code.jump(Label::Pass);
}

/// Registrations and solicitations to a group or a broadcast address.
fn group(code: &mut Assembler<Label>) {
    code.label(Label::Group);
    code.load(Size::Half, R2, R7, FRAGMENT);
    code.jump_if(R2, If::AnyOf, net16(MORE_FRAGMENTS_AND_OFFSET), Label::Pass);
    code.load(Size::Byte, R3, R7, PROTOCOL);
    transport(code);
    code.jump_if(R3, If::Equal, protocol(IpProtocol::ICMP), Label::GroupIcmp);
    code.jump_if(R3, If::NotEqual, protocol(IpProtocol::UDP), Label::Pass);
    code.load(Size::Half, R2, R1, 2);
    code.jump_if(R2, If::Equal, net16(MOBILE_IP_PORT), Label::Take);
    code.jump(Label::Pass);
    code.label(Label::GroupIcmp);
    code.load(Size::Byte, R2, R1, 0);
    code.jump_if(R2, If::Equal, u32::from(ROUTER_SOLICITATION), Label::Take);
}

/// R1 becomes the transport header, of which eight bytes are there.
fn transport(code: &mut Assembler<Label>) {
    code.load(Size::Byte, R2, R7, VERSION);
    code.and(R2, 0xf);
    code.shift_left(R2, 2);
    code.jump_if(R2, If::Below, 20, Label::Pass);
    code.copy(R1, R7);
    code.add_value(R1, NETWORK);
    code.add_register(R1, R2);
    needs(code, R1, 8);
}

/// Shorter frames are the kernel's business. Changes R0 and R2.
fn needs(code: &mut Assembler<Label>, from: super::instruction::Register, len: i32) {
    code.copy(R0, from);
    code.add_value(R0, len);
    code.jump_if_register(R0, If::Above, R8, Label::Pass);
}

/// R0 becomes the value of the key at this place of the stack, or null.
fn find(code: &mut Assembler<Label>, map: &Map, key: i16) {
    code.map(R1, map.number());
    code.copy(R2, FRAME);
    code.add_value(R2, i32::from(key));
    code.call(Function::MapLookup);
}

const fn protocol(protocol: IpProtocol) -> u32 {
    protocol.0 as u32
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
