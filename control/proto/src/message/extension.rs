//! Extensions of registration messages, framed by their type (RFC 5944 §1.8 to
//! §1.11): short (type, one byte of length) or long (type, subtype or reserved
//! byte, two bytes of length).

use alloc::vec::Vec;
use core::fmt;

use smallvec::SmallVec;

use super::dynamic_home_agent::{DynamicHomeAgent, DynamicHomeAgentFraming};
use super::mobile_network::{MobileNetworkAcknowledgement, MobileNetworkRequest};
use super::revocation::RevocationSupport;
use super::session::{COMBINED, RELEASE, SESSION_VENDOR, SUB_NAI};
use super::udp_tunnel::{UdpTunnelReply, UdpTunnelRequest};
use super::{ExtensionTooLong, MAX_EXTENSIONS};
use crate::security::{Authenticator, MobilitySecurityAssociation, Spi};

/// Between whom an authentication extension is (RFC 5944 §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthenticationKind {
    /// Mobile node and home agent, type 32.
    MobileHome,
    /// Mobile node and foreign agent, type 33.
    MobileForeign,
    /// Foreign agent and home agent, type 34.
    ForeignHome,
}

impl AuthenticationKind {
    /// The extension's type.
    pub const fn extension_type(self) -> u8 {
        match self {
            AuthenticationKind::MobileHome => MOBILE_HOME,
            AuthenticationKind::MobileForeign => MOBILE_FOREIGN,
            AuthenticationKind::ForeignHome => FOREIGN_HOME,
        }
    }
}

const MOBILE_HOME: u8 = 32;
const MOBILE_FOREIGN: u8 = 33;
const FOREIGN_HOME: u8 = 34;
const GENERALIZED_AUTHENTICATION: u8 = 36;
const CRITICAL_VENDOR: u8 = 38;
const UDP_TUNNEL_REPLY: u8 = 44;
const GRE_KEY: u8 = 48;
const ENCAPSULATING_DELIVERY: u8 = 130;
const NETWORK_ACCESS_IDENTIFIER: u8 = 131;
const CHALLENGE: u8 = 132;
const NORMAL_VENDOR: u8 = 134;
const REVOCATION_SUPPORT: u8 = 137;
const DYNAMIC_HOME_AGENT: u8 = 139;
const UDP_TUNNEL_REQUEST: u8 = 144;
const MESSAGE_STRING: u8 = 145;
const MOBILE_NETWORK: u8 = 148;

