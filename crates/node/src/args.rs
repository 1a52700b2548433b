//! Options that every command has, and how arguments are read without ending the process below `main`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::report::{Exit, Form};

/// `--config`, `--json`, `--quiet` and `-v`, the same everywhere.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// The configuration file (else $DISPATCH_CONFIG, ~/.config/dispatch/dispatch.toml, /etc/dispatch/dispatch.toml)
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Print one JSON document or JSON lines
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say more on standard error (-vv: everything, for developers)
    #[arg(long, short, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

impl Common {
    /// How results and reports are printed.
    #[must_use]
    pub const fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }
}

/// Reads the command line.
///
/// # Errors
/// How the process ends instead: 0 after `--help` or `--version`, 2 after wrong arguments. The text is printed here.
pub fn parse<Args: Parser>() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|error| {
        let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        let exit = if asked_for { Exit::Done } else { Exit::Usage };
        // Where the terminal is gone there is nobody left to tell.
        drop(error.print());
        exit.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[derive(Parser)]
    struct Door {
        #[command(flatten)]
        common: Common,
    }

    #[test]
    fn the_options_are_ones_that_clap_takes() {
        Door::command().debug_assert();
        let door = Door::try_parse_from(["door", "--json", "-vv", "--config", "/x"]).unwrap();
        assert_eq!((door.common.form(), door.common.verbose), (Form::Json, 2));
    }
}
