//! Where a task stands on the node that has it, what holds it there, and who can do something about it.

use crate::planner::attempt::LAUNCH_FAILURES_MAX;
use crate::planner::queue::Holdback;
use crate::policy::admission::{Billing, RoomWait, WaitCause};
use crate::policy::gate::GateReason;
use crate::policy::hold::Hold;
use crate::policy::lifecycle::TaskState;
use crate::policy::money::Usd;
use crate::policy::window::WindowKey;
use crate::protocol::heartbeat::KillMode;
use crate::protocol::reason::{ReasonCode, Who};
use crate::protocol::result::{Reason, Status};
use crate::protocol::time::Timestamp;

use super::{Explanation, OPERATOR, duration, holdback, parked, status, wait, window_name};

/// One thing that is to be said about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The word for programs: a state, or the check or limit that holds the task.
    pub code: String,
    /// Who can do something about it.
    pub who: Who,
    /// The sentences.
    pub text: Explanation,
}

impl Told {
    pub(super) fn new(code: impl Into<String>, who: Who, text: Explanation) -> Told {
        Told { code: code.into(), who, text }
    }
}

/// Where a task is on the node that has it, or one thing that holds it there. A queued task may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was verified and is decided on next.
    Received,
    /// A person has to say yes.
    Waiting {
        /// Why.
        gates: Vec<GateReason>,
        /// How many people said yes so far.
        approvals: u32,
        /// How many have to.
        required: u32,
        /// Until when.
        expires: Timestamp,
    },
    /// A person said yes; the budget is asked again next.
    Approved,
    /// A stop was asked for and is not carried out yet.
    Stopping {
        /// `cancelled` or `killed`.
        why: String,
        /// Who asked.
        by: String,
    },
    /// Nobody works on the node's tasks.
    NoWatcher,
    /// Nothing starts on the node, whatever its queue holds.
    Held(Holdback),
    /// A killswitch stops the node or the lane.
    Killswitch {
        /// Where it stands: `root`, `node`, or a lane's name.
        place: String,
        /// What it does to what runs.
        mode: KillMode,
        /// The text in it; empty where there is none.
        reason: String,
        /// Whether its file is still there, or only its trip was not resumed.
        file: SwitchFile,
    },
    /// There is no room for it in a window, or paid work is held.
    Room(RoomWait),
    /// A safeguard holds it back.
    Hold(Hold),
    /// An earlier attempt could not start, and the next one waits a little.
    BackOff {
        /// Until when.
        until: Timestamp,
        /// How many could not start in a row.
        failures: u32,
    },
    /// Every place of the node is taken.
    Behind {
        /// Queued tasks that go first.
        ahead: u64,
        /// Attempts that run.
        running: u64,
        /// How many may run at once.
        places: u64,
    },
    /// Nothing holds it: it starts next.
    Due,
    /// Its agent runs.
    Running {
        /// For how long, in milliseconds.
        for_ms: i64,
        /// Its `timeout_s`, where it is known.
        timeout_s: Option<u64>,
        /// The attempt's number, from 1.
        attempt: u32,
        /// How many there may be.
        attempts: u32,
    },
    /// Another node runs it for this one.
    Forwarded {
        /// The node.
        to: String,
        /// The task it is there, by its short id.
        child: String,
        /// Since when it has been on its way, in milliseconds.
        for_ms: i64,
        /// Until when its answer can come.
        answer_by: Timestamp,
    },
    /// A lease was given and its agent has not started yet.
    Starting,
    /// An attempt is over, and the next one has not begun.
    BetweenAttempts {
        /// How many there were.
        started: u32,
        /// How many there may be.
        attempts: u32,
    },
    /// It is final.
    Ended {
        /// How it ended.
        status: Status,
        /// What its result says of why.
        reason: Option<Reason>,
    },
    /// It is final, and its result is not on the share yet.
    Unpublished,
}

/// Whether the file of a killswitch is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchFile {
    /// It is.
    There,
    /// It is gone; the node was not resumed.
    Gone,
}

impl Standing {
    /// What, why, and what to do now.
    #[must_use]
    pub fn told(&self) -> Told {
        match self {
            Standing::Received
            | Standing::Waiting { .. }
            | Standing::Approved
            | Standing::Stopping { .. }
            | Standing::Due
            | Standing::Running { .. }
            | Standing::Forwarded { .. }
            | Standing::Starting
            | Standing::BetweenAttempts { .. }
            | Standing::Ended { .. }
            | Standing::Unpublished => self.in_its_life(),
            Standing::NoWatcher
            | Standing::Held(_)
            | Standing::Killswitch { .. }
            | Standing::Room(_)
            | Standing::Hold(_)
            | Standing::BackOff { .. }
            | Standing::Behind { .. } => self.held(),
        }
    }

