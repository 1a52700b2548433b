//! The safeguards at work (policy section 2): what the ledger's figures come to, what that holds back, and what people are
//! told of it. Everything is computed inside the pass's transaction and kept in the ledger, so a restart changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use dispatch_core::explain;
use dispatch_core::policy::admission::{self, Billing, PaidWork};
use dispatch_core::policy::breaker::{Breaker, BreakerEvent, WhoPays};
use dispatch_core::policy::hold::{self, Hold, Running};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::{
    DAYS, HOURS, SpendAction, SpendFacts, SpendReason, SpendReview, review as review_spending,
};
use dispatch_core::policy::velocity::{VelocityFacts, VelocityTrip, velocity_breaker};
use dispatch_core::policy::window::{Balances, Day, Month, WindowKey};
use dispatch_core::protocol::names::{Digest, Name, NodeName};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::{DAY_MS, HOUR_MS, Timestamp};
use dispatch_ledger::{BreakerRow, HoldRow, LedgerError, QueuedTask, SpendBucket, TaskKey, TaskRow, Tx};
use dispatch_node::config::Profile;
use dispatch_node::job::Outcome;
use serde_json::{Value, json};

use crate::alerts::{self, Alert};
use crate::budget;
use crate::home::Home;
use crate::recipes;
use crate::routing::{self, Routed};

/// Whether anything paid of a sender may start.
pub(crate) fn paid_work(tx: &Tx<'_>, sender: &NodeName) -> Result<PaidWork, LedgerError> {
    let holds = tx.open_holds()?;
    let action = tx.spend_review()?.map_or(SpendAction::Allow, |row| row.action);
    Ok(if holds.iter().any(|hold| hold.sender == *sender) {
        PaidWork::SenderHeld
    } else {
        match action {
            SpendAction::Block => PaidWork::Blocked,
            SpendAction::Throttle => PaidWork::Throttled,
            SpendAction::Allow => PaidWork::Open,
        }
    })
}

/// The hour a moment lies in: the review is made again in each.
pub(crate) const fn hour_of(at: Timestamp) -> i64 {
    at.unix_ms().div_euclid(HOUR_MS)
}

/// Makes the review anew: its figures are kept as they are now, and a decision that changed is told, once.
pub(crate) fn review(tx: &mut Tx<'_>, home: &Home) -> Result<(), LedgerError> {
    // Which day and month it is, nobody knows now: what was decided stays.
    if home.clock_suspect {
        return Ok(());
    }
    let review = reviewed(tx, home)?;
    let before = tx.spend_review()?;
    let action = review.decision.action;
    let alert = Alert {
        service: "paid_work".to_owned(),
        action,
        reason: reasons(&review.decision.reasons),
        budget: budget_of(&review),
        anomaly: anomaly_of(&review),
        breaker: Value::Null,
    };
    let body = alerts::body(home, &alert).to_string();
    if before.as_ref().is_some_and(|row| row.action == action && row.alert == body) {
        return Ok(());
    }
    if before.map_or(SpendAction::Allow, |row| row.action) != action {
        alerts::raise(tx, home, &alert)?;
    }
    tx.set_spend_review(action, &body)
}

/// What the safeguards say of the ledger as it is.
fn reviewed(tx: &Tx<'_>, home: &Home) -> Result<SpendReview, LedgerError> {
    let (now, caps) = (tx.now(), home.caps());
    let month = |at| WindowKey::Month(Month::of(at));
    let balances = Balances {
        month: tx.balance(&month(now))?,
        day: tx.balance(&WindowKey::Day(Day::of(now)))?,
        ..Balances::default()
    };
    let series = |bucket_ms: i64, points: usize| -> Result<Vec<Usd>, LedgerError> {
        let back = i64::try_from(points).unwrap_or(0).saturating_sub(1).saturating_mul(bucket_ms);
        let first = now.plus_ms(back.saturating_neg()).unix_ms().div_euclid(bucket_ms);
        let since = Timestamp::from_unix_ms(first.saturating_mul(bucket_ms));
        let mut buckets = tx.spend_series(&month(now), since, bucket_ms)?;
        if month(since) != month(now) {
            buckets.extend(tx.spend_series(&month(since), since, bucket_ms)?);
        }
        Ok(filled(&buckets, since, bucket_ms, points))
    };
    let (hours, days) = (series(HOUR_MS, HOURS)?, series(DAY_MS, DAYS)?);
    let facts = SpendFacts { balances: &balances, caps: &caps, hours: &hours, days: &days };
    Ok(review_spending(&facts, &home.config.safeguards.review))
}

