//! Approvals that nobody signs: the empty `<id>.ack` of the original kit (protocol section 9).
//!
//! It counts only for a version-2 peer, only where this node says so, and only for a task that waits; it is recorded like any
//! decision, under a name that says what it is. Everywhere else it is set aside.

use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::limits::LIFETIME_MS_DEFAULT;
use dispatch_core::protocol::names::{Digest, TaskId};
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_ledger::{Entry, LedgerError, NewDecision, Reader, Recorded, TaskKey, Tx};
use serde_json::json;

use crate::deciding::{JudgedWord, bytes_of};
use crate::home::PeerHome;
use crate::look::Found;

/// Who decided, in the ledger and in results. No approver is called so: a principal has no blank.
const AUTHOR: &str = "unsigned ack";
/// The key that signed it: none.
const NO_KEY16: &str = "0000000000000000";

/// Judges an unsigned approval.
pub(crate) fn judge(
    reader: &Reader,
    peer: &PeerHome,
    (id, found): (TaskId, Found),
) -> Result<JudgedWord, LedgerError> {
    let (file, bytes) = match bytes_of(found) {
        Ok(read) => read,
        Err(judged) => return Ok(*judged),
    };
    let key = TaskKey { from: peer.lane_in.from.clone(), id };
    let code = if !peer.flat.as_ref().is_some_and(|flat| flat.allowed.unsigned_acks) {
        ReasonCode::BadSignature
    } else if !bytes.is_empty() {
        ReasonCode::Malformed
    } else {
        match reader.task(&key)? {
            Some(row) if row.state == TaskState::AwaitingApproval => match row.terms_sha256 {
                Some(terms) => return Ok(JudgedWord::UnsignedAck { key, terms, file }),
                None => ReasonCode::NotWaiting,
            },
            Some(_) => ReasonCode::NotWaiting,
            None => ReasonCode::UnknownTask,
        }
    };
    Ok(JudgedWord::Refused { file, digest: Some(Digest::of(&bytes)), code: code.as_str() })
}

/// Records one, bound to the terms that stood when it was seen.
pub(crate) fn record(tx: &mut Tx<'_>, key: &TaskKey, terms: Digest) -> Result<(), LedgerError> {
    let now = tx.now();
    let recorded = tx.record_decision(&NewDecision {
        key: key.clone(),
        author: AUTHOR.to_owned(),
        key16: NO_KEY16.to_owned(),
        outcome: DecisionOutcome::Approved,
        reason: "an empty .ack beside the task".to_owned(),
        decided_at: now,
        expires: now.plus_ms(LIFETIME_MS_DEFAULT),
        terms_sha256: terms,
        max_cost_usd: None,
        payload: format!("unsigned ack of terms {terms}").into_bytes(),
    })?;
    if recorded == Recorded::New {
        let data = json!({"outcome": "approved", "signed": false, "terms_sha256": terms.to_string()});
        tx.audit(&Entry::of("decided").task(key).who(AUTHOR).code("legacy_unsigned_ack").data(data))?;
    }
    Ok(())
}
