//! The machine and what stops the node: containment, disk, the watcher and its unit, killswitches.

use std::path::PathBuf;

use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::Lane;
use dispatch_node::config::{Config, Environment};
use dispatch_node::report::Report;
use dispatch_node::state::{Watched, watched};
use dispatch_node::tree::Cgroup;
use dispatch_spool::{RootLook, killswitch};

use super::Sheet;
use super::share::room;
use crate::context::share;
use crate::named;

pub(super) fn machine(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    containment(&mut sheet);
    match rustix::fs::statvfs(config.state.path()) {
        Ok(seen) => room(
            &mut sheet,
            "the disk of the state directory",
            seen.f_bavail.saturating_mul(seen.f_frsize),
            seen.f_blocks.saturating_mul(seen.f_frsize),
        ),
        Err(error) => sheet.failed(
            "disk",
            format!("the disk of {} cannot be looked at: {error}", config.state.path().display()),
            "look at the state directory",
        ),
    }
    sheet
}

fn containment(sheet: &mut Sheet) {
    let mark = format!("doctor-{}", std::process::id());
    if let Some(cgroup) = Cgroup::create(&mark) {
        cgroup.remove();
        sheet.ok(
            "containment",
            "a delegated cgroup with cgroup.kill: the kernel ends an agent's tree in one step",
        );
    } else {
        sheet.warning(
            "containment",
            "no delegated cgroup where this command runs: an agent's tree is ended by the subreaper and a sweep, which \
             a process that leaves its parent and clears its environment can outlive when the executor dies too",
            "run the watcher from its unit with Delegate=yes; what holds there is looked at from there only",
        );
    }
    sheet.ok(
        "containment",
        "Landlock: not used by this release, agents may read and write what their user may",
    );
}

pub(super) fn stops(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    switches(&mut sheet, config);
    match watched(&config.state) {
        Ok(Watched::Held) => sheet.ok("watcher", "it runs"),
        Ok(Watched::Free) => sheet.warning(
            "watcher",
            "no watcher runs on this state directory: nothing is taken, and what is kept goes out with the next send",
            "run: systemctl --user enable --now dispatch-watch (or start dispatch-watch by hand)",
        ),
        Err(error) => sheet.report("watcher", &Report::from(error), "look at watch.lock"),
    }
    unit(&mut sheet, config.node.as_str());
    if let Err(report) = ledger_stops(&mut sheet, config) {
        sheet.report("killswitch", &report, "run: dispatchctl status");
    }
    sheet
}

fn switches(sheet: &mut Sheet, config: &Config) {
    let mut places = Vec::new();
    if let Some(trip) = killswitch::local(&config.state.killswitch()) {
        places.push((config.state.killswitch().display().to_string(), trip.reason));
    }
    let lanes: Vec<Lane> = config
        .peers
        .keys()
        .flat_map(|peer| {
            let lane = Lane::new(config.node.clone(), peer.clone());
            [lane.reversed(), lane]
        })
        .collect();
    if let RootLook::Reachable(seen) = dispatch_spool::root::look(&share(config), config.cluster, &lanes) {
        places.extend(seen.killswitch.map(|trip| ("<share>/KILLSWITCH".to_owned(), trip.reason)));
        places.extend(
            seen.lanes.into_iter().map(|(lane, trip)| (format!("<share>/{lane}/KILLSWITCH"), trip.reason)),
        );
    }
    if places.is_empty() {
        sheet.ok("killswitch", "none stands");
    }
    for (place, reason) in places {
        let because = if reason.is_empty() { "no reason given" } else { &reason };
        sheet.warning(
            "killswitch",
            format!("{place} stops this node ({because})"),
            "run: dispatchctl resume",
        );
    }
}

fn ledger_stops(sheet: &mut Sheet, config: &Config) -> Result<(), Report> {
    let Some(ledger) = named::ledger(config)? else { return Ok(()) };
    let present = sheet.lines.iter().any(|line| line.check == "killswitch" && line.mend.is_some());
    for trip in ledger.open_trips()?.into_iter().filter(|_| !present) {
        sheet.warning(
            "killswitch",
            format!("the node was stopped at {} by the {} killswitch and not resumed", trip.at, trip.scope),
            "run: dispatchctl resume",
        );
    }
    let drain = ledger.meta()?.drain;
    if drain.state != NodeState::Active {
        sheet.warning(
            "drain",
            format!("the node says `{}` since {}: nothing new starts", drain.state, drain.since),
            "run: dispatchctl undrain",
        );
    }
    Ok(())
}

/// Where a unit of the watcher would lie.
fn units(node: &str) -> Vec<PathBuf> {
    let home = Environment::of_process().home();
    let user = home.into_iter().map(|home| home.join(".config/systemd/user/dispatch-watch.service"));
    let system = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    let names = ["dispatch-watch@.service".to_owned(), format!("dispatch-watch@{node}.service")];
    let shared = ["/etc/systemd/user/dispatch-watch.service", "/usr/lib/systemd/user/dispatch-watch.service"];
    let of_system = system.iter().flat_map(|dir| names.iter().map(move |name| PathBuf::from(dir).join(name)));
    user.chain(shared.iter().map(PathBuf::from)).chain(of_system).collect()
}

fn unit(sheet: &mut Sheet, node: &str) {
    match units(node).into_iter().find(|path| path.exists()) {
        Some(path) => sheet.ok("watcher", format!("its unit is {}", path.display())),
        None => sheet.warning(
            "watcher",
            "no unit of it is installed: nobody starts it after a reboot",
            "install systemd/dispatch-watch.service, or start dispatch-watch in your own way",
        ),
    }
}
