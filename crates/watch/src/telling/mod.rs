//! People are told: a task waits for a decision, an answer came, a killswitch tripped, a peer is dead or back.
//!
//! A telling is made in the transaction that makes it true ([`Telling::make`]), taken in one that is committed before the
//! program of `[notify]` is started, and ended with what became of it: each thing is told once, over all starts of the
//! watcher. The program never decides anything here: whatever it does, its failure is audited and nothing else follows.
//!
//! The program gets one JSON document on its standard input; all members are there, null where they do not apply:
//!
//! | member | what it is |
//! |---|---|
//! | `schema` | 1 |
//! | `kind` | `waiting`, `done`, `unanswered`, `tripped`, `peer_dead`, `peer_alive`, `spend`; later releases may add more |
//! | `node` | this node |
//! | `at` | when it became true: `YYYY-MM-DDTHH:MM:SS.mmmZ` |
//! | `text` | one sentence for a person |
//! | `help` | what to do now, mostly a command |
//! | `task`, `from`, `to` | the task's id, who sent it, who runs it |
//! | `peer` | the node it is about, where it is about no task |
//! | `status` | `done`: the task's status |
//! | `first_line` | the beginning of the request's first line; nothing else of a request is ever in it |
//!
//! Control and bidi characters are made visible in every text.

mod herald;
mod program;

use dispatch_core::policy::fleet::Health;
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::text::{first_bytes, first_chars};
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Entry, LedgerError, Made, Reader, TaskRow, Tx};
use dispatch_node::term::{Breaks, visible};
use serde::Serialize;
use serde_json::json;

use crate::home::Home;

pub(crate) use herald::{Batch, Handed, Herald};

/// Things that people are still to be told, at most; what comes beyond is dropped, and that is audited.
const OPEN_MAX: u64 = 64;
/// Waiting tasks that are looked at in one pass.
const WAITING_MAX: usize = 256;
/// Characters of a request's first line.
const FIRST_LINE_CHARS: usize = 120;
/// Bytes of any other text.
const TEXT_BYTES_MAX: usize = 1024;

/// What kind of thing people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A task waits for a person's decision.
    Waiting,
    /// A task of this state directory, sent with `callback = "notify"`, has its believed answer.
    Done,
    /// A task of this state directory had no answer in time.
    Unanswered,
    /// A killswitch was found.
    Tripped,
    /// A peer was not heard of for too long.
    PeerDead,
    /// A peer that was dead is heard of again.
    PeerAlive,
    /// Money: a threshold was passed, or what the safeguards decide has changed.
    Spend,
}

impl Kind {
    /// The word in the document, in the ledger and in the audit.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Kind::Waiting => "waiting",
            Kind::Done => "done",
            Kind::Unanswered => "unanswered",
            Kind::Tripped => "tripped",
            Kind::PeerDead => "peer_dead",
            Kind::PeerAlive => "peer_alive",
            Kind::Spend => "spend",
        }
    }
}

/// One thing that people are to be told.
#[derive(Clone, Debug)]
pub(crate) struct Telling {
    kind: Kind,
    name: String,
    text: String,
    help: Option<String>,
    task: Option<TaskId>,
    from: Option<NodeName>,
    to: Option<NodeName>,
    peer: Option<NodeName>,
    status: Option<Status>,
    first_line: Option<String>,
}

#[derive(Serialize)]
struct Document<'t> {
    schema: u32,
    kind: &'static str,
    node: &'t str,
    at: String,
    text: String,
    help: Option<String>,
    task: Option<String>,
    from: Option<&'t str>,
    to: Option<&'t str>,
    peer: Option<&'t str>,
    status: Option<&'static str>,
    first_line: Option<String>,
}

impl Telling {
    /// `name` says which one of its kind it is: people are told once under each, ever. `text` is one sentence; whatever a
    /// stranger wrote in it is made visible here.
    pub(crate) fn of(kind: Kind, name: impl Into<String>, text: impl Into<String>) -> Telling {
        Telling {
            kind,
            name: name.into(),
            text: text.into(),
            help: None,
            task: None,
            from: None,
            to: None,
            peer: None,
            status: None,
            first_line: None,
        }
    }

    /// … with what to do now.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Telling {
        self.help = Some(help.into());
        self
    }

    /// … about a task on its way from one node to another.
    pub(crate) fn task(mut self, id: TaskId, from: &NodeName, to: &NodeName) -> Telling {
        (self.task, self.from, self.to) = (Some(id), Some(from.clone()), Some(to.clone()));
        self
    }

    /// … with the first line of its request.
    pub(crate) fn first_line(mut self, request: &str) -> Telling {
        let line = request.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        self.first_line = Some(first_chars(line, FIRST_LINE_CHARS).to_owned());
        self
    }

    /// … about a node.
    pub(crate) fn peer(mut self, peer: &NodeName) -> Telling {
        self.peer = Some(peer.clone());
        self
    }

    fn status(mut self, status: Status) -> Telling {
        self.status = Some(status);
        self
    }

    fn document(&self, home: &Home, at: String) -> String {
        let safe = |text: &String| visible(first_bytes(text, TEXT_BYTES_MAX), Breaks::Show);
        let document = Document {
            schema: 1,
            kind: self.kind.as_str(),
            node: home.node.as_str(),
            at,
            text: safe(&self.text),
            help: self.help.as_ref().map(safe),
            task: self.task.map(|id| id.to_string()),
            from: self.from.as_ref().map(NodeName::as_str),
            to: self.to.as_ref().map(NodeName::as_str),
            peer: self.peer.as_ref().map(NodeName::as_str),
            status: self.status.map(Status::as_str),
            first_line: self.first_line.as_ref().map(safe),
        };
        // Nothing in it can fail to be written: no map, no float, no foreign type.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// Makes it due, in the transaction that makes it true. Nothing happens where it was made before, or where nobody is to
    /// be told anything: the configuration names no program.
    pub(crate) fn make(&self, tx: &mut Tx<'_>, home: &Home) -> Result<(), LedgerError> {
        if home.config.notify.is_none() {
            return Ok(());
        }
        let document = self.document(home, tx.now().to_string());
        match tx.make_telling(self.kind.as_str(), &self.name, &document, OPEN_MAX)? {
            Made::Due | Made::Known => Ok(()),
            Made::Dropped => {
                let data = json!({"kind": self.kind.as_str(), "name": self.name, "why": "too many are due"});
                tx.audit(&Entry::of("notify_dropped").data(data)).map(drop)
            }
        }
    }
}

