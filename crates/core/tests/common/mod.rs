//! Reads the vectors and judges them the way a node would.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dispatch_core::protocol::accept::{self, Me, Place, Refusal, TaskRules, TaskVerdict, Verdict, Waiting};
use dispatch_core::protocol::approvers::Approvers;
use dispatch_core::protocol::believe::{self, Belief};
use dispatch_core::protocol::keys::{KeyRing, LaneRing, PairKey};
use dispatch_core::protocol::names::{Digest, Lane, NodeName, TaskId, canonical_uuid};
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::task::TaskMember;
use dispatch_core::protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

const VECTORS: &str = include_str!("../vectors/v3.jsonl");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    cluster: String,
    node: String,
    now: String,
    accept_after: Option<String>,
    forgotten_until: Option<String>,
    peers: BTreeMap<String, Peer>,
    allowed_signers: String,
    profiles: Vec<String>,
    workspaces: Vec<String>,
    unsupported: Vec<String>,
    seen: Vec<Seen>,
    waiting: Vec<WaitingTask>,
    sent: Vec<Sent>,
    heartbeats: BTreeMap<String, Highest>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    keys: Vec<String>,
    #[serde(default)]
    retired: Vec<String>,
    #[serde(default = "three")]
    schema: u32,
}

fn three() -> u32 {
    3
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    from: String,
    id: String,
    payload_sha256: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitingTask {
    from: String,
    id: String,
    task_sha256: String,
    terms_sha256: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    to: String,
    id: String,
    task_sha256: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Highest {
    boot: u64,
    seq: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) bytes: Vec<u8>,
    /// `Ok` = the digest of the verified payload, `Err` = the code.
    pub(crate) expect: Result<String, String>,
    lane: Option<Lane>,
    file: String,
    context: Context,
}

/// All vectors, in the order of the file.
pub(crate) fn vectors() -> Vec<Vector> {
    let mut lines = VECTORS.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).unwrap());
    let first = lines.next().unwrap();
    let defaults = first["default_context"].as_object().unwrap().clone();
    lines.map(|line| vector(&defaults, &line)).collect()
}

fn vector(defaults: &Map<String, Value>, line: &Map<String, Value>) -> Vector {
    let text = |member: &str| line[member].as_str().unwrap().to_owned();
    let mut context = defaults.clone();
    if let Some(changes) = line.get("context").and_then(Value::as_object) {
        context.extend(changes.clone());
    }
    let expect = match line["expect"].get("accepted") {
        Some(accepted) => Ok(accepted["payload_sha256"].as_str().unwrap().to_owned()),
        None => Err(line["expect"]["code"].as_str().unwrap().to_owned()),
    };
    Vector {
        name: text("name"),
        kind: text("kind"),
        bytes: STANDARD.decode(text("bytes_b64")).unwrap(),
        expect,
        lane: line["lane"].as_str().map(|lane| Lane::parse(lane).unwrap()),
        file: text("file"),
        context: serde_json::from_value(Value::Object(context)).unwrap(),
    }
}

fn outcome<T>(verdict: Verdict<T>) -> Result<String, Refusal> {
    match verdict {
        Verdict::Accepted(verified) => Ok(digest_of(&verified)),
        Verdict::Refused(refusal) => Err(refusal),
    }
}

fn digest_of<T>(verified: &Verified<T>) -> String {
    assert_eq!(Digest::of(verified.bytes()), verified.digest());
    verified.digest().to_string()
}

fn digest(text: &str) -> Digest {
    Digest::parse(text).unwrap()
}

/// One node's knowledge, made ready once, that judges any bytes in the vector's place.
pub(crate) struct Judge {
    vector: Vector,
    node: NodeName,
    rings: BTreeMap<String, KeyRing>,
    lane_ring: LaneRing,
    approvers: Approvers,
    unsupported: Vec<TaskMember>,
}

impl Judge {
    pub(crate) fn new(vector: &Vector) -> Judge {
        let context = &vector.context;
        // A version-2 peer's key opens no version-3 message: it is in no ring.
        let rings: BTreeMap<String, KeyRing> = context
            .peers
            .iter()
            .filter(|(_, peer)| peer.schema == 3)
            .map(|(name, peer)| (name.clone(), ring(peer)))
            .collect();
        let lane_ring = vector.lane.as_ref().map_or_else(LaneRing::default, |lane| {
            let peer = if lane.from.as_str() == context.node { &lane.to } else { &lane.from };
            rings.get(peer.as_str()).map(|ring| ring.lane(lane)).unwrap_or_default()
        });
        Judge {
            node: NodeName::new(&context.node).unwrap(),
            approvers: Approvers::parse(&context.allowed_signers),
            unsupported: context.unsupported.iter().map(|word| TaskMember::parse(word).unwrap()).collect(),
            rings,
            lane_ring,
            vector: vector.clone(),
        }
    }

    /// The digest of the verified payload, or the code.
    pub(crate) fn judge(&self, file: &[u8]) -> Result<String, String> {
        self.refusal_or_digest(file).map_err(|refusal| refusal.code.as_str().to_owned())
    }

