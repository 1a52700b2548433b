//! Where a task runs: backends by what they offer, engines' clients, hosted APIs, and peers chosen by what they say.

use std::fs;
use std::path::PathBuf;

use dispatch_testkit::{Cluster, bins, check, eventually};
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster::new(&bins!())
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// A request that notes its run under `label` and says so.
fn note(cluster: &Cluster, label: &str) -> String {
    format!("{}echo did {label}\n", cluster.runs.mark(label))
}

/// An engine's client that says what it was told and runs what it reads.
fn client(cluster: &Cluster) -> PathBuf {
    let path = cluster.outside().join("engine");
    fs::write(&path, "#!/bin/sh\nprintf '[%s]' \"$@\"\necho\nexec /bin/sh -eu\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).unwrap();
    path
}

/// Says yes to the task when it waits.
fn approve(cluster: &Cluster, key: &std::path::Path, id: &str) {
    let terms = format!("pending-ack/{id}.terms.json");
    eventually("its terms are shown", || cluster.opened("a", "b", &terms).filter(|terms| terms.verified));
    let key = key.display().to_string();
    drop(cluster.b().run("dispatch-ack", [id, "--yes", "--key", &key, "--reason", "fine"]).ok());
}

#[test]
fn a_task_runs_on_the_first_backend_that_offers_what_it_requires() {
    let cluster = cluster();
    cluster.b().configure(
        "[backend.plain]\nkind = \"local\"\ntools = [\"make\"]\n\
         [backend.gpu]\nkind = \"local\"\navailable_vram_gb = \"24\"\ntools = [\"train\"]\n",
    );
    let _b = cluster.b().watch();
    let needs = ["--needs-tool", "train", "--needs-vram", "16"];
    let id = cluster.a().send("b", &note(&cluster, "trained"), &needs);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["backend"], json!({"name": "gpu", "kind": "local"}));
    let id = cluster.a().send("b", &note(&cluster, "made"), &["--needs-tool", "make"]);
    assert_eq!(cluster.answered(&id, "ok")["backend"]["name"], "plain");
}

#[test]
fn a_refusal_lists_every_backend_with_its_reason() {
    let cluster = cluster();
    cluster.b().configure(
        "[backend.plain]\nkind = \"local\"\n\
         [backend.gpu]\nkind = \"local\"\navailable_vram_gb = \"8\"\n",
    );
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "big"), &["--needs-vram", "16"]);
    let result = cluster.answered(&id, "rejected");
    assert_eq!(result["reason"]["code"], "no_eligible_backend");
    let text = result["reason"]["text"].as_str().unwrap();
    assert!(text.contains("`plain`: it has no GPU"), "{text}");
    assert!(text.contains("`gpu`: its GPU has too little memory"), "{text}");
    assert_eq!(cluster.runs.of("big"), 0);
}

#[test]
fn a_metered_engine_is_gated_run_by_its_template_and_paid_by_its_time() {
    let cluster = cluster();
    let engine = client(&cluster);
    let key = cluster.b().approver("ann");
    cluster.b().configure(&format!(
        "[budget]\nrun_usd = \"5\"\nmonth_usd = \"50\"\n\
         [backend.cloud]\nkind = \"cloud_worker\"\nbilling = \"metered\"\nimages = [\"cuda-12\"]\ntools = []\n\
         argv = [\"{}\", \"--image={{image}}\", \"{{task}}\", \"--wait\"]\n\
         gpu_usd_per_s = \"0.001\"\nvcpu_usd_per_s = \"0.0000025\"\nvcpus = 4\nidle_tail_s = 60\n\
         [backend.plain]\nkind = \"local\"\nimages = []\n",
        engine.display()
    ));
    let _b = cluster.b().watch();
    let words = ["--needs-image", "cuda-12", "--timeout", "100s"];
    let id = cluster.a().send("b", &note(&cluster, "far"), &words);
    approve(&cluster, &key, &id);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["backend"], json!({"name": "cloud", "kind": "cloud_worker"}));
    assert!(result["final_text"].as_str().unwrap().contains(&format!("[--image=cuda-12][{id}][--wait]")));
    // (100 s + 30 s to end it + 60 s) x (0.001 + 4 x 0.0000025) were set aside; paid is the time it took and the tail.
    assert_eq!(result["cost"]["reserved_usd"], "0.1919", "{result:#}");
    assert_eq!(result["cost"]["basis"], "derived");
    let seconds = result["elapsed_ms"].as_u64().unwrap().div_ceil(1_000) + 60;
    let micros = seconds * 1_010;
    let paid = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    assert_eq!(result["cost"]["usd"], paid.trim_end_matches('0'), "{result:#}");
    check::money_adds_up(cluster.b(), &[result]);
}

