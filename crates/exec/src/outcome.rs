//! What is written down in the end.

use std::error::Error as _;

use dispatch_core::protocol::time::Timestamp;
use dispatch_node::job::{Order, Outcome, OutcomeStatus, Reason, StopWhy};

use crate::ending::{Cause, Exit};
use crate::launch::CannotStart;
use crate::stops::{NotStarted, StopSeen};
use crate::supervise::Seen;

/// The outcome of an attempt whose agent was never started because something stood against it.
pub(crate) fn not_started(order: &Order, why: &NotStarted) -> Outcome {
    let reason = match why {
        NotStarted::Stopped(StopWhy::Cancelled) => {
            said("cancelled", "it was cancelled before its agent was started", "")
        }
        NotStarted::Stopped(StopWhy::Killed) => {
            said("killed", "it was stopped before its agent was started", "dispatchctl resume")
        }
        NotStarted::Killswitch(place) => {
            said("killswitch", &format!("a killswitch stands at `{}`", place.display()), "dispatchctl resume")
        }
        NotStarted::Interrupted => said("interrupted", "its executor was told to end before the start", ""),
        NotStarted::ShareUnreachable => said(
            "share_unreachable",
            "the share could not be reached",
            "it starts by itself when the share is back",
        ),
    };
    without_agent(order, OutcomeStatus::NotStarted, reason)
}

/// The outcome of an attempt whose agent could not be started.
pub(crate) fn cannot_start(order: &Order, cannot: &CannotStart) -> Outcome {
    let text = match cannot.source() {
        Some(cause) => format!("{cannot}: {cause}"),
        None => cannot.to_string(),
    };
    let (code, help) = match cannot {
        CannotStart::SecretMissing { name } => {
            ("secret_missing", format!("set `{name}` in the environment of the watcher of `{}`", order.node))
        }
        CannotStart::NoAdapter { .. }
        | CannotStart::NoProgram
        | CannotStart::BadVariable { .. }
        | CannotStart::NoWorkDir { .. }
        | CannotStart::NoRequest { .. }
        | CannotStart::UnrestrictedRoot
        | CannotStart::NoPrice
        | CannotStart::NoRandomness { .. }
        | CannotStart::Spawn { .. } => (
            "cannot_start",
            format!("mend the profile `{}` or its workspace on node `{}`", order.profile, order.node),
        ),
    };
    without_agent(order, OutcomeStatus::Error, said(code, &text, &help))
}

/// The outcome of an attempt whose agent ran.
pub(crate) fn spawned(order: &Order, started_at: Timestamp, seen: Seen) -> Outcome {
    let (status, reason) = match seen.cause.and_then(|cause| ended(order, cause)) {
        Some(Ended { status, reason }) => (status, Some(reason)),
        // The run was over: its answer stands, however its process was brought to its end.
        None => (seen.answer.status, seen.answer.reason),
    };
    let (exit_code, signal) = match seen.exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    let log = seen.printed.log;
    Outcome {
        epoch: order.epoch,
        spawned: true,
        status,
        reason,
        exit_code,
        signal,
        started_at: Some(started_at),
        ended_at: Some(seen.ended_at),
        elapsed_ms: Some(seen.elapsed_ms),
        final_text: seen.answer.final_text,
        output_tail: Some(seen.printed.tail),
        output_bytes: log.output_bytes,
        log_bytes: log.log_bytes,
        log_sha256: Some(log.sha256),
        truncated: log.dropped_bytes > 0,
        cost: seen.answer.cost,
        metered: seen.metered,
        usage: seen.answer.usage,
        agent: Some(seen.agent),
        resets_at: seen.answer.resets_at,
        permission_denials: seen.answer.permission_denials,
        containment: Some(seen.containment),
    }
}

/// What an end by the executor means.
struct Ended {
    status: OutcomeStatus,
    reason: Reason,
}

/// What it means that the executor ended the agent; `None` where that means nothing.
fn ended(order: &Order, cause: Cause) -> Option<Ended> {
    let (status, reason) = match cause {
        Cause::Over => return None,
        Cause::Timeout => {
            let text = format!("it ran longer than {} s", order.timeout_s);
            (OutcomeStatus::Timeout, said("timeout", &text, "send it again with a longer --timeout"))
        }
        Cause::Silence => {
            let text = format!("it printed nothing for {} s", order.silence_timeout_s);
            (
                OutcomeStatus::Silent,
                said("silent", &text, "send it again with a longer --silence, or 0 for none"),
            )
        }
        Cause::OverBudget { spent } => {
            let ceiling = order.ceiling_usd.map_or_else(|| "none".to_owned(), |usd| usd.to_string());
            let text =
                format!("it was ended at its ceiling: ${spent} of ${ceiling} spent by its usage so far");
            let help = "send it again with a higher --max-cost, or in smaller parts";
            (OutcomeStatus::OverBudget, said("over_budget", &text, help))
        }
        Cause::SpendsOn => {
            let text = "it was ended at its ceiling and would not stop spending";
            (
                OutcomeStatus::OverBudget,
                said("over_budget", text, "look at what it was doing: dispatchctl logs"),
            )
        }
        Cause::Stop(StopSeen::Stopped(StopWhy::Cancelled)) => {
            (OutcomeStatus::Cancelled, said("cancelled", "it was cancelled while it ran", ""))
        }
        Cause::Stop(StopSeen::Stopped(StopWhy::Killed) | StopSeen::Killswitch) => {
            let text = "a killswitch in kill mode ended it";
            (OutcomeStatus::Killed, said("killed", text, "dispatchctl resume there, then send it again"))
        }
        Cause::Stop(StopSeen::Interrupted) => {
            let text = "its executor was told to end";
            (OutcomeStatus::Error, said("interrupted", text, "send it again"))
        }
    };
    Some(Ended { status, reason })
}

fn without_agent(order: &Order, status: OutcomeStatus, reason: Reason) -> Outcome {
    Outcome { reason: Some(reason), ..Outcome::bare(order.epoch, status) }
}

fn said(code: &str, text: &str, help: &str) -> Reason {
    Reason { code: code.to_owned(), text: text.to_owned(), help: help.to_owned() }
}
