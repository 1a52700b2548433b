//! Tasks that tasks send: the agent asks at its own door, the watcher makes the child, and nothing an agent is given lets it
//! have more than it was granted.

#[path = "lineage/hand.rs"]
mod hand;

use std::fs;
use std::process::Command;

use dispatch_testkit::cluster::names;
use dispatch_testkit::process::Ended;
use dispatch_testkit::{Cluster, bins, check, eventually};
use hand::Held;
use serde_json::{Value, json};

/// Two nodes whose gates let a tree grow as deep as its lineage lets it.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&bins!());
    for node in &cluster.nodes {
        node.configure("[approve]\ngate_depth = 64\ngate_above_usd = \"1000\"\n");
    }
    cluster
}

/// The command as an agent's script calls it.
fn send(cluster: &Cluster) -> String {
    format!("'{}'", cluster.bins.path("dispatch-send").display())
}

/// The ids of the tasks that were answered on a lane.
fn answered(cluster: &Cluster, from: &str, to: &str) -> Vec<String> {
    let done = names(&cluster.lane(from, to).join("done"));
    done.iter().filter_map(|name| Some(name.strip_suffix(".result.json")?.to_owned())).collect()
}

/// The codes under which a node refused what its agents asked for.
fn refusals(cluster: &Cluster, node: &str) -> Vec<String> {
    let entries = cluster.audit(node).into_iter().filter(|entry| entry["kind"] == "child_refused");
    entries.filter_map(|entry| entry["code"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_child_arrives_sealed_with_its_lineage_runs_and_its_agent_hears_of_it() {
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let child = format!("{}echo from the child\n", cluster.runs.mark("child"));
    let file = cluster.outside().join("child.sh");
    fs::write(&file, child).unwrap();
    // With the two variables and nothing else: no home, no configuration, no key.
    let script = format!(
        "{}env -i DISPATCH_DOOR=\"$DISPATCH_DOOR\" DISPATCH_TOKEN=\"$DISPATCH_TOKEN\" {} --to a --file '{}' --wait\n",
        cluster.runs.mark("root"),
        send(&cluster),
        file.display()
    );
    let root = cluster.a().send("b", &script, &["--fanout", "3"]);
    let result = cluster.answered(&root, "ok");
    assert_eq!(result["final_text"], "from the child\n", "{result:#}");
    let ids = answered(&cluster, "b", "a");
    let [id] = ids.as_slice() else { panic!("{ids:?}") };
    let task = cluster.opened("b", "a", &format!("done/{id}.json")).unwrap();
    assert!(task.verified);
    let wanted = json!({
        "root": root, "parent": root, "depth": 1, "fanout_left": 1, "budget_usd": null, "via": [],
    });
    assert_eq!(task.value["lineage"], wanted);
    assert_eq!(cluster.runs.all(), [("child".to_owned(), 1), ("root".to_owned(), 1)].into());
    // The token is nowhere but where the agent finds it.
    let order =
        dispatch_testkit::cluster::find(&cluster.b().state_dir(), &|name| name == "order.json").unwrap();
    let order: Value = serde_json::from_slice(&fs::read(order).unwrap()).unwrap();
    let token = order["token"].as_str().unwrap();
    let shown = serde_json::to_string(&cluster.audit("b")).unwrap();
    let log = fs::read_to_string(cluster.b().log()).unwrap();
    assert!(!shown.contains(token) && !log.contains(token));
    for file in ["ledger.db", "ledger.db-wal"] {
        let bytes = fs::read(cluster.b().state_dir().join(file)).unwrap_or_default();
        assert!(!bytes.windows(token.len()).any(|part| part == token.as_bytes()), "{file}");
    }
}

#[test]
fn an_agent_is_told_as_a_person_is_and_ends_as_its_child_did() {
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    // By its name: the agent finds it beside the executor.
    let send = "dispatch-send";
    let script = format!(
        "set +e
         {send} --to a --request 'exit 3' --wait; echo \"failed $?\"
         {send} --to a --request 'echo well' --wait --json; echo \"json $?\"
         {send} --to a --request 'true'; echo \"sent $?\"
         {send} --to nowhere --request 'true' 2>&1; echo \"nowhere $?\"
         {send} --to auto --request 'true' 2>&1; echo \"auto $?\"
         {send} --to a --request 'true' --fanout 9 2>&1; echo \"more $?\"\n"
    );
    // Who was granted none is told so, and sends nothing as the person that its uid may be.
    let barred = format!("set +e; {} --to a --request true 2>&1; echo \"none $?\"\n", self::send(&cluster));
    let barred = cluster.answered(&cluster.a().send("b", &barred, &[]), "ok");
    let told = barred["final_text"].as_str().unwrap();
    assert!(told.contains("its fan-out is 0") && told.ends_with("none 77\n"), "{told}");
    let root = cluster.a().send("b", &script, &["--fanout", "9"]);
    let result = cluster.answered(&root, "ok");
    let text = result["final_text"].as_str().unwrap();
    let mut lines = text.lines();
    let mut until = |end: &str| -> Vec<&str> {
        let mut before = Vec::new();
        for line in lines.by_ref() {
            if line == end {
                return before;
            }
            before.push(line);
        }
        panic!("no {end:?} in {text}");
    };
    drop(until("failed 1"));
    let json = until("json 0");
    let document: Value = serde_json::from_str(json[0]).unwrap();
    assert_eq!((&document["status"], &document["verified"]), (&json!("ok"), &json!(true)), "{document:#}");
    assert_eq!(document["result"]["final_text"], "well\n");
    assert_eq!(document["task_sha256"], document["result"]["task_sha256"]);
    let sent = until("sent 0");
    let (id, inbox) = sent[0].split_once('\t').unwrap();
    assert_eq!(inbox, cluster.lane("b", "a").join(format!("inbox/{id}.json")).display().to_string());
    assert!(until("nowhere 2").concat().contains("known: a"));
    assert!(until("auto 2").concat().contains("name the node"));
    assert!(until("more 77").concat().contains("a fan-out of 9 is more than the"), "{text}");
    drop(cluster.answer("b", "a", id));
}

/// What an agent writes by hand is judged like what `dispatch-send` writes.
#[test]
fn what_an_agent_writes_by_hand_enlarges_nothing() {
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let held = Held::send(&cluster, "held", &["--fanout", "3", "--budget", "2"]);
    let hand = &held.hand;
    let root = held.id.as_str();
    let long = "x".repeat(512 * 1024 + 1);
    let args: [(&str, Value, &str); 18] = [
        ("run", json!("fresh"), "lineage_exceeded"),
        ("root", json!(root), "malformed"),
        ("parent", json!(null), "malformed"),
        ("depth", json!(0), "malformed"),
        ("fanout_left", json!(3), "malformed"),
        ("lineage", json!({"root": root}), "malformed"),
        ("from", json!("a"), "malformed"),
        ("via", json!([]), "malformed"),
        ("fanout", json!(3), "lineage_exceeded"),
        ("fanout", json!(4_294_967_295_u32), "lineage_exceeded"),
        ("fanout", json!(-1), "malformed"),
        ("budget_usd", json!("2.000001"), "lineage_exceeded"),
        ("budget_usd", json!("-1"), "malformed"),
        ("require_dangerous", json!(true), "lineage_exceeded"),
        ("allow_sdk", json!(true), "lineage_exceeded"),
        ("to", json!("b"), "unknown_peer"),
        ("request", json!(long), "limit_exceeded"),
        ("expires_ms", json!(31 * 86_400_000_i64), "limit_exceeded"),
    ];
    for (member, value, code) in args {
        let reply = hand.ask(|request| request["args"][member] = value);
        assert_eq!(reply["error"]["code"], code, "{member}: {reply:#}");
        assert!(reply["error"]["help"].as_str().is_some_and(|help| !help.is_empty()), "{reply:#}");
    }
    for (member, value, code) in [
        ("verb", json!("approve"), "malformed"),
        ("verb", json!("budget-resume"), "malformed"),
        ("reason", json!("please"), "malformed"),
        ("schema", json!(2), "malformed"),
        ("made", json!(hand::time_from_now(-61)), "expired"),
        ("expires", json!(hand::time_from_now(3_600)), "expired"),
    ] {
        let reply = hand.ask(|request| request[member] = value);
        assert_eq!(reply["error"]["code"], code, "{member}: {reply:#}");
    }
    assert!(names(&cluster.lane("b", "a").join("inbox")).is_empty());
    // One that is as it should be is made, and made once.
    let request = hand.request();
    let reply = hand.put(&request);
    let child = reply["child"]["task"].as_str().unwrap_or_else(|| panic!("{reply:#}")).to_owned();
    assert_eq!((&reply["child"]["depth"], &reply["child"]["budget_usd"]), (&json!(1), &json!("1")));
    assert_eq!(hand.put(&request), reply, "the same request is the same child");
    drop(cluster.answer("b", "a", &child));
    assert_eq!(answered(&cluster, "b", "a"), [child]);
    held.end(&cluster);
    let told = eventually("the refusals are in the audit", || {
        let told = refusals(&cluster, "b");
        (told.len() >= 16).then_some(told)
    });
    assert_eq!(told.len(), 16, "the first are audited one by one, the rest by their count: {told:?}");
    check::audit_verifies(cluster.b());
}

#[test]
fn a_token_opens_no_door_but_its_own_and_none_after_its_attempt() {
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let one = Held::send(&cluster, "one", &["--fanout", "5"]);
    let two = Held::send(&cluster, "two", &["--fanout", "5"]);
    let code = |reply: Value| reply["error"]["code"].as_str().map(str::to_owned);
    let bad = Some("bad_token".to_owned());
    for token in [&one.hand.token, &"f".repeat(64), &String::new()] {
        let reply = two.hand.ask(|request| request["token"] = json!(token));
        assert_eq!(code(reply), bad, "{token:?}");
    }
    one.end(&cluster);
    // Its own door is closed, and one that the agent opens again is nobody's.
    let sent = one.hand.command(&cluster, &["--to", "a", "--request", "true"]);
    assert_eq!(sent.code, 77, "{sent:?}");
    assert!(sent.err.contains("the door of this attempt is closed"), "{}", sent.err);
    fs::create_dir(one.hand.door.join("requests")).unwrap();
    let request = one.hand.request();
    one.hand.lay(&request);
    // And its token is dead at any other.
    let reply = two.hand.ask(|request| request["token"] = json!(one.hand.token));
    assert_eq!(code(reply), bad);
    let reply = two.hand.ask(|_| {});
    let child = reply["child"]["task"].as_str().unwrap_or_else(|| panic!("{reply:#}")).to_owned();
    drop(cluster.answer("b", "a", &child));
    // Those passes would have answered it.
    assert!(one.hand.reply(&request).is_none());
    two.end(&cluster);
    assert_eq!(answered(&cluster, "b", "a"), [child]);
    let whose: Vec<Value> = eventually("the refusals are in the audit", || {
        let entries = cluster.audit("b").into_iter().filter(|entry| entry["code"] == "bad_token");
        let whose: Vec<Value> = entries.map(|entry| entry["data"]["token"].clone()).collect();
        (whose.len() == 4).then_some(whose)
    });
    assert_eq!(whose, ["of_another_attempt", "unknown", "unknown", "of_an_ended_attempt"]);
}

/// Junk by the thousand costs its own agent the door, and nobody else anything.
#[test]
fn an_agent_that_asks_in_a_loop_is_shut_out_and_stops_nobody() {
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let held = Held::send(&cluster, "held", &["--fanout", "1"]);
    let door = &held.hand.door;
    for number in 0..1_100 {
        let request = held.hand.request();
        // A name of a request, and never one that can be read, or else one that is refused.
        let text = if number % 2 == 0 { "{}".to_owned() } else { json!({"fanout": 9}).to_string() };
        fs::write(door.join("requests").join(format!("{}.json", request["id"].as_str().unwrap())), text).ok();
    }
    let other = cluster.a().send("b", "echo there\n", &[]);
    cluster.answered(&other, "ok");
    eventually("its door is shut", || !door.join("requests").exists());
    let sent = held.hand.command(&cluster, &["--to", "a", "--request", "true"]);
    assert_eq!(sent.code, 77, "{sent:?}");
    eventually("that is audited", || cluster.audited("b", "door_flooded"));
    assert_eq!(refusals(&cluster, "b").len(), 16);
    held.end(&cluster);
    assert!(answered(&cluster, "b", "a").is_empty());
}

/// Nothing an agent is given holds an approver's key, and its door knows one verb.
#[test]
fn an_agent_approves_nothing_that_it_sends() {
    let cluster = cluster();
    let key = cluster.a().approver("ann");
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let ack = cluster.bins.path("dispatch-ack").display().to_string();
    let child = format!("{}echo approved\n", cluster.runs.mark("child"));
    let file = cluster.outside().join("child.sh");
    fs::write(&file, child).unwrap();
    let script = format!(
        "id=$({} --to a --file '{}' --require-ack | cut -f1)
         while ! ls '{}' | grep -q \"$id.terms\"; do sleep 0.05; done
         echo \"$id\"
         '{ack}' \"$id\" --yes --reason 'I think so' >/dev/null 2>&1 && echo approved || echo 'not approved'\n",
        send(&cluster),
        file.display(),
        cluster.lane("b", "a").join("pending-ack").display()
    );
    let root = cluster.a().send("b", &script, &["--fanout", "1"]);
    let result = cluster.answered(&root, "ok");
    let (id, said) = result["final_text"].as_str().unwrap().split_once('\n').unwrap();
    assert_eq!(said, "not approved\n", "{result:#}");
    assert_eq!(cluster.runs.of("child"), 0);
    let key = key.display().to_string();
    drop(cluster.a().run("dispatch-ack", [id, "--yes", "--key", &key, "--reason", "fine"]).ok());
    assert_eq!(cluster.answer("b", "a", id)["status"], "ok");
    assert_eq!(cluster.runs.of("child"), 1);
}

/// Agents of the watcher's own uid could read what it reads. One of another uid finds nothing: neither door nor token,
/// neither the person's door nor a key.
#[test]
fn another_uid_finds_every_door_closed() {
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("SKIPPED: another uid: only root can become one, with setpriv");
        return;
    }
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let held = Held::send(&cluster, "held", &["--fanout", "1"]);
    let (b, door) = (cluster.b(), held.hand.door.display().to_string());
    // The way to it is open, as it is in a home directory that others may pass through.
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"]).args(words);
        command.env("DISPATCH_DOOR", &door).env("DISPATCH_TOKEN", &held.hand.token).current_dir("/");
        Ended::of(command, b"")
    };
    let shared = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(cluster.outside().parent().unwrap(), shared).unwrap();
    assert_eq!(as_nobody(&[&format!("ls '{}'", cluster.outside().display())]).code, 0);
    let state = b.state_dir().display().to_string();
    let config = b.config_dir().display().to_string();
    for words in [
        format!("ls '{door}'"),
        format!("echo x > '{door}/requests/x.json'"),
        format!("cat '{door}/../order.json'"),
        format!("echo x > '{state}/requests/x.json'"),
        format!("cat '{state}/ledger.db'"),
        format!("cat '{config}/keys/a.key'"),
    ] {
        let ended = as_nobody(&[&words]);
        assert!(ended.code != 0 && ended.err.contains("denied"), "{words}: {ended:?}");
    }
    held.end(&cluster);
}

#[path = "lineage/loops.rs"]
mod loops;

#[path = "lineage/crash.rs"]
mod crash;
