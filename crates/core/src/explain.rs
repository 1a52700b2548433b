//! What, why, and what to do now: the sentences for every refusal, wait and ending.
//!
//! One home for these words, so that a result's reason, the progress line of a waiting sender and the listing of what
//! waits say the same thing. A text here names the limit, what is left of it, when it resets and who can lift it.

mod held;
mod refused;
mod sent;
mod standing;

use std::fmt;

use crate::planner::queue::Holdback;
use crate::policy::admission::{Billing, Refusal, RefusalCode, RoomWait, WaitCause};
use crate::policy::gate::GateReason;
use crate::policy::money::Usd;
use crate::policy::window::{Balance, Window, WindowKey};
use crate::protocol::reason::ReasonCode;
use crate::protocol::result::{Reason, Status};
use crate::protocol::time::Timestamp;

pub use held::{held, trip_clause};
pub use refused::{refusal, refusal_reason, why_not};
pub use sent::{Flusher, PeerSays, Sent};
pub use standing::{Standing, SwitchFile, Told, cost, noted_wait, passing, sent_cost, window_line};

/// Three sentences for a person, without a full stop at their ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happened, or what is being waited for.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do now, and who can do it.
    pub next: String,
}

impl Explanation {
    fn new(what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Explanation {
        Explanation { what: what.into(), why: why.into(), next: next.into() }
    }

    /// What and why in one line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}: {}", self.what, self.why)
    }

    /// As a result carries it, with the code for programs.
    #[must_use]
    pub fn reason(&self, code: &str) -> Reason {
        Reason { code: code.to_owned(), text: self.line(), help: self.next.clone() }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.what, self.why, self.next)
    }
}

/// What a task may cost, as it was resolved when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostFacts {
    /// How it is paid for.
    pub billing: Billing,
    /// The most its agent may spend.
    pub ceiling_usd: Option<Usd>,
    /// What is set aside for an attempt.
    pub estimate_usd: Option<Usd>,
}

/// One budget window as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowFacts<'a> {
    /// Which.
    pub key: &'a WindowKey,
    /// What is in it.
    pub balance: Balance,
    /// How much may be; `None` is no limit.
    pub cap: Option<Usd>,
}

impl WindowFacts<'_> {
    /// What is left of the cap; `None` without a cap, or where it is used up.
    #[must_use]
    pub fn left(&self) -> Option<Usd> {
        let left = self.cap?.checked_sub(self.balance.committed()?)?;
        left.is_positive().then_some(left)
    }
}

/// Milliseconds as `45s`, `12m`, `3h`, `9d`.
fn duration(ms: i64) -> String {
    let seconds = ms.max(0).div_euclid(1_000);
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds >= length {
            return format!("{}{unit}", seconds.div_euclid(length));
        }
    }
    format!("{seconds}s")
}

/// Who runs the node that decides, in the words of a text that the sender reads.
const OPERATOR: &str = "whoever runs the receiving node";

/// A refusal before policy was asked, or a report about a message.
#[must_use]
pub fn code(code: ReasonCode) -> Explanation {
    Explanation::new(format!("not taken ({code})"), code.text(), code.help())
}

/// A refusal before policy was asked, as a result carries it.
#[must_use]
pub fn code_reason(of: ReasonCode) -> Reason {
    Reason { code: of.as_str().to_owned(), text: of.text().to_owned(), help: of.help().to_owned() }
}

/// A code as it stands in a result or an audit entry, where nothing else is known; `None` for a code of another release.
#[must_use]
pub fn word(text: &str) -> Option<Explanation> {
    ReasonCode::parse(text)
        .map(code)
        .or_else(|| RefusalCode::parse(text).map(|code| refusal(&Refusal::plain(code))))
}

