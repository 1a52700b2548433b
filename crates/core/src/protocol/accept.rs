//! The order of checks: what a node makes of a file that its peer, or an approver, sealed (protocol section 4).
//!
//! Cheap and unauthenticated first; the first failure decides. What the caller knows is passed in as values: the id and
//! lane come from the file's place, so whatever the ledger has about them can be looked up before.

use uuid::Uuid;

use crate::protocol::approvers::Approvers;
use crate::protocol::boot::BootRecord;
use crate::protocol::control::Control;
use crate::protocol::decision::Decision;
use crate::protocol::heartbeat::Heartbeat;
use crate::protocol::keys::{KeyRing, LaneRing};
use crate::protocol::limits;
use crate::protocol::members::Breach;
use crate::protocol::names::{Digest, Lane, Name, NodeName, TaskId};
use crate::protocol::payload::Payload;
use crate::protocol::progress::Progress;
use crate::protocol::reason::ReasonCode;
use crate::protocol::result::Status;
use crate::protocol::seal::{EnvelopeError, OpenError, Opened, RawEnvelope, SignatureError, Verified};
use crate::protocol::standing::Standing;
use crate::protocol::task::{Task, TaskMember};
use crate::protocol::terms::Terms;
use crate::protocol::time::Timestamp;

/// The node that looks.
#[derive(Clone, Copy, Debug)]
pub struct Me<'a> {
    /// Its cluster.
    pub cluster: Uuid,
    /// Its own name.
    pub node: &'a NodeName,
    /// Its clock.
    pub now: Timestamp,
}

/// Where a file about a task lies: what its path says.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The lane.
    pub lane: &'a Lane,
    /// The id in its name.
    pub id: TaskId,
}

/// More about a refusal, for people.
#[derive(Debug)]
pub enum Detail {
    /// Steps 1 and 2.
    Envelope(EnvelopeError),
    /// Step 3.
    Signature(SignatureError),
    /// Step 4.
    Open(OpenError),
    /// Step 9: the limit.
    Limit(Breach),
    /// Step 9: the member that is not served.
    Member(TaskMember),
}

impl Detail {
    /// The error as such, with its chain of causes.
    #[must_use]
    pub fn as_error(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Detail::Envelope(error) => Some(error),
            Detail::Signature(error) => Some(error),
            Detail::Open(error) => Some(error),
            Detail::Limit(error) => Some(error),
            Detail::Member(_) => None,
        }
    }
}

/// A no: its code, and more for people where there is more.
#[derive(Debug)]
pub struct Refusal {
    /// The first check that failed.
    pub code: ReasonCode,
    /// More about it.
    pub detail: Option<Detail>,
}

impl Refusal {
    pub(super) const fn plain(code: ReasonCode) -> Refusal {
        Refusal { code, detail: None }
    }

    pub(super) fn limit(breach: Breach) -> Refusal {
        Refusal { code: ReasonCode::LimitExceeded, detail: Some(Detail::Limit(breach)) }
    }
}

impl From<EnvelopeError> for Refusal {
    fn from(error: EnvelopeError) -> Refusal {
        Refusal { code: error.code(), detail: Some(Detail::Envelope(error)) }
    }
}