#[test]
fn a_name_that_the_backend_does_not_list_is_never_an_argument() {
    let cluster = cluster();
    let engine = client(&cluster);
    cluster.b().configure(&format!(
        "[backend.cloud]\nkind = \"cloud_worker\"\nbilling = \"free\"\nimages = [\"cuda-12\"]\n\
         argv = [\"{}\", \"{{image}}\"]\n",
        engine.display()
    ));
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "odd"), &["--needs-image=--config=/etc/passwd"]);
    assert_eq!(cluster.answered(&id, "rejected")["reason"]["code"], "no_eligible_backend");
    cluster.b().configure("[backend.cloud]\nargv = [\"engine\", \"{tool}\"]");
    let checked = cluster.b().ctl(["config", "check"]);
    assert_eq!(checked.code, 78, "{checked:?}");
    assert!(checked.err.contains("backend.cloud.tools"), "{}", checked.err);
}

fn hosted(cluster: &Cluster) {
    cluster.b().configure(
        "[exec]\nallow_sdk = true\n\
         [backend.plain]\nkind = \"local\"\ntools = []\n\
         [backend.api]\nkind = \"sdk\"\nprofile = \"hosted\"\n\
         [profile.hosted]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"free\"\nendpoint = \"model\"\n\
         [endpoint.model]\nbase_url = \"https://api.example.com/v1/secret-path\"\nbase_url_env = \"MODEL_URL\"\n\
         secret_env = \"MODEL_SECRET\"\n",
    );
}

#[test]
fn a_hosted_api_is_used_only_when_both_sides_allow_it() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    hosted(&cluster);
    let _b = cluster.b().watch_with(&["env".to_owned(), "MODEL_SECRET=s3cret-value".to_owned()], &[]);
    let request = format!("{}echo \"$MODEL_URL ${{#MODEL_SECRET}}\"\n", cluster.runs.mark("hosted"));
    let id = cluster.a().send("b", &request, &[]);
    let text = cluster.answered(&id, "rejected")["reason"]["text"].to_string();
    assert!(text.contains("`api`: it is a hosted API"), "{text}");

    let id = cluster.a().send("b", &request, &["--allow-sdk"]);
    approve(&cluster, &key, &id);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["final_text"], "https://api.example.com/v1/secret-path 12\n");
    assert_eq!(result["agent"]["profile"], "hosted");
    let egress: Vec<Value> = eventually("the use is audited", || {
        let found: Vec<Value> =
            cluster.audit("b").into_iter().filter(|entry| entry["kind"] == "egress").collect();
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(egress[0]["data"], json!({"endpoint": "model", "host": "api.example.com"}));
    let all = serde_json::to_string(&cluster.audit("b")).unwrap();
    assert!(!all.contains("secret-path") && !all.contains("s3cret-value"), "{all}");
}

#[test]
fn without_its_secret_nothing_starts() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    hosted(&cluster);
    let _b = cluster.b().watch_with(&["env".to_owned(), "MODEL_SECRET=".to_owned()], &[]);
    let id = cluster.a().send("b", &note(&cluster, "no-secret"), &["--allow-sdk"]);
    approve(&cluster, &key, &id);
    let result = cluster.answered(&id, "error");
    assert_eq!(result["reason"]["code"], "secret_missing");
    assert!(result["reason"]["help"].as_str().unwrap().contains("MODEL_SECRET"), "{result:#}");
    assert_eq!(cluster.runs.of("no-secret"), 0);
}

