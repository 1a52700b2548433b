//! A log that comes in pieces, on standard output.

use std::io::{self, IsTerminal as _};

use crate::report::{Report, say_raw};
use crate::term::{Breaks, visible};

/// Whether an agent's bytes are printed as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// As they are: only where standard output is no terminal.
    AsTheyAre,
    /// With control characters made visible.
    Visible,
}

/// Whether a log said anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// Text of it is on standard output.
    Something,
    /// Nothing is.
    Nothing,
}

/// Whether something else may be printed beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The log is at the beginning of a line, or goes to another place than standard error.
    Free,
    /// A line of the log is half on the terminal.
    Busy,
}

/// Prints a log piece by piece; a character may be cut in two between pieces.
#[derive(Debug)]
pub struct LogText {
    bytes: Bytes,
    /// The beginning of a character whose rest has not come yet.
    carry: Vec<u8>,
    printed: Printed,
    beside: Beside,
}

impl LogText {
    /// A log of which nothing was printed yet.
    #[must_use]
    pub const fn new(bytes: Bytes) -> LogText {
        LogText { bytes, carry: Vec::new(), printed: Printed::Nothing, beside: Beside::Free }
    }

    /// Prints the next piece.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn show(&mut self, piece: &[u8]) -> Result<(), Report> {
        if piece.is_empty() {
            return Ok(());
        }
        self.printed = Printed::Something;
        let text = match self.bytes {
            Bytes::AsTheyAre => piece.to_vec(),
            Bytes::Visible => visible(&self.whole_characters(piece), Breaks::Keep).into_bytes(),
        };
        if let Some(last) = text.last() {
            let open = *last != b'\n' && io::stdout().is_terminal();
            self.beside = if open { Beside::Busy } else { Beside::Free };
        }
        say_raw(&text)
    }

    /// Prints what is left, and ends the line on a terminal. Answers what was printed in all.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn end(mut self) -> Result<Printed, Report> {
        let rest = std::mem::take(&mut self.carry);
        if !rest.is_empty() {
            say_raw(visible(&String::from_utf8_lossy(&rest), Breaks::Keep).as_bytes())?;
        }
        match self.beside {
            Beside::Busy => say_raw(b"\n")?,
            Beside::Free => {}
        }
        Ok(self.printed)
    }

    /// Whether a line may be drawn on the same terminal.
    #[must_use]
    pub const fn beside(&self) -> Beside {
        self.beside
    }

    /// Whether anything was printed.
    #[must_use]
    pub const fn printed(&self) -> Printed {
        self.printed
    }

    fn whole_characters(&mut self, bytes: &[u8]) -> String {
        self.carry.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.carry);
        let cut = match std::str::from_utf8(&all) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // Invalid bytes before the end hide whether the end is cut; at most one character is then replaced.
            Ok(_) | Err(_) => all.len(),
        };
        let (whole, rest) = all.split_at_checked(cut).unwrap_or((&all, &[]));
        self.carry = rest.to_vec();
        String::from_utf8_lossy(whole).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_in_two_is_put_together() {
        let mut log = LogText::new(Bytes::Visible);
        let bytes = "grüße".as_bytes();
        let (first, second) = bytes.split_at(3);
        let text = log.whole_characters(first) + &log.whole_characters(second);
        assert_eq!(text, "grüße");
        assert_eq!(log.whole_characters(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(log.end().unwrap(), Printed::Nothing);
    }
}
