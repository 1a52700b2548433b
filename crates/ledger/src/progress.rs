//! What happens to a task, from its acceptance to its published result.

use dispatch_core::policy::admission::Cost;
use dispatch_core::policy::lifecycle::{TaskEvent, TaskState};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::Timestamp;

use crate::column::{micros, ms};
use crate::error::LedgerError;
use crate::tasks::{Filed, NewTask, TaskKey, Terms};
use crate::tx::Tx;

impl Tx<'_> {
    /// Takes a task, in state `received`, and answers its place in the order of acceptance. The node owes an answer
    /// from the commit on. The seen-set is a call of its own.
    ///
    /// # Errors
    /// A task that is there already, or a ledger that cannot be written.
    pub fn insert_task(&mut self, new: &NewTask) -> Result<u64, LedgerError> {
        let sql = "INSERT INTO tasks (sender, id, digest, state, priority, accepted_at, created, expires, run, root,
                     parent, depth, profile, workspace, terms_sha256, gates, estimate, ceiling, billing,
                     required_approvals, max_attempts, first_line, labels)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
                     ?21, ?22, ?23)
                   ON CONFLICT (sender, id) DO NOTHING RETURNING n";
        let terms = &new.terms;
        let params = rusqlite::params![
            new.key.from.as_str(),
            new.key.id.to_string(),
            new.digest.to_string(),
            TaskState::Received.as_str(),
            new.priority.as_str(),
            self.now().unix_ms(),
            new.created.unix_ms(),
            new.expires.unix_ms(),
            new.run,
            new.root.to_string(),
            new.parent.map(|id| id.to_string()),
            new.depth,
            new.profile,
            new.workspace,
            terms.sha256.map(|digest| digest.to_string()),
            terms.gates,
            terms.cost.estimate_usd.map(micros).transpose()?,
            terms.cost.ceiling_usd.map(micros).transpose()?,
            terms.billing.as_str(),
            terms.required_approvals,
            new.max_attempts,
            new.first_line,
            new.labels,
        ];
        let task = self
            .one("take a task", sql, params, |row| row.get::<_, u64>(0))?
            .ok_or_else(|| LedgerError::KnownTask { key: new.key.clone() })?;
        self.keep_paper(task, "envelope", &new.envelope)?;
        self.keep_terms(task, terms)?;
        Ok(task)
    }

    /// Moves a task along its life: the only door to its state. What was filed for another directory is unfiled.
    ///
    /// # Errors
    /// An unknown task; a fact its state does not allow, which changes nothing.
    pub fn apply(&mut self, key: &TaskKey, event: TaskEvent) -> Result<TaskState, LedgerError> {
        let (task, old) = self.known_task(key)?;
        let state = old.apply(event).map_err(|source| LedgerError::Illegal { key: key.clone(), source })?;
        let refiled = filed_as(old) != filed_as(state);
        let sql = "UPDATE tasks SET state = ?2,
                     final_at = CASE WHEN ?3 THEN coalesce(final_at, ?5) ELSE final_at END,
                     queued_at = CASE WHEN ?2 = 'queued' THEN coalesce(queued_at, ?5) ELSE queued_at END,
                     filed = CASE WHEN ?4 THEN 0 ELSE filed END
                   WHERE n = ?1";
        let params = (task, state.as_str(), state.is_final(), refiled, self.now().unix_ms());
        self.run("change a task's state", sql, params)?;
        Ok(state)
    }

    /// Makes a task final, with the payload of its one result, in the transaction that makes it so.
    ///
    /// # Errors
    /// An unknown task; an event that does not end it, or that its state does not allow.
    pub fn finish(
        &mut self,
        key: &TaskKey,
        event: TaskEvent,
        status: Status,
        code: Option<&str>,
        result: &[u8],
    ) -> Result<TaskState, LedgerError> {
        let state = self.apply(key, event)?;
        let (task, _) = self.known_task(key)?;
        let sql =
            "UPDATE tasks SET status = ?2, code = ?3, wait_reason = NULL, not_before = NULL WHERE n = ?1";
        self.run("finish a task", sql, (task, status.as_str(), code))?;
        self.keep_paper(task, "result", result)?;
        Ok(state)
    }

    /// Replaces what would run: a reload changed it while the task waits. It has to be filed again, under new terms.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn replace_terms(&mut self, key: &TaskKey, terms: &Terms) -> Result<(), LedgerError> {
        let (task, _) = self.known_task(key)?;
        let sql = "UPDATE tasks SET terms_sha256 = ?2, gates = ?3, estimate = ?4, ceiling = ?5, billing = ?6,
                     required_approvals = ?7, filed = 0 WHERE n = ?1";
        let params = (
            task,
            terms.sha256.map(|digest| digest.to_string()),
            &terms.gates,
            terms.cost.estimate_usd.map(micros).transpose()?,
            terms.cost.ceiling_usd.map(micros).transpose()?,
            terms.billing.as_str(),
            terms.required_approvals,
        );
        self.run("replace a task's terms", sql, params)?;
        self.run("replace a task's terms", "DELETE FROM papers WHERE task = ?1 AND kind = 'terms'", [task])?;
        self.keep_terms(task, terms)
    }

    /// Changes what a task may cost: an approver allowed less, or the second look at the budget says more exactly.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn set_cost(&mut self, key: &TaskKey, cost: Cost) -> Result<(), LedgerError> {
        let (estimate, ceiling) =
            (cost.estimate_usd.map(micros).transpose()?, cost.ceiling_usd.map(micros).transpose()?);
        let sql = "UPDATE tasks SET estimate = ?3, ceiling = ?4 WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), estimate, ceiling))
    }

    /// Says what a queued task waits for, or that it waits for nothing any more.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn set_wait_reason(&mut self, key: &TaskKey, reason: Option<&str>) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET wait_reason = ?3 WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), reason))
    }

    /// Counts a lease that came to no start and holds the next one back until then.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn note_launch_failure(&mut self, key: &TaskKey, not_before: Timestamp) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET launch_failures = launch_failures + 1, not_before = ?3
                   WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), not_before.unix_ms()))
    }

    /// Holds the next lease of a task back, without counting anything; `None` lets it go.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn set_not_before(&mut self, key: &TaskKey, at: Option<Timestamp>) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET not_before = ?3 WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), ms(at)))
    }

    /// Records that a task is to stop: it is never leased again. The first stop stands: it is what the result says.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn record_stop(&mut self, key: &TaskKey, why: &str, by: &str) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET stop_by = CASE WHEN stop_at IS NULL THEN ?4 ELSE stop_by END,
                     stop_why = coalesce(stop_why, ?3), stop_at = coalesce(stop_at, ?5)
                   WHERE sender = ?1 AND id = ?2";
        let params = (key.from.as_str(), key.id.to_string(), why, by, self.now().unix_ms());
        self.change_task(key, sql, params)
    }

    /// Marks a task as lying where its state says. Answers false, and changes nothing, when its state has moved on to
    /// another directory meanwhile.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    #[must_use = "a task whose state moved on has to be filed again"]
    pub fn mark_filed(&mut self, key: &TaskKey, filed: Filed) -> Result<bool, LedgerError> {
        let (task, state) = self.known_task(key)?;
        if filed_as(state) != Some(filed) {
            return Ok(false);
        }
        self.run("mark a task as filed", "UPDATE tasks SET filed = 1 WHERE n = ?1", [task])?;
        Ok(true)
    }

    /// Asks for a task that is not final to be filed again: its file vanished, or something else stands there.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn unmark_filed(&mut self, key: &TaskKey) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET filed = 0 WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string()))
    }

    /// Marks the result of a task as published.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn mark_published(&mut self, key: &TaskKey) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET published_at = coalesce(published_at, ?3), filed = 1
                   WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), self.now().unix_ms()))
    }

    /// Asks for the result of a final task to be published again (`resend`).
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn unmark_published(&mut self, key: &TaskKey) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET published_at = NULL WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string()))
    }

    /// Drops the long bytes (not the results) of tasks whose result was published at `upto` or earlier and that the
    /// seen-set has forgotten: nothing asks for them any more. Answers how many rows went.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_papers(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        let sql = "DELETE FROM papers WHERE kind <> 'result' AND task IN (
                     SELECT n FROM tasks WHERE published_at <= ?1
                       AND NOT EXISTS (SELECT 1 FROM seen WHERE seen.sender = tasks.sender AND seen.id = tasks.id))";
        self.run("purge papers", sql, [upto.unix_ms()])
    }

    fn keep_terms(&mut self, task: u64, terms: &Terms) -> Result<(), LedgerError> {
        self.keep_paper(task, "recipe", terms.recipe.as_bytes())?;
        terms.payload.as_deref().map_or(Ok(()), |payload| self.keep_paper(task, "terms", payload))
    }

    fn keep_paper(&mut self, task: u64, kind: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        let sql = "INSERT INTO papers (task, kind, bytes) VALUES (?1, ?2, ?3)
                   ON CONFLICT (task, kind) DO UPDATE SET bytes = excluded.bytes";
        self.run("keep a task's bytes", sql, (task, kind, bytes)).map(|_| ())
    }

    fn change_task(
        &mut self,
        key: &TaskKey,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<(), LedgerError> {
        match self.run("change a task", sql, params)? {
            0 => Err(LedgerError::UnknownTask { key: key.clone() }),
            _ => Ok(()),
        }
    }
}

/// Where a task in this state lies on the share; final ones lie in `done/`.
const fn filed_as(state: TaskState) -> Option<Filed> {
    match state {
        TaskState::AwaitingApproval => Some(Filed::PendingAck),
        TaskState::Received | TaskState::Approved | TaskState::Queued | TaskState::Running => {
            Some(Filed::Processing)
        }
        TaskState::Succeeded | TaskState::Failed | TaskState::Rejected => None,
    }
}
