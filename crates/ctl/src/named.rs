//! Finding the task a person means: by its id, or any unique beginning or end of it.

use dispatch_core::protocol::names::TaskId;
use dispatch_ledger::{LedgerError, ReadLedger, TaskRow};
use dispatch_node::config::Config;
use dispatch_node::outgoing::{Outgoing, Record};
use dispatch_node::report::{Exit, Report};

/// Shortest part of an id that names a task.
const PART_CHARS_MIN: usize = 4;
/// Most tasks that are named when a part is not unique.
const SHOWN_MAX: usize = 5;

/// A task this node knows.
#[derive(Debug)]
pub(crate) enum Found {
    /// It was sent here.
    Received(Box<TaskRow>),
    /// It was sent from here.
    Sent(Box<SentTask>),
}

/// A task that was sent from this state directory.
#[derive(Clone, Debug)]
pub(crate) struct SentTask {
    pub(crate) outgoing: Outgoing,
    pub(crate) record: Record,
}

impl Found {
    pub(crate) const fn id(&self) -> TaskId {
        match self {
            Found::Received(row) => row.key.id,
            Found::Sent(sent) => sent.record.id,
        }
    }

    fn describe(&self) -> String {
        match self {
            Found::Received(row) => format!("{} (received from {})", row.key.id, row.key.from),
            Found::Sent(sent) => format!("{} (sent to {})", sent.record.id, sent.outgoing.lane().to),
        }
    }
}

/// The ledger, read-only; `None` where this state directory has none: a person's or an agent's own, for sending.
pub(crate) fn ledger(config: &Config) -> Result<Option<ReadLedger>, LedgerError> {
    match ReadLedger::open(&config.state.ledger_db()) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(LedgerError::Absent { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The one task that `part` names.
///
/// # Errors
/// A part that is too short or no part of an id (usage), none (66), or several.
pub(crate) fn find(config: &Config, part: &str) -> Result<Found, Report> {
    let part = checked(part)?;
    let mut found = Vec::new();
    if let Some(ledger) = ledger(config)? {
        let rows = ledger.tasks_named(&part, SHOWN_MAX.saturating_add(1))?;
        found.extend(rows.into_iter().map(|row| Found::Received(Box::new(row))));
    }
    for lane in Outgoing::lanes(&config.state)? {
        let outgoing = Outgoing::at(&config.state, &lane);
        let kept = outgoing.kept()?.into_iter().map(|(_, id)| id);
        let mut ids: Vec<TaskId> =
            outgoing.sent_ids()?.into_iter().chain(kept).filter(|id| names(&part, *id)).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids.into_iter().take(SHOWN_MAX.saturating_add(1)) {
            if let Some(record) = outgoing.record(id)? {
                found.push(Found::Sent(Box::new(SentTask { outgoing: outgoing.clone(), record })));
            }
        }
    }
    let count = found.len();
    match (found.pop(), count) {
        (Some(only), 1) => Ok(only),
        (None, _) => Err(Report::new(Exit::NoSuchTask, format!("no task here is called `{part}`"))
            .help("dispatchctl list shows those this node knows")),
        (Some(last), _) => {
            found.push(last);
            let all: Vec<String> = found.iter().take(SHOWN_MAX).map(Found::describe).collect();
            Err(Report::new(Exit::Usage, format!("`{part}` names more than one task"))
                .help(format!("say more of the id:\n  {}", all.join("\n  "))))
        }
    }
}

fn checked(part: &str) -> Result<String, Report> {
    let part = part.trim().to_ascii_lowercase();
    let shaped = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    if shaped && part.len() >= PART_CHARS_MIN {
        Ok(part)
    } else {
        Err(Report::new(Exit::Usage, format!("`{part}` is no task id or part of one")).help(format!(
            "name a task by its id, or by at least {PART_CHARS_MIN} characters from its beginning or end"
        )))
    }
}

fn names(part: &str, id: TaskId) -> bool {
    let text = id.to_string();
    text.starts_with(part) || text.ends_with(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_four_characters_of_an_id() {
        assert_eq!(checked(" DACAF1FF ").unwrap(), "dacaf1ff");
        for bad in ["", "abc", "xyzw", "%%%%", "ab_d"] {
            assert_eq!(checked(bad).unwrap_err().exit(), Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn an_id_is_named_by_its_beginning_and_its_end() {
        let id = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        assert!(names("dacaf1ff", id) && names("01a1f89c-fb", id) && names(&id.to_string(), id));
        assert!(!names("fb83", id));
    }
}
