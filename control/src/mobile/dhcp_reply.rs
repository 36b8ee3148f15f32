//! A DHCP server's message, as far as the client reads it (RFC 2131 §2, RFC 2132).
//!
//! This is ours, because what a stranger on the link can send must not end the
//! program: `dhcproto` 0.15 panics on a hardware address longer than its field and
//! on some options that nobody here asks for.
//!
//! **Not done:** options in the fields of server and file name (option 52).

use std::net::Ipv4Addr;
use std::time::Duration;

use homeport_proto::MacAddress;
use zerocopy::byteorder::network_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const ETHERNET_LEN: u8 = 6;

/// What says that options follow (RFC 2131 §3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// Options of RFC 2132, and of RFC 4039.
const PAD: u8 = 0;
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const RAPID_COMMIT: u8 = 80;
const END: u8 = 255;

/// The fixed part.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    operation: u8,
    hardware_type: u8,
    hardware_len: u8,
    hops: u8,
    transaction: U32,
    seconds: [u8; 2],
    flags: [u8; 2],
    client_address: [u8; 4],
    your_address: [u8; 4],
    server_address: [u8; 4],
    relay_address: [u8; 4],
    client_hardware: [u8; 6],
    padding: [u8; 10],
    server_name: [u8; 64],
    file: [u8; 128],
    magic: [u8; 4],
}

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
        let (layout, mut options) = Layout::ref_from_prefix(bytes).ok()?;
        let ethernet = layout.hardware_type == ETHERNET && layout.hardware_len == ETHERNET_LEN;
        if layout.operation != BOOT_REPLY || !ethernet || layout.magic != MAGIC {
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
        while let Some((&code, rest)) = options.split_first() {
            options = rest;
            if code == PAD {
                continue;
            }
            if code == END {
                break;
            }
            let (&len, rest) = options.split_first()?;
            let (data, rest) = rest.split_at_checked(usize::from(len))?;
            options = rest;
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
        }
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

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from)
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
