//! The vectors of version 2: every flat task verifies or is refused as the file says, and no change of what is signed passes.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::sync::LazyLock;

use dispatch_core::protocol::Task;
use dispatch_core::protocol::accept::{Me, Place, TaskRules, TaskVerdict, accept_task};
use dispatch_core::protocol::keys::{KeyRing, PairKey};
use dispatch_core::protocol::names::{Digest, Lane, TaskId, canonical_uuid};
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::time::{HOUR_MS, Timestamp};
use dispatch_core::protocol::v2::{
    Bounds, FlatKey, FlatRing, accept_flat, read_stored, signed_bytes, write_task,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const BOUNDS: Bounds = Bounds { timeout_s: 900, max_output_bytes: 1_000_000 };
const CLUSTER: &str = "00000000-0000-4000-8000-000000000000";

static FILE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_slice(include_bytes!("vectors/v2.json")).unwrap());

fn file() -> &'static Value {
    &FILE
}

fn ring() -> FlatRing {
    let key = FlatKey::from_text(file()["key_file_content"].as_str().unwrap()).unwrap();
    FlatRing { accepted: vec![key], retired: Vec::new() }
}

fn lane_of(envelope: &Value) -> Lane {
    Lane::parse(&format!("{}-to-{}", envelope["from"].as_str().unwrap(), envelope["to"].as_str().unwrap()))
        .unwrap()
}

/// What the receiver of that lane makes of `bytes`, an hour after the file's own time or `now`.
fn judge(
    bytes: &[u8],
    lane: &Lane,
    id: &str,
    ring: &FlatRing,
    now: &str,
    seen: Option<Digest>,
) -> TaskVerdict {
    let (now, cluster) = (Timestamp::parse(now).unwrap(), canonical_uuid(CLUSTER).unwrap());
    let me = Me { cluster, node: &lane.to, now };
    let place = Place { lane, id: TaskId::parse_any_version(id).unwrap() };
    let rules = TaskRules {
        accept_after: None,
        forgotten_until: None,
        has_profile: &|name| name.as_str() == "default",
        has_workspace: &|_| false,
        unsupported: &[],
    };
    accept_flat(bytes, place, &me, ring, BOUNDS, seen, &rules)
}

fn judged(bytes: &[u8], like: &Value, seen: Option<Digest>) -> Result<Verified<Task>, String> {
    let created = like["created"].as_str().unwrap();
    let now = Timestamp::parse(&format!("{}.000Z", &created[..19])).unwrap().plus_ms(HOUR_MS);
    match judge(bytes, &lane_of(like), like["id"].as_str().unwrap(), &ring(), &now.to_string(), seen) {
        TaskVerdict::Accepted(task) => Ok(*task),
        TaskVerdict::Refused(refused) => Err(refused.refusal.code.as_str().to_owned()),
    }
}

fn code(bytes: &[u8], like: &Value) -> String {
    judged(bytes, like, None).map_or_else(|code| code, |_| "accepted".to_owned())
}

/// The bytes of a vector with some members changed, its signature left alone.
fn changed(envelope: &Value, change: &Value) -> Vec<u8> {
    let mut envelope = envelope.clone();
    for (member, value) in change.as_object().unwrap() {
        envelope[member] = value.clone();
    }
    envelope.to_string().into_bytes()
}

/// The same, signed anew by a key of version 2.
fn resigned(envelope: &Value, change: &Value) -> Vec<u8> {
    let mut envelope: Value = serde_json::from_slice(&changed(envelope, change)).unwrap();
    let text = |member: &str| envelope[member].as_str().unwrap_or_default().to_owned();
    let signed = ["id", "from", "to", "created", "priority", "request"].map(text).join("|");
    envelope["hmac"] = json!(ring().signing().unwrap().sign(signed.as_bytes()));
    envelope.to_string().into_bytes()
}

