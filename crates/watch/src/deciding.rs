//! What people decide: approvals and rejections, cancels, and tasks that nobody decides on.

use dispatch_core::explain;
use dispatch_core::policy::lifecycle::{TaskEvent, TaskState};
use dispatch_core::protocol::accept::{Me, Place, Verdict, Waiting, accept_control, accept_decision};
use dispatch_core::protocol::approvers::Approvers;
use dispatch_core::protocol::control::{Control, ControlVerb};
use dispatch_core::protocol::decision::{Decision, DecisionOutcome};
use dispatch_core::protocol::names::{Digest, TaskId};
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{
    DecisionRow, Entry, LedgerError, NewControl, NewDecision, Reader, Recorded, TaskKey, TaskRow, Tx,
};
use dispatch_spool::layout::{File, Hex16};
use serde_json::json;

use crate::ending::{End, finish, reason};
use crate::home::{Home, PeerHome};
use crate::look::{Found, What};
use crate::running::{self, Reserved};

/// A decision or cancel file, judged.
pub(crate) enum JudgedWord {
    /// A person's yes or no that counts.
    Decision { key: TaskKey, key16: Hex16, decision: Box<Verified<Decision>>, file: File },
    /// An approval of a version-2 task that nobody signed, where this node takes such.
    UnsignedAck { key: TaskKey, terms: Digest, file: File },
    /// The sender takes its task back.
    Cancel { key: TaskKey, control: Box<Verified<Control>>, file: File },
    /// Evidence.
    Refused { file: File, digest: Option<Digest>, code: &'static str },
    /// It could not be read now.
    Later,
}

/// A file with its bytes, or what its kind alone says.
pub(crate) fn bytes_of(found: Found) -> Result<(File, Vec<u8>), Box<JudgedWord>> {
    let Found { file, what } = found;
    let refused = |file, code: ReasonCode| JudgedWord::Refused { file, digest: None, code: code.as_str() };
    Err(Box::new(match what {
        What::Bytes(bytes) => return Ok((file, bytes)),
        What::NotRegular => refused(file, ReasonCode::NotARegularFile),
        What::TooLarge => refused(file, ReasonCode::TooLarge),
        What::Unreadable => JudgedWord::Later,
    }))
}

/// Judges a decision file.
pub(crate) fn judge_decision(
    reader: &Reader,
    home: &Home,
    peer: &PeerHome,
    (id, key16, found): (TaskId, Hex16, Found),
    now: Timestamp,
) -> Result<JudgedWord, LedgerError> {
    let (file, bytes) = match bytes_of(found) {
        Ok(read) => read,
        Err(judged) => return Ok(*judged),
    };
    let key = TaskKey { from: peer.lane_in.from.clone(), id };
    let waiting = match reader.task(&key)? {
        Some(row) if row.state == TaskState::AwaitingApproval => {
            Waiting::Waits { task_sha256: row.digest, terms_sha256: row.terms_sha256 }
        }
        Some(_) => Waiting::NotWaiting,
        None => Waiting::Unseen,
    };
    let me = Me { cluster: home.cluster, node: &home.node, now };
    let approvers = Approvers::parse(&home.approvers);
    let place = Place { lane: &peer.lane_in, id };
    Ok(match accept_decision(&bytes, place, &key16.to_string(), &me, &approvers, waiting) {
        Verdict::Accepted(decision) => {
            JudgedWord::Decision { key, key16, decision: Box::new(decision), file }
        }
        Verdict::Refused(refusal) if home.cannot_tell(refusal.code) => JudgedWord::Later,
        Verdict::Refused(refusal) => {
            JudgedWord::Refused { file, digest: Some(Digest::of(&bytes)), code: refusal.code.as_str() }
        }
    })
}

/// Judges a cancel file.
pub(crate) fn judge_control(
    reader: &Reader,
    home: &Home,
    peer: &PeerHome,
    found: Found,
    now: Timestamp,
) -> Result<JudgedWord, LedgerError> {
    let (file, bytes) = match bytes_of(found) {
        Ok(read) => read,
        Err(judged) => return Ok(*judged),
    };
    let Some(id) = file.task() else { return Ok(JudgedWord::Later) };
    let key = TaskKey { from: peer.lane_in.from.clone(), id };
    let seen = reader.seen(&key)?.map(|seen| seen.digest);
    let me = Me { cluster: home.cluster, node: &home.node, now };
    let place = Place { lane: &peer.lane_in, id };
    Ok(match accept_control(&bytes, place, &me, &peer.ring_in, seen) {
        Verdict::Accepted(control) => JudgedWord::Cancel { key, control: Box::new(control), file },
        Verdict::Refused(refusal) if home.cannot_tell(refusal.code) => JudgedWord::Later,
        Verdict::Refused(refusal) => {
            JudgedWord::Refused { file, digest: Some(Digest::of(&bytes)), code: refusal.code.as_str() }
        }
    })
}

/// Records a decision. What follows from all that are recorded is [`act_on`]'s to say, after every file of the pass was
/// read: a rejection beside the approval that completes the quorum ends the task.
pub(crate) fn record(
    tx: &mut Tx<'_>,
    key: &TaskKey,
    key16: Hex16,
    verified: &Verified<Decision>,
) -> Result<(), LedgerError> {
    let decision = verified.payload();
    let recorded = tx.record_decision(&NewDecision {
        key: key.clone(),
        author: decision.author.clone(),
        key16: key16.to_string(),
        outcome: decision.outcome,
        reason: decision.reason.clone(),
        decided_at: decision.decided_at,
        expires: decision.expires,
        terms_sha256: decision.terms_sha256,
        max_cost_usd: decision.max_cost_usd,
        payload: verified.bytes().to_vec(),
    })?;
    if recorded == Recorded::New {
        tx.audit(&Entry::of("decided").task(key).who(&decision.author).data(json!({
            "outcome": decision.outcome.as_str(), "decision_sha256": verified.digest().to_string(),
        })))?;
    }
    Ok(())
}

/// Does what the recorded decisions about a task come to: any rejection ends it, enough approvals let it through.
pub(crate) fn act_on(tx: &mut Tx<'_>, home: &Home, key: &TaskKey) -> Result<(), LedgerError> {
    match tx.task(key)? {
        Some(row) if row.state == TaskState::AwaitingApproval => act(tx, home, &row),
        Some(_) | None => Ok(()),
    }
}

fn act(tx: &mut Tx<'_>, home: &Home, row: &TaskRow) -> Result<(), LedgerError> {
    let latest = tx.latest_decisions(&row.key)?;
    let now = tx.now();
    let counts = |decision: &&DecisionRow| {
        Some(decision.decision.terms_sha256) == row.terms_sha256 && now < decision.decision.expires
    };
    let valid: Vec<&DecisionRow> = latest.iter().filter(counts).collect();
    if let Some(no) = valid.iter().find(|row| row.decision.outcome == DecisionOutcome::Rejected) {
        let (author, words) = (&no.decision.author, &no.decision.reason);
        let end = End {
            decided_by: vec![author.clone()],
            ..End::plain(
                Status::Denied,
                reason(
                    "denied",
                    format!("rejected by {author}: {words}"),
                    "ask them what would make it acceptable",
                ),
            )
        };
        return finish(tx, home, &row.key, &end);
    }
    let needed = usize::try_from(row.required_approvals.max(1)).unwrap_or(usize::MAX);
    if valid.len() < needed {
        return Ok(());
    }
    let numbers: Vec<u64> = valid.iter().map(|row| row.n).collect();
    match running::reserve(tx, home, &row.key)? {
        Reserved::No(refusal) => {
            finish(tx, home, &row.key, &End::plain(Status::Rejected, Some(explain::refusal_reason(&refusal))))
        }
        reserved @ (Reserved::Yes | Reserved::Waits(_)) => {
            tx.apply(&row.key, TaskEvent::Approved)?;
            tx.apply(&row.key, TaskEvent::Admitted)?;
            tx.consume_decisions(&numbers)?;
            let by: Vec<&str> = valid.iter().map(|row| row.decision.author.as_str()).collect();
            tx.audit(&Entry::of("approved").task(&row.key).data(json!({"by": by})))?;
            match reserved {
                Reserved::Waits(why) => tx.set_wait_reason(&row.key, Some(&why)),
                Reserved::Yes | Reserved::No(_) => Ok(()),
            }
        }
    }
}

/// Records a cancel; answers the epoch of an attempt that must be stopped for it.
pub(crate) fn cancel_by_peer(
    tx: &mut Tx<'_>,
    home: &Home,
    key: &TaskKey,
    verified: &Verified<Control>,
) -> Result<Option<u64>, LedgerError> {
    let control = verified.payload();
    let recorded = tx.record_control(&NewControl {
        key: key.clone(),
        verb: control.verb,
        task_sha256: control.task_sha256,
        reason: control.reason.clone(),
        expires: control.expires,
    })?;
    if recorded == Recorded::New {
        tx.audit(&Entry::of("cancel").task(key).data(json!({"reason": control.reason})))?;
    }
    let epoch = cancel(tx, home, key, key.from.as_str(), &control.reason)?;
    if tx.task(key)?.is_some() {
        tx.mark_control_applied(key, ControlVerb::Cancel)?;
    }
    Ok(epoch)
}

/// The cancel that came before its task, if it still holds and means these very bytes (protocol section 5).
pub(crate) fn early_cancel(
    tx: &mut Tx<'_>,
    key: &TaskKey,
    digest: Digest,
) -> Result<Option<NewControl>, LedgerError> {
    let Some(row) = tx.control(key, ControlVerb::Cancel)? else { return Ok(None) };
    let control = row.control;
    if tx.now() >= control.expires {
        return Ok(None);
    }
    if control.task_sha256 != digest {
        tx.audit(&Entry::of("refused").task(key).code(ReasonCode::DigestMismatch.as_str()))?;
        return Ok(None);
    }
    tx.mark_control_applied(key, ControlVerb::Cancel)?;
    Ok(Some(control))
}

/// Cancels a task: what has not started ends, what runs is to be stopped. A final task stays as it is.
pub(crate) fn cancel(
    tx: &mut Tx<'_>,
    home: &Home,
    key: &TaskKey,
    by: &str,
    words: &str,
) -> Result<Option<u64>, LedgerError> {
    let Some(row) = tx.task(key)? else { return Ok(None) };
    if row.state.is_final() {
        return Ok(None);
    }
    tx.record_stop(key, "cancelled", by)?;
    if let Some(epoch) = row.open_epoch {
        return Ok(Some(epoch));
    }
    running::release(tx, row.reservation)?;
    let why =
        reason("cancelled", format!("cancelled by {by}: {words}"), "send it again if it is still wanted");
    finish(tx, home, key, &End::plain(Status::Cancelled, why))?;
    Ok(None)
}

/// Ends what waited for a decision past its time: silence is never consent.
pub(crate) fn expire(tx: &mut Tx<'_>, home: &Home, row: &TaskRow) -> Result<(), LedgerError> {
    let why = reason(
        "expired",
        format!("nobody decided on it until {}", row.expires),
        "send it again, and tell an approver: dispatch-ack lists what waits",
    );
    finish(tx, home, &row.key, &End::plain(Status::Expired, why))
}