impl From<SignatureError> for Refusal {
    fn from(error: SignatureError) -> Refusal {
        Refusal { code: error.code(), detail: Some(Detail::Signature(error)) }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Refusal {
        Refusal { code: error.code(), detail: Some(Detail::Open(error)) }
    }
}

/// What a node makes of a file that is no task.
#[must_use]
#[derive(Debug)]
pub enum Verdict<T> {
    /// It counts.
    Accepted(Verified<T>),
    /// It does not.
    Refused(Refusal),
}

impl<T> From<Result<Verified<T>, Refusal>> for Verdict<T> {
    fn from(result: Result<Verified<T>, Refusal>) -> Verdict<T> {
        match result {
            Ok(verified) => Verdict::Accepted(verified),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }
}

/// What a node makes of a task.
#[must_use]
#[derive(Debug)]
pub enum TaskVerdict {
    /// It passed steps 1 to 9; streams and policy come after.
    Accepted(Box<Verified<Task>>),
    /// It did not.
    Refused(Box<RefusedTask>),
}

/// A task that was refused.
#[derive(Debug)]
pub struct RefusedTask {
    /// Why.
    pub refusal: Refusal,
    /// The task, from step 6 on: who it is from is then certain.
    pub known: Option<KnownTask>,
    /// The status that a sealed result answers; `None`: nothing is answered, the file is evidence.
    pub answer: Option<Status>,
}

/// What is certain of a task that was refused after its identity was checked.
#[derive(Clone, Debug)]
pub struct KnownTask {
    /// The lane; with `id` the task's key.
    pub lane: Lane,
    /// The id.
    pub id: TaskId,
    /// When it was made.
    pub created: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// Its stream.
    pub stream: Uuid,
    /// Its position in the stream; 1 if it was out of range.
    pub seq: u64,
    /// The exact bytes of its payload.
    pub payload: Vec<u8>,
    /// Their digest.
    pub payload_sha256: Digest,
    /// The whole task, unless a quantity is over its limit.
    pub task: Option<Task>,
}

impl KnownTask {
    fn of(place: Place<'_>, opened: Opened<Task>) -> KnownTask {
        let task = opened.peek();
        KnownTask {
            lane: place.lane.clone(),
            id: task.id,
            created: task.created,
            expires: task.expires,
            stream: task.stream,
            seq: task.seq,
            payload: opened.bytes().to_vec(),
            payload_sha256: opened.digest(),
            task: opened.within_limits().ok().map(|verified| verified.into_parts().0),
        }
    }
}

/// What the receiver's ledger and configuration say about tasks.
#[derive(Clone, Copy)]
pub struct TaskRules<'a> {
    /// Tasks made before this are `before_ledger`.
    pub accept_after: Option<Timestamp>,
    /// What expires up to here was purged from the seen-set.
    pub forgotten_until: Option<Timestamp>,
    /// Whether a profile exists here.
    pub has_profile: &'a dyn Fn(&Name) -> bool,
    /// Whether a workspace exists here.
    pub has_workspace: &'a dyn Fn(&Name) -> bool,
    /// Members that are not served unless they have their default.
    pub unsupported: &'a [TaskMember],
}

/// Judges a task in an inbox, steps 1 to 9. `seen` is the payload digest under (lane.from, id) in the seen-set.
pub fn accept_task(
    file: &[u8],
    place: Place<'_>,
    me: &Me<'_>,
    keys: &LaneRing,
    seen: Option<Digest>,
    rules: &TaskRules<'_>,
) -> TaskVerdict {
    let opened = match open_task(file, place, me, keys) {
        Ok(opened) => opened,
        Err(refusal) => {
            return TaskVerdict::Refused(Box::new(RefusedTask { refusal, known: None, answer: None }));
        }
    };
    judge_opened(opened, place, me, seen, rules)
}

/// Steps 6 to 9 of a task whose origin and place are certain.
pub(super) fn judge_opened(
    opened: Opened<Task>,
    place: Place<'_>,
    me: &Me<'_>,
    seen: Option<Digest>,
    rules: &TaskRules<'_>,
) -> TaskVerdict {
    let judged = check_seen(&opened, seen)
        .and_then(|()| check_task_freshness(opened.peek(), me.now, rules))
        .and_then(|()| check_quantity_and_names(&opened, rules));
    match judged {
        Ok(()) => match opened.within_limits() {
            Ok(verified) => TaskVerdict::Accepted(Box::new(verified)),
            Err(breach) => TaskVerdict::Refused(Box::new(RefusedTask {
                refusal: Refusal::limit(breach),
                known: None,
                answer: None,
            })),
        },
        Err((refusal, answer)) => {
            let known = Some(KnownTask::of(place, opened));
            TaskVerdict::Refused(Box::new(RefusedTask { refusal, known, answer }))
        }
    }
}

/// A refusal from step 6 on, with the status that answers it.
type Answered = (Refusal, Option<Status>);

/// Steps 1 to 5.
fn open_task(file: &[u8], place: Place<'_>, me: &Me<'_>, keys: &LaneRing) -> Result<Opened<Task>, Refusal> {
    let opened: Opened<Task> = open_on_lane(file, keys)?;
    let task = opened.peek();
    check_place(me, place, &About::of(task.cluster, &task.from, &task.to, task.id), Reader::Receiver)?;
    Ok(opened)
}

/// Step 6. Neither is answered: the same bytes were answered before, other bytes are evidence.
fn check_seen(opened: &Opened<Task>, seen: Option<Digest>) -> Result<(), Answered> {
    match seen {
        None => Ok(()),
        Some(digest) if digest == opened.digest() => Err((Refusal::plain(ReasonCode::Replayed), None)),
        Some(_) => Err((Refusal::plain(ReasonCode::IdReused), None)),
    }
}

/// Step 7.
fn check_task_freshness(task: &Task, now: Timestamp, rules: &TaskRules<'_>) -> Result<(), Answered> {
    // What the seen-set has forgotten may have run and been answered: this alone gets no second answer.
    if rules.forgotten_until.is_some_and(|until| task.expires <= until) {
        return Err((Refusal::plain(ReasonCode::Expired), None));
    }
    if let Err(code) = check_freshness(task.created, task.expires, now, Some(limits::LIFETIME_MS_MAX)) {
        let status = if code == ReasonCode::Expired { Status::Expired } else { Status::Rejected };
        return Err((Refusal::plain(code), Some(status)));
    }
    if rules.accept_after.is_some_and(|floor| task.created < floor) {
        return Err((Refusal::plain(ReasonCode::BeforeLedger), Some(Status::Unknown)));
    }
    Ok(())
}

/// Step 9.
fn check_quantity_and_names(opened: &Opened<Task>, rules: &TaskRules<'_>) -> Result<(), Answered> {
    let task = opened.peek();
    let refuse = |refusal| Err((refusal, Some(Status::Rejected)));
    if let Some(breach) = opened.breach() {
        return refuse(Refusal::limit(breach.clone()));
    }
    if !(rules.has_profile)(&task.profile) {
        return refuse(Refusal::plain(ReasonCode::UnknownProfile));
    }
    if task.workspace.as_ref().is_some_and(|workspace| !(rules.has_workspace)(workspace)) {
        return refuse(Refusal::plain(ReasonCode::UnknownWorkspace));
    }
    match rules.unsupported.iter().find(|member| !task.has_default(**member)) {
        None => Ok(()),
        Some(member) => {
            refuse(Refusal { code: ReasonCode::UnsupportedHere, detail: Some(Detail::Member(*member)) })
        }
    }
}

/// Judges a cancel. `seen` is as for [`accept_task`]; one of a task that was not seen is kept until it expires.
pub fn accept_control(
    file: &[u8],
    place: Place<'_>,
    me: &Me<'_>,
    keys: &LaneRing,
    seen: Option<Digest>,
) -> Verdict<Control> {
    let judge = || {
        let opened: Opened<Control> = open_on_lane(file, keys)?;
        let control = opened.peek();
        let about = About::of(control.cluster, &control.from, &control.to, control.task);
        check_place(me, place, &about, Reader::Receiver)?;
        if seen.is_some_and(|digest| digest != control.task_sha256) {
            return Err(Refusal::plain(ReasonCode::DigestMismatch));
        }
        check_freshness(control.created, control.expires, me.now, Some(limits::LIFETIME_MS_MAX))
            .map_err(Refusal::plain)?;
        opened.within_limits().map_err(Refusal::limit)
    };
    judge().into()
}

/// What is known of a task that a decision or terms are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It never came.
    Unseen,
    /// It came, and does not wait for a decision.
    NotWaiting,
    /// It waits.
    Waits {
        /// The digest of its payload.
        task_sha256: Digest,
        /// The digest of its terms' payload, as the ledger has them; `None` where no ledger is at hand
        /// (an approver's command), which is enough to read terms and never enough to take a decision.
        terms_sha256: Option<Digest>,
    },
}

