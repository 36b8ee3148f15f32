//! A DHCP server's message, as far as the client reads it (RFC 2131 §2, RFC 2132).

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::MacAddress;

use super::dhcp_format::{Layout, MESSAGE_TYPE, SERVER, address, each_option};

const BOOT_REPLY: u8 = 2;

/// Options of RFC 2132, and of RFC 4039.
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const LEASE_TIME: u8 = 51;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const RAPID_COMMIT: u8 = 80;

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It offers an address.
    Offer,
    /// It gives one.
    Ack,
    /// It refuses.
    Nak,
}

/// A server's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub kind: Kind,
    /// Which question it answers.
    pub transaction: u32,
    /// Whose.
    pub client: MacAddress,
    /// The address that it is about; unspecified in a refusal.
    pub address: Ipv4Addr,
    /// Who says so.
    pub server: Option<Ipv4Addr>,
    /// How long the address may be used.
    pub lease: Option<Duration>,
    /// When to renew.
    pub renewal: Option<Duration>,
    /// When to rebind.
    pub rebinding: Option<Duration>,
    /// Length of the link's prefix in bits.
    pub prefix_len: Option<u8>,
    /// The first router.
    pub router: Option<Ipv4Addr>,
    /// Whether it gives without having offered.
    pub rapid_commit: bool,
}

impl Reply {
    /// The message in a datagram's data; `None` when it is no server's to an
    /// Ethernet client, or an option reaches past its end.
    pub fn parse(bytes: &[u8]) -> Option<Reply> {
        let (layout, options) = Layout::split(bytes)?;
        if layout.operation != BOOT_REPLY {
            return None;
        }
        let mut kind = None;
        let mut reply = Reply {
            kind: Kind::Nak,
            transaction: layout.transaction.get(),
            client: MacAddress(layout.client_hardware),
            address: layout.your_address.into(),
            server: None,
            lease: None,
            renewal: None,
            rebinding: None,
            prefix_len: None,
            router: None,
            rapid_commit: false,
        };
        each_option(options, |code, data| {
            match code {
                MESSAGE_TYPE => kind = Some(kind_of(data)?),
                SERVER => reply.server = address(data),
                LEASE_TIME => reply.lease = seconds(data),
                RENEWAL_TIME => reply.renewal = seconds(data),
                REBINDING_TIME => reply.rebinding = seconds(data),
                SUBNET_MASK => reply.prefix_len = address(data).and_then(prefix_len),
                ROUTER => reply.router = data.get(..4).and_then(address),
                RAPID_COMMIT => reply.rapid_commit = true,
                _ => {}
            }
            Some(())
        })?;
        Some(Reply { kind: kind?, ..reply })
    }
}

fn kind_of(data: &[u8]) -> Option<Kind> {
    match data {
        [2] => Some(Kind::Offer),
        [5] => Some(Kind::Ack),
        [6] => Some(Kind::Nak),
        _ => None,
    }
}

fn seconds(data: &[u8]) -> Option<Duration> {
    let seconds = u32::from_be_bytes(data.try_into().ok()?);
    Some(Duration::from_secs(u64::from(seconds)))
}

/// The length of a mask of ones and then zeros; `None` for any other.
fn prefix_len(mask: Ipv4Addr) -> Option<u8> {
    let mask = mask.to_bits();
    let ones = mask.leading_ones();
    (ones == mask.count_ones()).then_some(u8::try_from(ones).ok()?)
}
