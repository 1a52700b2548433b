use dispatch_core::protocol::keys::{LaneRing, PairKey};
use dispatch_core::protocol::names::{Digest, Lane};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::progress::{Phase, Progress};
use dispatch_core::protocol::result::Subject;
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::task::Task;
use dispatch_spool::layout::Month;
use dispatch_spool::{File, PosixShare, Published, TreeAccess, create_directories};
use uuid::Uuid;

use super::*;
use crate::clock;
use crate::ids::task_id;
use crate::outgoing::{Delivered, Outgoing, Sealed};
use crate::state::StateDir;

const CLUSTER: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);

fn desk() -> (tempfile::TempDir, Arc<Desk>, Record) {
    let dir = tempfile::tempdir().unwrap();
    let lane = Lane::parse("a-to-b").unwrap();
    let root = dir.path().join("share");
    create_directories(&root, std::slice::from_ref(&lane), TreeAccess::Owner).unwrap();
    let state = StateDir::at(dir.path().join("state"));
    let key = PairKey::from_text(&"k".repeat(64)).unwrap().lane(&lane);
    let desk = Desk {
        node: lane.from.clone(),
        cluster: CLUSTER,
        share: PosixShare::new(root, lane.from.clone()),
        keys: LaneRing { accepted: vec![key], retired: Vec::new() },
        flat: None,
        pair: None,
        outgoing: Outgoing::open(&state, &lane).unwrap(),
        state,
        lane,
    };
    let record = sent(&desk);
    (dir, Arc::new(desk), record)
}

fn sent(desk: &Desk) -> Record {
    let locked = desk.outgoing.lock().unwrap();
    let position = locked.next().unwrap();
    let now = clock::now();
    let position = (position.stream, position.seq);
    let task = Task::new(CLUSTER, &desk.lane, task_id(now).unwrap(), now, position, "true".into());
    let payload = task.to_payload();
    let envelope = seal(Kind::Task, &payload, &[desk.keys.signing().unwrap()]);
    let record = locked.enqueue(Sealed::of(&task, &payload, envelope)).unwrap();
    assert_eq!(locked.publish(&desk.mail(), &record).unwrap(), Delivered::Published);
    drop(locked);
    desk.outgoing.record(record.id).unwrap().unwrap()
}

fn answer(desk: &Desk, record: &Record, task_sha256: Digest) -> Vec<u8> {
    let subject = Subject {
        cluster: CLUSTER,
        from: desk.lane.from.clone(),
        to: desk.lane.to.clone(),
        task: record.id,
        task_sha256,
    };
    let audit = AuditHead { chain: CLUSTER, seq: 1, head: Digest::of(b"") };
    let result = TaskResult::never_ran(subject, Status::Expired, None, audit);
    seal(Kind::Result, &result.to_payload(), &[desk.keys.signing().unwrap()])
}

#[test]
fn an_answer_that_comes_while_waiting_ends_it() {
    let (_dir, desk, record) = desk();
    let file = File::result(&desk.lane, record.id);
    let bytes = answer(&desk, &record, record.task_sha256);
    let other = Arc::clone(&desk);
    let mut publish = Some(move || other.share.publish_once(&file, &bytes).unwrap());
    // Published by the first sight of the task in its inbox, so certainly after the first look.
    let end = wait(&desk, record, Interest::Whereabouts, |sight| {
        if let (Sight::At(Whereabouts::Inbox), Some(publish)) = (sight, publish.take()) {
            assert_eq!(publish(), Published::Created);
        }
    });
    assert!(matches!(end, End::Answer(result) if result.payload().status == Status::Expired));
    assert!(publish.is_none());
}

#[test]
fn what_is_not_the_answer_to_this_task_is_shown_and_waited_out() {
    let (_dir, desk, record) = desk();
    let file = File::result(&desk.lane, record.id);
    desk.share.replace(&file, &answer(&desk, &record, Digest::of(b"another"))).unwrap();
    let mut codes = Vec::new();
    let (other, id, right) = (Arc::clone(&desk), record.id, answer(&desk, &record, record.task_sha256));
    let end = wait(&desk, record, Interest::AnswerOnly, |sight| {
        if let Sight::Disbelief(code) = sight {
            codes.push(code);
            other.share.replace(&File::result(&other.lane, id), &right).unwrap();
        }
    });
    assert!(matches!(end, End::Answer(_)));
    assert_eq!(codes, ["digest_mismatch"]);
}

