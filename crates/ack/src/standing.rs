//! Standing approvals: made, listed and revoked in this node's own configuration, never on the share.

use std::path::PathBuf;
use std::time::Duration;

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::accept::{Me, Verdict, accept_standing};
use dispatch_core::protocol::approvers::Approvers;
use dispatch_core::protocol::names::{Name, NodeName};
use dispatch_core::protocol::standing::Standing;
use dispatch_node::config::Config;
use dispatch_node::files::{Removed, create_private_dir, remove, replace_synced};
use dispatch_node::keys::approvers_text;
use dispatch_node::report::{Exit, Form, Report, say};
use dispatch_node::standing::files;
use dispatch_node::term::{Breaks, visible};
use dispatch_node::{clock, ids};
use serde_json::{Value, json};

use crate::args::Door;
use crate::ask;
use crate::decide::seal_standing;
use crate::key;
use crate::view::json_line;

/// Digits of an id that name it at least.
const PART_CHARS_MIN: usize = 4;

/// What a standing approval says; each of these is needed to make one.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Standing approvals")]
pub(crate) struct StandingArgs {
    /// Approve tasks to come: of --from, for --profile and --workspace, within --max-cost each, --total and --uses
    #[arg(long, conflicts_with_all = ["id", "all", "reject"])]
    pub(crate) standing: bool,
    /// List this node's standing approvals and whether they hold
    #[arg(long, requires = "standing")]
    pub(crate) list: bool,
    /// Take one back: its file is removed
    #[arg(long, value_name = "ID", requires = "standing", conflicts_with = "list")]
    pub(crate) revoke: Option<String>,
    /// The profile it answers for
    #[arg(long, value_name = "PROFILE", requires = "standing", value_parser = Name::new)]
    pub(crate) profile: Option<Name>,
    /// The workspace it answers for; without one it answers for fresh directories only
    #[arg(long, value_name = "WORKSPACE", requires = "standing", value_parser = Name::new)]
    pub(crate) workspace: Option<Name>,
    /// What all its tasks may cost together
    #[arg(long, value_name = "USD", requires = "standing", value_parser = Usd::from_wire)]
    pub(crate) total: Option<Usd>,
    /// For how many tasks
    #[arg(long, value_name = "N", requires = "standing", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) uses: Option<u64>,
    /// For how long
    #[arg(long, value_name = "DURATION", requires = "standing", default_value = "30d",
          value_parser = dispatch_node::durations::parse)]
    pub(crate) lasts: Duration,
}

pub(crate) fn run(args: &Door) -> Result<Exit, Report> {
    let config = Config::load(args.common.config.as_deref())?;
    match &args.standing.revoke {
        Some(part) => revoke(args, &config, part),
        None if args.standing.list => list(args, &config),
        None => make(args, &config),
    }
}

fn make(args: &Door, config: &Config) -> Result<Exit, Report> {
    if !args.yes {
        ask::somebody_is_there()?;
    }
    let now = clock::now();
    let signer = key::choose(config, args.key.as_deref(), args.principal.as_deref(), now)?;
    let lasts_ms = i64::try_from(args.standing.lasts.as_millis()).unwrap_or(i64::MAX);
    let standing = Standing {
        cluster: config.cluster,
        node: config.node.clone(),
        id: ids::task_id(now)?,
        author: signer.author.clone(),
        reason: args.reason.clone().ok_or_else(|| missing("--reason"))?,
        made: now,
        expires: now.plus_ms(lasts_ms),
        from: peer(args, config)?,
        profile: profile(args, config)?,
        workspace: workspace(args, config)?,
        max_cost_usd: args.max_cost.ok_or_else(|| missing("--max-cost"))?,
        total_usd: args.standing.total.ok_or_else(|| missing("--total"))?,
        uses: args.standing.uses.ok_or_else(|| missing("--uses"))?,
    };
    if !args.yes {
        ask::confirm(&format!(
            "Approve in advance, as {}: {}?",
            shown(&standing.author),
            sentence(&standing)
        ))?;
    }
    let sealed = seal_standing(&standing, &signer)?;
    let dir = config.standing_dir();
    create_private_dir(&dir)?;
    let path = dir.join(format!("{}.json", standing.id));
    // The id was drawn just now: whatever has that name already is nobody's approval.
    replace_synced(&path, &sealed, 0o600)?;
    tell(args, &standing, &path, "holds")?;
    Ok(Exit::Done)
}

fn missing(option: &str) -> Report {
    Report::new(Exit::Usage, format!("a standing approval needs {option}"))
        .help("say whose tasks, which profile, how much each and together, how many, and why: --from --profile --max-cost --total --uses --reason")
}

