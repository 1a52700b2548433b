//! How many tasks a second can be taken, durably: one transaction for each, and several in one (group commit).
//!
//! `cargo run --release -p dispatch-ledger --example admission [DIRECTORY]`; the directory decides which disk is
//! measured. Nothing is asserted: the figure depends on the machine.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod taking;

use std::error::Error;
use std::path::PathBuf;

const TASKS: u32 = 2_048;
const GROUPS: [u32; 4] = [1, 8, 32, 128];

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{TASKS} tasks, each: seen, task, position, reservation in 5 windows, lease, 2 audit entries");
    for group in GROUPS {
        let taking::Taken { rate, opened } = taking::taken(&place, TASKS, group)?;
        println!("{group:>4} in a transaction: {rate:>6.0} a second; opened and checked in {opened:?}");
    }
    Ok(())
}
