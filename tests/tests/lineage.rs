//! Tasks that tasks send: the agent asks at its own door, the watcher makes the child, and nothing an agent is given lets it
//! have more than it was granted.

use dispatch_testkit::cluster::list;
use dispatch_testkit::{Cluster, bins};
use serde_json::Value;

fn cluster() -> Cluster {
    let cluster = Cluster::new(&bins!());
    for node in &cluster.nodes {
        // The gate has tests of its own; here a tree may grow as deep as its lineage lets it.
        node.configure("[approve]\ngate_depth = 64\n");
    }
    cluster
}

/// The command as an agent's script calls it.
fn send(cluster: &Cluster) -> String {
    cluster.bins.path("dispatch-send").display().to_string()
}

/// The ids of the tasks that were received on a lane.
fn received(cluster: &Cluster, from: &str, to: &str) -> Vec<String> {
    let done = cluster.lane(from, to).join("done");
    let names = list(&done).into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
    let mut ids: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".result.json")?.to_owned())).collect();
    ids.sort();
    ids
}

#[test]
fn a_child_arrives_sealed_with_its_lineage_runs_and_its_agent_hears_of_it() {
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let child = format!("{}echo from the child\n", cluster.runs.mark("child"));
    let script = format!(
        "{}printf '%s' '{}' > child.txt\n'{}' --to a --file child.txt --wait\n",
        cluster.runs.mark("root"),
        child.replace('\'', "'\\''"),
        send(&cluster)
    );
    let root = cluster.a().send("b", &script, &["--fanout", "3"]);
    let result = cluster.answered(&root, "ok");
    assert_eq!(result["final_text"], "from the child\n", "{result:#}");
    let ids = received(&cluster, "b", "a");
    let [id] = ids.as_slice() else { panic!("{ids:?}") };
    let task = cluster.opened("b", "a", &format!("done/{id}.json")).unwrap();
    assert!(task.verified);
    let lineage = &task.value["lineage"];
    assert_eq!((lineage["root"].as_str(), lineage["parent"].as_str()), (Some(&*root), Some(&*root)));
    assert_eq!((&lineage["depth"], &lineage["fanout_left"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(cluster.runs.all(), [("child".to_owned(), 1), ("root".to_owned(), 1)].into());
}
