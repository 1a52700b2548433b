//! What goes wrong while tasks run: time-outs, killed executors, output, owners, the cap, the killswitch, liveness, order.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dispatch_testkit::cluster::{copy_tree, list, name_of};
use dispatch_testkit::{Cluster, check, eventually, mail, process};
use serde_json::{Value, json};

use crate::{cluster, note, note_and_wait_for};

/// Shell text that leaves a process in a session of its own, which holds the agent's standard output, and notes its pid.
fn leaving_a_child(pid: &Path) -> String {
    format!(
        "setsid sh -c 'echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 100000' &\n\
         while [ ! -e '{pid}' ]; do sleep 0.02; done\n",
        pid = pid.display()
    )
}

fn pid_in(file: &Path) -> i32 {
    let text = eventually("the child is born", || fs::read_to_string(file).ok());
    text.trim().parse().unwrap()
}

#[test]
fn weakness_e_a_mute_agent_ends_by_its_time_out() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let mute = format!("{}exec sleep 100000\n", cluster.runs.mark("mute"));
    let id = cluster.a().send("b", &mute, &["--timeout", "2s"]);
    let result = cluster.answered(&id, "timeout");
    assert_eq!((&result["reason"]["code"], &result["output_bytes"]), (&json!("timeout"), &json!(0)));
    check::no_process_with_mark_left(cluster.b());
    check::each_ran_once(&cluster, &["mute".to_owned()]);
}

#[test]
fn weakness_e_a_child_that_holds_the_pipe_delays_no_result() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let pid = cluster.outside().join("holder.pid");
    let script = format!("{}echo the answer\n", leaving_a_child(&pid));
    let id = cluster.a().send("b", &script, &["--timeout", "40s"]);
    // Waited for, the child would keep the pipe open until the time-out, and that would be the status.
    let result = cluster.answered(&id, "ok");
    assert!(result["final_text"].as_str().unwrap().contains("the answer"), "{result:#}");
    assert_eq!(result["containment"]["descendants_left"], 0, "{result:#}");
    assert!(!process::alive(pid_in(&pid)));
}

#[test]
fn weakness_f_a_killed_executor_leaves_a_result_and_no_marker() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 1");
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let id = cluster.a().send("b", &note_and_wait_for(&cluster, "killed", &gate), &[]);
    let next = cluster.a().send("b", &note(&cluster, "next"), &[]);
    eventually("it runs", || cluster.runs.of("killed") == 1);
    cluster.b().pids("dispatch-exec").into_iter().for_each(process::kill);
    cluster.answered(&id, "unknown");
    // The only place there is has become free again.
    cluster.answered(&next, "ok");
    check::one_result_each(&cluster, "a", "b", &[id, next]);
    check::no_process_with_mark_left(cluster.b());
    check::each_ran_once(&cluster, &["killed", "next"].map(ToOwned::to_owned));
}

#[test]
fn weakness_f_a_nonsense_time_out_never_leaves_a_task_stuck() {
    let cluster = cluster();
    let template = template_of(&cluster);
    let _b = cluster.b().watch();
    for (number, timeout) in
        [json!(1_000_000_000), json!(0), json!("soon"), Value::Null, json!(-1), json!(1e3)]
            .into_iter()
            .enumerate()
    {
        let mut task = template.clone();
        let id = format!("{}{number:012x}", &template["id"].as_str().unwrap()[..24]);
        task["id"] = json!(id);
        task["request"] = json!(note(&cluster, "never"));
        task["timeout_s"] = timeout.clone();
        let inbox = deliver(&cluster, &id, &task);
        eventually(&format!("timeout_s {timeout} leaves the inbox"), || !inbox.exists());
        let rejected = cluster.lane("a", "b").join("rejected");
        eventually(&format!("timeout_s {timeout} is answered or set aside"), || {
            let evidence = list(&rejected).iter().any(|path| name_of(path).starts_with(&id));
            let result = cluster.result("a", "b", &id);
            assert!(result.as_ref().is_none_or(|result| result["status"] == "rejected"), "{result:?}");
            evidence || result.is_some()
        });
    }
    for words in [["--timeout", "soon"], ["--timeout", "-1s"]] {
        drop(cluster.a().try_send("b", &note(&cluster, "never"), &words).code(2));
    }
    let good = cluster.a().send("b", &note(&cluster, "good"), &[]);
    cluster.answered(&good, "ok");
    assert_eq!(cluster.runs.of("never"), 0);
}

