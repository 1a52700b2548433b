//! `dispatchctl verify`: what a file on the share is, who sealed it, and what this node would make of it. Nothing is changed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::accept::{
    Me, Place, Refusal, TaskRules, TaskVerdict, Verdict, Waiting, accept_boot, accept_control,
    accept_decision, accept_heartbeat, accept_progress, accept_standing, accept_task, accept_terms,
};
use dispatch_core::protocol::approvers::Approvers;
use dispatch_core::protocol::believe::{Belief, believe};
use dispatch_core::protocol::keys::KeyRing;
use dispatch_core::protocol::limits::ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::{Digest, Lane, NodeName, TaskId};
use dispatch_core::protocol::payload::Kind;
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::seal::RawEnvelope;
use dispatch_core::protocol::v2::{Bounds, FlatRing, accept_flat};
use dispatch_ledger::{ReadLedger, TaskKey};
use dispatch_node::clock;
use dispatch_node::config::{Config, Peer};
use dispatch_node::files::read_limited;
use dispatch_node::keys::{Keys, approvers_text};
use dispatch_node::outgoing::Outgoing;
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_node::term::{Breaks, visible};
use dispatch_spool::layout::LaneFile;
use dispatch_spool::{Area, Dir, File, Name};
use serde_json::json;

use crate::context::Context;
use crate::named;

const EXAMPLES: &str = "  dispatchctl verify /mnt/shared/dispatch/devbox-to-gpubox/inbox/*.json
  dispatchctl verify done/01a1f89c-fb83-734b-96bb-78a1dacaf1ff.result.json";

const KILLSWITCH: &str = "a killswitch: it stops by being there, whatever it holds";
const EVIDENCE: &str = "something that was set aside, or the reason why";
const HALF: &str = "a half-written file";

/// Say what files on the share are, who sealed them, and whether this node would take them
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    /// The files, below the share
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// What came of a file.
struct Finding {
    what: String,
    keyids: Vec<String>,
    /// False for logs, evidence and the like: nothing that is believed rests on them.
    sealed: bool,
    /// `None`: this node would take or believe it.
    refused: Option<(String, String)>,
}

impl Finding {
    fn unsealed(what: impl Into<String>) -> Finding {
        Finding { what: what.into(), keyids: Vec::new(), sealed: false, refused: None }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let judge = Judge::of(&config)?;
    let mut exit = Exit::Done;
    for path in &args.files {
        let finding = judge.judge(path)?;
        if finding.refused.is_some() {
            exit = Exit::DoesNotVerify;
        }
        context.say_json(&json!({
            "file": path,
            "what": finding.what,
            "keyids": finding.keyids,
            "verified": finding.sealed && finding.refused.is_none(),
            "code": finding.refused.as_ref().map(|(code, _)| code),
            "text": finding.refused.as_ref().map(|(_, text)| text),
        }))?;
        let verdict = match finding.refused {
            Some((code, text)) => format!("{code}: {text}"),
            None if finding.sealed => "verifies".to_owned(),
            None => "says nothing for certain".to_owned(),
        };
        let keys = if finding.keyids.is_empty() {
            String::new()
        } else {
            format!(" (key {})", finding.keyids.join(", "))
        };
        context
            .say(&visible(&format!("{}: {}{keys}: {verdict}", path.display(), finding.what), Breaks::Show))?;
    }
    Ok(exit)
}

/// Everything this node knows that a judgement rests on.
struct Judge<'a> {
    config: &'a Config,
    keys: Keys,
    approvers: Approvers,
    ledger: Option<ReadLedger>,
}

impl<'a> Judge<'a> {
    fn of(config: &'a Config) -> Result<Judge<'a>, Report> {
        Ok(Judge {
            config,
            keys: Keys::load(config)?,
            approvers: Approvers::parse(&approvers_text(config)?),
            ledger: named::ledger(config)?,
        })
    }

    fn me(&self) -> Me<'_> {
        Me { cluster: self.config.cluster, node: &self.config.node, now: clock::now() }
    }