/// An extension's meaning; its bytes stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension<'a> {
    /// Types 32, 33, 34 (RFC 5944 §3.5).
    Authentication {
        /// Between whom.
        kind: AuthenticationKind,
        /// Which association.
        spi: Spi,
        /// The authenticator.
        authenticator: &'a [u8],
    },
    /// Type 36 (RFC 5944 §3.6.1.3, RFC 4721 §5).
    GeneralizedAuthentication {
        /// 1 is mobile node and AAA.
        subtype: u8,
        /// Which association.
        spi: Spi,
        /// The authenticator.
        authenticator: &'a [u8],
    },
    /// Type 130: the encapsulating delivery style (RFC 3024 §3.3).
    EncapsulatingDelivery,
    /// Type 131: the node's NAI (RFC 2794 §3).
    NetworkAccessIdentifier(&'a [u8]),
    /// Type 132: the foreign agent's challenge (RFC 4721 §4).
    Challenge(&'a [u8]),
    /// Type 134, vendor type 1: which session of the node's NAI ([`session`](super::session)).
    SubNai(&'a [u8]),
    /// Type 134, vendor type 2: NAI and sub-NAI.
    CombinedSession {
        /// The node's NAI.
        nai: &'a [u8],
        /// Which session of it.
        sub_nai: &'a [u8],
    },
    /// Type 134, vendor type 3: the home address is given back.
    SessionRelease,
    /// Type 134, skippable (RFC 3115 §3.2).
    NormalVendor {
        /// The vendor's enterprise number.
        vendor: u32,
        /// The vendor's own type.
        vendor_type: u16,
        /// What the vendor says.
        value: &'a [u8],
    },
    /// Type 38, not skippable (RFC 3115 §3.1).
    CriticalVendor {
        /// The vendor's enterprise number.
        vendor: u32,
        /// The vendor's own type.
        vendor_type: u16,
        /// What the vendor says.
        value: &'a [u8],
    },
    /// Type 137: takes part in revocations (RFC 3543 §3.2).
    RevocationSupport(RevocationSupport),
    /// Type 139, subtypes 1 and 2 (RFC 4433 §3.4).
    DynamicHomeAgent(DynamicHomeAgent),
    /// Type 145: text for people (RFC 4917 §2).
    MessageString {
        /// 1 from the home agent, 2 from the foreign agent.
        subtype: u8,
        /// UTF-8, not checked.
        text: &'a [u8],
    },
    /// Type 144, subtype 0: asks for a UDP tunnel (RFC 3519 §3.1).
    UdpTunnelRequest(UdpTunnelRequest),
    /// Type 44, subtype 0: grants or declines it (RFC 3519 §3.2).
    UdpTunnelReply(UdpTunnelReply),
    /// Type 48, subtype 0: asks for a GRE tunnel, or grants it, with this key
    /// (RFC 6245 §5).
    GreKey(u32),
    /// Type 148, subtype 0 (RFC 5177 §4.1).
    MobileNetworkRequest(MobileNetworkRequest),
    /// Type 148, subtypes 1 and 2 (RFC 5177 §4.2).
    MobileNetworkAcknowledgement(MobileNetworkAcknowledgement),
    /// A skippable type, 128 to 255, or a subtype of one, that is not known here.
    Unknown {
        /// The type.
        extension_type: u8,
        /// The data behind the length.
        data: &'a [u8],
    },
}

/// What ends the reading of extensions before the message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionError {
    /// An extension's header or data reach past the message.
    Truncated {
        /// Offset of the extension's type in the message, in bytes.
        offset: usize,
    },
    /// A length that is wrong for what the type must hold.
    Length {
        /// Offset of the extension's type in the message, in bytes.
        offset: usize,
    },
    /// A type below 128, or a subtype of one, that is not known: the message must
    /// be discarded.
    Unknown {
        /// The type.
        extension_type: u8,
    },
    /// More than [`MAX_EXTENSIONS`].
    TooMany,
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtensionError::Truncated { offset } => {
                write!(f, "the extension at byte {offset} reaches past the message")
            }
            ExtensionError::Length { offset } => {
                write!(f, "the extension at byte {offset} has a length that is wrong for its type")
            }
            ExtensionError::Unknown { extension_type } => {
                write!(f, "extension type {extension_type} is unknown and not skippable")
            }
            ExtensionError::TooMany => write!(f, "more than {MAX_EXTENSIONS} extensions"),
        }
    }
}

impl ExtensionError {
    /// Where the extension begins that cannot be read, in bytes of the message, if it
    /// is one extension's fault.
    pub fn offset(self) -> Option<u32> {
        match self {
            ExtensionError::Truncated { offset } | ExtensionError::Length { offset } => {
                u32::try_from(offset).ok()
            }
            ExtensionError::Unknown { .. } | ExtensionError::TooMany => None,
        }
    }
}

/// An extension and its place in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// Offset of its type in the message, in bytes.
    pub offset: usize,
    /// Offset of the byte behind it.
    pub end: usize,
    /// What it says.
    pub extension: Extension<'a>,
}

impl Located<'_> {
    /// Offset of the authenticator in the message: the end of what it covers.
    pub fn authenticator_offset(&self) -> Option<usize> {
        match self.extension {
            Extension::Authentication { .. } => Some(self.offset + SHORT_HEADER + SPI),
            Extension::GeneralizedAuthentication { .. } => Some(self.offset + LONG_HEADER + SPI),
            _ => None,
        }
    }
}

/// Bytes of type and length in the short framing.
const SHORT_HEADER: usize = 2;
/// Bytes of type, subtype and length in the long framing.
const LONG_HEADER: usize = 4;
/// Two reserved bytes, vendor and vendor type (RFC 3115 §3.2).
const VENDOR_HEADER: usize = 8;
/// Bytes of an SPI.
const SPI: usize = 4;

