//! Decisions, controls, peers, requests, trips, and what the ledger says about itself.

use dispatch_core::protocol::control::ControlVerb;
use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::heartbeat::{KillMode, NodeState};

use super::*;

fn decision(author: &str, outcome: DecisionOutcome, decided_ms: i64) -> NewDecision {
    NewDecision {
        key: key(1),
        author: author.to_owned(),
        key16: "0123456789abcdef".to_owned(),
        outcome,
        reason: "because".to_owned(),
        decided_at: now().plus_ms(decided_ms),
        expires: now().plus_ms(DAY_MS),
        terms_sha256: Digest::of(b"terms"),
        max_cost_usd: Some(usd("1.5")),
        payload: format!("{author} {outcome} {decided_ms}").into_bytes(),
    }
}

#[test]
fn the_last_decision_of_each_principal_counts_and_is_consumed_once() {
    let mut desk = desk();
    desk.write(|tx| tx.insert_task(&task(1))).unwrap();
    let told = [
        decision("jo", DecisionOutcome::Approved, 0),
        decision("jo", DecisionOutcome::Rejected, 5),
        decision("jo", DecisionOutcome::Approved, 3),
        decision("al", DecisionOutcome::Approved, 1),
    ];
    for new in &told {
        assert_eq!(desk.write(|tx| tx.record_decision(new)).unwrap(), Recorded::New);
        assert_eq!(desk.write(|tx| tx.record_decision(new)).unwrap(), Recorded::Known);
    }
    let latest = desk.ledger.latest_decisions(&key(1)).unwrap();
    let decided: Vec<_> = latest.iter().map(|row| row.decision.clone()).collect();
    assert_eq!(decided, [told[1].clone(), told[3].clone()]);
    let numbers: Vec<u64> = latest.iter().map(|row| row.n).collect();
    desk.write(|tx| tx.consume_decisions(&numbers)).unwrap();
    let consumed: Vec<bool> =
        desk.ledger.decisions(&key(1)).unwrap().iter().map(|row| row.consumed_at.is_some()).collect();
    assert_eq!(consumed, [false, true, false, true]);
}

#[test]
fn a_control_waits_for_its_task_until_it_expires() {
    let mut desk = desk();
    let cancel = NewControl {
        key: key(1),
        verb: ControlVerb::Cancel,
        task_sha256: Digest::of(b"task"),
        reason: "changed my mind".to_owned(),
        expires: now().plus_ms(10),
    };
    assert_eq!(desk.write(|tx| tx.record_control(&cancel)).unwrap(), Recorded::New);
    assert_eq!(desk.write(|tx| tx.record_control(&cancel)).unwrap(), Recorded::Known);
    assert_eq!(desk.ledger.control(&key(1), ControlVerb::Cancel).unwrap().unwrap().control, cancel);
    assert_eq!(desk.ledger.unapplied_controls().unwrap().len(), 1);
    desk.write(|tx| tx.mark_control_applied(&key(1), ControlVerb::Cancel)).unwrap();
    assert_eq!(desk.ledger.unapplied_controls().unwrap(), []);
    assert_eq!(desk.write(|tx| tx.purge_controls(now())).unwrap(), 0);
    assert_eq!(desk.write(|tx| tx.purge_controls(now().plus_ms(10))).unwrap(), 1);
}

#[test]
fn a_replayed_heartbeat_revives_nobody() {
    let mut desk = desk();
    let mut beat = |boot: u64, seq: u64, at: i64| {
        desk.ledger
            .write(Fence::of(1), now().plus_ms(at), |tx| {
                tx.note_heartbeat(&node("devbox"), boot, seq, b"beat")
            })
            .unwrap()
    };
    assert_eq!(beat(5, 9, 0), Advance::Advanced);
    assert_eq!(beat(5, 9, 1), Advance::Same);
    assert_eq!(beat(5, 8, 2), Advance::Replayed);
    assert_eq!(beat(4, 99, 3), Advance::Replayed);
    assert_eq!(beat(6, 1, 4), Advance::Advanced);
    let peer = desk.ledger.peer(&node("devbox")).unwrap().unwrap();
    assert_eq!((peer.boot, peer.seq, peer.advanced_at), (6, 1, now().plus_ms(4)));
}

