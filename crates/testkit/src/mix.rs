//! One task of every sort on its way from `a` to `b`, and what must be true when all of them are answered, whoever died
//! meanwhile.

use serde_json::Value;

use crate::bins::Bins;
use crate::cluster::{Cluster, Node, Watcher, names};
use crate::wait;
use crate::{books, check};

/// What an attempt of a paid task is reserved for, in millionths of a dollar. The `command` agent reports no cost, so
/// this is also what each is settled at.
pub const ATTEMPT_MICROS: u64 = 1_000_000;

/// Two nodes where paid work is allowed: profile `paid` reserves 1 USD for an attempt, 20 USD a month, and `dear` more
/// than that.
///
/// # Panics
/// When the nodes cannot be set up.
#[must_use]
pub fn cluster(bins: &Bins) -> Cluster {
    let cluster = Cluster::new(bins);
    configure(cluster.b());
    cluster
}

/// Allows paid work on a node.
///
/// # Panics
/// When its configuration cannot be written.
pub fn configure(node: &Node) {
    node.only_caps();
    node.configure(
        "[watch]\nheartbeat_s = 1\n[budget]\nrun_usd = \"20\"\nmonth_usd = \"20\"\n\
         [profile.paid]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
         max_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n\
         [profile.dear]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
         max_cost_usd = \"50\"\novershoot_usd = \"1\"\n",
    );
}

/// A request that notes every attempt of `label` as `label.N`, N the attempt's number, and then runs `script`.
#[must_use]
pub fn noting(cluster: &Cluster, label: &str, script: &str) -> String {
    format!("{}{script}\n", cluster.runs.mark(&format!("{label}.'\"$DISPATCH_ATTEMPT\"'")))
}

/// The tasks.
#[derive(Debug)]
pub struct Mix {
    /// Where they are on their way.
    pub cluster: Cluster,
    /// The key of the person who approves.
    pub key: String,
    /// A free task.
    pub plain: String,
    /// A paid task.
    pub paid: String,
    /// A paid task that waits for a person.
    pub gated: String,
    /// A paid task that may run twice and fails the first time.
    pub again: String,
    /// A task for a profile that is not there.
    pub unknown: String,
    /// A task that costs more than there is.
    pub dear: String,
}

impl Mix {
    /// Sends one of each. No watcher runs yet.
    ///
    /// # Panics
    /// When one is not sent.
    #[must_use]
    pub fn sent(cluster: Cluster) -> Self {
        let key = cluster.b().approver("ann").display().to_string();
        let a = cluster.a();
        let send =
            |label: &str, script: &str, words: &[&str]| a.send("b", &noting(&cluster, label, script), words);
        let plain = send("plain", "echo plain", &[]);
        let paid = send("paid", "echo paid", &["--profile", "paid"]);
        let gated = send("gated", "echo gated", &["--profile", "paid", "--require-ack"]);
        let fails = "[ \"$DISPATCH_ATTEMPT\" = 2 ] || exit 3";
        let again = send("again", fails, &["--profile", "paid", "--max-attempts", "2"]);
        let unknown = send("unknown", "", &["--profile", "nowhere"]);
        let dear = send("dear", "", &["--profile", "dear"]);
        Self { cluster, key, plain, paid, gated, again, unknown, dear }
    }

    /// All ids.
    #[must_use]
    pub fn ids(&self) -> [String; 6] {
        [&self.plain, &self.paid, &self.gated, &self.again, &self.unknown, &self.dear].map(Clone::clone)
    }

    /// Approves the gated task if it waits and no decision lies there. One that comes too late is set aside.
    pub fn approve(&self) {
        let pending = names(&self.cluster.lane("a", "b").join("pending-ack"));
        let waits = pending.contains(&format!("{}.json", self.gated))
            && pending.contains(&format!("{}.terms.json", self.gated));
        if waits && !pending.iter().any(|name| name.ends_with(".ack")) {
            let words = ["--yes", "--no-wait", "--key", &self.key, "--reason", "fine", &self.gated];
            drop(self.cluster.b().run("dispatch-ack", words));
        }
    }

