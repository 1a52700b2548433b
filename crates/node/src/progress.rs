//! How far a task is that is not final: as the node that has it knows from its ledger and its job directories, or as that
//! node told its sender; and the words for it, the same in every command.

use std::collections::BTreeMap;

use dispatch_core::planner::queue::{Candidate, order};
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::Progress;
use dispatch_core::protocol::progress::Phase;
use dispatch_core::protocol::text::{first_chars, without_nul};
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{LedgerError, Reader, TaskBrief, TaskKey};
use serde_json::{Value, json};

use crate::durations;
use crate::job::JobDir;
use crate::state::StateDir;
use crate::term::{Breaks, cut, visible};

/// Most characters of a tool's name that are told on.
const TOOL_CHARS_MAX: usize = 64;
/// Most characters of a line of output that are told on.
const LINE_CHARS_MAX: usize = 200;
/// Most characters of a tool's name that are shown.
const TOOL_SHOWN_MAX: usize = 24;

/// Where a task is and how far; `None` where that is unknown or means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HowFar {
    /// Where it is.
    pub phase: Phase,
    /// Its place in the queue, from 1.
    pub position: Option<u64>,
    /// The epoch of its newest attempt; 0 before the first.
    pub epoch: u64,
    /// Since its agent was started.
    pub elapsed_ms: Option<u64>,
    /// Turns of the agent.
    pub turns: Option<u64>,
    /// The tool it used last. A stranger's text.
    pub last_tool: Option<String>,
    /// Tokens so far.
    pub tokens: Option<u64>,
    /// Cost so far.
    pub usd: Option<Usd>,
    /// The last line of its output. A stranger's text.
    pub last_line: Option<String>,
}

/// The places of a node's queue.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<TaskKey, u64>);

impl Places {
    /// Everything that waits for its turn, in the order of the rules.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn of(ledger: &Reader, now: Timestamp) -> Result<Places, LedgerError> {
        let queue: Vec<Candidate<TaskKey>> = ledger
            .whole_queue()?
            .into_iter()
            .map(|task| Candidate {
                key: task.key,
                priority: task.priority,
                accepted_at: task.accepted_at,
                order_no: task.order_no,
                not_before: task.not_before,
            })
            .collect();
        Ok(Places(order(&queue, now).into_iter().zip(1..).collect()))
    }

    /// The place of a task, from 1; `None` for one that does not wait for its turn.
    #[must_use]
    pub fn place(&self, key: &TaskKey) -> Option<u64> {
        self.0.get(key).copied()
    }
}

impl HowFar {
    const fn at(phase: Phase) -> HowFar {
        HowFar {
            phase,
            position: None,
            epoch: 0,
            elapsed_ms: None,
            turns: None,
            last_tool: None,
            tokens: None,
            usd: None,
            last_line: None,
        }
    }

    /// How far a task of this node is that is not final.
    #[must_use]
    pub fn here(state: &StateDir, places: &Places, task: &TaskBrief, now: Timestamp) -> HowFar {
        match (task.state, task.open_epoch) {
            (TaskState::AwaitingApproval, _) => HowFar::at(Phase::Waiting),
            (_, Some(epoch)) => HowFar::running(state, &task.key, epoch, now),
            (
                TaskState::Received
                | TaskState::Approved
                | TaskState::Queued
                | TaskState::Running
                | TaskState::Succeeded
                | TaskState::Failed
                | TaskState::Rejected,
                None,
            ) => HowFar { position: places.place(&task.key), ..HowFar::at(Phase::Queued) },
        }
    }

    /// An attempt that is leased; what is not written yet or cannot be read is unknown.
    fn running(state: &StateDir, key: &TaskKey, epoch: u64, now: Timestamp) -> HowFar {
        let job = JobDir::at(state.path(), &key.from, key.id, epoch);
        let since = |at: Timestamp| u64::try_from(now.since_ms(at)).unwrap_or(0);
        let running = HowFar { epoch, ..HowFar::at(Phase::Running) };
        // What is left of another lease says nothing about this one.
        match job.read_progress().ok().flatten().filter(|told| told.epoch == epoch) {
            Some(told) => HowFar {
                elapsed_ms: Some(told.elapsed_ms.saturating_add(since(told.at))),
                turns: told.turns,
                // The agent may have written them by its own hand: they must be such that they can be sealed.
                last_tool: told.last_tool.map(|tool| told_on(&tool, TOOL_CHARS_MAX)),
                tokens: told.tokens,
                usd: told.usd,
                last_line: told.last_line.map(|line| told_on(&line, LINE_CHARS_MAX)),
                ..running
            },
            None => {
                let started = job.read_started().ok().flatten();
                HowFar { elapsed_ms: started.map(|started| since(started.at)), ..running }
            }
        }
    }

