//! A task that was sent from here: its sent record, what is verified on the share, and what the receiver says of itself.

use std::sync::Arc;

use dispatch_core::explain::{Flusher, PeerSays, Sent, Told, sent_cost};
use dispatch_core::policy::fleet::{DEAD_AFTER_S, STALE_AFTER_S};
use dispatch_core::policy::gate::GateReason;
use dispatch_core::protocol::Terms;
use dispatch_core::protocol::accept::{Me, Place, Verdict, Waiting, accept_terms};
use dispatch_core::protocol::heartbeat::{Heartbeat, NodeState};
use dispatch_core::protocol::limits::ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::progress::Phase;
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::desk::Desk;
use dispatch_node::outgoing::{Record, RecordPlace};
use dispatch_node::peers_json;
use dispatch_node::report::Report;
use dispatch_node::state::{Watched, watched};
use dispatch_node::waiting::{Whereabouts, whereabouts};
use dispatch_spool::{File, Share as _};
use serde_json::json;

use super::Page;
use super::received::present;
use crate::answer::{self, Answering};
use crate::named::{Found, SentTask};
use crate::sender;
use crate::views;

pub(super) fn page(config: &Config, sent: SentTask) -> Result<Page, Report> {
    let now = clock::now();
    let (record, lane) = (sent.record.clone(), sent.outgoing.lane().clone());
    let task = record.task()?;
    let outgoing = sent.outgoing.clone();
    let seen = look(config, sent, now);
    // An answer that was found has just been noted.
    let record = outgoing.record(record.id)?.unwrap_or(record);
    let standing = views::sent_standing(&record, now);
    let estimate = seen.terms.as_ref().and_then(|terms| terms.estimate_usd);
    Ok(Page {
        head: format!("task {} to {}: {standing}", record.id, lane.to),
        about: json!({
            "task": record.id.to_string(),
            "direction": "sent",
            "to": lane.to.as_str(),
            "state": standing,
            "status": record.answered.map(|answered| answered.status.as_str()),
        }),
        told: seen.told,
        limit: None,
        cost: sent_cost(task.max_cost_usd, estimate),
        cost_facts: json!({
            "ceiling_usd": task.max_cost_usd.map(|usd| usd.to_string()),
            "estimate_usd": estimate.map(|usd| usd.to_string()),
        }),
        windows: Vec::new(),
    })
}

struct Seen {
    told: Vec<Told>,
    terms: Option<Terms>,
}

/// Where it is: the record alone, then the answer, then the places a task may lie in.
fn look(config: &Config, sent: SentTask, now: Timestamp) -> Seen {
    let (record, lane) = (sent.record.clone(), sent.outgoing.lane().clone());
    let only = |sent: Sent| Seen { told: vec![sent.told()], terms: None };
    let desk = match sender::desk(config, &lane) {
        Ok(desk) => Arc::new(desk),
        Err(report) => {
            let mut seen = only(by_record(config, &record, now).unwrap_or(Sent::Unseen));
            seen.told.push(Sent::NoShare(report.one_line()).told());
            return seen;
        }
    };
    match answer::look(config, &Found::Sent(Box::new(sent))) {
        Ok(Answering::Verified(answer)) => {
            return only(Sent::Answered { status: answer.result.status, reason: answer.result.reason });
        }
        Ok(Answering::Unverified { code, .. }) => {
            return only(Sent::NotBelieved { code: ReasonCode::parse(code) });
        }
        Ok(Answering::Unsigned(result)) => return only(Sent::Unsigned { says: result.status }),
        Ok(Answering::None) | Err(_) => {}
    }
    let mut seen = Seen { told: Vec::new(), terms: None };
    seen.told.extend(by_record(config, &record, now).map(|sent| sent.told()));
    if record.place == RecordPlace::Sent {
        on_the_share(&mut seen, &desk, &record, now);
    }
    if record.answered.is_none() {
        seen.told.extend(present(config, &lane).iter().map(dispatch_core::explain::Standing::told));
        seen.told.extend(peer(&desk, now).iter().map(PeerSays::told));
    }
    seen
}