fn peer(args: &Door, config: &Config) -> Result<NodeName, Report> {
    let from = args.from.clone().ok_or_else(|| missing("--from"))?;
    if config.peer(&from).is_some() {
        return Ok(from);
    }
    Err(Report::new(Exit::Usage, format!("no node `{from}` is configured here")))
}

fn profile(args: &Door, config: &Config) -> Result<Name, Report> {
    let profile = args.standing.profile.clone().ok_or_else(|| missing("--profile"))?;
    if config.profiles.contains_key(&profile) {
        return Ok(profile);
    }
    Err(Report::new(Exit::Usage, format!("there is no [profile.{profile}] here")))
}

fn workspace(args: &Door, config: &Config) -> Result<Option<Name>, Report> {
    match &args.standing.workspace {
        Some(name) if !config.workspaces.contains_key(name) => {
            Err(Report::new(Exit::Usage, format!("there is no [workspace.{name}] here")))
        }
        workspace => Ok(workspace.clone()),
    }
}

fn shown(text: &str) -> String {
    visible(text, Breaks::Show)
}

fn sentence(standing: &Standing) -> String {
    let place =
        standing.workspace.as_ref().map_or("a fresh directory".to_owned(), |name| format!("`{name}`"));
    format!(
        "up to {} tasks of {} for the profile `{}` in {place}, at most ${} each and ${} together, until {}",
        standing.uses,
        standing.from,
        standing.profile,
        standing.max_cost_usd,
        standing.total_usd,
        standing.expires
    )
}

fn list(args: &Door, config: &Config) -> Result<Exit, Report> {
    let (me, approvers) = judge(config)?;
    for file in files(config)? {
        match accept_standing(&file.bytes, &me, &approvers) {
            Verdict::Accepted(verified) => tell(args, &verified.into_parts().0, &file.path, "holds")?,
            Verdict::Refused(refusal) => match args.common.form() {
                Form::Text => say(&format!("{}: does not hold ({})", file.path.display(), refusal.code))?,
                Form::Json => {
                    say(&json_line(
                        &json!({"schema": 1, "file": file.path, "standing": refusal.code.as_str()}),
                    ))?;
                }
            },
        }
    }
    args.tell("what is used up of each: dispatchctl budget");
    Ok(Exit::Done)
}

fn judge(config: &Config) -> Result<(Me<'_>, Approvers), Report> {
    let me = Me { cluster: config.cluster, node: &config.node, now: clock::now() };
    Ok((me, Approvers::parse(&approvers_text(config)?)))
}

fn revoke(args: &Door, config: &Config, part: &str) -> Result<Exit, Report> {
    if part.len() < PART_CHARS_MIN {
        return Err(Report::new(Exit::Usage, "name at least 4 digits of its id"));
    }
    let named = |path: &PathBuf| {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        stem.starts_with(part) || stem.ends_with(part)
    };
    let found: Vec<PathBuf> = files(config)?.into_iter().map(|file| file.path).filter(named).collect();
    match found.as_slice() {
        [path] => {
            let (Removed::Removed | Removed::Absent) = remove(path)?;
            match args.common.form() {
                Form::Text => say(&format!("revoked {}", path.display()))?,
                Form::Json => say(&json_line(&json!({"schema": 1, "file": path, "standing": "revoked"})))?,
            }
            Ok(Exit::Done)
        }
        [] => Err(Report::new(Exit::NoSuchTask, format!("no standing approval `{part}` lies here"))
            .help("dispatch-ack --standing --list shows them")),
        _ => Err(Report::new(Exit::Usage, format!("`{part}` names {} standing approvals", found.len()))
            .help("name it in full")),
    }
}

fn tell(args: &Door, standing: &Standing, path: &std::path::Path, state: &str) -> Result<(), Report> {
    match args.common.form() {
        Form::Text => say(&format!(
            "{} by {}: {} ({})",
            standing.id,
            shown(&standing.author),
            sentence(standing),
            shown(&standing.reason)
        )),
        Form::Json => say(&json_line(&document(standing, path, state))),
    }
}

fn document(standing: &Standing, path: &std::path::Path, state: &str) -> Value {
    json!({
        "schema": 1, "id": standing.id.to_string(), "file": path, "standing": state,
        "author": standing.author, "reason": standing.reason,
        "made": standing.made.to_string(), "expires": standing.expires.to_string(),
        "from": standing.from.as_str(), "profile": standing.profile.as_str(),
        "workspace": standing.workspace.as_ref().map(Name::as_str),
        "max_cost_usd": standing.max_cost_usd.to_string(), "total_usd": standing.total_usd.to_string(),
        "uses": standing.uses,
    })
}
