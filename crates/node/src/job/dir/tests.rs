use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::{Digest, Name};
use dispatch_core::protocol::time::Timestamp;

use super::super::{
    AgentKind, Containment, Cost, CostBasis, Holder, KillswitchPlaces, Mechanism, OutcomeStatus, Reason,
    StopWhy,
};
use super::*;

const ID: &str = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";

fn at() -> Timestamp {
    Timestamp::parse("2026-11-20T12:00:00.123Z").unwrap()
}

fn order(state: &Path) -> Order {
    Order {
        node: NodeName::new("gpubox").unwrap(),
        from: NodeName::new("devbox").unwrap(),
        task: TaskId::parse(ID).unwrap(),
        task_sha256: Digest::of(b"task"),
        attempt: 1,
        epoch: 7,
        mark: "0123456789abcdef".into(),
        token: None,
        profile: Name::new("shell").unwrap(),
        kind: AgentKind::Command,
        argv: vec!["/bin/sh".into(), "-eu".into()],
        env: vec!["API_KEY".into()],
        secrets: vec![],
        set: BTreeMap::from([("A".into(), "b".into())]),
        cwd: None,
        permission_mode: None,
        timeout_s: 600,
        silence_timeout_s: 0,
        tool_timeout_s: 1800,
        max_output_bytes: 2_000_000,
        ceiling_usd: Some(Usd::from_wire("2.5").unwrap()),
        billing: Billing::Free,
        metering: None,
        cluster: "123e4567-e89b-12d3-a456-426614174000".parse().unwrap(),
        killswitch: KillswitchPlaces {
            root: "/share".into(),
            lane: "/share/devbox-to-gpubox".into(),
            state: state.to_owned(),
        },
    }
}

fn outcome() -> Outcome {
    Outcome {
        epoch: 7,
        spawned: true,
        status: OutcomeStatus::Error,
        reason: Some(Reason { code: "exit_code".into(), text: "exit code 3".into(), help: "look".into() }),
        exit_code: Some(3),
        signal: None,
        started_at: Some(at()),
        ended_at: Some(at()),
        elapsed_ms: Some(0),
        final_text: Some("line\n".into()),
        output_tail: Some("line\n".into()),
        output_bytes: 5,
        log_bytes: 5,
        log_sha256: Some(Digest::of(b"line\n")),
        truncated: false,
        cost: Some(Cost { usd: Usd::from_wire("0.1").unwrap(), basis: CostBasis::Reported }),
        metered: None,
        usage: None,
        agent: None,
        resets_at: None,
        permission_denials: vec![],
        containment: Some(Containment { mechanism: Mechanism::Subreaper, descendants_left: 0 }),
    }
}

#[test]
fn every_file_is_read_as_it_was_written() {
    let state = tempfile::tempdir().unwrap();
    let order = order(state.path());
    let job = JobDir::create(state.path(), &order, b"request").unwrap();
    assert_eq!(JobDir::open(job.path()).unwrap(), job);
    assert_eq!(job.read_order().unwrap(), order);
    assert_eq!(fs::read(job.stdin_path()).unwrap(), b"request");
    assert_eq!(job.read_started().unwrap(), None);
    assert_eq!(job.read_outcome().unwrap(), None);

    let started =
        Started { epoch: 7, at: at(), boot_id: uuid::Uuid::from_u128(7), mechanism: Mechanism::Cgroup };
    job.write_started(&started).unwrap();
    assert_eq!(job.read_started().unwrap(), Some(started));
    let stop = Stop { why: StopWhy::Cancelled, at: at() };
    job.write_stop(&stop).unwrap();
    let stop = Stop { why: StopWhy::Killed, ..stop };
    job.write_stop(&stop).unwrap();
    assert_eq!(job.read_stop().unwrap(), Some(stop));
    let progress = Progress {
        epoch: 7,
        seq: 1,
        at: at(),
        elapsed_ms: 2,
        turns: None,
        last_tool: None,
        tokens: None,
        usd: None,
        last_line: Some("line".into()),
    };
    job.write_progress(&progress).unwrap();
    assert_eq!(job.read_progress().unwrap(), Some(progress));
    job.write_outcome(&outcome()).unwrap();
    assert_eq!(job.read_outcome().unwrap(), Some(outcome()));
}

