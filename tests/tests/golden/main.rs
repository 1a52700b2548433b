//! What somebody who waits is shown and told: where the task is meanwhile, and the one document at the end.

mod progress;
mod statuses;
mod watching;

use dispatch_testkit::{Cluster, bins};

/// Two nodes, set up by `init`; no watcher runs yet.
pub fn cluster() -> Cluster {
    Cluster::new(&bins!())
}

/// A request that notes its run under `label` and then waits until `gate` exists.
pub fn wait_for(cluster: &Cluster, label: &str, gate: &std::path::Path) -> String {
    let mark = cluster.runs.mark(label);
    format!("{mark}while [ ! -e '{}' ]; do sleep 0.02; done\necho did {label}\n", gate.display())
}

/// A request that notes its run under `label` and then lives until it is ended.
pub fn mark_and_stay(cluster: &Cluster, label: &str) -> String {
    format!("{}exec sleep 100000\n", cluster.runs.mark(label))
}