/// A point for every bucket from `since` on.
fn filled(buckets: &[SpendBucket], since: Timestamp, bucket_ms: i64, points: usize) -> Vec<Usd> {
    let mut series = vec![Usd::ZERO; points];
    for bucket in buckets {
        let place = bucket.start.since_ms(since).div_euclid(bucket_ms.max(1));
        let point = usize::try_from(place).ok().and_then(|place| series.get_mut(place));
        if let Some(point) = point {
            // A month's bucket that ends in the next month is in both series: its parts belong together.
            *point = point.checked_add(bucket.spent).unwrap_or(*point);
        }
    }
    series
}

fn reasons(reasons: &[SpendReason]) -> String {
    let words: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
    words.join(",")
}

fn budget_of(review: &SpendReview) -> Value {
    review.budget.map_or(Value::Null, |(window, check)| {
        json!({
            "window": window.as_str(), "usage_ratio": check.usage_ratio.to_string(),
            "remaining": check.remaining.to_string(),
            "is_warning": check.is_warning, "is_breached": check.is_breached,
        })
    })
}

fn anomaly_of(review: &SpendReview) -> Value {
    let spike = review.anomaly.map(|check| {
        json!({
            "baseline": check.baseline.to_string(), "threshold": check.threshold.to_string(),
            "is_spike": check.is_spike,
        })
    });
    let burn = review
        .burn_rate
        .map(|rate| json!({"average": rate.average.to_string(), "ratio": rate.ratio.to_string(), "is_hot": rate.is_hot}));
    if spike.is_none() && burn.is_none() { Value::Null } else { json!({"hour": spike, "day": burn}) }
}

/// Counts a request that has just been verified, before it is decided on: what it trips holds itself, too.
pub(crate) fn note_request(
    tx: &mut Tx<'_>,
    home: &Home,
    task: &Task,
    profile: &Profile,
) -> Result<(), LedgerError> {
    let since = counted_since(tx, &task.from)?;
    let mut facts = VelocityFacts {
        tasks_per_hour_of_tree: tx.tasks_of_tree(task.root(), since)?.saturating_add(1),
        ..VelocityFacts::default()
    };
    let routed = routing::route(&home.config, task);
    let billing = routed.as_ref().and_then(Routed::route).map_or(profile.billing, |route| route.billing());
    if billing == Billing::Metered {
        let content = content_of(task);
        tx.note_paid_request(&task.from, content)?;
        facts.identical_requests = tx.same_requests(&task.from, content, since)?;
    }
    let limits = home.config.safeguards.velocity(home.caps().month);
    for trip in velocity_breaker(&facts, &limits) {
        let root = (trip == VelocityTrip::TasksPerHour).then_some(task.root());
        hold_sender(tx, home, &task.from, root, trip)?;
    }
    Ok(())
}

/// Counts what an attempt was charged.
pub(crate) fn note_charge(tx: &mut Tx<'_>, home: &Home, sender: &NodeName) -> Result<(), LedgerError> {
    let (since, now) = (counted_since(tx, sender)?, tx.now());
    let facts =
        VelocityFacts { spent_per_hour: tx.charged_to(sender, since, now)?, ..VelocityFacts::default() };
    let limits = home.config.safeguards.velocity(home.caps().month);
    for trip in velocity_breaker(&facts, &limits) {
        hold_sender(tx, home, sender, None, trip)?;
    }
    Ok(())
}

/// An hour ago, or since a person last looked at that sender.
fn counted_since(tx: &Tx<'_>, sender: &NodeName) -> Result<Timestamp, LedgerError> {
    let hour_ago = tx.now().plus_ms(-HOUR_MS);
    // What a person has looked at is not held against the sender again.
    Ok(tx.last_resumed(sender)?.map_or(hour_ago, |at| at.plus_ms(1).max(hour_ago)))
}

/// The digest of what a task asks for, whoever sends it and whenever.
fn content_of(task: &Task) -> Digest {
    let parts = json!([task.request, task.profile.as_str(), task.workspace.as_ref().map(Name::as_str)]);
    Digest::of(parts.to_string().as_bytes())
}