/// A task of `a` for `b` as `dispatch-send` seals it, to be changed: taken back from the inbox.
fn template_of(cluster: &Cluster) -> Value {
    let id = cluster.a().send("b", "echo template", &[]);
    let opened = cluster.opened("a", "b", &format!("inbox/{id}.json")).expect("a task in the inbox");
    fs::remove_file(cluster.lane("a", "b").join(format!("inbox/{id}.json"))).unwrap();
    let mut task = opened.value;
    task["stream"] = json!("6f0c1d2e-3a4b-4c5d-8e6f-708192a3b4c5");
    task
}

/// Seals `task` and puts it into the inbox, whole at once.
fn deliver(cluster: &Cluster, id: &str, task: &Value) -> std::path::PathBuf {
    let bytes = mail::seal("task.v3", task.to_string().as_bytes(), &cluster.pair("a", "b").lane("a", "b"));
    let (fresh, file) = (cluster.outside().join(id), cluster.lane("a", "b").join(format!("inbox/{id}.json")));
    fs::write(&fresh, bytes).unwrap();
    fs::rename(&fresh, &file).unwrap();
    file
}

#[test]
fn weakness_g_a_grandchild_dies_with_the_time_out() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let pid = cluster.outside().join("grandchild.pid");
    let script = format!("{}exec sleep 100000\n", leaving_a_child(&pid));
    let id = cluster.a().send("b", &script, &["--timeout", "2s"]);
    let result = cluster.answered(&id, "timeout");
    assert!(!process::alive(pid_in(&pid)), "it lives on");
    assert_eq!(result["containment"]["descendants_left"], 0, "{result:#}");
    check::no_process_with_mark_left(cluster.b());
}

#[test]
fn weakness_i_sixty_megabytes_under_a_cap_of_one_keep_the_answer_and_are_told() {
    const CAP: u64 = 1_000_000;
    let cluster = cluster();
    let _b = cluster.b().watch();
    let script = "head -c 60000000 /dev/zero | tr '\\0' x\necho\necho the answer\n";
    let id = cluster.a().send("b", script, &["--max-output", &CAP.to_string()]);
    let result = cluster.answered(&id, "ok");
    let log = cluster.lane("a", "b").join(format!("done/{id}.log"));
    assert!(fs::metadata(log).unwrap().len() <= CAP, "the log on the share is longer than its cap");
    assert!(result["log_bytes"].as_u64().unwrap() <= CAP, "{result:#}");
    assert_eq!((&result["truncated"], &result["output_bytes"]), (&json!(true), &json!(60_000_012)));
    let text = result["final_text"].as_str().unwrap();
    assert!(text.ends_with("\nthe answer\n"), "{:?}", text.get(text.len() - 40..));
    let shown = cluster.a().ctl(["result", &id]).ok();
    assert!(shown.out.contains("the answer"), "{}", shown.out);
    drop(shown.says("of 60000012 bytes"));
    // Whoever waits is told too, although it ended well.
    let words = ["--max-output", "65536", "--wait"];
    drop(cluster.a().try_send("b", "head -c 99999 /dev/zero | tr '\\0' x", &words).ok().says("log cut: "));
}

/// Sends `count` tasks and yields their ids and labels.
fn many(cluster: &Cluster, count: usize) -> (Vec<String>, Vec<String>) {
    let labels: Vec<String> = (0..count).map(|number| format!("task-{number}")).collect();
    (labels.iter().map(|label| cluster.a().send("b", &note(cluster, label), &[])).collect(), labels)
}

