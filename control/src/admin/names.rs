//! NAIs and names of sessions as text. They are any bytes, chosen by whoever sends them.

use std::fmt::Write;

pub use homeport_proto::shown::shown;

/// The bytes in hex, where [`shown`] is not what they are.
pub fn hex(bytes: &[u8]) -> Option<String> {
    (shown(bytes).as_bytes() != bytes).then(|| homeport_proto::hex::text(bytes))
}

/// The bytes that are [`shown`] like this, so that what a command has printed can be
/// handed to the next one. `None`: there is a backslash that begins no escape.
pub fn read(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let mut chars = escape.chars();
        let number = |digits: &str| {
            let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)
        };
        rest = match chars.next()? {
            'x' => {
                let digits = chars.as_str().get(..2)?;
                bytes.push(u8::try_from(number(digits)?).ok()?);
                chars.as_str().get(2..)?
            }
            'u' => {
                let (digits, rest) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                push(&mut bytes, char::from_u32(number(digits)?)?);
                rest
            }
            other => {
                let c = match other {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '\\' | '\'' | '"' => other,
                    _ => return None,
                };
                push(&mut bytes, c);
                chars.as_str()
            }
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Text as a part of a path or a value of a query: nothing in it is a separator.
pub fn in_url(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_plain_text_is_told_in_hex_too() {
        assert_eq!(hex("grün@x".as_bytes()), None);
        assert_eq!(hex(b"a\n\xff").as_deref(), Some("610aff"));
        assert_eq!(hex(b"a\\").as_deref(), Some("615c"));
    }

    #[test]
    fn a_backslash_that_begins_no_escape_is_refused() {
        for wrong in ["\\", "\\q", "\\x", "\\x1", "\\x+1", "\\u", "\\u{", "\\u{d800}", "\\u{+1}"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read("a\\\\b\\x00\\u{1b}").as_deref(), Some(&b"a\\b\x00\x1b"[..]));
    }

    proptest! {
        /// Also after the terminal's own escapes.
        #[test]
        fn what_is_shown_can_be_read_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = shown(&bytes);
            prop_assert_eq!(read(&text), Some(bytes.clone()));
            prop_assert_eq!(read(&crate::admin::table::clean(&text)), Some(bytes));
        }

        #[test]
        fn text_that_is_shown_can_be_read_back(text in any::<String>()) {
            let cleaned = crate::admin::table::clean(&shown(text.as_bytes()));
            prop_assert_eq!(read(&cleaned), Some(text.into_bytes()));
        }
    }
}
