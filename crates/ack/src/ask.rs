//! Asking the person at the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use dispatch_node::report::{Exit, Report};

use crate::error::DecideError;

/// Fails where nobody could be asked.
///
/// # Errors
/// Standard input or standard error is no terminal.
pub(crate) fn somebody_is_there() -> Result<(), DecideError> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        Ok(())
    } else {
        Err(DecideError::NoTerminal)
    }
}

/// Asks a question that only `y` or `yes` answers with yes.
///
/// # Errors
/// Any other answer, also the end of input.
pub(crate) fn confirm(question: &str) -> Result<(), Report> {
    let mut line = String::new();
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ")
        .and_then(|()| stderr.flush())
        .and_then(|()| io::stdin().read_line(&mut line))
        .map_err(|error| Report::new(Exit::LocalIo, "cannot ask on the terminal").because(&error))?;
    if is_yes(&line) { Ok(()) } else { Err(DecideError::NotConfirmed.into()) }
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("y\n") && is_yes(" YES \n"));
        for no in ["", "\n", "n\n", "yess\n", "ok\n", "y y\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