/// What this node knows by itself; `None` where that is only that it was sent.
fn by_record(config: &Config, record: &Record, now: Timestamp) -> Option<Sent> {
    if let Some(answered) = record.answered {
        return Some(Sent::Answered { status: answered.status, reason: None });
    }
    if record.place == RecordPlace::Outbox {
        let by_watcher = watched(&config.state).is_ok_and(|held| held == Watched::Held);
        return Some(Sent::Kept(if by_watcher { Flusher::Watcher } else { Flusher::NextSend }));
    }
    if record.unanswered_at.is_some() || now >= record.answer_by {
        return Some(Sent::Unanswered { answer_by: record.answer_by });
    }
    if record.unknown {
        return Some(Sent::InDoubt);
    }
    if record.conflict {
        return Some(Sent::Conflict);
    }
    record.cancel.is_some().then_some(Sent::CancelAsked)
}

fn on_the_share(seen: &mut Seen, desk: &Arc<Desk>, record: &Record, now: Timestamp) {
    let place = match whereabouts(desk, record) {
        Ok(place) => place,
        Err(error) => {
            seen.told.push(Sent::NoShare(error.to_string()).told());
            return;
        }
    };
    let sent = match place {
        Whereabouts::Inbox => Sent::InInbox,
        Whereabouts::Told { far, .. } if far.phase == Phase::Queued => {
            Sent::Queued { position: far.position }
        }
        Whereabouts::Told { far, .. } if far.phase == Phase::Running => {
            Sent::Running { elapsed_ms: far.elapsed_ms, usd: far.usd }
        }
        Whereabouts::Told { .. } | Whereabouts::SeemsWaiting => {
            seen.terms = terms(desk, record);
            let words = seen.terms.as_ref().map(|terms| terms.gate.clone()).unwrap_or_default();
            Sent::Waiting(words.iter().filter_map(|word| GateReason::parse(word)).collect())
        }
        Whereabouts::SeemsTaken => Sent::Queued { position: None },
        // What is over and unanswered has been said already.
        Whereabouts::Unseen if !seen.told.is_empty() => return,
        Whereabouts::Unseen if now >= record.expires => Sent::Late { answer_by: record.answer_by },
        Whereabouts::Unseen => Sent::Unseen,
    };
    seen.told.push(sent.told());
}

/// The receiver's terms of a task that waits for a person, where they verify.
fn terms(desk: &Desk, record: &Record) -> Option<Terms> {
    let limit = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
    let bytes = desk.share.read(&File::terms(&desk.lane, record.id), limit).ok()?;
    let place = Place { lane: &desk.lane, id: record.id };
    let me = Me { cluster: desk.cluster, node: &desk.node, now: clock::now() };
    let waiting = Waiting::Waits { task_sha256: record.task_sha256, terms_sha256: None };
    match accept_terms(&bytes, place, &me, &desk.keys, waiting) {
        Verdict::Accepted(terms) => Some(terms.into_parts().0),
        Verdict::Refused(_) => None,
    }
}

/// What the receiver says of itself, worst first.
fn peer(desk: &Desk, now: Timestamp) -> Vec<PeerSays> {
    let noted = peers_json::read(&desk.state).ok().flatten();
    // The watcher counts by this node's clock; without one only the receiver's own clock is in its heartbeat.
    let fresh =
        noted.as_ref().filter(|known| now.since_ms(known.written) < DEAD_AFTER_S.saturating_mul(1_000));
    let by_watcher = fresh.and_then(|known| known.peers.get(&desk.lane.to)).and_then(|seen| seen.age_ms);
    let beat = desk.heartbeat().ok().flatten();
    let age_ms = by_watcher
        .and_then(|age| i64::try_from(age).ok())
        .or_else(|| beat.as_ref().map(|beat| now.since_ms(beat.ts)));
    let Some(age_ms) = age_ms else { return vec![PeerSays::Never] };
    let mut says = Vec::new();
    match age_ms.div_euclid(1_000) {
        age if age < STALE_AFTER_S => {}
        age if age < DEAD_AFTER_S => says.push(PeerSays::Stale { age_ms }),
        _ => return vec![PeerSays::Dead { age_ms }],
    }
    says.extend(beat.iter().flat_map(of_beat));
    if says.is_empty() {
        says.push(PeerSays::Healthy);
    }
    says
}

fn of_beat(beat: &Heartbeat) -> Vec<PeerSays> {
    let mut says = Vec::new();
    if beat.killswitch.tripped {
        says.push(PeerSays::Stopped { reason: beat.killswitch.reason.clone().unwrap_or_default() });
    }
    if beat.state != NodeState::Active {
        says.push(PeerSays::NotActive(beat.state));
    }
    if beat.backpressure.on {
        says.push(PeerSays::Full { retry_after_s: beat.backpressure.retry_after_s });
    }
    says
}
