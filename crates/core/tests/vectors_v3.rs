//! The vectors of protocol version 3: every file gets the code, or the payload, that it must get.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{Judge, Vector, vectors};
use dispatch_core::protocol::seal::{RawEnvelope, pae, seal_signed};
use dispatch_core::protocol::sshsig::SshSignature;
use dispatch_core::protocol::{
    BootRecord, Control, Decision, Heartbeat, Kind, Payload, Progress, Standing, Task, TaskResult, Terms,
};
use proptest::prelude::*;

#[test]
fn every_vector_gets_what_it_must_get() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 235);
    let wrong: Vec<String> = vectors
        .iter()
        .filter_map(|vector| {
            let found = Judge::new(vector).judge(&vector.bytes);
            (found != vector.expect)
                .then(|| format!("{}: expected {:?}, found {found:?}", vector.name, vector.expect))
        })
        .collect();
    assert!(wrong.is_empty(), "{} vectors fail:\n{}", wrong.len(), wrong.join("\n"));
}

/// The accepted vectors, each with the node that judges it.
fn judges() -> Vec<(Vector, Judge)> {
    vectors()
        .into_iter()
        .filter(|vector| vector.expect.is_ok())
        .map(|vector| {
            let judge = Judge::new(&vector);
            (vector, judge)
        })
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Replace(u8),
    Flip(u8),
    Insert(u8),
    Remove,
    Cut,
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any::<u8>().prop_map(Change::Replace),
        4 => (0_u8..8).prop_map(|bit| Change::Flip(1 << bit)),
        1 => any::<u8>().prop_map(Change::Insert),
        1 => Just(Change::Remove),
        1 => Just(Change::Cut),
    ]
}

fn changed(bytes: &[u8], at: usize, change: Change) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match change {
        Change::Replace(byte) => bytes[at] = byte,
        Change::Flip(mask) => bytes[at] ^= mask,
        Change::Insert(byte) => bytes.insert(at, byte),
        Change::Remove => {
            bytes.remove(at);
        }
        Change::Cut => bytes.truncate(at),
    }
    bytes
}

#[test]
fn a_changed_byte_is_refused_or_changes_nothing() {
    let judges = judges();
    let cases = ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() };
    let places = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), changes());
    proptest!(cases, |((which, at, change) in places)| {
        let (vector, judge) = which.get(&judges);
        let file = changed(&vector.bytes, at.index(vector.bytes.len()), change);
        if let Ok(digest) = judge.judge(&file) {
            prop_assert_eq!(Ok(&digest), vector.expect.as_ref(), "{}", &vector.name);
        }
    });
}

#[test]
fn every_bit_of_a_task_is_bound() {
    let (vector, judge) = judges().into_iter().next().unwrap();
    for at in 0..vector.bytes.len() {
        for bit in 0..8 {
            let file = changed(&vector.bytes, at, Change::Flip(1 << bit));
            if let Ok(digest) = judge.judge(&file) {
                assert_eq!(Ok(digest), vector.expect, "byte {at}, bit {bit}");
            }
        }
    }
}

fn survives<T: Payload + PartialEq + std::fmt::Debug>(name: &str, payload: &[u8]) {
    let read = T::from_stored(payload).unwrap();
    let again = T::from_stored(&read.to_payload()).unwrap();
    assert_eq!(read, again, "{name}");
}

#[test]
fn every_accepted_payload_survives_its_writing() {
    for vector in vectors().iter().filter(|vector| vector.expect.is_ok()) {
        let (kind, check): (Kind, fn(&str, &[u8])) = match vector.kind.as_str() {
            "task" => (Kind::Task, survives::<Task>),
            "control" => (Kind::Control, survives::<Control>),
            "decision" => (Kind::Decision, survives::<Decision>),
            "terms" => (Kind::Terms, survives::<Terms>),
            "result" => (Kind::Result, survives::<TaskResult>),
            "progress" => (Kind::Progress, survives::<Progress>),
            "heartbeat" => (Kind::Heartbeat, survives::<Heartbeat>),
            "boot" => (Kind::Boot, survives::<BootRecord>),
            "standing" => (Kind::Standing, survives::<Standing>),
            kind => panic!("a vector of kind {kind}"),
        };
        let envelope = RawEnvelope::read(kind, &vector.bytes).unwrap();
        check(&vector.name, envelope.unverified_payload());
    }
}

#[test]
fn an_armoured_signature_becomes_the_one_in_the_envelope() {
    use base64::Engine as _;
    for vector in vectors().iter().filter(|vector| vector.kind == "decision" && vector.expect.is_ok()) {
        let envelope = RawEnvelope::read(Kind::Decision, &vector.bytes).unwrap();
        let signature = &envelope.unverified_signatures()[0];
        let base64 = base64::engine::general_purpose::STANDARD.encode(&signature.sig);
        let lines: Vec<&str> =
            base64.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let armour =
            format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"));
        let read = SshSignature::from_armor(&armour).unwrap();
        assert_eq!(&read.to_envelope().unwrap(), signature, "{}", vector.name);
        let again =
            seal_signed(Kind::Decision, envelope.unverified_payload(), &[read.to_envelope().unwrap()]);
        assert_eq!(RawEnvelope::read(Kind::Decision, &again).unwrap(), envelope, "{}", vector.name);
        assert!(pae(Kind::Decision, b"{}").ends_with(b" 2 {}"));
    }
}
