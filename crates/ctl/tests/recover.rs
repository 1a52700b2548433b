//! A ledger that is older than what its node showed.

mod lab;

use std::fs;

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Month, WindowKey};
use dispatch_core::protocol::BootRecord;
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::heartbeat::{
    Backpressure, BudgetLevels, Heartbeat, KillswitchState, Load, NodeState, Trend, WatchInfo, WindowLevel,
};
use dispatch_core::protocol::keys::PairKey;
use dispatch_core::protocol::names::{Digest, NodeName, canonical_uuid};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::seal::seal;
use dispatch_ledger::{Ledger, LedgerError, ReadLedger};
use dispatch_node::clock;
use lab::Lab;

#[expect(clippy::unwrap_used, reason = "what fails here fails the test")]
fn usd(text: &str) -> Usd {
    Usd::from_wire(text).unwrap()
}

/// A heartbeat of `b`, as its watcher would have left it on the share.
#[expect(clippy::unwrap_used, reason = "what fails here fails the test")]
fn show(lab: &Lab, audit: AuditHead, committed: Usd) {
    let fraction = Fraction::default;
    let cluster = fs::read_to_string(lab.share().join("CLUSTER")).unwrap();
    let heartbeat = Heartbeat {
        cluster: canonical_uuid(cluster.trim()).unwrap(),
        node: NodeName::new("b").unwrap(),
        instance: uuid::Uuid::nil(),
        boot: 1,
        seq: 1,
        ts: clock::now(),
        version: "0".into(),
        state: NodeState::Active,
        load: Load {
            queued: 0,
            waiting: 0,
            running: 0,
            capacity: 1,
            saturation: fraction(),
            trend: Trend::Steady,
            cpu_load_1m: fraction(),
            mem_used_bytes: 0,
            mem_total_bytes: 0,
            disk_used_bytes: 0,
            disk_total_bytes: 0,
        },
        backpressure: Backpressure { on: false, level: 0, retry_after_s: None },
        capabilities: Vec::new(),
        backends: Vec::new(),
        budget: BudgetLevels {
            run: WindowLevel { committed: Usd::ZERO, cap: Usd::ZERO },
            month: WindowLevel { committed, cap: Usd::ZERO },
        },
        killswitch: KillswitchState { tripped: false, mode: None, reason: None },
        watch: WatchInfo { strategy: "poll".into(), poll_ms: 1 },
        audit,
        peers_seen: std::collections::BTreeMap::new(),
    };
    let key =
        PairKey::from_text(&fs::read_to_string(lab.config_dir("b").join("keys/a.key")).unwrap()).unwrap();
    let sealed = seal(Kind::Heartbeat, &heartbeat.to_payload(), &[&key]);
    fs::write(lab.share().join("heartbeats/b.json"), sealed).unwrap();
}

#[test]
fn an_older_ledger_is_accepted_by_a_person_and_forgets_no_spending() {
    let lab = Lab::joined();
    let path = lab.state_dir("b").join("ledger.db");
    let old = ReadLedger::open(&path).unwrap().meta().unwrap().head;
    show(&lab, AuditHead { chain: old.chain, seq: old.seq + 5, head: Digest::of(b"later") }, usd("7.25"));

    lab.run("b", &["recover", "--accept-rollback", "last night's copy"]).done();

    let ledger = Ledger::open(&path).unwrap();
    let meta = ledger.meta().unwrap();
    assert_ne!(meta.head.chain, old.chain);
    assert!(meta.accept_after.unwrap() > clock::now());
    assert_eq!(meta.paid_off_until, None);
    let month = WindowKey::Month(Month::of(clock::now()));
    assert_eq!(ledger.balance(&month).unwrap().spent, usd("7.25"));
    let first = ledger.audit_line(meta.head.chain, 1).unwrap().unwrap();
    assert!(first.line.contains(&old.chain.to_string()) && first.line.contains("last night's copy"));
    assert!(first.line.contains(&Digest::of(b"later").to_string()));
    assert_eq!(ledger.highest_held().unwrap(), ledger.boots(1).unwrap().first().map(|boot| boot.boot.boot));

    lab.run("b", &["recover", "--accept-rollback", "again"]).refused(77, &["no rollback"]);
}

#[test]
fn a_recovery_that_was_interrupted_is_finished_by_a_second_one() {
    let lab = Lab::joined();
    let path = lab.state_dir("b").join("ledger.db");
    let old = ReadLedger::open(&path).unwrap().meta().unwrap().head;
    show(&lab, AuditHead { chain: old.chain, seq: old.seq + 5, head: Digest::of(b"later") }, usd("1"));
    // The boot record cannot be published: the run stops right after it noted its instance.
    let heartbeats = lab.share().join("heartbeats");
    let away = lab.share().join("away");
    let tmp = lab.share().join("tmp");
    fs::rename(&tmp, &away).unwrap();
    lab.run("b", &["recover", "--accept-rollback", "first"]).refused(69, &[]);
    fs::rename(&away, &tmp).unwrap();
    assert!(matches!(Ledger::open(&path), Err(LedgerError::NotWhole { .. })));

    lab.run("b", &["recover", "--accept-rollback", "second"]).done();
    assert!(Ledger::open(&path).is_ok());
    assert_eq!(fs::read_dir(&heartbeats).unwrap().count(), 2);
}

#[test]
fn a_start_that_the_ledger_never_noted_is_a_sign_of_an_older_one() {
    let lab = Lab::joined();
    let path = lab.state_dir("b").join("ledger.db");
    let meta = ReadLedger::open(&path).unwrap().meta().unwrap();
    let key =
        PairKey::from_text(&fs::read_to_string(lab.config_dir("b").join("keys/a.key")).unwrap()).unwrap();
    let record = |instance| {
        let record = BootRecord {
            cluster: meta.cluster,
            node: meta.node.clone(),
            ledger: meta.ledger,
            boot: 7,
            instance,
            host_boot_id: meta.ledger,
            at: clock::now(),
        };
        seal(Kind::Boot, &record.to_payload(), &[&key])
    };
    let file = lab.share().join("heartbeats/b.boot-7.json");
    fs::write(&file, record(meta.ledger)).unwrap();
    lab.run("b", &["recover", "--accept-rollback", "an older copy"]).done();
    let ledger = Ledger::open(&path).unwrap();
    assert!(ledger.highest_held().unwrap().unwrap() > 7);
    assert!(ledger.meta().unwrap().paid_off_until.is_some(), "nobody knows what was spent");
    lab.run("b", &["recover", "--accept-rollback", "again"]).refused(77, &["no rollback"]);
}