    fn judge(&self, path: &Path) -> Result<Finding, Report> {
        if let Some(finding) = self.standing(path) {
            return finding;
        }
        let Some(file) = self.place(path) else {
            return Ok(Finding {
                what: "no file of the protocol".to_owned(),
                keyids: Vec::new(),
                sealed: false,
                refused: Some((
                    "unknown_name".to_owned(),
                    "its place and name say nothing about what it should be".to_owned(),
                )),
            });
        };
        let limit = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = match read_limited(path, limit) {
            Ok(bytes) => bytes,
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Err(error.into()),
            // What nobody seals may be of any size.
            Err(error)
                if error.source.kind() == std::io::ErrorKind::FileTooLarge
                    && !self.by_kind(&file, &[])?.sealed =>
            {
                return self.by_kind(&file, &[]);
            }
            Err(error) => {
                let code = if error.source.kind() == std::io::ErrorKind::FileTooLarge {
                    "too_large"
                } else {
                    "not_a_regular_file"
                };
                return Ok(Finding {
                    what: "a file that is not read".to_owned(),
                    keyids: Vec::new(),
                    sealed: true,
                    refused: Some((code.to_owned(), error.source.to_string())),
                });
            }
        };
        self.by_kind(&file, &bytes)
    }

    /// Where a path is on the share, by its last parts; the file itself need not be below the root.
    fn place(&self, path: &Path) -> Option<File> {
        let absolute = std::path::absolute(path).ok()?;
        let parts: Vec<&OsStr> = absolute.components().map(std::path::Component::as_os_str).collect();
        let (name, above) = parts.split_last()?;
        let text = |at: usize| {
            above.len().checked_sub(at).and_then(|at| above.get(at)).and_then(|part| part.to_str())
        };
        let lane = |at: usize| text(at).and_then(|text| Lane::parse(text).ok());
        let dir = match text(1)? {
            "heartbeats" => Dir::Heartbeats,
            "inbox" => Dir::lane(&lane(2)?, Area::Inbox),
            "control" => Dir::lane(&lane(2)?, Area::Control),
            "pending-ack" => Dir::lane(&lane(2)?, Area::PendingAck),
            "processing" => Dir::lane(&lane(2)?, Area::Processing),
            "done" => Dir::lane(&lane(2)?, Area::Done),
            "attachments" => Dir::lane(&lane(2)?, Area::Attachments),
            "artifacts" => Dir::lane(&lane(2)?, Area::Artifacts),
            "tmp" => lane(2).map_or(Dir::Tmp, |lane| Dir::lane(&lane, Area::Tmp)),
            "rejected" => lane(2).map_or(Dir::Rejected, |lane| Dir::lane(&lane, Area::Rejected)),
            "logs" => Dir::Logs,
            "metrics" => Dir::Metrics,
            _ if text(2) == Some("archive") => Dir::lane(&lane(4)?, Area::Done),
            _ => match lane(1) {
                Some(lane) => Dir::lane(&lane, Area::Top),
                // Only files at the root itself: their names are too common to be told by the name alone.
                None if self.is_root(absolute.parent()?) => Dir::Root,
                None => return None,
            },
        };
        match dir.name(name) {
            Some(Name::File(file)) => Some(file),
            Some(Name::Dir(_)) | None => None,
        }
    }

    fn is_root(&self, dir: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        real(dir) == real(&self.config.root)
    }

    /// A standing approval of this node's own configuration.
    fn standing(&self, path: &Path) -> Option<Result<Finding, Report>> {
        let dir = std::path::absolute(path).ok()?.parent()?.to_owned();
        (dir == self.config.standing_dir()).then(|| {
            let limit = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
            let bytes = read_limited(path, limit)?;
            let refused = refusal(accept_standing(&bytes, &self.me(), &self.approvers));
            Ok(finding("standing approval".to_owned(), Kind::Standing, &bytes, refused))
        })
    }

    /// Whether the mark at the root is this cluster's.
    fn cluster(&self, bytes: &[u8]) -> Finding {
        let found = std::str::from_utf8(bytes).ok().map(str::trim_end).map(str::to_owned);
        let ours = found.as_deref() == Some(&self.config.cluster.hyphenated().to_string());
        let code = ReasonCode::WrongCluster;
        Finding {
            refused: (!ours).then(|| (code.as_str().to_owned(), code.text().to_owned())),
            ..Finding::unsealed("the mark of the cluster that a share belongs to")
        }
    }

