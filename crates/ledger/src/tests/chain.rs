//! The audit chain: written with what it describes, and no byte of it changes unnoticed.

use serde_json::json;

use super::*;

fn entries(desk: &mut Desk, count: u32) {
    for number in 0..count {
        let entry = Entry::of("accepted").task(&key(number)).epoch(5).who("jo").data(json!({"n": number}));
        desk.write(|tx| tx.audit(&entry)).unwrap();
    }
}

fn lines(ledger: &Ledger) -> Vec<AuditLine> {
    ledger.audit_lines(0, 1_000).unwrap()
}

fn tamper(desk: &Desk, sql: &str) -> ChainCheck {
    desk.ledger.connection.execute_batch(sql).unwrap();
    desk.ledger.verify_chain().unwrap()
}

fn broken_at(check: ChainCheck) -> (u64, ChainBreak) {
    match check {
        ChainCheck::Broken { seq, fault, .. } => (seq, fault),
        ChainCheck::Intact { .. } => panic!("the chain still verifies"),
    }
}

#[test]
fn a_line_is_what_the_architecture_says() {
    let mut desk = desk();
    entries(&mut desk, 1);
    let all = lines(&desk.ledger);
    let prev = all[0].hash.to_string();
    let body = format!(
        "{{\"chain\":\"{}\",\"seq\":2,\"ts\":\"2026-11-21T10:00:00.000Z\",\"node\":\"gpubox\",\"boot\":1,\
         \"kind\":\"accepted\",\"from\":\"devbox\",\"task\":\"{}\",\"epoch\":5,\"who\":\"jo\",\"data\":{{\"n\":0}},\
         \"prev\":\"{prev}\"",
        birth().chain,
        key(0).id
    );
    let hash = Digest::of(body.as_bytes());
    assert_eq!(all[1].line, format!("{body},\"hash\":\"{hash}\"}}"));
    assert_eq!(desk.ledger.head().unwrap(), AuditHead { chain: birth().chain, seq: 2, head: hash });
    assert!(all[0].line.contains(&format!("\"prev\":\"{}\"", "0".repeat(64))));
    assert_eq!(desk.ledger.audit_of_task(&key(0)).unwrap(), all[1..]);
}

#[test]
fn an_entry_of_a_transaction_that_fails_was_never_written() {
    let mut desk = desk();
    let before = desk.ledger.head().unwrap();
    let failed = desk.write(|tx| {
        tx.audit(&Entry::of("accepted"))?;
        tx.set_wait_reason(&key(404), None)
    });
    assert!(matches!(failed, Err(LedgerError::UnknownTask { .. })));
    assert_eq!(desk.ledger.head().unwrap(), before);
}

#[test]
fn a_failing_part_takes_its_own_entries_with_it_and_no_others() {
    let mut desk = desk();
    desk.write(|tx| {
        tx.insert_task(&task(1))?;
        tx.audit(&Entry::of("accepted").task(&key(1)))?;
        let part = tx.contained(|tx| {
            tx.insert_task(&task(2))?;
            tx.audit(&Entry::of("accepted").task(&key(2)))?;
            tx.insert_task(&task(1))
        });
        assert!(matches!(part, Err(LedgerError::KnownTask { .. })));
        tx.audit(&Entry::of("accepted").task(&key(3)))
    })
    .unwrap();
    assert!(desk.ledger.task(&key(1)).unwrap().is_some());
    assert_eq!(desk.ledger.task(&key(2)).unwrap(), None);
    assert!(matches!(desk.ledger.verify_chain().unwrap(), ChainCheck::Intact { entries: 3, .. }));
}

#[test]
fn a_tampered_line_is_found() {
    let mut desk = desk();
    entries(&mut desk, 5);
    assert!(matches!(desk.ledger.verify_chain().unwrap(), ChainCheck::Intact { entries: 6, .. }));
    let altered = tamper(
        &desk,
        "UPDATE audit SET line = replace(line, '\"who\":\"jo\"', '\"who\":\"me\"') WHERE seq = 4",
    );
    assert_eq!(broken_at(altered), (4, ChainBreak::Altered));
}

#[test]
fn a_tampered_line_with_a_fitting_hash_is_found_at_the_next_one() {
    let mut desk = desk();
    entries(&mut desk, 5);
    let line = lines(&desk.ledger)[3].line.replace("\"who\":\"jo\"", "\"who\":\"me\"");
    let body = line.split(",\"hash\":").next().unwrap();
    let hash = Digest::of(body.as_bytes());
    let sql =
        format!("UPDATE audit SET line = '{body},\"hash\":\"{hash}\"}}', hash = '{hash}' WHERE seq = 4");
    assert_eq!(broken_at(tamper(&desk, &sql)), (5, ChainBreak::Unlinked));
}

#[test]
fn a_line_left_out_or_cut_off_is_found() {
    let mut desk = desk();
    entries(&mut desk, 5);
    assert_eq!(broken_at(tamper(&desk, "DELETE FROM audit WHERE seq = 6")), (6, ChainBreak::NotTheHead));
    assert_eq!(broken_at(tamper(&desk, "DELETE FROM audit WHERE seq = 3")), (4, ChainBreak::Unlinked));
}

#[test]
fn a_new_chain_begins_with_the_end_of_the_old_one() {
    let mut desk = desk();
    entries(&mut desk, 2);
    let old = desk.ledger.head().unwrap();
    let shown = ShownHead { chain: old.chain, seq: 9, head: Digest::of(b"shown"), noted_at: now() };
    let chain = Uuid::from_u128(77);
    let head = desk.write(|tx| tx.begin_new_chain(chain, Some("jo"), "older copy", Some(&shown))).unwrap();
    assert_eq!((head.chain, head.seq), (chain, 1));
    entries(&mut desk, 1);
    let first = desk.ledger.audit_line(chain, 1).unwrap().unwrap().line;
    assert!(first.contains(&old.head.to_string()) && first.contains(&shown.head.to_string()), "{first}");
    assert!(matches!(desk.ledger.verify_chain().unwrap(), ChainCheck::Intact { entries: 5, .. }));
    let cut = tamper(&desk, "DELETE FROM audit WHERE n = 3");
    assert_eq!(broken_at(cut), (1, ChainBreak::NewChain));
}

#[test]
fn an_entry_that_talks_of_old_things_breaks_no_chain() {
    let mut desk = desk();
    desk.write(|tx| tx.audit(&Entry::of("accepted").data(json!({"old": [1, 2], "hash": "x"})))).unwrap();
    assert!(matches!(desk.ledger.verify_chain().unwrap(), ChainCheck::Intact { entries: 2, .. }));
}