/// Whether a type has the long framing. It is a property of the type, not of its
/// range (RFC 5944 §1.10).
const fn has_long_framing(extension_type: u8) -> bool {
    matches!(extension_type, GENERALIZED_AUTHENTICATION | CRITICAL_VENDOR | GRE_KEY)
}

/// The extensions of a message. Few have more than three, which take no memory of their
/// own.
pub(super) type Extensions<'a> = SmallVec<[Located<'a>; 3]>;

/// Reads extensions from `start` to the end of the message or to the first that
/// cannot be read.
pub(super) fn parse_all(bytes: &[u8], start: usize) -> (Extensions<'_>, Option<ExtensionError>) {
    let mut extensions = Extensions::new();
    let mut offset = start;
    while offset < bytes.len() {
        if extensions.len() == MAX_EXTENSIONS {
            return (extensions, Some(ExtensionError::TooMany));
        }
        match parse_one(bytes, offset) {
            Ok(located) => {
                offset = located.end;
                extensions.push(located);
            }
            Err(error) => return (extensions, Some(error)),
        }
    }
    (extensions, None)
}

fn parse_one(bytes: &[u8], offset: usize) -> Result<Located<'_>, ExtensionError> {
    let truncated = ExtensionError::Truncated { offset };
    let rest = bytes.get(offset..).unwrap_or_default();
    let extension_type = *rest.first().ok_or(truncated)?;
    let is_long = has_long_framing(extension_type)
        || extension_type == DYNAMIC_HOME_AGENT && DynamicHomeAgent::is_long(rest);
    let (subtype, header, len) = if is_long {
        let [_, subtype, high, low] = *rest.first_chunk::<LONG_HEADER>().ok_or(truncated)?;
        (subtype, LONG_HEADER, usize::from(u16::from_be_bytes([high, low])))
    } else {
        let [_, len] = *rest.first_chunk::<SHORT_HEADER>().ok_or(truncated)?;
        (0, SHORT_HEADER, usize::from(len))
    };
    let data = rest.get(header..header + len).ok_or(truncated)?;
    let extension = interpret(extension_type, subtype, data, offset)?;
    Ok(Located { offset, end: offset + header + len, extension })
}

