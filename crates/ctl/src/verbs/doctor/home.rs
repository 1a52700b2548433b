//! What this node keeps for itself: configuration, keys, approvers, state directory, ledger.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use dispatch_core::protocol::approvers::Approvers;
use dispatch_core::protocol::names::NodeName;
use dispatch_ledger::{ChainCheck, LedgerError, ReadLedger, Whole};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::keys::{approvers_text, read_flat_key, read_lane_key, read_pair_key};
use dispatch_node::report::Report;
use dispatch_node::state::check_place;
use dispatch_spool::MountFacts;
use rustix::process::geteuid;

use super::Sheet;
use crate::warnings;

pub(super) fn configuration(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    let count = config.peers.len();
    sheet.ok("configuration", format!("{}: node `{}`, {count} peer(s)", config.file.display(), config.node));
    if count == 0 {
        sheet.warning("configuration", "no peer is configured", "run: dispatchctl init --peer NODE");
    }
    for warning in warnings::of(config) {
        sheet.warning("configuration", warning.text, warning.mend);
    }
    sheet
}

pub(super) fn keys(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    let mut seen: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
    for (peer, entry) in &config.peers {
        if entry.keys.is_empty() {
            let mend = "nothing for people who only send; a node that receives needs [peer] keys";
            sheet.warning("keys", format!("{peer}: no pair key, answers cannot be told from a peer's"), mend);
        }
        for path in entry.keys.iter().chain(&entry.retired) {
            // A version-2 peer's key may lie on the share, where its kit keeps it.
            let keyid = if entry.version_2().is_some() {
                read_flat_key(path).map(|key| key.keyid().to_owned())
            } else {
                read_pair_key(path, &config.root).map(|key| key.keyid().to_string())
            };
            match keyid {
                Ok(keyid) => {
                    sheet.ok("keys", format!("{peer}: {} (key {keyid})", path.display()));
                    seen.entry(keyid).or_default().push(peer);
                }
                Err(error) => {
                    sheet.report("keys", &Report::from(error), "make the file readable for this user");
                }
            }
        }
        if let Some(path) = &entry.lane_key {
            match read_lane_key(path, &config.root) {
                Ok(_) => sheet.ok("keys", format!("{peer}: {} (outgoing lane)", path.display())),
                Err(error) => sheet.report("keys", &Report::from(error), "bring it over from the node again"),
            }
        }
    }
    for (keyid, peers) in seen.iter().filter(|(_, peers)| peers.len() > 1) {
        let names: Vec<&str> = peers.iter().map(|peer| peer.as_str()).collect();
        sheet.failed(
            "keys",
            format!("one key ({keyid}) is used more than once, for: {}", names.join(", ")),
            "give every pair of nodes a key of its own: whoever holds this one can speak for all of them",
        );
    }
    sheet
}

pub(super) fn approvers(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    let path = config.approve.allowed_signers.display();
    let text = match approvers_text(config) {
        Ok(text) => text,
        Err(error) => {
            sheet.report("approvers", &Report::from(error), "make the file readable for this user");
            return sheet;
        }
    };
    let approvers = Approvers::parse(&text);
    for bad in approvers.bad_lines() {
        sheet.failed(
            "approvers",
            format!("{path}, line {}: {}", bad.line, bad.problem),
            "mend the line: nobody decides by it until then",
        );
    }
    let now = clock::now();
    let valid = approvers.lines().iter().filter(|approver| approver.is_valid_at(now)).count();
    let required = usize::try_from(config.approve.required).unwrap_or(usize::MAX);
    if valid < required {
        sheet.warning(
            "approvers",
            format!(
                "{valid} key(s) may decide and {required} are required: what waits for a person waits in vain"
            ),
            format!("add a line for each approver's public key to {path}"),
        );
    } else {
        sheet.ok("approvers", format!("{valid} key(s) may decide, {required} required"));
    }
    sheet
}

