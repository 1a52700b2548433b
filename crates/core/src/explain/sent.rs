//! Where a task stands that was sent from here, as far as its sender can know.

use crate::policy::gate::GateReason;
use crate::policy::money::Usd;
use crate::protocol::heartbeat::NodeState;
use crate::protocol::reason::{ReasonCode, Who};
use crate::protocol::result::{Reason, Status};
use crate::protocol::time::Timestamp;

use super::standing::Standing;
use super::{Explanation, OPERATOR, Told, duration, parked};

/// Where a task that was sent from here is, or what is known of who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is kept here and not on the share yet.
    Kept(Flusher),
    /// The share cannot be looked at. The text says why.
    NoShare(String),
    /// It lies in the inbox and nobody took it.
    InInbox,
    /// A person over there has to say yes.
    Waiting(Vec<GateReason>),
    /// It waits for its turn over there.
    Queued {
        /// Its place, from 1.
        position: Option<u64>,
    },
    /// Its agent runs over there.
    Running {
        /// For how long, in milliseconds.
        elapsed_ms: Option<u64>,
        /// Cost so far.
        usd: Option<Usd>,
    },
    /// It is in none of these places, and there is no answer.
    Unseen,
    /// Something else lay at its name for too long.
    Conflict,
    /// A cancel was asked for and not answered.
    CancelAsked,
    /// It expired, and an answer may still come.
    Late {
        /// Until when.
        answer_by: Timestamp,
    },
    /// No answer came in time.
    Unanswered {
        /// Until when it was waited for.
        answer_by: Timestamp,
    },
    /// Something lies at the answer's place that is not to be believed.
    NotBelieved {
        /// Why not.
        code: Option<ReasonCode>,
    },
    /// Its id stood on the lane of a version-2 peer before it was published, and it is never published again.
    InDoubt,
    /// The answer of a version-2 peer, which nobody signs.
    Unsigned {
        /// What it says. A stranger's word.
        says: String,
    },
    /// The answer is there.
    Answered {
        /// How it ended.
        status: Status,
        /// What the answer says of why; `None` where only the status is known here.
        reason: Option<Reason>,
    },
}

/// Who brings a kept task to the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flusher {
    /// The watcher of this state directory.
    Watcher,
    /// The next command that sends from here.
    NextSend,
}

/// What the receiver said of itself last, where that keeps a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSays {
    /// Nothing was ever heard of it.
    Never,
    /// Nothing was heard of it for a while.
    Stale {
        /// Milliseconds since.
        age_ms: i64,
    },
    /// Nothing was heard of it for so long that nothing is expected of it.
    Dead {
        /// Milliseconds since.
        age_ms: i64,
    },
    /// A killswitch stops it.
    Stopped {
        /// The text in it; empty where there is none.
        reason: String,
    },
    /// It asks not to be sent more.
    Full {
        /// How long it asks to wait, in seconds.
        retry_after_s: Option<u64>,
    },
    /// It is not active.
    NotActive(NodeState),
    /// It is there and takes work.
    Healthy,
}

impl Sent {
    /// What, why, and what to do now.
    #[must_use]
    pub fn told(&self) -> Told {
        match self {
            Sent::Answered { status, reason } => {
                Standing::Ended { status: *status, reason: reason.clone() }.told()
            }
            Sent::Waiting(gates) => Told::new("awaiting_approval", Who::Approver, parked(gates)),
            Sent::Queued { position } => queued(*position),
            Sent::Running { elapsed_ms, usd } => running(*elapsed_ms, *usd),
            Sent::Kept(_) | Sent::NoShare(_) | Sent::InInbox | Sent::Unseen | Sent::CancelAsked => {
                self.on_its_way()
            }
            Sent::Conflict
            | Sent::Late { .. }
            | Sent::Unanswered { .. }
            | Sent::NotBelieved { .. }
            | Sent::InDoubt
            | Sent::Unsigned { .. } => self.gone_wrong(),
        }
    }

