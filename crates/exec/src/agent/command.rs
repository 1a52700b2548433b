//! Any program: the request is its standard input, the end of its standard output is the answer.

use std::time::{Duration, Instant};

use dispatch_node::job::{Order, OutcomeStatus, Reason};
use rustix::process::Signal;

use super::{Agent, Answer, HowFar, Recipe};
use crate::ending::{Exit, Haste, Rung, Whom};
use crate::launch::CannotStart;
use crate::meter::Meter;
use crate::tail::Tail;

const NORMAL: &[Rung] = &[Rung { signal: Signal::TERM, whom: Whom::Tree, wait: Duration::from_secs(5) }];
const SHORT: &[Rung] = &[Rung { signal: Signal::TERM, whom: Whom::Tree, wait: Duration::from_millis(500) }];

/// The adapter.
#[derive(Debug, Default)]
pub(super) struct Command {
    stdout: Tail,
}

impl Agent for Command {
    fn recipe(&self, order: &Order) -> Result<Recipe, CannotStart> {
        let (program, args) = order.argv.split_first().ok_or(CannotStart::NoProgram)?;
        Ok(Recipe { program: program.clone(), args: args.to_vec(), set: Vec::new(), first_line: "" })
    }

    fn take_stdout(&mut self, bytes: &[u8]) {
        self.stdout.push(bytes);
    }

    fn tool_open_since(&self) -> Option<Instant> {
        None
    }

    fn over_at(&self) -> Option<Instant> {
        None
    }

    fn is_spending(&self) -> bool {
        false
    }

    fn meter(&self) -> Option<&Meter> {
        None
    }

    fn how_far(&self) -> HowFar {
        HowFar::default()
    }

    fn ladder(&self, haste: Haste) -> &'static [Rung] {
        match haste {
            Haste::Normal => NORMAL,
            Haste::Short => SHORT,
        }
    }

    fn answer(&mut self, exit: Option<Exit>) -> Answer {
        let (status, reason) = verdict(exit);
        Answer {
            status,
            reason,
            final_text: Some(self.stdout.text()),
            cost: None,
            usage: None,
            version: None,
            session_id: None,
            resets_at: None,
            permission_denials: Vec::new(),
        }
    }
}

fn verdict(exit: Option<Exit>) -> (OutcomeStatus, Option<Reason>) {
    let failed = |code: &str, text: String| {
        let help = "read the end of its output: dispatchctl logs".to_owned();
        (OutcomeStatus::Error, Some(Reason { code: code.to_owned(), text, help }))
    };
    match exit {
        Some(Exit::Code(0)) => (OutcomeStatus::Ok, None),
        Some(Exit::Code(code)) => failed("exit_code", format!("the agent ended with exit code {code}")),
        Some(Exit::Signal(signal)) => failed("signal", format!("the agent was ended by signal {signal}")),
        None => failed("not_ended", "the agent could not be ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_zero_is_ok() {
        assert_eq!(verdict(Some(Exit::Code(0))), (OutcomeStatus::Ok, None));
        for exit in [Some(Exit::Code(1)), Some(Exit::Signal(9)), None] {
            let (status, reason) = verdict(exit);
            assert_eq!(status, OutcomeStatus::Error);
            assert!(reason.is_some());
        }
    }
}
