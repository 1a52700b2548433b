//! The peers: whether they live, which release they run, how far their clocks are off, and how they see this node.

use dispatch_core::policy::fleet::{DEAD_AFTER_S, STALE_AFTER_S};
use dispatch_core::protocol::Heartbeat;
use dispatch_core::protocol::limits::SKEW_MS;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::time::{MINUTE_MS, Timestamp};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::durations::short;
use dispatch_node::report::Report;

use super::Sheet;
use crate::beats::Beats;
use crate::named;

/// Clocks that differ by more are told.
const OFF_MS: i64 = MINUTE_MS;

pub(super) fn peers(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    if let Err(report) = try_peers(&mut sheet, config) {
        sheet.report("peers", &report, "run: dispatchctl status");
    }
    sheet
}

fn try_peers(sheet: &mut Sheet, config: &Config) -> Result<(), Report> {
    let now = clock::now();
    let Some(ledger) = named::ledger(config)? else { return without_ledger(sheet, config, now) };
    for name in config.peers.keys() {
        match ledger.peer(name)? {
            None => never(sheet, name),
            Some(row) => {
                let beat = Heartbeat::from_stored(&row.payload).ok();
                alive(sheet, name, now.since_ms(row.advanced_at));
                if let Some(beat) = beat {
                    skew(sheet, name, row.advanced_at.since_ms(beat.ts));
                    release(sheet, name, &beat);
                }
            }
        }
    }
    Ok(())
}

/// Where nobody counts heartbeats, only a peer's own clock says how old its last one is.
fn without_ledger(sheet: &mut Sheet, config: &Config, now: Timestamp) -> Result<(), Report> {
    let beats = Beats::of(config)?;
    for name in config.peers.keys() {
        match beats.read(name)? {
            None => never(sheet, name),
            Some(beat) => {
                alive(sheet, name, now.since_ms(beat.ts));
                release(sheet, name, &beat);
            }
        }
    }
    Ok(())
}

fn never(sheet: &mut Sheet, name: &NodeName) {
    sheet.warning(
        "peers",
        format!("{name}: no heartbeat of it was ever believed here"),
        format!("start dispatch-watch on {name}; if it runs, compare keys and `cluster` of both nodes"),
    );
}

fn alive(sheet: &mut Sheet, name: &NodeName, age_ms: i64) {
    let age = short(age_ms);
    match age_ms.div_euclid(1_000) {
        seconds if seconds < STALE_AFTER_S => sheet.ok("peers", format!("{name}: healthy, heard {age} ago")),
        seconds if seconds < DEAD_AFTER_S => {
            sheet.warning("peers", format!("{name}: stale, heard {age} ago"), "look again in a minute");
        }
        _ => sheet.warning(
            "peers",
            format!("{name}: dead, heard {age} ago"),
            format!("look at the watcher of {name} and at its mount of the share; is this node's own watcher running?"),
        ),
    }
}

/// The heartbeat's own time against when it was received here: the way of the message is part of it.
fn skew(sheet: &mut Sheet, name: &NodeName, off_ms: i64) {
    let text = format!("{name}: its clock and this one differ by about {}", short(off_ms));
    let mend = "set the clocks of both nodes (timedatectl; chronyc tracking)";
    match off_ms.saturating_abs() {
        off if off > SKEW_MS => {
            sheet.failed("clock", format!("{text}: more than 5 minutes, so its tasks may be refused"), mend);
        }
        off if off > OFF_MS => sheet.warning("clock", text, mend),
        _ => sheet.ok("clock", text),
    }
}

fn release(sheet: &mut Sheet, name: &NodeName, beat: &Heartbeat) {
    let own = env!("CARGO_PKG_VERSION");
    let major = |version: &str| version.split('.').take(2).collect::<Vec<_>>().join(".");
    if major(&beat.version) == major(own) {
        sheet.ok("versions", format!("{name} runs {}, this node {own}", beat.version));
    } else {
        sheet.warning(
            "versions",
            format!("{name} runs {}, this node {own}", beat.version),
            "bring both nodes to the same release",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::doctor::Verdict;

    fn verdict(tell: impl FnOnce(&mut Sheet, &NodeName)) -> Verdict {
        let mut sheet = Sheet::default();
        tell(&mut sheet, &NodeName::new("gpubox").unwrap());
        assert_eq!(sheet.lines.len(), 1);
        assert_eq!(sheet.lines[0].mend.is_none(), sheet.lines[0].verdict == Verdict::Ok);
        sheet.lines[0].verdict
    }

    #[test]
    fn a_clock_that_is_off_by_minutes_is_told_before_tasks_are_refused() {
        assert_eq!(verdict(|sheet, name| skew(sheet, name, 59_000)), Verdict::Ok);
        assert_eq!(verdict(|sheet, name| skew(sheet, name, -61_000)), Verdict::Warning);
        assert_eq!(verdict(|sheet, name| skew(sheet, name, SKEW_MS + 1)), Verdict::Failed);
    }

    #[test]
    fn a_peer_is_healthy_stale_or_dead_by_its_age() {
        assert_eq!(verdict(|sheet, name| alive(sheet, name, 29_999)), Verdict::Ok);
        assert_eq!(verdict(|sheet, name| alive(sheet, name, 30_000)), Verdict::Warning);
        assert_eq!(verdict(|sheet, name| alive(sheet, name, 90_000)), Verdict::Warning);
        assert_eq!(verdict(never), Verdict::Warning);
    }
}
