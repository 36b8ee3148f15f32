//! Header layouts and checksums of the packets that Homeport touches.
//!
//! Every header is a struct of byte arrays and big-endian integers with an
//! alignment of one, so that a reference to it can be taken anywhere in a frame
//! and in place: [`zerocopy`] checks the length and nothing is copied. Byte
//! order never leaves this crate: accessors give native integers and
//! [`core::net::Ipv4Addr`].
//!
//! * A *header* is the fixed part: `Ipv4Header::ref_from_prefix(bytes)`,
//!   `mut_from_prefix`, `as_bytes`.
//! * A *packet* is a checked view of a header and what follows it:
//!   `Ipv4Packet::new_checked(bytes)`. It has verified every length, so its
//!   accessors cannot panic, whatever the bytes are.
//!
//! Parsing never panics and never allocates. What is malformed is a
//! [`WireError`] that says which rule it broke.
#![no_std]
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod gre;
pub mod icmpv4;
pub mod id;
pub mod ipv4;
pub mod minimal;
pub mod mip_udp;
pub mod reason;
pub mod tcp;
pub mod text;
pub mod udp;

pub use arp::{ArpOperation, ArpPacket};
pub use ethernet::{EtherType, EthernetHeader, MacAddress};
pub use gre::{GreHeader, GrePacket, KeyedGreHeader};
pub use id::{PortId, TenantId};
pub use ipv4::{IpProtocol, Ipv4Header, Ipv4Packet};
pub use minimal::{MinimalHeader, MinimalPacket, SourcedMinimalHeader};
pub use mip_udp::{MobileIpPayload, TunnelDataHeader, TunnelDataPacket};
pub use udp::{UdpHeader, UdpPacket};

#[doc(hidden)]
pub use serde;

/// The UDP port of Mobile IP registration (RFC 5944 §3.3).
pub const MOBILE_IP_PORT: u16 = 434;

/// Why bytes are not the packet that they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireError {
    /// The buffer ends before the fixed header does.
    Truncated,
    /// A version field has a value that this layout does not describe.
    Version,
    /// A header length field is below its minimum or past the buffer.
    HeaderLength,
    /// A total or payload length field is below its minimum or past the buffer.
    Length,
    /// A checksum does not match.
    Checksum,
    /// An address, hardware or message type that this layout does not describe.
    Format,
    /// Bits are set that a receiver must not read over.
    Reserved,
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            WireError::Truncated => "ends inside a header",
            WireError::Version => "unknown version",
            WireError::HeaderLength => "impossible header length",
            WireError::Length => "length field disagrees with the bytes",
            WireError::Checksum => "wrong checksum",
            WireError::Format => "unknown address or message format",
            WireError::Reserved => "reserved bits are set",
        })
    }
}

impl core::error::Error for WireError {}