/// `the run … has 1.25 of 5 USD left and the task needs 2.5`
fn room(named: &str, limit: Option<Usd>, left: Option<Usd>, asked: Option<Usd>) -> String {
    let needs = asked.map_or_else(String::new, |asked| format!(" and the task needs {asked}"));
    match (limit, left) {
        (Some(limit), _) if !limit.is_positive() => {
            format!("paid work is off: {named} has a cap of {limit} USD{needs}")
        }
        (Some(limit), Some(left)) => format!("{named} has {left} of {limit} USD left{needs}"),
        (Some(limit), None) => format!("{named} has no room within its {limit} USD{needs}"),
        (None, _) => format!("{named} has no room{needs}"),
    }
}

fn over_cap_help(
    window: Option<&WindowKey>,
    limit: Option<Usd>,
    left: Option<Usd>,
    resets_at: Option<Timestamp>,
) -> String {
    let key = window.map_or("the cap", |window| cap_name(window.window()));
    if limit.is_some_and(|limit| !limit.is_positive()) {
        return format!("{OPERATOR} sets `{key}` under [budget] above 0");
    }
    let mut ways = Vec::new();
    if left.is_some_and(Usd::is_positive) {
        ways.push("send it again with a lower --max-cost".to_owned());
    }
    ways.extend(resets_at.map(|at| format!("send it again after {at}")));
    match window {
        Some(WindowKey::Run { .. }) => {
            ways.push("send it again with another --run (this one does not reset by itself)".to_owned());
        }
        Some(WindowKey::Tree(_)) => {
            ways.push("send it again as a task of its own (a tree does not reset by itself)".to_owned());
        }
        Some(
            WindowKey::RunOfDay { .. } | WindowKey::Day(_) | WindowKey::Month(_) | WindowKey::Sender { .. },
        )
        | None => {}
    }
    ways.push(format!("{OPERATOR} raises `{key}` under [budget]"));
    ways.join(", or ")
}

/// The line that a ledger keeps of a wait: limit, window and reset. What is left of the window is another figure with every
/// settlement, so it is not noted; whoever asks computes it.
#[must_use]
pub fn wait_line(of: &RoomWait) -> String {
    let left = of.left.filter(|_| of.cause != WaitCause::OverCap);
    format!("{}{}", wait(&RoomWait { left, ..of.clone() }).line(), resets(of.resets_at, "; it resets at "))
}

/// What a queued task without a reservation waits for.
#[must_use]
pub fn wait(wait: &RoomWait) -> Explanation {
    let window = wait.window.as_ref();
    let named = window.map_or_else(|| "the budget".to_owned(), window_name);
    let until = resets(wait.resets_at, "nothing: it goes on by itself after ");
    let what = "waits for its budget";
    match wait.cause {
        WaitCause::OverCap => {
            let key = window.map_or("the cap", |window| cap_name(window.window()));
            // More than the whole cap: the reset brings no room either.
            let never = wait.asked.zip(wait.limit).is_some_and(|(asked, limit)| asked > limit);
            let next = if never || until.is_empty() {
                let never = if never { "no reset brings room for it: " } else { "" };
                format!(
                    "{never}{OPERATOR} raises `{key}` under [budget], or cancel it and send it with a lower --max-cost"
                )
            } else {
                format!("{until}, or sooner when {OPERATOR} raises `{key}` under [budget]")
            };
            Explanation::new(what, room(&named, wait.limit, wait.left, wait.asked), next)
        }
        WaitCause::ClockSuspect => Explanation::new(
            "waits for a clock that can be believed",
            "the receiving node's clock jumped, so it is not known which day's and month's budget this is",
            format!(
                "{OPERATOR} sets the clock: it goes on by itself once that agrees; or runs \
                 `dispatchctl recover --accept-clock REASON`"
            ),
        ),
        WaitCause::DayClosed => Explanation::new(
            "waits for another day's budget",
            format!(
                "the receiving node's ledger was replaced on this day, and nothing of {named} is left: it stays closed"
            ),
            format!("{until}, and nobody opens it sooner"),
        ),
        WaitCause::MonthClosed => Explanation::new(
            "waits for another month's budget",
            format!(
                "the receiving node's ledger was replaced, and what {named} had spent, and so what is left, is not known"
            ),
            format!(
                "{until}, or sooner when {OPERATOR} moves that ledger away and says what was spent: `dispatchctl init \
                 --new-ledger --month-spent USD`"
            ),
        ),
        WaitCause::SpendBlocked => {
            let key = window.map_or("month_usd", |window| cap_name(window.window()));
            let next = format!("{OPERATOR} raises `{key}` under [budget]");
            Explanation::new(
                "waits because paid work is blocked",
                format!("{}, and nothing paid starts", room(&named, wait.limit, wait.left, wait.asked)),
                if until.is_empty() { next } else { format!("{until}, or sooner when {next}") },
            )
        }
        WaitCause::SenderHeld => Explanation::new(
            "waits because its sender is held",
            "its sender spent or repeated itself too fast, which is how a runaway looks",
            format!(
                "it does not end by itself: {OPERATOR} looks at what it sent (`dispatchctl budget`), then runs \
                 `dispatchctl budget resume`"
            ),
        ),
    }
}

