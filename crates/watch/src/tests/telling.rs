//! What people are told, as the ledger holds it.

use std::collections::BTreeMap;

use dispatch_node::config::Notify;
use serde_json::Value;

use super::{bench, devbox, id, now};
use crate::telling::{self, Kind, Telling};

fn told(bench: &super::Bench) -> Vec<Value> {
    let open = bench.ledger.open_tellings().unwrap();
    open.iter().map(|row| serde_json::from_str(&row.document).unwrap()).collect()
}

fn listening() -> super::Bench {
    let mut bench = bench();
    let argv = vec!["/bin/true".to_owned()];
    bench.home.config.notify = Some(Notify { argv, env: Vec::new(), set: BTreeMap::new() });
    bench
}

#[test]
fn a_task_without_an_answer_is_told_once() {
    let mut bench = listening();
    for _ in 0..2 {
        bench.write(now(), |tx, home| telling::unanswered(tx, home, &devbox(), id(1)));
    }
    let told = told(&bench);
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["kind"], &told[0]["to"]), (&"unanswered".into(), &"devbox".into()));
    assert_eq!(told[0]["task"], id(1).to_string());
}

#[test]
fn nothing_is_made_where_nobody_is_to_be_told() {
    let mut bench = bench();
    bench.write(now(), |tx, home| telling::unanswered(tx, home, &devbox(), id(1)));
    assert_eq!(told(&bench), Vec::<Value>::new());
}

#[test]
fn a_document_is_short_one_line_and_shows_what_is_hidden() {
    let mut bench = listening();
    let text = format!("a \u{1b}[2J \u{202e} \n{}", "x".repeat(10_000));
    let request = format!("\n  \n{}\nsecond", "y\u{7}".repeat(500));
    bench.write(now(), |tx, home| {
        Telling::of(Kind::Tripped, "one", text.clone()).help(text.clone()).first_line(&request).make(tx, home)
    });
    let document = bench.ledger.open_tellings().unwrap().remove(0).document;
    assert!(document.len() < 8 * 1024, "{}", document.len());
    assert!(!document.contains(['\n', '\u{1b}', '\u{202e}', '\u{7}']) && !document.contains("second"));
    assert!(document.contains("\\\\u{202e}") && document.contains("y\\\\x07"), "{document}");
}
