//! How an agent and everything it started is ended.

mod lab;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use dispatch_node::job::{Holder, Locked, OutcomeStatus, Presence, StopWhy};
use dispatch_node::tree::{Scope, Tree};
use dispatch_testkit::eventually;
use dispatch_testkit::process::{alive, kill};
use dispatch_testkit::wait::{throughout, within};
use lab::{Lab, Running, ended, pids, stubborn_grandchild, written};

#[test]
fn silence_timeout_ends_a_mute_agent() {
    let lab = Lab::new();
    let mut order = lab.order("echo begun; exec sleep 600");
    order.silence_timeout_s = 1;
    let outcome = Running::start(&lab.job(&order)).outcome_within(Duration::from_secs(8));
    assert_eq!(ended(&outcome), (OutcomeStatus::Silent, "silent"));
    assert_eq!(outcome.final_text.as_deref(), Some("begun\n"));
    assert!(outcome.elapsed_ms.unwrap() >= 1_000);
}

#[test]
fn log_write_is_not_liveness() {
    let lab = Lab::new();
    let mut order = lab.order("exec sleep 600");
    order.silence_timeout_s = 1;
    let job = lab.job(&order);
    let mut running = Running::start(&job);
    eventually("the log is there", || job.log_path().exists());
    let mut log = OpenOptions::new().append(true).open(job.log_path()).unwrap();
    let start = Instant::now();
    eventually("it falls silent all the same", || {
        log.write_all(b"a line that the agent did not print\n").unwrap();
        running.child.try_wait().unwrap()
    });
    assert!(start.elapsed() < Duration::from_secs(8));
    let outcome = job.read_outcome().unwrap().unwrap();
    assert_eq!(ended(&outcome), (OutcomeStatus::Silent, "silent"));
    assert_eq!(outcome.output_bytes, 0);
}

#[test]
fn an_agent_that_prints_now_and_then_is_not_silent() {
    let lab = Lab::new();
    let mut order = lab.order("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.3; done");
    order.silence_timeout_s = 2;
    assert_eq!(lab.run(&order).status, OutcomeStatus::Ok);
}

#[test]
fn the_wall_clock_ends_an_agent_that_prints_without_end() {
    let lab = Lab::new();
    let mut order = lab.order("exec yes");
    order.timeout_s = 1;
    let outcome = Running::start(&lab.job(&order)).outcome_within(Duration::from_secs(8));
    assert_eq!(ended(&outcome), (OutcomeStatus::Timeout, "timeout"));
    assert!(outcome.truncated);
}

#[test]
fn the_wall_clock_ends_a_tree_whose_grandchild_holds_the_pipe() {
    let lab = Lab::new();
    let list = lab.scratch("pids");
    let mut order = lab.order(&stubborn_grandchild(&list, "exec sleep 600"));
    order.timeout_s = 1;
    let outcome = Running::start(&lab.job(&order)).outcome_within(Duration::from_secs(12));
    assert_eq!(ended(&outcome), (OutcomeStatus::Timeout, "timeout"));
    assert!(pids(&list).into_iter().all(|pid| !alive(pid)));
    assert_eq!(outcome.containment.unwrap().descendants_left, 0);
}

#[test]
fn kill_leaves_no_descendant() {
    let lab = Lab::new();
    let list = lab.scratch("pids");
    // One that keeps the mark, one that throws its environment away, one that daemonises.
    let script = format!(
        "{} ",
        stubborn_grandchild(
            &list,
            &format!(
                "env -i setsid /bin/sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do /bin/sleep 1; done' & \
                 (setsid sh -c 'echo $$ >> {0}; exec sleep 600' &) ; \
                 trap '' TERM; while :; do sleep 1; done",
                list.display()
            )
        )
    );
    let job = lab.job(&lab.order(&script));
    let running = Running::start(&job);
    let three = eventually("all three are there", || Some(pids(&list)).filter(|pids| pids.len() == 3));
    let start = Instant::now();
    running.stop(StopWhy::Killed);
    within(Duration::from_secs(2), "the whole tree is gone", || three.iter().all(|pid| !alive(*pid)));
    assert!(start.elapsed() < Duration::from_secs(2));
    let outcome = running.outcome();
    assert_eq!(ended(&outcome), (OutcomeStatus::Killed, "killed"));
    assert_eq!(outcome.containment.unwrap().descendants_left, 0);
    assert_eq!(lab.alive(), 0);
}

