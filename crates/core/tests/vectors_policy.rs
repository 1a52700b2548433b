//! Every line of `vectors/policy.jsonl` gets the answer it expects.

use std::fmt::Write as _;

use dispatch_core::policy::eval::answer;
use serde_json::{Value, json};

const VECTORS: &str = include_str!("vectors/policy.jsonl");

#[test]
fn every_vector_gets_its_answer() {
    let mut failures = String::new();
    for (number, line) in (1..).zip(VECTORS.lines()) {
        let vector: Value = serde_json::from_str(line).expect("a vector is JSON");
        let request = json!({ "rule": vector["rule"], "input": vector["input"] });
        let written = answer(&request.to_string());
        let got: Value = serde_json::from_str(&written).expect("an answer is JSON");
        if got != vector["expect"] {
            writeln!(
                failures,
                "line {number} ({}): expected {}, got {got}",
                vector["note"], vector["expect"]
            )
            .expect("a String takes everything");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn the_vectors_are_all_there() {
    assert_eq!(VECTORS.lines().count(), 200);
}

#[test]
fn every_line_gets_one_answer() {
    for (line, code) in [
        ("", "malformed"),
        ("   ", "malformed"),
        ("{", "malformed"),
        ("{\"rule\":\"x\",\"rule\":\"x\",\"input\":{}}", "malformed"),
        ("{\"rule\":\"lease.is_stale\",\"input\":{\"now\":1,\"now\":1}}", "malformed"),
        ("[]", "not_an_object"),
        ("1", "not_an_object"),
        ("{\"rule\":\"x\"}", "missing_member"),
        ("{\"rule\":\"x\",\"more\":1}", "unknown_member"),
        ("{\"rule\":1,\"input\":{}}", "not_a_string"),
        ("{\"rule\":\"x\",\"input\":null}", "not_an_object"),
        ("{\"rule\":\"x\",\"input\":{}}", "unknown_rule"),
        ("{\"rule\":\"lease.is_stale\",\"input\":{}}", "missing_member"),
        ("{\"rule\":\"lease.is_stale\",\"input\":{\"leased_at\":1.0,\"now\":1,\"ttl\":1}}", "not_an_integer"),
        ("{\"rule\":\"lease.is_stale\",\"input\":{\"leased_at\":1e3,\"now\":1,\"ttl\":1}}", "not_an_integer"),
        (
            "{\"rule\":\"lease.is_stale\",\"input\":{\"leased_at\":null,\"now\":1,\"ttl\":1}}",
            "not_an_integer",
        ),
        (
            "{\"rule\":\"lease.is_stale\",\"input\":{\"leased_at\":-99999999999999999999,\"now\":1,\"ttl\":1}}",
            "out_of_range",
        ),
        ("{\"rule\":\"budget.admits\",\"input\":{\"estimate\":1}}", "not_a_decimal"),
        (
            "{\"rule\":\"budget.admits\",\"input\":{\"estimate\":\"1\",\"caps\":{\"run\":null}}}",
            "not_a_decimal",
        ),
        ("{\"rule\":\"budget.admits\",\"input\":{\"estimate\":\"1\",\"states\":[]}}", "not_an_object"),
        ("{\"rule\":\"budget.admits\",\"input\":{\"estimate\":\"1\",\"states\":null}}", "not_an_object"),
    ] {
        assert_eq!(answer(line), format!("{{\"error\":\"{code}\"}}"), "{line}");
    }
}

#[test]
fn names_come_back_as_they_were_written() {
    let line = r#"{"rule":"routing.select","input":{"backends":[{"name":"a\"\u0007é","kind":"local"}]}}"#;
    let got: Value = serde_json::from_str(&answer(line)).expect("an answer is JSON");
    assert_eq!(got, json!({ "ok": { "name": "a\"\u{7}é", "kind": "local" } }));
}
