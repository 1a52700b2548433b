//! From an id to a published decision.

use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::seal::{pae, seal_signed};
use dispatch_core::protocol::standing::Standing;
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::{Decision, Payload};
use dispatch_node::clock;
use dispatch_node::report::{Exit, Form, Report, say, say_raw, tell};
use dispatch_node::term::{Breaks, Colour, visible};
use serde_json::json;

use crate::args::Door;
use crate::ask;
use crate::desk::{Desk, LaneHere};
use crate::earlier;
use crate::error::{DecideError, FindError, SignError};
use crate::find::{find, open};
use crate::key::{self, Signer};
use crate::publish::publish;
use crate::sign;
use crate::taken::{self, Taken};
use crate::view::{self, json_line};
use crate::waiting::{self, Parked, Waits};
use crate::which::IdPart;

/// Shows a task, asks, signs, publishes.
///
/// # Errors
/// Whatever keeps the decision from being made; nothing is published then.
pub(crate) fn run(args: &Door, desk: &Desk, part: &IdPart) -> Result<Exit, Report> {
    let (here, id) = find(desk, part)?;
    let waits = open(args, desk, here, id)?;
    decide(args, desk, here, &waits).map_err(|report| report.about(id))
}

fn decide(args: &Door, desk: &Desk, here: &LaneHere, waits: &Waits) -> Result<Exit, Report> {
    if !args.yes {
        ask::somebody_is_there()?;
    }
    check_ceiling(args, waits)?;
    let principal = args.principal.as_deref();
    let signer = key::choose(&desk.config, args.key.as_deref(), principal, clock::now())?;
    if let Some(decision) = earlier::standing(desk, waits, &signer, clock::now())
        && says_the_same(args, &decision)
    {
        args.tell("this decision of yours stands there already, and the watcher has not taken it yet");
        announce(args, waits, &signer, &decision, Some(Taken::NotYet))?;
        return Ok(Exit::Done);
    }
    show(args, waits)?;
    if !args.yes {
        ask::confirm(&question(args, waits, &signer))?;
    }
    let decision = decision(args, waits, &signer, clock::now());
    let sealed = seal(&decision, &signer)?;
    check_unchanged(desk, here, waits)?;
    let file = publish(args, desk, waits, &signer, &sealed)?;
    if args.common.form() == Form::Text {
        announce(args, waits, &signer, &decision, None)?;
    }
    let taken = match args.no_wait || args.common.quiet {
        true => None,
        false => Some(taken::wait(desk.share(), waits, &file, &sealed)?),
    };
    match args.common.form() {
        Form::Json => announce(args, waits, &signer, &decision, taken)?,
        Form::Text => taken.iter().for_each(|taken| args.tell(taken.text())),
    }
    Ok(Exit::Done)
}

fn check_ceiling(args: &Door, waits: &Waits) -> Result<(), DecideError> {
    match (args.max_cost, waits.terms.payload().ceiling_usd) {
        (Some(asked), Some(ceiling)) if asked > ceiling => Err(DecideError::AboveCeiling { asked, ceiling }),
        (Some(_) | None, _) => Ok(()),
    }
}

const fn outcome(args: &Door) -> DecisionOutcome {
    if args.reject { DecisionOutcome::Rejected } else { DecisionOutcome::Approved }
}

fn says_the_same(args: &Door, decision: &Decision) -> bool {
    decision.outcome == outcome(args) && decision.max_cost_usd == args.max_cost
}

/// Shows the task: among the results, or where the person looks who is asked.
fn show(args: &Door, waits: &Waits) -> Result<(), Report> {
    use std::io::IsTerminal as _;
    let results_are_seen = args.common.form() == Form::Text && std::io::stdout().is_terminal();
    if !args.yes && !results_are_seen {
        tell(view::text(waits, Colour::of_stderr(), clock::now()).trim_end());
    } else if args.common.form() == Form::Text && !args.common.quiet {
        say_raw(view::text(waits, Colour::of_stdout(), clock::now()).as_bytes())?;
    }
    Ok(())
}

