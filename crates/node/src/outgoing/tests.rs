use std::fs;
use std::path::PathBuf;

use dispatch_core::protocol::keys::{LaneRing, PairKey};
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::result::{Reason, Subject, TaskResult};
use dispatch_core::protocol::seal::{RawEnvelope, seal};
use dispatch_spool::{File, PosixShare, Share, TreeAccess, create_directories};

use super::*;
use crate::ids::{task_id, uuid_v4};

const CLUSTER: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);

struct Desk {
    dir: tempfile::TempDir,
    outgoing: Outgoing,
    share: PosixShare,
    keys: LaneRing,
    lane: Lane,
}

impl Desk {
    fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let lane = Lane::parse("a-to-b").unwrap();
        let root = dir.path().join("share");
        create_directories(&root, std::slice::from_ref(&lane), TreeAccess::Owner).unwrap();
        let share = PosixShare::new(root, lane.from.clone());
        let outgoing = Outgoing::open(&StateDir::at(dir.path().join("state")), &lane).unwrap();
        let keys = LaneRing { accepted: vec![key('k', &lane)], retired: Vec::new() };
        Desk { dir, outgoing, share, keys, lane }
    }

    fn mail(&self) -> Mailbox<'_> {
        self.mail_at(crate::clock::now())
    }

    fn mail_at(&self, now: Timestamp) -> Mailbox<'_> {
        Mailbox {
            share: &self.share,
            keys: &self.keys,
            flat: None,
            cluster: CLUSTER,
            node: &self.lane.from,
            now,
        }
    }

    fn enqueue(&self) -> Record {
        let locked = self.outgoing.lock().unwrap();
        let position = locked.next().unwrap();
        let now = crate::clock::now();
        let id = task_id(now).unwrap();
        let position = (position.stream, position.seq);
        let task = Task::new(CLUSTER, &self.lane, id, now, position, "true".to_owned());
        let payload = task.to_checked_payload().unwrap();
        let envelope = seal(Kind::Task, &payload, &[self.keys.signing().unwrap()]);
        locked.enqueue(Sealed::of(&task, &payload, envelope)).unwrap()
    }

    fn send(&self) -> Record {
        let record = self.enqueue();
        let delivered = self.outgoing.lock().unwrap().publish(&self.mail(), &record).unwrap();
        assert_eq!(delivered, Delivered::Published);
        self.outgoing.record(record.id).unwrap().unwrap()
    }

    fn answer(&self, record: &Record, task_sha256: Digest) {
        let subject = Subject {
            cluster: CLUSTER,
            from: self.lane.from.clone(),
            to: self.lane.to.clone(),
            task: record.id,
            task_sha256,
        };
        let reason = Reason { code: "test".into(), text: "test".into(), help: "none".into() };
        let audit = AuditHead { chain: CLUSTER, seq: 1, head: Digest::of(b"") };
        let result = TaskResult::never_ran(subject, Status::Rejected, Some(reason), audit);
        let bytes = seal(Kind::Result, &result.to_payload(), &[self.keys.signing().unwrap()]);
        self.share.replace(&File::result(&self.lane, record.id), &bytes).unwrap();
    }

    fn inbox(&self, record: &Record) -> PathBuf {
        self.share.root().join(File::inbox(&self.lane, record.id).path())
    }
}

fn key(ch: char, lane: &Lane) -> dispatch_core::protocol::keys::LaneKey {
    PairKey::from_text(&ch.to_string().repeat(64)).unwrap().lane(lane)
}

#[test]
fn what_its_receiver_would_refuse_is_not_sealed() {
    let desk = Desk::new();
    let id = task_id(crate::clock::now()).unwrap();
    let task = Task::new(CLUSTER, &desk.lane, id, crate::clock::now(), (CLUSTER, 1), "true".to_owned());
    let mail = desk.mail();
    assert_eq!(mail.seal(&task).unwrap().task_sha256, Digest::of(&task.to_payload()));
    let unreadable = Task { request: "a\0b".to_owned(), ..task.clone() };
    assert!(matches!(mail.seal(&unreadable), Err(SealError::NotTaken(_))));
    // What fits a payload need not fit an envelope.
    let mut long = task.clone();
    let refused = (1..=64).map(|part| part * 16 * 1024).find_map(|bytes| {
        long.request = "x".repeat(bytes);
        mail.seal(&long).err()
    });
    assert!(matches!(refused, Some(SealError::TooLong { .. } | SealError::NotTaken(_))), "{refused:?}");
    let keys = LaneRing { accepted: Vec::new(), retired: Vec::new() };
    let without = Mailbox { keys: &keys, ..mail };
    assert!(matches!(without.seal(&task), Err(SealError::NoKey { .. })));
}

