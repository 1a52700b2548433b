//! Children of tasks in this node's own stream: kept once, however often it is tried.

use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::task::Task;

use super::error::OutgoingError;
use super::record::Record;
use super::sealing::{SealError, sealed};
use super::{Locked, Outgoing, lock};

/// Whether a child lies in the outbox or behind it now.
#[derive(Debug)]
#[must_use]
pub enum KeptChild {
    /// It does, with this record.
    Kept(Box<Record>),
    /// Another process holds the lane's lock: it is tried again.
    Later,
}

impl Outgoing {
    /// Gives a child its place in the stream, seals it and keeps it in the outbox, synced; a child that has a record has
    /// all that already, and the record is the answer.
    ///
    /// # Errors
    /// The lane has no key, the task does not fit an envelope, or the system's refusal.
    pub fn keep_child(&self, child: &Task, keys: &LaneRing) -> Result<KeptChild, OutgoingError> {
        // Looked for without the lock, too: what is there stays there.
        if let Some(record) = self.record(child.id)? {
            return Ok(KeptChild::Kept(Box::new(record)));
        }
        match lock::take(self, lock::SHORT_WAIT)? {
            None => Ok(KeptChild::Later),
            Some(locked) => locked.keep_child(child, keys).map(|record| KeptChild::Kept(Box::new(record))),
        }
    }
}

impl Locked<'_> {
    fn keep_child(&self, child: &Task, keys: &LaneRing) -> Result<Record, OutgoingError> {
        if let Some(record) = self.outgoing.record(child.id)? {
            return Ok(record);
        }
        let position = self.next()?;
        let task = Task { stream: position.stream, seq: position.seq, ..child.clone() };
        let sealed = sealed(&task, keys, None).map_err(|error| match error {
            SealError::NoKey { lane } => OutgoingError::NoKey { lane },
            error @ (SealError::NotTaken(_) | SealError::TooLong { .. } | SealError::CannotCarry { .. }) => {
                OutgoingError::Damaged { path: self.outgoing.sent_path(child.id), source: error.into() }
            }
        })?;
        self.enqueue(sealed)
    }
}

#[cfg(test)]
mod tests {
    use dispatch_core::protocol::keys::PairKey;
    use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
    use dispatch_core::protocol::time::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::state::StateDir;

    fn child(number: u8) -> Task {
        let node = |name| NodeName::new(name).unwrap();
        let lane = Lane::new(node("devbox"), node("gpubox"));
        let id = TaskId::parse(&format!("01a1f89c-fb83-734b-96bb-78a1dacaf1{number:02x}")).unwrap();
        let now = Timestamp::parse("2026-11-21T12:00:00.000Z").unwrap();
        Task::new(Uuid::from_u128(1), &lane, id, now, (Uuid::nil(), 1), "echo".to_owned())
    }

    #[test]
    fn a_child_that_is_kept_twice_has_one_place_in_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        state.create(&dir.path().join("share")).unwrap();
        let lane = child(1).lane();
        let key = PairKey::from_text(&"k".repeat(32)).unwrap().lane(&lane);
        let keys = LaneRing { accepted: vec![key], retired: Vec::new() };
        let outgoing = Outgoing::open(&state, &lane).unwrap();
        let keep = |number| match outgoing.keep_child(&child(number), &keys).unwrap() {
            KeptChild::Kept(record) => *record,
            KeptChild::Later => panic!("nobody holds the lock"),
        };
        let (first, again, second) = (keep(1), keep(1), keep(2));
        assert_eq!((first.seq, again.seq, second.seq), (1, 1, 2));
        assert_eq!(first.task_sha256, again.task_sha256);
        assert_eq!(outgoing.kept().unwrap().len(), 2);
        let task = first.task().unwrap();
        assert_eq!((task.stream, task.seq, task.request.as_str()), (first.stream, 1, "echo"));
    }
}
