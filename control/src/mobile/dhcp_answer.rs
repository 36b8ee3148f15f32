//! What the DHCP server says, and to whom (RFC 2131 §4.1, §4.3.1).

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode};
use homeport_proto::MacAddress;
use homeport_proto::config::Prefix;

use super::dhcp_request::Request;
use super::dhcp_server::{Output, ServerConfig};
use super::frame::Station;

/// The shortest message that every client takes (RFC 1542 §2.1).
pub(super) const SHORTEST: usize = 300;

const ALL: Station = Station { mac: MacAddress::BROADCAST, address: Ipv4Addr::BROADCAST };

/// An answer that gives `address` for a lease; without one nothing is leased, and only
/// the rest is told. `None` when it cannot be encoded.
pub(super) fn giving(
    config: &ServerConfig,
    request: &Request,
    kind: MessageType,
    address: Ipv4Addr,
) -> Option<Output> {
    let mut message = empty(config, request, kind);
    message.set_yiaddr(address);
    if kind == MessageType::Ack {
        message.set_ciaddr(request.client_address);
    }
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let options = message.opts_mut();
    if !address.is_unspecified() {
        options.insert(DhcpOption::AddressLeaseTime(seconds(config.lease)));
        options.insert(DhcpOption::Renewal(seconds(config.lease / 2)));
        options.insert(DhcpOption::Rebinding(seconds(config.lease * 7 / 8)));
    }
    options.insert(DhcpOption::SubnetMask(mask(config.prefix)));
    options.insert(DhcpOption::Router(vec![config.router]));
    if !config.name_servers.is_empty() {
        options.insert(DhcpOption::DomainNameServer(config.name_servers.clone()));
    }
    let to = match (request.client_address, request.broadcast) {
        (Ipv4Addr::UNSPECIFIED, true) => ALL,
        // It answers no ARP for the address yet.
        (Ipv4Addr::UNSPECIFIED, false) => Station { mac: request.client, address },
        (has, _) => Station { mac: request.client, address: has },
    };
    send(&message, to)
}

/// A refusal: the client must begin anew. All hear it, as it may have an address that is
/// wrong here (RFC 2131 §4.3.2).
pub(super) fn refusing(config: &ServerConfig, request: &Request) -> Option<Output> {
    let mut message = empty(config, request, MessageType::Nak);
    message.set_flags(Flags::default().set_broadcast());
    send(&message, ALL)
}

fn empty(config: &ServerConfig, request: &Request, kind: MessageType) -> Message {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let MacAddress(mac) = request.client;
    let mut message =
        Message::new_with_id(request.transaction, nobody, nobody, nobody, nobody, &mac);
    message.set_opcode(Opcode::BootReply);
    if request.broadcast {
        message.set_flags(Flags::default().set_broadcast());
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(config.router));
    if !request.client_id.is_empty() {
        // RFC 6842 §3.
        options.insert(DhcpOption::ClientIdentifier(request.client_id.clone()));
    }
    message
}

fn send(message: &Message, to: Station) -> Option<Output> {
    let mut payload = message.to_vec().ok()?;
    payload.resize(payload.len().max(SHORTEST), 0);
    Some(Output::Send { to, payload })
}

fn mask(prefix: Prefix) -> Ipv4Addr {
    let ones = u32::from(prefix.prefix_len());
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - ones).unwrap_or(0))
}
