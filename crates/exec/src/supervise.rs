//! Watching over a running agent until nothing of its tree is left.

use std::time::{Duration, Instant};

use dispatch_core::policy::price::rounded_up;
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::clock;
use dispatch_node::job::{AgentSeen, Containment, JobDir, Metered, Order, Progress};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::agent::{Agent, Answer, silent_since};
use crate::ceiling::{Ceiling, Reached};
use crate::contain::{Children, Containing};
use crate::ending::{Cause, Exit, Haste, Ladder, Rung, Step, Whom, later};
use crate::meter::Meter;
use crate::output::{Output, Printed};
use crate::stops::Stops;

/// Time between two looks for a stop; architecture asks for 250 ms.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two progress files.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// What an agent leaves behind gets so long to end by itself; less when somebody is in a hurry.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(1);
const LEFTOVERS_GRACE_SHORT: Duration = Duration::from_millis(300);
/// A process that is killed for so long and does not go is in the kernel's hands.
const HOPELESS_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at a tree that is on its way out.
const SHORT_WAIT: Duration = Duration::from_millis(20);

/// What the supervisor saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// How the agent's own process ended; `None` where it did not.
    pub(crate) exit: Option<Exit>,
    /// Why the executor ended it, if it did.
    pub(crate) cause: Option<Cause>,
    /// What the agent said.
    pub(crate) answer: Answer,
    /// What the meter came to.
    pub(crate) metered: Option<Metered>,
    /// What it printed.
    pub(crate) printed: Printed,
    /// Who it was.
    pub(crate) agent: AgentSeen,
    /// When all was over.
    pub(crate) ended_at: Timestamp,
    /// How long it took.
    pub(crate) elapsed_ms: u64,
    /// What held its tree.
    pub(crate) containment: Containment,
}

/// One running agent.
pub(crate) struct Supervisor<'a> {
    job: &'a JobDir,
    order: &'a Order,
    agent: Box<dyn Agent>,
    containing: Containing,
    stops: Stops<'a>,
    output: Output,
    pid: Pid,
    handle: Option<OwnedFd>,
    spawned: Instant,
    next_look: Instant,
    ladder: Option<Ladder>,
    exit: Option<Exit>,
    progress: ProgressFile,
    ceiling: Ceiling<'a>,
}

/// What was last said of the agent's progress.
#[derive(Debug)]
struct ProgressFile {
    seq: u64,
    next_at: Instant,
    said_up_to: Instant,
}

