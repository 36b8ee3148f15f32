//! The fixed parts of registration request and reply (RFC 5944 §3.3, §3.4).

use core::fmt;
use core::net::Ipv4Addr;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U64},
};

use super::MessageError;
use crate::Lifetime;

/// Matches requests to replies and keeps replays out (RFC 5944 §5.7). The low
/// 32 bits of a request come back in its reply unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identification(pub u64);

impl Identification {
    /// The identification of these halves.
    pub const fn from_halves(high: u32, low: u32) -> Self {
        Identification((high as u64) << 32 | low as u64)
    }

    /// The high 32 bits: seconds of a timestamp, or the home agent's nonce.
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The low 32 bits.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }
}

/// The flags of a request (RFC 5944 §3.3), as they are on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestFlags(pub u8);

impl RequestFlags {
    /// Keep the earlier bindings too.
    pub const SIMULTANEOUS: RequestFlags = RequestFlags(0x80);
    /// Tunnel the home network's broadcasts.
    pub const BROADCAST: RequestFlags = RequestFlags(0x40);
    /// The node itself decapsulates: the care-of address is co-located.
    pub const CO_LOCATED: RequestFlags = RequestFlags(0x20);
    /// Minimal encapsulation (RFC 2004).
    pub const MINIMAL: RequestFlags = RequestFlags(0x10);
    /// GRE encapsulation.
    pub const GRE: RequestFlags = RequestFlags(0x08);
    /// Sent as zero (V in RFC 2002: Van Jacobson header compression).
    pub const RESERVED_R: RequestFlags = RequestFlags(0x04);
    /// Reverse tunnelling (RFC 3024).
    pub const REVERSE_TUNNEL: RequestFlags = RequestFlags(0x02);
    /// Sent as zero.
    pub const RESERVED_X: RequestFlags = RequestFlags(0x01);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: RequestFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether a bit is set that must be sent as zero.
    pub const fn has_reserved(self) -> bool {
        self.0 & (Self::RESERVED_R.0 | Self::RESERVED_X.0) != 0
    }

    /// These flags and those.
    #[must_use]
    pub const fn with(self, flags: RequestFlags) -> Self {
        RequestFlags(self.0 | flags.0)
    }
}

/// A registration request's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationRequest {
    /// What the node asks for.
    pub flags: RequestFlags,
    /// How long; zero deregisters.
    pub lifetime: Lifetime,
    /// The node's home address.
    pub home_address: Ipv4Addr,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// Where its tunnel shall end.
    pub care_of_address: Ipv4Addr,
    /// For matching and against replay.
    pub identification: Identification,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RequestLayout {
    message_type: u8,
    flags: u8,
    lifetime: U16,
    home_address: [u8; 4],
    home_agent: [u8; 4],
    care_of_address: [u8; 4],
    identification: U64,
}

impl RegistrationRequest {
    /// The message type.
    pub const TYPE: u8 = 1;
    /// Bytes of the fixed part.
    pub const LEN: usize = 24;

    /// The fixed part at the start of `bytes`.
    ///
    /// # Errors
    /// [`MessageError::Truncated`], [`MessageError::UnknownType`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (layout, _) =
            RequestLayout::ref_from_prefix(bytes).map_err(|_| MessageError::Truncated)?;
        if layout.message_type != Self::TYPE {
            return Err(MessageError::UnknownType(layout.message_type));
        }
        Ok(RegistrationRequest {
            flags: RequestFlags(layout.flags),
            lifetime: Lifetime(layout.lifetime.get()),
            home_address: layout.home_address.into(),
            home_agent: layout.home_agent.into(),
            care_of_address: layout.care_of_address.into(),
            identification: Identification(layout.identification.get()),
        })
    }

    /// The fixed part's bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(RequestLayout {
            message_type: Self::TYPE,
            flags: self.flags.0,
            lifetime: U16::new(self.lifetime.0),
            home_address: self.home_address.octets(),
            home_agent: self.home_agent.octets(),
            care_of_address: self.care_of_address.octets(),
            identification: U64::new(self.identification.0),
        })
    }
}