#[test]
fn a_task_goes_through_the_outbox_to_the_share_and_its_record_to_sent() {
    let desk = Desk::new();
    let record = desk.enqueue();
    assert_eq!(desk.outgoing.kept().unwrap(), [(1, record.id)]);
    assert_eq!(desk.outgoing.record(record.id).unwrap().unwrap().place, RecordPlace::Outbox);
    let delivered = desk.outgoing.lock().unwrap().publish(&desk.mail(), &record).unwrap();
    assert_eq!(delivered, Delivered::Published);
    assert_eq!(desk.outgoing.kept().unwrap(), []);
    let sent = desk.outgoing.record(record.id).unwrap().unwrap();
    assert_eq!((sent.place, sent.answered), (RecordPlace::Sent, None));
    assert_eq!(fs::read(desk.inbox(&record)).unwrap(), sent.envelope);
    assert_eq!(sent.task().unwrap().seq, 1);
}

#[test]
fn positions_go_up_without_gap_or_repetition_also_over_a_crash() {
    let desk = Desk::new();
    let first = desk.send();
    // The crash: kept, its position not noted, not published.
    let stream = desk.outgoing.dir.join("stream");
    let before = fs::read(&stream).unwrap();
    let second = desk.enqueue();
    fs::write(&stream, before).unwrap();
    let third = desk.enqueue();
    assert_eq!((first.seq, second.seq, third.seq), (1, 2, 3));
    assert_eq!(first.stream, third.stream);
    let flushed = desk.outgoing.lock().unwrap().flush(&desk.mail(), Duration::ZERO).unwrap();
    assert_eq!(flushed.published, [second.id, third.id]);
    assert_eq!(desk.outgoing.lock().unwrap().next().unwrap().seq, 4);
}

#[test]
fn after_another_boot_the_records_say_which_position_was_the_last() {
    let desk = Desk::new();
    let first = desk.send();
    desk.send();
    let stream = desk.outgoing.dir.join("stream");
    let text = fs::read_to_string(&stream).unwrap();
    let boot = crate::clock::host_boot_id().unwrap().to_string();
    let other = uuid_v4().unwrap().to_string();
    let older = text.replace("\"seq\":2", "\"seq\":0").replace(&boot, &other);
    assert_ne!(text, older);
    fs::write(&stream, older).unwrap();
    let next = desk.outgoing.lock().unwrap().next().unwrap();
    assert_eq!((next.stream, next.seq), (first.stream, 3));
}

#[test]
fn a_share_that_is_away_keeps_tasks_and_the_flush_sends_them_in_order() {
    let desk = Desk::new();
    let away = desk.share.root().with_extension("away");
    fs::rename(desk.share.root(), &away).unwrap();
    let records = [desk.enqueue(), desk.enqueue()];
    let flushed = desk.outgoing.lock().unwrap().flush(&desk.mail(), Duration::ZERO).unwrap();
    assert!(flushed.stuck.is_some_and(|(id, error)| id == records[0].id && error.is_of_share()));
    fs::rename(&away, desk.share.root()).unwrap();
    let flushed = desk.outgoing.lock().unwrap().flush(&desk.mail(), Duration::from_secs(3_600)).unwrap();
    assert_eq!(flushed.published, []);
    let flushed = desk.outgoing.lock().unwrap().flush(&desk.mail(), Duration::ZERO).unwrap();
    assert_eq!(flushed.published, records.map(|record| record.id));
}

#[test]
fn a_task_published_before_the_crash_is_not_another_after_it() {
    let desk = Desk::new();
    let record = desk.enqueue();
    let delivered = desk.mail().deliver(&desk.lane, &record).unwrap();
    assert_eq!(delivered, Delivered::Published);
    let flushed = desk.outgoing.lock().unwrap().flush(&desk.mail(), Duration::ZERO).unwrap();
    assert_eq!(flushed.published, [record.id]);
}

