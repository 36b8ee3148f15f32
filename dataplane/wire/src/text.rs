//! Values that are written as text where they are kept: read again without a copy.

use core::fmt;
use serde::de::{Deserializer, Error, Visitor};

/// Reads a value from its text by `parse`; `expected` says what the text is.
///
/// # Errors
/// The deserializer's, and what is not `expected`.
pub fn deserialize<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Text { expected, parse })
}

struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text)
            .ok_or_else(|| E::custom(format_args!("`{text}`, where {} is expected", self.expected)))
    }
}
