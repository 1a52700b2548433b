//! `dispatchctl completions` and `man`: made from the command line's own description.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;
use dispatch_node::files::FileError;
use dispatch_node::report::{Exit, Report, after_help, say_raw};

use crate::context::Context;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl completions bash > ~/.local/share/bash-completion/completions/dispatchctl"))]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write the man pages of dispatchctl and its verbs
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl man ~/.local/share/man/man1"))]
pub(crate) struct ManArgs {
    /// The directory to write them to
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Report> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "dispatchctl", &mut script);
    say_raw(&script)?;
    Ok(Exit::Done)
}

pub(crate) fn man(args: &ManArgs, context: &Context) -> Result<Exit, Report> {
    fs::create_dir_all(&args.dir).map_err(FileError::of("create the directory", &args.dir))?;
    clap_mangen::generate_to(crate::Cli::command(), &args.dir)
        .map_err(FileError::of("write the pages to", &args.dir))?;
    context.tell(&format!("pages written to {}", args.dir.display()));
    Ok(Exit::Done)
}