#[test]
fn a_rewritten_chain_contradicts_what_was_witnessed() {
    let mut desk = desk();
    let head = |seq: u64, text: &str| AuditHead {
        chain: Uuid::from_u128(8),
        seq,
        head: Digest::of(text.as_bytes()),
    };
    let mut show = |shown: AuditHead| desk.write(|tx| tx.witness(&node("devbox"), shown)).unwrap();
    assert_eq!(show(head(1, "a")), Witnessing::New);
    assert_eq!(show(head(1, "a")), Witnessing::Known);
    assert_eq!(show(head(1, "b")), Witnessing::Contradicted { known: head(1, "a") });
    assert_eq!(show(head(2, "c")), Witnessing::New);
    assert_eq!(desk.write(|tx| tx.purge_witnessed(now().plus_ms(1))).unwrap(), 1);
    let kept: Vec<_> = desk.ledger.witnessed(&node("devbox")).unwrap().iter().map(|row| row.head).collect();
    assert_eq!(kept, [head(2, "c")]);
    desk.write(|tx| tx.note_echo(&node("devbox"), 1, 2, head(3, "d"))).unwrap();
    desk.write(|tx| tx.note_echo(&node("devbox"), 1, 3, head(4, "e"))).unwrap();
    let echoes = desk.ledger.echoes().unwrap();
    assert_eq!((echoes.len(), echoes[0].seq, echoes[0].head), (1, 3, head(4, "e")));
}

#[test]
fn a_request_is_applied_once_and_answered_the_same_again() {
    let mut desk = desk();
    let request = Uuid::from_u128(66);
    assert_eq!(desk.ledger.reply(request).unwrap(), None);
    desk.write(|tx| tx.answer_request(request, "drain", "{\"ok\":{}}")).unwrap();
    assert!(desk.write(|tx| tx.answer_request(request, "drain", "other")).is_err());
    assert_eq!(desk.ledger.reply(request).unwrap().as_deref(), Some("{\"ok\":{}}"));
    assert_eq!(desk.write(|tx| tx.purge_replies(now())).unwrap(), 1);
}

#[test]
fn what_was_replaced_in_the_outbox_goes_out_again() {
    let mut desk = desk();
    desk.write(|tx| tx.push_outbox("control", "x.cancel.json", b"one")).unwrap();
    let first = desk.ledger.outbox(9).unwrap().remove(0);
    desk.write(|tx| tx.push_outbox("control", "x.cancel.json", b"two")).unwrap();
    desk.write(|tx| tx.mark_sent(&first)).unwrap();
    let second = desk.ledger.outbox(9).unwrap().remove(0);
    assert_eq!(second.payload, b"two");
    desk.write(|tx| tx.mark_sent(&second)).unwrap();
    assert_eq!(desk.ledger.outbox(9).unwrap(), []);
}

#[test]
fn a_trip_stands_until_it_is_resumed_and_never_becomes_milder() {
    let mut desk = desk();
    let mut trip = |mode: KillMode| desk.write(|tx| tx.trip("root", mode, "stop")).unwrap();
    assert!(trip(KillMode::Halt));
    assert!(!trip(KillMode::Halt));
    assert!(trip(KillMode::Kill));
    assert!(!trip(KillMode::Halt));
    let open = desk.ledger.open_trips().unwrap();
    assert_eq!((open.len(), open[0].mode), (1, KillMode::Kill));
    assert_eq!(desk.write(|tx| tx.resume(Some("node"), "jo")).unwrap(), 0);
    assert_eq!(desk.write(|tx| tx.resume(None, "jo")).unwrap(), 1);
    assert_eq!(desk.ledger.open_trips().unwrap(), []);
    assert!(desk.write(|tx| tx.trip("root", KillMode::Halt, "again")).unwrap());
}

#[test]
fn what_the_ledger_says_about_its_node_can_be_changed() {
    let mut desk = desk();
    let shown = ShownHead { chain: Uuid::from_u128(4), seq: 12, head: Digest::of(b"h"), noted_at: now() };
    let clock = ClockMarks { wall: now(), boot_ms: 77, host_boot_id: "host".to_owned() };
    let drain = Drain { state: NodeState::Maintenance, since: now(), grace_until: Some(now().plus_ms(9)) };
    desk.write(|tx| {
        tx.set_recovery(Some(&shown))?;
        tx.set_clock(&clock)?;
        tx.set_drain(&drain)?;
        tx.set_accept_after(now())?;
        tx.set_paid_off_until(Some(now()))
    })
    .unwrap();
    let meta = desk.ledger.meta().unwrap();
    assert_eq!((meta.recovery, meta.clock, meta.drain), (Some(shown), clock, drain));
    assert_eq!((meta.accept_after, meta.paid_off_until), (Some(now()), Some(now())));
    desk.write(|tx| tx.set_recovery(None)).unwrap();
    assert_eq!(desk.ledger.meta().unwrap().recovery, None);
}

#[test]
fn the_device_and_inode_of_a_boot_keep_all_their_bits() {
    let desk = desk();
    let noted = desk.ledger.noted(1).unwrap();
    assert_eq!((noted.len(), noted[0].boot.dev, noted[0].boot.ino), (1, u64::MAX, 1 << 63));
    assert_eq!(desk.ledger.boot_of(Uuid::from_u128(1_001)).unwrap().unwrap().held_at, Some(now()));
    assert_eq!(desk.ledger.boot_of(Uuid::from_u128(404)).unwrap(), None);
}