#[test]
fn a_cancel_gives_the_agent_time_to_say_goodbye() {
    let lab = Lab::new();
    let begun = lab.scratch("begun");
    let script = format!(
        "trap 'echo goodbye; exit 0' TERM; echo begun > {}; while :; do sleep 0.1; done",
        begun.display()
    );
    let running = Running::start(&lab.job(&lab.order(&script)));
    written(&begun);
    running.stop(StopWhy::Cancelled);
    let outcome = running.outcome_within(Duration::from_secs(4));
    assert_eq!(ended(&outcome), (OutcomeStatus::Cancelled, "cancelled"));
    assert_eq!(outcome.final_text.as_deref(), Some("goodbye\n"));
    assert_eq!(outcome.exit_code, Some(0));
}

#[test]
fn a_kill_after_a_cancel_does_not_wait_for_goodbye() {
    let lab = Lab::new();
    let begun = lab.scratch("begun");
    let script = format!("trap '' TERM; echo begun > {}; while :; do sleep 0.1; done", begun.display());
    let running = Running::start(&lab.job(&lab.order(&script)));
    written(&begun);
    running.stop(StopWhy::Cancelled);
    running.stop(StopWhy::Killed);
    let outcome = running.outcome_within(Duration::from_secs(3));
    assert_eq!(outcome.signal, Some(9));
}

#[test]
fn what_an_agent_leaves_behind_is_ended_with_it() {
    let lab = Lab::new();
    let list = lab.scratch("pids");
    let order = lab.order(&stubborn_grandchild(&list, "echo done"));
    let outcome = Running::start(&lab.job(&order)).outcome_within(Duration::from_secs(6));
    assert_eq!(outcome.status, OutcomeStatus::Ok);
    assert_eq!(outcome.final_text.as_deref(), Some("done\n"));
    assert!(pids(&list).into_iter().all(|pid| !alive(pid)));
}

#[test]
fn an_agent_that_closes_its_output_is_still_waited_for() {
    let lab = Lab::new();
    let (closed, go_on) = (lab.scratch("closed"), lab.scratch("go_on"));
    let script = format!(
        "exec >&- 2>&-; echo yes > {}; while ! [ -e {} ]; do sleep 0.05; done; exit 5",
        closed.display(),
        go_on.display()
    );
    let mut running = Running::start(&lab.job(&lab.order(&script)));
    written(&closed);
    throughout(Duration::from_millis(300), "it waits", || running.child.try_wait().unwrap().is_none());
    fs::write(go_on, "").unwrap();
    assert_eq!(running.outcome().exit_code, Some(5));
}

#[test]
fn a_halt_lets_a_running_agent_finish_and_a_kill_ends_it() {
    let lab = Lab::new();
    let (begun, go_on) = (lab.scratch("begun"), lab.scratch("go_on"));
    let script = format!(
        "echo begun > {}; while ! [ -e {} ]; do sleep 0.05; done; echo finished",
        begun.display(),
        go_on.display()
    );
    let mut running = Running::start(&lab.job(&lab.order(&script)));
    written(&begun);
    fs::write(lab.root().join("KILLSWITCH"), "because\n").unwrap();
    fs::write(lab.state().join("KILLSWITCH"), "").unwrap();
    // Longer than the time between two looks at the share.
    throughout(Duration::from_millis(2_300), "it goes on", || running.child.try_wait().unwrap().is_none());
    fs::write(go_on, "").unwrap();
    assert_eq!(running.outcome().final_text.as_deref(), Some("finished\n"));
}

#[test]
fn a_kill_in_any_place_ends_a_running_agent() {
    for place in 0..3 {
        let lab = Lab::new();
        let begun = lab.scratch("begun");
        let script = format!("trap '' TERM; echo begun > {}; while :; do sleep 1; done", begun.display());
        let running = Running::start(&lab.job(&lab.order(&script)));
        written(&begun);
        let places = [lab.root(), lab.lane(), lab.state()];
        fs::write(places[place].join("KILLSWITCH"), "kill\n").unwrap();
        let outcome = running.outcome_within(Duration::from_secs(5));
        assert_eq!(ended(&outcome), (OutcomeStatus::Killed, "killed"));
    }
}

