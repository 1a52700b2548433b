use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn new_mark() -> String {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).unwrap();
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

/// A shell with a mark, and what it prints. It lives in a process group of its own.
fn shell(mark: &str, script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env(MARK_VARIABLE, mark).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

fn pid_in(stdout: &mut BufReader<ChildStdout>) -> u32 {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line.trim().parse().unwrap()
}

fn process(pid: u32) -> Process {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
    Process::noted(pid, start_ticks(&stat).unwrap()).unwrap()
}

#[test]
fn a_marked_tree_is_ended_whole_and_nothing_else() {
    let mark = new_mark();
    let (mut bystander, mut bystander_says) = shell(&new_mark(), "echo $$; exec sleep 600");
    pid_in(&mut bystander_says);
    // Its own session, and a child of it that has thrown its environment away.
    let script = "setsid sh -c 'env -i /bin/sh -c \"trap : TERM; echo \\$\\$; while :; do /bin/sleep 1; done\" & wait' & \
                  trap : TERM; while :; do sleep 1; done";
    let (mut shell, mut says) = shell(&mark, script);
    let deep = process(pid_in(&mut says));
    let tree = Tree::new(&mark, Scope::Marked);
    assert!(tree.look().unwrap().contains(&deep));
    let ended = tree.kill(LIMIT).unwrap();
    assert_eq!(ended.descendants_left, 0);
    assert!(ended.killed >= 3);
    assert!(!deep.is_still_there());
    shell.wait().unwrap();
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_tree_that_heeds_the_first_signal_needs_no_second() {
    let mark = new_mark();
    let (mut shell, mut says) = shell(&mark, "trap 'exit 7' TERM; echo $$; while :; do sleep 0.01; done");
    pid_in(&mut says);
    let tree = Tree::new(&mark, Scope::Marked);
    let waiting = std::thread::spawn(move || shell.wait().unwrap().code());
    let ended = tree.end_gently(LIMIT, LIMIT).unwrap();
    assert_eq!(ended, Ended { descendants_left: 0, killed: 0 });
    assert_eq!(waiting.join().unwrap(), Some(7));
}

#[test]
fn a_mark_is_matched_whole() {
    let mark = new_mark();
    let (mut shell, mut says) = shell(&format!("{mark}0"), "echo $$; exec sleep 600");
    pid_in(&mut says);
    assert_eq!(Tree::new(&mark, Scope::Marked).look().unwrap(), []);
    assert_eq!(Tree::new("", Scope::Marked).look().unwrap(), []);
    shell.kill().unwrap();
    shell.wait().unwrap();
}

#[test]
fn a_process_of_the_same_number_is_not_hit() {
    let mark = new_mark();
    let (mut shell, mut says) = shell(&mark, "echo $$; exec sleep 600");
    let pid = pid_in(&mut says);
    let other = Process::noted(pid, 1).unwrap();
    assert!(!other.is_still_there());
    assert_eq!(send(&[other], Signal::KILL), 0);
    assert!(shell.try_wait().unwrap().is_none());
    assert_eq!(send(&[process(pid)], Signal::KILL), 1);
    shell.wait().unwrap();
}

#[test]
fn a_tree_with_nobody_in_it_has_ended() {
    let ended = Tree::new(&new_mark(), Scope::Marked).kill(LIMIT).unwrap();
    assert_eq!(ended, Ended { descendants_left: 0, killed: 0 });
}
