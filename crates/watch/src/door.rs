//! The local door: what a person changes of what the watcher owns, applied in the pass's transaction.

use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{RunName, WindowKey};
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::time::SECOND_MS;
use dispatch_ledger::{Disposition, Drain, Entry, LedgerError, TaskKey, Tx};
use dispatch_node::door::{Answer, Claimed, DoorError, Request, Verb};
use serde_json::json;
use uuid::Uuid;

use crate::deciding;
use crate::guards;
use crate::home::Home;
use crate::tripping::{self, Switches};

/// What applying requests leaves to be done outside the transaction.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) replies: Vec<(Uuid, Answer)>,
    pub(crate) reload: bool,
}

/// Applies every request once; one that was applied before gets the same reply again.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    home: &Home,
    switches: &Switches,
    claimed: &[Claimed],
) -> Result<Asked, LedgerError> {
    let mut asked = Asked::default();
    for claim in claimed {
        let answer = match (tx.reply(claim.id)?, &claim.request) {
            (Some(known), _) => parse_reply(&known),
            (None, Err(error)) => {
                refused("malformed", &dispatch_node::report::one_line(error), "run the command again")
            }
            (None, Ok(request)) => apply_and_store(tx, home, switches, request, &mut asked)?,
        };
        asked.replies.push((claim.id, answer));
    }
    Ok(asked)
}

/// Applies one request with its reply, or nothing of it: a request that fails stops no other.
fn apply_and_store(
    tx: &mut Tx<'_>,
    home: &Home,
    switches: &Switches,
    request: &Request,
    asked: &mut Asked,
) -> Result<Answer, LedgerError> {
    let applied = tx.contained(|tx| {
        let answer = apply_one(tx, home, switches, request, asked)?;
        tx.answer_request(request.id, request.verb.as_str(), &write_reply(&answer))?;
        Ok(answer)
    });
    match applied {
        Err(error) if error.disposition() == Disposition::Quarantine => {
            let why = dispatch_node::report::one_line(&error);
            tracing::error!(request = %request.id, error = %why, "a request could not be applied");
            Ok(refused("failed", &why, "dispatchctl audit verify checks the ledger"))
        }
        other => other,
    }
}

fn write_reply(answer: &Answer) -> String {
    match answer {
        Answer::Done { text } => json!({"ok": text}).to_string(),
        Answer::Refused(error) => json!({"error": error}).to_string(),
    }
}

fn parse_reply(text: &str) -> Answer {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    match (value.get("ok").and_then(|ok| ok.as_str()), value.get("error")) {
        (Some(text), _) => Answer::Done { text: text.to_owned() },
        (None, Some(error)) => serde_json::from_value(error.clone()).map_or_else(
            |_| refused("unknown", "the stored reply cannot be read", "ask again"),
            Answer::Refused,
        ),
        (None, None) => refused("unknown", "the stored reply cannot be read", "ask again"),
    }
}

fn refused(code: &str, text: &str, help: &str) -> Answer {
    Answer::Refused(DoorError { code: code.to_owned(), text: text.to_owned(), help: Some(help.to_owned()) })
}

fn done(text: impl Into<String>) -> Answer {
    Answer::Done { text: text.into() }
}

