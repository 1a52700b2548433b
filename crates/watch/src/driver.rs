//! The loop: wake, look, plan, act.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_ledger::{Disposition, Ledger, LedgerError};
use dispatch_node::config::{Config, Strategy as Wanted};
use dispatch_node::ids;
use dispatch_node::notify_systemd::ServiceManager;
use dispatch_node::report::{Exit, Report, one_line};
use dispatch_node::state::{Acquired, WatchLock};
use dispatch_spool::hint::{Hints, Rings, Strategy, strategy_for};
use dispatch_spool::layout::{Area, Dir};
use dispatch_spool::posix::PosixShare;
use dispatch_spool::share::Share;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::agents_door::DoorEars;
use crate::args::Args;
use crate::attempts::Care;
use crate::home::Home;
use crate::node::{Leave, Node, Reach};
use crate::owning::{self, OwnError};
use crate::voice::Voice;
use crate::wake::{Wake, Wakes, ring};
use crate::workers::Workers;

/// The strategies that this release has, as heartbeats name them.
pub(crate) const INOTIFY: &str = "inotify";
const POLL: &str = "poll";
/// A share operation that takes longer makes the share unreachable.
const SHARE_DEADLINE: Duration = Duration::from_secs(10);
/// The ledger learns at the latest after so long that files were moved. It is learned anew after a crash, so it waits for
/// the next transaction that something else needs.
const MARKED_AFTER: Duration = Duration::from_millis(100);
/// Looks while inotify rings: what it misses costs so long, no more.
const TICK_RUNG: Duration = Duration::from_secs(5);
/// Looks where nothing rings.
const TICK_POLLED: Duration = Duration::from_secs(1);
/// Looks while executors run that are not our children: no signal says that they ended.
const TICK_ADOPTED: Duration = Duration::from_millis(200);
/// A start is worth a look after so long.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// A ledger that could not be used is left alone for so long.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);
/// Executors past their deadlines are looked for this often.
const CARE_EVERY: Duration = Duration::from_secs(10);

/// Sets the watcher up, becomes the owner, and runs it to its end.
pub(crate) fn run(args: &Args) -> Result<Exit, Report> {
    let config = Config::load(args.common.config.as_deref())?;
    check_side(args, &config)?;
    let only = only(args)?;
    let service = ServiceManager::of_process().map_err(|error| Report::of(Exit::Config, &error))?;
    let lock = lock(&config)?;
    let mut ledger = open_ledger(&config)?;
    let instance = ids::uuid_v4().map_err(|error| Report::of(Exit::LocalIo, &error))?;
    let mut home = Home::new(config, instance)?;
    let share: Arc<dyn Share> = Arc::new(PosixShare::new(home.config.root.clone(), home.node.clone()));
    home.boot = owning::own(share.as_ref(), &home, &mut ledger, &lock).map_err(|error| not_owner(&error))?;
    let wakes = Wakes::new();
    listen_to_signals(&wakes)?;
    let ears = watch(&home.config, share.as_ref(), wakes.sender());
    let workers = Workers::new(share, wakes.sender(), SHARE_DEADLINE);
    let mut node = Node::new(home, ledger, workers, executor()?);
    node.only = only;
    node.strategy = ears.strategy;
    node.poll = ears.tick(&node.home.config);
    tracing::info!(node = %node.home.node, boot = node.home.boot, strategy = ears.strategy, "watching");
    let mut looping = Loop {
        door_ears: DoorEars::new(wakes.sender()),
        node,
        wakes,
        service,
        ears,
        once: args.once,
        ready: false,
        cared: None,
        paused_until: None,
        voice: Voice::default(),
    };
    let ended = looping.run();
    looping.node.leave_herald();
    drop(looping.service.stopping());
    drop(lock);
    ended
}

fn check_side(args: &Args, config: &Config) -> Result<(), Report> {
    match &args.side {
        Some(side) if side != config.node.as_str() => Err(Report::new(
            Exit::Usage,
            format!("--side says `{side}`, the configuration says `{}`", config.node),
        )
        .help("leave --side out, or name another --config")),
        Some(_) | None => Ok(()),
    }
}

