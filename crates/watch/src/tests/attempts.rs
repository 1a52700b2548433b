use std::fs;
use std::time::Duration;

use dispatch_core::protocol::time::HOUR_MS;
use dispatch_node::job::{JobDir, Locked, Presence};

use super::{Bench, bench, now};
use crate::attempts::{self, Came, Care, Executors, Looked};
use crate::recipes::{self, OrderFacts};

fn leased() -> (Bench, JobDir) {
    let mut bench = bench();
    bench.take(&bench.task(1));
    let launch = bench.lease(now()).pop().unwrap();
    let job =
        JobDir::at(bench.home.config.state.path(), &launch.key.from, launch.key.id, launch.attempt.epoch);
    (bench, job)
}

/// The job directory with its order, as a launch leaves it.
fn ordered(bench: &Bench) -> JobDir {
    let attempt = bench.ledger.open_attempts().unwrap().pop().unwrap();
    let recipe = recipes::parse(&bench.ledger.recipe(&attempt.key).unwrap().unwrap()).unwrap();
    let facts = OrderFacts {
        node: &bench.home.node,
        from: &attempt.key.from,
        task: attempt.key.id,
        task_sha256: bench.row(1).digest,
        attempt: attempt.n,
        epoch: attempt.epoch,
        mark: &attempt.mark,
        token: None,
        ceiling_usd: None,
    };
    let order = recipes::order(&bench.home.config, recipe, &facts).unwrap();
    JobDir::create(bench.home.config.state.path(), &order, b"echo hello").unwrap()
}

fn look(bench: &Bench) -> Looked {
    let state = bench.home.config.state.path();
    let open = bench.ledger.open_attempts().unwrap();
    attempts::look(state, open, &Executors::default(), now().plus_ms(HOUR_MS), Care::Deadlines)
}

#[test]
fn a_lease_without_its_directory_never_began() {
    let (bench, _) = leased();
    let looked = look(&bench);
    assert!(matches!(looked.ended.as_slice(), [ended] if matches!(ended.came, Came::NeverBegan)));
}

#[test]
fn a_started_attempt_whose_directory_was_removed_is_dead_and_not_leased_again() {
    let (mut bench, _) = leased();
    let epoch = bench.row(1).open_epoch.unwrap();
    bench.write(now(), |tx, _| tx.mark_started(epoch, now()));
    let looked = look(&bench);
    assert!(matches!(looked.ended.as_slice(), [ended] if matches!(ended.came, Came::Dead { .. })));
}

#[test]
fn a_directory_that_cannot_be_looked_at_proves_nothing() {
    let (bench, job) = leased();
    // A file in the place of the task's directory: the disk answers with an error that is not "absent".
    let task = job.path().parent().unwrap();
    fs::create_dir_all(task.parent().unwrap()).unwrap();
    fs::write(task, "").unwrap();
    let looked = look(&bench);
    assert_eq!((looked.ended.len(), looked.failed.len()), (0, 1));
}

#[test]
fn an_executor_that_is_long_alive_is_judged_by_its_own_age_and_not_by_the_wall_clock() {
    let (bench, _) = leased();
    let job = ordered(&bench);
    let Locked::Held(mut lock) = job.try_lock(Duration::ZERO).unwrap() else { panic!("nobody else has it") };
    // This very process: were it taken for overdue, the test would be killed.
    lock.write_holder().unwrap();
    fs::write(job.file("started.json"), "{}").unwrap();
    let looked = look(&bench);
    assert_eq!((looked.ended.len(), looked.adopted), (0, 1));
}

#[test]
fn an_executor_that_died_after_its_start_is_dead_and_one_before_it_is_revoked() {
    let (bench, job) = leased();
    fs::create_dir_all(job.path()).unwrap();
    let before = look(&bench);
    assert!(matches!(before.ended.as_slice(), [ended] if matches!(ended.came, Came::NeverBegan)));
    fs::write(job.file("started.json"), "{}").unwrap();
    let after = look(&bench);
    assert!(matches!(after.ended.as_slice(), [ended] if matches!(ended.came, Came::Dead { .. })));
    assert_eq!(job.revoked().unwrap(), Presence::Present);
}