#[test]
fn a_followed_log_is_shown_whole_before_the_answer_ends_it() {
    let (_dir, desk, record) = desk();
    let log = File::log(&desk.lane, record.id);
    desk.share.mirror(&log).unwrap().write_all(b"one ").unwrap();
    let (other, id, bytes) = (Arc::clone(&desk), record.id, answer(&desk, &record, record.task_sha256));
    let mut seen = Vec::new();
    let end = wait(&desk, record, Interest::Log, |sight| {
        if let Sight::Log(more) = sight {
            if seen.is_empty() {
                other.share.mirror(&log).unwrap().write_all(b"two").unwrap();
                let result = File::result(&other.lane, id);
                assert_eq!(other.share.publish_once(&result, &bytes).unwrap(), Published::Created);
            }
            seen.extend(more);
        }
    });
    assert!(matches!(end, End::Answer(_)));
    assert_eq!(seen, b"one two");
}

#[test]
fn when_the_time_is_over_the_archive_is_looked_at_once_and_then_it_ends() {
    let (_dir, desk, record) = desk();
    let over = Record { answer_by: clock::now().plus_ms(-1), ..record.clone() };
    assert!(matches!(wait(&desk, over.clone(), Interest::AnswerOnly, drop), End::NoAnswer));
    let file = File::result(&desk.lane, record.id);
    desk.share.replace(&file, &answer(&desk, &record, record.task_sha256)).unwrap();
    let archived = file.archived(Month::of(clock::now())).unwrap();
    assert_eq!(desk.share.move_to(&file, &archived).unwrap(), dispatch_spool::Moved::Moved);
    assert!(matches!(wait(&desk, over, Interest::AnswerOnly, drop), End::Answer(_)));
}

#[test]
fn every_status_has_the_exit_code_of_the_table() {
    let codes: Vec<u8> = Status::ALL.iter().map(|status| exit_of(*status).code()).collect();
    // ok verified refuted error timeout silent over_budget killed cancelled rejected denied expired unknown
    assert_eq!(codes, [0, 0, 1, 1, 124, 124, 1, 1, 1, 77, 77, 1, 1]);
}

fn message(desk: &Desk, record: &Record, (epoch, seq): (u64, u64), turns: u64) -> Progress {
    Progress {
        cluster: CLUSTER,
        from: desk.lane.from.clone(),
        to: desk.lane.to.clone(),
        task: record.id,
        epoch,
        seq,
        at: clock::now(),
        phase: Phase::Running,
        position: None,
        elapsed_ms: Some(72_000),
        turns: Some(turns),
        last_tool: None,
        tokens: None,
        usd: None,
        last_line: None,
    }
}

#[test]
fn a_message_of_an_older_epoch_or_an_older_one_is_never_shown_again() {
    let (_dir, desk, record) = desk();
    let mut known = None;
    let mut seen = Vec::new();
    for (turns, position) in [(2, 5), (1, 9), (2, 4), (2, 5), (2, 6), (3, 1)].into_iter().enumerate() {
        let told = Told::now(message(&desk, &record, position, u64::try_from(turns).unwrap()));
        known = look::newest(known, Some(told));
        let Some(Whereabouts::Told { far, .. }) = known.as_ref().map(Told::whereabouts) else { panic!() };
        seen.push(far.turns.unwrap());
    }
    assert_eq!(seen, [0, 0, 0, 0, 4, 5]);
    assert!(look::newest(known, None).is_some(), "a message that is gone is still the last word");
}

#[test]
fn where_a_task_is_comes_from_a_message_that_verifies_or_is_called_a_hint() {
    let (_dir, desk, record) = desk();
    let file = File::progress(&desk.lane, record.id);
    let stranger = PairKey::from_text(&"s".repeat(64)).unwrap().lane(&desk.lane);
    let forged = seal(Kind::Progress, &message(&desk, &record, (9, 9), 99).to_payload(), &[&stranger]);
    desk.share.replace(&file, &forged).unwrap();
    desk.share.replace(&File::processing(&desk.lane, record.id), b"{}").unwrap();
    assert_eq!(told(&desk, &record).unwrap(), None);
    let (other, bytes) = (Arc::clone(&desk), answer(&desk, &record, record.task_sha256));
    let result = File::result(&desk.lane, record.id);
    let mut seen = Vec::new();
    let end = wait(&desk, record, Interest::Whereabouts, |sight| {
        if let Sight::At(whereabouts) = sight {
            seen.push(whereabouts.words());
            other.share.replace(&result, &bytes).unwrap();
        }
    });
    assert!(matches!(end, End::Answer(_)));
    assert!(seen.iter().all(|words| words == "taken, it seems"), "{seen:?}");
}