impl Waiting {
    fn digests(self) -> Result<(Digest, Option<Digest>), Refusal> {
        match self {
            Waiting::Unseen => Err(Refusal::plain(ReasonCode::UnknownTask)),
            Waiting::NotWaiting => Err(Refusal::plain(ReasonCode::NotWaiting)),
            Waiting::Waits { task_sha256, terms_sha256 } => Ok((task_sha256, terms_sha256)),
        }
    }
}

/// Judges a decision. `key16` is that of its file's name.
pub fn accept_decision(
    file: &[u8],
    place: Place<'_>,
    key16: &str,
    me: &Me<'_>,
    approvers: &Approvers,
    waiting: Waiting,
) -> Verdict<Decision> {
    let judge = || {
        let opened: Opened<Decision> = open_by_approver(file, approvers, me.now)?;
        let decision = opened.peek();
        let about = About::of(decision.cluster, &decision.from, &decision.to, decision.task);
        check_place(me, place, &about, Reader::Receiver)?;
        check_author(&opened, &decision.author, Some(key16))?;
        let (task_sha256, terms_sha256) = waiting.digests()?;
        if decision.task_sha256 != task_sha256 || Some(decision.terms_sha256) != terms_sha256 {
            return Err(Refusal::plain(ReasonCode::DigestMismatch));
        }
        check_freshness(decision.decided_at, decision.expires, me.now, Some(limits::LIFETIME_MS_MAX))
            .map_err(Refusal::plain)?;
        opened.within_limits().map_err(Refusal::limit)
    };
    judge().into()
}

