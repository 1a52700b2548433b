//! The end of a stream of bytes as valid text, in a fixed amount of memory.

use dispatch_core::protocol::limits::{FINAL_TEXT_CHARS_MAX, OUTPUT_TAIL_CHARS_MAX};
use dispatch_core::protocol::text::{last_chars, valid_text};

/// Most characters of a text in an outcome.
const CHARS_MAX: usize = FINAL_TEXT_CHARS_MAX;
const _: () = assert!(CHARS_MAX == OUTPUT_TAIL_CHARS_MAX);
/// Bytes that can hold so many characters.
const BYTES_MAX: usize = CHARS_MAX * 4;
/// Most characters of the last line in a progress file.
const LINE_CHARS_MAX: usize = 200;

/// Keeps the end of what it is given.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    dropped: bool,
}

impl Tail {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let skip = bytes.len().saturating_sub(BYTES_MAX);
        self.dropped |= skip > 0;
        self.bytes.extend_from_slice(bytes.get(skip..).unwrap_or_default());
        // Twice the size is let grow, so that small pieces do not move the whole each time.
        if self.bytes.len() > BYTES_MAX * 2 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let skip = self.bytes.len().saturating_sub(BYTES_MAX);
        self.dropped |= skip > 0;
        self.bytes.drain(..skip);
    }

    /// The last 8 000 characters. What is not UTF-8, and NUL, is U+FFFD.
    pub(crate) fn text(&mut self) -> String {
        self.cut();
        let whole: &[u8] = &self.bytes;
        // Where bytes were dropped, the first character may have lost its head.
        let head_lost = whole.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
        let from = if self.dropped { head_lost } else { 0 };
        last_chars(&valid_text(whole.get(from..).unwrap_or_default()), CHARS_MAX).to_owned()
    }

    /// The last line that is not empty.
    pub(crate) fn last_line(&self) -> Option<String> {
        let end = self.bytes.get(self.bytes.len().saturating_sub(LINE_CHARS_MAX * 8)..)?;
        let text = valid_text(end);
        let line = text.lines().rev().map(str::trim_end).find(|line| !line.is_empty())?;
        Some(last_chars(line, LINE_CHARS_MAX).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_kept_whole_and_made_valid() {
        let mut tail = Tail::default();
        tail.push(b"\x80a\0b\xff");
        tail.push("ü\n".as_bytes());
        assert_eq!(tail.text(), "\u{FFFD}a\u{FFFD}b\u{FFFD}ü\n");
    }

    #[test]
    fn the_end_of_a_long_text_is_kept_in_fixed_memory() {
        let mut tail = Tail::default();
        for _ in 0..100_000 {
            tail.push("äöü€𝄞".as_bytes());
        }
        assert!(tail.bytes.capacity() <= BYTES_MAX * 5);
        let text = tail.text();
        assert_eq!(text.chars().count(), CHARS_MAX);
        assert!(!text.contains('\u{FFFD}'));
        tail.push(&vec![b'x'; 1_000_000]);
        assert_eq!(tail.text(), "x".repeat(CHARS_MAX));
    }

    #[test]
    fn a_character_cut_in_two_leaves_no_trace() {
        let mut tail = Tail::default();
        tail.push("€".repeat(20_000).as_bytes());
        tail.push(b"y");
        assert!(!tail.text().contains('\u{FFFD}'));
    }

    #[test]
    fn the_last_line_is_the_last_with_something_on_it() {
        let mut tail = Tail::default();
        assert_eq!(tail.last_line(), None);
        tail.push(b"first\nsecond  \n\n");
        assert_eq!(tail.last_line().as_deref(), Some("second"));
    }
}
