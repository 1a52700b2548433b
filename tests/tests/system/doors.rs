//! Bad input to any command: a clear error with what to do, the exit code of the architecture, nothing half-written.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dispatch_testkit::Cluster;
use dispatch_testkit::cluster::{find, list, names};

use crate::{cluster, note};

/// Everything that lies on the share, by path.
fn on_share(cluster: &Cluster) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![cluster.share()];
    while let Some(dir) = open.pop() {
        for path in list(&dir) {
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_command_has_help_and_a_version() {
    let cluster = cluster();
    for command in ["dispatch-send", "dispatch-watch", "dispatch-exec", "dispatch-ack", "dispatchctl"] {
        let help = cluster.a().run(command, ["--help"]).ok();
        assert!(help.out.contains("Usage"), "{}", help.out);
        assert!(cluster.a().run(command, ["--version"]).ok().out.contains(env!("CARGO_PKG_VERSION")));
        let wrong = cluster.a().run(command, ["--no-such-option"]).code(2);
        assert!(!wrong.err.is_empty() && wrong.out.is_empty());
    }
}

#[test]
fn bad_input_to_send_leaves_nothing_behind() {
    let cluster = cluster();
    let before = on_share(&cluster);
    let big = "x".repeat(1_100_000);
    let cases: [(&[&str], &str, i32); 8] = [
        (&["--to", "nobody"], "echo x", 78),
        (&["--to", "Not A Name"], "echo x", 2),
        (&["--to", "b", "--timeout", "soon"], "echo x", 2),
        (&["--to", "b", "--max-cost", "1e3"], "echo x", 2),
        (&["--to", "b", "--priority", "urgent"], "echo x", 2),
        (&["--to", "b", "--max-attempts", "11"], "echo x", 2),
        (&["--to", "b"], "", 2),
        (&["--to", "b"], &big, 2),
    ];
    for (words, input, code) in cases {
        let mut all = words.to_vec();
        all.push("-");
        let ended = cluster.a().run_with("dispatch-send", all, input.as_bytes());
        assert!(
            ended.code == code || (code == 78 && ended.code == 2),
            "{words:?}: {} {}",
            ended.code,
            ended.err
        );
        assert!(ended.err.contains("error"), "{words:?}: {}", ended.err);
        assert!(ended.out.is_empty(), "{words:?}: {}", ended.out);
    }
    assert_eq!(on_share(&cluster), before, "nothing half-written");
    let outbox = cluster.a().state_dir().join("send");
    assert!(find(&outbox, &|name| name.ends_with(".json") && !name.contains("stream")).is_none());
}

#[test]
fn a_configuration_that_is_wrong_stops_every_command_with_78() {
    let cluster = cluster();
    let file = cluster.b().config_file();
    let good = fs::read_to_string(&file).unwrap();
    for (bad, hint) in [
        (good.replace("[killswitch]", "[killswich]"), "killswitch"),
        (format!("{good}\n[exec]\nmax_paralel = 2\n"), ""),
        ("not toml at all [".to_owned(), ""),
    ] {
        fs::write(&file, bad).unwrap();
        for (command, words) in
            [("dispatch-watch", vec!["--once"]), ("dispatchctl", vec!["status"]), ("dispatch-ack", vec![])]
        {
            let ended = cluster.b().run(command, words).code(78);
            assert!(ended.err.contains("error") && ended.err.contains(hint), "{}", ended.err);
        }
    }
    fs::write(&file, good).unwrap();
    drop(cluster.b().once(&[]).ok());
}

#[test]
fn missing_key_fails_closed() {
    let cluster = cluster();
    cluster.a().send("b", &note(&cluster, "never"), &[]);
    let key = cluster.b().config_dir().join("keys/a.key");
    let text = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let ended = cluster.b().once(&[]);
    assert!(ended.code == 78 || ended.code == 0, "{}", ended.err);
    assert_eq!(cluster.runs.of("never"), 0, "without a key nothing is taken");
    fs::write(&key, b"short").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(cluster.b().once(&[]).code, 78, "a key of 5 characters is none");
    fs::write(&key, &text).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let loose = cluster.b().once(&[]).code(78);
    assert!(loose.err.contains("chmod"), "it says how to mend it: {}", loose.err);
    assert_eq!(cluster.runs.of("never"), 0);
}

#[test]
fn nothing_prints_a_secret() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let secret = cluster.pair("a", "b").0.trim().to_owned();
    let id = cluster.a().send("b", "echo TOP-SECRET-REQUEST > /dev/null", &[]);
    cluster.answered(&id, "ok");
    let mut printed = String::new();
    for (node, words) in [
        (cluster.b(), vec!["status"]),
        (cluster.b(), vec!["status", "--json"]),
        (cluster.b(), vec!["list", "-vv"]),
        (cluster.b(), vec!["audit", "show"]),
        (cluster.a(), vec!["result", &id]),
        (cluster.a(), vec!["init"]),
    ] {
        let ended = node.ctl(words);
        printed += &ended.out;
        printed += &ended.err;
    }
    printed += &fs::read_to_string(cluster.b().log()).unwrap();
    printed += &fs::read_to_string(cluster.share().join("logs/b.jsonl")).unwrap_or_default();
    assert!(!printed.contains(&secret), "a key was printed");
    assert!(!printed.contains("TOP-SECRET-REQUEST"), "a request was printed where nobody asked for it");
    // Key files and the join file are private, and none is on the share.
    for node in [cluster.a(), cluster.b()] {
        for path in list(&node.config_dir().join("keys")) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
        assert_eq!(fs::metadata(node.state_dir()).unwrap().permissions().mode() & 0o007, 0);
    }
    for path in on_share(&cluster) {
        assert!(!fs::read_to_string(&path).unwrap_or_default().contains(&secret), "{path} holds the key");
    }
}

#[test]
fn init_never_overwrites() {
    let cluster = cluster();
    let before = fs::read_to_string(cluster.a().config_file()).unwrap();
    let key = fs::read(cluster.a().config_dir().join("keys/b.key")).unwrap();
    let root = cluster.share().display().to_string();
    let again = cluster.a().ctl(["init", "--root", &root, "--node", "a", "--peer", "b"]);
    assert_ne!(again.code, 70, "{}", again.err);
    assert_eq!(fs::read_to_string(cluster.a().config_file()).unwrap(), before);
    assert_eq!(fs::read(cluster.a().config_dir().join("keys/b.key")).unwrap(), key);
    // Without arguments it adds what is missing on the share.
    fs::remove_dir(cluster.lane("a", "b").join("control")).unwrap();
    drop(cluster.a().ctl(["init"]).ok());
    assert!(cluster.lane("a", "b").join("control").is_dir());
}

#[test]
fn a_task_is_named_by_any_unique_prefix_or_suffix() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", "echo x", &[]);
    cluster.answered(&id, "ok");
    let short = &id[id.len() - 8..];
    drop(cluster.a().ctl(["result", short]).ok());
    drop(cluster.b().ctl(["show", short]).ok());
    drop(cluster.a().ctl(["result", "ffffffff-0000"]).code(66));
    assert_eq!(names(&cluster.lane("a", "b").join("inbox")).len(), 0);
}