/// Judges a standing approval of this node's configuration; its file's name is free.
pub fn accept_standing(file: &[u8], me: &Me<'_>, approvers: &Approvers) -> Verdict<Standing> {
    let judge = || {
        let opened: Opened<Standing> = open_by_approver(file, approvers, me.now)?;
        let standing = opened.peek();
        check_node(me, standing.cluster, &standing.node, me.node)?;
        check_author(&opened, &standing.author, None)?;
        check_freshness(standing.made, standing.expires, me.now, None).map_err(Refusal::plain)?;
        opened.within_limits().map_err(Refusal::limit)
    };
    judge().into()
}

/// Judges terms, as a person is shown them.
pub fn accept_terms(
    file: &[u8],
    place: Place<'_>,
    me: &Me<'_>,
    keys: &LaneRing,
    waiting: Waiting,
) -> Verdict<Terms> {
    let judge = || {
        let opened: Opened<Terms> = open_on_lane(file, keys)?;
        let terms = opened.peek();
        check_place(
            me,
            place,
            &About::of(terms.cluster, &terms.from, &terms.to, terms.task),
            Reader::Anyone,
        )?;
        let (task_sha256, terms_sha256) = waiting.digests()?;
        if terms.task_sha256 != task_sha256 || terms_sha256.is_some_and(|digest| digest != opened.digest()) {
            return Err(Refusal::plain(ReasonCode::DigestMismatch));
        }
        opened.within_limits().map_err(Refusal::limit)
    };
    judge().into()
}

/// Judges progress. `sent` is the digest of the task in the sender's own record; without one it is not believed.
pub fn accept_progress(
    file: &[u8],
    place: Place<'_>,
    me: &Me<'_>,
    keys: &LaneRing,
    sent: Option<Digest>,
) -> Verdict<Progress> {
    let judge = || {
        let opened: Opened<Progress> = open_on_lane(file, keys)?;
        let progress = opened.peek();
        let about = About::of(progress.cluster, &progress.from, &progress.to, progress.task);
        check_place(me, place, &about, Reader::Anyone)?;
        if sent.is_none() {
            return Err(Refusal::plain(ReasonCode::UnknownTask));
        }
        opened.within_limits().map_err(Refusal::limit)
    };
    judge().into()
}

/// Judges a heartbeat under `heartbeats/<node>.json`. `rings`: the peer's; for this node's own name, those of all peers.
/// `highest`: the highest (boot, seq) ever seen of that node; it must be exceeded.
pub fn accept_heartbeat(
    file: &[u8],
    node: &NodeName,
    me: &Me<'_>,
    rings: &[&KeyRing],
    highest: Option<(u64, u64)>,
) -> Verdict<Heartbeat> {
    let judge = || {
        let opened: Opened<Heartbeat> = open_by_pair(file, rings)?;
        let heartbeat = opened.peek();
        check_node(me, heartbeat.cluster, &heartbeat.node, node)?;
        if highest.is_some_and(|highest| heartbeat.position() <= highest) {
            return Err(Refusal::plain(ReasonCode::HeartbeatReplayed));
        }
        opened.within_limits().map_err(Refusal::limit)
    };
    judge().into()
}

