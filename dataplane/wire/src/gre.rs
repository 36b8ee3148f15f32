//! Generic routing encapsulation (RFC 2784), with the key and the sequence number
//! of RFC 2890.
//!
//! We send the plain header or the one with a key; a received one may have every
//! field of the two RFCs.
//!
//! **Not done:** the order of sequence numbers: Mobile IP negotiates none (RFC 6245
//! has the key alone), so they are read over.

use crate::{EtherType, WireError, checksum};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

const CHECKSUM_PRESENT: u16 = 0x8000;
const KEY_PRESENT: u16 = 0x2000;
const SEQUENCE_PRESENT: u16 = 0x1000;

/// RFC 2784 §2.3: who does not implement RFC 1701 must discard what has one of the
/// bits 1 to 5, of which RFC 2890 took 2 and 3 back. These are left: routing, strict
/// source route, and the highest bit of recursion control.
const MUST_BE_ZERO: u16 = 0x4c00;

const VERSION: u16 = 0x0007;

/// The four bytes that every GRE header starts with.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct GreHeader {
    flags: U16,
    protocol_type: U16,
}

impl GreHeader {
    /// Bytes of the header without any optional field.
    pub const LEN: usize = 4;

    /// A header without optional fields, for a payload of this type.
    pub const fn new(protocol_type: EtherType) -> Self {
        GreHeader { flags: U16::new(0), protocol_type: U16::new(protocol_type.0) }
    }

    /// What the payload is.
    pub fn protocol_type(&self) -> EtherType {
        EtherType(self.protocol_type.get())
    }

    fn has(&self, flag: u16) -> bool {
        self.flags.get() & flag != 0
    }
}

/// A header with a key and no other optional field.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct KeyedGreHeader {
    gre: GreHeader,
    key: U32,
}

impl KeyedGreHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header with this key, for a payload of this type (RFC 2890 §2.1).
    pub const fn new(protocol_type: EtherType, key: u32) -> Self {
        let mut gre = GreHeader::new(protocol_type);
        gre.flags = U16::new(KEY_PRESENT);
        KeyedGreHeader { gre, key: U32::new(key) }
    }
}

/// Checksum and the reserved word behind it: there when the first flag says so.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ChecksumField {
    _checksum: U16,
    _reserved: U16,
}

/// A GRE packet whose header parses, and whose checksum is right if it has one.
#[derive(Clone, Copy, Debug)]
pub struct GrePacket<'a> {
    header: &'a GreHeader,
    key: Option<u32>,
    sequence: Option<u32>,
    payload: &'a [u8],
}

impl<'a> GrePacket<'a> {
    /// The packet in `bytes`, all of an IPv4 packet's payload.
    ///
    /// # Errors
    /// [`WireError::Version`], [`WireError::Reserved`] when a bit is set that a
    /// receiver must not read over (RFC 2784 §2.3), [`WireError::Checksum`],
    /// [`WireError::Truncated`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, mut rest) =
            GreHeader::ref_from_prefix(bytes).map_err(|_| WireError::Truncated)?;
        if header.has(VERSION) {
            return Err(WireError::Version);
        }
        if header.has(MUST_BE_ZERO) {
            return Err(WireError::Reserved);
        }
        if header.has(CHECKSUM_PRESENT) {
            (_, rest) = ChecksumField::ref_from_prefix(rest).map_err(|_| WireError::Truncated)?;
            if checksum::checksum(bytes) != 0 {
                return Err(WireError::Checksum);
            }
        }
        let mut word = |present: bool| -> Result<Option<u32>, WireError> {
            if !present {
                return Ok(None);
            }
            let (word, behind) = U32::ref_from_prefix(rest).map_err(|_| WireError::Truncated)?;
            rest = behind;
            Ok(Some(word.get()))
        };
        let key = word(header.has(KEY_PRESENT))?;
        let sequence = word(header.has(SEQUENCE_PRESENT))?;
        Ok(GrePacket { header, key, sequence, payload: rest })
    }

    /// The fixed header.
    pub const fn header(&self) -> &'a GreHeader {
        self.header
    }

    /// The key, if there is one.
    pub const fn key(&self) -> Option<u32> {
        self.key
    }

    /// The sequence number, if there is one.
    pub const fn sequence(&self) -> Option<u32> {
        self.sequence
    }

    /// What follows the header and its optional fields.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A header of any fields, by the book: flags, checksum, key, sequence.
    fn packet(sum: bool, key: Option<u32>, sequence: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let flags =
            flag(sum, 0x8000) | flag(key.is_some(), 0x2000) | flag(sequence.is_some(), 0x1000);
        let mut bytes = flags.to_be_bytes().to_vec();
        bytes.extend([0x08, 0x00]);
        bytes.extend([0; 4].iter().filter(|_| sum));
        for word in [key, sequence].into_iter().flatten() {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(payload);
        if sum {
            let checksum = checksum::checksum(&bytes);
            bytes[4..6].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }

    proptest! {
        #[test]
        fn every_combination_of_fields_is_read(
            sum: bool, key: Option<u32>, sequence: Option<u32>,
            payload in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = packet(sum, key, sequence, &payload);
            let gre = GrePacket::new_checked(&bytes).unwrap();
            prop_assert_eq!(gre.header().protocol_type(), EtherType::IPV4);
            prop_assert_eq!((gre.key(), gre.sequence()), (key, sequence));
            prop_assert_eq!(gre.payload(), &payload[..]);
            let head = bytes.len() - payload.len();
            for cut in 0..head {
                prop_assert!(GrePacket::new_checked(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn what_we_send_is_read_back(key: u32, payload in proptest::collection::vec(any::<u8>(), 0..9)) {
            let plain = [GreHeader::new(EtherType::IPV4).as_bytes(), &payload].concat();
            prop_assert_eq!(&plain, &packet(false, None, None, &payload));
            let keyed = [KeyedGreHeader::new(EtherType::IPV4, key).as_bytes(), &payload].concat();
            prop_assert_eq!(keyed, packet(false, Some(key), None, &payload));
        }

        // Shows 2784-2.2-a.
        #[test]
        fn a_flipped_bit_under_the_checksum_shows(
            payload in proptest::collection::vec(any::<u8>(), 1..40), at: proptest::sample::Index,
        ) {
            let mut bytes = packet(true, Some(7), None, &payload);
            let bit = at.index(bytes.len() * 8 - 32) + 32;
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(GrePacket::new_checked(&bytes).unwrap_err(), WireError::Checksum);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(gre) = GrePacket::new_checked(&bytes) {
                prop_assert!(gre.payload().len() + GreHeader::LEN <= bytes.len());
            }
        }
    }

    /// RFC 2784 §2.3 and §2.3.1, RFC 2890 §2.
    // Shows 2784-2.3-a, 2784-2.3-b, 2784-2.3.1-a.
    #[test]
    fn each_bit_of_the_flags_is_treated_as_the_rfcs_say() {
        let mut bytes = [0u8; 24];
        bytes[2] = 8;
        for bit in 0..16 {
            bytes[..2].copy_from_slice(&(0x8000u16 >> bit).to_be_bytes());
            let expected = match bit {
                0 => Some(WireError::Checksum),
                1 | 4 | 5 => Some(WireError::Reserved),
                13..=15 => Some(WireError::Version),
                _ => None,
            };
            assert_eq!(GrePacket::new_checked(&bytes).err(), expected, "bit {bit}");
        }
    }
}
