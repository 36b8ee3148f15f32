//! A decision in words: for people, and for the Message String Extension (RFC 4917),
//! which tells the node's user.

use core::fmt::{self, Write};
use core::net::Ipv4Addr;

use super::{Cause, Ruling};

/// The longest text of a Message String Extension that an agent writes, in bytes. The
/// extension could hold 254 (RFC 4917 §2).
pub const MAX_WORDS: usize = 160;

/// A ruling's sentence, with its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Sentence<'a>(pub(super) &'a Ruling);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ruling { cause, clock_offset, detail, .. } = *self.0;
        let text = cause.text();
        match (cause, clock_offset) {
            (Cause::ClockOff, Some(offset)) => {
                let side = if offset < 0 { "behind" } else { "ahead of" };
                let seconds = offset.unsigned_abs();
                write!(f, "The node's clock is {seconds} s {side} the home agent's.")
            }
            (Cause::MarkAhead, _) => write!(f, "{text} It is refused for {detail} s more."),
            (Cause::Redirected, _) if detail > 0 => {
                write!(f, "{text} That is {}.", Ipv4Addr::from_bits(detail))
            }
            (Cause::UnknownExtension, _) => write!(f, "{text} It has type {detail}."),
            (Cause::BrokenExtensions | Cause::VisitorBrokenExtensions, _) if detail > 0 => {
                write!(f, "{text} The fault is at byte {detail}.")
            }
            _ => f.write_str(text),
        }
    }
}

/// A short text without memory of its own: what does not fit is cut off, between
/// characters.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    bytes: [u8; MAX_WORDS],
    len: usize,
}

impl Words {
    /// The ruling's sentence if it fits into `room` bytes, else the few words for it
    /// if those do.
    pub fn fitting(ruling: &Ruling, room: usize) -> Option<Self> {
        let mut words = Words { bytes: [0; MAX_WORDS], len: 0 };
        // It never fails: what is too long is cut.
        let _ = write!(words, "{}", ruling.sentence());
        if words.len > room {
            words.len = 0;
            let _ = words.write_str(ruling.cause.brief());
        }
        (words.len <= room).then_some(words)
    }

    /// The text, UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_WORDS.saturating_sub(self.len);
        let len = text.floor_char_boundary(room);
        let place = self.bytes.get_mut(self.len..self.len + len);
        if let (Some(place), Some(from)) = (place, text.as_bytes().get(..len)) {
            place.copy_from_slice(from);
            self.len += len;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruling(cause: Cause) -> Ruling {
        Ruling { cause, ..Ruling::default() }
    }

    fn text(ruling: &Ruling, room: usize) -> Option<alloc::string::String> {
        let words = Words::fitting(ruling, room)?;
        Some(core::str::from_utf8(words.as_bytes()).unwrap().into())
    }

    #[test]
    fn a_clock_is_told_with_its_offset_and_its_side() {
        let told = |offset| {
            let ruling = Ruling { clock_offset: Some(offset), ..ruling(Cause::ClockOff) };
            text(&ruling, MAX_WORDS).unwrap()
        };
        assert_eq!(told(60), "The node's clock is 60 s ahead of the home agent's.");
        assert_eq!(told(-3_600), "The node's clock is 3600 s behind the home agent's.");
        assert_eq!(told(i32::MIN), "The node's clock is 2147483648 s behind the home agent's.");
    }

    #[test]
    fn the_words_give_way_to_few_and_then_to_none() {
        let full = ruling(Cause::TableFull);
        let len = full.cause.text().len();
        assert_eq!(text(&full, len).unwrap(), full.cause.text());
        assert_eq!(text(&full, len - 1).unwrap(), "home agent is full");
        assert_eq!(text(&full, 18).unwrap(), "home agent is full");
        assert_eq!(text(&full, 17), None);
    }

    /// A foreign agent's denial of a plain request of 46 bytes has room for 23.
    #[test]
    fn every_cause_has_a_sentence_that_fits_and_a_few_words_of_at_most_23_bytes() {
        for cause in Cause::ALL {
            let all = Ruling { detail: u32::MAX, clock_offset: Some(i32::MIN), ..ruling(*cause) };
            let sentence = alloc::format!("{}", all.sentence());
            assert!(sentence.len() <= MAX_WORDS, "{} {cause:?}", sentence.len());
            assert!(cause.brief().len() <= 23, "{cause:?}");
            assert!(cause.text().ends_with('.') && cause.text().is_ascii(), "{cause:?}");
        }
    }

    // Shows 4917-3-c.
    #[test]
    fn what_does_not_fit_is_cut_between_characters() {
        let mut words = Words { bytes: [0; MAX_WORDS], len: 0 };
        for _ in 0..100 {
            words.write_str("äöü").unwrap();
        }
        assert_eq!(words.as_bytes().len(), MAX_WORDS);
        words.len = MAX_WORDS - 1;
        words.write_str("ä").unwrap();
        assert_eq!(words.len, MAX_WORDS - 1);
    }
}