    fn by_kind(&self, file: &File, bytes: &[u8]) -> Result<Finding, Report> {
        let (what, kind, refused) = match file {
            File::Heartbeat(node) => {
                let verdict = accept_heartbeat(bytes, node, &self.me(), &self.rings(node), None);
                (format!("heartbeat of {node}"), Kind::Heartbeat, refusal(verdict))
            }
            File::Boot(node, boot) => {
                let verdict = accept_boot(bytes, node, *boot, &self.me(), &self.rings(node));
                (format!("boot record {boot} of {node}"), Kind::Boot, refusal(verdict))
            }
            File::Lane(lane, of) => return self.in_lane(lane, of, bytes),
            File::Cluster => return Ok(self.cluster(bytes)),
            File::Killswitch => return Ok(Finding::unsealed(KILLSWITCH)),
            File::AuditCopy(node) => {
                let what =
                    format!("a copy of the audit of {node}; dispatchctl audit verify checks its links");
                return Ok(Finding::unsealed(what));
            }
            File::Metrics(node) => return Ok(Finding::unsealed(format!("figures of {node}"))),
            File::Evidence { .. } => return Ok(Finding::unsealed(EVIDENCE)),
            File::Tmp(_) => return Ok(Finding::unsealed(HALF)),
        };
        Ok(finding(what, kind, bytes, refused))
    }

    fn in_lane(&self, lane: &Lane, of: &LaneFile, bytes: &[u8]) -> Result<Finding, Report> {
        let me = self.me();
        let ring = self.keys.lane(&self.config.node, lane);
        if let Some(flat) = self.flat(lane) {
            return self.in_flat_lane(lane, of, bytes, flat);
        }
        let about = |what: &str, id: TaskId| format!("{what} {id} from {} to {}", lane.from, lane.to);
        let (what, kind, refused) = match of {
            LaneFile::Inbox(id) | LaneFile::Pending(id) | LaneFile::Processing(id) | LaneFile::Done(id) => {
                let refused = self.task(lane, *id, of, |me, place, seen, rules| {
                    accept_task(bytes, place, me, &ring, seen, rules)
                })?;
                (about("task", *id), Kind::Task, refused)
            }
            LaneFile::Cancel(id) => {
                let seen = self.seen(lane, *id)?;
                let verdict = accept_control(bytes, Place { lane, id: *id }, &me, &ring, seen);
                (about("cancel of", *id), Kind::Control, refusal(verdict))
            }
            LaneFile::Terms(id) => {
                let waiting = self.waiting(lane, *id)?;
                (
                    about("terms of", *id),
                    Kind::Terms,
                    refusal(accept_terms(bytes, Place { lane, id: *id }, &me, &ring, waiting)),
                )
            }
            LaneFile::Decision(id, key16) => {
                let waiting = self.waiting(lane, *id)?;
                let place = Place { lane, id: *id };
                let verdict =
                    accept_decision(bytes, place, &key16.to_string(), &me, &self.approvers, waiting);
                (about("decision on", *id), Kind::Decision, refusal(verdict))
            }
            LaneFile::Progress(id) => {
                let sent = self.sent(lane, *id)?.or(self.seen(lane, *id)?);
                (
                    about("progress of", *id),
                    Kind::Progress,
                    refusal(accept_progress(bytes, Place { lane, id: *id }, &me, &ring, sent)),
                )
            }
            LaneFile::Result(id) => {
                let sent = self.sent(lane, *id)?.or(self.seen(lane, *id)?);
                let refused = match believe(bytes, Place { lane, id: *id }, &me, &ring, sent) {
                    Belief::Believed(_) => None,
                    Belief::NotBelieved(refusal) => Some(refusal),
                };
                (about("result of", *id), Kind::Result, refused)
            }
            LaneFile::Killswitch
            | LaneFile::PendingSummary
            | LaneFile::Tmp(_)
            | LaneFile::Attachment(_)
            | LaneFile::Log(_)
            | LaneFile::ArchivedTask(..)
            | LaneFile::ArchivedLog(..)
            | LaneFile::ArchivedResult(..)
            | LaneFile::Artifact(_)
            | LaneFile::UnsignedAck(_)
            | LaneFile::Refused(_)
            | LaneFile::Evidence { .. } => return Ok(plain(lane, of, bytes)),
        };
        Ok(finding(what, kind, bytes, refused))
    }

    /// The peer of a lane, where it speaks version 2, with what it is allowed.
    fn flat(&self, lane: &Lane) -> Option<(&FlatRing, Bounds)> {
        let peer = if lane.from == self.config.node { &lane.to } else { &lane.from };
        let allowed = self.config.peer(peer).and_then(Peer::version_2)?;
        self.keys.flat(peer).map(|ring| (ring, allowed.bounds))
    }

