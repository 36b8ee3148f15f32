//! ICMP (RFC 792) and router discovery's two messages (RFC 1256).

use crate::{WireError, checksum};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// Echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable.
pub const DESTINATION_UNREACHABLE: u8 = 3;
/// Echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Router advertisement, which carries agent advertisements (RFC 5944 §2.1).
pub const ROUTER_ADVERTISEMENT: u8 = 9;
/// Router solicitation, identical to agent solicitation (RFC 5944 §2.2).
pub const ROUTER_SOLICITATION: u8 = 10;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Timestamp.
pub const TIMESTAMP: u8 = 13;
/// Timestamp reply.
pub const TIMESTAMP_REPLY: u8 = 14;
/// Address mask request (RFC 950).
pub const ADDRESS_MASK_REQUEST: u8 = 17;
/// Address mask reply (RFC 950).
pub const ADDRESS_MASK_REPLY: u8 = 18;

/// Code of [`DESTINATION_UNREACHABLE`]: no route to the network.
pub const NET_UNREACHABLE: u8 = 0;
/// Code of [`DESTINATION_UNREACHABLE`]: the host does not know the protocol.
pub const PROTOCOL_UNREACHABLE: u8 = 2;
/// Code of [`DESTINATION_UNREACHABLE`]: nobody listens on the port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`DESTINATION_UNREACHABLE`]: a packet with DF needs fragmentation.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Code of [`DESTINATION_UNREACHABLE`]: no route to the host.
pub const HOST_UNREACHABLE: u8 = 1;
/// Code of [`DESTINATION_UNREACHABLE`]: the way that the sender chose is closed.
pub const SOURCE_ROUTE_FAILED: u8 = 5;

/// Code of [`TIME_EXCEEDED`]: the TTL ran out.
pub const TTL_EXCEEDED: u8 = 0;
/// Code of [`TIME_EXCEEDED`]: fragments were waited for in vain.
pub const REASSEMBLY_TIME_EXCEEDED: u8 = 1;

/// The eight bytes in front of every ICMP message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmpv4Header {
    /// What kind of message.
    pub message_type: u8,
    /// The kind's variant.
    pub code: u8,
    checksum: U16,
    /// Four bytes whose meaning the type gives: identifier and sequence of an
    /// echo, next-hop MTU in the last two of Fragmentation Needed (RFC 1191).
    pub rest: [u8; 4],
}

impl Icmpv4Header {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header for `body`, its checksum filled in.
    pub fn new(message_type: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Self {
        let mut header = Icmpv4Header { message_type, code, checksum: U16::new(0), rest };
        let sum = checksum::Sum::new().add_bytes(header.as_bytes()).add_bytes(body).checksum();
        header.checksum.set(sum);
        header
    }

    /// The identifier of a query or its reply (RFC 792).
    pub const fn identifier(&self) -> u16 {
        let [high, low, ..] = self.rest;
        u16::from_be_bytes([high, low])
    }

    /// Puts another identifier in and mends the checksum (RFC 1624).
    pub fn replace_identifier(&mut self, identifier: u16) {
        let sum = checksum::update(self.checksum.get(), self.identifier(), identifier);
        self.checksum.set(sum);
        let [high, low, ..] = &mut self.rest;
        [*high, *low] = identifier.to_be_bytes();
    }

    /// Computes the checksum of the message anew; `body` is what follows the header.
    pub fn fill_checksum(&mut self, body: &[u8]) {
        self.checksum.set(0);
        let sum = checksum::Sum::new().add_bytes(self.as_bytes()).add_bytes(body).checksum();
        self.checksum.set(sum);
    }
}

/// An ICMP message whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv4Packet<'a> {
    header: &'a Icmpv4Header,
    body: &'a [u8],
}

impl<'a> Icmpv4Packet<'a> {
    /// The message in `bytes`, all of an IPv4 packet's payload.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Checksum`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, body) =
            Icmpv4Header::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
        if checksum::checksum(bytes) != 0 {
            return Err(WireError::Checksum);
        }
        Ok(Icmpv4Packet { header, body })
    }

    /// The header.
    pub const fn header(&self) -> &'a Icmpv4Header {
        self.header
    }

    /// What follows the eight bytes of the header.
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }
}