/// What a parked task waits for.
#[must_use]
pub fn parked(gates: &[GateReason]) -> Explanation {
    let whys: Vec<&str> = gates.iter().map(|reason| gate(*reason)).collect();
    Explanation::new(
        "waits for a decision",
        if whys.is_empty() { "a person has to say yes".to_owned() } else { whys.join("; ") },
        "an approver of the receiving node runs `dispatch-ack` there, or anywhere the share is mounted",
    )
}

/// Why a person is asked, from the words that terms and the ledger hold; a word of another release stands alone.
#[must_use]
pub fn gate_words(words: &[String]) -> String {
    let said = |word: &String| match GateReason::parse(word) {
        Some(reason) => format!("{word} ({})", gate(reason)),
        None => word.clone(),
    };
    words.iter().map(said).collect::<Vec<_>>().join(", ")
}

/// Why a person is asked, one clause.
#[must_use]
pub const fn gate(reason: GateReason) -> &'static str {
    match reason {
        GateReason::RequireAck => "it asks for a person's yes",
        GateReason::Dangerous => "it asks for the unrestricted mode",
        GateReason::BackendNotLocal => "it would run somewhere else than on the receiving node",
        GateReason::AboveGateUsd => "it may cost more than runs there unasked",
        GateReason::PeerGate => "everything from its sender is looked at by a person",
        GateReason::Throttled => "the receiving node's budget is nearly used up, or spent unusually fast",
        GateReason::LineageDepth => "it was sent by a task that was itself sent by tasks",
    }
}

/// What a queued task waits for whose backend is taken.
#[must_use]
pub fn backend_busy(backend: &str) -> Explanation {
    Explanation::new(
        format!("waits for a place on `{backend}`"),
        "as many attempts run there as its `max_parallel` allows",
        format!("nothing: it goes on when one of them ends, or sooner when {OPERATOR} raises `max_parallel`"),
    )
}

/// Why nothing starts on a node, whatever its queue holds.
#[must_use]
pub fn holdback(reason: Holdback) -> Explanation {
    let what = "waits because nothing starts there now";
    match reason {
        Holdback::Tripped => Explanation::new(
            what,
            "a killswitch is tripped, or was and nobody resumed the node",
            "remove the KILLSWITCH file, then run `dispatchctl resume` on the node",
        ),
        Holdback::ShareUnreachable => Explanation::new(
            what,
            "the node does not see the share",
            "mount it again on the node: it goes on by itself",
        ),
        Holdback::Draining => Explanation::new(
            what,
            "the node drains or is in maintenance",
            format!("{OPERATOR} runs `dispatchctl undrain`"),
        ),
        Holdback::Recovery => Explanation::new(
            what,
            "the node's ledger is older than what the node already showed",
            format!(
                "{OPERATOR} restores the newer ledger, or runs `dispatchctl recover --accept-rollback REASON`"
            ),
        ),
        Holdback::Superseded => Explanation::new(
            what,
            "another watcher has taken over this node",
            "find the other watcher of this node, and stop one of them",
        ),
    }
}

