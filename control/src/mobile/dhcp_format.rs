//! The format of DHCP messages (RFC 2131 §2, RFC 2132), as far as the client and the
//! server read them: the fixed part, and a walk over the options.
//!
//! This is ours, because what a stranger on the link can send must not end the
//! program: `dhcproto` 0.15 panics on a hardware address longer than its field and
//! on some options that nobody here asks for.
//!
//! **Not done:** options in the fields of server and file name (option 52).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

const ETHERNET: u8 = 1;
const ETHERNET_LEN: u8 = 6;

/// What says that options follow (RFC 2131 §3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];

const PAD: u8 = 0;
const END: u8 = 255;

/// The option with a message's type.
pub(super) const MESSAGE_TYPE: u8 = 53;
/// The option with the server's address.
pub(super) const SERVER: u8 = 54;

/// The fixed part.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Layout {
    pub(super) operation: u8,
    hardware_type: u8,
    hardware_len: u8,
    hops: u8,
    pub(super) transaction: U32,
    seconds: [u8; 2],
    pub(super) flags: U16,
    pub(super) client_address: [u8; 4],
    pub(super) your_address: [u8; 4],
    server_address: [u8; 4],
    pub(super) relay_address: [u8; 4],
    pub(super) client_hardware: [u8; 6],
    padding: [u8; 10],
    server_name: [u8; 64],
    file: [u8; 128],
    magic: [u8; 4],
}

impl Layout {
    /// The fixed part of a message about an Ethernet client, and its options.
    pub(super) fn split(bytes: &[u8]) -> Option<(&Layout, &[u8])> {
        let (layout, options) = Layout::ref_from_prefix(bytes).ok()?;
        let ethernet = layout.hardware_type == ETHERNET && layout.hardware_len == ETHERNET_LEN;
        (ethernet && layout.magic == MAGIC).then_some((layout, options))
    }
}

/// Visits each option: its code and its data. `None` when one reaches past the end, or
/// when `visit` says so.
pub(super) fn each_option<'a>(
    mut options: &'a [u8],
    mut visit: impl FnMut(u8, &'a [u8]) -> Option<()>,
) -> Option<()> {
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
        visit(code, data)?;
    }
    Some(())
}

/// The address in an option.
pub(super) fn address(data: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from)
}