#[test]
fn an_order_of_before_there_were_doors_is_still_read_and_one_with_a_token_hides_it() {
    let state = tempfile::tempdir().unwrap();
    let mut order = order(state.path());
    let job = JobDir::create(state.path(), &order, b"").unwrap();
    assert!(!fs::read_to_string(job.file("order.json")).unwrap().contains("token"));
    assert_eq!(job.read_order().unwrap().token, None);
    assert!(!job.door_path().exists());
    (order.epoch, order.token) = (8, Some("s3cret".into()));
    let job = JobDir::create(state.path(), &order, b"").unwrap();
    assert_eq!(job.read_order().unwrap(), order);
    assert!(!format!("{order:?}").contains("s3cret"));
    for dir in ["door", "door/requests", "door/replies", "door/results"] {
        let mode = fs::symlink_metadata(job.file(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{dir}");
    }
}

#[test]
fn a_directory_is_never_used_again() {
    let state = tempfile::tempdir().unwrap();
    let order = order(state.path());
    let job = JobDir::create(state.path(), &order, b"").unwrap();
    assert!(JobDir::create(state.path(), &order, b"").is_err());
    let started =
        Started { epoch: 7, at: at(), boot_id: uuid::Uuid::from_u128(7), mechanism: Mechanism::Subreaper };
    job.write_started(&started).unwrap();
    assert!(job.write_started(&started).is_err());
}

#[test]
fn what_is_not_strict_json_of_a_known_schema_is_malformed() {
    let state = tempfile::tempdir().unwrap();
    let job = JobDir::create(state.path(), &order(state.path()), b"").unwrap();
    let good = r#"{"schema":1,"why":"killed","at":"2026-11-20T12:00:00.123Z"}"#;
    fs::write(job.file("stop.json"), good).unwrap();
    assert!(job.read_stop().unwrap().is_some());
    for bad in [
        "",
        "[1,\"killed\",\"2026-11-20T12:00:00.123Z\"]",
        r#"{"schema":2,"why":"killed","at":"2026-11-20T12:00:00.123Z"}"#,
        r#"{"schema":1,"schema":1,"why":"killed","at":"2026-11-20T12:00:00.123Z"}"#,
        r#"{"schema":1,"why":"killed","why":"killed","at":"2026-11-20T12:00:00.123Z"}"#,
        r#"{"schema":1,"why":"killed","at":"2026-11-20T12:00:00.123Z","more":1}"#,
        r#"{"schema":1,"why":"killed"}"#,
        r#"{"schema":1,"why":"killed","at":"2026-11-20T12:00:00Z"}"#,
        r#"{"schema":1,"why":"killed","at":"2026-11-20T12:00:00.123Z"} x"#,
    ] {
        fs::write(job.file("stop.json"), bad).unwrap();
        assert!(job.read_stop().is_err_and(|error| error.is_malformed()), "{bad}");
    }
    fs::remove_file(job.file("stop.json")).unwrap();
    symlink("/etc/passwd", job.file("stop.json")).unwrap();
    assert!(job.read_stop().is_err());
}

#[test]
fn a_member_that_may_be_null_must_still_be_there() {
    let state = tempfile::tempdir().unwrap();
    let job = JobDir::create(state.path(), &order(state.path()), b"").unwrap();
    let text = fs::read_to_string(job.file("order.json")).unwrap();
    for member in [r#""cwd":null,"#, r#""permission_mode":null,"#, r#""ceiling_usd":"2.5","#] {
        assert!(text.contains(member), "{text}");
        fs::write(job.file("order.json"), text.replace(member, "")).unwrap();
        assert!(job.read_order().is_err(), "{member}");
    }
}

#[test]
fn the_lock_has_one_holder_and_names_it() {
    let state = tempfile::tempdir().unwrap();
    let job = JobDir::create(state.path(), &order(state.path()), b"").unwrap();
    let Locked::Held(mut lock) = job.try_lock(Duration::ZERO).unwrap() else { panic!("nobody has it") };
    lock.write_holder().unwrap();
    let Locked::Busy(holder) = job.try_lock(Duration::from_millis(20)).unwrap() else { panic!("it is held") };
    assert_eq!(holder, Some(Holder::this_process().unwrap()));
    drop(lock);
    assert!(matches!(job.try_lock(Duration::ZERO).unwrap(), Locked::Held(_)));
}

#[test]
fn revoking_twice_is_the_same_as_once() {
    let state = tempfile::tempdir().unwrap();
    let job = JobDir::create(state.path(), &order(state.path()), b"").unwrap();
    assert_eq!(job.revoked().unwrap(), Presence::Absent);
    job.revoke().unwrap();
    job.revoke().unwrap();
    assert_eq!(job.revoked().unwrap(), Presence::Present);
}

#[test]
fn all_job_directories_are_listed_and_strangers_named() {
    let state = tempfile::tempdir().unwrap();
    assert!(JobDir::list(state.path()).unwrap().jobs.is_empty());
    let mut order = order(state.path());
    let first = JobDir::create(state.path(), &order, b"").unwrap();
    order.epoch = 8;
    let second = JobDir::create(state.path(), &order, b"").unwrap();
    let task = first.path().parent().unwrap().to_owned();
    fs::create_dir(task.join("07")).unwrap();
    fs::write(task.join("9"), b"").unwrap();
    let listing = JobDir::list(state.path()).unwrap();
    assert_eq!(listing.jobs, [first, second]);
    assert_eq!(listing.strange, [task.join("07"), task.join("9")]);
}

#[test]
fn removing_takes_a_closed_work_directory_along_and_follows_no_link() {
    let state = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("keep"), b"").unwrap();
    let job = JobDir::create(state.path(), &order(state.path()), b"").unwrap();
    let closed = job.work_path().join("closed");
    fs::create_dir_all(closed.join("deep")).unwrap();
    symlink(outside.path(), job.work_path().join("link")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    job.remove().unwrap();
    job.remove().unwrap();
    assert!(!job.path().parent().unwrap().exists());
    assert!(outside.path().join("keep").exists());
}

#[test]
fn an_order_and_an_outcome_of_before_there_was_a_meter_are_still_read() {
    let state = tempfile::tempdir().unwrap();
    let order = order(state.path());
    let job = JobDir::create(state.path(), &order, b"request").unwrap();
    job.write_outcome(&outcome()).unwrap();
    for (name, member) in [("order.json", "\"metering\":null,"), ("outcome.json", "\"metered\":null,")] {
        let text = fs::read_to_string(job.file(name)).unwrap();
        assert!(text.contains(member), "{text}");
        fs::write(job.file(name), text.replace(member, "")).unwrap();
    }
    assert_eq!(job.read_order().unwrap(), order);
    assert_eq!(job.read_outcome().unwrap(), Some(outcome()));
}
