//! Agents that have spent most of their ceiling (policy section 1, "live metering"): said once, while there is still time.

use dispatch_ledger::{Entry, LedgerError, TaskKey, Tx};
use dispatch_node::job::{JobDir, NearCeiling};
use serde::Deserialize;
use serde_json::json;

use crate::home::Home;
use crate::telling::{self, Telling};

/// The kind of the audit entry.
const KIND: &str = "near_ceiling";

/// What identifies an entry of this kind.
#[derive(Deserialize)]
struct Line {
    kind: String,
    epoch: Option<u64>,
}

/// The executor's word about it; none that can be made sense of is none.
pub(crate) fn seen(job: &JobDir, epoch: u64) -> Option<NearCeiling> {
    job.read_near_ceiling().ok().flatten().filter(|near| near.epoch == epoch)
}

/// Audits it, unless the chain has it already: a watcher that died may have told it before.
pub(crate) fn note(
    tx: &mut Tx<'_>,
    home: &Home,
    key: &TaskKey,
    near: &NearCeiling,
) -> Result<Told, LedgerError> {
    let is_it = |line: Line| line.kind == KIND && line.epoch == Some(near.epoch);
    let known = tx.audit_of_task(key)?;
    if known.iter().any(|line| serde_json::from_str::<Line>(&line.line).is_ok_and(is_it)) {
        return Ok(Told::Before);
    }
    let data = json!({"usd": near.usd.to_string(), "ceiling_usd": near.ceiling_usd.to_string()});
    tx.audit(&Entry::of(KIND).task(key).epoch(near.epoch).data(data))?;
    let text = format!(
        "a task from {} has spent {} of the {} USD it may cost",
        key.from, near.usd, near.ceiling_usd
    );
    Telling::of(telling::Kind::Spend, format!("{KIND}/{key}/{}", near.epoch), text)
        .help(format!("it is ended at its ceiling; dispatchctl cancel {} ends it now", key.id))
        .task(key.id, &key.from, &home.node)
        .make(tx, home)?;
    Ok(Told::Now)
}

/// Whether this call was the one that told it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It was.
    Now,
    /// It was told before.
    Before,
}
