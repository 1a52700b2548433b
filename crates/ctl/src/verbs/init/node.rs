//! Making what the plan says, in the order that a crash cannot hurt.

use std::path::{Path, PathBuf};

use dispatch_core::protocol::limits::SKEW_MS;
use dispatch_core::protocol::names::Lane;
use dispatch_ledger::{Birth, Ledger, LedgerError, Whole};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::files::{
    FileError, Written, create_private_dir, create_synced, read_limited, replace_synced,
};
use dispatch_node::ids;
use dispatch_node::keys;
use dispatch_node::report::{Exit, Report};
use dispatch_node::state::WatchLock;
use dispatch_spool::root::publish_cluster;
use dispatch_spool::{ErrorKind, Published, create_directories};
use serde_json::json;

use super::join::Join;
use super::plan::{LedgerPlan, Pair, Plan};
use super::text::APPROVERS_HEAD;
use crate::context::{Context, hold_lock, share};
use crate::editing::{Told, tell_the_watcher};
use crate::takeover::{Taken, Takeover, Why};

/// Longest file of approvers that is added to.
const APPROVERS_BYTES_MAX: u64 = 1024 * 1024;

pub(crate) fn set_up(plan: &Plan, context: &Context) -> Result<(), Report> {
    let config = &plan.config;
    config.state.create(&config.root)?;
    create_private_dir(&config.dir)?;
    create_private_dir(&config.standing_dir())?;
    key_of_pair(plan)?;
    let listed = approvers(plan)?;
    let fresh = ledger(plan)?;
    let written = configuration(plan)?;
    tree(plan)?;
    let taken = match fresh {
        Some(fresh) => fresh.complete(config)?,
        None => None,
    };
    let join_file = join_file(plan)?;
    say(plan, written, join_file.as_deref(), taken.as_ref(), context)?;
    if written == ConfigWritten::PeerAdded || listed == Listed::More {
        let (Told::Yes | Told::NoWatcher | Told::Failed) = tell_the_watcher(config, "init", context);
    }
    Ok(())
}

fn key_path(config: &Config, peer: &dispatch_core::protocol::names::NodeName) -> PathBuf {
    let configured = config.peer(peer).and_then(|entry| entry.keys.first().cloned());
    configured.unwrap_or_else(|| config.dir.join("keys").join(format!("{peer}.key")))
}

fn key_of_pair(plan: &Plan) -> Result<(), Report> {
    let config = &plan.config;
    match &plan.pair {
        None => {}
        Some(Pair::Draw { peer }) => {
            let (Written::Created | Written::AlreadyThere) = keys::new_pair_key(&key_path(config, peer))?;
        }
        Some(Pair::Brought { peer, key, .. }) => {
            let path = key_path(config, peer);
            if keys::write_pair_key(&path, key)? == Written::AlreadyThere
                && keys::pair_key_secret_text(&path, &config.root)? != key.trim()
            {
                return Err(Report::new(
                    Exit::Config,
                    format!("`{}` holds another key already", path.display()),
                )
                .help("nothing is overwritten: move that file away if the join file is the newer one"));
            }
        }
    }
    Ok(())
}

/// What became of the file of approvers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    More,
    AsItWas,
}

fn approvers(plan: &Plan) -> Result<Listed, Report> {
    let path = &plan.config.approve.allowed_signers;
    if let Some(parent) = path.parent() {
        create_private_dir(parent)?;
    }
    let (Written::Created | Written::AlreadyThere) = create_synced(path, APPROVERS_HEAD.as_bytes(), 0o644)?;
    if plan.approvers.is_empty() {
        return Ok(Listed::AsItWas);
    }
    let old = read_limited(path, APPROVERS_BYTES_MAX)?;
    let mut text = String::from_utf8_lossy(&old).trim_end().to_owned();
    for approver in plan.approvers.iter().filter(|approver| !approver.is_in(&String::from_utf8_lossy(&old))) {
        text.push('\n');
        text.push_str(&approver.line());
    }
    text.push('\n');
    if text.as_bytes() == old {
        return Ok(Listed::AsItWas);
    }
    replace_synced(path, text.as_bytes(), 0o644)?;
    Ok(Listed::More)
}

/// A ledger that this run made or makes whole, with the lock that keeps a watcher away until it is done.
struct Fresh {
    ledger: Ledger,
    lock: WatchLock,
    replaces: Option<Why<'static>>,
}

impl Fresh {
    /// The second half of a ledger in place of a lost one: it needs the tree and the keys.
    fn complete(mut self, config: &Config) -> Result<Option<Taken>, Report> {
        match self.replaces {
            Some(why) => Takeover::of(config, &self.lock)?.take(&mut self.ledger, &why).map(Some),
            None => Ok(None),
        }
    }
}

