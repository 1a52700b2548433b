//! The table that is printed.

use crate::measure::{Floor, Samples};

/// Prints the head.
pub fn head() {
    row("what", "median", "p95", "× floor", "goal");
    row("---", "---", "---", "---", "---");
}

/// Prints a row.
pub fn row(what: &str, median: &str, p95: &str, ratio: &str, goal: &str) {
    println!("| {what} | {median} | {p95} | {ratio} | {goal} |");
}

/// Prints a row of samples, beside the floor that was measured with them.
pub fn samples(what: &str, samples: &Samples, floor: &Floor, goal: &str) {
    let ratio = format!("{:.1}", samples.median() / floor.both());
    let [median, p95] = figures(samples);
    row(&format!("{what} ({} runs)", samples.len()), &median, &p95, &ratio, goal);
}

/// Prints the floor itself.
pub fn floor(floor: &Floor) {
    let [median, p95] = figures(&floor.sync);
    row("floor: write, fsync, rename, fsync of the directory", &median, &p95, "", "");
    let [median, p95] = figures(&floor.spawn);
    row("floor: spawn and wait of a program that does nothing", &median, &p95, "", "");
}

fn figures(samples: &Samples) -> [String; 2] {
    [0.5, 0.95].map(|share| format!("{:.2} ms", samples.quantile(share)))
}