    /// Where it is in its life, when nothing holds it.
    fn in_its_life(&self) -> Told {
        match self {
            Standing::Waiting { gates, approvals, required, expires } => {
                waiting(gates, *approvals, *required, *expires)
            }
            Standing::Stopping { why, by } => Told::new(
                "stopping",
                Who::Nobody,
                Explanation::new(
                    format!("is being stopped ({why})"),
                    format!("{by} asked for it, and its result is not made yet"),
                    "nothing: it ends with the watcher's next pass, at the latest when its agent has ended",
                ),
            ),
            Standing::Running { for_ms, timeout_s, attempt, attempts } => {
                running(*for_ms, *timeout_s, *attempt, *attempts)
            }
            Standing::Forwarded { to, child, for_ms, answer_by } => Told::new(
                "forwarded",
                Who::Operator,
                Explanation::new(
                    format!("was forwarded to `{to}`"),
                    format!(
                        "{} ago, as task {child} of this node; its answer can come until {answer_by}",
                        duration(*for_ms)
                    ),
                    format!(
                        "on `{to}`, `dispatchctl explain {child}` says where it is; `dispatchctl cancel` ends it there"
                    ),
                ),
            ),
            Standing::Starting => Told::new(
                "starting",
                Who::Nobody,
                Explanation::new(
                    "starts",
                    "it has its place, and its agent is being started",
                    "nothing: look again in a few seconds",
                ),
            ),
            Standing::BetweenAttempts { started, attempts } => Told::new(
                "between_attempts",
                Who::Nobody,
                Explanation::new(
                    "waits for its next attempt",
                    format!("{started} of at most {attempts} attempts are over, and none ended well"),
                    "nothing: the next one starts when there is a place for it; `dispatchctl cancel` ends it here",
                ),
            ),
            Standing::Ended { status, reason } => ended(*status, reason.as_ref()),
            Standing::Unpublished => Told::new(
                "unpublished",
                Who::Operator,
                Explanation::new(
                    "its result is not on the share yet",
                    "the node has not published it, because the share is away or nobody works there",
                    format!("nothing while a watcher runs; else {OPERATOR} starts one, or mounts the share"),
                ),
            ),
            Standing::Due
            | Standing::NoWatcher
            | Standing::Held(_)
            | Standing::Killswitch { .. }
            | Standing::Room(_)
            | Standing::Hold(_)
            | Standing::BackOff { .. }
            | Standing::Behind { .. } => passing(TaskState::Queued),
            Standing::Received => passing(TaskState::Received),
            Standing::Approved => passing(TaskState::Approved),
        }
    }

    fn held(&self) -> Told {
        match self {
            Standing::NoWatcher => Told::new(
                "no_watcher",
                Who::Operator,
                Explanation::new(
                    "waits because nobody works on it",
                    "no watcher runs on the node that has it",
                    format!(
                        "{OPERATOR} starts it: `systemctl --user start dispatch-watch`, or `dispatch-watch` by hand"
                    ),
                ),
            ),
            Standing::Held(reason) => {
                let who = match reason {
                    Holdback::Tripped
                    | Holdback::ShareUnreachable
                    | Holdback::Draining
                    | Holdback::Recovery
                    | Holdback::Superseded => Who::Operator,
                };
                Told::new(holdback_code(*reason), who, holdback(*reason))
            }
            Standing::Killswitch { place, mode, reason, file } => killswitch(place, *mode, reason, *file),
            Standing::Room(room) => Told::new(room.cause.as_str(), Who::Operator, wait(room)),
            Standing::Hold(hold) => Told::new(super::held::code(hold), Who::Operator, super::held(hold)),
            Standing::BackOff { until, failures } => Told::new(
                "back_off",
                Who::Operator,
                Explanation::new(
                    "waits before it is tried again",
                    format!(
                        "its agent could not be started {failures} of at most {LAUNCH_FAILURES_MAX} times in a row"
                    ),
                    format!(
                        "nothing: it is tried again after {until}; `dispatchctl doctor` there says what keeps agents \
                         from starting"
                    ),
                ),
            ),
            Standing::Behind { ahead, running, places } => behind(*ahead, *running, *places),
            Standing::Received
            | Standing::Waiting { .. }
            | Standing::Approved
            | Standing::Stopping { .. }
            | Standing::Due
            | Standing::Running { .. }
            | Standing::Forwarded { .. }
            | Standing::Starting
            | Standing::BetweenAttempts { .. }
            | Standing::Ended { .. }
            | Standing::Unpublished => self.in_its_life(),
        }
    }
}

