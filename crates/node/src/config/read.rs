//! From the raw file to a checked [`Config`].

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::{NodeName, canonical_uuid};
use toml::de::DeTable;

use super::backends::{backends, check_endpoints, endpoints};
use super::environment::Environment;
use super::error::{ConfigError, Problem};
use super::peers::peers;
use super::prices::{check_overshoot, prices};
use super::safeguards::safeguards;
use super::section::{Section, Source, quoted};
use super::tables::{
    approve, budget, check_workspaces, exec, killswitch, limits, lineage, notify, profiles, watch, workspaces,
};
use super::values::{absolute_path, plain_path, variable};
use super::{Config, Origin, Peer, places};
use crate::files::{FileError, open_regular, read_limited};
use crate::state::{StateDir, check_place};

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn read_file(file: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let error = |problem| ConfigError { file: file.to_owned(), line: None, problem };
    // The name may be a symlink into a dotfiles repository; what it leads to is what must hold.
    let target = match std::fs::canonicalize(file) {
        Ok(target) => target,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(error(Problem::NotFound { searched: Vec::new() }));
        }
        Err(source) => return Err(error(FileError { op: "find", path: file.to_owned(), source }.into())),
    };
    let facts = open_regular(&target)
        .and_then(|opened| opened.metadata().map_err(FileError::of("look at", &target)))
        .map_err(|unreadable| error(unreadable.into()))?;
    let owned_by_us = facts.uid() == 0 || facts.uid() == rustix::process::geteuid().as_raw();
    if !owned_by_us || facts.mode() & 0o022 != 0 {
        return Err(error(Problem::Loose));
    }
    let bytes = read_limited(&target, FILE_BYTES_MAX).map_err(|unreadable| error(unreadable.into()))?;
    let text =
        String::from_utf8(bytes).map_err(|_| error(Problem::NotToml { message: "not UTF-8".to_owned() }))?;
    let config = check(file, &text, environment)?;
    check_place("configuration", &config.dir, &config.root).map_err(|place| error(place.into()))?;
    check_place("state directory", config.state.path(), &config.root).map_err(|place| error(place.into()))?;
    Ok(config)
}

pub(super) fn check(file: &Path, text: &str, environment: &Environment) -> Result<Config, ConfigError> {
    let source = Source { file, text };
    let parsed = DeTable::parse(text).map_err(|bad| {
        let line = bad.span().map(|span| source.line_of(span.start));
        source.error(line, Problem::NotToml { message: bad.message().to_owned() })
    })?;
    let dir = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut top = Section::top(source, parsed.get_ref());
    let mut effective = Vec::new();

    let root = root(&mut top, environment)?;
    let node = node(&mut top, environment)?;
    let cluster = top.required_text("cluster", canonical_uuid)?;
    let state = state(&mut top, &dir, &node, environment)?;
    let peers = peers(&mut top, &dir, &node, &mut effective)?;
    check_pair(&top, &node, &peers, environment)?;
    let watch = watch(top.child("watch")?, environment, &mut effective)?;
    let exec = exec(top.child("exec")?, environment, &mut effective)?;
    let approve = approve(top.child("approve")?, &dir, &mut effective)?;
    let killswitch = killswitch(top.child("killswitch")?, &mut effective)?;
    let budget = budget(top.child("budget")?, &mut effective)?;
    let safeguards = safeguards(top.child("safeguards")?, &mut effective)?;
    let limits = limits(top.child("limits")?, &mut effective)?;
    let lineage = lineage(top.child("lineage")?, &mut effective)?;
    let notify = notify(top.child("notify")?, &mut effective)?;
    let profiles = profiles(&mut top, environment, &mut effective)?;
    let workspaces = workspaces(&mut top, &mut effective)?;
    check_workspaces(&top, &profiles, &workspaces)?;
    let prices = prices(&mut top, &mut effective)?;
    check_overshoot(&top, &profiles, &prices)?;
    let backends = backends(&mut top, &profiles, &peers, &mut effective)?;
    let endpoints = endpoints(&mut top, &mut effective)?;
    check_endpoints(&top, &profiles, &endpoints)?;
    let mut all = top.finish()?;
    all.append(&mut effective);
    Ok(Config {
        file: file.to_owned(),
        dir,
        root,
        node,
        cluster,
        state,
        peers,
        watch,
        exec,
        approve,
        killswitch,
        budget,
        safeguards,
        limits,
        lineage,
        notify,
        profiles,
        workspaces,
        backends,
        endpoints,
        prices,
        effective: all,
    })
}

fn root(top: &mut Section<'_>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    let in_file = top.text("root", absolute_path)?;
    let name = "DISPATCH_ROOT";
    match variable(top, environment, name, absolute_path)? {
        Some(root) => {
            top.note("root", quoted(&root.to_string_lossy()), Origin::Variable(name));
            Ok(root)
        }
        None => in_file.ok_or_else(|| top.missing("root")),
    }
}

/// `DISPATCH_SIDE` (the watcher's) before `DISPATCH_FROM` (the sender's) before the file.
fn node(top: &mut Section<'_>, environment: &Environment) -> Result<NodeName, ConfigError> {
    let in_file = top.text("node", NodeName::new)?;
    for name in ["DISPATCH_SIDE", "DISPATCH_FROM"] {
        if let Some(node) = variable(top, environment, name, NodeName::new)? {
            top.note("node", quoted(node.as_str()), Origin::Variable(name));
            return Ok(node);
        }
    }
    in_file.ok_or_else(|| top.missing("node"))
}

fn state(
    top: &mut Section<'_>,
    dir: &Path,
    node: &NodeName,
    environment: &Environment,
) -> Result<StateDir, ConfigError> {
    if let Some(path) = top.text("state", plain_path)? {
        return Ok(StateDir::at(dir.join(path)));
    }
    let path = places::default_state_dir(node, environment).ok_or_else(|| top.missing("state"))?;
    top.note("state", quoted(&path.to_string_lossy()), Origin::Default);
    Ok(StateDir::at(path))
}

/// Version 2 named both nodes of a pair in the environment; where it still does, they must be this node and a peer.
fn check_pair(
    top: &Section<'_>,
    node: &NodeName,
    peers: &BTreeMap<NodeName, Peer>,
    environment: &Environment,
) -> Result<(), ConfigError> {
    for name in ["DISPATCH_NODE_A", "DISPATCH_NODE_B"] {
        if let Some(named) = variable(top, environment, name, NodeName::new)?
            && named != *node
            && !peers.contains_key(&named)
        {
            let rule = format!("`{named}` is neither this node nor a configured peer");
            return Err(top.error_at("peer", Problem::Variable { name, rule }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