    fn on_its_way(&self) -> Told {
        match self {
            Sent::Kept(flusher) => {
                let next = match flusher {
                    Flusher::Watcher => "nothing: it goes out by itself or with the next send",
                    Flusher::NextSend => {
                        "it goes out with the next `dispatch-send` or `dispatchctl status` from here"
                    }
                };
                Told::new(
                    "kept",
                    Who::Sender,
                    Explanation::new(
                        "is kept here",
                        "it could not be put on the share yet, and exists all the same",
                        format!("{next}; do not send it again; `dispatchctl cancel` takes it back"),
                    ),
                )
            }
            Sent::NoShare(why) => Told::new(
                "share_unreachable",
                Who::Sender,
                Explanation::new(
                    "cannot be followed",
                    format!("the share cannot be looked at from here ({why})"),
                    "mount the share here, then ask again; the task itself is not hurt by it",
                ),
            ),
            Sent::CancelAsked => Told::new(
                "cancel_asked",
                Who::Nobody,
                Explanation::new(
                    "is to be cancelled",
                    "a sealed cancel was put beside it, and the receiver has not answered yet",
                    "nothing: wait for its result, which says `cancelled` unless it had ended before",
                ),
            ),
            Sent::Unseen => Told::new(
                "on_its_way",
                Who::Nobody,
                Explanation::new(
                    "is between two places",
                    "it is in no directory where a task waits, and there is no result yet",
                    "nothing: look again in a minute; `dispatchctl resend` puts the same task back, which is safe",
                ),
            ),
            Sent::InInbox
            | Sent::Waiting(_)
            | Sent::Queued { .. }
            | Sent::Running { .. }
            | Sent::Conflict
            | Sent::Late { .. }
            | Sent::Unanswered { .. }
            | Sent::NotBelieved { .. }
            | Sent::InDoubt
            | Sent::Unsigned { .. }
            | Sent::Answered { .. } => Told::new(
                "in_the_inbox",
                Who::Operator,
                Explanation::new(
                    "lies in the inbox",
                    "the receiver has not taken it yet",
                    format!("nothing while the receiver runs; else {OPERATOR} starts its watcher"),
                ),
            ),
        }
    }

    fn gone_wrong(&self) -> Told {
        match self {
            Sent::Late { answer_by } => Told::new(
                "late",
                Who::Nobody,
                Explanation::new(
                    "is not answered yet",
                    "its own time is over, so it starts no more; if it had started, it may still run",
                    format!("nothing: an answer may come until {answer_by}"),
                ),
            ),
            Sent::Unanswered { answer_by } => {
                let code = ReasonCode::Unanswered;
                Told::new(
                    code.as_str(),
                    code.who(),
                    Explanation::new(
                        "was not answered",
                        format!(
                            "{}: it was waited for until {answer_by}, and it may or may not have run",
                            code.text()
                        ),
                        "look whether the receiver runs and whether the work was done; if it may run again: \
                         `dispatchctl retry`",
                    ),
                )
            }
            Sent::NotBelieved { code } => {
                let code = code.unwrap_or(ReasonCode::NotARegularFile);
                Told::new(
                    code.as_str(),
                    Who::Sender,
                    Explanation::new(
                        "has an answer that is not believed",
                        format!("something lies at its result's place, and {}", code.text()),
                        format!(
                            "{}; `dispatchctl resend` asks for the true answer; the task may well have run",
                            code.help()
                        ),
                    ),
                )
            }
            Sent::InDoubt | Sent::Unsigned { .. } => self.of_version_2(),
            Sent::Conflict
            | Sent::Kept(_)
            | Sent::NoShare(_)
            | Sent::InInbox
            | Sent::Waiting(_)
            | Sent::Queued { .. }
            | Sent::Running { .. }
            | Sent::Unseen
            | Sent::CancelAsked
            | Sent::Answered { .. } => Told::new(
                "conflict",
                Who::Operator,
                Explanation::new(
                    "cannot be put into the inbox",
                    "something else lies at its name there",
                    "nothing while the receiver runs: it sets that aside, and the task is put back every ten minutes; \
                     do not send it again",
                ),
            ),
        }
    }
}

impl Sent {
    fn of_version_2(&self) -> Told {
        if let Sent::Unsigned { says } = self {
            return Told::new(
                "unverified",
                Who::Sender,
                Explanation::new(
                    "has an answer that nobody signed",
                    format!(
                        "its receiver speaks version 2, whose answers carry no seal; this one says `{says}`"
                    ),
                    "look on the receiver whether that is so; `dispatchctl wait --accept-unverified` takes its word",
                ),
            );
        }
        Told::new(
            "in_doubt",
            Who::Sender,
            Explanation::new(
                "may or may not have been taken",
                "its receiver speaks version 2 and would run it again, and its id stood on the lane before it was published, or it was kept until its time was over",
                "look on the receiver whether it ran; if it did not: `dispatchctl retry --force`",
            ),
        )
    }
}

