//! What the vectors leave out: the largest messages, and which refusals are answered.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use dispatch_core::protocol::accept::{Me, Place, RefusedTask, TaskRules, TaskVerdict, accept_task};
use dispatch_core::protocol::keys::{KeyRing, LaneRing, PairKey};
use dispatch_core::protocol::limits;
use dispatch_core::protocol::names::{Digest, Lane, Name, TaskId};
use dispatch_core::protocol::seal::{RawEnvelope, Verified, seal};
use dispatch_core::protocol::task::TaskMember;
use dispatch_core::protocol::time::{DAY_MS, MINUTE_MS, Timestamp};
use dispatch_core::protocol::{Kind, Payload as _, ReasonCode, Status, Task, json};
use proptest::prelude::*;
use uuid::Uuid;

const ID: &str = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";

struct Receiver {
    lane: Lane,
    keys: LaneRing,
    seen: Option<Digest>,
    now: Timestamp,
    accept_after: Option<Timestamp>,
    forgotten_until: Option<Timestamp>,
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-20T12:00:00.000Z").unwrap()
}

fn receiver() -> Receiver {
    let lane = Lane::parse("devbox-to-gpubox").unwrap();
    let key = PairKey::from_text(&"key ".repeat(16)).unwrap();
    let keys = KeyRing { accepted: vec![key], retired: vec![] }.lane(&lane);
    Receiver { lane, keys, seen: None, now: now(), accept_after: None, forgotten_until: None }
}

fn task(request: String) -> Task {
    let lane = Lane::parse("devbox-to-gpubox").unwrap();
    let id = TaskId::parse(ID).unwrap();
    Task::new(Uuid::nil(), &lane, id, now().plus_ms(-MINUTE_MS), (Uuid::nil(), 1), request)
}

impl Receiver {
    fn seal(&self, task: &Task) -> Vec<u8> {
        seal(Kind::Task, &task.to_payload(), &[self.keys.signing().unwrap()])
    }

    fn judge(&self, file: &[u8]) -> Result<Box<Verified<Task>>, Box<RefusedTask>> {
        let rules = TaskRules {
            accept_after: self.accept_after,
            forgotten_until: self.forgotten_until,
            has_profile: &|name| name.as_str() == "default",
            has_workspace: &|_| false,
            unsupported: &[TaskMember::Attachments],
        };
        let me = Me { cluster: Uuid::nil(), node: &self.lane.to, now: self.now };
        let place = Place { lane: &self.lane, id: TaskId::parse(ID).unwrap() };
        match accept_task(file, place, &me, &self.keys, self.seen, &rules) {
            TaskVerdict::Accepted(verified) => Ok(verified),
            TaskVerdict::Refused(refused) => Err(refused),
        }
    }

    fn refuse(&self, task: &Task) -> (ReasonCode, Option<Status>) {
        let refused = self.judge(&self.seal(task)).unwrap_err();
        (refused.refusal.code, refused.answer)
    }
}

#[test]
fn a_task_arrives_as_it_was_sent() {
    let receiver = receiver();
    let sent = task("make the tests pass".into());
    let verified = receiver.judge(&receiver.seal(&sent)).unwrap();
    assert_eq!((verified.payload(), verified.bytes()), (&sent, sent.to_payload().as_slice()));
}

#[test]
fn a_refusal_is_answered_from_freshness_on() {
    let fresh = receiver();
    let plain = task("x".into());
    let digest = Digest::of(&plain.to_payload());
    let codes = |receiver: Receiver| receiver.refuse(&plain);
    assert_eq!(codes(Receiver { seen: Some(digest), ..receiver() }), (ReasonCode::Replayed, None));
    assert_eq!(codes(Receiver { seen: Some(Digest::of(b"")), ..receiver() }), (ReasonCode::IdReused, None));
    assert_eq!(
        codes(Receiver { now: plain.expires, ..receiver() }),
        (ReasonCode::Expired, Some(Status::Expired))
    );
    assert_eq!(
        codes(Receiver { accept_after: Some(now()), ..receiver() }),
        (ReasonCode::BeforeLedger, Some(Status::Unknown))
    );
    assert_eq!(
        codes(Receiver { now: now().plus_ms(-DAY_MS), ..receiver() }),
        (ReasonCode::FromTheFuture, Some(Status::Rejected))
    );
    let elsewhere = Task { cluster: Uuid::max(), ..plain.clone() };
    assert_eq!(fresh.refuse(&elsewhere), (ReasonCode::WrongCluster, None));
    let no_profile = Task { workspace: Name::new("webapp").ok(), ..plain };
    assert_eq!(fresh.refuse(&no_profile), (ReasonCode::UnknownWorkspace, Some(Status::Rejected)));
}

#[test]
fn what_may_have_run_and_was_forgotten_gets_no_second_answer() {
    let plain = task("x".into());
    let forgetful = Receiver { forgotten_until: Some(plain.expires), ..receiver() };
    assert_eq!(forgetful.refuse(&plain), (ReasonCode::Expired, None));
    let late = Receiver { now: plain.expires, ..forgetful };
    assert_eq!(late.refuse(&plain), (ReasonCode::Expired, None));
}

#[test]
fn a_task_over_a_limit_is_known_well_enough_to_be_answered() {
    let receiver = receiver();
    let long = task("x".repeat(limits::REQUEST_BYTES_MAX + 1));
    let refused = receiver.judge(&receiver.seal(&long)).unwrap_err();
    assert_eq!((refused.refusal.code, refused.answer), (ReasonCode::LimitExceeded, Some(Status::Rejected)));
    let known = refused.known.unwrap();
    assert_eq!((known.lane, known.id, known.expires), (long.lane(), long.id, long.expires));
    assert_eq!((known.payload_sha256, known.task), (Digest::of(&long.to_payload()), None));
}

#[test]
fn a_request_of_512_kib_is_accepted() {
    let receiver = receiver();
    let longest = task("x".repeat(limits::REQUEST_BYTES_MAX));
    assert!(receiver.judge(&receiver.seal(&longest)).is_ok());
}

#[test]
fn a_task_of_one_mib_is_read_and_a_byte_more_is_not() {
    let receiver = receiver();
    let mut file = receiver.seal(&task("x".into()));
    file.resize(limits::ENVELOPE_BYTES_MAX, b' ');
    assert!(receiver.judge(&file).is_ok());
    file.push(b' ');
    assert_eq!(receiver.judge(&file).unwrap_err().refusal.code, ReasonCode::TooLarge);
}

#[test]
fn a_request_with_nul_is_found_before_it_is_sealed() {
    assert!(task("a\0b".into()).to_checked_payload().is_err());
    assert!(task(String::new()).to_checked_payload().is_err());
    assert!(task("a\nb".into()).to_checked_payload().is_ok());
}

proptest! {
    #[test]
    fn no_bytes_stop_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(json::parse(&bytes).is_ok() || json::parse(&bytes).is_err());
        prop_assert!(RawEnvelope::read(Kind::Task, &bytes).is_err());
    }

    #[test]
    fn every_request_arrives_as_it_was_written(request in "\\PC{1,200}|[^\\x00]{1,200}") {
        let sent = task(request);
        prop_assert_eq!(Task::from_stored(&sent.to_payload()).unwrap(), sent);
    }
}