fn hold_sender(
    tx: &mut Tx<'_>,
    home: &Home,
    sender: &NodeName,
    root: Option<dispatch_core::protocol::names::TaskId>,
    trip: VelocityTrip,
) -> Result<(), LedgerError> {
    if !tx.hold(sender, root, trip)? {
        return Ok(());
    }
    let alert = Alert {
        service: format!("sender:{sender}"),
        action: SpendAction::Block,
        reason: trip.to_string(),
        budget: Value::Null,
        anomaly: json!({"trip": trip.as_str(), "tree": root.map(|root| root.to_string())}),
        breaker: Value::Null,
    };
    alerts::raise(tx, home, &alert)
}

/// Lets held senders go on: a person has looked.
pub(crate) fn resume(
    tx: &mut Tx<'_>,
    home: &Home,
    sender: Option<&NodeName>,
    who: &str,
) -> Result<usize, LedgerError> {
    let mut senders: Vec<NodeName> = tx.open_holds()?.into_iter().map(|hold| hold.sender).collect();
    senders.retain(|held| sender.is_none_or(|sender| sender == held));
    senders.sort_unstable();
    senders.dedup();
    let lifted = tx.lift_holds(sender, who)?;
    for sender in senders {
        tell_allowed(tx, home, format!("sender:{sender}"))?;
    }
    Ok(lifted)
}

fn tell_allowed(tx: &mut Tx<'_>, home: &Home, service: String) -> Result<(), LedgerError> {
    let alert = Alert {
        service,
        action: SpendAction::Allow,
        reason: "resumed".to_owned(),
        budget: Value::Null,
        anomaly: Value::Null,
        breaker: Value::Null,
    };
    alerts::raise(tx, home, &alert)
}

/// Closes the breakers of a profile by hand, on every backend; true when one was open.
pub(crate) fn close_breaker(tx: &mut Tx<'_>, home: &Home, profile: &str) -> Result<bool, LedgerError> {
    let mut was_open = false;
    for row in tx.breakers()?.into_iter().filter(|row| row.profile == profile) {
        was_open |= row.breaker.opened.is_some();
        tx.set_breaker(profile, &row.backend, Breaker::default())?;
    }
    if was_open {
        tell_allowed(tx, home, format!("profile:{profile}"))?;
    }
    Ok(was_open)
}

/// The backend that a task was resolved to when it was accepted.
fn backend_of(tx: &Tx<'_>, key: &TaskKey) -> Result<String, LedgerError> {
    let recipe = tx.recipe(key)?.and_then(|text| recipes::parse(&text));
    Ok(recipe.map_or_else(String::new, |recipe| recipe.backend))
}

/// What the end of an attempt says about its profile.
pub(crate) fn note_ending(
    tx: &mut Tx<'_>,
    home: &Home,
    task: &TaskRow,
    status: Status,
    outcome: Option<&Outcome>,
) -> Result<(), LedgerError> {
    let who_pays = match task.billing {
        Billing::Metered | Billing::Subscription => WhoPays::Somebody,
        Billing::Free => WhoPays::Nobody,
    };
    let code = outcome.and_then(|outcome| outcome.reason.as_ref()).map(|reason| reason.code.as_str());
    let resets_at = outcome.and_then(|outcome| outcome.resets_at);
    let Some(event) = BreakerEvent::of(status, code, resets_at, who_pays) else { return Ok(()) };
    let backend = backend_of(tx, &task.key)?;
    let before = tx.breaker(&task.profile, &backend)?;
    let after = before.apply(event, tx.now(), &home.config.safeguards.breaker);
    if after == before {
        return Ok(());
    }
    tx.set_breaker(&task.profile, &backend, after)?;
    if before.opened.is_some() == after.opened.is_some() {
        return Ok(());
    }
    let action = if after.opened.is_some() { SpendAction::Block } else { SpendAction::Allow };
    let reason = if after.opened.is_some() { SpendReason::BreakerOpen.as_str() } else { "recovered" };
    let alert = Alert {
        service: format!("profile:{}", task.profile),
        action,
        reason: reason.to_owned(),
        budget: Value::Null,
        anomaly: Value::Null,
        breaker: breaker_of(&task.profile, &backend, &after),
    };
    alerts::raise(tx, home, &alert)
}

fn breaker_of(profile: &str, backend: &str, breaker: &Breaker) -> Value {
    json!({
        "profile": profile, "backend": backend, "is_open": breaker.opened.is_some(), "failures": breaker.failures,
        "cause": breaker.opened.map(|opened| opened.cause.as_str()),
        "open_until": breaker.opened.map(|opened| opened.until.to_string()),
    })
}