fn only(args: &Args) -> Result<Option<TaskId>, Report> {
    args.only.as_deref().map(TaskId::parse_any_version).transpose().map_err(|error| {
        Report::of(Exit::Usage, &error).help("give the whole id: dispatchctl list --json shows it")
    })
}

fn lock(config: &Config) -> Result<WatchLock, Report> {
    match WatchLock::acquire(&config.state) {
        Ok(Acquired::Held(lock)) => Ok(lock),
        Ok(Acquired::ByAnother) => Err(Report::new(
            Exit::AnotherWatcher,
            format!("another watcher runs on `{}`", config.state.path().display()),
        )
        .help("there is one watcher per node: stop the other one first")),
        Err(error) => Err(Report::of(Exit::LocalIo, &error)),
    }
}

fn open_ledger(config: &Config) -> Result<Ledger, Report> {
    let ledger = Ledger::open(&config.state.ledger_db())?;
    let meta = ledger.meta().map_err(|error| ledger_failed(&error))?;
    if meta.node == config.node && meta.cluster == config.cluster {
        return Ok(ledger);
    }
    Err(Report::new(
        Exit::Config,
        format!("this ledger is that of node `{}` of cluster {}", meta.node, meta.cluster),
    )
    .help("every node has a state directory of its own: set state = in dispatch.toml"))
}

fn not_owner(error: &OwnError) -> Report {
    match error {
        OwnError::Owned { .. } | OwnError::Alive => Report::of(Exit::AnotherWatcher, error).help(
            "stop the other watcher of this node; or, if it is gone for good, take ownership: dispatchctl recover --accept-rollback REASON",
        ),
        OwnError::Unreachable(_) | OwnError::Share(_) => Report::of(Exit::ShareUnreachable, error).help("mount the share, then start again"),
        OwnError::NoKey => Report::of(Exit::Config, error).help("dispatchctl init --peer NODE makes a key"),
        OwnError::Ledger(ledger) if ledger.is_fenced() => Report::of(Exit::AnotherWatcher, error),
        OwnError::Ledger(_) | OwnError::Lock(_) | OwnError::Machine(_) => Report::of(Exit::LocalIo, error),
    }
}

fn ledger_failed(error: &LedgerError) -> Report {
    let exit = if error.is_fenced() { Exit::AnotherWatcher } else { Exit::LocalIo };
    Report::of(exit, error).while_doing("cannot go on with this ledger")
}

/// The executor beside this very program, so that one release runs with its own.
fn executor() -> Result<PathBuf, Report> {
    let own = std::env::current_exe().map_err(|error| {
        Report::of(Exit::LocalIo, &error).while_doing("cannot find this program's own path")
    })?;
    let executor = own.with_file_name("dispatch-exec");
    if executor.is_file() {
        Ok(executor)
    } else {
        Err(Report::new(Exit::Config, format!("`{}` is not there", executor.display()))
            .help("install dispatch-exec beside dispatch-watch"))
    }
}

fn listen_to_signals(wakes: &Wakes) -> Result<(), Report> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])
        .map_err(|error| Report::of(Exit::LocalIo, &error).while_doing("cannot listen to signals"))?;
    let sender = wakes.sender();
    thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || {
            for signal in signals.forever() {
                let wake = match signal {
                    SIGCHLD => Wake::Child,
                    SIGHUP => Wake::Reload,
                    SIGINT => Wake::Interrupt,
                    _ => Wake::Leave,
                };
                // However many hints wait, a signal waits behind them and is not dropped.
                if sender.send(wake).is_err() {
                    return;
                }
            }
        })
        .map(drop)
        .map_err(|error| Report::of(Exit::LocalIo, &error).while_doing("cannot start a thread"))
}