    /// What lies on a lane of a version-2 peer: flat tasks, and on the way here this node's terms and its approvers' decisions.
    fn in_flat_lane(
        &self,
        lane: &Lane,
        of: &LaneFile,
        bytes: &[u8],
        (ring, bounds): (&FlatRing, Bounds),
    ) -> Result<Finding, Report> {
        let about =
            |what: &str, id: TaskId| format!("version-2 {what} {id} from {} to {}", lane.from, lane.to);
        let (what, kind, refused) = match of {
            LaneFile::Inbox(id) | LaneFile::Pending(id) | LaneFile::Processing(id) | LaneFile::Done(id) => {
                let refused = self.task(lane, *id, of, |me, place, seen, rules| {
                    // This node may look at what it sent, too: it is judged as its receiver would.
                    let me = Me { node: &lane.to, ..*me };
                    accept_flat(bytes, place, &me, ring, bounds, seen, rules)
                })?;
                let keyids = ring.accepted.iter().map(|key| key.keyid().to_owned()).collect();
                return Ok(Finding { keyids, ..finding(about("task", *id), Kind::Task, bytes, refused) });
            }
            LaneFile::Terms(id) => {
                let waiting = self.waiting(lane, *id)?;
                let terms =
                    accept_terms(bytes, Place { lane, id: *id }, &self.me(), &ring.terms(lane), waiting);
                (about("terms of", *id), Kind::Terms, refusal(terms))
            }
            LaneFile::Decision(id, key16) => {
                let waiting = self.waiting(lane, *id)?;
                let (place, key16) = (Place { lane, id: *id }, key16.to_string());
                let verdict = accept_decision(bytes, place, &key16, &self.me(), &self.approvers, waiting);
                (about("decision on", *id), Kind::Decision, refusal(verdict))
            }
            LaneFile::Result(id) => {
                return Ok(Finding::unsealed(about("result of", *id)));
            }
            LaneFile::UnsignedAck(id) => {
                return Ok(Finding::unsealed(about("unsigned approval of", *id)));
            }
            LaneFile::Killswitch
            | LaneFile::PendingSummary
            | LaneFile::Tmp(_)
            | LaneFile::Attachment(_)
            | LaneFile::Cancel(_)
            | LaneFile::Progress(_)
            | LaneFile::Log(_)
            | LaneFile::ArchivedTask(..)
            | LaneFile::ArchivedLog(..)
            | LaneFile::ArchivedResult(..)
            | LaneFile::Artifact(_)
            | LaneFile::Refused(_)
            | LaneFile::Evidence { .. } => return Ok(plain(lane, of, bytes)),
        };
        Ok(finding(what, kind, bytes, refused))
    }

