//! `--to auto`: the best peer by what the peers last said of themselves.

use dispatch_core::policy::pick::{Known, Pick, Wanted, pick};
use dispatch_core::policy::routing::{Requirements, SdkUse};
use dispatch_core::protocol::heartbeat::Heartbeat;
use dispatch_core::protocol::names::{Name, NodeName};
use dispatch_core::protocol::task::Requires;
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::desk::Desk;
use dispatch_node::report::{Exit, Report};

use crate::args::Cli;
use crate::peer;

/// The word in the place of a node's name.
pub(crate) const AUTO: &str = "auto";
/// The profile of a task that names none (protocol section 3).
const PROFILE_DEFAULT: &str = "default";

/// Asks every peer's heartbeat, and answers the name of the one to send to.
pub(crate) fn choose(cli: &Cli, config: &Config) -> Result<NodeName, Report> {
    let now = clock::now();
    let beats: Vec<(&NodeName, Option<Heartbeat>)> =
        config.peers.keys().map(|node| (node, recent(config, node, now))).collect();
    let known: Vec<Known<'_>> =
        beats.iter().map(|(node, beat)| Known { node, heartbeat: beat.as_ref() }).collect();
    match pick(&known, &wanted(cli)?) {
        Pick::Peer(node) => Ok(node.clone()),
        Pick::None(passed) => {
            let each: Vec<String> = passed.iter().map(|(node, why)| format!("`{node}`: {why}")).collect();
            let what = format!("no node can take this task now ({})", each.join("; "));
            Err(Report::new(Exit::TryLater, what)
                .help("try again later, ask for less, or name a node with --to: the task waits there"))
        }
    }
}

/// What a peer said last, unless that is too old to count. A peer that cannot be asked is passed by, like a silent one.
fn recent(config: &Config, node: &NodeName, now: Timestamp) -> Option<Heartbeat> {
    let desk = Desk::open(config, node).ok()?;
    desk.heartbeat().ok().flatten().filter(|beat| peer::is_recent(beat, now))
}

fn wanted(cli: &Cli) -> Result<Wanted, Report> {
    let default = || {
        Name::new(PROFILE_DEFAULT).map_err(|error| Report::of(Exit::Bug, &error).while_doing("the profile"))
    };
    let requires = Requires {
        tool: cli.needs_tool.clone(),
        min_vram_gb: cli.needs_vram,
        image: cli.needs_image.clone(),
    };
    Ok(Wanted {
        profile: cli.profile.clone().map_or_else(default, Ok)?,
        requirements: Requirements::from(&requires),
        sdk: if cli.allow_sdk { SdkUse::Allowed } else { SdkUse::Denied },
    })
}
