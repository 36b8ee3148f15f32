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

/// As UTF-8: bytes that are none, and what a terminal would obey, are written out.
impl fmt::Display for MessageString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::shown::write(f, self.as_bytes(), crate::shown::is_obeyed)
    }
}

impl fmt::Debug for MessageString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} \"{self}\"", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;

    use super::*;
    use crate::Lifetime;
    use crate::message::{Identification, Message, MessageWriter, ReplyCode};
    use crate::security::{Key, MobilitySecurityAssociation, Spi};

    fn reply(before: &[Extension<'_>], behind: &[Extension<'_>]) -> Vec<u8> {
        let association = MobilitySecurityAssociation {
            spi: Spi(256),
            algorithm: Default::default(),
            key: Key::new(alloc::vec![1; 16]),
            replay: Default::default(),
        };
        let mut writer = MessageWriter::reply(&RegistrationReply {
            code: ReplyCode::HA_PROHIBITED,
            lifetime: Lifetime(0),
            home_address: Ipv4Addr::new(10, 1, 0, 10),
            home_agent: Ipv4Addr::new(10, 0, 1, 2),
            identification: Identification(1),
        });
        before.iter().for_each(|one| _ = writer.extension(one).unwrap());
        writer.authenticate(AuthenticationKind::MobileHome, &association);
        behind.iter().for_each(|one| _ = writer.extension(one).unwrap());
        writer.finish()
    }

    fn text(bytes: &[u8]) -> Option<MessageString> {
        match Message::parse(bytes) {
            Ok(Message::Reply(reply)) => MessageString::of(&reply),
            other => panic!("{other:?}"),
        }
    }

    const fn says(subtype: u8, text: &[u8]) -> Extension<'_> {
        Extension::MessageString { subtype, text }
    }

    #[test]
    fn each_agents_text_is_read_where_it_stands_and_nowhere_else() {
        let told = |before: &[Extension<'_>], behind: &[Extension<'_>]| {
            text(&reply(before, behind)).map(|text| (text.origin, text.to_string()))
        };
        let (home, foreign) = (TextOrigin::HomeAgent, TextOrigin::ForeignAgent);
        assert_eq!(told(&[], &[]), None);
        assert_eq!(told(&[says(1, b"no")], &[]), Some((home, "no".into())));
        assert_eq!(told(&[], &[says(2, b"no")]), Some((foreign, "no".into())));
        assert_eq!(told(&[says(1, b"a")], &[says(2, b"b")]), Some((home, "a".into())));
        // What claims to be the home agent's and is not signed by it.
        assert_eq!(told(&[], &[says(1, b"forged")]), None);
        assert_eq!(told(&[says(2, b"x")], &[]), None);
        assert_eq!(told(&[says(3, b"x")], &[says(0, b"x")]), None);
        assert_eq!(told(&[says(1, b"")], &[]), None, "an empty text says nothing");
    }

    #[test]
    fn a_text_of_any_length_and_any_bytes_is_shown_escaped() {
        let longest = [b'y'; MessageString::MAX_LEN];
        let shown = text(&reply(&[says(1, &longest)], &[])).unwrap();
        assert_eq!(shown.as_bytes(), longest);
        let mut bytes = reply(&[says(1, &longest)], &[]);
        // One more than the extension holds does not fit its length.
        assert!(says(1, &[b'y'; 255]).emit(&mut bytes).is_err());
        let shown = |bytes: &[u8]| text(&reply(&[says(1, bytes)], &[])).unwrap().to_string();
        assert_eq!(shown("grün \u{2713}".as_bytes()), "grün \u{2713}");
        assert_eq!(shown(b"a\xffb\xc3"), "a\\xffb\\xc3");
        assert_eq!(shown(b"\x1b[2J\r\n"), "\\u{1b}[2J\\r\\n");
        assert_eq!(shown(&[0x80; 4]), "\\x80\\x80\\x80\\x80");
    }

    /// RFC 4917 §2: type and subtype alone are no text, and no reason to refuse.
    #[test]
    fn a_text_that_is_cut_off_is_a_defect_of_the_message() {
        let whole = reply(&[], &[says(2, b"words")]);
        for end in whole.len() - 7..whole.len() {
            let Ok(Message::Reply(cut)) = Message::parse(&whole[..end]) else { panic!("{end}") };
            assert_eq!(cut.defect().is_some(), end != whole.len() - 8, "{end}");
            assert_eq!(MessageString::of(&cut), None);
        }
    }
}
