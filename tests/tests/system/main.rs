//! The product as people run it: the built commands, two nodes, one share.

mod codes;
mod craft;
mod doors;
mod ending;
mod explaining;
mod first;
mod gate;
mod guards;
mod incidents;
mod junk;
mod keys;
mod killswitch;
mod ledger;
mod load;
mod meter;
mod metrics;
mod money;
mod notifiers;
mod owners;
mod share;
mod survival;
mod telling;

use dispatch_testkit::{Cluster, bins};

/// Two nodes, set up by `init`; no watcher runs yet.
pub fn cluster() -> Cluster {
    Cluster::new(&bins!())
}

/// A request that notes its run under `label` and says so.
pub fn note(cluster: &Cluster, label: &str) -> String {
    format!("{}echo did {label}\n", cluster.runs.mark(label))
}

/// A request that notes its run and then lives until it is ended.
pub fn note_and_stay(cluster: &Cluster, label: &str) -> String {
    format!("{}exec sleep 100000\n", cluster.runs.mark(label))
}

/// A request that notes its run and then waits until `gate` exists.
pub fn note_and_wait_for(cluster: &Cluster, label: &str, gate: &std::path::Path) -> String {
    format!(
        "{}while [ ! -e '{}' ]; do sleep 0.02; done\necho did {label}\n",
        cluster.runs.mark(label),
        gate.display()
    )
}
