//! `dispatchctl approvers`: who may decide on tasks that wait here (protocol section 2).

use std::path::PathBuf;

use clap::Subcommand;
use dispatch_core::protocol::approvers::{Approver, Approvers};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::files::{Written, create_synced};
use dispatch_node::keys::approvers_text;
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_node::term::{Breaks, visible};
use serde_json::{Value, json};

use crate::context::Context;
use crate::editing::{Edited, tell_the_watcher};
use crate::table;
use crate::verbs::init::{APPROVERS_HEAD, Approver as KeyFile};

const EXAMPLES: &str = "  dispatchctl approvers list
  dispatchctl approvers add ~/.ssh/id_ed25519.pub
  dispatchctl approvers add ann.pub --principal ann@example.org --valid-before 20271231
  dispatchctl approvers remove ann@example.org
  dispatchctl approvers remove SHA256:i0vM0yWz…";

/// Look at who may decide on tasks that wait here; add or remove people
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every line of the file: who, which key, from when until when, and what is wrong with it
    #[command(after_help = after_help("  dispatchctl approvers list --json"))]
    List,
    /// Let the holder of a key decide; refused where the key or the name would not count
    #[command(after_help = after_help(EXAMPLES))]
    Add(AddArgs),
    /// Remove the lines of a person, or of a key
    #[command(after_help = after_help(EXAMPLES))]
    Remove {
        /// A principal, or a key's fingerprint (`SHA256:…`)
        #[arg(value_name = "WHO")]
        who: String,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The person's OpenSSH public key
    #[arg(value_name = "KEY.pub")]
    file: PathBuf,
    /// Who it is (else the key's comment, else the file's name)
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// From when on it counts: YYYYMMDD or YYYYMMDDHHMM, UTC
    #[arg(long, value_name = "DATE", value_parser = date)]
    valid_after: Option<String>,
    /// Until when: YYYYMMDD or YYYYMMDDHHMM, UTC
    #[arg(long, value_name = "DATE", value_parser = date)]
    valid_before: Option<String>,
}

/// Digits only: whether they are a date, the file's own reader says.
fn date(text: &str) -> Result<String, &'static str> {
    let digits = text.strip_suffix('Z').unwrap_or(text);
    let fits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("YYYYMMDD or YYYYMMDDHHMM") }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    match &args.verb {
        Verb::List => list(&config, context),
        Verb::Add(args) => add(args, &config, context),
        Verb::Remove { who } => remove(who, &config, context),
    }
}

fn state_of(approver: &Approver) -> &'static str {
    let now = clock::now();
    if approver.is_valid_at(now) {
        "valid"
    } else if approver.valid_after.is_some_and(|from| now < from) {
        "not yet"
    } else {
        "over"
    }
}

fn list(config: &Config, context: &Context) -> Result<Exit, Report> {
    let approvers = Approvers::parse(&approvers_text(config)?);
    let file = &config.approve.allowed_signers;
    let documents: Vec<Value> = approvers
        .lines()
        .iter()
        .map(|one| {
            json!({
                "line": one.line, "principals": one.principals, "key_type": one.key_type(),
                "fingerprint": one.fingerprint(), "key16": one.key16(), "state": state_of(one),
                "valid_after": one.valid_after.map(|at| at.to_string()),
                "valid_before": one.valid_before.map(|at| at.to_string()),
            })
        })
        .collect();
    let spoiled: Vec<Value> = approvers
        .bad_lines()
        .iter()
        .map(|bad| json!({"line": bad.line, "problem": bad.problem.to_string()}))
        .collect();
    context.say_json(&json!({
        "schema": 1, "file": file, "required": config.approve.required, "approvers": documents, "spoiled": spoiled,
    }))?;
    let mut rows = vec![["line", "who", "key", "fingerprint", "valid"].map(str::to_owned).to_vec()];
    for one in approvers.lines() {
        let until = match (one.valid_after, one.valid_before) {
            (None, None) => String::new(),
            (Some(from), None) => format!(" (from {from})"),
            (None, Some(end)) => format!(" (until {end})"),
            (Some(from), Some(end)) => format!(" (from {from} until {end})"),
        };
        rows.push(vec![
            one.line.to_string(),
            visible(&one.principals.join(","), Breaks::Show),
            one.key_type(),
            one.fingerprint(),
            format!("{}{until}", state_of(one)),
        ]);
    }
    for line in table::lines(&rows) {
        context.say(&line)?;
    }
    for bad in approvers.bad_lines() {
        context.say(&format!("line {} counts for nobody: {}", bad.line, bad.problem))?;
    }
    if approvers.lines().is_empty() {
        context
            .tell(&format!("nobody may decide here; dispatchctl approvers add KEY.pub ({})", file.display()));
    }
    Ok(Exit::Done)
}