#[test]
fn a_share_that_goes_away_ends_nothing() {
    let lab = Lab::new();
    let (begun, go_on) = (lab.scratch("begun"), lab.scratch("go_on"));
    let script =
        format!("echo begun > {}; while ! [ -e {} ]; do sleep 0.05; done", begun.display(), go_on.display());
    let mut running = Running::start(&lab.job(&lab.order(&script)));
    written(&begun);
    fs::rename(lab.root(), lab.scratch("gone")).unwrap();
    throughout(Duration::from_millis(2_300), "it goes on", || running.child.try_wait().unwrap().is_none());
    fs::write(go_on, "").unwrap();
    assert_eq!(running.outcome().status, OutcomeStatus::Ok);
}

#[test]
fn an_agent_does_not_outlive_its_executor_and_a_sweep_finds_the_rest() {
    let lab = Lab::new();
    let (list, main) = (lab.scratch("pids"), lab.scratch("main"));
    let script =
        stubborn_grandchild(&list, &format!("echo $$ > {}; while :; do sleep 1; done", main.display()));
    let job = lab.job(&lab.order(&script));
    let mut running = Running::start(&job);
    let (agent, grandchildren) = (pids(&main)[0], pids(&list));
    let Locked::Busy(Some(holder)) = job.try_lock(Duration::ZERO).unwrap() else {
        panic!("the executor has it")
    };
    assert_eq!(i32::try_from(holder.pid), Ok(running.pid()));
    assert_ne!(holder, Holder { start_ticks: 0, ..holder });
    kill(running.pid());
    running.child.wait().unwrap();
    eventually("the agent is gone", || !alive(agent));
    assert!(grandchildren.iter().any(|pid| alive(*pid)));
    let Locked::Held(_lock) = job.try_lock(Duration::ZERO).unwrap() else { panic!("the dead hold no lock") };
    assert_eq!(job.started().unwrap(), Presence::Present);
    assert_eq!(job.outcome().unwrap(), Presence::Absent);
    let swept = Tree::new(&lab.mark, Scope::Marked).kill(Duration::from_secs(5)).unwrap();
    assert_eq!(swept.descendants_left, 0);
    assert!(grandchildren.iter().all(|pid| !alive(*pid)));
}

#[test]
fn an_executor_that_is_told_to_end_ends_its_tree_first() {
    let lab = Lab::new();
    let list = lab.scratch("pids");
    let job = lab.job(&lab.order(&stubborn_grandchild(&list, "while :; do sleep 1; done")));
    let running = Running::start(&job);
    let grandchildren = pids(&list);
    let pid = rustix::process::Pid::from_raw(running.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let outcome = running.outcome_within(Duration::from_secs(4));
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "interrupted"));
    assert!(grandchildren.iter().all(|pid| !alive(*pid)));
}

#[test]
fn an_agent_that_signals_its_group_does_not_hit_its_executor() {
    let lab = Lab::new();
    let outcome = lab.run(&lab.order("kill -9 0"));
    assert_eq!((outcome.exit_code, outcome.signal), (None, Some(9)));
}

#[test]
fn a_parent_that_ignores_its_children_does_not_hide_the_agents_end() {
    let lab = Lab::new();
    let job = lab.job(&lab.order("exit 4"));
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "trap '' CHLD; exec \"$0\" --job \"$1\"", env!("CARGO_BIN_EXE_dispatch-exec")])
        .arg(job.path());
    let outcome = Running::of(shell, &job).outcome();
    assert_eq!(outcome.exit_code, Some(4));
}

#[test]
fn waiting_for_an_agent_to_end_costs_no_processor() {
    let lab = Lab::new();
    let mut order = lab.order("trap 'echo asked' TERM; while :; do sleep 0.2; done");
    order.timeout_s = 1;
    let job = lab.job(&order);
    let running = Running::start(&job);
    eventually("it is asked to end", || {
        fs::read_to_string(job.log_path()).is_ok_and(|log| log.contains("asked\n"))
    });
    let before = ticks(running.pid());
    throughout(Duration::from_secs(1), "it is given time", || alive(running.pid()));
    // A hundred ticks are a second.
    assert!(ticks(running.pid()) - before < 20);
    running.stop(StopWhy::Killed);
    assert_eq!(ended(&running.outcome()), (OutcomeStatus::Timeout, "timeout"));
}

/// Clock ticks that a process has used.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2)
        .flat_map(str::parse::<u64>)
        .sum()
}