fn ledger(plan: &Plan) -> Result<Option<Fresh>, Report> {
    let config = &plan.config;
    let (whole, replaces) = match plan.ledger {
        LedgerPlan::Keep => return Ok(None),
        LedgerPlan::First => (Whole::Yes, None),
        LedgerPlan::Replace { month_spent } => {
            (Whole::No, Some(Why { reason: "the ledger was lost", month_spent }))
        }
    };
    let lock = hold_lock(config)?;
    let path = config.state.ledger_db();
    let now = clock::now();
    let birth = Birth {
        ledger: ids::uuid_v4()?,
        cluster: config.cluster,
        node: config.node.clone(),
        chain: ids::uuid_v4()?,
        whole,
        accept_after: replaces.as_ref().map(|_| now.plus_ms(SKEW_MS)),
    };
    let ledger = match Ledger::create(&path, &birth, now) {
        // Left by an earlier run that was interrupted; the plan has looked at it.
        Err(LedgerError::Present { .. }) if replaces.is_some() => Ledger::open_to_recover(&path)?,
        made => made?,
    };
    Ok(Some(Fresh { ledger, lock, replaces }))
}

/// What became of the configuration file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConfigWritten {
    New,
    PeerAdded,
    AsItWas,
}

fn configuration(plan: &Plan) -> Result<ConfigWritten, Report> {
    let Some(text) = &plan.new_text else { return Ok(ConfigWritten::AsItWas) };
    let file = &plan.config.file;
    if file.exists() {
        replace_synced(file, text.as_bytes(), 0o644)?;
        return Ok(ConfigWritten::PeerAdded);
    }
    match create_synced(file, text.as_bytes(), 0o644)? {
        Written::Created => Ok(ConfigWritten::New),
        Written::AlreadyThere => {
            let source = std::io::ErrorKind::AlreadyExists.into();
            Err(FileError { op: "create", path: file.clone(), source }.into())
        }
    }
}

fn tree(plan: &Plan) -> Result<(), Report> {
    let config = &plan.config;
    let lanes: Vec<Lane> = config
        .peers
        .keys()
        .map(|peer| Lane::new(config.node.clone(), peer.clone()))
        .flat_map(|lane| [lane.reversed(), lane])
        .collect();
    create_directories(&config.root, &lanes, plan.access)?;
    match publish_cluster(&share(config), config.cluster) {
        Ok(Published::Created | Published::AlreadyPresent) => Ok(()),
        Err(error) if matches!(error.kind, ErrorKind::Conflict(_)) => Err(Report::of(Exit::Config, &error)
            .help("the share belongs to another cluster: mount the right one")),
        Err(error) => Err(error.into()),
    }
}

fn join_file(plan: &Plan) -> Result<Option<PathBuf>, Report> {
    let Some(Pair::Draw { peer }) = &plan.pair else { return Ok(None) };
    let config = &plan.config;
    let path = config.dir.join(format!("join-{peer}.json"));
    let join = Join {
        cluster: config.cluster,
        node: peer.clone(),
        peer: config.node.clone(),
        key: keys::pair_key_secret_text(&key_path(config, peer), &config.root)?,
    };
    let (Written::Created | Written::AlreadyThere) = create_synced(&path, &join.encode(&path)?, 0o600)?;
    Ok(Some(path))
}

fn say(
    plan: &Plan,
    written: ConfigWritten,
    join: Option<&Path>,
    taken: Option<&Taken>,
    context: &Context,
) -> Result<(), Report> {
    let config = &plan.config;
    context.say_json(&json!({
        "node": config.node.as_str(),
        "cluster": config.cluster.to_string(),
        "root": config.root,
        "config": config.file,
        "state": config.state.path(),
        "join": join,
        "new_ledger": taken.map(Taken::json),
    }))?;
    let did = match written {
        ConfigWritten::New => "is set up",
        ConfigWritten::PeerAdded => "has a new peer",
        ConfigWritten::AsItWas => "is complete",
    };
    context.say(&format!("node {} {did}: {}", config.node, config.file.display()))?;
    if let Some(taken) = taken {
        context.say(&taken.text())?;
    }
    if let (Some(join), Some(Pair::Draw { peer })) = (join, &plan.pair) {
        context.say(&format!(
            "\nNow {peer}. The join file holds the pair key; bring it over and remove it on both sides:
  scp -p {join} {peer}:dispatch-join.json
  ssh {peer} dispatchctl init --join dispatch-join.json --root DIR    # DIR: where {peer} mounts this share
  ssh {peer} rm dispatch-join.json; rm {join}",
            join = quoted(join)
        ))?;
    }
    if let Some(Pair::Brought { join_file, .. }) = &plan.pair {
        context.say(&format!("\nThe join file is not needed any more:\n  rm {}", quoted(join_file)))?;
    }
    if written == ConfigWritten::New {
        context.tell(
            "\nThe profile `default` runs a task's request as a shell script; look at [profile.default] in that file. \
             Paid work is off until [budget] allows it. Then start dispatch-watch.",
        );
    }
    Ok(())
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|ch| ch.is_ascii_alphanumeric() || "/._-+@".contains(ch));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
