//! Waiting for a task that this node received: its ledger is looked at, nobody has to be believed.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_ledger::{ReadLedger, TaskRow};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::document::Document;
use dispatch_node::outgoing::RecordPlace;
use dispatch_node::progress::{HowFar, Places};
use dispatch_node::report::Report;
use dispatch_node::waiting::{self, Sight, Stopped, Stops, Whereabouts, Without};
use dispatch_spool::File;

use crate::answer::{self, Answer, Answering};
use crate::named::{Found, SentTask, ledger};
use crate::sender;

/// From one look into the ledger to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Most sent tasks that are looked for on the share at a time.
const LOOKED_AT_MAX: usize = 32;
/// How long that may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// How waiting here ended.
pub(crate) enum End {
    /// The task is final.
    Answer(Box<Answer>),
    /// A person stopped the waiting.
    Without(Without),
}

/// Waits until a task is final, and shows where it is meanwhile; `look` is called in every round, after the question
/// whether it is final.
pub(crate) fn wait(
    config: &Config,
    found: &Found,
    row: &TaskRow,
    mut look: impl FnMut(Option<&Sight>) -> Result<(), Report>,
) -> Result<End, Report> {
    let stops = Stops::listen();
    loop {
        if let Answering::Verified(answer) = answer::look(config, found)? {
            look(None)?;
            return Ok(End::Answer(answer));
        }
        let far = match ledger(config)? {
            Some(ledger) => how_far(config, &ledger, row)?,
            None => None,
        };
        let sight = far.map(|far| Sight::At(Whereabouts::Told { far: Box::new(far), silent_ms: None }));
        look(sight.as_ref())?;
        match stops.within(LOOK_EVERY) {
            Stopped::Yes => return Ok(End::Without(Without::interrupted(row.key.id))),
            Stopped::No => {}
        }
    }
}

/// How far a task of this node is; `None` for one that is final.
pub(crate) fn how_far(config: &Config, ledger: &ReadLedger, row: &TaskRow) -> Result<Option<HowFar>, Report> {
    let Some(brief) = ledger.brief(&row.key)?.filter(|brief| brief.final_at.is_none()) else {
        return Ok(None);
    };
    let now = clock::now();
    Ok(Some(HowFar::here(&config.state, &Places::of(ledger, now)?, &brief, now)))
}

/// How far a task is, if that can be known: from this node's own ledger, or from a message of the node that has it. The
/// share may be away; then nothing is known.
pub(crate) fn how_far_of(config: &Config, found: &Found) -> Option<HowFar> {
    match found {
        Found::Received(row) => how_far(config, &ledger(config).ok()??, row).ok()?,
        Found::Sent(sent) => match whereabouts(config, sent)? {
            Whereabouts::Told { far, .. } => Some(*far),
            Whereabouts::Inbox
            | Whereabouts::SeemsWaiting
            | Whereabouts::SeemsTaken
            | Whereabouts::Unseen => None,
        },
    }
}

/// What the node that has a task told last, as it is to be shown now.
pub(crate) fn whereabouts(config: &Config, sent: &SentTask) -> Option<Whereabouts> {
    if !is_open(sent) {
        return None;
    }
    let desk = sender::desk(config, sent.outgoing.lane()).ok()?;
    let message = waiting::told(&desk, &sent.record).ok()??;
    Some(waiting::Told::now(message).whereabouts())
}

/// What is known of several tasks that were sent from here. A share that does not answer in time keeps nobody waiting:
/// then nothing is known.
pub(crate) fn whereabouts_of_many<'t>(
    config: &Config,
    sent: impl Iterator<Item = &'t SentTask>,
) -> BTreeMap<TaskId, Whereabouts> {
    let open: Vec<SentTask> = sent.filter(|sent| is_open(sent)).take(LOOKED_AT_MAX).cloned().collect();
    if open.is_empty() {
        return BTreeMap::new();
    }
    let (found, finding) = sync_channel(1);
    let config = config.clone();
    thread::spawn(move || {
        let known = open.iter().filter_map(|sent| Some((sent.record.id, whereabouts(&config, sent)?)));
        // Nobody waits any more where it took too long.
        drop(found.send(known.collect()));
    });
    finding.recv_timeout(LOOK_LIMIT).unwrap_or_default()
}

fn is_open(sent: &SentTask) -> bool {
    let record = &sent.record;
    record.place == RecordPlace::Sent && record.answered.is_none() && record.unanswered_at.is_none()
}

/// What a program is told of a task that was received here, before its result.
pub(crate) fn document(config: &Config, row: &TaskRow) -> Document {
    let lane = Lane::new(row.key.from.clone(), config.node.clone());
    let inbox = inbox(config, &lane, row.key.id);
    Document::of(&lane, row.key.id, row.digest, row.expires, &inbox)
}

/// Where a task was put.
pub(crate) fn inbox(config: &Config, lane: &Lane, id: TaskId) -> std::path::PathBuf {
    config.root.join(File::inbox(lane, id).path())
}
