//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use core::net::Ipv4Addr;

/// A running one's-complement sum of 16-bit words, not yet folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const fn new() -> Self {
        Sum(0)
    }

    /// Adds `bytes`, which start at an even offset of what is summed; an odd
    /// tail is padded with a zero byte (RFC 1071 §1).
    #[must_use]
    pub fn add_bytes(mut self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0u8; 4];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        self.0 += u64::from(u32::from_be_bytes(last));
        self
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub const fn add_u16(mut self, word: u16) -> Self {
        self.0 += word as u64;
        self
    }

    /// Adds the IPv4 pseudo-header of TCP and UDP (RFC 768, RFC 793).
    #[must_use]
    pub fn add_pseudo_header(
        self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        len: u16,
    ) -> Self {
        self.add_bytes(&source.octets())
            .add_bytes(&destination.octets())
            .add_u16(u16::from(protocol))
            .add_u16(len)
    }

    /// Folds the carries into 16 bits, not complemented.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the loop leaves 16 bits")]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum field: the complement of the folded sum.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// The checksum of `bytes`. Over bytes that contain a right checksum it is zero.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).checksum()
}

/// The checksum after one 16-bit word under it changed (RFC 1624 §3, eqn. 3).
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum((!checksum) as u64 + (!old) as u64 + new as u64).checksum()
}

/// The checksum after an IPv4 address under it changed.
#[must_use]
pub fn update_address(checksum: u16, old: Ipv4Addr, new: Ipv4Addr) -> u16 {
    let [a, b, c, d] = old.octets();
    let [e, f, g, h] = new.octets();
    let high = update(checksum, u16::from_be_bytes([a, b]), u16::from_be_bytes([e, f]));
    update(high, u16::from_be_bytes([c, d]), u16::from_be_bytes([g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_example_sums() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().add_bytes(&bytes).fold(), 0xddf2);
    }

    #[test]
    fn rfc_1624_example_updates_without_negative_zero() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    /// The plain definition, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap())
    }

    proptest! {
        #[test]
        fn any_length_agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(checksum(&bytes), slow(&bytes));
        }

        #[test]
        fn an_updated_checksum_verifies(mut bytes in proptest::collection::vec(any::<u8>(), 20..21), new in any::<u16>()) {
            bytes[10] = 0;
            bytes[11] = 0;
            let old_sum = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[4], bytes[5]]);
            bytes[4..6].copy_from_slice(&new.to_be_bytes());
            let updated = update(old_sum, old, new);
            bytes[10..12].copy_from_slice(&updated.to_be_bytes());
            prop_assert_eq!(Sum::new().add_bytes(&bytes).fold(), 0xffff);
        }
    }
}