    /// Everything is answered and nothing is left to be filed.
    #[must_use]
    pub fn settled(&self) -> bool {
        let lane = self.cluster.lane("a", "b");
        self.ids().iter().all(|id| self.cluster.result("a", "b", id).is_some())
            && ["inbox", "pending-ack", "processing"].iter().all(|place| names(&lane.join(place)).is_empty())
    }

    /// Runs a watcher of `b`, started by the words `before`, until everything is settled or it has ended.
    ///
    /// # Panics
    /// When neither happens.
    #[track_caller]
    pub fn run(&self, before: &[String]) -> Watcher {
        let mut watcher = self.cluster.b().start_watch(before, &[]);
        wait::eventually("all is answered, or the watcher is dead", || {
            self.approve();
            watcher.ended().is_some() || self.settled()
        });
        watcher
    }

    /// Runs a watcher that nobody kills until everything is settled.
    ///
    /// # Panics
    /// When it ends, or something is not answered.
    #[track_caller]
    pub fn finish(&self) -> Watcher {
        let mut watcher = self.cluster.b().start_watch(&[], &[]);
        wait::eventually("all is answered", || {
            self.approve();
            assert_eq!(watcher.ended(), None, "the watcher ended");
            self.settled()
        });
        watcher
    }

    /// The result of a task.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn result(&self, id: &str) -> Value {
        self.cluster.answer("a", "b", id)
    }

    /// What must be true when all is settled and no executor was ever killed: everything ran as often as it should.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn all_ran(&self) {
        for (id, attempts) in [(&self.plain, 1), (&self.paid, 1), (&self.gated, 1), (&self.again, 2)] {
            let result = self.result(id);
            assert_eq!(result["status"], "ok", "{result:#}");
            assert_eq!(result["attempt"], attempts, "{result:#}");
            assert_eq!(result["attempts"].as_array().map(Vec::len), Some(attempts), "{result:#}");
        }
        let wanted = ["plain.1", "paid.1", "gated.1", "again.1", "again.2"].map(ToOwned::to_owned);
        check::each_ran_once(&self.cluster, &wanted);
    }

    /// What must be true when all is settled, whoever was killed.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn adds_up(&self) {
        for (id, code) in [(&self.unknown, "unknown_profile"), (&self.dear, "")] {
            let result = self.result(id);
            assert_eq!(result["status"], "rejected", "{result:#}");
            assert!(code.is_empty() || result["reason"]["code"] == code, "{result:#}");
        }
        let adds_up = check::one_result_each(&self.cluster, "a", "b", &self.ids());
        all_is_true(&self.cluster, &adds_up);
        assert_eq!(self.cluster.runs.of("unknown.1") + self.cluster.runs.of("dear.1"), 0);
    }
}

/// No attempt ran twice, no process is left, the ledger is closed and whole, the money is what `results` say, nobody
/// wrote a second answer, and the copy of the audit chain is a chain.
///
/// # Panics
/// When one of them is not so.
#[track_caller]
pub fn all_is_true(cluster: &Cluster, results: &[Value]) {
    let b = cluster.b();
    check::none_ran_twice(cluster);
    check::no_process_with_mark_left(b);
    books::closed(b);
    books::hold(b);
    let spent: u64 = results.iter().map(|result| check::micros(&result["cost"]["usd"])).sum();
    assert_eq!(books::months(b), (0, spent), "reserved and spent, against the results");
    let head = books::ledger(b).head().unwrap();
    wait::eventually("the copy of the audit chain reaches its head", || {
        cluster.audit("b").iter().any(|line| line["hash"] == head.head.to_string())
    });
    for code in ["result_conflict", "squatted"] {
        assert!(!cluster.audited("b", code), "{code} in the audit");
    }
}
