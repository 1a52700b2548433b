//! The two example programs for `[notify]`: what they show and post, and what they refuse.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use dispatch_testkit::Ended;
use dispatch_testkit::bins::write_script;
use serde_json::{Value, json};

const HOSTILE: &str =
    "a \"quoted\" \\ <b>text</b> & `id` $(touch pwned) @everyone\nurl = \"http://127.0.0.1:1/\"";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name)
}

fn document() -> String {
    json!({
        "schema": 1, "kind": "peer_dead", "node": "b", "at": "2026-11-29T10:00:00.000Z", "text": HOSTILE,
        "help": "look after it", "task": null, "from": null, "to": null, "peer": "a", "status": null,
        "first_line": null,
    })
    .to_string()
}

/// A directory for `PATH` with these programs of the system and nothing else.
fn path_of(dir: &Path, names: &[&str]) -> PathBuf {
    let path = dir.join("path");
    fs::create_dir(&path).unwrap();
    for name in names {
        // The system's own first: a version manager's stand-in needs more of an environment than there is here.
        let found = ["/usr/bin".into(), "/bin".into()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap()))
            .map(|dir: PathBuf| dir.join(name))
            .find(|file| file.is_file())
            .unwrap_or_else(|| panic!("{name} is needed here"));
        symlink(fs::canonicalize(found).unwrap(), path.join(name)).unwrap();
    }
    path
}

/// The tools each script uses, with one of the two that read JSON.
const TOOLS: [&str; 6] = ["head", "sed", "stat", "id", "sh", "touch"];

fn run(name: &str, path: &Path, home: &Path, set: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(script(name));
    command.env_clear().env("PATH", path).env("HOME", home).current_dir(home);
    command.envs(set.iter().copied());
    Ended::of(command, document().as_bytes())
}

#[test]
fn the_desktop_example_shows_the_text_and_runs_nothing_of_it() {
    for reader in ["jq", "python3"] {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), &[&TOOLS[..], &[reader]].concat());
        let shown = dir.path().join("shown");
        write_script(
            &path.join("notify-send"),
            &format!("#!/bin/sh\nfor word; do printf '[%s]' \"$word\"; done >'{}'\n", shown.display()),
        );
        drop(run("notify-desktop.sh", &path, dir.path(), &[]).ok());
        let shown = fs::read_to_string(shown).unwrap();
        assert!(
            shown.starts_with("[--app-name=Dispatch][--urgency=critical][--][Dispatch on b: peer dead]["),
            "{shown}"
        );
        assert!(shown.contains("&lt;b&gt;text&lt;/b&gt; &amp; `id` $(touch pwned)"), "{reader}: {shown}");
        assert!(!dir.path().join("pwned").exists(), "{reader}");
    }
}

/// A listener that takes one post; yields its head and its body.
fn listener() -> (u16, JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (head, body) = read_post(&mut stream);
        stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        (head, serde_json::from_slice(&body).expect("a JSON body"))
    });
    (port, served)
}

fn read_post(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let begins = head.len() + 4;
            if bytes.len() >= begins + length.unwrap_or(0) {
                return (head.to_owned(), bytes[begins..].to_vec());
            }
        }
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the post ends early: {text}");
        bytes.extend_from_slice(&chunk[..read]);
    }
}

fn address_file(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let file = dir.join("webhook");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn the_webhook_example_posts_the_text_and_keeps_the_address_out_of_every_argument_list() {
    for reader in ["jq", "python3"] {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), &[&TOOLS[..], &["curl", reader]].concat());
        // A curl in between that writes down what it was called with.
        let (real, called) = (fs::read_link(path.join("curl")).unwrap(), dir.path().join("called"));
        fs::remove_file(path.join("curl")).unwrap();
        write_script(
            &path.join("curl"),
            &format!(
                "#!/bin/sh\nprintf '%s ' \"$@\" >'{}'\nexec '{}' \"$@\"\n",
                called.display(),
                real.display()
            ),
        );
        let (port, served) = listener();
        let file = address_file(
            dir.path(),
            &format!("http://127.0.0.1:{port}/api/webhooks/1/s3cret?wait=true\n"),
            0o600,
        );
        let said =
            run("notify-webhook.sh", &path, dir.path(), &[("NOTIFY_WEBHOOK_FILE", file.to_str().unwrap())]);
        let said = said.ok();
        let (head, body) = served.join().unwrap();
        assert!(head.starts_with("POST /api/webhooks/1/s3cret?wait=true HTTP/1."), "{head}");
        assert_eq!(body["allowed_mentions"], json!({"parse": []}));
        let content = body["content"].as_str().unwrap();
        assert!(
            content.contains(HOSTILE) && content.starts_with("**Dispatch on b: peer dead**"),
            "{reader}: {content}"
        );
        let called = fs::read_to_string(called).unwrap();
        assert!(
            !called.contains("s3cret") && !said.out.contains("s3cret") && !said.err.contains("s3cret"),
            "{called}"
        );
        assert!(!dir.path().join("pwned").exists(), "{reader}");
    }
}

#[test]
fn the_webhook_example_finds_its_address_at_the_usual_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_of(dir.path(), &[&TOOLS[..], &["curl", "python3"]].concat());
    let (port, served) = listener();
    let place = dir.path().join(".config/dispatch");
    fs::create_dir_all(&place).unwrap();
    drop(address_file(&place, &format!("http://127.0.0.1:{port}/hook"), 0o400));
    drop(run("notify-webhook.sh", &path, dir.path(), &[]).ok());
    assert!(served.join().unwrap().0.starts_with("POST /hook "));
}

#[test]
fn the_webhook_example_refuses_an_address_that_is_loose_or_no_address() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_of(dir.path(), &[&TOOLS[..], &["curl", "python3"]].concat());
    for (text, mode, says) in [
        ("https://example.org/hook\n", 0o644, "chmod 600"),
        ("https://example.org/hook\n", 0o660, "chmod 600"),
        ("http://example.org/hook\n", 0o600, "no https://"),
        ("file:///etc/passwd\n", 0o600, "no https://"),
        ("https://example.org/\"\noutput = \"x\n", 0o600, "a character that no address needs"),
        ("https://example.org/ -o x\n", 0o600, "a character that no address needs"),
        ("http://127.0.0.1.example.org/\n", 0o600, "no https://"),
        ("\n", 0o600, "no https://"),
    ] {
        let file = address_file(dir.path(), text, mode);
        let ended =
            run("notify-webhook.sh", &path, dir.path(), &[("NOTIFY_WEBHOOK_FILE", file.to_str().unwrap())]);
        let ended = ended.code(78).says(says);
        assert!(!ended.err.contains("example.org"), "the address is shown: {}", ended.err);
    }
    let missing = dir.path().join("none");
    drop(
        run("notify-webhook.sh", &path, dir.path(), &[("NOTIFY_WEBHOOK_FILE", missing.to_str().unwrap())])
            .code(78),
    );
}
