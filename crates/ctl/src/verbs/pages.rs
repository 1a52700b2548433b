//! `dispatchctl completions` and `man`, for all five commands: made from the command lines' own definitions.

mod page;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_complete::{Generator as _, Shell};
use dispatch_node::files::FileError;
use dispatch_node::report::{Exit, Report, after_help, say_raw};
use serde_json::json;

use crate::context::Context;

const COMPLETIONS_EXAMPLES: &str = "  source <(dispatchctl completions bash)          for this shell only
  dispatchctl completions bash --dir ~/.local/share/bash-completion/completions
  dispatchctl completions zsh --dir /usr/local/share/zsh/site-functions
  dispatchctl completions fish --dir ~/.config/fish/completions";

/// Print a completion script for a shell, or write one file for each command
///
/// The script covers all five commands. With --dir each command gets a file of its own, named as the shell looks for it.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(COMPLETIONS_EXAMPLES))]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
    /// Write one file for each command into this directory, in place of printing them
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Write the man pages of all commands and verbs
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl man ~/.local/share/man/man1\n  dispatchctl man /tmp/pages && man -l /tmp/pages/dispatch-send.1"))]
pub(crate) struct ManArgs {
    /// The directory to write them to
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// The command lines of all five commands.
fn commands() -> [Command; 5] {
    [
        dispatch_send::command(),
        dispatch_ack::command(),
        crate::Cli::command(),
        dispatch_watch::command(),
        dispatch_exec::command(),
    ]
}

pub(crate) fn completions(args: &CompletionsArgs, context: &Context) -> Result<Exit, Report> {
    let scripts = commands().map(|mut command| {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(args.shell, &mut command, &name, &mut script);
        (file_name(args.shell, &name), script)
    });
    match &args.dir {
        Some(dir) => write_all(dir, scripts.into(), "completions", context),
        None => {
            for (_, script) in &scripts {
                say_raw(script)?;
            }
            Ok(Exit::Done)
        }
    }
}

pub(crate) fn man(args: &ManArgs, context: &Context) -> Result<Exit, Report> {
    let mut pages = Vec::new();
    for command in commands() {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        collect(&command, &mut pages);
    }
    write_all(&args.dir, pages, "pages", context)
}

/// The page of a command and those of its verbs, with their file names.
fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    pages.push((format!("{}.1", page::name(command)), page::render(command).into_bytes()));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        collect(verb, pages);
    }
}

/// The name under which a shell looks for a command's completions.
fn file_name(shell: Shell, command: &str) -> String {
    // bash-completion looks for the bare name; an ending is known to its newest releases only.
    if shell == Shell::Bash { command.to_owned() } else { shell.file_name(command) }
}

fn write_all(
    dir: &Path,
    files: Vec<(String, Vec<u8>)>,
    what: &str,
    context: &Context,
) -> Result<Exit, Report> {
    fs::create_dir_all(dir).map_err(FileError::of("create the directory", dir))?;
    let mut written = Vec::new();
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::write(&path, &bytes).map_err(FileError::of("write", &path))?;
        written.push(path);
    }
    context.say_json(&json!({ "written": written }))?;
    context.tell(&format!("{what} written to {}", dir.display()));
    Ok(Exit::Done)
}
