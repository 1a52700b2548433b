//! `dispatchctl config check`: every value that holds, and where it came from.

use clap::Subcommand;
use dispatch_node::config::{Effective, Origin};
use dispatch_node::keys::Keys;
use dispatch_node::report::{Exit, Report, after_help};
use serde_json::json;

use crate::context::Context;
use crate::table;
use crate::warnings;

/// Look at the configuration
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the file and its keys; show each value and where it came from
    #[command(after_help = after_help("  dispatchctl config check\n  dispatchctl --config ./dispatch.toml config check --json"))]
    Check,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    match args.verb {
        Verb::Check => check(context),
    }
}

fn check(context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    Keys::load(&config)?;
    let values: Vec<_> = config
        .effective
        .iter()
        .map(|one| json!({"key": one.key, "value": one.value, "origin": origin(one)}))
        .collect();
    let warnings = warnings::of(&config);
    let oldest = config.prices.oldest().map(|day| day.to_string());
    let told: Vec<_> = warnings.iter().map(|one| json!({"text": one.text, "mend": one.mend})).collect();
    context.say_json(
        &json!({"file": config.file, "values": values, "prices_as_of": oldest, "warnings": told}),
    )?;
    let rows: Vec<Vec<String>> = config
        .effective
        .iter()
        .map(|one| vec![format!("{} = {}", one.key, one.value), origin(one)])
        .collect();
    for line in table::lines(&rows) {
        context.say(&line)?;
    }
    for warning in &warnings {
        context.tell(&format!("warning: {}\nmend: {}", warning.text, warning.mend));
    }
    context.tell(&format!("{} holds, and its keys can be read", config.file.display()));
    Ok(Exit::Done)
}

fn origin(one: &Effective) -> String {
    match one.origin {
        Origin::Line(line) => format!("line {line}"),
        Origin::Variable(name) => format!("${name}"),
        Origin::Default => "default".to_owned(),
    }
}
