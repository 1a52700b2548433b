//! `dispatchctl audit verify`: every link of this node's own chain, and that what its peers witnessed is still in it.
//!
//! The copies of the peers' chains are compared with the heads those peers showed; a copy proves nothing against anybody,
//! so what is wrong with one is said and is no failure.

use dispatch_core::protocol::names::{Digest, NodeName};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_ledger::{ChainCheck, ReadLedger};
use dispatch_node::config::Config;
use dispatch_node::report::{Exit, Report};
use serde_json::{Value, json};

use super::copies::Copies;
use crate::context::Context;

/// What stands between a line's hashed bytes and its hash.
const HASH_MEMBER: &str = ",\"hash\":\"";

pub(super) fn run(config: &Config, ledger: &ReadLedger, context: &Context) -> Result<Exit, Report> {
    let (entries, head) = match ledger.verify_chain()? {
        ChainCheck::Intact { entries, head } => (entries, head),
        ChainCheck::Broken { chain, seq, fault } => {
            let what = format!("the audit chain {chain} is broken at entry {seq}: {}", fault_words(fault));
            return Err(Report::new(Exit::DoesNotVerify, what)
                .help("somebody changed the ledger, or its disk did: keep a copy of it, and compare with the peers' logs"));
        }
    };
    let witnessed = witnessed_heads(ledger, &head)?;
    let notes = copies(config, ledger)?;
    context.say_json(&json!({
        "entries": entries,
        "chain": head.chain.to_string(),
        "seq": head.seq,
        "head": head.head.to_string(),
        "witnessed": witnessed,
        "notes": notes,
    }))?;
    context.say(&format!(
        "{entries} entries, every link holds; head {} of chain {} is {}",
        head.seq, head.chain, head.head
    ))?;
    context.say(&format!("{witnessed} heads that peers witnessed are in it"))?;
    for note in notes {
        context.tell(&note);
    }
    Ok(Exit::Done)
}

const fn fault_words(fault: dispatch_ledger::ChainBreak) -> &'static str {
    match fault {
        dispatch_ledger::ChainBreak::Altered => "its bytes do not have its hash",
        dispatch_ledger::ChainBreak::Unlinked => "it does not follow the one before it",
        dispatch_ledger::ChainBreak::NewChain => "it begins a chain without naming the end of the one before",
        dispatch_ledger::ChainBreak::NotTheHead => "it is not the head that the ledger remembers",
    }
}

/// How many heads that peers echo of this node's chain are in the ledger.
fn witnessed_heads(ledger: &ReadLedger, head: &AuditHead) -> Result<usize, Report> {
    let mut found = 0_usize;
    for echo in ledger.echoes()? {
        match ledger.audit_line(echo.head.chain, echo.head.seq)? {
            Some(line) if line.hash == echo.head.head => found = found.saturating_add(1),
            Some(_) => return Err(conflict(&echo.peer, &echo.head, "another entry is there")),
            None if echo.head.chain == head.chain => {
                return Err(conflict(&echo.peer, &echo.head, "the ledger ends before it"));
            }
            // A chain of before a recovery, which the ledger may not hold to its end.
            None => {}
        }
    }
    Ok(found)
}

fn conflict(peer: &NodeName, head: &AuditHead, why: &str) -> Report {
    let what = format!("{peer} witnessed entry {} of chain {} as {}: {why}", head.seq, head.chain, head.head);
    Report::new(Exit::DoesNotVerify, what)
        .help("the ledger is older than what this node showed, or was rewritten; see dispatchctl recover")
}

/// What is to say about the copies of the peers' chains.
fn copies(config: &Config, ledger: &ReadLedger) -> Result<Vec<String>, Report> {
    let mut notes = Vec::new();
    let lines: Vec<Entry> =
        Copies::of_peers(config).read().iter().filter_map(|line| Entry::read(line)).collect();
    for peer in config.peers.keys() {
        let own: Vec<&Entry> = lines.iter().filter(|entry| entry.node == peer.as_str()).collect();
        if let Some(bad) = first_bad(&own) {
            notes.push(format!(
                "the copy of {peer}'s chain on the share is broken at entry {bad}; its watcher repairs it"
            ));
        }
        for head in ledger.witnessed(peer)? {
            let seen = own
                .iter()
                .find(|entry| entry.chain == head.head.chain.to_string() && entry.seq == head.head.seq);
            if seen.is_some_and(|entry| entry.hash != head.head.head.to_string()) {
                notes.push(format!(
                    "the copy of {peer}'s chain has another entry {} than it showed",
                    head.head.seq
                ));
            }
        }
    }
    Ok(notes)
}

/// One line of a copy.
struct Entry {
    node: String,
    chain: String,
    seq: u64,
    prev: String,
    hash: String,
    /// The hash that its bytes have.
    actual: String,
}

impl Entry {
    fn read(line: &str) -> Option<Entry> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let hashed = line.rfind(HASH_MEMBER).and_then(|at| line.get(..at))?;
        Some(Entry {
            node: text("node")?,
            chain: text("chain")?,
            seq: value.get("seq").and_then(Value::as_u64)?,
            prev: text("prev")?,
            hash: text("hash")?,
            actual: Digest::of(hashed.as_bytes()).to_string(),
        })
    }
}

fn first_bad(entries: &[&Entry]) -> Option<u64> {
    let altered = entries.iter().find(|entry| entry.hash != entry.actual);
    let unlinked = entries
        .iter()
        .zip(entries.iter().skip(1))
        .find(|(before, after)| before.chain == after.chain && after.prev != before.hash)
        .map(|(_, after)| after);
    altered.or(unlinked).map(|entry| entry.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, prev: &str) -> (String, String) {
        let body = format!(r#"{{"chain":"c","seq":{seq},"node":"b","prev":"{prev}""#);
        let hash = Digest::of(body.as_bytes()).to_string();
        (format!("{body}{HASH_MEMBER}{hash}\"}}"), hash)
    }

    #[test]
    fn a_copy_with_a_changed_or_missing_line_is_noticed() {
        let (first, hash) = line(1, "0");
        let (second, second_hash) = line(2, &hash);
        let (third, _) = line(3, &second_hash);
        let bad = |lines: &[&str]| {
            let entries: Vec<Entry> = lines.iter().filter_map(|line| Entry::read(line)).collect();
            first_bad(&entries.iter().collect::<Vec<_>>())
        };
        assert_eq!(bad(&[&first, &second, &third]), None);
        assert_eq!(bad(&[&first, &third]), Some(3));
        let changed = second.replace("\"seq\":2", "\"seq\":9");
        assert_eq!(bad(&[&first, &changed, &third]), Some(9));
    }
}