fn question(args: &Door, waits: &Waits, signer: &Signer) -> String {
    let what = match (outcome(args), args.max_cost) {
        (DecisionOutcome::Rejected, _) => "Reject this task, which ends it,".to_owned(),
        (DecisionOutcome::Approved, None) => "Approve this task as shown".to_owned(),
        (DecisionOutcome::Approved, Some(most)) => {
            format!("Approve this task as shown, but for at most ${most},")
        }
    };
    format!("{what} as {} ({})?", visible(&signer.author, Breaks::Show), waits.id().short())
}

fn decision(args: &Door, waits: &Waits, signer: &Signer, now: Timestamp) -> Decision {
    let (task, outcome) = (waits.task.payload(), outcome(args));
    let said_nothing = match outcome {
        DecisionOutcome::Approved => "approved as shown",
        DecisionOutcome::Rejected => "rejected",
    };
    Decision {
        cluster: task.cluster,
        from: task.from.clone(),
        to: task.to.clone(),
        task: task.id,
        task_sha256: waits.task.digest(),
        terms_sha256: waits.terms.digest(),
        outcome,
        author: signer.author.clone(),
        reason: args.reason.clone().unwrap_or_else(|| said_nothing.to_owned()),
        decided_at: now,
        expires: now.plus_ms(i64::try_from(args.expires.as_millis()).unwrap_or(i64::MAX)),
        max_cost_usd: args.max_cost,
    }
}

fn seal(decision: &Decision, signer: &Signer) -> Result<Vec<u8>, SignError> {
    sealed(decision, signer, decision.decided_at)
}

/// A standing approval, signed like a decision.
///
/// # Errors
/// As for a decision.
pub(crate) fn seal_standing(standing: &Standing, signer: &Signer) -> Result<Vec<u8>, SignError> {
    sealed(standing, signer, standing.made)
}

/// Signs and seals, and makes sure that what comes of it would be believed.
fn sealed<P: Payload>(words: &P, signer: &Signer, at: Timestamp) -> Result<Vec<u8>, SignError> {
    let payload = words.to_checked_payload().map_err(SignError::Payload)?;
    let message = pae(P::KIND, &payload);
    let signature = sign::sign(&signer.file, &message)?.to_envelope().map_err(SignError::Answer)?;
    let verified = signer.approvers.verify(&message, &signature.sig, at);
    match verified {
        Some(by) if by.key16 == signer.key16.to_string() && by.principals.contains(&signer.author) => {
            Ok(seal_signed(P::KIND, &payload, &[signature]))
        }
        Some(_) | None => Err(SignError::OtherKey),
    }
}

/// Between the question and the answer the task may have ended, or been parked again under other terms.
fn check_unchanged(desk: &Desk, here: &LaneHere, waits: &Waits) -> Result<(), Report> {
    match waiting::open(desk, here, waits.id(), clock::now())? {
        Parked::Waits(now)
            if now.task.digest() == waits.task.digest() && now.terms.digest() == waits.terms.digest() =>
        {
            Ok(())
        }
        Parked::Waits(_) => Err(FindError::Changed.into()),
        // Squatted meanwhile: the ledger knows what was shown, and judges by that.
        Parked::Unverified(_) => Ok(()),
        Parked::Gone => Err(FindError::Unknown { part: waits.id().short() }.into()),
    }
}

/// Says what was decided.
fn announce(
    args: &Door,
    waits: &Waits,
    signer: &Signer,
    decision: &Decision,
    taken: Option<Taken>,
) -> Result<(), Report> {
    match args.common.form() {
        Form::Text => say(&format!(
            "{} {} by {} until {}",
            decision.outcome,
            waits.id(),
            visible(&decision.author, Breaks::Show),
            decision.expires
        )),
        Form::Json => say(&json_line(&json!({
            "schema": 1,
            "id": waits.id().to_string(),
            "from": decision.from.as_str(),
            "to": decision.to.as_str(),
            "outcome": decision.outcome.as_str(),
            "author": decision.author,
            "key": signer.fingerprint,
            "reason": decision.reason,
            "decided_at": decision.decided_at.to_string(),
            "expires": decision.expires.to_string(),
            "max_cost_usd": decision.max_cost_usd.map(|usd| usd.to_string()),
            "task_sha256": decision.task_sha256.to_string(),
            "terms_sha256": decision.terms_sha256.to_string(),
            "taken": taken.map(|taken| taken != Taken::NotYet),
        }))),
    }
}