/// How changes of the share make themselves heard.
struct Ears {
    strategy: &'static str,
    /// Dropping them ends the watching.
    hints: Option<Hints>,
}

impl Ears {
    /// True when the kernel tells of every change of the share, so that the tick is only a safety net.
    fn ring(&self) -> bool {
        self.strategy == INOTIFY && self.hints.is_some()
    }

    /// How often to look although nothing rings.
    fn tick(&self, config: &Config) -> Duration {
        if self.ring() { TICK_RUNG } else { config.watch.poll.unwrap_or(TICK_POLLED) }
    }
}

/// Watches the directories that matter. The door is on the node's own disk and rings always; the share rings only where
/// every change passes through this kernel.
fn watch(config: &Config, share: &dyn Share, sender: SyncSender<Wake>) -> Ears {
    let polled = |hints| Ears { strategy: POLL, hints };
    let Ok(mut hints) = Hints::new(move || ring(&sender, Wake::Hint)) else { return polled(None) };
    let local = [
        (config.state.requests(), Rings::Appearing),
        // The ledger lies there too, and every page that is written to it would ring.
        (config.state.path().to_owned(), Rings::Named(&["KILLSWITCH"])),
    ];
    for (dir, rings) in local {
        if let Err(error) = hints.watch(&dir, rings) {
            tracing::warn!(error = %one_line(&error), "cannot watch; the tick looks instead");
        }
    }
    let is_local = match config.watch.strategy {
        // A mount that could notify is polled in this release.
        Wanted::Poll | Wanted::SmbNotify => false,
        Wanted::Inotify => true,
        Wanted::Auto => share.facts().is_ok_and(|facts| strategy_for(&facts) == Strategy::Inotify),
    };
    if !is_local {
        return polled(Some(hints));
    }
    let mut dirs = vec![Dir::Root];
    for peer in config.peers.keys() {
        let lane = Lane::new(peer.clone(), config.node.clone());
        dirs.extend(
            [Area::Top, Area::Inbox, Area::Control, Area::PendingAck].map(|area| Dir::lane(&lane, area)),
        );
    }
    for dir in &dirs {
        if let Err(error) = hints.watch_dir(&config.root, dir) {
            tracing::warn!(error = %one_line(&error), "cannot watch; the tick looks instead");
            return polled(Some(hints));
        }
    }
    // Answers to what this node sends for its tasks; without a bell the tick finds them.
    for peer in config.peers.keys() {
        let done = Dir::lane(&Lane::new(config.node.clone(), peer.clone()), Area::Done);
        if let Err(error) = hints.watch(&config.root.join(done.path()), Rings::Ending(".result.json")) {
            tracing::debug!(error = %one_line(&error), "cannot watch for answers; the tick looks instead");
        }
    }
    Ears { strategy: INOTIFY, hints: Some(hints) }
}

struct Loop {
    node: Node,
    wakes: Wakes,
    service: ServiceManager,
    /// Kept for as long as the loop runs.
    ears: Ears,
    door_ears: DoorEars,
    once: bool,
    ready: bool,
    cared: Option<Instant>,
    paused_until: Option<Instant>,
    voice: Voice,
}