/// A state that the next pass of the watcher ends, or that says all by itself.
#[must_use]
pub fn passing(state: TaskState) -> Told {
    let next_pass = "nothing: the watcher's next pass goes on with it";
    let text = match state {
        TaskState::Received => Explanation::new(
            "was received",
            "its seal holds, and whether it may run is decided next",
            next_pass,
        ),
        TaskState::AwaitingApproval => parked(&[]),
        TaskState::Approved => Explanation::new(
            "was approved",
            "a person said yes, and the budget is asked again before it joins the queue",
            next_pass,
        ),
        TaskState::Queued => Explanation::new(
            "is due",
            "it has all it needs, and there is a place to run it",
            "nothing: it starts with the watcher's next pass",
        ),
        TaskState::Running => Explanation::new(
            "runs",
            "its agent was started and has not ended",
            "nothing: wait for its result",
        ),
        TaskState::Succeeded => status(Status::Ok),
        TaskState::Failed => status(Status::Error),
        TaskState::Rejected => status(Status::Rejected),
    };
    let (code, who) = match state {
        TaskState::AwaitingApproval => ("awaiting_approval", Who::Approver),
        TaskState::Queued => ("due", Who::Nobody),
        TaskState::Received
        | TaskState::Approved
        | TaskState::Running
        | TaskState::Succeeded
        | TaskState::Failed
        | TaskState::Rejected => (state.as_str(), Who::Nobody),
    };
    Told::new(code, who, text)
}

fn waiting(gates: &[GateReason], approvals: u32, required: u32, expires: Timestamp) -> Told {
    let mut text = parked(gates);
    if required > 1 {
        text.why = format!("{}; {approvals} of {required} people said yes", text.why);
    }
    text.next = format!("{}; after {expires} it is too late", text.next);
    Told::new("awaiting_approval", Who::Approver, text)
}

fn running(for_ms: i64, timeout_s: Option<u64>, attempt: u32, attempts: u32) -> Told {
    let since = duration(for_ms);
    let nth = if attempts > 1 { format!(", attempt {attempt} of at most {attempts}") } else { String::new() };
    let limit = timeout_s.map_or_else(String::new, |timeout_s| {
        let timeout_ms = i64::try_from(timeout_s).unwrap_or(i64::MAX).saturating_mul(1_000);
        format!(", and is ended by its time-out in {}", duration(timeout_ms.saturating_sub(for_ms).max(0)))
    });
    Told::new(
        "running",
        Who::Nobody,
        Explanation::new(
            "runs",
            format!("its agent started {since} ago{nth}{limit}"),
            "nothing: `dispatchctl logs -f` shows what it prints, `dispatchctl cancel` ends it",
        ),
    )
}

fn ended(of: Status, reason: Option<&Reason>) -> Told {
    let mut text = status(of);
    let mut code = of.as_str().to_owned();
    if let Some(reason) = reason {
        code.clone_from(&reason.code);
        text.why.clone_from(&reason.text);
        if !reason.help.is_empty() {
            text.next.clone_from(&reason.help);
        }
    }
    let who = match of {
        Status::Ok | Status::Verified | Status::Cancelled => Who::Nobody,
        Status::Denied => Who::Approver,
        Status::Killed => Who::Operator,
        Status::Rejected => {
            reason.and_then(|reason| ReasonCode::parse(&reason.code)).map_or(Who::Sender, ReasonCode::who)
        }
        Status::Refuted
        | Status::Error
        | Status::Timeout
        | Status::Silent
        | Status::OverBudget
        | Status::Expired
        | Status::Unknown => Who::Sender,
    };
    Told::new(code, who, text)
}

fn killswitch(place: &str, mode: KillMode, reason: &str, file: SwitchFile) -> Told {
    let of = match place {
        "root" => "the killswitch of the whole share".to_owned(),
        "node" => "the node's own killswitch".to_owned(),
        lane => format!("the killswitch of the lane {lane}"),
    };
    let stood = match file {
        SwitchFile::There => "is tripped",
        SwitchFile::Gone => "was tripped, and nobody resumed the node since",
    };
    let mode = match mode {
        KillMode::Halt => "what runs may finish",
        KillMode::Kill => "what ran was ended",
    };
    let because = if reason.is_empty() { "no reason given" } else { reason };
    let mut text = holdback(Holdback::Tripped);
    text.why = format!("{of} {stood} ({because}; {mode})");
    text.next = format!("when that is over, {OPERATOR} runs `dispatchctl resume` there");
    Told::new("killswitch", Who::Operator, text)
}

