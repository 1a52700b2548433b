//! How a run ends when it does not end by itself, and what is left of it: nothing.

use std::time::{Duration, Instant};

use dispatch_testkit::process;
use dispatch_testkit::{Cluster, check, eventually};

use crate::{cluster, note_and_stay};

/// A script that leaves a grandchild in a session of its own and then stays: the grandchild's pid is in `<label>.pid`.
fn with_grandchild(cluster: &Cluster, label: &str) -> String {
    let pid = cluster.outside().join(format!("{label}.pid"));
    format!(
        "setsid sh -c 'echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 100000' &\n\
         while [ ! -e '{pid}' ]; do sleep 0.02; done\n{}",
        note_and_stay(cluster, label),
        pid = pid.display(),
    )
}

fn grandchild(cluster: &Cluster, label: &str) -> i32 {
    let file = cluster.outside().join(format!("{label}.pid"));
    let text = eventually("the grandchild is born", || std::fs::read_to_string(&file).ok());
    text.trim().parse().unwrap()
}

#[test]
fn a_wall_clock_time_out_fires_although_nothing_is_printed() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &with_grandchild(&cluster, "timeout"), &["--timeout", "2s"]);
    let pid = grandchild(&cluster, "timeout");
    let result = cluster.answered(&id, "timeout");
    assert!(!process::alive(pid), "a grandchild in a session of its own survives a time-out");
    assert_eq!(result["containment"]["descendants_left"], 0, "{result:#}");
    check::no_process_with_mark_left(cluster.b());
    check::each_ran_once(&cluster, &["timeout".to_owned()]);
}

#[test]
fn silence_timeout_ends_a_mute_agent() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let talks = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done";
    let mute =
        cluster.a().send("b", &with_grandchild(&cluster, "mute"), &["--silence", "2s", "--timeout", "10m"]);
    let talking = cluster.a().send("b", talks, &["--silence", "2s", "--timeout", "10m"]);
    let pid = grandchild(&cluster, "mute");
    cluster.answered(&mute, "silent");
    assert!(!process::alive(pid));
    cluster.answered(&talking, "ok");
    check::no_process_with_mark_left(cluster.b());
}

#[test]
fn a_cancel_ends_the_whole_tree() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &with_grandchild(&cluster, "cancelled"), &[]);
    let pid = grandchild(&cluster, "cancelled");
    drop(cluster.a().ctl(["cancel", &id]).ok());
    cluster.answered(&id, "cancelled");
    assert!(!process::alive(pid));
    check::no_process_with_mark_left(cluster.b());
}

#[test]
fn kill_leaves_no_descendant() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &with_grandchild(&cluster, "killed"), &[]);
    let pid = grandchild(&cluster, "killed");
    let begun = Instant::now();
    let killed = cluster.b().ctl(["kill", "--now", "--node", "test"]);
    assert!(killed.code == 0, "{}", killed.err);
    cluster.answered(&id, "killed");
    assert!(!process::alive(pid));
    assert!(begun.elapsed() < Duration::from_secs(30));
    check::no_process_with_mark_left(cluster.b());
}

#[test]
fn an_agent_that_ended_leaves_no_child_behind() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let pid = cluster.outside().join("left.pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {pid}; exec sleep 100000' &\nwhile [ ! -s '{pid}' ]; do sleep 0.02; done\necho done",
        pid = pid.display()
    );
    let id = cluster.a().send("b", &script, &[]);
    cluster.answered(&id, "ok");
    let child: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    assert!(!process::alive(child), "`setsid …&` outlived its agent");
    check::no_process_with_mark_left(cluster.b());
}

#[test]
fn output_over_the_cap_is_counted_and_the_log_stays_under_it() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let script = "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the end";
    let sent = cluster.a().send("b", script, &["--label", "size=5M"]);
    let result = cluster.answered(&sent, "ok");
    assert_eq!(result["truncated"], true, "{result:#}");
    assert_eq!(result["output_bytes"], 5_000_009);
    let logged = result["log_bytes"].as_u64().unwrap();
    assert!(logged <= 2_000_000, "{logged}");
    let log = cluster.lane("a", "b").join(format!("done/{sent}.log"));
    assert!(std::fs::metadata(log).unwrap().len() <= 2_000_000);
    assert!(result["output_tail"].as_str().unwrap().contains("the end"), "the tail is that of the output");
}

#[test]
fn a_killed_executor_answers_unknown_and_its_tree_is_gone() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &with_grandchild(&cluster, "orphan"), &[]);
    let pid = grandchild(&cluster, "orphan");
    eventually("it runs", || cluster.runs.of("orphan") == 1);
    let executors = cluster.b().pids("dispatch-exec");
    assert_eq!(executors.len(), 1, "{executors:?}");
    executors.into_iter().for_each(process::kill);
    cluster.answered(&id, "unknown");
    assert!(!process::alive(pid));
    check::no_process_with_mark_left(cluster.b());
    check::each_ran_once(&cluster, &["orphan".to_owned()]);
    check::audit_verifies(cluster.b());
}

#[test]
fn what_may_run_again_does_after_a_killed_executor() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let flag = cluster.outside().join("second");
    let script = format!(
        "{}[ -e '{flag}' ] && exit 0\n: > '{flag}'\nexec sleep 100000\n",
        cluster.runs.mark("again"),
        flag = flag.display()
    );
    let id = cluster.a().send("b", &script, &["--max-attempts", "2"]);
    eventually("the first attempt runs", || flag.exists());
    cluster.b().pids("dispatch-exec").into_iter().for_each(process::kill);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["attempt"], 2, "{result:#}");
    assert_eq!(result["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(cluster.runs.of("again"), 2);
}

#[test]
fn an_agents_environment_holds_what_the_profile_names_and_the_minimum() {
    let cluster = cluster();
    cluster.b().configure("[profile.default]\nenv = [\"NAMED_SECRET\"]\nset = { FIXED = \"yes\" }");
    let mut command = cluster.b().command("dispatch-watch");
    command.env("NAMED_SECRET", "named").env("UNNAMED_SECRET", "unnamed").arg("--once");
    let id = cluster.a().send("b", "env | sort", &[]);
    drop(process::Ended::of(command, b"").ok());
    let result = cluster.answered(&id, "ok");
    let text = result["final_text"].as_str().unwrap().to_owned();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    for name in &names {
        // The shell itself adds PWD, OLDPWD, SHLVL and _.
        let known = [
            "PATH",
            "HOME",
            "USER",
            "LANG",
            "TERM",
            "TMPDIR",
            "NAMED_SECRET",
            "FIXED",
            "PWD",
            "OLDPWD",
            "SHLVL",
            "_",
        ];
        assert!(known.contains(name) || name.starts_with("DISPATCH_"), "{name} reached the agent");
    }
    assert!(
        names.contains(&"NAMED_SECRET") && names.contains(&"FIXED") && text.contains("TERM=dumb"),
        "{text}"
    );
}