fn apply_one(
    tx: &mut Tx<'_>,
    home: &Home,
    switches: &Switches,
    request: &Request,
    asked: &mut Asked,
) -> Result<Answer, LedgerError> {
    if request.is_expired_at(tx.now()) {
        return Ok(refused("expired", "the request is older than 60 s", "run the command again"));
    }
    let who = request.claimed.as_deref().unwrap_or("local");
    tx.audit(&Entry::of("request").who(who).data(json!({
        "verb": request.verb.as_str(), "reason": request.reason, "request": request.id.to_string(),
    })))?;
    match &request.verb {
        Verb::Cancel { from, task } => {
            let key = TaskKey { from: from.clone(), id: *task };
            cancel(tx, home, &key, who, &request.reason)
        }
        Verb::Resume => Ok(match tripping::resume(tx, switches, who)? {
            Ok(0) => done("nothing was stopped"),
            Ok(trips) => done(format!("resumed ({trips})")),
            Err(scope) => refused(
                "still_tripped",
                &format!("the killswitch of `{scope}` is still there"),
                "remove the KILLSWITCH file first: dispatchctl status says where it is",
            ),
        }),
        Verb::Drain { grace_s } => {
            let grace_ms = i64::try_from(*grace_s).unwrap_or(i64::MAX).saturating_mul(SECOND_MS);
            let until = tx.now().plus_ms(grace_ms);
            set_drain(tx, NodeState::EnteringMaintenance, Some(until))?;
            Ok(done("draining: nothing new starts"))
        }
        Verb::Undrain => {
            set_drain(tx, NodeState::Active, None)?;
            Ok(done("active again"))
        }
        Verb::AcceptGap { from, stream } => {
            let gaps = tx.accept_gaps(from, Some(*stream))?;
            Ok(done(format!("accepted {gaps} gaps of {from}")))
        }
        Verb::BudgetResume { from, profile } => {
            let mut lifted = 0;
            if let Some(profile) = profile {
                lifted = usize::from(guards::close_breaker(tx, home, profile.as_str())?);
            }
            if from.is_some() || profile.is_none() {
                lifted = lifted.saturating_add(guards::resume(tx, home, from.as_ref(), who)?);
            }
            Ok(done(if lifted == 0 { "nothing was held".to_owned() } else { format!("resumed ({lifted})") }))
        }
        Verb::BudgetCloseRun { from, run } => close_run(tx, from, run, &request.reason),
        Verb::Reload => {
            asked.reload = true;
            Ok(done("the configuration is being read again"))
        }
    }
}

/// Closes a run for good: what is reserved in it still settles there, and nothing more is.
fn close_run(tx: &mut Tx<'_>, from: &NodeName, run: &RunName, reason: &str) -> Result<Answer, LedgerError> {
    let key = WindowKey::Run { sender: from.clone(), run: run.clone() };
    let known = tx.window(&key)?;
    if known.as_ref().is_some_and(|window| window.closed_at.is_some()) {
        return Ok(done(format!("the run `{run}` of {from} was closed before")));
    }
    tx.close_window(&key, reason)?;
    let spent = known.map_or(Usd::ZERO, |window| window.balance.spent);
    Ok(done(format!("the run `{run}` of {from} is closed; it had spent {spent} USD")))
}

/// Moves the node through its maintenance.
pub(crate) fn set_drain(
    tx: &mut Tx<'_>,
    state: NodeState,
    grace_until: Option<dispatch_core::protocol::time::Timestamp>,
) -> Result<(), LedgerError> {
    tx.set_drain(&Drain { state, since: tx.now(), grace_until })?;
    tx.audit(&Entry::of("drain").data(json!({"state": state.as_str()}))).map(drop)
}

fn cancel(
    tx: &mut Tx<'_>,
    home: &Home,
    key: &TaskKey,
    who: &str,
    reason: &str,
) -> Result<Answer, LedgerError> {
    let Some(row) = tx.task(key)? else {
        return Ok(refused(
            "unknown_task",
            "this node has no such task",
            "dispatchctl list shows what it has",
        ));
    };
    if row.state.is_final() {
        return Ok(done(format!("it is over already: {}", row.status.map_or("", |status| status.as_str()))));
    }
    let stopped = deciding::cancel(tx, home, key, who, reason)?;
    Ok(match stopped {
        // Its `stop.json` follows from the recorded cancel, in this pass and in every one until the attempt is over.
        Some(_) => done("its agent is being stopped"),
        None if row.state == TaskState::AwaitingApproval => done("cancelled before anybody decided"),
        None => done("cancelled before it started"),
    })
}
