//! `--follow`: the log on standard output as it comes.

use std::io::{self, IsTerminal};

use dispatch_node::report::say_raw;
use dispatch_node::term::{Breaks, visible};

use crate::args::Cli;

/// Prints a log piece by piece; a character may be cut in two between pieces.
pub(crate) struct Follow {
    as_it_is: AsItIs,
    /// The beginning of a character whose rest has not come yet.
    carry: Vec<u8>,
    /// Whether anything was printed.
    printed: Printed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AsItIs {
    Yes,
    No,
}

/// Whether a followed log said anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Printed {
    /// Text of the log is on standard output.
    Something,
    /// Nothing is.
    Nothing,
}

impl Follow {
    pub(crate) fn of(cli: &Cli) -> Follow {
        let as_it_is = if cli.raw && !io::stdout().is_terminal() { AsItIs::Yes } else { AsItIs::No };
        Follow { as_it_is, carry: Vec::new(), printed: Printed::Nothing }
    }

    pub(crate) fn show(&mut self, bytes: &[u8]) {
        self.printed = Printed::Something;
        let text = match self.as_it_is {
            AsItIs::Yes => bytes.to_vec(),
            AsItIs::No => visible(&self.whole_characters(bytes), Breaks::Keep).into_bytes(),
        };
        // A reader that went away keeps nobody from the result's exit code.
        say_raw(&text).unwrap_or_default();
    }

    /// What was printed, after the rest of it.
    pub(crate) fn end(mut self) -> Printed {
        if !self.carry.is_empty() {
            let rest = std::mem::take(&mut self.carry);
            let text = visible(&String::from_utf8_lossy(&rest), Breaks::Keep);
            say_raw(text.as_bytes()).unwrap_or_default();
        }
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
        let mut follow = Follow { as_it_is: AsItIs::No, carry: Vec::new(), printed: Printed::Nothing };
        let bytes = "grüße".as_bytes();
        let (first, second) = bytes.split_at(3);
        let text = follow.whole_characters(first) + &follow.whole_characters(second);
        assert_eq!(text, "grüße");
        assert_eq!(follow.whole_characters(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(follow.end(), Printed::Nothing);
    }
}
