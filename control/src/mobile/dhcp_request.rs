//! A DHCP client's message, as far as the server reads it (RFC 2131 §4.3, RFC 2132).

use std::net::Ipv4Addr;

use homeport_proto::MacAddress;

use super::dhcp_format::{Layout, MESSAGE_TYPE, SERVER, address, each_option};

const BOOT_REQUEST: u8 = 1;

/// The flag of a client that hears only what is broadcast (RFC 2131 §2).
const BROADCAST: u16 = 0x8000;

/// Options of RFC 2132.
const HOST_NAME: u8 = 12;
const REQUESTED_ADDRESS: u8 = 50;
const CLIENT_ID: u8 = 61;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It looks for a server.
    Discover,
    /// It takes an offer, or wants to keep what it has.
    Request,
    /// The address that it was given is somebody else's.
    Decline,
    /// It gives the address back.
    Release,
    /// It has an address, and asks for the rest.
    Inform,
}

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it wants.
    pub kind: Kind,
    /// Which question this is.
    pub transaction: u32,
    /// Who asks.
    pub client: MacAddress,
    /// Whether answers must be broadcast.
    pub broadcast: bool,
    /// The address that it uses already; unspecified when it has none.
    pub client_address: Ipv4Addr,
    /// The relay that has sent it on; unspecified on its own link.
    pub relay: Ipv4Addr,
    /// The address that it wants.
    pub requested: Option<Ipv4Addr>,
    /// The server that it means.
    pub server: Option<Ipv4Addr>,
    /// Its client identifier, with the type in front; empty when it has none.
    pub client_id: Vec<u8>,
    /// Its host name, without zeros at the end; empty when it has none.
    pub host_name: Vec<u8>,
}

impl Request {
    /// The message in a datagram's data; `None` when it is no Ethernet client's, or an
    /// option reaches past its end.
    pub fn parse(bytes: &[u8]) -> Option<Request> {
        let (layout, options) = Layout::split(bytes)?;
        if layout.operation != BOOT_REQUEST {
            return None;
        }
        let mut kind = None;
        let mut request = Request {
            kind: Kind::Inform,
            transaction: layout.transaction.get(),
            client: MacAddress(layout.client_hardware),
            broadcast: layout.flags.get() & BROADCAST != 0,
            client_address: layout.client_address.into(),
            relay: layout.relay_address.into(),
            requested: None,
            server: None,
            client_id: Vec::new(),
            host_name: Vec::new(),
        };
        each_option(options, |code, data| {
            match code {
                MESSAGE_TYPE => kind = Some(kind_of(data)?),
                SERVER => request.server = Some(address(data)?),
                REQUESTED_ADDRESS => request.requested = Some(address(data)?),
                // What is longer than one option comes in several (RFC 3396 §5).
                CLIENT_ID => request.client_id.extend_from_slice(data),
                HOST_NAME => request.host_name.extend_from_slice(data),
                _ => {}
            }
            Some(())
        })?;
        while request.host_name.last() == Some(&0) {
            request.host_name.pop();
        }
        Some(Request { kind: kind?, ..request })
    }
}

fn kind_of(data: &[u8]) -> Option<Kind> {
    match data {
        [1] => Some(Kind::Discover),
        [3] => Some(Kind::Request),
        [4] => Some(Kind::Decline),
        [7] => Some(Kind::Release),
        [8] => Some(Kind::Inform),
        _ => None,
    }
}
