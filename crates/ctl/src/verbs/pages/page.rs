//! One man page, from the description of a command line and the texts beside it.

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command};
use dispatch_node::report::{Exit, examples_of, more_of};
use roff::{Inline, Roff, bold, italic, roman};

use super::texts::{self, Entry};

/// The name of a command's page: the command, and for a verb its words, joined by hyphens.
pub(super) fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page as roff. The command must have been built.
pub(super) fn render(command: &Command) -> String {
    let name = name(command);
    let mut page = Roff::new();
    let version = format!("Dispatch {}", command.get_version().unwrap_or_default());
    page.control("TH", [name.to_uppercase().as_str(), "1", "", version.as_str(), "Dispatch"]);
    // Words of a command line are not to be broken: here, and after each heading, which would turn it on again.
    page.control("nr", ["HY", "0"]).control("nh", []).control("ad", ["l"]);
    head(&mut page, command);
    options(&mut page, command);
    verbs(&mut page, command);
    let below = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    if let Some(examples) = examples_of(&below) {
        section(&mut page, "EXAMPLES");
        verbatim(&mut page, examples);
    }
    match (more_of(&below), texts::json(name)) {
        (Some(more), _) => {
            section(&mut page, "JSON OUTPUT");
            let (head, members) = more.split_once('\n').unwrap_or((more, ""));
            paragraphs(&mut page, head);
            verbatim(&mut page, members);
        }
        (None, Some(text)) => {
            section(&mut page, "JSON OUTPUT");
            paragraphs(&mut page, text);
        }
        (None, None) => {}
    }
    section(&mut page, "EXIT STATUS");
    for exit in Exit::ALL {
        tagged(&mut page, vec![bold(exit.code().to_string())], exit.meaning());
    }
    entries(&mut page, "FILES", &texts::files(name));
    entries(&mut page, "ENVIRONMENT", &texts::environment(name));
    see_also(&mut page, command);
    page.render()
}

fn head(page: &mut Roff, command: &Command) {
    section(page, "NAME");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.text([roman(format!("{} - {}", name(command), lower_first(about.trim_end_matches('.'))))]);
    section(page, "SYNOPSIS");
    let usage = command.clone().render_usage().to_string();
    let words = usage.trim().trim_start_matches("Usage:").trim();
    let called = command.get_bin_name().unwrap_or_else(|| command.get_name());
    page.text([bold(called), roman(words.strip_prefix(called).unwrap_or(words))]);
    section(page, "DESCRIPTION");
    let long = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    paragraphs(page, &long.unwrap_or_default());
}

/// The command's own options first, in the order of their definition; then those that every command has.
fn options(page: &mut Roff, command: &Command) {
    let shown: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    let is_common = |arg: &&Arg| arg.get_help_heading().is_some() || is_builtin(arg);
    let (common, own): (Vec<&Arg>, Vec<&Arg>) = shown.into_iter().partition(is_common);
    let (positional, named): (Vec<&Arg>, Vec<&Arg>) = own.into_iter().partition(|arg| arg.is_positional());
    for (title, args) in [("ARGUMENTS", positional), ("OPTIONS", named), ("OPTIONS OF EVERY COMMAND", common)]
    {
        if args.is_empty() {
            continue;
        }
        section(page, title);
        for arg in args {
            tagged(page, label(arg), &body(arg));
        }
    }
}

fn is_builtin(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

fn label(arg: &Arg) -> Vec<Inline> {
    let mut words = Vec::new();
    if let Some(short) = arg.get_short() {
        words.push(bold(format!("-{short}")));
    }
    if let Some(long) = arg.get_long() {
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.push(bold(format!("--{long}")));
    }
    let values = arg.get_value_names().unwrap_or_default();
    if arg.get_action().takes_values() {
        for value in values {
            if !words.is_empty() {
                words.push(roman(" "));
            }
            words.push(italic(value.as_str()));
        }
    }
    let repeats = arg.get_num_args().is_some_and(|count| count.max_values() > values.len().max(1))
        || matches!(arg.get_action(), ArgAction::Count)
        || arg.is_positional() && matches!(arg.get_action(), ArgAction::Append);
    if repeats {
        words.push(roman("..."));
    }
    words
}

/// What the option does, what it may be, and what it is when nobody says.
fn body(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(StyledStr::to_string);
    let mut text = help.unwrap_or_default();
    if arg.get_action().takes_values() {
        let possible: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| value.get_name().to_owned())
            .collect();
        // The one value of a word like `-` says nothing that its label does not.
        if possible.len() > 1 {
            text.push_str(&format!(" [one of: {}]", possible.join(", ")));
        }
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !default.is_empty() && default.iter().any(|value| !value.is_empty()) {
            text.push_str(&format!(" [else: {}]", default.join(",")));
        }
    }
    text
}

fn verbs(page: &mut Roff, command: &Command) {
    let mut shown = command.get_subcommands().filter(|verb| !verb.is_hide_set()).peekable();
    if shown.peek().is_none() {
        return;
    }
    section(page, "VERBS");
    for verb in shown {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        let words = vec![bold(verb.get_name()), roman(format!(" - see {}(1)", name(verb)))];
        tagged(page, words, &about);
    }
}

fn see_also(page: &mut Roff, command: &Command) {
    section(page, "SEE ALSO");
    let own = name(command);
    let verb = own
        .strip_prefix("dispatchctl-")
        .map(|_| "dispatchctl(1) (files, variables, the form of what --json prints)".to_owned());
    let others = ["dispatch-send", "dispatch-ack", "dispatchctl", "dispatch-watch", "dispatch-exec"]
        .into_iter()
        .filter(|other| *other != own && (verb.is_none() || *other != "dispatchctl"))
        .map(|other| format!("{other}(1)"));
    let pages: Vec<String> = verb.clone().into_iter().chain(others).collect();
    page.text([roman(pages.join(", "))]);
}

fn entries(page: &mut Roff, title: &str, list: &[Entry]) {
    if list.is_empty() {
        return;
    }
    section(page, title);
    for (name, text) in list {
        tagged(page, vec![italic(*name)], text);
    }
}

fn section(page: &mut Roff, title: &str) {
    page.control("SH", [title]);
}

fn tagged(page: &mut Roff, words: Vec<Inline>, text: &str) {
    page.control("TP", []);
    page.text(words);
    page.text([roman(one_line(text))]);
}

/// Paragraphs stand apart by an empty line; lines that begin with blanks are printed as they are.
fn paragraphs(page: &mut Roff, text: &str) {
    for (number, paragraph) in text.trim_end().split("\n\n").enumerate() {
        if number > 0 {
            page.control("PP", []);
        }
        if paragraph.starts_with("  ") {
            verbatim(page, paragraph);
        } else {
            page.text([roman(one_line(paragraph))]);
        }
    }
}

fn verbatim(page: &mut Roff, text: &str) {
    page.control("EX", []);
    for line in text.lines() {
        page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    page.control("EE", []);
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
