//! The file: made, opened, refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatch_core::protocol::heartbeat::NodeState;

use super::*;

#[test]
fn a_new_ledger_is_private_and_says_what_it_is() {
    let desk = desk();
    assert_eq!(fs::metadata(desk.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let meta = desk.ledger.meta().unwrap();
    assert_eq!((meta.ledger, meta.cluster, meta.node), (birth().ledger, birth().cluster, birth().node));
    assert_eq!((meta.whole, meta.drain.state, meta.head.seq), (Whole::Yes, NodeState::Active, 1));
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

#[test]
fn ledger_refuses_a_file_that_is_not_whole_or_corrupt() {
    let mut desk = desk();
    for number in 0..200 {
        desk.write(|tx| tx.insert_task(&task(number))).unwrap();
    }
    desk.write(|tx| tx.set_whole(Whole::No)).unwrap();
    let path = desk.path();
    drop(desk.ledger);
    assert!(matches!(Ledger::open(&path), Err(LedgerError::NotWhole { .. })));
    let mut ledger = Ledger::open_to_recover(&path).unwrap();
    ledger.write(Fence::NONE, now(), |tx| tx.set_whole(Whole::Yes)).unwrap();
    drop(ledger);
    drop(Ledger::open(&path).unwrap());

    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(Ledger::open(&path).unwrap_err().is_corruption());
    let mut torn = bytes.clone();
    let middle = torn.len() / 2;
    torn[middle..middle + 8_192].fill(0xff);
    fs::write(&path, &torn).unwrap();
    assert!(Ledger::open(&path).unwrap_err().is_corruption());
    fs::write(&path, b"").unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::NotALedger { .. })));
    fs::write(&path, "not a database at all".repeat(100)).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::NotALedger { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Absent { .. })));
    assert!(!path.exists());
}

#[test]
fn a_balance_that_is_not_the_sum_of_its_postings_is_refused() {
    let mut desk = desk();
    let new = NewReservation {
        id: Uuid::from_u128(1),
        key: key(1),
        nth: 1,
        amount: usd("2"),
        windows: windows(1),
        payer: Payer::Here,
    };
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
    assert_eq!(desk.write(|tx| tx.reserve_within(&new, &caps("5", "5"))).unwrap(), Reserving::Reserved);
    let path = desk.path();
    desk.ledger.connection.execute_batch("UPDATE windows SET spent = 1 WHERE key LIKE 'month:%'").unwrap();
    drop(desk.ledger);
    let refused = Ledger::open(&path);
    assert!(matches!(refused, Err(LedgerError::Corrupt { damage: Damage::Balance { .. } })));
}

#[test]
fn a_value_that_is_none_of_its_kind_is_corruption() {
    let mut desk = desk();
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
    desk.ledger.connection.execute_batch("UPDATE tasks SET state = 'dreaming'").unwrap();
    let refused = desk.ledger.task(&key(1)).unwrap_err();
    assert!(matches!(refused, LedgerError::Corrupt { damage: Damage::Value { op: "read a task", .. } }));
}

#[test]
fn a_newer_ledger_is_refused_by_writer_and_reader() {
    let desk = desk();
    let path = desk.path();
    desk.ledger.connection.pragma_update(None, "user_version", SCHEMA + 1).unwrap();
    drop(desk.ledger);
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Newer { .. })));
    assert!(matches!(ReadLedger::open(&path), Err(LedgerError::Newer { .. })));
}

#[test]
fn another_program_s_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::NotALedger { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_reader_sees_what_is_committed_while_the_writer_goes_on() {
    let mut desk = desk();
    let reader = ReadLedger::open(&desk.path()).unwrap();
    let path = desk.path();
    desk.write(|tx| {
        tx.insert_task(&task(1))?;
        assert_eq!(ReadLedger::open(&path)?.task(&key(1))?, None);
        assert_eq!(reader.task(&key(1))?, None);
        Ok(())
    })
    .unwrap();
    assert!(reader.task(&key(1)).unwrap().is_some());
    reader
        .snapshot(|moment| {
            assert_eq!(moment.task(&key(2))?, None);
            desk.write(|tx| tx.insert_task(&task(2)))?;
            assert_eq!(moment.task(&key(2))?, None);
            Ok(())
        })
        .unwrap();
    assert!(reader.task(&key(2)).unwrap().is_some());
    assert!(reader.connection.execute_batch("DELETE FROM tasks").is_err());
}

#[test]
fn a_reader_needs_no_writer() {
    let mut desk = desk();
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
    let path = desk.path();
    drop(desk.ledger);
    assert!(ReadLedger::open(&path).unwrap().task(&key(1)).unwrap().is_some());
}

/// The files as a crash at this moment would leave them.
fn crash_copy(desk: &std::path::Path, copy: &std::path::Path) {
    for name in ["ledger.db", "ledger.db-wal"] {
        fs::copy(desk.join(name), copy.join(name)).unwrap();
    }
}

#[test]
fn ledger_survives_a_crash_in_the_middle_of_a_transaction() {
    let mut desk = desk();
    let directory = desk.directory.path().to_owned();
    let crashed = tempfile::tempdir().unwrap();
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
    desk.write(|tx| {
        for number in 2..300 {
            tx.insert_task(&NewTask { envelope: vec![7; 20_000], ..task(number) })?;
        }
        crash_copy(&directory, crashed.path());
        Ok(())
    })
    .unwrap();
    let ledger = Ledger::open(&crashed.path().join("ledger.db")).unwrap();
    assert!(ledger.task(&key(1)).unwrap().is_some());
    assert_eq!(ledger.tasks(&TaskFilter::default()).unwrap().len(), 1);
    drop(ledger);
    let after = tempfile::tempdir().unwrap();
    crash_copy(&directory, after.path());
    let ledger = Ledger::open(&after.path().join("ledger.db")).unwrap();
    assert_eq!(ledger.tasks(&TaskFilter::default()).unwrap().len(), 299);
}

#[test]
fn a_transaction_that_fails_or_panics_changes_nothing_and_blocks_nothing() {
    let mut desk = desk();
    let failed = desk.write(|tx| {
        tx.insert_task(&task(1))?;
        tx.insert_task(&task(1))
    });
    assert!(matches!(failed, Err(LedgerError::KnownTask { .. })));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        desk.write(|tx| {
            tx.insert_task(&task(1))?;
            panic!("a bug")
        })
        .map(|(): ()| ())
    }));
    assert!(panicked.is_err());
    assert_eq!(desk.ledger.task(&key(1)).unwrap(), None);
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
}

#[test]
fn remains_of_a_lost_ledger_are_not_played_into_the_new_one() {
    let mut desk = desk();
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
    let path = desk.path();
    let lost = tempfile::tempdir().unwrap();
    crash_copy(desk.directory.path(), lost.path());
    drop(desk.ledger);
    fs::remove_file(&path).unwrap();
    fs::copy(lost.path().join("ledger.db-wal"), desk.directory.path().join("ledger.db-wal")).unwrap();
    fs::write(desk.directory.path().join("ledger.db.new"), b"half-written").unwrap();
    let again = Birth { ledger: Uuid::from_u128(99), ..birth() };
    let ledger = Ledger::create(&path, &again, now()).unwrap();
    assert_eq!(ledger.meta().unwrap().ledger, again.ledger);
    assert_eq!(ledger.task(&key(1)).unwrap(), None);
    assert!(desk.directory.path().join("ledger.db-wal.lost").exists());
    assert!(!desk.directory.path().join("ledger.db.new").exists());
}
