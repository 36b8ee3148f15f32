//! The Dynamic HA extension: which home agent is asked for, or should be (RFC 4433 §3.4).
//!
//! The RFC draws it with type, subtype and two bytes of length, which no skippable
//! extension may have (RFC 5944 §1.10): who does not know it skips the wrong bytes. Others
//! write it like any skippable one: type, one byte of length, subtype. Both are read; which
//! one is written is the operator's choice.

use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What the address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DynamicHomeAgentKind {
    /// Subtype 1, in requests: the home agent that they are for.
    Requested,
    /// Subtype 2, in replies: the home agent to ask instead.
    Redirected,
}

/// How the extension is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DynamicHomeAgentFraming {
    /// As RFC 4433 draws it.
    #[default]
    Rfc4433,
    /// As RFC 5944 §1.9 has every skippable extension.
    Short,
}

/// Extension 139.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DynamicHomeAgent {
    /// What the address is.
    pub kind: DynamicHomeAgentKind,
    /// A home agent.
    pub address: Ipv4Addr,
    /// How it is written, or was.
    pub framing: DynamicHomeAgentFraming,
}

impl DynamicHomeAgentKind {
    /// The subtype.
    pub const fn subtype(self) -> u8 {
        match self {
            DynamicHomeAgentKind::Requested => 1,
            DynamicHomeAgentKind::Redirected => 2,
        }
    }

    const fn of(subtype: u8) -> Option<Self> {
        match subtype {
            1 => Some(DynamicHomeAgentKind::Requested),
            2 => Some(DynamicHomeAgentKind::Redirected),
            _ => None,
        }
    }
}

impl DynamicHomeAgent {
    /// Whether the extension at the start of `bytes` is written as RFC 4433 draws it. The
    /// other way a length of 1 or 2 is too short for an address.
    pub(super) fn is_long(bytes: &[u8]) -> bool {
        matches!(bytes, [_, 1 | 2, 0, 4, ..])
    }

    /// The address behind type, subtype and long length; or in the short framing, where
    /// `subtype` is zero, behind a subtype. `None`: of another subtype or length.
    pub(super) fn parse(subtype: u8, data: &[u8]) -> Option<Self> {
        let (framing, subtype, address) = match (subtype, data) {
            (0, [subtype, address @ ..]) => (DynamicHomeAgentFraming::Short, *subtype, address),
            (subtype, address) => (DynamicHomeAgentFraming::Rfc4433, subtype, address),
        };
        let kind = DynamicHomeAgentKind::of(subtype)?;
        let address = <[u8; 4]>::try_from(address).ok()?.into();
        Some(DynamicHomeAgent { kind, address, framing })
    }
}
