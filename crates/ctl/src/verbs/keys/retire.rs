//! `dispatchctl keys retire`: not before nothing depends on the old key any more.

use dispatch_core::protocol::keys::PairKey;
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_core::protocol::payload::Kind;
use dispatch_core::protocol::seal::RawEnvelope;
use dispatch_node::config::Config;
use dispatch_node::outgoing::Outgoing;
use dispatch_node::report::{Exit, Report};
use serde_json::json;

use super::list::{PeerKeys, Role, Row};
use super::{RetireArgs, refuse_version_2};
use crate::context::Context;
use crate::editing::{self, Edited};
use crate::named::ledger;

pub(super) fn run(args: &RetireArgs, context: &Context) -> Result<Exit, Report> {
    let (peer, config) = (&args.peer, context.config()?);
    refuse_version_2(&config, peer)?;
    let edited = Edited::read(&config.file)?;
    let mut files = editing::key_files(edited.text()?, peer)?;
    let known = PeerKeys::of(&config, peer);
    let (row, key) = wanted(&known, peer, &args.keyid)?;
    let keyid = key.keyid();
    match row.role {
        Role::Retired => {
            context
                .say_json(&json!({"schema": 1, "did": "nothing", "peer": peer.as_str(), "keyid": keyid}))?;
            context.say(&format!("the key {keyid} of {peer} is retired already"))?;
            return Ok(Exit::Done);
        }
        Role::Signs => {
            return Err(Report::new(
                Exit::Config,
                format!("the key {keyid} of {peer} is the one that signs here"),
            )
            .help(format!("put another in its place first: dispatchctl keys rotate {peer}")));
        }
        Role::Verifies => {}
    }
    if !args.force {
        check(&config, peer, &known, row, key)?;
    }
    // Configured files are the first rows, in the order of the list.
    let Some(at) =
        known.rows.iter().position(|one| std::ptr::eq(one, row)).filter(|at| *at < files.keys.len())
    else {
        return Err(Report::new(Exit::Bug, "the key is in no list"));
    };
    files.retired.push(files.keys.remove(at));
    let text = editing::with_key_files(edited.text()?, peer, &files)?;
    let config = editing::replace_config(&config, &edited, &text)?;
    let told = editing::tell_the_watcher(&config, &format!("keys retire {peer} {keyid}"), context);
    context.say_json(&json!({
        "schema": 1, "did": "retired", "peer": peer.as_str(), "keyid": keyid, "file": row.file, "watcher": told.as_str(),
    }))?;
    context.say(&format!("what the key {keyid} of {peer} signs is refused from now on"))?;
    context.say(&format!(
        "\nThe same on {peer}, if not done: dispatchctl keys retire {} {keyid}\nKeep the file: what is refused for it is named so.",
        config.node
    ))?;
    Ok(Exit::Done)
}

fn wanted<'k>(known: &'k PeerKeys, peer: &NodeName, keyid: &str) -> Result<(&'k Row, &'k PairKey), Report> {
    let usage = |what: String| Report::new(Exit::Usage, what).help("dispatchctl keys list names them");
    if keyid.len() < 4 {
        return Err(usage("a key is named by at least 4 digits of its id".to_owned()));
    }
    let mut fitting = known.rows.iter().filter_map(|row| {
        let key = row.key.as_ref().ok()?;
        key.keyid().starts_with(keyid).then_some((row, key))
    });
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(usage(format!("several keys of {peer} begin with `{keyid}`"))),
        (None, _) => Err(usage(format!("{peer} has no key `{keyid}` here"))),
    }
}

/// Refuses while something is under way that only this key opens.
fn check(config: &Config, peer: &NodeName, known: &PeerKeys, row: &Row, key: &PairKey) -> Result<(), Report> {
    let keyid = key.keyid();
    let later = |what: String, help: String| Err(Report::new(Exit::TryLater, what).help(help));
    match known.peer_signs() {
        None => {
            return later(
                format!("nobody knows what {peer} signs with: it has no heartbeat here that verifies"),
                format!("see that its watcher runs, then run it again; --force retires {keyid} all the same"),
            );
        }
        Some(signs) if std::ptr::eq(signs, row) => {
            return later(
                format!("{peer} still signs with {keyid}"),
                format!(
                    "on {peer}: dispatchctl keys rotate {}; then wait for its next heartbeat",
                    config.node
                ),
            );
        }
        Some(_) => {}
    }
    let (lane_in, lane_out) =
        (Lane::new(peer.clone(), config.node.clone()), Lane::new(config.node.clone(), peer.clone()));
    let unanswered = unanswered(config, key, &lane_out)?;
    if unanswered > 0 {
        return later(
            format!("{unanswered} task(s) sent with {keyid} have no answer yet"),
            format!("wait for them (dispatchctl list), or cancel them; --force retires {keyid} all the same"),
        );
    }
    let waiting = waiting(config, key, &lane_in)?;
    if waiting > 0 {
        return later(
            format!(
                "{waiting} task(s) of {peer} that were sent with {keyid} wait for a decision: nobody could decide"
            ),
            "decide about them first: dispatch-ack lists them; --force retires it all the same".to_owned(),
        );
    }
    Ok(())
}

fn unanswered(config: &Config, key: &PairKey, lane: &Lane) -> Result<usize, Report> {
    let outgoing = Outgoing::at(&config.state, lane);
    let lane_key = key.lane(lane);
    let mut open = outgoing.unanswered()?;
    open.retain(|record| record.unanswered_at.is_none());
    let kept = outgoing.kept()?;
    open.extend(kept.into_iter().filter_map(|(_, id)| outgoing.record(id).ok().flatten()));
    Ok(open.iter().filter(|record| is_sealed_with(&record.envelope, lane_key.keyid())).count())
}

fn waiting(config: &Config, key: &PairKey, lane: &Lane) -> Result<usize, Report> {
    let Some(ledger) = ledger(config)? else { return Ok(0) };
    let lane_key = key.lane(lane);
    let mut count = 0_usize;
    for row in ledger.waiting()?.iter().filter(|row| row.key.from == lane.from) {
        let envelope = ledger.envelope(&row.key)?.unwrap_or_default();
        if is_sealed_with(&envelope, lane_key.keyid()) {
            count = count.saturating_add(1);
        }
    }
    Ok(count)
}

/// By the hint beside the signature: these are this node's own files, verified when they were made or taken.
fn is_sealed_with(envelope: &[u8], keyid: &str) -> bool {
    RawEnvelope::read(Kind::Task, envelope)
        .is_ok_and(|envelope| envelope.unverified_signatures().iter().any(|one| one.keyid == keyid))
}