impl Loop {
    fn run(&mut self) -> Result<Exit, Report> {
        let mut next_tick = Instant::now();
        let mut wanted = true;
        loop {
            if wanted && !self.node.is_looking() && !self.is_paused() {
                wanted = false;
                self.reload_if_wanted();
                next_tick = self.next_tick();
                if let Err(error) = self.node.start_round() {
                    self.go_on_or_leave(error)?;
                }
            }
            let deadline = self.deadline(self.due(next_tick));
            let first = self.wakes.next(deadline);
            let mut complete = false;
            let mut wake = first;
            while let Some(now) = wake {
                match now {
                    Wake::Hint | Wake::Child => wanted = true,
                    Wake::Leave if !self.once => return Ok(Exit::Done),
                    // Not everything is done that `--once` was to do.
                    Wake::Leave | Wake::Interrupt => return Ok(Exit::Interrupted),
                    Wake::Reload => {
                        self.node.reload_wanted = true;
                        wanted = true;
                    }
                    Wake::Share(done) => complete |= self.node.answered(*done),
                }
                wake = self.wakes.try_next();
            }
            wanted |= Instant::now() >= self.due(next_tick) || self.node.again;
            if complete || self.node.round_is_late() {
                let care = self.care();
                match self.node.pass(care) {
                    Ok(()) => wanted |= self.node.again || self.node.reload_wanted,
                    Err(error) => self.go_on_or_leave(error)?,
                }
                self.after_pass();
                // A back-off, a launch or an adoption of this pass may be due before the tick that it began with.
                next_tick = next_tick.min(self.next_tick());
                if self.once && self.is_done()? {
                    return self.once_exit();
                }
            }
            if !self.is_paused()
                && let Err(error) = self.node.report_progress()
            {
                self.go_on_or_leave(error)?;
            }
            self.feed_watchdog();
        }
    }

    /// When to look although nothing rings.
    fn next_tick(&self) -> Instant {
        let now = Instant::now();
        let every = if self.node.adopted > 0 { TICK_ADOPTED.min(self.node.poll) } else { self.node.poll };
        let every = if self.once { every.min(TICK_ADOPTED) } else { every };
        let mut at = now.checked_add(every).unwrap_or(now);
        if let Some(soon) =
            self.node.look_soon.and_then(|since| since.checked_add(LOOK_SOON)).filter(|soon| *soon > now)
        {
            at = at.min(soon);
        }
        if let Some(due) = self.node.next_due() {
            at = at.min(now.checked_add(due).unwrap_or(at));
        }
        if let Some(beat) = self.node.next_beat().filter(|beat| *beat > now) {
            at = at.min(beat);
        }
        at
    }

    /// The tick, or sooner what waits for no event: moves that the ledger should know of, tasks to be filed.
    fn due(&self, next_tick: Instant) -> Instant {
        let rest = if self.once { Duration::ZERO } else { MARKED_AFTER };
        let marks = self.node.moved_since.and_then(|since| since.checked_add(rest));
        marks.into_iter().chain(self.node.file_at).fold(next_tick, Instant::min)
    }

    fn deadline(&self, next_tick: Instant) -> Instant {
        if self.node.round_is_late() {
            return Instant::now();
        }
        let next_tick = self.paused_until.map_or(next_tick, |until| next_tick.max(until));
        let watchdog = self.service.watchdog_every().and_then(|every| Instant::now().checked_add(every));
        let report = self.node.next_report().filter(|_| !self.is_paused());
        [self.node.workers.next_deadline().filter(|_| self.node.is_looking()), watchdog, report]
            .into_iter()
            .flatten()
            .fold(if self.node.is_looking() { far(next_tick) } else { next_tick }, Instant::min)
    }

    fn care(&mut self) -> Care {
        if self.cared.is_some_and(|at| at.elapsed() < CARE_EVERY) {
            return Care::Endings;
        }
        self.cared = Some(Instant::now());
        Care::Deadlines
    }

    fn after_pass(&mut self) {
        self.voice.say_changes(&self.node);
        self.door_ears.listen_at(self.node.agent_doors.requests_dirs());
        if !self.ready {
            self.ready = true;
            drop(self.service.ready("watching"));
        }
    }

    /// A ledger that is busy, or has no room on its disk, is tried again after a pause: what runs is supervised meanwhile.
    /// Everything else ends this watcher.
    fn go_on_or_leave(&mut self, error: Leave) -> Result<(), Report> {
        match error {
            Leave::Ledger(error) if error.disposition() == Disposition::Retry => {
                tracing::error!(error = %one_line(&error), "the ledger cannot be used now; it is tried again");
                self.paused_until = Instant::now().checked_add(LEDGER_PAUSE);
                Ok(())
            }
            error @ (Leave::Ledger(_) | Leave::Superseded { .. }) => Err(leave(error)),
        }
    }