/// What a status means and what to do about it, where the result itself gives no reason.
#[must_use]
pub fn status(status: Status) -> Explanation {
    let done = "nothing: it is done";
    match status {
        Status::Ok => Explanation::new("done", "the agent ended well", done),
        Status::Verified => Explanation::new("done", "the agent ended well and every check passed", done),
        Status::Refuted => Explanation::new(
            "done, but not as asked",
            "a check failed, or the agent was denied a permission on the way",
            "look at the checks and denials in the result, then send it again with what was missing",
        ),
        Status::Error => Explanation::new(
            "failed",
            "the agent ended with an error, gave no answer, or could not be started",
            "look at `dispatchctl logs`, then send it again",
        ),
        Status::Timeout => Explanation::new(
            "ended by its time-out",
            "it ran longer than its `timeout_s`",
            "look at `dispatchctl logs`, then send it again with a longer --timeout",
        ),
        Status::Silent => Explanation::new(
            "ended for its silence",
            "it printed nothing for its `silence_timeout_s`",
            "look at `dispatchctl logs`, then send it again, with a longer --silence if it works quietly",
        ),
        Status::OverBudget => Explanation::new(
            "ended at its ceiling",
            "it had spent what it may cost",
            "look at what it did for the money, then send it again with a higher --max-cost or in smaller parts",
        ),
        Status::Killed => Explanation::new(
            "ended by the killswitch",
            "somebody stopped everything that ran",
            "find out why, then send it again when the node was resumed",
        ),
        Status::Cancelled => Explanation::new("cancelled", "somebody took it back", done),
        Status::Rejected => Explanation::new(
            "never ran",
            "the receiving node's policy refused it",
            "do what its reason says, then send it again",
        ),
        Status::Denied => Explanation::new(
            "never ran",
            "a person said no",
            "read the decision's reason, and talk to who decided",
        ),
        Status::Expired => Explanation::new(
            "never ran",
            "its time was over before it could start or before anybody decided",
            "send it again, with a later --expires if it may wait longer",
        ),
        Status::Unknown => Explanation::new(
            "may or may not have run to its end",
            "the node died, or lost its ledger, while it was there",
            "check whether its work was done before you send it again",
        ),
    }
}

/// A window in words.
#[must_use]
pub fn window_name(key: &WindowKey) -> String {
    match key {
        WindowKey::Run { sender, run } => format!("the run `{run}` of {sender}"),
        WindowKey::RunOfDay { sender, day } => format!("{sender}'s run of {day}"),
        WindowKey::Day(day) => format!("the day {day}"),
        WindowKey::Month(month) => format!("the month {month}"),
        WindowKey::Sender { sender, month } => format!("{sender}'s month {month}"),
        WindowKey::Tree(root) => format!("the tree of task {}", root.short()),
    }
}

/// The key under `[budget]` that holds a window's cap.
#[must_use]
pub const fn cap_name(window: Window) -> &'static str {
    match window {
        Window::Run => "run_usd",
        Window::Day => "day_usd",
        Window::Month => "month_usd",
        Window::Sender => "sender_usd",
        Window::Tree => "tree_usd",
    }
}