pub(super) fn state(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    let path = config.state.path();
    if let Err(error) = check_place("state directory", path, &config.root) {
        sheet.report("state", &Report::from(error), "keep it on a disk of this machine");
        return sheet;
    }
    if !path.exists() {
        sheet.failed("state", format!("{} is not there", path.display()), "run: dispatchctl init");
        return sheet;
    }
    let kind =
        MountFacts::of(path).map_or_else(|_| "unknown".to_owned(), |facts| facts.file_system.to_string());
    sheet.ok("state", format!("{} ({kind})", path.display()));
    for dir in [path.to_owned(), config.state.jobs(), config.state.requests(), config.state.replies()] {
        private(&mut sheet, &dir);
    }
    sheet
}

/// A directory of this node is nobody else's to look into or write.
fn private(sheet: &mut Sheet, dir: &Path) {
    let Ok(facts) = fs::symlink_metadata(dir) else { return };
    let mode = facts.mode() & 0o7777;
    if facts.uid() != geteuid().as_raw() {
        sheet.failed(
            "state",
            format!("{} belongs to uid {}, not to this user", dir.display(), facts.uid()),
            format!("run this as that user, or: sudo chown -R \"$(id -u)\" {}", dir.display()),
        );
    } else if mode & 0o077 != 0 {
        sheet.failed(
            "state",
            format!("{} has mode {mode:04o}, which lets other people at it", dir.display()),
            format!("run: chmod 700 {}", dir.display()),
        );
    }
}

pub(super) fn ledger(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    let path = config.state.ledger_db();
    let ledger = match ReadLedger::open(&path) {
        Ok(ledger) => ledger,
        Err(LedgerError::Absent { .. }) => {
            sheet.warning(
                "ledger",
                format!("{} is not there: from here tasks are sent, and none is taken", path.display()),
                "where tasks are taken: put it back; if it is lost: dispatchctl init --new-ledger",
            );
            return sheet;
        }
        Err(error) => {
            sheet.report("ledger", &Report::from(error), "put back a good copy");
            return sheet;
        }
    };
    if let Err(error) = look(&mut sheet, config, &ledger) {
        sheet.report("ledger", &Report::from(error), "put back a good copy");
    }
    sheet
}

fn look(sheet: &mut Sheet, config: &Config, ledger: &ReadLedger) -> Result<(), LedgerError> {
    ledger.verify_file()?;
    ledger.verify_money()?;
    let meta = ledger.meta()?;
    if meta.node != config.node || meta.cluster != config.cluster {
        sheet.failed(
            "ledger",
            format!("it is the ledger of node `{}` in cluster {}", meta.node, meta.cluster),
            "correct `node`, `cluster` or `state` in dispatch.toml",
        );
    }
    if meta.whole == Whole::No {
        sheet.failed(
            "ledger",
            "it was never completed",
            "repeat dispatchctl init --new-ledger, or dispatchctl recover --accept-rollback REASON",
        );
    }
    if meta.recovery.is_some() {
        sheet.failed(
            "ledger",
            "it is older than what this node showed: nothing is accepted or started",
            "put the newer one back, or run: dispatchctl recover --accept-rollback REASON",
        );
    }
    match ledger.verify_chain()? {
        ChainCheck::Intact { entries, .. } => {
            sheet.ok("ledger", format!("whole, its sums add up, {entries} audit entries in a chain"));
        }
        ChainCheck::Broken { chain, seq, fault } => sheet.failed(
            "ledger",
            format!("entry {seq} of the audit chain {chain} does not hold ({fault:?})"),
            "run: dispatchctl audit verify; somebody wrote into the ledger",
        ),
    }
    let boot = clock::host_boot_id().map(|id| id.to_string()).unwrap_or_default();
    let now = clock::now();
    if clock::is_suspect(&meta.clock, now, &boot) {
        sheet.failed(
            "clock",
            format!(
                "the wall clock says {now}, which does not follow from {} when it was noted",
                meta.clock.wall
            ),
            "set the clock, or run: dispatchctl recover --accept-clock REASON; until then paid work waits",
        );
    } else {
        sheet.ok("clock", "agrees with what the ledger noted of it");
    }
    Ok(())
}
