//! From the command line to a task: reading the request, and filling in what was asked for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dispatch_core::protocol::limits::{LIFETIME_MS_MAX, REQUEST_BYTES_MAX};
use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_core::protocol::task::{Lineage, Requires, Task, TaskMember};
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2;
use dispatch_node::desk::Desk;
use dispatch_node::outgoing::{Position, Sealed};
use dispatch_node::report::{Exit, Report};

use crate::args::Cli;

/// What a person does about a request that does not fit.
const TOO_LONG_HELP: &str = "shorten the request, or put the material into a workspace of the receiver and name it \
                             there (attachments are not in this release)";

/// Refuses what this release does not do yet, before anything is read or written.
pub(crate) fn refuse_what_is_not_there(cli: &Cli) -> Result<(), Report> {
    let missing = [(!cli.attach.is_empty(), "--attach"), (!cli.accept.is_empty(), "--accept")];
    match missing.into_iter().find(|(asked, _)| *asked) {
        Some((_, option)) => Err(Report::new(Exit::Usage, format!("{option} is not in this release"))
            .help(format!("send it without {option}"))),
        None => Ok(()),
    }
}

/// Refuses by name what cannot be said to a version-2 peer: left out, the task would silently be another one.
pub(crate) fn refuse_what_version_2_cannot_carry(cli: &Cli, desk: &Desk, task: &Task) -> Result<(), Report> {
    if desk.flat.is_none() {
        return Ok(());
    }
    let member = v2::cannot_carry(task).map(TaskMember::as_str);
    // Its life is the receiver's to say; a flat task says nothing about it.
    let Some(member) = member.or(cli.expires.map(|_| "expires")) else { return Ok(()) };
    Err(Report::new(Exit::Usage, format!("`{}` speaks version 2, which cannot carry `{member}`", desk.lane.to))
        .help("send it without that; version 2 knows --priority, --timeout, --max-output, --require-ack, --dangerous"))
}

/// Reads the request from wherever it was given, at most one byte more than may be sent.
pub(crate) fn read_request(cli: &Cli) -> Result<String, Report> {
    let bytes = match (&cli.request, &cli.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => {
            File::open(path).and_then(read_some).map_err(|error| unreadable(path, &error))?
        }
        (None, None) => {
            read_some(io::stdin().lock()).map_err(|error| unreadable(Path::new("standard input"), &error))?
        }
    };
    if bytes.is_empty() {
        return Err(Report::new(Exit::Usage, "the request is empty").help("say what is to be done"));
    }
    if bytes.len() > REQUEST_BYTES_MAX {
        let what = format!("the request is longer than {REQUEST_BYTES_MAX} bytes");
        return Err(Report::new(Exit::Usage, what).help(TOO_LONG_HELP));
    }
    String::from_utf8(bytes).map_err(|error| {
        Report::new(Exit::Usage, "the request is no valid UTF-8")
            .because(&error)
            .help("convert it, e.g. with iconv")
    })
}

fn read_some(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    from.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Report {
    Report::new(Exit::LocalIo, format!("cannot read the request from `{}`", path.display())).because(error)
}

/// A new task at a position of its stream, as the command line asks for it.
pub(crate) fn build(
    cli: &Cli,
    desk: &Desk,
    request: String,
    position: Position,
    (id, now): (TaskId, Timestamp),
) -> Task {
    let lane: &Lane = &desk.lane;
    let mut task = Task::new(desk.cluster, lane, id, now, (position.stream, position.seq), request);
    if let Some(expires) = cli.expires {
        task.expires = now.plus_ms(i64::try_from(expires.as_millis()).unwrap_or(i64::MAX));
    }
    task.priority = cli.priority.unwrap_or(task.priority);
    if let Some(profile) = &cli.profile {
        task.profile = profile.clone();
    }
    task.workspace.clone_from(&cli.workspace);
    task.require_ack = cli.require_ack;
    task.require_dangerous = cli.dangerous;
    task.timeout_s = cli.timeout.unwrap_or(task.timeout_s);
    task.silence_timeout_s = cli.silence;
    task.max_output_bytes = cli.max_output.unwrap_or(task.max_output_bytes);
    task.max_cost_usd = cli.max_cost;
    task.run.clone_from(&cli.run);
    task.allow_sdk = cli.allow_sdk;
    task.max_attempts = cli.max_attempts.unwrap_or(task.max_attempts);
    task.callback = cli.callback.unwrap_or(task.callback);
    task.lineage = root_of(cli, id);
    task.labels = cli.label.iter().cloned().collect();
    task.requires = Requires {
        tool: cli.needs_tool.clone(),
        min_vram_gb: cli.needs_vram,
        image: cli.needs_image.clone(),
    };
    task
}

/// The lineage of a root that may send tasks in its turn, or is bound together with them; without a word of that it says
/// nothing, and sends none.
fn root_of(cli: &Cli, id: TaskId) -> Option<Lineage> {
    (cli.fanout.is_some() || cli.budget.is_some()).then(|| Lineage {
        root: id,
        parent: None,
        depth: 0,
        fanout_left: cli.fanout.unwrap_or(0),
        budget_usd: cli.budget,
        via: Vec::new(),
    })
}

/// Seals a task after finding what its receiver would refuse anyway.
pub(crate) fn seal_task(task: &Task, desk: &Desk) -> Result<Sealed, Report> {
    let lifetime_ms = task.expires.since_ms(task.created);
    if lifetime_ms <= 0 || lifetime_ms > LIFETIME_MS_MAX {
        return Err(Report::new(Exit::Usage, "a task lives longer than 0s and at most 30d")
            .help("give another --expires"));
    }
    Ok(desk.mail().seal(task)?)
}