impl<'a> Supervisor<'a> {
    /// Begins with an agent that was just spawned.
    pub(crate) fn new(
        job: &'a JobDir,
        order: &'a Order,
        agent: Box<dyn Agent>,
        containing: Containing,
        stops: Stops<'a>,
        output: Output,
        pid: Pid,
    ) -> Supervisor<'a> {
        let spawned = output.last_at();
        Supervisor {
            job,
            order,
            agent,
            containing,
            stops,
            output,
            pid,
            // Without one, the regular look finds the end a little later.
            handle: pidfd_open(pid, PidfdFlags::empty()).ok(),
            spawned,
            next_look: later(spawned, LOOK_EVERY),
            ladder: None,
            exit: None,
            ceiling: Ceiling::of(job, order),
            progress: ProgressFile { seq: 0, next_at: later(spawned, PROGRESS_EVERY), said_up_to: spawned },
        }
    }

    /// Supervises until the agent and everything it started are gone.
    pub(crate) fn run(mut self) -> Seen {
        loop {
            let now = Instant::now();
            self.output.wait(self.handle.as_ref(), self.until_next_duty(now));
            self.output.take(self.agent.as_mut());
            let left = self.reap();
            let now = Instant::now();
            if self.exit.is_some() || left == Children::None || self.is_hopeless(now) {
                break;
            }
            self.look(now);
            self.look_at_meter(now);
            self.climb(now);
            self.tell_progress(now);
        }
        let left = self.end_leftovers();
        self.close(left)
    }

    fn until_next_duty(&self, now: Instant) -> Duration {
        let due = match &self.ladder {
            Some(ladder) => ladder.next_at(),
            None => self.own_end(now),
        };
        due.min(self.next_look).saturating_duration_since(now)
    }

    /// When it is ended without anybody wanting it: once its run is over, neither silence nor the wall clock matter.
    fn own_end(&self, now: Instant) -> Instant {
        let in_time = || self.silence_end(now).map_or(self.wall_end(), |end| end.min(self.wall_end()));
        self.agent.over_at().unwrap_or_else(in_time)
    }

    fn wall_end(&self) -> Instant {
        later(self.spawned, Duration::from_secs(self.order.timeout_s))
    }

    fn silence_end(&self, now: Instant) -> Option<Instant> {
        let limit = Duration::from_secs(self.order.silence_timeout_s);
        let tool = Duration::from_secs(self.order.tool_timeout_s);
        let since = silent_since(self.output.last_at(), self.agent.tool_open_since(), tool, now);
        (!limit.is_zero()).then(|| later(since, limit))
    }

    fn reap(&mut self) -> Children {
        let (pid, exit) = (self.pid, &mut self.exit);
        self.containing.reap(|dead, status| {
            if dead == pid {
                *exit = Exit::of(status);
            }
        })
    }

    fn is_hopeless(&self, now: Instant) -> bool {
        self.ladder.as_ref().is_some_and(|ladder| ladder.is_hopeless(now, HOPELESS_AFTER))
    }

    /// Looks whether anything ends the agent.
    fn look(&mut self, now: Instant) {
        if now >= self.next_look {
            self.next_look = later(now, LOOK_EVERY);
            if let Some(stop) = self.stops.while_running() {
                self.stop(Cause::Stop(stop), now);
            }
        }
        if let Some(over_at) = self.agent.over_at() {
            if self.ladder.is_none() && now >= over_at {
                self.begin(Cause::Over, now);
            }
            return;
        }
        if self.ladder.is_none() && now >= self.wall_end() {
            self.begin(Cause::Timeout, now);
        }
        if self.ladder.is_none() && self.silence_end(now).is_some_and(|end| now >= end) {
            self.begin(Cause::Silence, now);
        }
    }

    /// Ends it at its ceiling; a run that is over has spent what it spends, unless it begins again.
    fn look_at_meter(&mut self, now: Instant) {
        let Some(meter) = self.agent.meter().filter(|_| self.agent.is_spending()) else { return };
        match self.ceiling.reached(meter) {
            Reached::No => {}
            Reached::Whole { spent } => self.begin(Cause::OverBudget { spent }, now),
            Reached::AndMore => self.begin(Cause::SpendsOn, now),
        }
    }

    /// Ends it because somebody wants it. A run that is over has its answer: only its process goes sooner.
    fn stop(&mut self, cause: Cause, now: Instant) {
        if self.ladder.is_none() && self.agent.over_at().is_some() {
            self.begin(Cause::Over, now);
        }
        self.begin(cause, now);
    }

    fn begin(&mut self, cause: Cause, now: Instant) {
        let rungs = self.agent.ladder(cause.haste());
        match &mut self.ladder {
            Some(ladder) => ladder.hasten(cause, rungs, now),
            None => self.ladder = Some(Ladder::new(cause, rungs, now)),
        }
    }

    fn climb(&mut self, now: Instant) {
        match self.ladder.as_mut().map_or(Step::Wait, |ladder| ladder.step(now)) {
            Step::Wait => {}
            Step::Send(Rung { signal, whom, .. }) => match (whom, &self.handle) {
                (Whom::Agent, Some(handle)) => {
                    pidfd_send_signal(handle, signal).ok();
                }
                (Whom::Agent, None) | (Whom::Tree, _) => self.containing.signal(signal),
            },
            Step::Kill => self.containing.kill(),
        }
    }

    fn tell_progress(&mut self, now: Instant) {
        if now < self.progress.next_at || self.output.last_at() == self.progress.said_up_to {
            return;
        }
        let far = self.agent.how_far();
        self.progress.seq = self.progress.seq.saturating_add(1);
        self.progress.next_at = later(now, PROGRESS_EVERY);
        self.progress.said_up_to = self.output.last_at();
        // Progress that is lost is told again soon.
        drop(self.job.write_progress(&Progress {
            epoch: self.order.epoch,
            seq: self.progress.seq,
            at: clock::now(),
            elapsed_ms: millis(now.saturating_duration_since(self.spawned)),
            turns: far.turns,
            last_tool: far.last_tool,
            tokens: far.tokens,
            usd: far.usd.map(rounded_up),
            last_line: far.last_line.or_else(|| self.output.last_line()),
        }));
    }

    /// Ends what outlived the agent's own process: first asked, then killed.
    fn end_leftovers(&mut self) -> Children {
        if self.reap() == Children::None {
            return Children::None;
        }
        self.containing.signal(Signal::TERM);
        let haste = self.ladder.as_ref().map_or(Haste::Normal, |ladder| ladder.cause.haste());
        let grace = match haste {
            Haste::Normal => LEFTOVERS_GRACE,
            Haste::Short => LEFTOVERS_GRACE_SHORT,
        };
        let start = Instant::now();
        let (kill_at, give_up_at) = (later(start, grace), later(start, HOPELESS_AFTER));
        loop {
            let now = Instant::now();
            if now >= kill_at {
                self.containing.kill();
            }
            self.output.take(self.agent.as_mut());
            let left = self.reap();
            if left == Children::None || now >= give_up_at {
                return left;
            }
            self.output.wait(None, SHORT_WAIT);
        }
    }

    fn close(mut self, left: Children) -> Seen {
        let ended_at = clock::now();
        let elapsed_ms = millis(self.spawned.elapsed());
        let containment = self.containing.seen(left);
        let printed = self.output.finish(self.agent.as_mut());
        let cause = self.ladder.map(|ladder| ladder.cause);
        let answer = self.agent.answer(self.exit.filter(|_| cause != Some(Cause::Over)));
        let metered = self.agent.meter().and_then(Meter::metered);
        self.containing.remove();
        Seen {
            exit: self.exit,
            cause,
            agent: AgentSeen {
                profile: self.order.profile.clone(),
                kind: self.order.kind,
                version: answer.version.clone(),
                session_id: answer.session_id.clone(),
            },
            answer,
            metered,
            printed,
            ended_at,
            elapsed_ms,
            containment,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