/// Judges a boot record under `heartbeats/<node>.boot-<boot>.json`. `rings` as for [`accept_heartbeat`].
pub fn accept_boot(
    file: &[u8],
    node: &NodeName,
    boot: u64,
    me: &Me<'_>,
    rings: &[&KeyRing],
) -> Verdict<BootRecord> {
    let judge = || {
        let opened: Opened<BootRecord> = open_by_pair(file, rings)?;
        let record = opened.peek();
        check_node(me, record.cluster, &record.node, node)?;
        if record.boot != boot {
            return Err(Refusal::plain(ReasonCode::IdMismatch));
        }
        opened.within_limits().map_err(Refusal::limit)
    };
    judge().into()
}

pub(super) fn open_on_lane<T: Payload>(file: &[u8], keys: &LaneRing) -> Result<Opened<T>, Refusal> {
    Ok(RawEnvelope::read(T::KIND, file)?.verify_lane(keys)?.parse()?)
}

fn open_by_pair<T: Payload>(file: &[u8], rings: &[&KeyRing]) -> Result<Opened<T>, Refusal> {
    Ok(RawEnvelope::read(T::KIND, file)?.verify_pairs(rings)?.parse()?)
}

fn open_by_approver<T: Payload>(
    file: &[u8],
    approvers: &Approvers,
    now: Timestamp,
) -> Result<Opened<T>, Refusal> {
    Ok(RawEnvelope::read(T::KIND, file)?.verify_approvers(approvers, now)?.parse()?)
}

/// What a message says it is about.
pub(super) struct About<'a> {
    cluster: Uuid,
    from: &'a NodeName,
    to: &'a NodeName,
    task: TaskId,
}

impl<'a> About<'a> {
    pub(super) const fn of(cluster: Uuid, from: &'a NodeName, to: &'a NodeName, task: TaskId) -> About<'a> {
        About { cluster, from, to, task }
    }
}

/// Who may act on a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Only the node at the lane's end.
    Receiver,
    /// Whoever has the key.
    Anyone,
}

/// Step 5.
pub(super) fn check_place(
    me: &Me<'_>,
    place: Place<'_>,
    about: &About<'_>,
    reader: Reader,
) -> Result<(), Refusal> {
    let for_another = reader == Reader::Receiver && about.to != me.node;
    let code = if about.cluster != me.cluster {
        ReasonCode::WrongCluster
    } else if *about.to != place.lane.to || for_another {
        ReasonCode::WrongRecipient
    } else if *about.from != place.lane.from {
        ReasonCode::WrongLane
    } else if about.task != place.id {
        ReasonCode::IdMismatch
    } else {
        return Ok(());
    };
    Err(Refusal::plain(code))
}

/// Step 5 for what belongs to a node.
fn check_node(me: &Me<'_>, cluster: Uuid, found: &NodeName, expected: &NodeName) -> Result<(), Refusal> {
    if cluster != me.cluster {
        Err(Refusal::plain(ReasonCode::WrongCluster))
    } else if found != expected {
        Err(Refusal::plain(ReasonCode::IdMismatch))
    } else {
        Ok(())
    }
}

/// Step 5 for what a person signed: the key of the file's name signed, and the author is one of its principals.
fn check_author<T>(opened: &Opened<T>, author: &str, key16: Option<&str>) -> Result<(), Refusal> {
    let mut signers =
        opened.approvers().iter().filter(|one| key16.is_none_or(|key16| one.key16 == key16)).peekable();
    if signers.peek().is_none() {
        return Err(Refusal::plain(ReasonCode::IdMismatch));
    }
    if signers.any(|one| one.principals.iter().any(|principal| principal == author)) {
        Ok(())
    } else {
        Err(Refusal::plain(ReasonCode::BadSignature))
    }
}

/// Step 7, for everything that has an `expires`.
fn check_freshness(
    made: Timestamp,
    expires: Timestamp,
    now: Timestamp,
    lifetime_ms_max: Option<i64>,
) -> Result<(), ReasonCode> {
    if now >= expires || expires <= made {
        Err(ReasonCode::Expired)
    } else if made.since_ms(now) > limits::SKEW_MS {
        Err(ReasonCode::FromTheFuture)
    } else if lifetime_ms_max.is_some_and(|most| expires.since_ms(made) > most) {
        Err(ReasonCode::LifetimeTooLong)
    } else {
        Ok(())
    }
}
