//! `dispatchctl keys new` and `keys rotate`.

use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::NodeName;
use dispatch_node::config::Config;
use dispatch_node::files::{Written, create_synced};
use dispatch_node::keys::{new_pair_key, pair_key_secret_text, read_pair_key, write_pair_key};
use dispatch_node::report::{Exit, Report};
use dispatch_node::state::names_in;
use serde_json::json;

use super::list::{PeerKeys, Role};
use super::{RotateArgs, refuse_version_2};
use crate::context::Context;
use crate::editing::{self, Edited, KeyFiles, Told};
use crate::verbs::init::{Join, quoted};

/// A key file that no list of the configuration names.
struct Fresh {
    /// As the configuration is to name it.
    named: String,
    path: PathBuf,
    keyid: String,
}

impl Fresh {
    fn at(config: &Config, named: String) -> Result<Fresh, Report> {
        let path = config.dir.join(&named);
        let keyid = read_pair_key(&path, &config.root)?.keyid().to_owned();
        Ok(Fresh { named, path, keyid })
    }

    /// The one that `keys new` made for this peer and nothing uses yet. Of several nobody can say which is meant.
    fn waiting(config: &Config, peer: &NodeName, files: &KeyFiles) -> Result<Option<Fresh>, Report> {
        let (start, dir) = (format!("{peer}."), config.dir.join("keys"));
        let listed = |named: &String| files.keys.contains(named) || files.retired.contains(named);
        let mut waiting: Vec<String> = names_in(&dir)
            .unwrap_or_default()
            .into_iter()
            .filter(|name| {
                name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(".key")).is_some_and(is_keyid8)
            })
            .map(|name| format!("keys/{name}"))
            .filter(|named| !listed(named))
            .collect();
        match (waiting.pop(), waiting.is_empty()) {
            (None, _) => Ok(None),
            (Some(named), true) => Fresh::at(config, named).map(Some),
            (Some(_), false) => {
                let what = format!("`{}` holds several new keys for {peer}", dir.display());
                Err(Report::new(Exit::Config, what)
                    .help("remove those that are not wanted, then run it again"))
            }
        }
    }

    /// Draws one. Its name holds the beginning of its id, so that two are never mixed up.
    fn draw(config: &Config, peer: &NodeName) -> Result<Fresh, Report> {
        let drawn = config.dir.join("keys").join(format!(".{peer}.drawn"));
        // What an interrupted run left was never shown to anybody.
        if drawn.exists() {
            std::fs::remove_file(&drawn).map_err(dispatch_node::files::FileError::of("remove", &drawn))?;
        }
        let (Written::Created | Written::AlreadyThere) = new_pair_key(&drawn)?;
        let keyid = read_pair_key(&drawn, &config.root)?.keyid().to_owned();
        let named = named(peer, &keyid);
        let path = config.dir.join(&named);
        std::fs::rename(&drawn, &path).map_err(dispatch_node::files::FileError::of("name", &path))?;
        dispatch_node::files::sync_parent(&path)?;
        Fresh::at(config, named)
    }

    /// The one that a join file of the other node brought.
    fn brought(config: &Config, peer: &NodeName, file: &Path) -> Result<Fresh, Report> {
        let join = Join::read(file, &config.root)?;
        let refused = |why: String| {
            Report::new(Exit::Config, format!("the join file `{}` {why}", file.display()))
                .help(format!("on {peer}: dispatchctl keys rotate {}", config.node))
        };
        if join.cluster != config.cluster {
            return Err(refused("is of another cluster".to_owned()));
        }
        if join.node != config.node || join.peer != *peer {
            return Err(refused(format!("is for `{}`, from `{}`", join.node, join.peer)));
        }
        let keyid = dispatch_core::protocol::keys::PairKey::from_text(&join.key)
            .map_err(|_| refused("holds no usable key".to_owned()))?
            .keyid()
            .to_owned();
        let named = named(peer, &keyid);
        let (Written::Created | Written::AlreadyThere) = write_pair_key(&config.dir.join(&named), &join.key)?;
        Fresh::at(config, named)
    }
}

fn named(peer: &NodeName, keyid: &str) -> String {
    format!("keys/{peer}.{}.key", keyid.get(..8).unwrap_or(keyid))
}

/// When a key file was written.
fn written(file: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(file).and_then(|facts| facts.modified()).ok()
}