#[test]
fn weakness_j_two_watchers_on_one_side_run_none_of_sixty_tasks_twice() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 4");
    let (ids, labels) = many(&cluster, 60);
    // One more on the same state directory, and one whose state directory is a copy.
    let home = cluster.outside().join("copy");
    copy_tree(&cluster.b().home, &home);
    let copy = cluster.b().at_home(&home);
    let _b = cluster.b().watch();
    let mut others = [cluster.b().start_watch(&[], &[]), copy.start_watch(&[], &[])];
    check::one_result_each(&cluster, "a", "b", &ids);
    check::each_ran_once(&cluster, &labels);
    assert_eq!(others.each_mut().map(|other| other.wait()), [73, 73], "there is one watcher per node");
    check::none_ran_twice(&cluster);
    check::audit_verifies(cluster.b());
}

/// A stranger of this very user whose command line reads like an executor's.
struct Stranger(Child);

impl Stranger {
    fn new(cluster: &Cluster) -> Self {
        let mut command = Command::new("sleep");
        command.arg0(format!("{} --job /nowhere", cluster.bins.path("dispatch-exec").display()));
        command.arg("100000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The most agents that were alive at once, by what they noted.
fn most_at_once(cluster: &Cluster) -> usize {
    let (mut alive, mut most) = (BTreeSet::new(), 0);
    for line in cluster.runs.order() {
        match line.strip_prefix("end:") {
            Some(label) => alive.remove(label),
            None => alive.insert(line),
        };
        most = most.max(alive.len());
    }
    most
}

#[test]
fn weakness_k_the_cap_holds_with_two_watchers_one_after_the_other_and_at_once() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let labels = ["one", "two", "three", "four", "five", "six"].map(ToOwned::to_owned);
    let ids =
        labels.clone().map(|label| cluster.a().send("b", &note_and_wait_for(&cluster, &label, &gate), &[]));
    let running = || cluster.runs.order().len();
    eventually("as many run as may", || running() == 2);
    assert_eq!(cluster.b().start_watch(&[], &[]).wait(), 73);
    // The executors of a watcher that died count for the next one.
    b.crash();
    let _b = cluster.b().watch();
    let status: Value = serde_json::from_str(&cluster.b().ctl(["status", "--json"]).ok().out).unwrap();
    assert_eq!(status["tasks"]["running"], 2, "{status:#}");
    assert_eq!(running(), 2);
    fs::write(&gate, "").unwrap();
    check::one_result_each(&cluster, "a", "b", &ids);
    check::each_ran_once(&cluster, &labels);
    assert!(most_at_once(&cluster) <= 2, "{:?}", cluster.runs.order());
}

#[test]
fn weakness_k_a_stranger_whose_command_line_mentions_the_executor_takes_no_place() {
    let cluster = cluster();
    // As many as there are places, twice over.
    let _strangers: Vec<Stranger> = (0..4).map(|_| Stranger::new(&cluster)).collect();
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let ids =
        ["one", "two"].map(|label| cluster.a().send("b", &note_and_wait_for(&cluster, label, &gate), &[]));
    eventually("both run at once", || cluster.runs.order().len() == 2);
    fs::write(&gate, "").unwrap();
    check::one_result_each(&cluster, "a", "b", &ids);
}

#[test]
fn weakness_l_a_killswitch_between_spawn_and_start_puts_the_task_back() {
    let cluster = cluster();
    let [spawned, go] = ["spawned", "go"].map(|name| cluster.outside().join(name));
    let script = format!(
        "touch '{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done\nexec \"$REAL\" \"$@\"",
        spawned.display(),
        go.display()
    );
    let bins = cluster.bins.with_wrapper(&cluster.outside().join("bin"), "dispatch-exec", &script);
    let node = cluster.b().with_bins(&bins);
    let _b = node.watch();
    let id = cluster.a().send("b", &note(&cluster, "held"), &[]);
    eventually("the executor is spawned", || spawned.exists());
    let switch = cluster.share().join("KILLSWITCH");
    fs::write(&switch, "enough\n").unwrap();
    fs::write(&go, "").unwrap();
    let state = || {
        let shown: Value = serde_json::from_str(&node.ctl(["show", &id, "--json"]).ok().out).unwrap();
        shown["state"].as_str().map(ToOwned::to_owned)
    };
    eventually("it is back in the queue", || state().as_deref() == Some("queued"));
    assert_eq!((cluster.runs.of("held"), cluster.result("a", "b", &id)), (0, None));
    fs::remove_file(&switch).unwrap();
    drop(node.ctl(["resume"]).ok());
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["attempt"], 1, "a start that never was is no attempt: {result:#}");
    check::one_result_each(&cluster, "a", "b", &[id]);
    check::each_ran_once(&cluster, &["held".to_owned()]);
}

#[test]
fn weakness_m_heartbeats_are_written_and_count() {
    let cluster = cluster();
    for node in &cluster.nodes {
        node.configure("[watch]\nheartbeat_s = 1");
    }
    let status = |key: &'static str| {
        let status: Value = serde_json::from_str(&cluster.b().ctl(["status", "--json"]).ok().out).unwrap();
        status["peers"][0][key].clone()
    };
    let _b = cluster.b().watch();
    assert_eq!(status("health"), "unknown", "nobody has heard of it yet");
    let _a = cluster.a().watch();
    eventually("it is alive for its peer", || status("health") == "healthy");
    let first = status("seq").as_u64().unwrap();
    eventually("it goes on beating", || status("seq").as_u64().unwrap() > first);
    let key = cluster.pair("a", "b").bytes();
    for name in ["a", "b"] {
        let beat = fs::read(cluster.share().join(format!("heartbeats/{name}.json"))).unwrap();
        let beat = mail::open(&beat, &key).expect("an envelope");
        assert!(beat.verified && beat.kind == "heartbeat.v1" && beat.value["node"] == name, "{beat:?}");
    }
    // What stops b lies where a cannot look: only the heartbeat can have told.
    let reason = cluster.outside().join("reason");
    fs::write(&reason, "noon\n").unwrap();
    fs::rename(&reason, cluster.b().state_dir().join("KILLSWITCH")).unwrap();
    eventually("a sender is told", || {
        cluster
            .a()
            .try_send("b", &note(&cluster, "waits"), &[])
            .ok()
            .err
            .contains("killswitch stops `b` (noon)")
    });
    assert_eq!(cluster.runs.of("waits"), 0);
}

