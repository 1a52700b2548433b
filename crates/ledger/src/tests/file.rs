//! The file: made, opened, refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_new_ledger_is_private_and_says_what_it_is() {
    let desk = desk();
    assert_eq!(fs::metadata(desk.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let meta = desk.ledger.meta().unwrap();
    assert_eq!((meta.ledger, meta.cluster, meta.node), (birth().ledger, birth().cluster, birth().node));
    assert_eq!((meta.whole, meta.drain.state.as_str(), meta.head.seq), (Whole::Yes, "active", 1));
    assert!(matches!(
        Ledger::create(&desk.path(), &birth(), now()),
        Err(LedgerError::Present { path }) if path == desk.path()
    ));
}

#[test]
fn what_was_written_is_there_after_the_ledger_is_opened_again() {
    let mut desk = desk();
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
    let path = desk.path();
    drop(desk.ledger);
    let ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.envelope(&key(1)).unwrap().unwrap(), b"envelope 1");
    assert_eq!(ledger.recipe(&key(1)).unwrap(), Some(terms().recipe));
}

#[test]
fn an_older_boot_writes_nothing() {
    let mut desk = desk();
    hold(&mut desk.ledger, 7);
    let refused = desk.write(|tx| tx.insert_task(&task(1)));
    assert!(matches!(refused, Err(LedgerError::Fenced { boot: 1, newest: Some(7) })));
    assert_eq!(desk.ledger.task(&key(1)).unwrap(), None);
    desk.ledger.write(Fence::of(7), now(), |tx| tx.insert_task(&task(1))).unwrap();
    let late = desk.ledger.write(Fence::NONE, now(), |tx| tx.hold_boot(7, Uuid::from_u128(1_007)));
    assert!(matches!(late, Err(LedgerError::Fenced { boot: 7, newest: Some(7) })));
}
