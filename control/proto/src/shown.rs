//! Bytes that somebody else has chosen, for people: in one line, and so that no terminal
//! obeys them (reliability row 42).

use alloc::string::String;
use core::fmt::{self, Write};

/// Whether a terminal would do something else with it than show it: control characters,
/// and marks of direction and of zero width.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// Writes bytes as UTF-8; characters that are `escaped`, and bytes that are no UTF-8, are
/// written out.
pub(crate) fn write(
    to: &mut impl Write,
    bytes: &[u8],
    escaped: impl Fn(char) -> bool,
) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if escaped(c) {
                write!(to, "{}", c.escape_default())?;
            } else {
                to.write_char(c)?;
            }
        }
        for byte in chunk.invalid() {
            write!(to, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// A name: no two look alike, so a backslash is written out too.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // To a string, nothing is written in vain.
    let _ = write(&mut text, bytes, |c| c == '\\' || is_obeyed(c));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_shown_in_one_line() {
        assert_eq!(shown("grün@x".as_bytes()), "grün@x");
        assert_eq!(shown(b"a\nb\x1b[2J\x00\\\xff"), "a\\nb\\u{1b}[2J\\u{0}\\\\\\xff");
        assert_eq!(shown("\u{202e}\u{2066}\u{feff}".as_bytes()), "\\u{202e}\\u{2066}\\u{feff}");
    }
}
