//! Tasks that `dispatch-send` would never make, made and sealed here.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use dispatch_testkit::Cluster;
use dispatch_testkit::cluster::list;
use dispatch_testkit::mail;
use serde_json::{Value, json};

/// A task of `a` for `b` with the members that have no default, at the first position of a stream of its own.
pub fn template(cluster: &Cluster) -> Value {
    let text = fs::read_to_string(cluster.share().join("CLUSTER")).unwrap();
    json!({
        "schema": 3, "cluster": text.trim(), "id": "01a1f89c-fb83-734b-96bb-78a1dacaf1ff", "from": "a", "to": "b",
        "created": time_from_now(0), "expires": time_from_now(86_400),
        "stream": "6f0c1d2e-3a4b-4c5d-8e6f-708192a3b4c5", "seq": 1, "request": "echo template",
    })
}

/// `template` with an id of its own and `request`.
pub fn fresh(template: &Value, request: &str) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let old = template["id"].as_str().unwrap();
    let id = format!("{}{:012x}", &old[..24], NEXT.fetch_add(1, Ordering::Relaxed));
    let mut task = template.clone();
    task["id"] = json!(id);
    task["request"] = json!(request);
    task
}

/// The id of a task payload.
pub fn id_of(task: &Value) -> String {
    task["id"].as_str().unwrap().to_owned()
}

/// `task` as sealed by `from` for `to`.
pub fn sealed(cluster: &Cluster, from: &str, to: &str, task: &Value) -> Vec<u8> {
    mail::seal("task.v3", task.to_string().as_bytes(), &cluster.pair(from, to).lane(from, to))
}

/// Puts `bytes` into the inbox of a-to-b as the task `id`, whole at once.
pub fn deliver(cluster: &Cluster, id: &str, bytes: &[u8]) -> PathBuf {
    let file = cluster.lane("a", "b").join(format!("inbox/{id}.json"));
    place(cluster, &file, bytes);
    file
}

/// Puts `bytes` at `file`, whole at once.
pub fn place(cluster: &Cluster, file: &std::path::Path, bytes: &[u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let fresh = cluster.outside().join(format!("placing-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::write(&fresh, bytes).unwrap();
    fs::rename(&fresh, file).unwrap();
}

/// The reasons in the lane's `rejected/` for files that were named `<id>.…`, with the evidence beside each.
pub fn rejected(cluster: &Cluster, id: &str) -> Vec<(Value, bool)> {
    let dir = cluster.lane("a", "b").join("rejected");
    let reasons = list(&dir).into_iter().filter(|path| {
        let name = dispatch_testkit::cluster::name_of(path);
        name.starts_with(id) && name.ends_with(".reason.json")
    });
    reasons
        .filter_map(|path| {
            let reason: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            let evidence = path.to_string_lossy().replace(".reason.json", ".json");
            let beside = fs::symlink_metadata(evidence).is_ok();
            Some((reason, beside))
        })
        .collect()
}

/// The member `code` of a reason, wherever it stands.
pub fn code_in(reason: &Value) -> String {
    let code = reason.get("code").or_else(|| reason.get("reason").and_then(|reason| reason.get("code")));
    code.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A time of the protocol, `seconds` from now.
pub fn time_from_now(seconds: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = i64::try_from(now.as_secs()).unwrap() + seconds;
    // Days to civil date, after Howard Hinnant's algorithm.
    let (days, rest) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.000Z", rest / 3600, rest % 3600 / 60, rest % 60)
}
