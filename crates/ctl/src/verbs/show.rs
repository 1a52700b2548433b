//! `dispatchctl show`: everything about one task.

use dispatch_core::explain;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::seal::RawEnvelope;
use dispatch_core::protocol::v2::{Bounds, is_flat, read_stored};
use dispatch_core::protocol::{Task, TaskResult, Terms};
use dispatch_ledger::{AttemptRow, ChildRow, DecisionRow, ReadLedger, TaskRow};
use dispatch_node::clock;
use dispatch_node::config::{Config, Peer};
use dispatch_node::progress::HowFar;
use dispatch_node::report::{Exit, Form, Report, after_help, say};
use dispatch_node::term::{Breaks, Colour, Tone, visible};
use serde_json::{Value, json};

use super::audit;
use super::result::{summary, value};
use crate::answer::{self, Answering};
use crate::context::Context;
use crate::here;
use crate::named::{Found, SentTask, find, ledger};
use crate::views::{self, line};

/// Show everything about a task: what it asks for, where it stands and why, what it led to
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl show dacaf1ff\n  dispatchctl show dacaf1ff --json"))]
pub(crate) struct Args {
    /// The task: its id, or at least 4 characters from its beginning or end
    id: String,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    match find(&config, &args.id)? {
        Found::Received(row) => received(&config, &row, context),
        Found::Sent(sent) => sent_from_here(&config, *sent, context),
    }
}

/// What the ledger has about a task.
struct Everything {
    task: Option<Task>,
    terms: Option<Terms>,
    decisions: Vec<DecisionRow>,
    attempts: Vec<AttemptRow>,
    children: Vec<ChildRow>,
    result: Option<(TaskResult, Vec<u8>)>,
    audit: Vec<String>,
}

impl Everything {
    fn read(config: &Config, ledger: &ReadLedger, row: &TaskRow) -> Result<Everything, Report> {
        let key = &row.key;
        let bounds = config.peer(&key.from).and_then(Peer::version_2).map(|allowed| allowed.bounds);
        let task = ledger.envelope(key)?.and_then(|bytes| task_of(config, bounds, &bytes));
        let terms = ledger.terms(key)?.and_then(|payload| Terms::from_stored(&payload).ok());
        let result = ledger.result(key)?;
        Ok(Everything {
            task,
            terms,
            decisions: ledger.decisions(key)?,
            attempts: ledger.attempts(key)?,
            children: ledger.children_of(key.id)?,
            result: result
                .and_then(|payload| TaskResult::from_stored(&payload).ok().map(|result| (result, payload))),
            audit: ledger.audit_of_task(key)?.into_iter().map(|line| line.line).collect(),
        })
    }
}

/// The task in a file that this node verified when it took it.
fn task_of(config: &Config, bounds: Option<Bounds>, envelope: &[u8]) -> Option<Task> {
    if is_flat(envelope) {
        return read_stored(envelope, config.cluster, bounds.unwrap_or(Bounds::TIGHTEST))
            .map(|(task, _)| task);
    }
    let envelope = RawEnvelope::read(Kind::Task, envelope).ok()?;
    Task::from_stored(envelope.unverified_payload()).ok()
}

fn received(config: &Config, row: &TaskRow, context: &Context) -> Result<Exit, Report> {
    let Some(ledger) = ledger(config)? else {
        return Err(Report::new(Exit::NoSuchTask, "the ledger went away").about(row.key.id));
    };
    let all = Everything::read(config, &ledger, row)?;
    let far = here::how_far(config, &ledger, row)?;
    match context.form() {
        Form::Json => say(&json_of(row, far.as_ref(), &all).to_string())?,
        Form::Text => text_of(row, far.as_ref(), &all).iter().try_for_each(|line| say(line))?,
    }
    Ok(Exit::Done)
}

fn json_of(row: &TaskRow, far: Option<&HowFar>, all: &Everything) -> Value {
    let mut document = views::received(row, far);
    if let Some(members) = document.as_object_mut() {
        members.insert("request".into(), json!(all.task.as_ref().map(|task| &task.request)));
        members.insert(
            "terms".into(),
            all.terms.as_ref().map_or(Value::Null, |terms| value(&terms.to_payload())),
        );
        members.insert("decisions".into(), all.decisions.iter().map(decision).collect());
        members.insert("attempts".into(), all.attempts.iter().map(attempt).collect());
        members.insert("children".into(), all.children.iter().map(child).collect());
        members
            .insert("result".into(), all.result.as_ref().map_or(Value::Null, |(_, payload)| value(payload)));
        let lines = all.audit.iter().map(|line| serde_json::from_str(line).unwrap_or(Value::Null));
        members.insert("audit".into(), lines.collect());
    }
    document
}

fn decision(row: &DecisionRow) -> Value {
    json!({
        "author": row.decision.author,
        "outcome": row.decision.outcome.as_str(),
        "reason": row.decision.reason,
        "decided_at": row.decision.decided_at.to_string(),
        "expires": row.decision.expires.to_string(),
        "max_cost_usd": row.decision.max_cost_usd.map(|usd| usd.to_string()),
        "recorded_at": row.recorded_at.to_string(),
        "consumed_at": row.consumed_at.map(|at| at.to_string()),
    })
}