/// A registration reply's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationReply {
    /// What became of the request.
    pub code: ReplyCode,
    /// The lifetime granted; without meaning in a denial, but with
    /// [`ReplyCode::LIFETIME_TOO_LONG`] the longest that is accepted.
    pub lifetime: Lifetime,
    /// The node's home address.
    pub home_address: Ipv4Addr,
    /// Its home agent.
    pub home_agent: Ipv4Addr,
    /// Low half from the request; high half after the style of replay protection.
    pub identification: Identification,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ReplyLayout {
    message_type: u8,
    code: u8,
    lifetime: U16,
    home_address: [u8; 4],
    home_agent: [u8; 4],
    identification: U64,
}

impl RegistrationReply {
    /// The message type.
    pub const TYPE: u8 = 3;
    /// Bytes of the fixed part.
    pub const LEN: usize = 20;

    /// The fixed part at the start of `bytes`.
    ///
    /// # Errors
    /// [`MessageError::Truncated`], [`MessageError::UnknownType`].
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (layout, _) =
            ReplyLayout::ref_from_prefix(bytes).map_err(|_| MessageError::Truncated)?;
        if layout.message_type != Self::TYPE {
            return Err(MessageError::UnknownType(layout.message_type));
        }
        Ok(RegistrationReply {
            code: ReplyCode(layout.code),
            lifetime: Lifetime(layout.lifetime.get()),
            home_address: layout.home_address.into(),
            home_agent: layout.home_agent.into(),
            identification: Identification(layout.identification.get()),
        })
    }

    /// The fixed part's bytes.
    pub fn emit(&self) -> [u8; Self::LEN] {
        zerocopy::transmute!(ReplyLayout {
            message_type: Self::TYPE,
            code: self.code.0,
            lifetime: U16::new(self.lifetime.0),
            home_address: self.home_address.octets(),
            home_agent: self.home_agent.octets(),
            identification: U64::new(self.identification.0),
        })
    }
}

/// What became of a request (RFC 5944 §3.4, RFC 2794 §5, RFC 3024 §3.4, RFC 3519 §3.5, RFC
/// 4433 §7, RFC 4721 §10, RFC 5177 §11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(pub u8);

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl ReplyCode {
            $(#[doc = $text] pub const $name: ReplyCode = ReplyCode($number);)*

            /// Every code that has a name here.
            pub const ALL: &[ReplyCode] = &[$(ReplyCode($number),)*];

            /// The sentence for people.
            pub const fn text(self) -> &'static str {
                match self.0 { $($number => $text,)* _ => "A code without a name here." }
            }
        }
    };
}