/// The line that is to be added; one that the watcher would not take is refused with its rule.
fn line_of(args: &AddArgs) -> Result<(String, Approver), Report> {
    let mut key = KeyFile::read(&args.file)?;
    if let Some(principal) = &args.principal {
        key.principal.clone_from(principal);
    }
    let mut line = key.line();
    let dates = [("valid-after", &args.valid_after), ("valid-before", &args.valid_before)];
    for (option, date) in dates.into_iter().filter_map(|(option, date)| Some((option, date.as_ref()?))) {
        // Behind the namespaces, which every line of ours has.
        line = line.replacen("\" ", &format!("\",{option}=\"{date}\" "), 1);
    }
    let refused = |why: String| {
        Report::new(Exit::Config, format!("`{}` is not added: {why}", args.file.display())).help(
            "a key that is taken: ssh-keygen -t ed25519; a name that is taken: --principal ann@example.org",
        )
    };
    if line.contains(['\n', '\r']) || key.principal.contains([' ', '\t', '#']) {
        return Err(refused("principals must be plain, without blanks".to_owned()));
    }
    let parsed = Approvers::parse(&line);
    match (parsed.lines(), parsed.bad_lines()) {
        ([approver], []) => Ok((line, approver.clone())),
        (_, [bad, ..]) => Err(refused(bad.problem.to_string())),
        _ => Err(refused("it is no line of an allowed_signers file".to_owned())),
    }
}

fn add(args: &AddArgs, config: &Config, context: &Context) -> Result<Exit, Report> {
    let (line, approver) = line_of(args)?;
    // Also tells where the file may not be used as it is.
    approvers_text(config)?;
    let (Written::Created | Written::AlreadyThere) =
        create_synced(&config.approve.allowed_signers, APPROVERS_HEAD.as_bytes(), 0o644)?;
    let edited = Edited::read(&config.approve.allowed_signers)?;
    let text = edited.text()?;
    let (who, fingerprint) = (approver.principals.join(","), approver.fingerprint());
    let known = Approvers::parse(text);
    if let Some(same) = known.lines().iter().find(|one| one.fingerprint() == fingerprint) {
        let what = format!("line {} lists this key already, for {}", same.line, same.principals.join(","));
        return Err(Report::new(Exit::Config, what)
            .help(format!("remove it first: dispatchctl approvers remove {fingerprint}")));
    }
    let mut changed = text.to_owned();
    if !changed.is_empty() && !changed.ends_with('\n') {
        changed.push('\n');
    }
    changed.push_str(&line);
    changed.push('\n');
    edited.replace(&changed)?;
    let told = tell_the_watcher(config, &format!("approvers add {who} {fingerprint}"), context);
    context.say_json(&json!({
        "schema": 1, "did": "added", "principals": approver.principals, "fingerprint": fingerprint,
        "watcher": told.as_str(),
    }))?;
    context.say(&format!("{} may decide here, with {fingerprint}", visible(&who, Breaks::Show)))?;
    Ok(Exit::Done)
}

fn remove(who: &str, config: &Config, context: &Context) -> Result<Exit, Report> {
    approvers_text(config)?;
    let edited = Edited::read(&config.approve.allowed_signers)?;
    let text = edited.text()?;
    let known = Approvers::parse(text);
    let is_meant =
        |one: &&Approver| one.fingerprint() == who || one.principals.iter().any(|name| name == who);
    let meant: Vec<&Approver> = known.lines().iter().filter(is_meant).collect();
    if meant.is_empty() {
        return Err(Report::new(Exit::Usage, format!("nobody here is `{who}`, and no key"))
            .help("dispatchctl approvers list names them"));
    }
    // A line of several people would take the others with it.
    if let Some(shared) = meant.iter().find(|one| one.principals.len() > 1 && one.fingerprint() != who) {
        let what = format!("line {} is for {} together", shared.line, shared.principals.join(", "));
        return Err(Report::new(Exit::Usage, what).help(format!(
            "edit {}, or remove the key: {}",
            edited.shown(),
            shared.fingerprint()
        )));
    }
    let numbers: Vec<usize> = meant.iter().map(|one| one.line).collect();
    let kept = text.split_inclusive('\n').enumerate();
    let changed: String =
        kept.filter(|(at, _)| !numbers.contains(&at.saturating_add(1))).map(|(_, line)| line).collect();
    edited.replace(&changed)?;
    let names: Vec<String> =
        meant.iter().map(|one| format!("{} {}", one.principals.join(","), one.fingerprint())).collect();
    let told = tell_the_watcher(config, &format!("approvers remove {}", names.join("; ")), context);
    let removed: Vec<Value> = meant
        .iter()
        .map(|one| json!({"principals": one.principals, "fingerprint": one.fingerprint()}))
        .collect();
    context
        .say_json(&json!({"schema": 1, "did": "removed", "removed": removed, "watcher": told.as_str()}))?;
    for name in names {
        context.say(&format!("may decide here no more: {}", visible(&name, Breaks::Show)))?;
    }
    Ok(Exit::Done)
}