#[test]
fn every_vector_verifies_over_the_bytes_it_names() {
    let file = file();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let (envelope, written) = (&vector["envelope"], vector["envelope_json_as_written"].as_str().unwrap());
        let hex: String = vector["signed_payload_utf8_hex"].as_str().unwrap().to_owned();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let expected = vector["expected_hmac"].as_str().unwrap();
        assert_eq!(ring().signing().unwrap().sign(&bytes), expected);
        let empty = envelope["request"] == "";
        match judged(written.as_bytes(), envelope, None) {
            Ok(task) => {
                assert_eq!(task.bytes(), bytes);
                assert_eq!(task.digest(), Digest::of(&bytes));
                assert_eq!(task.payload().request, envelope["request"]);
                let (stored, signed) =
                    read_stored(written.as_bytes(), canonical_uuid(CLUSTER).unwrap(), BOUNDS).unwrap();
                assert_eq!((&stored, signed), (task.payload(), bytes));
            }
            // Verified, and then told its sender that there is nothing to do.
            Err(code) => assert_eq!((empty, code.as_str()), (true, "limit_exceeded"), "{written}"),
        }
    }
}

#[test]
fn every_edge_is_refused_or_bounded() {
    let file = file();
    let edges = file["edge"].as_array().unwrap();
    assert_eq!(edges.len(), 3);
    let of = |at: usize| judged(edges[at]["envelope"].to_string().as_bytes(), &edges[2]["envelope"], None);
    assert_eq!(of(0).unwrap_err(), "malformed", "{}", edges[0]["why"]);
    assert_eq!(of(2).unwrap_err(), "bad_signature", "{}", edges[2]["why"]);
    let task = of(1).unwrap();
    assert_eq!((task.payload().timeout_s, task.payload().max_output_bytes), (900, 1_000_000));
}

#[test]
fn a_file_can_only_ask_for_less_than_the_receiver_allows() {
    let file = file();
    let envelope = &file["vectors"][0]["envelope"];
    let ask = |change: &Value| judged(&changed(envelope, change), envelope, None).unwrap().into_parts().0;
    let less = ask(&json!({"timeout_s": 5, "max_output_bytes": 2048}));
    assert_eq!((less.timeout_s, less.max_output_bytes), (5, 2048));
    let more = ask(&json!({"timeout_s": i64::MAX, "max_output_bytes": i64::MAX}));
    assert_eq!((more.timeout_s, more.max_output_bytes), (900, 1_000_000));
    assert_eq!(more.expires, more.created.plus_ms(24 * HOUR_MS));
    let later = ask(&json!({"expires": "2027-01-01T00:00:00+00:00"}));
    assert_eq!(later.expires, more.expires);
    let sooner = ask(&json!({"expires": "2026-01-01T23:00:00.000000+00:00"}));
    assert_eq!(sooner.expires.to_string(), "2026-01-01T23:00:00.000Z");
}

#[test]
fn breaks_of_form_are_refused_however_they_are_signed() {
    let file = file();
    let envelope = &file["vectors"][2]["envelope"];
    for change in [
        json!({"timeout_s": null}),
        json!({"timeout_s": "soon"}),
        json!({"timeout_s": 1.5}),
        json!({"max_output_bytes": "1"}),
        json!({"require_ack": 1}),
        json!({"require_dangerous": null}),
        json!({"callback": "mail"}),
        json!({"expires": null}),
        json!({"workspace": "x"}),
        json!({"schema": "2"}),
        json!({"hmac": 7}),
        json!({"hmac": null}),
        json!({"request": 7}),
        json!({"payload": "x"}),
    ] {
        assert_eq!(code(&changed(envelope, &change), envelope), "malformed", "{change}");
    }
    for change in [
        json!({"id": "../../../../tmp/x"}),
        json!({"id": "/etc/x"}),
        json!({"id": "1A652382-7056-5D71-953F-06615D04466C"}),
        json!({"from": "dev|box"}),
        json!({"to": "gpubox\n"}),
        json!({"created": "2026-01-03T03:04:05|x"}),
        json!({"created": "yesterday"}),
        json!({"priority": "urgent"}),
        json!({"priority": "high\u{7f}"}),
        json!({"from": "a-to-b"}),
    ] {
        assert_eq!(code(&resigned(envelope, &change), envelope), "malformed", "{change}");
    }
    for member in ["callback", "require_ack", "require_dangerous", "timeout_s", "max_output_bytes", "schema"]
    {
        let mut short = envelope.clone();
        short.as_object_mut().unwrap().remove(member);
        assert_eq!(code(short.to_string().as_bytes(), envelope), "malformed", "without {member}");
    }
    let text = file["vectors"][2]["envelope_json_as_written"].as_str().unwrap();
    let nul = text.replace("cat log", "cat\\u0000log");
    let surrogate = text.replace("cat log", "cat \\ud800 log");
    let twice = text.replacen('{', "{\"id\": \"x\",", 1);
    for bytes in [nul, surrogate, twice, format!("{text} x"), format!("\u{feff}{text}")] {
        assert_eq!(code(bytes.as_bytes(), envelope), "malformed", "{bytes}");
    }
}