    /// As the node that has the task told it.
    #[must_use]
    pub fn told(message: Progress) -> HowFar {
        HowFar {
            phase: message.phase,
            position: message.position,
            epoch: message.epoch,
            elapsed_ms: message.elapsed_ms,
            turns: message.turns,
            last_tool: message.last_tool,
            tokens: message.tokens,
            usd: message.usd,
            last_line: message.last_line,
        }
    }

    /// The same at no time: what is left of it changes only when something happens.
    #[must_use]
    pub fn timeless(&self) -> HowFar {
        HowFar { elapsed_ms: None, ..self.clone() }
    }

    /// For a person, on one line: `queued 3rd`, `waiting for a decision`, `running 1m12s, $0.14, Bash`.
    #[must_use]
    pub fn words(&self) -> String {
        match self.phase {
            Phase::Waiting => "waiting for a decision".to_owned(),
            Phase::Queued => match self.position {
                Some(position) => format!("queued {}", ordinal(position)),
                None => "queued".to_owned(),
            },
            Phase::Running => {
                let elapsed = self.elapsed_ms.map(durations::whole);
                let cost = self.usd.map(|usd| format!("${}", cents(usd)));
                let tool =
                    self.last_tool.as_ref().map(|tool| cut(&visible(tool, Breaks::Show), TOOL_SHOWN_MAX));
                let mut text = "running".to_owned();
                for (at, part) in [elapsed, cost, tool].into_iter().flatten().enumerate() {
                    text.push_str(if at == 0 { " " } else { ", " });
                    text.push_str(&part);
                }
                text
            }
        }
    }

    /// For programs; the members of the message.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "phase": self.phase.as_str(),
            "position": self.position,
            "epoch": self.epoch,
            "elapsed_ms": self.elapsed_ms,
            "turns": self.turns,
            "last_tool": self.last_tool,
            "tokens": self.tokens,
            "usd": self.usd.map(|usd| usd.to_string()),
            "last_line": self.last_line,
        })
    }
}

fn told_on(text: &str, chars_max: usize) -> String {
    first_chars(&without_nul(text), chars_max).to_owned()
}

/// `1st`, `2nd`, `3rd`, `4th`, `11th`.
fn ordinal(number: u64) -> String {
    let end = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

/// Dollars with two places, the rest cut off: for a glance, never for an account.
fn cents(usd: Usd) -> String {
    let exact = usd.to_string();
    let (whole, places) = exact.split_once('.').unwrap_or((&exact, ""));
    format!("{whole}.{:0<2}", first_chars(places, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_task_is_fits_on_one_line() {
        let running = HowFar {
            elapsed_ms: Some(72_900),
            usd: Usd::from_wire("0.149").ok(),
            last_tool: Some("Bash".to_owned()),
            ..HowFar::at(Phase::Running)
        };
        assert_eq!(running.words(), "running 1m12s, $0.14, Bash");
        assert_eq!(HowFar { elapsed_ms: None, ..running.clone() }.words(), "running $0.14, Bash");
        assert_eq!(HowFar::at(Phase::Running).words(), "running");
        assert_eq!(HowFar::at(Phase::Waiting).words(), "waiting for a decision");
        let hostile = HowFar { last_tool: Some("\x1b[2J\n".to_owned()), ..running };
        assert_eq!(hostile.words(), "running 1m12s, $0.14, \\x1b[2J\\n");
    }

    #[test]
    fn a_place_in_the_queue_is_an_ordinal() {
        let shown = |position| HowFar { position: Some(position), ..HowFar::at(Phase::Queued) }.words();
        let all: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 112].map(shown).into();
        assert_eq!(
            all.join(" "),
            "queued 1st queued 2nd queued 3rd queued 4th queued 11th queued 12th queued 13th queued 21st queued 112th"
        );
        assert_eq!(HowFar::at(Phase::Queued).words(), "queued");
    }

    #[test]
    fn dollars_are_shown_in_cents() {
        let shown = |text: &str| cents(Usd::from_wire(text).unwrap());
        assert_eq!(["0", "0.1", "1.239999", "12"].map(shown), ["0.00", "0.10", "1.23", "12.00"]);
    }
}