#[test]
fn something_else_at_its_name_is_noted_and_blocks_nothing() {
    let desk = Desk::new();
    let record = desk.enqueue();
    fs::create_dir(desk.inbox(&record)).unwrap();
    let behind = desk.enqueue();
    let flushed = desk.outgoing.lock().unwrap().flush(&desk.mail(), Duration::ZERO).unwrap();
    assert_eq!((flushed.published, flushed.conflicts), (vec![behind.id], vec![record.id]));
    let noted = desk.outgoing.record(record.id).unwrap().unwrap();
    assert!(noted.conflict && noted.place == RecordPlace::Sent);
    fs::remove_dir(desk.inbox(&record)).unwrap();
    assert_eq!(desk.outgoing.put_back(&desk.mail(), &noted).unwrap(), Delivered::Published);
}

#[test]
fn what_is_put_back_is_sealed_with_todays_key_and_is_the_same_message() {
    let mut desk = Desk::new();
    let record = desk.send();
    desk.keys.accepted.insert(0, key('n', &desk.lane));
    // The old envelope still stands: the same message, so no conflict.
    assert_eq!(desk.outgoing.put_back(&desk.mail(), &record).unwrap(), Delivered::Published);
    assert_eq!(fs::read(desk.inbox(&record)).unwrap(), record.envelope);
    fs::remove_file(desk.inbox(&record)).unwrap();
    assert_eq!(desk.outgoing.put_back(&desk.mail(), &record).unwrap(), Delivered::Published);
    let envelope = RawEnvelope::read(Kind::Task, &fs::read(desk.inbox(&record)).unwrap()).unwrap();
    assert_eq!(envelope.unverified_payload(), record.payload().unwrap());
    assert_eq!(envelope.unverified_signatures()[0].keyid, key('n', &desk.lane).keyid());
}

#[test]
fn only_an_answer_to_exactly_this_task_is_noted() {
    let desk = Desk::new();
    let record = desk.send();
    desk.answer(&record, Digest::of(b"another task"));
    assert!(desk.outgoing.hear_all(&desk.mail(), std::slice::from_ref(&record)).unwrap().answers.is_empty());
    let file = File::result(&desk.lane, record.id);
    let heard = desk.mail().hear(&desk.outgoing, &file, &record).unwrap();
    assert!(matches!(heard, Heard::NotBelieved { digest: Some(_), refusal: Some(_) }));
    desk.answer(&record, record.task_sha256);
    let heard = desk.outgoing.hear_all(&desk.mail(), std::slice::from_ref(&record)).unwrap().answers;
    assert_eq!(heard.len(), 1);
    let answered = desk.outgoing.record(record.id).unwrap().unwrap().answered.unwrap();
    assert_eq!(answered.status, Status::Rejected);
    assert!(desk.outgoing.unanswered().unwrap().is_empty());
}

#[test]
fn an_answer_is_heard_while_a_stopped_sender_holds_the_lock_and_noted_once_it_is_free() {
    let desk = Desk::new();
    let record = desk.send();
    desk.answer(&record, record.task_sha256);
    let locked = desk.outgoing.lock().unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(desk.outgoing.hear_all(&desk.mail(), std::slice::from_ref(&record)).unwrap().answers.len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(5), "the watcher's share thread must not wait for it");
    assert_eq!(desk.outgoing.mark_unanswered_if_free(record.id, desk.mail().now).unwrap(), Noted::Later);
    assert_eq!(desk.outgoing.unanswered().unwrap().len(), 1);
    drop(locked);
    assert_eq!(desk.outgoing.hear_all(&desk.mail(), std::slice::from_ref(&record)).unwrap().answers.len(), 1);
    assert!(desk.outgoing.unanswered().unwrap().is_empty());
}

