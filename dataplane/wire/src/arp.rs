//! ARP for IPv4 over Ethernet (RFC 826).

use crate::{MacAddress, WireError};
use core::net::Ipv4Addr;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// What an ARP packet asks or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpOperation(pub u16);

impl ArpOperation {
    /// Who has the target address?
    pub const REQUEST: ArpOperation = ArpOperation(1);
    /// The sender has its address.
    pub const REPLY: ArpOperation = ArpOperation(2);
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    hardware_type: U16,
    protocol_type: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    /// Link-layer address of the sender.
    pub sender_mac: MacAddress,
    sender_address: [u8; 4],
    /// Link-layer address of the target; zero in a request.
    pub target_mac: MacAddress,
    target_address: [u8; 4],
}

impl ArpPacket {
    /// Bytes of the packet.
    pub const LEN: usize = 28;

    /// A packet with these fields.
    pub const fn new(
        operation: ArpOperation,
        sender_mac: MacAddress,
        sender_address: Ipv4Addr,
        target_mac: MacAddress,
        target_address: Ipv4Addr,
    ) -> Self {
        ArpPacket {
            hardware_type: U16::new(1),
            protocol_type: U16::new(0x0800),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation.0),
            sender_mac,
            sender_address: sender_address.octets(),
            target_mac,
            target_address: target_address.octets(),
        }
    }

    /// A gratuitous ARP request: `address` is at `mac` (RFC 5944 §4.6).
    pub const fn gratuitous(address: Ipv4Addr, mac: MacAddress) -> Self {
        Self::new(ArpOperation::REQUEST, mac, address, MacAddress::UNSPECIFIED, address)
    }

    /// The ARP packet at the start of `bytes`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 28 bytes, [`WireError::Format`] when it is
    /// not for IPv4 over Ethernet.
    pub fn new_checked(bytes: &[u8]) -> Result<&Self, WireError> {
        let (packet, _) = Self::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
        let ethernet_ipv4 = packet.hardware_type.get() == 1
            && packet.protocol_type.get() == 0x0800
            && packet.hardware_len == 6
            && packet.protocol_len == 4;
        if ethernet_ipv4 { Ok(packet) } else { Err(WireError::Format) }
    }

    /// What it asks or tells.
    pub fn operation(&self) -> ArpOperation {
        ArpOperation(self.operation.get())
    }

    /// IPv4 address of the sender.
    pub const fn sender_address(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.sender_address;
        Ipv4Addr::new(a, b, c, d)
    }

    /// IPv4 address that is asked for.
    pub const fn target_address(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.target_address;
        Ipv4Addr::new(a, b, c, d)
    }
}
