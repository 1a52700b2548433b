//! `dispatchctl kill` and `resume`: the killswitch, in its three places (protocol section 8).

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_node::config::Config;
use dispatch_node::door::{AskError, Verb, ask};
use dispatch_node::durations;
use dispatch_node::files::{FileError, replace_synced};
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_node::state::{Watched, watched};
use dispatch_spool::{ErrorKind, File, PosixShare, Published, Removed, Share as _, TripMode, killswitch};
use serde_json::json;

use super::door::{ANSWER_WAIT, WhyArgs};
use crate::beats::Beats;
use crate::context::{Context, share};
use crate::named::ledger;

/// From one look at the heartbeats to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a node may take to notice that a killswitch is gone.
const NOTICE: Duration = Duration::from_secs(2);

/// Trip the killswitch: nothing new starts, on all nodes, one node or one lane
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl kill \"something runs away\"\n  dispatchctl kill --now \"stop all agents\"\n  dispatchctl kill --node \"only here\""))]
pub(crate) struct KillArgs {
    /// End what runs too
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    place: PlaceArgs,
    /// Why, for everybody who meets it
    #[arg(required = true, value_name = "REASON")]
    reason: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Go on after a killswitch: remove it, and lift this node's latch
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl resume\n  dispatchctl resume --lane devbox-to-gpubox"))]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    why: WhyArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
struct PlaceArgs {
    /// Only this node
    #[arg(long, conflicts_with = "lane")]
    node: bool,
    /// Only this lane, FROM-to-TO
    #[arg(long, value_parser = Lane::parse)]
    lane: Option<Lane>,
}

#[derive(Debug, clap::Args)]
struct WaitArgs {
    /// How long the other nodes are waited for
    #[arg(long = "wait", value_name = "DURATION", default_value = "30s", value_parser = durations::parse)]
    longest: Duration,
}

/// Where a killswitch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Lane(Lane),
    Node,
}

impl Place {
    fn of(args: &PlaceArgs) -> Option<Place> {
        match (args.node, &args.lane) {
            (true, _) => Some(Place::Node),
            (false, Some(lane)) => Some(Place::Lane(lane.clone())),
            (false, None) => None,
        }
    }

    fn file(&self) -> Option<File> {
        match self {
            Place::Root => Some(File::Killswitch),
            Place::Lane(lane) => Some(File::lane_killswitch(lane)),
            Place::Node => None,
        }
    }

    fn path(&self, config: &Config) -> std::path::PathBuf {
        self.file().map_or_else(|| config.state.killswitch(), |file| config.root.join(file.path()))
    }

    /// The nodes that it stops, as far as this one knows.
    fn nodes(&self, config: &Config) -> BTreeSet<NodeName> {
        let own = std::iter::once(config.node.clone());
        match self {
            Place::Node => own.collect(),
            Place::Root => own.chain(config.peers.keys().cloned()).collect(),
            Place::Lane(lane) => [lane.from.clone(), lane.to.clone()].into(),
        }
    }
}

pub(crate) fn kill(args: &KillArgs, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let place = Place::of(&args.place).unwrap_or(Place::Root);
    known_lane(&config, &place)?;
    let reason = args.reason.join(" ");
    let mode = if args.now { TripMode::Kill } else { TripMode::Halt };
    trip(&config, &place, &text(mode, reason.trim()), mode)?;
    context.say(&format!("tripped: {}", place.path(&config).display()))?;
    let seen = await_tripped(&config, &place, args.wait.longest)?;
    context.say_json(&json!({
        "tripped": place.path(&config),
        "mode": if args.now { "kill" } else { "halt" },
        "seen": names(&seen.seen),
        "not_seen": names(&seen.missing),
        "no_watcher": names(&seen.away),
    }))?;
    if !seen.seen.is_empty() {
        context.say(&format!("stopped: {}", names(&seen.seen).join(", ")))?;
    }
    if !seen.away.is_empty() {
        context.tell(&format!("no watcher seems to run on: {}", names(&seen.away).join(", ")));
    }
    if !seen.missing.is_empty() {
        context.tell(&format!("not shown in the heartbeat yet: {}", names(&seen.missing).join(", ")));
    }
    Ok(Exit::Done)
}

