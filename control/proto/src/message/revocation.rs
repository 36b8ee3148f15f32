//! Registration revocation: its two messages, and the extension by which two agents
//! agree on them (RFC 3543 §3.2 to §3.4).

use core::net::Ipv4Addr;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

use super::MessageError;

/// The highest bit: A of a revocation, I of the others.
const FIRST: u16 = 0x8000;
/// The next one: I of a revocation.
const SECOND: u16 = 0x4000;

const fn bit(set: bool, bit: u16) -> u16 {
    if set { bit } else { 0 }
}

/// The data of extension 137: whose it is takes part in revocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RevocationSupport {
    /// Flag I: of a foreign agent, that the home agent may decide whether a node is
    /// told; of a home agent, that it does.
    pub inform: bool,
    /// The sender's clock, in seconds.
    pub timestamp: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SupportLayout {
    flags: U16,
    timestamp: U32,
}

impl RevocationSupport {
    /// Bytes behind type and length. More may follow, and mean nothing yet.
    pub const LEN: usize = 6;

    /// The support in the data of extension 137; `None` when it is too short.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (layout, _) = SupportLayout::ref_from_prefix(data).ok()?;
        Some(RevocationSupport {
            inform: layout.flags.get() & FIRST != 0,
            timestamp: layout.timestamp.get(),
        })
    }

    /// The data of extension 137.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(SupportLayout {
            flags: U16::new(bit(self.inform, FIRST)),
            timestamp: U32::new(self.timestamp),
        })
    }
}

/// A registration revocation's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationRevocation {
    /// Flag A: who revokes is the node's home agent; else its foreign agent.
    pub from_home_agent: bool,
    /// Flag I: of a home agent, that the node shall be told; of a foreign agent, that
    /// the home agent shall say whether.
    pub inform: bool,
    /// The node's home address.
    pub home_address: Ipv4Addr,
    /// The home domain address: its home agent.
    pub home_agent: Ipv4Addr,
    /// The foreign domain address: its care-of address.
    pub care_of_address: Ipv4Addr,
    /// The sender's clock, in seconds: later than any timestamp of the registration.
    pub identifier: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RevocationLayout {
    message_type: u8,
    reserved: u8,
    flags: U16,
    home_address: [u8; 4],
    home_agent: [u8; 4],
    care_of_address: [u8; 4],
    identifier: U32,
}

impl RegistrationRevocation {
    /// The message type.
    pub const TYPE: u8 = 7;
    /// Bytes of the fixed part.
    pub const LEN: usize = 20;

    /// The fixed part at the start of `bytes`.
    ///
    /// # Errors
    /// [`MessageError::Truncated`], [`MessageError::UnknownType`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (layout, _) =
            RevocationLayout::ref_from_prefix(bytes).map_err(|_| MessageError::Truncated)?;
        if layout.message_type != Self::TYPE {
            return Err(MessageError::UnknownType(layout.message_type));
        }
        Ok(RegistrationRevocation {
            from_home_agent: layout.flags.get() & FIRST != 0,
            inform: layout.flags.get() & SECOND != 0,
            home_address: layout.home_address.into(),
            home_agent: layout.home_agent.into(),
            care_of_address: layout.care_of_address.into(),
            identifier: layout.identifier.get(),
        })
    }

    /// The fixed part's bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(RevocationLayout {
            message_type: Self::TYPE,
            reserved: 0,
            flags: U16::new(bit(self.from_home_agent, FIRST) | bit(self.inform, SECOND)),
            home_address: self.home_address.octets(),
            home_agent: self.home_agent.octets(),
            care_of_address: self.care_of_address.octets(),
            identifier: U32::new(self.identifier),
        })
    }
}

/// A registration revocation acknowledgement's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationAcknowledgement {
    /// Flag I: of a home agent, that the node shall be told; of a foreign agent, that it
    /// was.
    pub inform: bool,
    /// The home address of the revocation.
    pub home_address: Ipv4Addr,
    /// The identifier of the revocation.
    pub identifier: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AcknowledgementLayout {
    message_type: u8,
    reserved: u8,
    flags: U16,
    home_address: [u8; 4],
    identifier: U32,
}

impl RevocationAcknowledgement {
    /// The message type.
    pub const TYPE: u8 = 15;
    /// Bytes of the fixed part.
    pub const LEN: usize = 12;

    /// The fixed part at the start of `bytes`.
    ///
    /// # Errors
    /// [`MessageError::Truncated`], [`MessageError::UnknownType`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (layout, _) =
            AcknowledgementLayout::ref_from_prefix(bytes).map_err(|_| MessageError::Truncated)?;
        if layout.message_type != Self::TYPE {
            return Err(MessageError::UnknownType(layout.message_type));
        }
        Ok(RevocationAcknowledgement {
            inform: layout.flags.get() & FIRST != 0,
            home_address: layout.home_address.into(),
            identifier: layout.identifier.get(),
        })
    }

    /// The fixed part's bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(AcknowledgementLayout {
            message_type: Self::TYPE,
            reserved: 0,
            flags: U16::new(bit(self.inform, FIRST)),
            home_address: self.home_address.octets(),
            identifier: U32::new(self.identifier),
        })
    }
}