fn behind(ahead: u64, running: u64, places: u64) -> Told {
    let first = match ahead {
        0 => "it is the next one".to_owned(),
        1 => "1 queued task goes first".to_owned(),
        more => format!("{more} queued tasks go first"),
    };
    Told::new(
        "capacity",
        Who::Operator,
        Explanation::new(
            "waits for a place",
            format!("{running} of at most {places} tasks run there, and {first}"),
            format!(
                "nothing: it starts when enough of them have ended, sooner when {OPERATOR} raises `max_parallel` under \
                 [exec]; --priority high goes first when a task is sent"
            ),
        ),
    )
}

const fn holdback_code(reason: Holdback) -> &'static str {
    match reason {
        Holdback::Tripped => "killswitch",
        Holdback::ShareUnreachable => "share_unreachable",
        Holdback::Draining => "draining",
        Holdback::Recovery => "recovery",
        Holdback::Superseded => "superseded",
    }
}

/// What a queued task waits for, from the line that its ledger noted: the line itself, and what to do about it.
#[must_use]
pub fn noted_wait(line: &str) -> Told {
    if let Some(window) = WindowKey::parse(line) {
        let text = wait(&room(WaitCause::OverCap, Some(window)));
        return Told::new(WaitCause::OverCap.as_str(), Who::Operator, text);
    }
    let (what, why) = line.split_once(": ").unwrap_or(("waits for its turn", line));
    if let Some((code, next)) = super::held::noted(what) {
        return Told::new(code, Who::Operator, Explanation::new(what, why, next));
    }
    let known = WaitCause::ALL.into_iter().find(|cause| wait(&room(*cause, None)).what == what);
    match known {
        Some(cause) => {
            let mut text = wait(&room(cause, None));
            text.why = why.to_owned();
            Told::new(cause.as_str(), Who::Operator, text)
        }
        None => Told::new(
            "waits",
            Who::Operator,
            Explanation::new(what, why, format!("{OPERATOR} looks at `dispatchctl status`")),
        ),
    }
}

fn room(cause: WaitCause, window: Option<WindowKey>) -> RoomWait {
    let resets_at = window.as_ref().and_then(WindowKey::resets_at);
    RoomWait { cause, window, limit: None, left: None, asked: None, resets_at }
}

/// What a task may cost, and what its windows still hold.
#[must_use]
pub fn cost(facts: &super::CostFacts) -> String {
    let paid = match facts.billing {
        Billing::Free => return "costs nothing: its profile is free".to_owned(),
        Billing::Subscription => {
            return "costs nothing by itself: its profile is paid for by a subscription".to_owned();
        }
        Billing::Metered => facts.estimate_usd,
    };
    let set_aside = paid.map_or_else(
        || "what is set aside for an attempt is not known".to_owned(),
        |usd| format!("{usd} USD are set aside for an attempt"),
    );
    let ceiling = facts
        .ceiling_usd
        .map_or_else(|| "no ceiling".to_owned(), |usd| format!("its agent is stopped at {usd} USD"));
    format!("{set_aside}, {ceiling}")
}

/// What a task may cost, as its sender knows it: its own ceiling, and what the receiver's terms say, where they are there.
#[must_use]
pub fn sent_cost(max_cost_usd: Option<Usd>, estimate_usd: Option<Usd>) -> String {
    let own = max_cost_usd.map_or_else(
        || "it may cost what its profile over there allows: it was sent without --max-cost".to_owned(),
        |usd| format!("it may cost {usd} USD at most"),
    );
    estimate_usd.map_or_else(
        || own.clone(),
        |usd| format!("{own}; the receiver would set {usd} USD aside for an attempt"),
    )
}

/// What is in one window, in words.
#[must_use]
pub fn window_line(level: &super::WindowFacts<'_>) -> String {
    let named = window_name(level.key);
    let held = format!("{} USD spent, {} reserved", level.balance.spent, level.balance.reserved);
    let room = match (level.cap, level.left()) {
        (None, _) => format!("{held}, no cap"),
        (Some(cap), _) if !cap.is_positive() => format!("{held}, a cap of 0: paid work is off"),
        (Some(cap), Some(left)) => format!("{left} of {cap} USD left ({held})"),
        (Some(cap), None) => format!("nothing of {cap} USD left ({held})"),
    };
    let resets = level.key.resets_at().map_or_else(String::new, |at| format!("; a new one begins at {at}"));
    format!("{named}: {room}{resets}")
}
