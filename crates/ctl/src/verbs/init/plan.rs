//! From arguments to what is to be there: everything is checked before anything is made.

use std::fs;
use std::path::{Path, PathBuf};

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::NodeName;
use dispatch_ledger::{LedgerError, Meta, ReadLedger, Whole};
use dispatch_node::config::{Config, Environment, default_config_file};
use dispatch_node::files::FileError;
use dispatch_node::ids;
use dispatch_node::report::{Exit, Report};
use dispatch_node::state::check_place;
use dispatch_spool::root::read_cluster;
use dispatch_spool::{Dir, ErrorKind, File, PosixShare, Share as _, TreeAccess};
use uuid::Uuid;

use super::join::Join;
use super::{Args, text};
use crate::context::Context;

/// What is to be there after this run.
pub(crate) struct Plan {
    pub(crate) config: Config,
    /// The text to write where there is no configuration yet, or a new peer is added to it.
    pub(crate) new_text: Option<String>,
    pub(crate) pair: Option<Pair>,
    pub(crate) approvers: Vec<text::Approver>,
    pub(crate) access: TreeAccess,
    pub(crate) ledger: LedgerPlan,
}

/// The pair key this run is about.
pub(crate) enum Pair {
    /// Draw it, and write a join file for the peer.
    Draw { peer: NodeName },
    /// It came with a join file.
    Brought { peer: NodeName, key: String, join_file: PathBuf },
}

/// What becomes of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerPlan {
    /// It is there and fits.
    Keep,
    /// Make the first one of this node: no floor.
    First,
    /// Make one in place of a lost one, or finish making it.
    Replace {
        /// What the month has spent at least, as a person says.
        month_spent: Option<Usd>,
    },
}

pub(crate) fn plan(args: &Args, context: &Context) -> Result<Plan, Report> {
    let environment = Environment::of_process();
    let file = default_config_file(context.config_option(), &environment)?;
    let approvers = args.approver.iter().map(|path| text::Approver::read(path)).collect::<Result<_, _>>()?;
    let access = if args.group { TreeAccess::Group } else { TreeAccess::Owner };
    let join = match (&args.join, &args.root) {
        (Some(path), Some(root)) => Some(Join::read(path, &absolute(root)?)?),
        _ => None,
    };
    let draft = match fs::metadata(&file) {
        Ok(_) => on_configured(args, context, join.as_ref())?,
        Err(_) => fresh(args, &file, join.as_ref(), &environment)?,
    };
    let ledger = ledger_plan(&draft, args)?;
    let pair = match (join, &args.join) {
        (Some(join), Some(path)) => {
            Some(Pair::Brought { peer: join.peer, key: join.key, join_file: path.clone() })
        }
        _ => args.peer.clone().map(|peer| Pair::Draw { peer }),
    };
    Ok(Plan { config: draft.config, new_text: draft.new_text, pair, approvers, access, ledger })
}

