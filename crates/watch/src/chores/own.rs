//! This node's own outgoing tasks: what its state directory still has to send, hear or tell.
//!
//! What stays without an answer is audited in the ledger first, once, and marked in its record afterwards: a watcher that dies
//! in between finds it again, and the ledger knows it.

use std::collections::BTreeSet;

use dispatch_core::policy::continuity::ClockTrust;
use dispatch_core::protocol::names::TaskId;
use dispatch_ledger::{Entry, LedgerError, TaskKey, Tx};
use dispatch_node::outgoing::{Delivered, Mailbox, Noted, Outgoing, Upkeep};
use dispatch_spool::share::Share;
use serde_json::json;

use super::{ChoreError, Clear, News, OUTBOX_AGE, Round};
use crate::home::Home;
use crate::telling;

/// What the ledger has of a peer's tasks, as far as this start of the watcher knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    unanswered: BTreeSet<TaskId>,
    unknown: BTreeSet<TaskId>,
}

impl Told {
    /// Adds what a transaction has just noted.
    pub(super) fn add(&mut self, upkeep: &Upkeep) {
        self.unanswered.extend(&upkeep.unanswered);
        self.unknown.extend(&upkeep.flushed.unknown);
    }
}

impl Round {
    fn mail<'a>(&'a self, share: &'a dyn Share) -> Mailbox<'a> {
        Mailbox {
            share,
            keys: &self.keys,
            flat: self.flat.as_ref(),
            cluster: self.cluster,
            node: &self.node,
            now: self.now,
        }
    }

    /// What was sent from this state directory: left in the outbox, answered, unanswered.
    pub(super) fn own_tasks(&self, share: &dyn Share, upkeep: &mut Upkeep) -> Result<(), ChoreError> {
        if !self.state.send(&self.lane_out).is_dir() {
            return Ok(());
        }
        let mail = self.mail(share);
        let outgoing = Outgoing::at(&self.state, &self.lane_out);
        // A sender that holds the lock flushes by itself.
        if let Some(locked) = outgoing.lock_if_free()? {
            upkeep.flushed = locked.flush(&mail, OUTBOX_AGE)?;
        }
        let records = outgoing.unanswered()?;
        if records.is_empty() {
            return Ok(());
        }
        let all = outgoing.hear_all(&mail, &records)?;
        upkeep.answered = all.answers.iter().map(|answer| answer.id).collect();
        upkeep.unverified = all.unverified;
        let heard: BTreeSet<TaskId> = upkeep.answered.iter().chain(&upkeep.unverified).copied().collect();
        for record in records.iter().filter(|record| !heard.contains(&record.id)) {
            let unknown = &mut upkeep.flushed.unknown;
            if record.unknown && !self.told.unknown.contains(&record.id) && !unknown.contains(&record.id) {
                unknown.push(record.id);
            }
            if self.now >= record.answer_by {
                if self.clock == ClockTrust::Suspect {
                    continue;
                }
                // One that a waiting command has marked is told here too: nobody else writes the audit.
                if !self.told.unanswered.contains(&record.id) {
                    upkeep.unanswered.push(record.id);
                } else if record.unanswered_at.is_none()
                    && outgoing.mark_unanswered_if_free(record.id, self.now)? == Noted::Later
                {
                    break;
                }
            } else if record.is_put_back_due(&mail) {
                match outgoing.put_back(&mail, record)? {
                    Delivered::Published | Delivered::Conflict | Delivered::Unknown => {
                        upkeep.put_back.push(record.id);
                    }
                }
            }
        }
        if self.clear == Clear::Yes {
            outgoing.tidy(self.now)?;
        }
        Ok(())
    }
}

/// Notes what the rounds found.
pub(crate) fn note(tx: &mut Tx<'_>, home: &Home, news: &[News]) -> Result<(), LedgerError> {
    for round in news {
        for id in &round.missing {
            tx.unmark_filed(&TaskKey { from: round.peer.clone(), id: *id })?;
        }
        for id in &round.upkeep.unanswered {
            if tx.note_once("audit/unanswered", &format!("{}/{id}", round.peer))? {
                let data = json!({"to": round.peer.as_str(), "id": id.to_string()});
                tx.audit(&Entry::of("unanswered").code("unanswered").data(data))?;
                telling::unanswered(tx, home, &round.peer, *id)?;
            }
        }
        for task in &round.done {
            telling::done(tx, home, &round.peer, task)?;
        }
        for id in &round.upkeep.flushed.unknown {
            if tx.note_once("audit/not_published", &format!("{}/{id}", round.peer))? {
                let data = json!({"to": round.peer.as_str(), "id": id.to_string()});
                tx.audit(&Entry::of("not_published").code("unknown").data(data))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
