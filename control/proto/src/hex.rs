//! Bytes as hex in what is kept as text.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes bytes as a string of hex digits.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(bytes))
}

/// Reads them again.
///
/// # Errors
/// It is no string, of an odd length, or not of hex digits.
pub fn deserialize<'de, D, B>(deserializer: D) -> Result<B, D::Error>
where
    D: Deserializer<'de>,
    B: From<Vec<u8>>,
{
    let text = String::deserialize(deserializer)?;
    bytes(&text)
        .map(B::from)
        .ok_or_else(|| D::Error::custom("hex digits are expected, an even number of them"))
}

/// The hex digits of bytes.
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // To a string, nothing is written in vain.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit =
        |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Lists of them.
pub mod list {
    use super::{Deserialize, Deserializer, Error, Serializer, String, Vec, bytes, text};

    /// Writes each as a string of hex digits.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|one| text(one)))
    }

    /// Reads them again.
    ///
    /// # Errors
    /// As for one.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let list: Option<_> = texts.iter().map(|text| bytes(text)).collect();
        list.ok_or_else(|| D::Error::custom("hex digits are expected, an even number of them"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn what_is_no_hex_is_refused() {
        assert_eq!(bytes("00ffA5"), Some(vec![0, 255, 0xa5]));
        assert_eq!(text(&[0, 255, 0xa5]), "00ffa5");
        for wrong in ["0", "0g", "+1", "é"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
