//! The other side of version 2: what the original kit does to the share, written here from the protocol's words alone.
//!
//! Flat JSON, HMAC-SHA256 over six members joined by `|`, files moved by renaming, results signed by nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Node, names, read_regular};
use crate::mail;
use crate::process::Ended;
use crate::wait::eventually;

/// A node that runs the kit, as the peer of one node.
#[derive(Debug)]
pub struct Kit {
    /// Its name.
    pub name: String,
    /// The node it speaks with.
    pub peer: String,
    share: PathBuf,
    key: String,
}

impl Kit {
    /// Makes `name` a version-2 peer of `node`: its key, its table (`more` are further lines of it), its lanes.
    ///
    /// # Panics
    /// When it cannot be set up.
    #[must_use]
    pub fn beside(cluster: &Cluster, node: &Node, name: &str, more: &str) -> Kit {
        let kit = Kit {
            name: name.to_owned(),
            peer: node.name.clone(),
            share: cluster.share(),
            key: mail::sha256(name.as_bytes()),
        };
        let keys = node.config_dir().join("keys");
        fs::create_dir_all(&keys).unwrap();
        kit.write_key(&keys.join(format!("{name}.key")));
        node.configure(&format!("[peer.{name}]\nkeys = [\"keys/{name}.key\"]\nschema = 2\n{more}"));
        drop(node.ctl(["init"]).ok());
        kit
    }

    /// Writes its key file as the kit has it: white space around it is no part of the key.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_key(&self, path: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(path, format!("  {}\n\n", self.key)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A place on the lane it sends on.
    #[must_use]
    pub fn sends(&self, place: &str) -> PathBuf {
        self.share.join(format!("{}-to-{}", self.name, self.peer)).join(place)
    }

    /// A place on the lane it receives on.
    #[must_use]
    pub fn receives(&self, place: &str) -> PathBuf {
        self.share.join(format!("{}-to-{}", self.peer, self.name)).join(place)
    }

    /// A task of it, signed.
    #[must_use]
    pub fn task(&self, request: &str) -> Value {
        let mut task = json!({
            "id": uuid(), "from": self.name, "to": self.peer, "created": now(), "priority": "normal",
            "request": request, "callback": "file", "require_ack": false, "require_dangerous": false,
            "timeout_s": 600, "max_output_bytes": 2_000_000, "schema": 2,
        });
        self.sign(&mut task);
        task
    }

    /// Signs a task as it stands.
    pub fn sign(&self, task: &mut Value) {
        task["hmac"] = json!(self.hmac(task));
    }

    fn hmac(&self, task: &Value) -> String {
        let text = |member: &str| task[member].as_str().unwrap_or_default().to_owned();
        let signed = ["id", "from", "to", "created", "priority", "request"].map(text).join("|");
        mail::hmac_hex(self.key.as_bytes(), signed.as_bytes())
    }

    /// Puts a task into the inbox and yields its id.
    ///
    /// # Panics
    /// When it cannot be put there.
    pub fn send(&self, task: &Value) -> String {
        let id = task["id"].as_str().unwrap().to_owned();
        self.place(&self.sends(&format!("inbox/{id}.json")), task.to_string().as_bytes());
        id
    }

    /// Puts bytes at a place, whole at once.
    ///
    /// # Panics
    /// When they cannot be put there.
    pub fn place(&self, file: &Path, bytes: &[u8]) {
        let half = file.with_extension("half");
        fs::write(&half, bytes).unwrap();
        fs::rename(&half, file).unwrap();
    }

    /// The flat result of a task it sent, once it is there.
    #[must_use]
    pub fn result(&self, id: &str) -> Option<Value> {
        let bytes = read_regular(&self.sends(&format!("done/{id}.result.json")))?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Waits for the flat result of a task it sent and asserts its status.
    ///
    /// # Panics
    /// When there is none in time, or it has another status.
    #[track_caller]
    pub fn answered(&self, id: &str, status: &str) -> Value {
        let result = eventually(&format!("a flat result for {id}"), || self.result(id));
        assert_eq!(
            (result["id"].as_str(), result["status"].as_str()),
            (Some(id), Some(status)),
            "{result:#}"
        );
        result
    }

    /// The code under which a file of its inbox was set aside.
    #[must_use]
    pub fn refused(&self, id: &str) -> Option<String> {
        let dir = self.sends("rejected");
        let reason =
            names(&dir).into_iter().find(|name| name.starts_with(id) && name.ends_with(".reason.json"))?;
        let reason: Value = serde_json::from_slice(&fs::read(dir.join(reason)).ok()?).ok()?;
        Some(reason["code"].as_str()?.to_owned())
    }

    /// Takes what lies in its inbox, as its watcher does: verified, moved on, run (`true` for each), answered. Yields the
    /// requests it ran.
    ///
    /// # Panics
    /// When a file cannot be moved.
    #[must_use]
    pub fn run_inbox(&self) -> Vec<String> {
        let mut ran = Vec::new();
        for name in names(&self.receives("inbox")) {
            let file = self.receives(&format!("inbox/{name}"));
            let Ok(task) = serde_json::from_slice::<Value>(&fs::read(&file).unwrap()) else { continue };
            if task["schema"] != 2 || task["hmac"] != json!(self.hmac(&task)) {
                continue;
            }
            let id = task["id"].as_str().unwrap();
            fs::rename(&file, self.receives(&format!("processing/{name}"))).unwrap();
            ran.push(task["request"].as_str().unwrap().to_owned());
            fs::write(self.receives(&format!("done/{id}.log")), "it ran\n").unwrap();
            let result =
                json!({"id": id, "status": "ok", "exit_code": 0, "elapsed": 0.5, "output": "it ran\n"});
            let file = self.receives(&format!("done/{id}.result.json"));
            self.place(&file, result.to_string().as_bytes());
            fs::rename(self.receives(&format!("processing/{name}")), self.receives(&format!("done/{name}")))
                .unwrap();
        }
        ran
    }
}

/// A uuid of version 4, as the kit draws them.
fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

/// The time as the kit spells it.
fn now() -> String {
    let mut command = Command::new("date");
    command.args(["-u", "+%Y-%m-%dT%H:%M:%S.%6N+00:00"]);
    Ended::of(command, b"").ok().out.trim().to_owned()
}