codes! {
    ACCEPTED = 0, "Accepted.";
    ACCEPTED_NO_SIMULTANEOUS = 1, "Accepted, but simultaneous bindings are not supported.";
    FA_UNSPECIFIED = 64, "Denied by the foreign agent, reason unspecified.";
    FA_PROHIBITED = 65, "Denied by the foreign agent: administratively prohibited.";
    FA_INSUFFICIENT_RESOURCES = 66, "Denied by the foreign agent: insufficient resources.";
    FA_MOBILE_NODE_FAILED_AUTHENTICATION = 67, "Denied by the foreign agent: mobile node failed authentication.";
    FA_HOME_AGENT_FAILED_AUTHENTICATION = 68, "Denied by the foreign agent: home agent failed authentication.";
    LIFETIME_TOO_LONG = 69, "Denied by the foreign agent: requested lifetime too long.";
    FA_POORLY_FORMED_REQUEST = 70, "Denied by the foreign agent: poorly formed request.";
    FA_POORLY_FORMED_REPLY = 71, "Denied by the foreign agent: poorly formed reply.";
    FA_ENCAPSULATION_UNAVAILABLE = 72, "Denied by the foreign agent: requested encapsulation unavailable.";
    FA_HEADER_COMPRESSION_UNAVAILABLE = 73, "Denied by the foreign agent: requested Van Jacobson compression unavailable (RFC 2002).";
    FA_REVERSE_TUNNEL_UNAVAILABLE = 74, "Denied by the foreign agent: requested reverse tunnel unavailable.";
    FA_REVERSE_TUNNEL_MANDATORY = 75, "Denied by the foreign agent: reverse tunnel is mandatory and T bit not set.";
    FA_MOBILE_NODE_TOO_DISTANT = 76, "Denied by the foreign agent: mobile node too distant.";
    INVALID_CARE_OF_ADDRESS = 77, "Denied by the foreign agent: invalid care-of address.";
    REGISTRATION_TIMEOUT = 78, "Denied by the foreign agent: registration timeout.";
    FA_DELIVERY_STYLE_NOT_SUPPORTED = 79, "Denied by the foreign agent: delivery style not supported.";
    HOME_NETWORK_UNREACHABLE = 80, "Denied by the foreign agent: home network unreachable.";
    HOME_AGENT_HOST_UNREACHABLE = 81, "Denied by the foreign agent: home agent host unreachable.";
    HOME_AGENT_PORT_UNREACHABLE = 82, "Denied by the foreign agent: home agent port unreachable.";
    HOME_AGENT_UNREACHABLE = 88, "Denied by the foreign agent: home agent unreachable.";
    NONZERO_HOME_AGENT_REQUIRED = 90, "Denied by the foreign agent: a home agent address is required.";
    NONZERO_HOME_ADDRESS_REQUIRED = 96, "Denied by the foreign agent: a home address is required.";
    MISSING_NAI = 97, "Denied by the foreign agent: missing network access identifier.";
    MISSING_HOME_AGENT = 98, "Denied by the foreign agent: missing home agent address.";
    MISSING_HOME_ADDRESS = 99, "Denied by the foreign agent: missing home address.";
    UNKNOWN_CHALLENGE = 104, "Denied by the foreign agent: unknown challenge.";
    MISSING_CHALLENGE = 105, "Denied by the foreign agent: missing challenge.";
    STALE_CHALLENGE = 106, "Denied by the foreign agent: stale challenge.";
    INVALID_HOME_AGENT_ADDRESS = 194, "Denied by the foreign agent: invalid home agent address.";
    HA_UNSPECIFIED = 128, "Denied by the home agent, reason unspecified.";
    HA_PROHIBITED = 129, "Denied by the home agent: administratively prohibited.";
    HA_INSUFFICIENT_RESOURCES = 130, "Denied by the home agent: insufficient resources.";
    HA_MOBILE_NODE_FAILED_AUTHENTICATION = 131, "Denied by the home agent: mobile node failed authentication.";
    HA_FOREIGN_AGENT_FAILED_AUTHENTICATION = 132, "Denied by the home agent: foreign agent failed authentication.";
    IDENTIFICATION_MISMATCH = 133, "Denied by the home agent: registration identification mismatch.";
    HA_POORLY_FORMED_REQUEST = 134, "Denied by the home agent: poorly formed request.";
    TOO_MANY_SIMULTANEOUS_BINDINGS = 135, "Denied by the home agent: too many simultaneous mobility bindings.";
    UNKNOWN_HOME_AGENT_ADDRESS = 136, "Denied by the home agent: unknown home agent address.";
    HA_REVERSE_TUNNEL_UNAVAILABLE = 137, "Denied by the home agent: requested reverse tunnel unavailable.";
    HA_REVERSE_TUNNEL_MANDATORY = 138, "Denied by the home agent: reverse tunnel is mandatory and T bit not set.";
    HA_ENCAPSULATION_UNAVAILABLE = 139, "Denied by the home agent: requested encapsulation unavailable.";
    HA_UDP_ENCAPSULATION_UNAVAILABLE = 142, "Denied by the home agent: requested UDP tunnel encapsulation unavailable.";
    REDIRECTED_HOME_AGENT = 143, "Denied by the home agent: register with the home agent that is named.";
    HA_MOBILE_NETWORK_ERROR = 147, "Denied by the home agent: none of the mobile networks can be forwarded.";
    HA_MOBILE_NETWORK_DISALLOWED = 148, "Denied by the home agent: the mobile node may not be a mobile router.";
}

impl ReplyCode {
    /// Whether the registration was accepted.
    pub const fn is_accepted(self) -> bool {
        self.0 <= 1
    }

    /// Whether a foreign agent gave the denial: 64 to 127, and 194.
    pub const fn is_from_foreign_agent(self) -> bool {
        matches!(self.0, 64..=127 | 194)
    }
}

impl fmt::Debug for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.text())
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