#[test]
fn weakness_p_priorities_and_the_order_of_sending_are_respected() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 1");
    for label in ["low-1", "low-2", "normal-1", "normal-2", "high-1", "high-2"] {
        let (priority, _) = label.split_once('-').unwrap();
        drop(cluster.a().send("b", &note(&cluster, label), &["--priority", priority]));
    }
    let _b = cluster.b().watch();
    eventually("all have run", || cluster.runs.order().len() == 6);
    assert_eq!(cluster.runs.order(), ["high-1", "high-2", "normal-1", "normal-2", "low-1", "low-2"]);
}

#[test]
fn weakness_p_a_live_log_shows_a_short_line_while_the_agent_goes_on() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let script =
        format!("printf first\nwhile [ ! -e '{}' ]; do sleep 0.02; done\nprintf ' last'\n", gate.display());
    let id = cluster.a().send("b", &script, &[]);
    let log = cluster.lane("a", "b").join(format!("done/{id}.log"));
    // Five bytes, no line end, and no more to come until they have been seen.
    eventually("it is on the share", || fs::read_to_string(&log).is_ok_and(|text| text == "first"));
    assert!(cluster.result("a", "b", &id).is_none());
    fs::write(&gate, "").unwrap();
    cluster.answered(&id, "ok");
    assert_eq!(fs::read_to_string(&log).unwrap(), "first last");
}
