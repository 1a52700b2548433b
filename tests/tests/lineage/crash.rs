//! The watcher dies between an agent's request, its commit, the outbox and the reply: there is one child, whenever it was.

use dispatch_testkit::points::{self, Place, Point, Whose, at_each};
use dispatch_testkit::{Cluster, Watcher, check, eventually, trace};

use super::{answered, cluster, send};

/// Points that are tried, unless told to try all.
const SAMPLE: usize = 24;

/// A task at `b` whose agent sends one to `a` and waits for what comes of it.
struct Scene {
    cluster: Cluster,
    root: String,
    _a: Watcher,
}

impl Scene {
    fn sent() -> Scene {
        let cluster = cluster();
        let child = format!("{}echo from the child\n", cluster.runs.mark("child"));
        let file = cluster.outside().join("child.sh");
        std::fs::write(&file, child).unwrap();
        let script = format!("{} --to a --file '{}' --wait\n", send(&cluster), file.display());
        let root = cluster.a().send("b", &script, &["--fanout", "3"]);
        let a = cluster.a().watch();
        Scene { cluster, root, _a: a }
    }

    fn settled(&self) -> bool {
        self.cluster.result("a", "b", &self.root).is_some()
    }

    /// Runs a watcher until the task is answered or the watcher has ended.
    fn run(&self, before: &[String]) -> Watcher {
        let mut watcher = self.cluster.b().start_watch(before, &[]);
        eventually("it is answered, or the watcher is dead", || watcher.ended().is_some() || self.settled());
        watcher
    }
}

#[test]
fn a_watcher_killed_at_any_point_makes_one_child_of_one_request() {
    if !trace::possible() {
        eprintln!("SKIPPED: kills at every step: strace is not installed, or may not trace here");
        return;
    }
    let counted = Scene::sent();
    let log = counted.cluster.outside().join("calls");
    drop(counted.run(&points::counting(&log)));
    assert!(counted.settled());
    // From the agent's start on: what comes before is tried elsewhere.
    let all = points::points(&log, &counted.cluster.share());
    let launched = all.iter().position(|point| point.shown.contains("/door")).unwrap_or(0);
    let all: Vec<Point> = all.into_iter().skip(launched).filter(|point| point.place != Place::Own).collect();
    let doors = all.iter().filter(|point| point.shown.contains("/door")).count();
    assert!(doors > 6 && all.iter().any(|point| point.whose == Whose::Lanes), "{all:#?}");
    let chosen = match std::env::var("DISPATCH_CRASH").as_deref() {
        Ok("full") => all,
        _ => points::sample(&all, SAMPLE),
    };
    at_each(&chosen, |point| {
        let scene = Scene::sent();
        drop(scene.run(&points::killing(point, &scene.cluster.share())));
        let _b = scene.run(&[]);
        let result = scene.cluster.answered(&scene.root, "ok");
        assert_eq!(result["final_text"], "from the child\n", "{result:#}");
        assert_eq!(answered(&scene.cluster, "b", "a").len(), 1);
        assert_eq!(scene.cluster.runs.of("child"), 1);
        check::audit_verifies(scene.cluster.b());
    });
}