fn interpret(
    extension_type: u8,
    subtype: u8,
    data: &[u8],
    offset: usize,
) -> Result<Extension<'_>, ExtensionError> {
    let short = ExtensionError::Length { offset };
    let spi = || {
        data.split_first_chunk::<SPI>()
            .map(|(spi, rest)| (Spi(u32::from_be_bytes(*spi)), rest))
            .ok_or(short)
    };
    // With the short framing a subtype is the first byte of the data.
    let first = data.first().copied().unwrap_or(0);
    Ok(match extension_type {
        MOBILE_HOME | MOBILE_FOREIGN | FOREIGN_HOME => {
            let kind = match extension_type {
                MOBILE_HOME => AuthenticationKind::MobileHome,
                MOBILE_FOREIGN => AuthenticationKind::MobileForeign,
                _ => AuthenticationKind::ForeignHome,
            };
            let (spi, authenticator) = spi()?;
            Extension::Authentication { kind, spi, authenticator }
        }
        GENERALIZED_AUTHENTICATION => {
            let (spi, authenticator) = spi()?;
            Extension::GeneralizedAuthentication { subtype, spi, authenticator }
        }
        CRITICAL_VENDOR => {
            let ([a, b, c, d, e, f], value) = data.split_first_chunk::<6>().ok_or(short)?;
            Extension::CriticalVendor {
                vendor: u32::from_be_bytes([*a, *b, *c, *d]),
                vendor_type: u16::from_be_bytes([*e, *f]),
                value,
            }
        }
        NORMAL_VENDOR => {
            let ([_, _, a, b, c, d, e, f], value) = data.split_first_chunk::<8>().ok_or(short)?;
            let vendor = u32::from_be_bytes([*a, *b, *c, *d]);
            let vendor_type = u16::from_be_bytes([*e, *f]);
            let session = match vendor {
                SESSION_VENDOR => Extension::session(vendor_type, value),
                _ => None,
            };
            session.unwrap_or(Extension::NormalVendor { vendor, vendor_type, value })
        }
        ENCAPSULATING_DELIVERY => Extension::EncapsulatingDelivery,
        NETWORK_ACCESS_IDENTIFIER => Extension::NetworkAccessIdentifier(data),
        CHALLENGE => Extension::Challenge(data),
        MESSAGE_STRING => {
            let (subtype, text) = data.split_first().ok_or(short)?;
            Extension::MessageString { subtype: *subtype, text }
        }
        REVOCATION_SUPPORT => {
            Extension::RevocationSupport(RevocationSupport::parse(data).ok_or(short)?)
        }
        UDP_TUNNEL_REQUEST if first == 0 => {
            Extension::UdpTunnelRequest(UdpTunnelRequest::parse(data).ok_or(short)?)
        }
        UDP_TUNNEL_REPLY if first == 0 => {
            Extension::UdpTunnelReply(UdpTunnelReply::parse(data).ok_or(short)?)
        }
        GRE_KEY if subtype == 0 => {
            let key = <[u8; 4]>::try_from(data).map_err(|_| short)?;
            Extension::GreKey(u32::from_be_bytes(key))
        }
        MOBILE_NETWORK if first == MobileNetworkRequest::SUBTYPE => {
            Extension::MobileNetworkRequest(MobileNetworkRequest::parse(data).ok_or(short)?)
        }
        MOBILE_NETWORK
            if first == MobileNetworkAcknowledgement::EXPLICIT
                || first == MobileNetworkAcknowledgement::IMPLICIT =>
        {
            Extension::MobileNetworkAcknowledgement(
                MobileNetworkAcknowledgement::parse(data).ok_or(short)?,
            )
        }
        DYNAMIC_HOME_AGENT if let Some(one) = DynamicHomeAgent::parse(subtype, data) => {
            Extension::DynamicHomeAgent(one)
        }
        128..=255 => Extension::Unknown { extension_type, data },
        _ => return Err(ExtensionError::Unknown { extension_type }),
    })
}