fn resets(at: Option<Timestamp>, before: &str) -> String {
    at.map_or_else(String::new, |at| format!("{before}{at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::limits::TEXT_BYTES_MAX;

    fn usd(text: &str) -> Option<Usd> {
        Some(Usd::from_wire(text).unwrap())
    }

    fn over(key: &str, limit: &str, left: &str) -> Refusal {
        let window = WindowKey::parse(key).unwrap();
        Refusal {
            resets_at: window.resets_at(),
            window: Some(window),
            limit: usd(limit),
            left: usd(left),
            asked: usd("2.5"),
            ..Refusal::plain(RefusalCode::OverCap)
        }
    }

    #[test]
    fn a_refusal_names_the_limit_what_is_left_the_reset_and_who_can_lift_it() {
        let reason = refusal_reason(&over("sender:devbox/2026-11", "5", "1.25"));
        assert_eq!(reason.code, "over_cap");
        assert_eq!(
            reason.text,
            "refused by the budget: devbox's month 2026-11 has 1.25 of 5 USD left and the task needs 2.5"
        );
        assert_eq!(
            reason.help,
            "send it again with a lower --max-cost, or send it again after 2026-12-01T00:00:00.000Z, \
             or whoever runs the receiving node raises `sender_usd` under [budget]"
        );
    }

    #[test]
    fn a_named_run_that_is_full_gives_way_to_another() {
        let told = refusal(&over("run:devbox/nightly", "5", "0"));
        assert!(told.next.contains("with another --run"), "{told}");
        assert!(!told.next.contains("--max-cost"), "nothing fits into nothing: {told}");
    }

    #[test]
    fn a_cap_of_nothing_is_told_as_paid_work_being_off() {
        let told = refusal(&over("run:devbox/2026-11-21@day", "0", "0"));
        assert!(told.why.starts_with("paid work is off"), "{told}");
        assert_eq!(told.next, "whoever runs the receiving node sets `run_usd` under [budget] above 0");
    }

    #[test]
    fn a_wait_that_no_reset_can_end_does_not_promise_one() {
        let month = WindowKey::parse("month:2026-11").unwrap();
        let waits = |limit: &str| {
            wait(&RoomWait {
                cause: WaitCause::OverCap,
                resets_at: month.resets_at(),
                window: Some(month.clone()),
                limit: usd(limit),
                left: usd("1"),
                asked: usd("2.5"),
            })
        };
        assert!(waits("100").next.starts_with("nothing: it goes on by itself after 2026-12-01"));
        assert!(!waits("2").next.contains("by itself"));
    }

    #[test]
    fn a_wait_is_noted_with_limit_window_and_reset_and_without_what_is_left() {
        let month = WindowKey::parse("month:2026-11").unwrap();
        let line = |left: &str| {
            wait_line(&RoomWait {
                cause: WaitCause::OverCap,
                resets_at: month.resets_at(),
                window: Some(month.clone()),
                limit: usd("100"),
                left: usd(left),
                asked: usd("2.5"),
            })
        };
        assert_eq!(
            line("1"),
            "waits for its budget: the month 2026-11 has no room within its 100 USD and the task needs 2.5; it resets at \
             2026-12-01T00:00:00.000Z"
        );
        assert_eq!(line("1"), line("2"));
        assert_eq!(noted_wait(&line("1")).code, WaitCause::OverCap.as_str());
    }

    #[test]
    fn a_code_of_this_release_is_explained_by_its_word() {
        for code in ReasonCode::ALL {
            assert_eq!(word(code.as_str()).map(|told| told.next), Some(code.help().to_owned()));
            assert_eq!(RefusalCode::parse(code.as_str()), None, "one word, one meaning");
        }
        for code in RefusalCode::ALL {
            assert!(word(code.as_str()).is_some());
        }
        assert_eq!(word("no_such_code"), None);
    }

    #[test]
    fn every_text_fits_a_results_reason() {
        let texts = RefusalCode::ALL
            .into_iter()
            .map(|code| {
                refusal(&Refusal { code, ..over(&format!("run:devbox/{}", "x".repeat(64)), "5", "1") })
            })
            .chain(Status::ALL.iter().map(|word| status(*word)))
            .chain(ReasonCode::ALL.iter().map(|word| code(*word)))
            .chain([parked(&GateReason::ALL), parked(&[])]);
        for told in texts {
            let reason = told.reason("x");
            for text in [&reason.text, &reason.help] {
                assert!(!text.is_empty() && text.len() <= TEXT_BYTES_MAX, "{text}");
                assert!(!text.ends_with('.') && !text.contains('\n'), "{text}");
            }
        }
    }
}