    /// A task that was taken already is judged as the copy it is; elsewhere than in the inbox that is as it should be.
    fn task(
        &self,
        lane: &Lane,
        id: TaskId,
        of: &LaneFile,
        accept: impl FnOnce(&Me<'_>, Place<'_>, Option<Digest>, &TaskRules<'_>) -> TaskVerdict,
    ) -> Result<Option<Refusal>, Report> {
        let in_inbox = matches!(of, LaneFile::Inbox(_));
        let seen = if in_inbox { self.seen(lane, id)? } else { None };
        let meta = match &self.ledger {
            Some(ledger) => Some(ledger.meta()?),
            None => None,
        };
        let rules = TaskRules {
            accept_after: meta.as_ref().and_then(|meta| meta.accept_after),
            forgotten_until: meta.as_ref().and_then(|meta| meta.forgotten_until),
            has_profile: &|name| self.config.profiles.contains_key(name),
            has_workspace: &|name| self.config.workspaces.contains_key(name),
            unsupported: &[],
        };
        Ok(match accept(&self.me(), Place { lane, id }, seen, &rules) {
            TaskVerdict::Accepted(_) => None,
            // What was taken stays what it was; time and configuration have gone on since.
            TaskVerdict::Refused(refused) if !in_inbox && refused.known.is_some() => None,
            TaskVerdict::Refused(refused) => Some(refused.refusal),
        })
    }

    fn rings(&self, node: &NodeName) -> Vec<&KeyRing> {
        let own = *node == self.config.node;
        self.keys.iter().filter(|(peer, _)| own || *peer == node).map(|(_, ring)| ring).collect()
    }

    /// The digest under which the ledger has a task.
    fn seen(&self, lane: &Lane, id: TaskId) -> Result<Option<Digest>, Report> {
        let key = TaskKey { from: lane.from.clone(), id };
        Ok(match &self.ledger {
            Some(ledger) if lane.to == self.config.node => ledger.task(&key)?.map(|row| row.digest),
            Some(_) | None => None,
        })
    }

    /// The digest in this node's own sent record.
    fn sent(&self, lane: &Lane, id: TaskId) -> Result<Option<Digest>, Report> {
        let record = Outgoing::at(&self.config.state, lane).record(id)?;
        Ok(record.map(|record| record.task_sha256))
    }

    fn waiting(&self, lane: &Lane, id: TaskId) -> Result<Waiting, Report> {
        let key = TaskKey { from: lane.from.clone(), id };
        let row = match &self.ledger {
            Some(ledger) if lane.to == self.config.node => ledger.task(&key)?,
            Some(_) | None => None,
        };
        Ok(match row {
            None => self
                .sent(lane, id)?
                .map_or(Waiting::Unseen, |task_sha256| Waiting::Waits { task_sha256, terms_sha256: None }),
            Some(row) if row.state == dispatch_core::policy::lifecycle::TaskState::AwaitingApproval => {
                Waiting::Waits { task_sha256: row.digest, terms_sha256: row.terms_sha256 }
            }
            Some(_) => Waiting::NotWaiting,
        })
    }
}

/// What a file of a lane is that nobody seals.
fn plain(lane: &Lane, of: &LaneFile, bytes: &[u8]) -> Finding {
    let about = |what: &str, id: &TaskId| format!("{what} {id} from {} to {}", lane.from, lane.to);
    Finding::unsealed(match of {
        LaneFile::Killswitch => KILLSWITCH.to_owned(),
        LaneFile::PendingSummary => "a summary of what waits for a person, which nothing rests on".to_owned(),
        LaneFile::Tmp(_) => HALF.to_owned(),
        LaneFile::Attachment(digest) | LaneFile::Artifact(digest) => return content(*digest, bytes),
        LaneFile::Log(id) => about("log of", id),
        LaneFile::ArchivedTask(_, id) | LaneFile::ArchivedLog(_, id) | LaneFile::ArchivedResult(_, id) => {
            about("an archived file of", id)
        }
        LaneFile::UnsignedAck(id) => about("unsigned approval of", id),
        LaneFile::Refused(_) | LaneFile::Evidence { .. } => EVIDENCE.to_owned(),
        LaneFile::Inbox(id)
        | LaneFile::Cancel(id)
        | LaneFile::Pending(id)
        | LaneFile::Terms(id)
        | LaneFile::Decision(id, _)
        | LaneFile::Processing(id)
        | LaneFile::Progress(id)
        | LaneFile::Done(id)
        | LaneFile::Result(id) => about("a message of another version about", id),
    })
}

/// Content that is named by its digest; bytes that were not read say nothing about it.
fn content(named: Digest, bytes: &[u8]) -> Finding {
    let code = ReasonCode::AttachmentMismatch;
    let other = !bytes.is_empty() && Digest::of(bytes) != named;
    Finding {
        refused: other.then(|| (code.as_str().to_owned(), code.text().to_owned())),
        ..Finding::unsealed("the content of a task or result, named by its digest")
    }
}

fn refusal<T>(verdict: Verdict<T>) -> Option<Refusal> {
    match verdict {
        Verdict::Accepted(_) => None,
        Verdict::Refused(refusal) => Some(refusal),
    }
}

fn finding(what: String, kind: Kind, bytes: &[u8], refused: Option<Refusal>) -> Finding {
    let keyids = RawEnvelope::read(kind, bytes).map_or_else(
        |_| Vec::new(),
        |envelope| envelope.unverified_signatures().iter().map(|signature| signature.keyid.clone()).collect(),
    );
    let refused = refused.map(|refusal| {
        let detail =
            refusal.detail.as_ref().and_then(|detail| detail.as_error()).map(|error| format!(" ({error})"));
        (refusal.code.as_str().to_owned(), format!("{}{}", refusal.code.text(), detail.unwrap_or_default()))
    });
    Finding { what, keyids, sealed: true, refused }
}