fn is_keyid8(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The join file that brings a key to the peer.
fn join_file(config: &Config, peer: &NodeName, fresh: &Fresh) -> Result<PathBuf, Report> {
    let path = config.dir.join(format!("join-{peer}.{}.json", fresh.keyid.get(..8).unwrap_or_default()));
    let join = Join {
        cluster: config.cluster,
        node: peer.clone(),
        peer: config.node.clone(),
        key: pair_key_secret_text(&fresh.path, &config.root)?,
    };
    let (Written::Created | Written::AlreadyThere) = create_synced(&path, &join.encode(&path)?, 0o600)?;
    Ok(path)
}

/// What brings the file over, as lines for a shell.
fn lines_over(config: &Config, peer: &NodeName, join: &Path) -> String {
    let (node, join) = (&config.node, quoted(join));
    format!(
        "\nNow {peer}. The join file holds the new key; bring it over and remove it on both sides:
  scp -p {join} {peer}:dispatch-join.json
  ssh {peer} dispatchctl keys rotate {node} --join dispatch-join.json
  ssh {peer} rm dispatch-join.json; rm {join}"
    )
}

fn edited(config: &Config, peer: &NodeName) -> Result<(Edited, KeyFiles), Report> {
    refuse_version_2(config, peer)?;
    let edited = Edited::read(&config.file)?;
    let files = editing::key_files(edited.text()?, peer)?;
    Ok((edited, files))
}

pub(super) fn new(peer: &NodeName, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let (_, files) = edited(&config, peer)?;
    let fresh = match Fresh::waiting(&config, peer, &files)? {
        Some(fresh) => fresh,
        None => Fresh::draw(&config, peer)?,
    };
    let join = join_file(&config, peer, &fresh)?;
    context.say_json(&json!({
        "schema": 1, "did": "drew", "peer": peer.as_str(), "keyid": fresh.keyid, "file": fresh.path, "join": join,
    }))?;
    context.say(&format!("a new key for {peer}, {}: {}", fresh.keyid, fresh.path.display()))?;
    context.say(&format!("nothing uses it yet. Here: dispatchctl keys rotate {peer}"))?;
    context.say(&lines_over(&config, peer, &join))?;
    Ok(Exit::Done)
}

pub(super) fn rotate(args: &RotateArgs, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let (edited, files) = edited(&config, &args.peer)?;
    let rotation = Rotation { config, edited, files, peer: &args.peer, context };
    if let Some(file) = &args.join {
        let fresh = Fresh::brought(&rotation.config, rotation.peer, file)?;
        return rotation.add(&fresh, None);
    }
    if rotation.files.keys.len() < 2 {
        let fresh = match Fresh::waiting(&rotation.config, rotation.peer, &rotation.files)? {
            Some(fresh) => fresh,
            None => Fresh::draw(&rotation.config, rotation.peer)?,
        };
        let join = join_file(&rotation.config, rotation.peer, &fresh)?;
        return rotation.add(&fresh, Some(&join));
    }
    rotation.make_first(if args.force { Proof::Waived } else { Proof::Needed })
}

/// Whether the peer must have shown that it has the key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    Needed,
    Waived,
}

struct Rotation<'r> {
    config: Config,
    edited: Edited,
    files: KeyFiles,
    peer: &'r NodeName,
    context: &'r Context,
}

