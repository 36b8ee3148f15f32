//! Prefixes behind a mobile router: asked for in a request, acknowledged in a
//! reply (RFC 5177 §4).

use core::net::Ipv4Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A prefix that a mobile router asks to be forwarded to it: extension 148,
/// subtype 0. What it says may be no prefix at all (a length of zero or above 32,
/// bits set behind it); that is for the home agent to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MobileNetworkRequest {
    /// Bits of the prefix, as they came.
    pub prefix_len: u8,
    /// An address whose leading bits are the prefix.
    pub prefix: Ipv4Addr,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RequestLayout {
    subtype: u8,
    prefix_len: u8,
    prefix: [u8; 4],
}

/// What the acknowledgement answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MobileNetworkMode {
    /// Subtype 1: a prefix that was asked for.
    Explicit,
    /// Subtype 2: a prefix that the home agent knew of itself.
    Implicit,
}

/// What became of a mobile network (RFC 5177 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MobileNetworkCode(pub u8);

impl MobileNetworkCode {
    /// Packets to it are forwarded.
    pub const SUCCESS: MobileNetworkCode = MobileNetworkCode(0);
    /// The prefix length is zero or above 32.
    pub const INVALID_PREFIX_LEN: MobileNetworkCode = MobileNetworkCode(1);
    /// The router may not have it.
    pub const UNAUTHORIZED: MobileNetworkCode = MobileNetworkCode(2);
    /// Forwarding could not be set up.
    pub const FORWARDING_SETUP_FAILED: MobileNetworkCode = MobileNetworkCode(3);
}

/// What became of one prefix: extension 148, subtypes 1 and 2, in a reply. It is
/// two bytes longer than the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MobileNetworkAcknowledgement {
    /// Whether it was asked for.
    pub mode: MobileNetworkMode,
    /// What became of it.
    pub code: MobileNetworkCode,
    /// Bits of the prefix.
    pub prefix_len: u8,
    /// An address whose leading bits are the prefix.
    pub prefix: Ipv4Addr,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AcknowledgementLayout {
    subtype: u8,
    code: u8,
    prefix_len: u8,
    reserved: u8,
    prefix: [u8; 4],
}

impl MobileNetworkRequest {
    /// The subtype.
    pub const SUBTYPE: u8 = 0;
    /// Bytes behind type and length.
    pub const LEN: usize = 6;

    /// The request in the data of extension 148, subtype 0; `None` when the
    /// length is another.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let layout = RequestLayout::ref_from_bytes(data).ok()?;
        Some(MobileNetworkRequest { prefix_len: layout.prefix_len, prefix: layout.prefix.into() })
    }

    /// The data of extension 148.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(RequestLayout {
            subtype: Self::SUBTYPE,
            prefix_len: self.prefix_len,
            prefix: self.prefix.octets(),
        })
    }
}

impl MobileNetworkAcknowledgement {
    /// The subtype that answers what was asked for.
    pub const EXPLICIT: u8 = 1;
    /// The subtype that tells what was not asked for.
    pub const IMPLICIT: u8 = 2;
    /// Bytes behind type and length.
    pub const LEN: usize = 8;

    /// The acknowledgement in the data of extension 148, subtype 1 or 2; `None`
    /// for another subtype or length.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let layout = AcknowledgementLayout::ref_from_bytes(data).ok()?;
        let mode = match layout.subtype {
            Self::EXPLICIT => MobileNetworkMode::Explicit,
            Self::IMPLICIT => MobileNetworkMode::Implicit,
            _ => return None,
        };
        Some(MobileNetworkAcknowledgement {
            mode,
            code: MobileNetworkCode(layout.code),
            prefix_len: layout.prefix_len,
            prefix: layout.prefix.into(),
        })
    }

    /// The data of extension 148.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(AcknowledgementLayout {
            subtype: match self.mode {
                MobileNetworkMode::Explicit => Self::EXPLICIT,
                MobileNetworkMode::Implicit => Self::IMPLICIT,
            },
            code: self.code.0,
            prefix_len: self.prefix_len,
            reserved: 0,
            prefix: self.prefix.octets(),
        })
    }
}