struct Draft {
    config: Config,
    new_text: Option<String>,
    /// Whether a missing ledger is a lost one.
    configured: Configured,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Configured {
    Before,
    Now,
}

/// There is a configuration: it must agree with the arguments; a further peer is added to it.
fn on_configured(args: &Args, context: &Context, join: Option<&Join>) -> Result<Draft, Report> {
    let config = context.config()?;
    let file = config.file.display().to_string();
    let disagree = |what: &str, has: String, asked: String| {
        Report::new(Exit::Config, format!("`{file}` says {what} `{has}`, not `{asked}`"))
            .help("nothing is overwritten: edit that file, or name another with --config")
    };
    if let Some(root) = &args.root
        && absolute(root)? != config.root
    {
        return Err(disagree("root", config.root.display().to_string(), root.display().to_string()));
    }
    if let Some(node) = args.node.as_ref().or(join.map(|join| &join.node))
        && *node != config.node
    {
        return Err(disagree("node", config.node.to_string(), node.to_string()));
    }
    if let Some(join) = join
        && join.cluster != config.cluster
    {
        return Err(disagree("cluster", config.cluster.to_string(), join.cluster.to_string()));
    }
    let peer = args.peer.as_ref().or(join.map(|join| &join.peer));
    let new_peer = peer.filter(|peer| config.peer(peer).is_none());
    let Some(new_peer) = new_peer else {
        return Ok(Draft { config, new_text: None, configured: Configured::Before });
    };
    let old = fs::read_to_string(&config.file).map_err(FileError::of("read", &config.file))?;
    let new_text = text::with_peer(&old, new_peer);
    let config = Config::check(&config.file, &new_text, &Environment::of_process())?;
    Ok(Draft { config, new_text: Some(new_text), configured: Configured::Before })
}

/// There is none: the arguments say all.
fn fresh(args: &Args, file: &Path, join: Option<&Join>, environment: &Environment) -> Result<Draft, Report> {
    let (node, peer) = match (join, &args.node, &args.peer) {
        (Some(join), _, _) => (&join.node, &join.peer),
        (None, Some(node), Some(peer)) => (node, peer),
        (None, _, _) => {
            return Err(Report::new(Exit::Config, format!("there is no configuration at `{}` yet", file.display()))
                .help("run: dispatchctl init --root DIR --node THIS --peer OTHER, or with --join FILE --root DIR on the second node"));
        }
    };
    let root = match &args.root {
        Some(root) => absolute(root)?,
        None => return Err(Report::new(Exit::Usage, "--root is missing")),
    };
    let draw =
        |cluster: Uuid| Config::check(file, &text::of_new_node(&root, node, peer, cluster), environment);
    // The state directory's place does not depend on the cluster, which in turn may be known to a ledger there.
    let probe = draw(Uuid::nil())?;
    check_place("configuration", &probe.dir, &root)?;
    check_place("state directory", probe.state.path(), &root)?;
    let cluster = cluster_of(&probe, join)?;
    let new_text = text::of_new_node(&root, node, peer, cluster);
    Ok(Draft { config: draw(cluster)?, new_text: Some(new_text), configured: Configured::Now })
}

/// The join file's cluster, which the share must show; else the share's; else that of a ledger an earlier, interrupted
/// run made; else a new one.
fn cluster_of(probe: &Config, join: Option<&Join>) -> Result<Uuid, Report> {
    let on_share = shown_cluster(probe)?;
    if let Some(join) = join {
        return match on_share {
            Some(cluster) if cluster == join.cluster => Ok(cluster),
            Some(cluster) => Err(Report::new(
                Exit::Config,
                format!(
                    "the share `{}` belongs to cluster {cluster}, the join file to {}",
                    probe.root.display(),
                    join.cluster
                ),
            )
            .help("mount the share of the node that wrote the join file")),
            None => Err(Report::new(
                Exit::ShareUnreachable,
                format!("there is no CLUSTER in `{}`", probe.root.display()),
            )
            .help("mount the share there first; the node that wrote the join file has set it up")),
        };
    }
    if let Some(cluster) = on_share {
        return Ok(cluster);
    }
    match existing_ledger(probe)? {
        Some(meta) => Ok(meta.cluster),
        None => Ok(ids::uuid_v4()?),
    }
}

fn shown_cluster(config: &Config) -> Result<Option<Uuid>, Report> {
    let share = PosixShare::new(config.root.clone(), config.node.clone());
    match read_cluster(&share) {
        Ok(cluster) => Ok(cluster),
        Err(error) if error.kind == ErrorKind::Unreachable && !config.root.exists() => Ok(None),
        Err(error) if matches!(error.kind, ErrorKind::Conflict(_)) => Err(Report::of(Exit::Config, &error)
            .help("CLUSTER holds something else than a uuid: put it back, or start with an empty directory")),
        Err(error) => Err(error.into()),
    }
}

fn ledger_plan(draft: &Draft, args: &Args) -> Result<LedgerPlan, Report> {
    let config = &draft.config;
    let path = config.state.ledger_db();
    let replace = LedgerPlan::Replace { month_spent: args.month_spent };
    if let Some(meta) = existing_ledger(config)? {
        if meta.node != config.node || meta.cluster != config.cluster {
            let what = format!(
                "the ledger `{}` is of node `{}` in cluster {}",
                path.display(),
                meta.node,
                meta.cluster
            );
            return Err(Report::new(Exit::Config, what)
                .help("move it away, or name another state directory in dispatch.toml"));
        }
        return match (args.new_ledger, meta.whole) {
            (false, Whole::Yes) => Ok(LedgerPlan::Keep),
            (false, Whole::No) => Err(LedgerError::NotWhole { path }.into()),
            // An earlier run of this command did not come to its end.
            (true, Whole::No) => Ok(replace),
            (true, Whole::Yes) => {
                Err(Report::new(Exit::Config, format!("the ledger `{}` is not lost", path.display()))
                    .help("an older copy is accepted by dispatchctl recover --accept-rollback REASON; one that is no good must be moved away first"))
            }
        };
    }
    if args.new_ledger {
        return Ok(replace);
    }
    if draft.configured == Configured::Before || has_boot_record(config)? {
        let what = format!("the ledger `{}` of node `{}` is lost", path.display(), config.node);
        return Err(Report::new(Exit::Config, what)
            .help("put it back if you can; else repeat this command with --new-ledger: tasks sent before now will not run"));
    }
    Ok(LedgerPlan::First)
}

fn existing_ledger(config: &Config) -> Result<Option<Meta>, Report> {
    match ReadLedger::open(&config.state.ledger_db()).and_then(|ledger| ledger.meta()) {
        Ok(meta) => Ok(Some(meta)),
        Err(LedgerError::Absent { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a watcher of this name ever owned the node on this share. Any file of such a name counts: whether it verifies
/// cannot be asked by a node that has just drawn its key.
fn has_boot_record(config: &Config) -> Result<bool, Report> {
    let share = PosixShare::new(config.root.clone(), config.node.clone());
    match share.list(&Dir::Heartbeats, dispatch_spool::LIST_ENTRIES_MAX) {
        Ok(listing) => {
            Ok(listing.files().any(|(file, _)| matches!(file, File::Boot(node, _) if *node == config.node)))
        }
        Err(error) if error.kind == ErrorKind::Unreachable => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, FileError> {
    std::path::absolute(path).map_err(FileError::of("find the place of", path))
}