fn attempt(row: &AttemptRow) -> Value {
    json!({
        "attempt": row.n,
        "epoch": row.epoch,
        "state": row.state.as_str(),
        "status": row.status.map(dispatch_core::protocol::Status::as_str),
        "leased_at": row.leased_at.to_string(),
        "started_at": row.started_at.map(|at| at.to_string()),
        "ended_at": row.ended_at.map(|at| at.to_string()),
        "cost_usd": row.cost.map(|usd| usd.to_string()),
        "basis": row.basis.map(dispatch_core::protocol::parts::CostBasis::as_str),
    })
}

/// A task that was sent on, or that its agent sent.
fn child(row: &ChildRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "to": row.receiver.as_str(),
        "kind": row.kind.as_str(),
        "epoch": row.epoch,
        "fanout_left": row.fanout,
        "budget_usd": row.budget_usd.map(|usd| usd.to_string()),
        "made_at": row.made_at.to_string(),
        "kept_at": row.kept_at.map(|at| at.to_string()),
        "answer_by": row.answer_by.to_string(),
        "ended_at": row.ended_at.map(|at| at.to_string()),
        "status": row.status.map(dispatch_core::protocol::Status::as_str),
    })
}

fn child_line(row: &ChildRow) -> String {
    let stands = match (row.status, row.ended_at, row.kept_at) {
        (Some(status), _, _) => status.as_str().to_owned(),
        (None, Some(_), _) => "unanswered".to_owned(),
        (None, None, Some(_)) => format!("open, its answer can come until {}", row.answer_by),
        (None, None, None) => "not sealed yet".to_owned(),
    };
    let budget = row.budget_usd.map_or_else(String::new, |usd| format!(", at most ${usd}"));
    format!("  {} {} to {}{budget}: {stands}", row.id, row.kind.as_str(), row.receiver)
}

fn text_of(row: &TaskRow, far: Option<&HowFar>, all: &Everything) -> Vec<String> {
    let colour = Colour::of_stdout();
    let head = |text: &str| colour.paint(Tone::Bold, text);
    let mut lines = vec![format!("{} {} from {}", head("task"), row.key.id, row.key.from)];
    lines.extend(standing_lines(row, far));
    if let Some(terms) = &all.terms {
        lines.push(head("terms"));
        lines.extend(terms_lines(terms));
    }
    if !all.decisions.is_empty() {
        lines.push(head("decisions"));
        lines.extend(all.decisions.iter().map(|row| {
            let decision = &row.decision;
            let what =
                format!("{} by {} at {}", decision.outcome, line(&decision.author, 80), decision.decided_at);
            format!("  {what}: {}", line(&decision.reason, 200))
        }));
    }
    if !all.attempts.is_empty() {
        lines.push(head("attempts"));
        lines.extend(all.attempts.iter().map(|row| {
            let status = row.status.map_or("", dispatch_core::protocol::Status::as_str);
            let started =
                row.started_at.map_or_else(|| "not started".to_owned(), |at| format!("started {at}"));
            format!("  {} (epoch {}) {} {status} {started}", row.n, row.epoch, row.state)
        }));
    }
    if !all.children.is_empty() {
        lines.push(head("children"));
        lines.extend(all.children.iter().map(child_line));
    }
    if let Some((result, _)) = &all.result {
        lines.push(head("result"));
        lines.push(format!("  {}", summary(result)));
        if let Some(help) = result.reason.as_ref().map(|reason| &reason.help).filter(|help| !help.is_empty())
        {
            lines.push(format!("  help: {}", line(help, 400)));
        }
    }
    if let Some(task) = &all.task {
        lines.push(head("request"));
        lines.push(visible(task.request.trim_end_matches('\n'), Breaks::Keep));
    }
    if !all.audit.is_empty() {
        lines.push(head("audit"));
        lines.extend(all.audit.iter().map(|line| format!("  {}", audit::shown(line))));
    }
    lines
}

/// The gates of a row, which holds them as a JSON list of words.
fn gates(stored: &str) -> Option<String> {
    let words: Vec<String> = serde_json::from_str(stored).ok()?;
    (!words.is_empty()).then(|| explain::gate_words(&words))
}

/// A code with its sentence, where this release knows it.
fn why(code: &str) -> String {
    explain::word(code).map_or_else(|| code.to_owned(), |told| format!("{code}: {}", told.why))
}

/// What a task waits for, in the words of `explain`.
fn waits_for(noted: &str) -> String {
    explain::noted_wait(noted).text.line()
}

