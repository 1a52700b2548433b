//! What a node's own ledger says, read as an auditor would: beside the watcher, by the ledger's own reader.

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::WindowKey;
use dispatch_ledger::{ChainCheck, ReadLedger};

use crate::cluster::Node;
use crate::wait;

/// The node's ledger, open for reading.
///
/// # Panics
/// When it cannot be opened.
#[must_use]
#[track_caller]
pub fn ledger(node: &Node) -> ReadLedger {
    ReadLedger::open(&node.state_dir().join("ledger.db"))
        .unwrap_or_else(|why| panic!("the ledger of {}: {why:?}", node.name))
}

/// The file is whole, balances are the sums of their postings, every link of the audit chain holds.
///
/// # Panics
/// When one of them is not so.
#[track_caller]
pub fn hold(node: &Node) {
    let ledger = ledger(node);
    ledger.verify_file().unwrap();
    ledger.verify_money().unwrap();
    let chain = ledger.verify_chain().unwrap();
    assert!(matches!(chain, ChainCheck::Intact { .. }), "the audit chain of {}: {chain:?}", node.name);
}

/// What all months together have reserved and spent, in millionths of a dollar.
///
/// # Panics
/// When it cannot be read.
#[must_use]
#[track_caller]
pub fn months(node: &Node) -> (u64, u64) {
    let micros = |usd: Usd| crate::check::micros(&usd.to_string().into());
    let windows = ledger(node).windows().unwrap();
    let months = windows.iter().filter(|window| matches!(window.key, WindowKey::Month(_)));
    months.fold((0, 0), |(reserved, spent), window| {
        (reserved + micros(window.balance.reserved), spent + micros(window.balance.spent))
    })
}

/// Waits until everything is final and answered: no task, attempt, reservation or answer is left to be dealt with.
///
/// # Panics
/// When something stays.
#[track_caller]
pub fn closed(node: &Node) {
    wait::eventually("everything in the ledger is final and answered", || {
        let ledger = ledger(node);
        ledger.open_tasks().unwrap().is_empty()
            && ledger.open_attempts().unwrap().is_empty()
            && ledger.open_reservations().unwrap().is_empty()
            && ledger.unpublished(100).unwrap().is_empty()
    });
}
