//! Many tasks at once.

use dispatch_testkit::check;

use crate::cluster;

#[test]
fn two_hundred_at_once_run_four_at_a_time_and_in_order_of_priority() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 4");
    let mut ids = Vec::new();
    let mut labels = Vec::new();
    for number in 0..200 {
        // Sent in the reverse of the order in which they must run.
        let priority = ["low", "normal", "high"][number * 3 / 200];
        let label = format!("{priority}-{number}");
        let script = format!(
            "{}sleep 0.02\n{}",
            cluster.runs.mark(&label),
            cluster.runs.mark(&format!("end:{label}"))
        );
        ids.push(cluster.a().send("b", &script, &["--priority", priority]));
        labels.push(label);
    }
    let _b = cluster.b().watch();
    check::one_result_each(&cluster, "a", "b", &ids);
    check::each_ran_once(&cluster, &labels);
    let mut alive = 0_i32;
    let mut most = 0;
    let mut starts = Vec::new();
    for line in cluster.runs.order() {
        if line.starts_with("end:") {
            alive -= 1;
        } else {
            alive += 1;
            starts.push(line);
        }
        most = most.max(alive);
    }
    assert!(most <= 4, "{most} agents at once");
    assert!(most >= 2, "never more than one at once");
    let rank = |label: &String| {
        ["high", "normal", "low"].iter().position(|priority| label.starts_with(priority)).unwrap()
    };
    // Up to four start together and note it in any order: a start may be out of place by so many.
    for (index, pair) in starts.iter().zip(starts.iter().skip(4)).enumerate() {
        assert!(rank(pair.0) <= rank(pair.1), "{} started before {} (at {index})", pair.0, pair.1);
    }
    check::audit_verifies(cluster.b());
}
