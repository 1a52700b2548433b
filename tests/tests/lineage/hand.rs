//! An agent that stays, and requests written by hand at its door.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use dispatch_core::protocol::time::Timestamp;
use dispatch_testkit::process::Ended;
use dispatch_testkit::{Cluster, eventually};
use serde_json::{Value, json};

/// A time of the wire, so many seconds from now.
pub fn time_from_now(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(i64::try_from(now.as_millis()).unwrap() + seconds * 1_000).to_string()
}

/// The door and the token of an attempt, in the hands of the test.
pub struct Hand {
    pub door: PathBuf,
    pub token: String,
}

impl Hand {
    /// A request for a child at `a` that is as it should be.
    pub fn request(&self) -> Value {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        json!({
            "schema": 1, "id": id.trim(), "verb": "child", "token": self.token,
            "args": {"to": "a", "request": "true"}, "made": time_from_now(0), "expires": time_from_now(50),
        })
    }

    /// Asks for it with a change, and yields the reply.
    #[track_caller]
    pub fn ask(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut request = self.request();
        change(&mut request);
        self.put(&request)
    }

    /// Lays a request down, whole at once.
    pub fn lay(&self, request: &Value) {
        let place = self.door.join("requests").join(format!("{}.json", request["id"].as_str().unwrap()));
        let half = place.with_extension("half");
        fs::write(&half, request.to_string()).unwrap();
        fs::rename(half, place).unwrap();
    }

    /// The reply to a request, if there is one.
    pub fn reply(&self, request: &Value) -> Option<Value> {
        let name = format!("{}.json", request["id"].as_str().unwrap());
        serde_json::from_slice(&fs::read(self.door.join("replies").join(name)).ok()?).ok()
    }

    /// Lays a request down and yields the reply.
    #[track_caller]
    pub fn put(&self, request: &Value) -> Value {
        let reply = self.door.join("replies").join(format!("{}.json", request["id"].as_str().unwrap()));
        drop(fs::remove_file(reply));
        self.lay(request);
        eventually("the request is answered", || self.reply(request))
    }

    /// `dispatch-send` with this door and token and nothing else.
    pub fn command(&self, cluster: &Cluster, words: &[&str]) -> Ended {
        let mut command = Command::new(cluster.bins.path("dispatch-send"));
        command.env_clear().env("DISPATCH_DOOR", &self.door).env("DISPATCH_TOKEN", &self.token).args(words);
        Ended::of(command, b"")
    }
}

/// A task of `a` at `b` whose agent says where its door is and stays until it is told to end.
pub struct Held {
    pub id: String,
    pub hand: Hand,
    gate: PathBuf,
}

impl Held {
    /// Sends it with the options `words` and waits until its agent runs.
    #[track_caller]
    pub fn send(cluster: &Cluster, label: &str, words: &[&str]) -> Held {
        let file = cluster.outside().join(format!("hand-{label}"));
        let gate = cluster.outside().join(format!("gate-{label}"));
        let script = format!(
            "{}echo \"$DISPATCH_DOOR $DISPATCH_TOKEN\" > '{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done\n",
            cluster.runs.mark(label),
            file.display(),
            gate.display()
        );
        let id = cluster.a().send("b", &script, words);
        let text = eventually("its agent says where its door is", || {
            fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
        });
        let (door, token) = text.trim_end().rsplit_once(' ').unwrap();
        Held { id, hand: Hand { door: door.into(), token: token.to_owned() }, gate }
    }

    /// Lets its agent end, and waits for its result.
    #[track_caller]
    pub fn end(&self, cluster: &Cluster) {
        fs::write(&self.gate, "").unwrap();
        cluster.answered(&self.id, "ok");
    }
}
