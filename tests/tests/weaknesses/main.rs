//! Every weakness that was shown of version 2, by its letter, through the built commands: none of them is possible here.

mod running;
mod signed;

use std::path::Path;

use dispatch_testkit::{Cluster, bins};

/// Two nodes, set up by `init`; no watcher runs yet.
pub fn cluster() -> Cluster {
    Cluster::new(&bins!())
}

/// A request that notes its run under `label` and says so.
pub fn note(cluster: &Cluster, label: &str) -> String {
    format!("{}echo did {label}\n", cluster.runs.mark(label))
}

/// A request that notes its run, then waits until `gate` exists, and notes its end.
pub fn note_and_wait_for(cluster: &Cluster, label: &str, gate: &Path) -> String {
    format!(
        "{}while [ ! -e '{}' ]; do sleep 0.02; done\n{}echo did {label}\n",
        cluster.runs.mark(label),
        gate.display(),
        cluster.runs.mark(&format!("end:{label}")),
    )
}
