//! An agent that says very much.

use std::path::Path;
use std::thread;
use std::time::Duration;

use dispatch_testkit::{Bins, Cluster};

use crate::Plan;
use crate::measure::{Memory, resident_mb};
use crate::table::{Goal, Row, Table};

/// The executor's peak memory while its agent prints a great deal, in lines and without any line end.
pub fn executor(plan: &Plan, bins: &Path, table: &mut Table) {
    let cluster = Cluster::new(&Bins::in_dir(bins));
    let _b = cluster.b().watch();
    let bytes = plan.loud_bytes;
    for (key, what, script) in [
        ("loud_lines_mb", "in lines", format!("yes 'a line of output' | head -c {bytes}")),
        ("loud_one_line_mb", "in one line", format!("head -c {bytes} /dev/zero | tr '\\0' x")),
    ] {
        let id = cluster.a().send("b", &script, &[]);
        let mut peak = 0.0_f64;
        while cluster.result("a", "b", &id).is_none() {
            for pid in cluster.b().pids("dispatch-exec") {
                peak = peak.max(resident_mb(pid, Memory::Peak).unwrap_or(0.0));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let result = cluster.answer("a", "b", &id);
        assert_eq!((&result["status"], result["output_bytes"].as_u64()), (&"ok".into(), Some(bytes)));
        let what = format!("executor's peak memory, {} MB of output {what}", bytes / 1_000_000);
        table.add(&Row::new(key, what, "MB", peak).goal(Goal::AtMost(20.0)));
    }
}