    /// Watches what the configuration, as it was read again, says.
    fn listen(&mut self) {
        self.ears = watch(&self.node.home.config, self.node.workers.share(), self.wakes.sender());
        self.node.strategy = self.ears.strategy;
        self.node.poll = self.ears.tick(&self.node.home.config);
    }

    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    /// Between two rounds, so that whatever the next one finds (a new approver's decision) is judged by the new file.
    fn reload_if_wanted(&mut self) {
        if self.node.reload_wanted {
            self.node.reload_wanted = false;
            self.node.reload();
            self.listen();
        }
    }

    fn feed_watchdog(&self) {
        if self.service.watchdog_every().is_some() {
            drop(self.service.alive());
        }
    }

    /// `--once`: nothing is left to do, and every executor that this started has ended and is answered.
    fn is_done(&self) -> Result<bool, Report> {
        if !self.node.is_quiet() || self.node.executors.len() > 0 {
            return Ok(false);
        }
        if self.node.higher_since.is_some() {
            // Whether another watcher owns this node is known in a few seconds.
            return Ok(false);
        }
        let state = self.node.node_state().map_err(|error| ledger_failed(&error))?;
        let held = self.node.reach != Reach::Here
            || self.node.stopped.node.is_some()
            || state == NodeState::Recovery;
        Ok(held || self.node.nothing_left().map_err(|error| ledger_failed(&error))?)
    }

    /// `--only`: the task it names was somewhere.
    fn check_only(&self) -> Result<(), Report> {
        let Some(id) = self.node.only else { return Ok(()) };
        match self
            .node
            .ledger
            .tasks_named(&id.to_string(), 1)
            .map_err(|error| ledger_failed(&error))?
            .is_empty()
        {
            false => Ok(()),
            true => Err(Report::new(Exit::NoSuchTask, format!("no task {id} has come")).help(
                "it may have been refused: dispatchctl audit show; dispatchctl list shows what is here",
            )),
        }
    }

    fn once_exit(&self) -> Result<Exit, Report> {
        if let Reach::Unreachable(why) = &self.node.reach {
            return Err(Report::new(Exit::ShareUnreachable, "the share cannot be reached")
                .while_doing(why.clone())
                .help("mount the share, then run it again"));
        }
        if let Some((_, why)) = &self.node.stopped.node {
            return Err(Report::new(Exit::NotPermitted, format!("a killswitch stops this node: {why}"))
                .help("dispatchctl status says which; dispatchctl resume goes on when it is gone"));
        }
        if let Some(from) = self.node.stopped.lanes.keys().next() {
            return Err(Report::new(Exit::NotPermitted, format!("a killswitch stops the lane from {from}"))
                .help("dispatchctl status says which; dispatchctl resume goes on when it is gone"));
        }
        self.check_only()?;
        match self.node.node_state().map_err(|error| ledger_failed(&error))? {
            NodeState::Recovery => {
                Err(Report::new(Exit::Config, "this ledger is older than what this node has shown its peers")
                    .help("dispatchctl recover --accept-rollback REASON takes it as it is"))
            }
            NodeState::Active
            | NodeState::EnteringMaintenance
            | NodeState::Maintenance
            | NodeState::ExitingMaintenance
            | NodeState::DrainFailed => Ok(Exit::Done),
        }
    }
}

/// Later than any tick: while looks are outstanding, only their answers and deadlines matter.
fn far(from: Instant) -> Instant {
    from.checked_add(Duration::from_secs(3_600)).unwrap_or(from)
}

fn leave(leave: Leave) -> Report {
    match leave {
        Leave::Superseded { boot } => {
            Report::new(Exit::AnotherWatcher, format!("another watcher owns this node now: boot {boot}")).help(
                "stop the other watcher; or, if it is gone for good, dispatchctl recover --accept-rollback REASON",
            )
        }
        Leave::Ledger(error) => ledger_failed(&error),
    }
}
