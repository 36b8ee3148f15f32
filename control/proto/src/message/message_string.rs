//! Text for the node's user (RFC 4917): what a node makes of the Message String
//! Extensions of a reply.
//!
//! The home agent's stands in front of the mobile-home authentication, which covers
//! it; the foreign agent's behind it, covered where the two share a key (RFC 5944
//! §3.8.3.3). Whoever stands between can write the latter: it is to be shown, and
//! nothing is to be decided by it (RFC 4917 §6).

use core::fmt;

use super::{AuthenticationKind, Extension, Received, RegistrationReply};

/// Who wrote a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextOrigin {
    /// The home agent, under its authentication.
    HomeAgent,
    /// The foreign agent, or somebody who plays it.
    ForeignAgent,
}

/// The text of a Message String Extension, as it came: any bytes, 254 at most. It is
/// shown as UTF-8, with what is none written out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MessageString {
    /// Who wrote it.
    pub origin: TextOrigin,
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl MessageString {
    /// The subtype of the home agent's.
    pub const HOME_AGENT: u8 = 1;
    /// The subtype of the foreign agent's.
    pub const FOREIGN_AGENT: u8 = 2;
    /// Bytes in front of the text: type, length, subtype.
    pub const HEADER_LEN: usize = 3;
    /// The longest text, in bytes.
    pub const MAX_LEN: usize = 254;

    /// The text of a reply that was found to answer a request, if it has one that
    /// stands where its subtype says: the home agent's before the foreign agent's.
    pub fn of(reply: &Received<'_, RegistrationReply>) -> Option<Self> {
        let signed = reply.authentications(AuthenticationKind::MobileHome).next();
        let signed = signed.map_or(0, |authentication| authentication.offset);
        let texts = || {
            reply.extensions().iter().filter_map(|located| match located.extension {
                Extension::MessageString { subtype, text } => {
                    Some((located.offset < signed, subtype, text))
                }
                _ => None,
            })
        };
        let find = |wanted: (bool, u8), origin| {
            let (_, _, text) =
                texts().find(|(before, subtype, _)| (*before, *subtype) == wanted)?;
            Self::new(origin, text)
        };
        find((true, Self::HOME_AGENT), TextOrigin::HomeAgent)
            .or_else(|| find((false, Self::FOREIGN_AGENT), TextOrigin::ForeignAgent))
    }

    /// `None` for a text that is empty or too long for the extension.
    fn new(origin: TextOrigin, text: &[u8]) -> Option<Self> {
        let len = u8::try_from(text.len()).ok().filter(|len| *len > 0)?;
        let mut bytes = [0; Self::MAX_LEN];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(MessageString { origin, bytes, len })
    }

    /// The text, as it came.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// As UTF-8: bytes that are none, and control characters, are written out.
impl fmt::Display for MessageString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            for one in chunk.valid().chars() {
                if one.is_control() {
                    write!(f, "{}", one.escape_default())?;
                } else {
                    write!(f, "{one}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for MessageString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} \"{self}\"", self.origin)
    }
}