#[test]
fn a_backend_with_a_limit_of_its_own_runs_no_more_at_once() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 4\n[backend.one]\nkind = \"local\"\nmax_parallel = 1\n");
    let gate = cluster.outside().join("gate");
    let wait = |label: &str| {
        let mark = cluster.runs.mark(label);
        format!("{mark}while [ ! -e '{}' ]; do sleep 0.02; done\n", gate.display())
    };
    let _b = cluster.b().watch();
    let first = cluster.a().send("b", &wait("first"), &[]);
    eventually("the first runs", || cluster.runs.of("first") == 1);
    let second = cluster.a().send("b", &wait("second"), &[]);
    let reason = eventually("the second waits", || {
        let shown = cluster.b().ctl(["show", &second, "--json"]);
        let shown: Value = serde_json::from_str(&shown.out).ok()?;
        shown["wait_reason"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("`one`"), "{reason}");
    assert_eq!(cluster.runs.of("second"), 0);
    fs::write(&gate, "").unwrap();
    cluster.answered(&first, "ok");
    cluster.answered(&second, "ok");
}

#[test]
fn a_waiting_task_whose_backend_is_gone_ends_instead_of_running_elsewhere() {
    let cluster = cluster();
    let _key = cluster.b().approver("ann");
    let gpu = "[backend.gpu]\nkind = \"local\"\navailable_vram_gb = \"24\"\n";
    cluster.b().configure(gpu);
    let b = cluster.b().watch();
    let words = ["--require-ack", "--needs-vram", "16"];
    let id = cluster.a().send("b", &note(&cluster, "gone"), &words);
    eventually("it waits", || cluster.opened("a", "b", &format!("pending-ack/{id}.terms.json")));
    cluster.b().configure("[backend.gpu]\nkind = \"sdk\"\nprofile = \"default\"\n");
    let watcher = rustix::process::Pid::from_raw(b.pid()).unwrap();
    rustix::process::kill_process(watcher, rustix::process::Signal::HUP).unwrap();
    assert_eq!(cluster.answered(&id, "rejected")["reason"]["code"], "terms_changed");
    assert_eq!(cluster.runs.of("gone"), 0);
}

#[test]
fn a_task_to_auto_goes_to_the_peer_that_can_take_it() {
    let cluster = Cluster::star(&bins!(), "a", &["b", "c"]);
    let [_, b, c] = cluster.nodes.as_slice() else { panic!("three nodes") };
    c.configure("[backend.gpu]\nkind = \"local\"\navailable_vram_gb = \"24\"\n");
    let silent = cluster.a().try_send("auto", "true\n", &[]);
    assert_eq!(silent.code, 75, "{silent:?}");
    assert!(silent.err.contains("`b`: it shows no heartbeat"), "{}", silent.err);
    let (_b, _c) = (b.watch(), c.watch());
    let words = ["--needs-vram", "16", "--wait", "--json"];
    let sent = eventually("c is heard", || {
        let sent = cluster.a().try_send("auto", &note(&cluster, "auto"), &words);
        (sent.code == 0).then(|| json_of(&sent.out))
    });
    assert_eq!(sent["lane"], "a-to-c");
    assert_eq!(cluster.runs.of("auto"), 1);
    let none = cluster.a().try_send("auto", "true\n", &["--profile", "nowhere"]);
    assert!(none.err.contains("it has no such profile"), "{}", none.err);
}

/// A task that waits for its budget at the head of the queue must not keep the only place of its backend.
#[test]
fn a_task_that_waits_for_money_leaves_its_backends_place_to_the_next() {
    let cluster = cluster();
    cluster.b().configure(
        "[backend.one]\nkind = \"local\"\nmax_parallel = 1\n[budget]\nrun_usd = \"100\"\nmonth_usd = \"100\"\nday_usd = \"1\"\n\
         [profile.paid]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
         max_cost_usd = \"2\"\novershoot_usd = \"1\"\n",
    );
    let _b = cluster.b().watch();
    let paid = cluster.a().send("b", &note(&cluster, "paid"), &["--profile", "paid", "--priority", "high"]);
    eventually("it waits for its day", || {
        let shown = cluster.b().ctl(["show", &paid, "--json"]);
        let shown: Value = serde_json::from_str(&shown.out).ok()?;
        shown["wait_reason"].as_str().map(str::to_owned)
    });
    let free = cluster.a().send("b", &note(&cluster, "free"), &["--priority", "low"]);
    cluster.answered(&free, "ok");
    assert_eq!(cluster.runs.of("paid"), 0);
}
