//! Standing approvals at work: a person's yes in advance, counted down in the transaction that accepts the task.

use dispatch_core::explain;
use dispatch_core::policy::admission::Cost;
use dispatch_core::policy::lifecycle::{TaskEvent, TaskState};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::routing::BackendKind;
use dispatch_core::policy::standing::{StandingAnswer, StandingQuestion, StandingUsed, ask};
use dispatch_core::protocol::accept::{Me, Verdict, accept_standing};
use dispatch_core::protocol::approvers::Approvers;
use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::standing::Standing;
use dispatch_core::protocol::task::Task;
use dispatch_ledger::{Entry, LedgerError, TaskKey, Tx};
use dispatch_node::report::one_line;
use dispatch_node::standing::files;
use serde_json::json;

use crate::ending::{End, finish};
use crate::home::Home;
use crate::routing::{self, Route, Routed};
use crate::running::{self, Reserved};

/// A yes that would be used.
struct Yes {
    id: TaskId,
    author: String,
    used: StandingUsed,
}

/// Lets a task that was just parked through where enough people have said yes in advance; else it waits for them.
pub(crate) fn answer(tx: &mut Tx<'_>, home: &Home, task: &Task, cost: Cost) -> Result<(), LedgerError> {
    let key = TaskKey { from: task.from.clone(), id: task.id };
    let Some(row) = tx.task(&key)?.filter(|row| row.state == TaskState::AwaitingApproval) else {
        return Ok(());
    };
    let needed = usize::try_from(row.required_approvals.max(1)).unwrap_or(usize::MAX);
    let yes = said_yes(tx, home, task, cost, needed)?;
    if yes.len() < needed {
        return Ok(());
    }
    let reserved = match running::reserve(tx, home, &key)? {
        Reserved::No(refusal) => {
            let why = explain::refusal_reason(&refusal);
            return finish(tx, home, &key, &End::plain(Status::Rejected, Some(why)));
        }
        reserved @ (Reserved::Yes | Reserved::Waits(_)) => reserved,
    };
    tx.apply(&key, TaskEvent::Approved)?;
    tx.apply(&key, TaskEvent::Admitted)?;
    for one in &yes {
        tx.use_standing(&key, one.id, &one.author, one.used)?;
    }
    let by: Vec<&str> = yes.iter().map(|one| one.author.as_str()).collect();
    let standing: Vec<String> = yes.iter().map(|one| one.id.to_string()).collect();
    tx.audit(&Entry::of("approved").task(&key).data(json!({"by": by, "standing": standing})))?;
    match reserved {
        Reserved::Waits(why) => tx.set_wait_reason(&key, Some(&why)),
        Reserved::Yes | Reserved::No(_) => Ok(()),
    }
}

/// One yes of each person, until there are enough. Each is verified anew: an approver may be gone since it was made.
fn said_yes(
    tx: &Tx<'_>,
    home: &Home,
    task: &Task,
    cost: Cost,
    needed: usize,
) -> Result<Vec<Yes>, LedgerError> {
    let files = match files(&home.config) {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!(error = %one_line(&error), "standing approvals cannot be read: a person is asked");
            return Ok(Vec::new());
        }
    };
    // A standing approval names a profile and a workspace and nothing of where that runs: it answers for this node's own
    // agent of that very profile, and for nothing that goes further.
    let routed = routing::route(&home.config, task);
    let is_here =
        |route: Route<'_>| route.name == &task.profile && route.backend.kind() == BackendKind::Local;
    if !routed.as_ref().and_then(Routed::route).is_some_and(is_here) {
        return Ok(Vec::new());
    }
    let Some(estimate_usd) = of_all_attempts(cost.estimate_usd, task.max_attempts) else {
        return Ok(Vec::new());
    };
    let me = Me { cluster: home.cluster, node: &home.node, now: tx.now() };
    let approvers = Approvers::parse(&home.approvers);
    let of_profile = home.config.profiles.get(&task.profile).and_then(|profile| profile.workspace.as_ref());
    let question = StandingQuestion {
        from: &task.from,
        profile: &task.profile,
        workspace: task.workspace.as_ref().or(of_profile),
        require_dangerous: task.require_dangerous,
        estimate_usd,
        now: tx.now(),
    };
    let mut yes: Vec<Yes> = Vec::new();
    for file in files {
        let standing: Standing = match accept_standing(&file.bytes, &me, &approvers) {
            Verdict::Accepted(verified) => verified.into_parts().0,
            Verdict::Refused(refusal) => {
                tracing::warn!(file = %file.path.display(), code = %refusal.code, "a standing approval answers for nobody");
                continue;
            }
        };
        // The same one under two names counts down once, and one person is one person.
        if yes.len() >= needed || yes.iter().any(|one| one.author == standing.author) {
            continue;
        }
        match ask(&standing, tx.standing_used(standing.id)?, &question) {
            StandingAnswer::Approved { used } => {
                yes.push(Yes { id: standing.id, author: standing.author, used });
            }
            StandingAnswer::Silent => {}
        }
    }
    Ok(yes)
}

/// What all attempts together may cost: each of them reserves anew, and no approval is asked again. The outer `None`: too
/// much to be counted.
fn of_all_attempts(estimate: Option<Usd>, attempts: u32) -> Option<Option<Usd>> {
    let Some(one) = estimate else { return Some(None) };
    (0..attempts.max(1)).try_fold(Usd::ZERO, |sum, _| sum.checked_add(one)).map(Some)
}