#[test]
fn upkeep_puts_back_after_ten_minutes_and_names_what_stays_unanswered_once() {
    let desk = Desk::new();
    let record = desk.send();
    fs::remove_file(desk.inbox(&record)).unwrap();
    let now = crate::clock::now();
    let young = desk.outgoing.upkeep(&desk.mail_at(now.plus_ms(PUT_BACK_MS / 2))).unwrap();
    assert!(young.put_back.is_empty());
    let due = now.plus_ms(PUT_BACK_MS + 1_000);
    assert_eq!(desk.outgoing.upkeep(&desk.mail_at(due)).unwrap().put_back, [record.id]);
    assert!(desk.inbox(&record).exists());
    assert!(desk.outgoing.upkeep(&desk.mail_at(due)).unwrap().put_back.is_empty());
    let late = record.answer_by.plus_ms(1);
    assert_eq!(desk.outgoing.upkeep(&desk.mail_at(late)).unwrap().unanswered, [record.id]);
    // Whoever found it died before anybody read it.
    let late = late.plus_ms(PUT_BACK_MS + 1_000);
    let found = desk.outgoing.upkeep(&desk.mail_at(late)).unwrap();
    assert_eq!(found.unanswered, [record.id]);
    desk.outgoing.mark_told(&found, late).unwrap();
    let later = late.plus_ms(PUT_BACK_MS + 1_000);
    assert!(desk.outgoing.upkeep(&desk.mail_at(later)).unwrap().unanswered.is_empty());
    let forgotten = later.plus_ms(SENT_KEPT_MS + PUT_BACK_MS);
    let _ = desk.outgoing.upkeep(&desk.mail_at(forgotten)).unwrap();
    assert_eq!(desk.outgoing.record(record.id).unwrap(), None);
}

#[test]
fn a_cancel_of_a_kept_task_goes_out_before_it_and_fills_its_position() {
    let desk = Desk::new();
    let away = desk.share.root().with_extension("away");
    fs::rename(desk.share.root(), &away).unwrap();
    let record = desk.enqueue();
    let error = desk.outgoing.cancel(&desk.mail(), record.id, "changed my mind").unwrap_err();
    assert!(error.is_of_share());
    fs::rename(&away, desk.share.root()).unwrap();
    let flushed = desk.outgoing.lock().unwrap().flush(&desk.mail(), Duration::ZERO).unwrap();
    assert_eq!(flushed.published, [record.id]);
    let control = desk.share.root().join(File::cancel(&desk.lane, record.id).path());
    assert!(control.exists() && desk.inbox(&record).exists());
}

#[test]
fn a_cancel_of_a_sent_task_is_one_message_however_often_it_is_asked() {
    let desk = Desk::new();
    let record = desk.send();
    for _ in 0..2 {
        let asked = desk.outgoing.cancel(&desk.mail(), record.id, "enough").unwrap();
        assert_eq!(asked, Cancelled::Asked(Delivered::Published));
    }
    desk.outgoing.mark_answered(record.id, Status::Cancelled, crate::clock::now()).unwrap();
    let late = desk.outgoing.cancel(&desk.mail(), record.id, "enough").unwrap();
    assert_eq!(late, Cancelled::AnsweredBefore);
    let unknown = task_id(crate::clock::now()).unwrap();
    let error = desk.outgoing.cancel(&desk.mail(), unknown, "x").unwrap_err();
    assert!(matches!(error, OutgoingError::NoSuchTask { id } if id == unknown));
}

#[test]
fn a_damaged_record_is_an_error_and_stops_no_other() {
    let desk = Desk::new();
    let record = desk.send();
    let other = desk.send();
    fs::write(desk.outgoing.sent_path(record.id), b"{").unwrap();
    let error = desk.outgoing.record(record.id).unwrap_err();
    assert!(matches!(error, OutgoingError::Damaged { .. }), "{error}");
    let unanswered: Vec<TaskId> =
        desk.outgoing.unanswered().unwrap().iter().map(|record| record.id).collect();
    assert_eq!(unanswered, [other.id]);
    let lanes = Outgoing::lanes(&StateDir::at(desk.dir.path().join("state"))).unwrap();
    assert_eq!(lanes, std::slice::from_ref(&desk.lane));
}

#[test]
fn senders_in_parallel_use_every_position_once() {
    let desk = Desk::new();
    let mut seqs: Vec<u64> = std::thread::scope(|scope| {
        let senders: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..5).map(|_| desk.send().seq).collect::<Vec<u64>>())).collect();
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=20).collect::<Vec<u64>>());
    assert!(desk.outgoing.lock_if_free().unwrap().is_some());
}