/// What holds queued tasks back, read once for a pass.
pub(crate) struct Guards {
    action: SpendAction,
    holds: Vec<HoldRow>,
    /// Those that opened, by profile and backend.
    breakers: Vec<BreakerRow>,
    paid_running: u64,
    /// Attempts that run behind each of them.
    running: BTreeMap<(String, String), u64>,
}

impl Guards {
    pub(crate) fn of(tx: &Tx<'_>) -> Result<Guards, LedgerError> {
        let mut guards = Guards {
            action: tx.spend_review()?.map_or(SpendAction::Allow, |row| row.action),
            holds: tx.open_holds()?,
            breakers: tx.breakers()?,
            paid_running: tx.open_paid_attempts()?.into(),
            running: BTreeMap::new(),
        };
        guards.breakers.retain(|row| row.breaker.opened.is_some());
        let profiles: BTreeSet<String> = guards.breakers.iter().map(|row| row.profile.clone()).collect();
        for profile in profiles {
            for key in tx.running_of(&profile)? {
                guards.note_running(profile.clone(), backend_of(tx, &key)?);
            }
        }
        Ok(guards)
    }

    /// Why a task may not start now, in words; `None` when nothing here holds it.
    pub(crate) fn held(
        &self,
        tx: &Tx<'_>,
        home: &Home,
        task: &QueuedTask,
    ) -> Result<Option<String>, LedgerError> {
        if let Some(hold) = self.hold(tx, task)? {
            return Ok(Some(explain::held(&hold).to_string()));
        }
        if task.billing != Billing::Metered {
            return Ok(None);
        }
        let (view, estimate) =
            (budget::view_of(tx, home, task)?, task.cost.estimate_usd.unwrap_or(Usd::ZERO));
        Ok(admission::held(estimate, &view).map(|wait| explain::wait_line(&wait)))
    }

    fn hold(&self, tx: &Tx<'_>, task: &QueuedTask) -> Result<Option<Hold>, LedgerError> {
        if let Some(hold) = self.by_hand(task) {
            return Ok(Some(hold));
        }
        let mut running = Running { behind_breaker: 0, paid: self.paid_running };
        if self.is_watched(&task.profile) {
            let place = (task.profile.clone(), backend_of(tx, &task.key)?);
            running.behind_breaker = self.running.get(&place).copied().unwrap_or(0);
            let mut rows = self.breakers.iter();
            let row = rows.find(|row| row.profile == place.0 && row.backend == place.1);
            let held = row.and_then(|row| hold::by_breaker(&row.breaker, &task.profile, running, tx.now()));
            if held.is_some() {
                return Ok(held);
            }
        }
        let throttled = task.billing == Billing::Metered && self.action == SpendAction::Throttle;
        Ok(throttled.then(|| hold::by_throttle(running)).flatten())
    }

    /// What only a person lifts.
    fn by_hand(&self, task: &QueuedTask) -> Option<Hold> {
        let sender = &task.key.from;
        if let Some(hold) = self.holds.iter().find(|hold| hold.root == Some(task.root)) {
            return Some(Hold::TreeHeld { root: task.root, sender: hold.sender.clone() });
        }
        let of_sender: Vec<&HoldRow> = self.holds.iter().filter(|hold| hold.sender == *sender).collect();
        let first = of_sender.first().filter(|_| task.billing == Billing::Metered)?;
        Some(Hold::SenderHeld {
            sender: sender.clone(),
            trips: of_sender.iter().map(|hold| hold.trip).collect(),
            since: first.at,
        })
    }

    /// Counts a task that starts.
    pub(crate) fn note_start(&mut self, tx: &Tx<'_>, task: &QueuedTask) -> Result<(), LedgerError> {
        if task.billing == Billing::Metered {
            self.paid_running = self.paid_running.saturating_add(1);
        }
        if self.is_watched(&task.profile) {
            self.note_running(task.profile.clone(), backend_of(tx, &task.key)?);
        }
        Ok(())
    }

    /// Whether a breaker of the profile is open on some backend.
    fn is_watched(&self, profile: &str) -> bool {
        self.breakers.iter().any(|row| row.profile == profile)
    }

    fn note_running(&mut self, profile: String, backend: String) {
        let count = self.running.entry((profile, backend)).or_default();
        *count = count.saturating_add(1);
    }
}