/// Tells of every task that waits for a person and that nobody was told of.
pub(crate) fn waiting(tx: &mut Tx<'_>, home: &Home) -> Result<(), LedgerError> {
    if home.config.notify.is_none() {
        return Ok(());
    }
    for row in tx.untold_waiting(Kind::Waiting.as_str(), WAITING_MAX)? {
        waits(&row, home).make(tx, home)?;
    }
    Ok(())
}

fn waits(row: &TaskRow, home: &Home) -> Telling {
    let (id, from) = (row.key.id, &row.key.from);
    let text = format!("a task from {from} waits for a decision until {}: {}", row.expires, row.first_line);
    Telling::of(Kind::Waiting, format!("{from}/{id}"), text)
        .help(format!("dispatch-ack {id} shows it and asks"))
        .task(id, from, &home.node)
        .first_line(&row.first_line)
}

/// The answer to a task of this state directory whose sender asked to be told.
#[derive(Clone, Debug)]
pub(crate) struct DoneTask {
    pub(crate) id: TaskId,
    pub(crate) status: Status,
    /// The request's first line.
    pub(crate) first_line: String,
}

/// Tells of an answer.
pub(crate) fn done(tx: &mut Tx<'_>, home: &Home, to: &NodeName, task: &DoneTask) -> Result<(), LedgerError> {
    let id = task.id;
    let text = format!("{to} answered `{}`: {}", task.status, task.first_line);
    Telling::of(Kind::Done, format!("{to}/{id}"), text)
        .help(format!("dispatchctl result {id} shows the answer"))
        .task(id, &home.node, to)
        .status(task.status)
        .first_line(&task.first_line)
        .make(tx, home)
}

/// Tells that no answer came in time.
pub(crate) fn unanswered(tx: &mut Tx<'_>, home: &Home, to: &NodeName, id: TaskId) -> Result<(), LedgerError> {
    Telling::of(Kind::Unanswered, format!("{to}/{id}"), format!("{to} did not answer a task in time"))
        .help(format!("dispatchctl show {id} says what is known of it"))
        .task(id, &home.node, to)
        .make(tx, home)
}

/// Tells that a killswitch was found.
pub(crate) fn tripped(
    tx: &mut Tx<'_>,
    home: &Home,
    (scope, mode, reason): &(String, &'static str, String),
) -> Result<(), LedgerError> {
    let what = if scope == "root" || scope == "node" { "this node" } else { scope.as_str() };
    let why = if reason.is_empty() { "no reason given" } else { reason.as_str() };
    let name = format!("{scope}/{}", tx.now().unix_ms());
    Telling::of(Kind::Tripped, name, format!("a killswitch stops {what} ({mode}): {why}"))
        .help("dispatchctl status says where it stands; when it is gone: dispatchctl resume")
        .make(tx, home)
}

/// Tells of the peers that died or are back.
pub(crate) fn peers(tx: &mut Tx<'_>, home: &Home) -> Result<(), LedgerError> {
    for telling in peers_to_tell(tx, home, tx.now())? {
        telling.make(tx, home)?;
    }
    Ok(())
}

/// Peers whose death, or return, nobody was told of. A name stands for one death: the last heartbeat before it.
pub(crate) fn peers_to_tell(
    reader: &Reader,
    home: &Home,
    now: Timestamp,
) -> Result<Vec<Telling>, LedgerError> {
    let mut due = Vec::new();
    if home.config.notify.is_none() || home.clock_suspect {
        return Ok(due);
    }
    let gone = reader.told_gone(Kind::PeerDead.as_str(), Kind::PeerAlive.as_str())?;
    for row in reader.peers()? {
        // One of version 2 writes no heartbeat: what was heard of it is of the time before.
        if home.peers.get(&row.node).is_none_or(|peer| peer.flat.is_some()) {
            continue;
        }
        let peer = &row.node;
        let seconds = |at: Timestamp| at.unix_ms().div_euclid(1_000);
        match home.config.watch.health.health(seconds(row.advanced_at), seconds(now)) {
            Health::Dead => {
                let name = format!("{peer}/{}.{}", row.boot, row.seq);
                if !reader.is_telling_known(Kind::PeerDead.as_str(), &name)? {
                    let text = format!("{peer} was not heard of since {}", row.advanced_at);
                    due.push(
                        Telling::of(Kind::PeerDead, name, text)
                            .help(format!(
                                "see whether {peer} is up, its watcher runs and the share is mounted there"
                            ))
                            .peer(peer),
                    );
                }
            }
            Health::Healthy => {
                for (_, name) in gone.iter().filter(|(node, _)| node == peer) {
                    due.push(
                        Telling::of(Kind::PeerAlive, name.clone(), format!("{peer} is heard of again"))
                            .peer(peer),
                    );
                }
            }
            Health::Stale => {}
        }
    }
    Ok(due)
}