#[test]
fn what_is_not_flat_json_is_malformed_or_unsigned() {
    let file = file();
    let envelope = &file["vectors"][2]["envelope"];
    for (bytes, expected) in [
        (&b"[1, 2]"[..], "malformed"),
        (b"\"text\"", "malformed"),
        (b"null", "malformed"),
        (b"7", "malformed"),
        (b"{}", "malformed"),
        (b"", "malformed"),
        (br#"{"hmac": "00"}"#, "malformed"),
    ] {
        assert_eq!(code(bytes, envelope), expected, "{}", String::from_utf8_lossy(bytes));
    }
    for hmac in ["", "é", "00", "3ad2", &"0".repeat(64), &envelope["hmac"].as_str().unwrap().to_uppercase()]
    {
        assert_eq!(code(&changed(envelope, &json!({"hmac": hmac})), envelope), "bad_signature", "{hmac}");
    }
    assert_eq!(code(&changed(envelope, &json!({"schema": 3})), envelope), "unsupported_schema");
    assert_eq!(code(&vec![b' '; 1024 * 1024 + 1], envelope), "too_large");
}

#[test]
fn a_flat_task_is_taken_once_in_its_lane_and_in_its_time() {
    let file = file();
    let envelope = &file["vectors"][2]["envelope"];
    let bytes = envelope.to_string().into_bytes();
    let digest = judged(&bytes, envelope, None).unwrap().digest();
    // What is not signed makes no other task of it.
    for again in [bytes.clone(), changed(envelope, &json!({"timeout_s": 1, "require_ack": false}))] {
        assert_eq!(judged(&again, envelope, Some(digest)).unwrap_err(), "replayed");
    }
    let reused = resigned(envelope, &json!({"request": "another"}));
    assert_eq!(judged(&reused, envelope, Some(digest)).unwrap_err(), "id_reused");
    let lane = lane_of(envelope);
    let id = envelope["id"].as_str().unwrap();
    let refused =
        |lane: &Lane, id: &str, ring: &FlatRing, now: &str| match judge(&bytes, lane, id, ring, now, None) {
            TaskVerdict::Accepted(_) => "accepted".to_owned(),
            TaskVerdict::Refused(refused) => refused.refusal.code.as_str().to_owned(),
        };
    let now = "2026-01-03T04:00:00.000Z";
    assert_eq!(refused(&lane, id, &ring(), now), "accepted");
    assert_eq!(refused(&lane.reversed(), id, &ring(), now), "wrong_recipient");
    assert_eq!(refused(&Lane::parse("other-to-gpubox").unwrap(), id, &ring(), now), "wrong_lane");
    assert_eq!(refused(&lane, CLUSTER, &ring(), now), "id_mismatch");
    assert_eq!(refused(&lane, id, &ring(), "2026-01-04T03:04:05.000Z"), "expired");
    assert_eq!(refused(&lane, id, &ring(), "2026-01-03T02:00:00.000Z"), "from_the_future");
    assert_eq!(refused(&lane, id, &FlatRing::default(), now), "bad_signature");
    let retired = FlatRing { accepted: Vec::new(), retired: ring().accepted };
    assert_eq!(refused(&lane, id, &retired, now), "retired_key");
}

#[test]
fn neither_protocol_opens_the_others_messages() {
    let file = file();
    let envelope = &file["vectors"][2]["envelope"];
    let lane = lane_of(envelope);
    let text = file["key_text"].as_str().unwrap();
    let pair = KeyRing { accepted: vec![PairKey::from_text(text).unwrap()], retired: Vec::new() };
    let now = Timestamp::parse("2026-01-03T04:00:00.000Z").unwrap();
    let cluster = canonical_uuid(CLUSTER).unwrap();
    let me = Me { cluster, node: &lane.to, now };
    let id = TaskId::parse_any_version(envelope["id"].as_str().unwrap()).unwrap();
    let rules = TaskRules {
        accept_after: None,
        forgotten_until: None,
        has_profile: &|_| true,
        has_workspace: &|_| true,
        unsupported: &[],
    };
    // A version-3 peer of the same key text that sends flat JSON: no downgrade.
    let bytes = envelope.to_string().into_bytes();
    let TaskVerdict::Refused(refused) =
        accept_task(&bytes, Place { lane: &lane, id }, &me, &pair.lane(&lane), None, &rules)
    else {
        panic!("flat JSON of a version-3 peer was taken")
    };
    assert_eq!(refused.refusal.code.as_str(), "unsupported_schema");
    // A version-2 peer that seals with its key: its key opens nothing.
    let task = Task::new(cluster, &lane, id, now, (cluster, 1), "echo".to_owned());
    let sealed = dispatch_core::protocol::seal::seal(
        dispatch_core::protocol::Kind::Task,
        &dispatch_core::protocol::Payload::to_payload(&task),
        &[pair.lane(&lane).signing().unwrap()],
    );
    assert_eq!(code(&sealed, envelope), "bad_signature");
}

#[test]
fn a_task_of_ours_is_one_that_version_2_verifies() {
    let file = file();
    let envelope = &file["vectors"][2]["envelope"];
    let now = Timestamp::parse("2026-01-03T04:00:00.123Z").unwrap();
    let id = TaskId::parse_any_version(envelope["id"].as_str().unwrap()).unwrap();
    let cluster = canonical_uuid(CLUSTER).unwrap();
    let request = "Grüße | 世界 🚀\nzwei".to_owned();
    let task = Task::new(cluster, &lane_of(envelope), id, now, (cluster, 1), request);
    let bytes = write_task(&task, ring().signing().unwrap());
    assert!(bytes.is_ascii());
    let read: Value = serde_json::from_slice(&bytes).unwrap();
    let members: Vec<&String> = read.as_object().unwrap().keys().collect();
    let kits: Vec<&String> = envelope.as_object().unwrap().keys().collect();
    assert_eq!(members, kits);
    let signed =
        ["id", "from", "to", "created", "priority", "request"].map(|name| read[name].as_str().unwrap());
    assert_eq!(signed.join("|").into_bytes(), signed_bytes(&task));
    assert!(ring().signing().unwrap().verifies(&signed_bytes(&task), read["hmac"].as_str().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_changed_byte_of_what_is_signed_passes(
        vector in 0_usize..6,
        at in any::<prop::sample::Index>(),
        mask in 1_u8..,
    ) {
        let file = file();
        let vector = &file["vectors"][vector];
        let envelope = &vector["envelope"];
        let written = vector["envelope_json_as_written"].as_str().unwrap().as_bytes().to_vec();
        let before = judged(&written, envelope, None).map(|task| task.digest());
        let mut changed = written;
        let at = at.index(changed.len());
        changed[at] ^= mask;
        // Either it is refused before anything of it is answered, or it is the very same signed bytes.
        match (judged(&changed, envelope, None), before) {
            (Ok(task), Ok(digest)) => prop_assert_eq!(task.digest(), digest),
            (Ok(_), Err(_)) => prop_assert!(false, "a refused task was taken"),
            (Err(_), _) => {}
        }
    }
}