    fn refusal_or_digest(&self, file: &[u8]) -> Result<String, Refusal> {
        let context = &self.vector.context;
        let me = Me {
            cluster: canonical_uuid(&context.cluster).unwrap(),
            node: &self.node,
            now: Timestamp::parse(&context.now).unwrap(),
        };
        let (_, name) = self.vector.file.split_once('/').unwrap();
        let stem = name.split('.').next().unwrap();
        match self.vector.kind.as_str() {
            "standing" => outcome(accept::accept_standing(file, &me, &self.approvers)),
            "heartbeat" => {
                let highest = context.heartbeats.get(stem).map(|seen| (seen.boot, seen.seq));
                let node = NodeName::new(stem).unwrap();
                outcome(accept::accept_heartbeat(file, &node, &me, &self.rings_of(stem), highest))
            }
            "boot" => {
                let (_, number) = name.strip_suffix(".json").unwrap().split_once(".boot-").unwrap();
                let node = NodeName::new(stem).unwrap();
                let boot = number.parse().unwrap();
                outcome(accept::accept_boot(file, &node, boot, &me, &self.rings_of(stem)))
            }
            _ => self.judge_on_lane(file, &me, name, TaskId::parse_any_version(stem).unwrap()),
        }
    }

    fn judge_on_lane(&self, file: &[u8], me: &Me<'_>, name: &str, id: TaskId) -> Result<String, Refusal> {
        let lane = self.vector.lane.as_ref().unwrap();
        let place = Place { lane, id };
        let keys = &self.lane_ring;
        let seen = self.seen(lane, id);
        match self.vector.kind.as_str() {
            "task" => self.judge_task(file, place, me, seen),
            "control" => outcome(accept::accept_control(file, place, me, keys, seen)),
            "decision" => {
                let key16 = name.split('.').nth(1).unwrap();
                let waiting = self.waiting(lane, id, seen);
                outcome(accept::accept_decision(file, place, key16, me, &self.approvers, waiting))
            }
            "terms" => outcome(accept::accept_terms(file, place, me, keys, self.waiting(lane, id, seen))),
            "progress" => outcome(accept::accept_progress(file, place, me, keys, self.sent(lane, id))),
            "result" => match believe::believe(file, place, me, keys, self.sent(lane, id)) {
                Belief::Believed(verified) => Ok(digest_of(&verified)),
                Belief::NotBelieved(refusal) => Err(refusal),
            },
            kind => panic!("a vector of kind {kind}"),
        }
    }

    fn judge_task(
        &self,
        file: &[u8],
        place: Place<'_>,
        me: &Me<'_>,
        seen: Option<Digest>,
    ) -> Result<String, Refusal> {
        let context = &self.vector.context;
        let time = |text: &Option<String>| text.as_ref().map(|text| Timestamp::parse(text).unwrap());
        let rules = TaskRules {
            accept_after: time(&context.accept_after),
            forgotten_until: time(&context.forgotten_until),
            has_profile: &|name| context.profiles.iter().any(|known| known == name.as_str()),
            has_workspace: &|name| context.workspaces.iter().any(|known| known == name.as_str()),
            unsupported: &self.unsupported,
        };
        match accept::accept_task(file, place, me, &self.lane_ring, seen, &rules) {
            TaskVerdict::Accepted(verified) => Ok(digest_of(&verified)),
            TaskVerdict::Refused(refused) => Err(refused.refusal),
        }
    }

    fn rings_of(&self, node: &str) -> Vec<&KeyRing> {
        if node == self.node.as_str() {
            self.rings.values().collect()
        } else {
            self.rings.get(node).into_iter().collect()
        }
    }

    fn seen(&self, lane: &Lane, id: TaskId) -> Option<Digest> {
        let id = id.to_string();
        let rows = &self.vector.context.seen;
        rows.iter()
            .find(|row| row.from == lane.from.as_str() && row.id == id)
            .map(|row| digest(&row.payload_sha256))
    }

    fn waiting(&self, lane: &Lane, id: TaskId, seen: Option<Digest>) -> Waiting {
        let id = id.to_string();
        let rows = &self.vector.context.waiting;
        match rows.iter().find(|row| row.from == lane.from.as_str() && row.id == id) {
            Some(row) => Waiting::Waits {
                task_sha256: digest(&row.task_sha256),
                terms_sha256: Some(digest(&row.terms_sha256)),
            },
            None if seen.is_some() => Waiting::NotWaiting,
            None => Waiting::Unseen,
        }
    }

    fn sent(&self, lane: &Lane, id: TaskId) -> Option<Digest> {
        let id = id.to_string();
        let rows = &self.vector.context.sent;
        rows.iter().find(|row| row.to == lane.to.as_str() && row.id == id).map(|row| digest(&row.task_sha256))
    }
}

fn ring(peer: &Peer) -> KeyRing {
    let keys = |texts: &[String]| texts.iter().map(|text| PairKey::from_text(text).unwrap()).collect();
    KeyRing { accepted: keys(&peer.keys), retired: keys(&peer.retired) }
}