fn standing_lines(row: &TaskRow, far: Option<&HowFar>) -> Vec<String> {
    let usd = |usd: dispatch_core::policy::money::Usd| format!("${usd}");
    let rows = [
        ("stands", Some(views::standing(row, far))),
        ("so far", far.and_then(so_far)),
        ("last line", far.and_then(|far| far.last_line.clone())),
        ("why", row.code.as_deref().map(why)),
        ("waits for", row.wait_reason.as_deref().map(waits_for)),
        ("gated by", gates(&row.gates)),
        (
            "asked to stop",
            row.stop.as_ref().map(|stop| format!("{} by {} at {}", stop.why, stop.by, stop.at)),
        ),
        ("profile", Some(row.profile.clone())),
        ("workspace", row.workspace.clone()),
        ("priority", Some(row.priority.as_str().to_owned())),
        ("batch", row.run.clone()),
        ("billing", Some(row.billing.to_string())),
        ("ceiling", row.cost.ceiling_usd.map(usd)),
        ("estimate", row.cost.estimate_usd.map(usd)),
        ("attempts", Some(format!("{} of {}", row.attempts_started, row.max_attempts))),
        ("made", Some(row.created.to_string())),
        ("accepted", Some(row.accepted_at.to_string())),
        ("not before", row.not_before.map(|at| at.to_string())),
        ("expires", Some(row.expires.to_string())),
        ("final", row.final_at.map(|at| at.to_string())),
        ("published", row.published_at.map(|at| at.to_string())),
        ("sha256", Some(row.digest.to_string())),
        ("labels", Some(row.labels.clone()).filter(|labels| labels != "{}")),
    ];
    rows.into_iter()
        .filter_map(|(name, text)| text.map(|text| format!("  {name:<14}{}", line(&text, 400))))
        .collect()
}

/// What an agent came to so far, beside what its standing says.
fn so_far(far: &HowFar) -> Option<String> {
    let turns = far.turns.map(|turns| format!("{turns} turns"));
    let tokens = far.tokens.map(|tokens| format!("{tokens} tokens"));
    let parts: Vec<String> = [turns, tokens].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn terms_lines(terms: &Terms) -> Vec<String> {
    let dash = || "-".to_owned();
    let text = |text: &Option<String>| text.as_ref().map_or_else(dash, |text| line(text, 400));
    [
        ("agent", format!("{} (argv sha256 {})", line(&terms.agent, 80), terms.argv_sha256)),
        ("rights", text(&terms.permission_mode)),
        ("directory", text(&terms.workspace_path)),
        ("backend", text(&terms.backend)),
        ("gate", line(&explain::gate_words(&terms.gate), 400)),
    ]
    .map(|(name, text)| format!("  {name:<14}{text}"))
    .to_vec()
}

fn sent_from_here(config: &Config, sent: SentTask, context: &Context) -> Result<Exit, Report> {
    let now = clock::now();
    let task = sent.record.task()?;
    let whereabouts = here::whereabouts_of_many(config, [&sent].into_iter()).remove(&sent.record.id);
    let mut document = views::sent(&sent, now, whereabouts.as_ref());
    let record = sent.record.clone();
    let lane = sent.outgoing.lane().clone();
    // The share may be away; what this node knows by itself is shown all the same.
    let answer = answer::look(config, &Found::Sent(Box::new(sent)));
    if context.form() == Form::Json {
        if let Some(members) = document.as_object_mut() {
            members.insert("request".into(), json!(task.request));
            let verified = match &answer {
                Ok(Answering::Verified(answer)) => value(&answer.payload),
                Ok(Answering::Unverified { .. } | Answering::Unsigned(_) | Answering::None) | Err(_) => {
                    Value::Null
                }
            };
            if let Ok(Answering::Unsigned(result)) = &answer {
                members.insert("unverified_result".into(), value(result.document.as_bytes()));
            }
            members.insert("result".into(), verified);
        }
        say(&document.to_string())?;
        return Ok(Exit::Done);
    }
    let colour = Colour::of_stdout();
    let head = |text: &str| colour.paint(Tone::Bold, text);
    say(&format!("{} {} to {}", head("task"), record.id, lane.to))?;
    for (name, text) in [
        ("stands", views::sent_where(&record, now, whereabouts.as_ref())),
        ("version", views::version(&record).to_string()),
        ("profile", task.profile.to_string()),
        ("position", format!("{} of stream {}", record.seq, record.stream)),
        ("made", task.created.to_string()),
        ("expires", record.expires.to_string()),
        ("answer by", record.answer_by.to_string()),
        ("sha256", record.task_sha256.to_string()),
    ] {
        say(&format!("  {name:<14}{text}"))?;
    }
    match answer {
        Ok(Answering::Verified(answer)) => {
            say(&format!("{}\n  {}", head("result"), summary(&answer.result)))?;
        }
        Ok(Answering::Unverified { code, .. }) => say(&format!("{}\n  unverified: {code}", head("result")))?,
        Ok(Answering::Unsigned(result)) => {
            say(&format!("{}\n  {}", head("result"), answer::unsigned_line(&result)))?;
        }
        Ok(Answering::None) => {}
        Err(report) => context.tell(&format!("the share cannot be looked at: {}", report.one_line())),
    }
    say(&format!("{}\n{}", head("request"), visible(task.request.trim_end_matches('\n'), Breaks::Keep)))?;
    Ok(Exit::Done)
}
