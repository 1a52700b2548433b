//! What becomes of an agent's output.

mod lab;

use std::fs;

use dispatch_core::protocol::names::Digest;
use dispatch_node::job::OutcomeStatus;
use dispatch_testkit::eventually;
use lab::{Lab, Running};

#[test]
fn output_over_the_cap_is_counted_and_the_log_stays_under_it() {
    let lab = Lab::new();
    let mut order = lab.order("head -c 3000000 /dev/zero | tr '\\0' x; echo end");
    order.max_output_bytes = 10_000;
    let job = lab.job(&order);
    let outcome = Running::start(&job).outcome();
    let log = fs::read(job.log_path()).unwrap();
    assert!(log.len() <= 10_000);
    assert!(outcome.truncated);
    assert_eq!(outcome.output_bytes, 3_000_004);
    assert_eq!(outcome.log_bytes, u64::try_from(log.len()).unwrap());
    assert_eq!(outcome.log_sha256, Some(Digest::of(&log)));
    let kept = log.iter().take_while(|byte| **byte == b'x').count();
    let text = String::from_utf8(log).unwrap();
    assert!(text.contains(&format!("{} bytes of output dropped", 3_000_004 - kept)), "{text}");
    // The answer is the end of the output all the same.
    let answer = outcome.final_text.unwrap();
    assert_eq!(answer.chars().count(), 8_000);
    assert!(answer.ends_with("xend\n"));
    assert_eq!(fs::read_to_string(lab.mirror()).unwrap(), text);
}

#[test]
fn the_mirror_shows_a_line_while_the_agent_runs() {
    let lab = Lab::new();
    let go_on = lab.scratch("go_on");
    let script = format!("echo first; while ! [ -e {} ]; do sleep 0.05; done; echo second", go_on.display());
    let running = Running::start(&lab.job(&lab.order(&script)));
    eventually("the first line is on the share", || {
        fs::read(lab.mirror()).is_ok_and(|bytes| bytes == b"first\n")
    });
    fs::write(&go_on, "").unwrap();
    assert_eq!(running.outcome().status, OutcomeStatus::Ok);
    assert_eq!(fs::read(lab.mirror()).unwrap(), b"first\nsecond\n");
}

#[test]
fn progress_tells_the_last_line() {
    let lab = Lab::new();
    let go_on = lab.scratch("go_on");
    let script = format!("while ! [ -e {} ]; do echo working; sleep 0.1; done", go_on.display());
    let job = lab.job(&lab.order(&script));
    let running = Running::start(&job);
    let progress = eventually("progress is written", || job.read_progress().unwrap());
    assert_eq!((progress.seq, progress.last_line.as_deref()), (1, Some("working")));
    assert!(progress.elapsed_ms > 0);
    fs::write(&go_on, "").unwrap();
    running.outcome();
}

#[test]
fn memory_stays_flat_under_a_flood() {
    let lab = Lab::new();
    let done = lab.scratch("done");
    let go_on = lab.scratch("go_on");
    let mut order = lab.order(&format!(
        "head -c 300000000 /dev/zero; echo yes > {}; while ! [ -e {} ]; do sleep 0.05; done",
        done.display(),
        go_on.display()
    ));
    order.max_output_bytes = 1_000_000;
    let running = Running::start(&lab.job(&order));
    lab::written(&done);
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kb < 40_000, "{peak_kb} kB");
    fs::write(&go_on, "").unwrap();
    assert_eq!(running.outcome().output_bytes, 300_000_000);
}