/// The killswitch's text: in kill mode the first line says so, in halt mode it must not.
fn text(mode: TripMode, reason: &str) -> String {
    if mode == TripMode::Kill {
        format!("kill\n{reason}\n")
    } else if reason.lines().next().is_some_and(|first| first.trim() == "kill") {
        format!("reason: {reason}\n")
    } else {
        format!("{reason}\n")
    }
}

fn known_lane(config: &Config, place: &Place) -> Result<(), Report> {
    let Place::Lane(lane) = place else { return Ok(()) };
    let ours = (lane.from == config.node && config.peer(&lane.to).is_some())
        || (lane.to == config.node && config.peer(&lane.from).is_some());
    if ours {
        return Ok(());
    }
    Err(Report::new(Exit::Usage, format!("this node is no end of a lane `{lane}`"))
        .help("name it as FROM-to-TO, one of them this node and the other a peer"))
}

/// Puts the killswitch there. One that is there stays, unless what runs is to be ended too.
fn trip(config: &Config, place: &Place, text: &str, mode: TripMode) -> Result<(), Report> {
    let Some(file) = place.file() else {
        let path = config.state.killswitch();
        if killswitch::local(&path).is_none() || mode == TripMode::Kill {
            config.state.create(&config.root)?;
            replace_synced(&path, text.as_bytes(), 0o600)?;
        }
        return Ok(());
    };
    let share = share(config);
    match share.publish_once(&file, text.as_bytes()) {
        Ok(Published::Created | Published::AlreadyPresent) => Ok(()),
        Err(error) if matches!(error.kind, ErrorKind::Conflict(_)) && mode == TripMode::Kill => {
            Ok(share.replace(&file, text.as_bytes())?)
        }
        Err(error) if matches!(error.kind, ErrorKind::Conflict(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Who shows what was waited for.
#[derive(Default)]
struct Seen {
    seen: BTreeSet<NodeName>,
    missing: BTreeSet<NodeName>,
    away: BTreeSet<NodeName>,
}

fn await_tripped(config: &Config, place: &Place, longest: Duration) -> Result<Seen, Report> {
    let beats = Beats::of(config)?;
    let started = Instant::now();
    loop {
        let mut seen = Seen::default();
        for node in place.nodes(config) {
            let here = node == config.node;
            let beat = if here && watched(&config.state)? == Watched::Free {
                None
            } else {
                beats.read_alive(&node)?
            };
            let kind = match beat {
                None => &mut seen.away,
                Some(beat) if beat.killswitch.tripped => &mut seen.seen,
                Some(_) => &mut seen.missing,
            };
            kind.insert(node);
        }
        if seen.missing.is_empty() || started.elapsed() >= longest {
            return Ok(seen);
        }
        thread::sleep(LOOK_EVERY);
    }
}

pub(crate) fn resume(args: &ResumeArgs, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let places = match Place::of(&args.place) {
        Some(place) => vec![place],
        None => every_place(&config),
    };
    places.iter().try_for_each(|place| known_lane(&config, place))?;
    let beats = Beats::of(&config)?;
    let others: BTreeSet<NodeName> =
        places.iter().flat_map(|place| place.nodes(&config)).filter(|node| *node != config.node).collect();
    let before: Vec<(NodeName, (u64, u64))> = others
        .into_iter()
        .filter_map(|node| beats.read_alive(&node).ok().flatten().map(|beat| (node, beat.position())))
        .collect();
    let share = share(&config);
    for place in &places {
        if lift(&config, &share, place)? == Removed::Removed {
            context.say(&format!("removed: {}", place.path(&config).display()))?;
        }
    }
    let said = unlatch(&config, args)?;
    context.say(&said)?;
    let stopped = still_stopped(&beats, before, args.wait.longest)?;
    context.say_json(&json!({"ok": said, "still_stopped": names(&stopped)}))?;
    for node in &stopped {
        context.tell(&format!("{node} stays stopped until `dispatchctl resume` runs on it"));
    }
    Ok(Exit::Done)
}

/// Every place that stops this node.
fn every_place(config: &Config) -> Vec<Place> {
    let lanes = config.peers.keys().flat_map(|peer| {
        let lane = Lane::new(config.node.clone(), peer.clone());
        [Place::Lane(lane.reversed()), Place::Lane(lane)]
    });
    [Place::Root, Place::Node].into_iter().chain(lanes).collect()
}

/// Removes a killswitch, in whatever form it stands there.
fn lift(config: &Config, share: &PosixShare, place: &Place) -> Result<Removed, Report> {
    let Some(file) = place.file() else { return lift_local(config).map_err(Report::from) };
    let path = config.root.join(file.path());
    match share.remove(&file) {
        Ok(removed) => Ok(removed),
        // No file: a directory somebody made, which goes when it is empty.
        Err(error) => match fs::remove_dir(&path) {
            Ok(()) => Ok(Removed::Removed),
            Err(_) => Err(Report::from(error).help(format!("remove it by hand: {}", path.display()))),
        },
    }
}

fn lift_local(config: &Config) -> Result<Removed, FileError> {
    let path = config.state.killswitch();
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == IoErrorKind::IsADirectory => fs::remove_dir_all(&path),
        other => other,
    };
    match removed {
        Ok(()) => Ok(Removed::Removed),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(Removed::Absent),
        Err(source) => Err(FileError { op: "remove", path, source }),
    }
}

/// Lifts the latch through the watcher. Without one there may be nothing to lift.
fn unlatch(config: &Config, args: &ResumeArgs) -> Result<String, Report> {
    match ask(&config.state, Verb::Resume, &args.why.reason, args.why.claimed.as_deref(), ANSWER_WAIT) {
        Ok(text) => Ok(text),
        Err(AskError::NoWatcher) => {
            let latched = match ledger(config)? {
                Some(ledger) => !ledger.open_trips()?.is_empty(),
                None => false,
            };
            if latched {
                return Err(Report::from(AskError::NoWatcher)
                    .help("start dispatch-watch, then run dispatchctl resume again: the latch is the watcher's to lift"));
            }
            Ok("nothing is latched here".to_owned())
        }
        Err(error) => Err(error.into()),
    }
}

/// The other nodes that have beaten since and still show themselves stopped: their own latch holds.
fn still_stopped(
    beats: &Beats<'_>,
    before: Vec<(NodeName, (u64, u64))>,
    longest: Duration,
) -> Result<BTreeSet<NodeName>, Report> {
    let started = Instant::now();
    let mut open = before;
    let mut stopped = BTreeSet::new();
    while !open.is_empty() {
        let late = started.elapsed() >= longest;
        let mut next = Vec::new();
        for (node, position) in open {
            match beats.read_alive(&node)? {
                Some(beat) if !beat.killswitch.tripped => {}
                // A beat may have been on its way when the file went; one that comes later knows.
                Some(beat) if late || (started.elapsed() >= NOTICE && beat.position() > position) => {
                    stopped.insert(node);
                }
                Some(_) => next.push((node, position)),
                None => {}
            }
        }
        open = next;
        if !open.is_empty() {
            thread::sleep(LOOK_EVERY);
        }
    }
    Ok(stopped)
}

fn names(nodes: &BTreeSet<NodeName>) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_whose_reason_is_the_word_kill_stays_a_halt() {
        use dispatch_spool::Trip;
        for (asked, reason, mode) in [
            (TripMode::Halt, "kill", TripMode::Halt),
            (TripMode::Halt, " kill \nmore", TripMode::Halt),
            (TripMode::Halt, "stop", TripMode::Halt),
            (TripMode::Kill, "stop", TripMode::Kill),
        ] {
            assert_eq!(Trip::from_text(text(asked, reason).as_bytes()).mode, mode, "{reason}");
        }
        assert_eq!(Trip::from_text(text(TripMode::Kill, "why").as_bytes()).reason, "why");
    }
}
