//! Sessions on the wire: the node's NAI (RFC 2794 §3, extension 131), and beside it what
//! tells the sessions of one NAI apart, the sub-NAI, in a normal vendor extension
//! (RFC 3115 §3.2, type 134).
//!
//! | vendor type | value |
//! |---|---|
//! | 1 | the sub-NAI, 1 to [`MAX_SUB_NAI`] bytes of any kind |
//! | 2 | one byte with the NAI's length, the NAI, the sub-NAI: both in one extension |
//! | 3 | nothing: with a lifetime of zero, the home address is given back |
//!
//! Who does not know them skips them, as it must every type above 127.
//!
//! A value that breaks these rules is no defect of the message, which others may read:
//! it is [`Extension::NormalVendor`], and [`SessionName::of`] refuses it.

use super::extension::Extension;
use super::{AuthenticationKind, Received};

/// The enterprise number that the vendor extensions carry: until Homeport has one of its
/// own, that which RFC 5612 §2 sets aside for documentation.
pub const SESSION_VENDOR: u32 = 32473;

/// The longest sub-NAI in bytes: what is left of 255 behind two reserved bytes, vendor and
/// vendor type.
pub const MAX_SUB_NAI: usize = 247;

/// The longest NAI in bytes (RFC 4282 §2.2).
pub const MAX_NAI: usize = 253;

pub(super) const SUB_NAI: u16 = 1;
pub(super) const COMBINED: u16 = 2;
pub(super) const RELEASE: u16 = 3;

/// How NAI and sub-NAI are carried.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum SessionCarriage {
    /// Each in an extension of its own.
    #[default]
    Separate,
    /// Both in one vendor extension.
    Combined,
}

/// Who is meant: a NAI, and a session of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionName<'a> {
    /// The node's NAI, 1 to [`MAX_NAI`] bytes.
    pub nai: &'a [u8],
    /// The session's name, unique only inside the NAI; empty: the node itself.
    pub sub_nai: &'a [u8],
}

/// The name in a message, and how it got there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The name.
    pub name: SessionName<'a>,
    /// How it is carried.
    pub carriage: SessionCarriage,
    /// Whether the sub-NAI stands behind the mobile-home authentication: a foreign agent
    /// has put it there, and nothing of the node covers it.
    pub inserted: bool,
    /// Whether the address is to be given back.
    pub releases: bool,
}

/// Why a message names nobody that could be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameDefect {
    /// Two NAIs, two sub-NAIs, or one by itself beside a combined extension.
    Twice,
    /// A NAI or sub-NAI without bytes, or too long.
    Length,
    /// A sub-NAI without the NAI that it belongs to.
    NoNai,
}

impl<'a> Extension<'a> {
    /// A session's vendor extension with this value; `None`: it is none, or breaks the
    /// rules.
    pub(super) fn session(vendor_type: u16, value: &'a [u8]) -> Option<Self> {
        match vendor_type {
            SUB_NAI if !value.is_empty() => Some(Extension::SubNai(value)),
            COMBINED => {
                let (len, rest) = value.split_first()?;
                let (nai, sub_nai) = rest.split_at_checked(usize::from(*len))?;
                let whole = !nai.is_empty() && !sub_nai.is_empty();
                whole.then_some(Extension::CombinedSession { nai, sub_nai })
            }
            RELEASE if value.is_empty() => Some(Extension::SessionRelease),
            _ => None,
        }
    }
}