impl Extension<'_> {
    /// Between whom it authenticates, if it does.
    pub const fn authentication_kind(&self) -> Option<AuthenticationKind> {
        match self {
            Extension::Authentication { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// The association that it names, if it authenticates.
    pub const fn spi(&self) -> Option<Spi> {
        match self {
            Extension::Authentication { spi, .. }
            | Extension::GeneralizedAuthentication { spi, .. } => Some(*spi),
            _ => None,
        }
    }

    /// Appends the extension's bytes.
    ///
    /// # Errors
    /// [`ExtensionTooLong`]; then nothing was appended.
    pub fn emit(&self, to: &mut Vec<u8>) -> Result<(), ExtensionTooLong> {
        match *self {
            Extension::Authentication { kind, spi, authenticator } => {
                short(to, kind.extension_type(), &[&spi.0.to_be_bytes(), authenticator])
            }
            Extension::GeneralizedAuthentication { subtype, spi, authenticator } => long(
                to,
                GENERALIZED_AUTHENTICATION,
                subtype,
                &[&spi.0.to_be_bytes(), authenticator],
            ),
            Extension::EncapsulatingDelivery => short(to, ENCAPSULATING_DELIVERY, &[]),
            Extension::NetworkAccessIdentifier(nai) => short(to, NETWORK_ACCESS_IDENTIFIER, &[nai]),
            Extension::Challenge(challenge) => short(to, CHALLENGE, &[challenge]),
            Extension::NormalVendor { vendor, vendor_type, value } => {
                normal_vendor(to, vendor, vendor_type, &[value])
            }
            Extension::SubNai(sub_nai) => normal_vendor(to, SESSION_VENDOR, SUB_NAI, &[sub_nai]),
            Extension::CombinedSession { nai, sub_nai } => {
                let len = u8::try_from(nai.len()).map_err(|_| ExtensionTooLong)?;
                normal_vendor(to, SESSION_VENDOR, COMBINED, &[&[len], nai, sub_nai])
            }
            Extension::SessionRelease => normal_vendor(to, SESSION_VENDOR, RELEASE, &[]),
            Extension::CriticalVendor { vendor, vendor_type, value } => long(
                to,
                CRITICAL_VENDOR,
                0,
                &[&vendor.to_be_bytes(), &vendor_type.to_be_bytes(), value],
            ),
            Extension::MessageString { subtype, text } => {
                short(to, MESSAGE_STRING, &[&[subtype], text])
            }
            Extension::DynamicHomeAgent(DynamicHomeAgent { kind, address, framing }) => {
                let (subtype, address) = (kind.subtype(), address.octets());
                match framing {
                    DynamicHomeAgentFraming::Rfc4433 => {
                        long(to, DYNAMIC_HOME_AGENT, subtype, &[&address])
                    }
                    DynamicHomeAgentFraming::Short => {
                        short(to, DYNAMIC_HOME_AGENT, &[&[subtype], &address])
                    }
                }
            }
            Extension::RevocationSupport(support) => {
                short(to, REVOCATION_SUPPORT, &[&support.emit()])
            }
            Extension::UdpTunnelRequest(request) => {
                short(to, UDP_TUNNEL_REQUEST, &[&request.emit()])
            }
            Extension::UdpTunnelReply(reply) => short(to, UDP_TUNNEL_REPLY, &[&reply.emit()]),
            Extension::GreKey(key) => long(to, GRE_KEY, 0, &[&key.to_be_bytes()]),
            Extension::MobileNetworkRequest(request) => {
                short(to, MOBILE_NETWORK, &[&request.emit()])
            }
            Extension::MobileNetworkAcknowledgement(acknowledgement) => {
                short(to, MOBILE_NETWORK, &[&acknowledgement.emit()])
            }
            Extension::Unknown { extension_type, data } => short(to, extension_type, &[data]),
        }
    }
}

/// Appends an authentication extension over all of `to` and its own type, length
/// and SPI (RFC 5944 §3.5.1).
pub(super) fn emit_authentication(
    to: &mut Vec<u8>,
    kind: AuthenticationKind,
    association: &MobilitySecurityAssociation,
    compute: impl FnOnce(&[u8]) -> Authenticator,
) {
    // An authenticator has at most 32 bytes, so its length fits the field.
    #[expect(clippy::cast_possible_truncation, reason = "at most 36")]
    let len = (SPI + association.algorithm.authenticator_len()) as u8;
    to.extend_from_slice(&[kind.extension_type(), len]);
    to.extend_from_slice(&association.spi.0.to_be_bytes());
    let authenticator = compute(to);
    to.extend_from_slice(authenticator.as_bytes());
}

fn normal_vendor(
    to: &mut Vec<u8>,
    vendor: u32,
    vendor_type: u16,
    value: &[&[u8]],
) -> Result<(), ExtensionTooLong> {
    let len = value.iter().map(|part| part.len()).sum::<usize>();
    let len = u8::try_from(len + VENDOR_HEADER).map_err(|_| ExtensionTooLong)?;
    let ([v, e, n, d], [high, low]) = (vendor.to_be_bytes(), vendor_type.to_be_bytes());
    to.extend_from_slice(&[NORMAL_VENDOR, len, 0, 0, v, e, n, d, high, low]);
    value.iter().for_each(|part| to.extend_from_slice(part));
    Ok(())
}

fn short(to: &mut Vec<u8>, extension_type: u8, parts: &[&[u8]]) -> Result<(), ExtensionTooLong> {
    let len = u8::try_from(parts.iter().map(|part| part.len()).sum::<usize>())
        .map_err(|_| ExtensionTooLong)?;
    to.extend_from_slice(&[extension_type, len]);
    parts.iter().for_each(|part| to.extend_from_slice(part));
    Ok(())
}

fn long(
    to: &mut Vec<u8>,
    extension_type: u8,
    subtype: u8,
    parts: &[&[u8]],
) -> Result<(), ExtensionTooLong> {
    let len = u16::try_from(parts.iter().map(|part| part.len()).sum::<usize>())
        .map_err(|_| ExtensionTooLong)?;
    to.extend_from_slice(&[extension_type, subtype]);
    to.extend_from_slice(&len.to_be_bytes());
    parts.iter().for_each(|part| to.extend_from_slice(part));
    Ok(())
}
