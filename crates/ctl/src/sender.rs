//! What a verb does as the sender of a task: the desk of its lane, and the care that every command takes of what is kept
//! or unanswered where no watcher does.

use std::thread::sleep;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::Lane;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::desk::Desk;
use dispatch_node::outgoing::Outgoing;
use dispatch_node::report::Report;
use dispatch_node::state::{Watched, watched};
use dispatch_spool::{RootLook, RootSeen};

use crate::context::Context;

/// The desk of a lane that begins here, with a share that is there.
pub(crate) fn desk(config: &Config, lane: &Lane) -> Result<Desk, Report> {
    let desk = Desk::open(config, &lane.to)?;
    reachable(&desk)?;
    Ok(desk)
}

/// What a look at the root and the lane found.
pub(crate) fn reachable(desk: &Desk) -> Result<RootSeen, Report> {
    match desk.look() {
        RootLook::Reachable(seen) => Ok(seen),
        RootLook::Unreachable(why) => Err(why.into()),
    }
}

/// Where no watcher holds this state directory: sends what is kept, puts back what is unanswered, and says what has become
/// so. What fails is said too, and keeps nobody from what he asked for.
pub(crate) fn care(config: &Config, context: &Context) {
    if let Err(report) = try_care(config, context) {
        context.tell(&format!("what is kept here could not be looked after: {}", report.one_line()));
    }
}

fn try_care(config: &Config, context: &Context) -> Result<(), Report> {
    if watched(&config.state)? == Watched::Held {
        return Ok(());
    }
    for lane in Outgoing::lanes(&config.state)? {
        if lane.from != config.node || config.peer(&lane.to).is_none() {
            continue;
        }
        let desk = desk(config, &lane)?;
        let done = desk.outgoing.upkeep(&desk.mail())?;
        for id in &done.flushed.published {
            context.tell(&format!("sent {id}, which was kept from before"));
        }
        for id in &done.unanswered {
            context.tell(&format!("unanswered: no result of {id} came in time"));
        }
        let marked = desk.outgoing.mark_told(&done, clock::now());
        if let Some((id, why)) = done.flushed.stuck {
            context.tell(&format!("{id} stays kept: {}", Report::from(why).one_line()));
        }
        marked?;
    }
    Ok(())
}

/// How long something else at a message's name is waited out (protocol section 1, "Squatting").
const SQUATTED: Duration = Duration::from_secs(30);
/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(200);

/// Publishes again until its reader has set aside what lies at the message's name, or its time is over. Answers what the
/// last try came to.
pub(crate) fn past_squatting<T, E>(
    mut publish: impl FnMut() -> Result<T, E>,
    is_squatted: impl Fn(&T) -> bool,
) -> Result<T, E> {
    let started = Instant::now();
    loop {
        let done = publish()?;
        if !is_squatted(&done) || started.elapsed() >= SQUATTED {
            return Ok(done);
        }
        sleep(PAUSE);
    }
}