impl<'a> SessionName<'a> {
    /// The first NAI that a message names, whatever else is wrong with its names: whose
    /// key it should be signed with.
    pub fn nai_of<T>(received: &Received<'a, T>) -> Option<&'a [u8]> {
        let signed = received.authentications(AuthenticationKind::MobileHome).next();
        let signed = signed.map_or(usize::MAX, |one| one.offset);
        let covered = received.extensions().iter().take_while(|one| one.offset < signed);
        covered.into_iter().find_map(|one| match one.extension {
            Extension::NetworkAccessIdentifier(nai) => Some(nai),
            Extension::CombinedSession { nai, .. } => Some(nai),
            _ => None,
        })
    }

    /// What a request's first extensions name, if they are NAI and sub-NAI by themselves,
    /// as most are: without reading the rest, and so perhaps not what [`of`](Self::of) says.
    pub fn glimpse(request: &'a [u8]) -> Option<Self> {
        let rest = request.get(super::RegistrationRequest::LEN..)?;
        let ([131, len], rest) = rest.split_first_chunk::<2>()? else { return None };
        let (nai, rest) = rest.split_at_checked(usize::from(*len))?;
        let sub_nai = match rest.split_first_chunk::<10>() {
            Some(([134, len, _, _, vendor @ .., high, low], value))
                if u32::from_be_bytes(*vendor) == SESSION_VENDOR
                    && u16::from_be_bytes([*high, *low]) == SUB_NAI =>
            {
                value.get(..usize::from(*len).checked_sub(8)?)?
            }
            _ => &[],
        };
        Some(SessionName { nai, sub_nai })
    }

    /// The session named by a message; `None`: it has no NAI and names none.
    ///
    /// NAI and combined extension count only in front of the mobile-home authentication,
    /// as nobody answers for them behind it; a sub-NAI behind it counts where there is
    /// none in front.
    ///
    /// # Errors
    /// [`NameDefect`].
    pub fn of<T>(received: &Received<'a, T>) -> Result<Option<Named<'a>>, NameDefect> {
        let signed = received.authentications(AuthenticationKind::MobileHome).next();
        let signed = signed.map_or(usize::MAX, |one| one.offset);
        let mut nai = None;
        let mut sub_nai = None;
        let mut inserted = None;
        let mut combined = None;
        let mut releases = false;
        for located in received.extensions() {
            let covered = located.offset < signed;
            let twice = match located.extension {
                Extension::NetworkAccessIdentifier(one) if covered => nai.replace(one).is_some(),
                Extension::SubNai(one) if covered => sub_nai.replace(one).is_some(),
                Extension::SubNai(one) => inserted.replace(one).is_some(),
                Extension::CombinedSession { nai, sub_nai } if covered => {
                    combined.replace(SessionName { nai, sub_nai }).is_some()
                }
                Extension::SessionRelease if covered => {
                    releases = true;
                    false
                }
                Extension::NormalVendor {
                    vendor: SESSION_VENDOR,
                    vendor_type: SUB_NAI | COMBINED | RELEASE,
                    ..
                } => return Err(NameDefect::Length),
                _ => false,
            };
            if twice {
                return Err(NameDefect::Twice);
            }
        }
        let (name, carriage, inserted) = match (combined, nai, sub_nai, inserted) {
            (Some(_), _, Some(_), _) => return Err(NameDefect::Twice),
            (Some(one), Some(nai), None, _) if one.nai != nai => return Err(NameDefect::Twice),
            (Some(one), _, None, _) => (one, SessionCarriage::Combined, false),
            (None, None, None, None) if !releases => return Ok(None),
            (None, None, ..) => return Err(NameDefect::NoNai),
            (None, Some(nai), Some(sub_nai), _) => {
                (SessionName { nai, sub_nai }, SessionCarriage::Separate, false)
            }
            (None, Some(nai), None, inserted) => {
                let sub_nai = inserted.unwrap_or_default();
                let name = SessionName { nai, sub_nai };
                (name, SessionCarriage::Separate, inserted.is_some())
            }
        };
        if name.nai.is_empty() || name.nai.len() > MAX_NAI {
            return Err(NameDefect::Length);
        }
        Ok(Some(Named { name, carriage, inserted, releases }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lifetime;
    use crate::message::{
        Identification, Message, MessageWriter, RegistrationRequest, RequestFlags,
    };
    use crate::security::{Algorithm, Key, MobilitySecurityAssociation, ReplayProtection, Spi};
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;

    const NAI: &[u8] = b"phone@train.example";

    fn name_of(
        covered: &[Extension<'_>],
        behind: &[Extension<'_>],
        look: impl FnOnce(Result<Option<Named<'_>>, NameDefect>),
    ) {
        let mut writer = MessageWriter::request(&RegistrationRequest {
            flags: RequestFlags::default(),
            lifetime: Lifetime(60),
            home_address: Ipv4Addr::UNSPECIFIED,
            home_agent: Ipv4Addr::new(10, 0, 1, 2),
            care_of_address: Ipv4Addr::new(10, 0, 2, 2),
            identification: Identification(1),
        });
        for extension in covered {
            writer.extension(extension).unwrap();
        }
        let association = MobilitySecurityAssociation {
            spi: Spi(256),
            algorithm: Algorithm::HmacMd5,
            key: Key::new(vec![7; 16]),
            replay: ReplayProtection::Nonces,
        };
        writer.authenticate(AuthenticationKind::MobileHome, &association);
        for extension in behind {
            writer.extension(extension).unwrap();
        }
        let bytes = writer.finish();
        let Ok(Message::Request(received)) = Message::parse(&bytes) else { panic!() };
        assert_eq!(received.defect(), None);
        look(SessionName::of(&received));
    }

    fn raw(vendor_type: u16, value: &[u8]) -> Extension<'_> {
        Extension::NormalVendor { vendor: SESSION_VENDOR, vendor_type, value }
    }

    // Shows S1-01, S1-02, S1-04, S1-05.
    #[test]
    fn a_session_is_named_by_two_extensions_or_by_one() {
        let sub_nai: &[u8] = b"\x00\xff\n";
        let nai = Extension::NetworkAccessIdentifier(NAI);
        let name = SessionName { nai: NAI, sub_nai };
        let named =
            Named { name, carriage: SessionCarriage::Separate, inserted: false, releases: false };
        name_of(&[nai, Extension::SubNai(sub_nai)], &[], |found| {
            assert_eq!(found, Ok(Some(named)));
        });
        let combined = Extension::CombinedSession { nai: NAI, sub_nai };
        let one = Named { carriage: SessionCarriage::Combined, ..named };
        name_of(&[combined], &[], |found| assert_eq!(found, Ok(Some(one))));
        name_of(&[nai, combined], &[], |found| assert_eq!(found, Ok(Some(one))));
        let inserted = Named { inserted: true, ..named };
        name_of(&[nai], &[Extension::SubNai(sub_nai)], |found| {
            assert_eq!(found, Ok(Some(inserted)));
        });
        // What the node has signed comes before what an agent says of it.
        name_of(&[nai, Extension::SubNai(sub_nai)], &[Extension::SubNai(b"other")], |found| {
            assert_eq!(found, Ok(Some(named)));
        });
        name_of(&[nai, Extension::SessionRelease], &[], |found| {
            let found = found.unwrap().unwrap();
            assert!(found.releases && found.name.sub_nai.is_empty());
        });
        name_of(&[], &[nai], |found| assert_eq!(found, Ok(None)));
    }

    #[test]
    fn what_names_two_or_nobody_is_refused() {
        let nai = Extension::NetworkAccessIdentifier(NAI);
        let (one, other) = (Extension::SubNai(b"a"), Extension::SubNai(b"b"));
        let combined = Extension::CombinedSession { nai: NAI, sub_nai: b"a" };
        let cases: Vec<(Vec<Extension<'_>>, Vec<Extension<'_>>, NameDefect)> = vec![
            (vec![nai, nai], vec![], NameDefect::Twice),
            (vec![nai, one, other], vec![], NameDefect::Twice),
            (vec![nai], vec![one, other], NameDefect::Twice),
            (vec![combined, combined], vec![], NameDefect::Twice),
            (vec![combined, one], vec![], NameDefect::Twice),
            (vec![Extension::NetworkAccessIdentifier(b"x@y"), combined], vec![], NameDefect::Twice),
            (vec![one], vec![], NameDefect::NoNai),
            (vec![Extension::SessionRelease], vec![], NameDefect::NoNai),
            (vec![nai, raw(SUB_NAI, b"")], vec![], NameDefect::Length),
            (vec![raw(COMBINED, b"\x03abc")], vec![], NameDefect::Length),
            (vec![raw(COMBINED, b"\x00abc")], vec![], NameDefect::Length),
            (vec![raw(COMBINED, b"\x09abc")], vec![], NameDefect::Length),
            (vec![nai, raw(RELEASE, b"x")], vec![], NameDefect::Length),
            (vec![Extension::NetworkAccessIdentifier(b""), one], vec![], NameDefect::Length),
            (vec![Extension::NetworkAccessIdentifier(&[b'n'; 254])], vec![], NameDefect::Length),
        ];
        for (covered, behind, defect) in &cases {
            name_of(covered, behind, |found| {
                assert_eq!(found, Err(*defect), "{covered:?} {behind:?}");
            });
        }
    }

    #[test]
    fn a_sub_nai_has_1_to_247_bytes_and_no_longer_one_is_written() {
        for len in [1, MAX_SUB_NAI] {
            let sub_nai = vec![0xa5; len];
            name_of(
                &[Extension::NetworkAccessIdentifier(NAI), Extension::SubNai(&sub_nai)],
                &[],
                |found| assert_eq!(found.unwrap().unwrap().name.sub_nai, sub_nai),
            );
        }
        for len in [248, 249, 250] {
            assert!(Extension::SubNai(&vec![1; len]).emit(&mut Vec::new()).is_err(), "{len}");
        }
    }

    #[test]
    fn what_another_vendor_says_is_nobodys_session() {
        let other = Extension::NormalVendor { vendor: 9, vendor_type: SUB_NAI, value: b"" };
        name_of(&[other, raw(99, b"")], &[], |found| assert_eq!(found, Ok(None)));
    }
}
