//! What a task costs, measured on the release binaries beside what the disk and the kernel cost alone.
//!
//! Run by `scripts/bench.sh`. Every figure is taken between two samples of the floor (write + fsync + rename + fsync of the
//! directory, and spawn + wait of a trivial program, in the same directory), because the machine may be busy with
//! something else: the ratio says more than the milliseconds.

mod loud;
mod measure;
mod neighbours;
mod rules;
mod scale;
mod scene;
mod table;

use std::path::PathBuf;

use crate::scene::Scene;
use crate::table::{Form, Table};

/// How much is measured.
pub struct Plan {
    /// Single tasks.
    pub singles: usize,
    /// Tasks of a backlog.
    pub backlog: usize,
    /// Backlogs of each width.
    pub drains: usize,
    /// How long an idle watcher is looked at, in seconds.
    pub idle_s: u64,
    /// Tasks that are done, and names that an inbox has no room for.
    pub known: u32,
    /// Passes over them.
    pub passes: usize,
    /// Output of one loud agent, in bytes.
    pub loud_bytes: u64,
    /// Lines of `policy eval`, at least.
    pub lines: usize,
    /// Tasks taken into a ledger.
    pub admitted: u32,
    /// Runs of both.
    pub evals: usize,
}

const FULL: Plan = Plan {
    singles: 150,
    backlog: 500,
    drains: 3,
    idle_s: 60,
    known: 100_000,
    passes: 25,
    loud_bytes: 1_000_000_000,
    lines: 1_000_000,
    admitted: 4_096,
    evals: 5,
};
const QUICK: Plan = Plan {
    singles: 40,
    backlog: 200,
    drains: 1,
    idle_s: 10,
    known: 20_000,
    passes: 9,
    loud_bytes: 100_000_000,
    lines: 200_000,
    admitted: 2_048,
    evals: 3,
};

/// What is asked for on the command line.
struct Asked {
    bins: PathBuf,
    agent: PathBuf,
    plan: Plan,
    form: Form,
    only: Option<String>,
}

fn asked() -> Option<Asked> {
    let mut words = std::env::args().skip(1);
    let mut asked = Asked {
        bins: words.next()?.into(),
        agent: words.next()?.into(),
        plan: FULL,
        form: Form::Table,
        only: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => asked.plan = QUICK,
            "--json" => asked.form = Form::Json,
            "--only" => asked.only = Some(words.next()?),
            _ => return None,
        }
    }
    Some(asked)
}

fn main() {
    let Some(Asked { bins, agent, plan, form, only }) = asked() else {
        eprintln!("usage: bench BINS AGENT [--quick] [--json] [--only PART]; see scripts/bench.sh");
        std::process::exit(2);
    };
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let mut scene = Scene::new(&bins, &agent);
    let machine = measure::machine(scene.dir());
    let mut table = Table::new(form, &machine);
    if wanted("task") {
        scene.send(&plan, &mut table);
        scene.single(&plan, &mut table);
        scene.command_to_start(&plan, &mut table);
        scene.round_trips(&plan, &mut table);
        scene.by_command(&plan, &mut table);
        scene.drain(&plan, 2, &mut table);
        scene.drain(&plan, 8, &mut table);
        scene.idle(&plan, &mut table);
    }
    if wanted("neighbours") {
        neighbours::all(&plan, scene.dir(), &agent, &mut table);
    }
    if wanted("rules") {
        rules::all(&plan, &bins, scene.dir(), &mut table);
    }
    drop(scene);
    if wanted("scale") {
        scale::all(&plan, &bins, &mut table);
    }
    if wanted("loud") {
        loud::executor(&plan, &bins, &mut table);
    }
    table.end(&machine, &measure::load());
}