impl Rotation<'_> {
    fn write(&self, files: &KeyFiles, reason: &str) -> Result<Told, Report> {
        let text = editing::with_key_files(self.edited.text()?, self.peer, files)?;
        let config = editing::replace_config(&self.config, &self.edited, &text)?;
        Ok(editing::tell_the_watcher(&config, reason, self.context))
    }

    /// The first step: a key that verifies.
    fn add(&self, fresh: &Fresh, join: Option<&Path>) -> Result<Exit, Report> {
        let (peer, context, keyid) = (self.peer, self.context, &fresh.keyid);
        let mut files = self.files.clone();
        let known = PeerKeys::of(&self.config, peer);
        let is_listed = known.rows.iter().any(|row| row.key.as_ref().is_ok_and(|key| key.keyid() == keyid));
        let told = if is_listed {
            Told::Yes
        } else {
            files.keys.push(fresh.named.clone());
            self.write(&files, &format!("keys rotate {peer}: {keyid} verifies"))?
        };
        context.say_json(&json!({
            "schema": 1, "did": if is_listed { "nothing" } else { "added" }, "peer": peer.as_str(), "keyid": keyid,
            "file": fresh.path, "join": join, "watcher": told.as_str(),
        }))?;
        let did = if is_listed { "verifies already" } else { "verifies from now on" };
        context.say(&format!("the key {keyid} of {peer} {did}: {}", fresh.path.display()))?;
        match join {
            Some(join) => {
                context.say(&lines_over(&self.config, peer, join))?;
                context.say(&format!("\nThen here again, to make it sign: dispatchctl keys rotate {peer}"))?;
            }
            None => context.say(&format!(
                "\nNow make it sign, first on {peer}: dispatchctl keys rotate {}\nthen here: dispatchctl keys rotate {peer}",
                self.config.node
            ))?,
        }
        Ok(Exit::Done)
    }

    fn signs_already(&self, known: &PeerKeys, keyid: &str) -> Result<Exit, Report> {
        let (peer, context) = (self.peer, self.context);
        let older = known.rows.iter().filter(|row| row.role == Role::Verifies);
        let older: Vec<&str> = older.filter_map(|row| Some(row.key.as_ref().ok()?.keyid())).collect();
        context.say_json(&json!({
            "schema": 1, "did": "nothing", "peer": peer.as_str(), "keyid": keyid, "old": older.first(),
        }))?;
        context.say(&format!("the newest key of {peer}, {keyid}, signs already; to end this rotation:"))?;
        for old in older {
            context.say(&format!("  dispatchctl keys retire {peer} {old}"))?;
        }
        Ok(Exit::Done)
    }

    /// The second step: the newest one signs.
    fn make_first(&self, proof: Proof) -> Result<Exit, Report> {
        let (peer, context) = (self.peer, self.context);
        let known = PeerKeys::of(&self.config, peer);
        let accepted = known.rows.iter().enumerate().filter(|(_, row)| row.role != Role::Retired);
        // A key file is written once, so the newest one is the one that was added last.
        let Some((at, newest)) = accepted.max_by_key(|(at, row)| (written(&row.file), *at)) else {
            return Err(Report::new(Exit::Config, format!("{peer} has no key")));
        };
        let keyid = match &newest.key {
            Ok(key) => key.keyid().to_owned(),
            Err(problem) => return Err(Report::new(Exit::Config, problem.clone().unwrap_or_default())),
        };
        if at == 0 {
            return self.signs_already(&known, &keyid);
        }
        if proof == Proof::Needed && newest.place.is_none() {
            let why = if known.beats {
                "its heartbeat does not show it"
            } else {
                "it has no heartbeat on the share"
            };
            let what =
                format!("{peer} may not have the key {keyid}: {why}, and it would refuse what it signs");
            return Err(Report::new(Exit::TryLater, what).help(format!(
                "bring it over (on {peer}: dispatchctl keys rotate {} --join FILE), see that a watcher runs there, and wait \
                 for its next heartbeat; --force does without",
                self.config.node
            )));
        }
        let mut files = self.files.clone();
        if at >= files.keys.len() {
            return Err(Report::new(Exit::Bug, "the key is in no list"));
        }
        let named = files.keys.remove(at);
        files.keys.insert(0, named);
        let told = self.write(&files, &format!("keys rotate {peer}: {keyid} signs"))?;
        let old = known.rows.iter().find(|row| row.role == Role::Signs).and_then(|row| row.key.as_ref().ok());
        let old = old.map_or("OLD_KEYID", |key| key.keyid());
        context.say_json(&json!({
            "schema": 1, "did": "made first", "peer": peer.as_str(), "keyid": keyid, "file": newest.file,
            "old": old, "watcher": told.as_str(),
        }))?;
        context.say(&format!("the key {keyid} of {peer} signs from now on; {old} still verifies"))?;
        let node = &self.config.node;
        context.say(&format!(
            "\nThe same on {peer}, if not done: dispatchctl keys rotate {node}
When `dispatchctl keys list` says here that {peer} signs with {keyid}, and there that {node} does:
  dispatchctl keys retire {peer} {old}      and on {peer}: dispatchctl keys retire {node} {old}"
        ))?;
        Ok(Exit::Done)
    }
}