fn queued(position: Option<u64>) -> Told {
    let why = match position {
        None => "the receiver took it, and it waits for its turn".to_owned(),
        Some(0 | 1) => "the receiver took it, and it is the next one".to_owned(),
        Some(place) => format!("the receiver took it, and {} others go first", place.saturating_sub(1)),
    };
    Told::new(
        "queued",
        Who::Operator,
        Explanation::new(
            "waits for its turn over there",
            why,
            "nothing: it starts by itself; `dispatchctl explain` on the receiver says which limit holds it",
        ),
    )
}

fn running(elapsed_ms: Option<u64>, usd: Option<Usd>) -> Told {
    let since = elapsed_ms
        .and_then(|elapsed| i64::try_from(elapsed).ok())
        .map_or_else(String::new, |elapsed| format!(" {} ago", duration(elapsed)));
    let cost = usd.map_or_else(String::new, |usd| format!(", and has cost {usd} USD so far"));
    Told::new(
        "running",
        Who::Nobody,
        Explanation::new(
            "runs over there",
            format!("its agent started{since}{cost}"),
            "nothing: `dispatchctl logs -f` shows what it prints, `dispatchctl cancel` ends it",
        ),
    )
}

impl PeerSays {
    /// What the receiver's own state means for a task that waits for it.
    #[must_use]
    pub fn told(&self) -> Told {
        let there = "the receiver";
        let heard = |age_ms: i64| format!("its last heartbeat counted {} ago", duration(age_ms));
        let (code, who, text) = match self {
            PeerSays::Never => (
                "peer_unknown",
                Who::Operator,
                Explanation::new(
                    format!("{there} was never heard of"),
                    "no heartbeat of it was ever seen here",
                    format!("{OPERATOR} sets it up and starts its watcher"),
                ),
            ),
            PeerSays::Stale { age_ms } => (
                "peer_stale",
                Who::Nobody,
                Explanation::new(
                    format!("{there} is quiet"),
                    heard(*age_ms),
                    "nothing yet: look again in a minute",
                ),
            ),
            PeerSays::Dead { age_ms } => (
                "peer_dead",
                Who::Operator,
                Explanation::new(
                    format!("{there} seems dead"),
                    heard(*age_ms),
                    format!(
                        "{OPERATOR} looks at its watcher and at its share: the task is taken when both are back"
                    ),
                ),
            ),
            PeerSays::Stopped { reason } => {
                let because = if reason.is_empty() { "no reason given" } else { reason };
                (
                    "killswitch",
                    Who::Operator,
                    Explanation::new(
                        format!("{there} is stopped"),
                        format!("its killswitch is tripped ({because})"),
                        format!("when that is over, {OPERATOR} runs `dispatchctl resume` there"),
                    ),
                )
            }
            PeerSays::Full { retry_after_s } => (
                "backpressure",
                Who::Nobody,
                Explanation::new(
                    format!("{there} is at capacity"),
                    "most places of this lane are taken",
                    retry_after_s.map_or_else(
                        || "nothing: it is taken when there is room".to_owned(),
                        |seconds| format!("nothing: it is taken when there is room, in about {seconds}s"),
                    ),
                ),
            ),
            PeerSays::NotActive(state) => not_active(*state),
            PeerSays::Healthy => (
                "peer_healthy",
                Who::Nobody,
                Explanation::new(
                    format!("{there} is there"),
                    "its heartbeat is fresh, and it takes work",
                    "nothing",
                ),
            ),
        };
        Told::new(code, who, text)
    }
}

fn not_active(state: NodeState) -> (&'static str, Who, Explanation) {
    let (what, why) = match state {
        NodeState::Active => ("takes work", "its watcher says `active`"),
        NodeState::EnteringMaintenance => ("drains", "it finishes what runs and starts nothing new"),
        NodeState::Maintenance => ("is in maintenance", "it was drained and starts nothing"),
        NodeState::ExitingMaintenance => ("comes back from maintenance", "it takes work again in a moment"),
        NodeState::DrainFailed => {
            ("could not be drained", "something still runs there, and nothing new starts")
        }
        NodeState::Recovery => ("is in recovery", "its ledger is older than what it already showed"),
    };
    let next = match state {
        NodeState::Active | NodeState::ExitingMaintenance => "nothing".to_owned(),
        NodeState::EnteringMaintenance | NodeState::Maintenance | NodeState::DrainFailed => {
            format!("{OPERATOR} runs `dispatchctl undrain`")
        }
        NodeState::Recovery => format!(
            "{OPERATOR} restores the newer ledger, or runs `dispatchctl recover --accept-rollback REASON`"
        ),
    };
    (state.as_str(), Who::Operator, Explanation::new(format!("the receiver {what}"), why, next))
}
