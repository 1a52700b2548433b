//! Alerts: what the safeguards decide has changed. Audited, and told, in the transaction that changes it.

use dispatch_core::policy::safeguards::SpendAction;
use dispatch_ledger::{Entry, LedgerError, Tx};
use serde_json::{Value, json};

use crate::home::Home;
use crate::telling::{Kind, Telling};

/// A change of what the safeguards decide (policy section 2).
pub(crate) struct Alert {
    /// What it is about: `paid_work`, `profile:NAME`, `sender:NODE`.
    pub(crate) service: String,
    pub(crate) action: SpendAction,
    pub(crate) reason: String,
    pub(crate) budget: Value,
    pub(crate) anomaly: Value,
    pub(crate) breaker: Value,
}

/// What an alert says, for programs.
pub(crate) fn body(home: &Home, alert: &Alert) -> Value {
    json!({
        "service": alert.service, "environment": home.node.as_str(), "action": alert.action.as_str(),
        "severity": alert.action.severity(), "reason": alert.reason, "budget": alert.budget,
        "anomaly": alert.anomaly, "breaker": alert.breaker,
    })
}

/// Audits an alert and makes sure that people are told, once.
pub(crate) fn raise(tx: &mut Tx<'_>, home: &Home, alert: &Alert) -> Result<(), LedgerError> {
    let head = tx.audit(&Entry::of("alert").code(alert.action.as_str()).data(body(home, alert)))?;
    Telling::of(Kind::Spend, format!("alert/{}/{}", head.chain, head.seq), sentence(alert))
        .help("dispatchctl budget says what it is about and what lifts it")
        .make(tx, home)
}

fn sentence(alert: &Alert) -> String {
    let (service, action) = (&alert.service, alert.action);
    if alert.reason.is_empty() {
        format!("{service}: {action}")
    } else {
        format!("{service}: {action} ({})", alert.reason)
    }
}
