//! The house keeps its floors: which crate may depend on which, and what the sources may not hold.
//!
//! Reads `cargo metadata`, `cargo tree` and the sources of this workspace; builds and runs nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines of a source file, its tests not counted (house rules, "Sizes").
const FILE_LINES_MAX: usize = 800;

/// Who may name whom: floor 3 and the doors above it down to the pure middle.
const ARROWS: &[(&str, &[&str])] = &[
    ("dispatch-core", &[]),
    ("dispatch-spool", &["dispatch-core"]),
    ("dispatch-ledger", &["dispatch-core"]),
    ("dispatch-node", &["dispatch-core", "dispatch-spool", "dispatch-ledger"]),
    ("dispatch-send", &["dispatch-core", "dispatch-spool", "dispatch-node"]),
    ("dispatch-ack", &["dispatch-core", "dispatch-spool", "dispatch-node"]),
    ("dispatch-exec", &["dispatch-core", "dispatch-spool", "dispatch-node"]),
    // The other commands for their command lines alone: see `dispatchctl_knows_of_the_other_commands_…`.
    (
        "dispatch-ctl",
        &[
            "dispatch-core",
            "dispatch-spool",
            "dispatch-ledger",
            "dispatch-node",
            "dispatch-send",
            "dispatch-ack",
            "dispatch-watch",
            "dispatch-exec",
        ],
    ),
    ("dispatch-watch", &["dispatch-core", "dispatch-spool", "dispatch-ledger", "dispatch-node"]),
];

#[test]
fn arrows_point_down_only() {
    let metadata = metadata();
    for (from, allowed) in ARROWS {
        let named: BTreeSet<String> = normal_dependencies(&metadata, from)
            .into_iter()
            .filter(|to| to.starts_with("dispatch-"))
            .collect();
        let allowed: BTreeSet<String> = allowed.iter().map(ToString::to_string).collect();
        let upward: Vec<_> = named.difference(&allowed).collect();
        assert!(upward.is_empty(), "{from} may not depend on {upward:?}");
    }
}

#[test]
fn the_core_depends_on_nothing_that_reads_the_world() {
    let tree = tree("dispatch-core");
    for banned in [
        "rustix",
        "notify",
        "rusqlite",
        "tokio",
        "tracing",
        "clap",
        "signal-hook",
        "tempfile",
        "iana-time-zone",
        "log",
    ] {
        assert!(!tree.contains(banned), "dispatch-core depends on {banned}");
    }
    // Randomness comes in below ssh-key, which cannot be had without; the core itself must not name it.
    let named = normal_dependencies(&metadata(), "dispatch-core");
    for banned in ["getrandom", "rand", "rand_core", "libc"] {
        assert!(!named.contains(banned), "dispatch-core names {banned}");
    }
}

#[test]
fn hints_come_from_the_spool_and_truth_from_the_ledger_alone() {
    let metadata = metadata();
    for (library, home) in [("notify", "dispatch-spool"), ("rusqlite", "dispatch-ledger")] {
        for package in shipped(&metadata) {
            let named = normal_dependencies(&metadata, &package).contains(library);
            assert!(!named || package == home, "{package} depends on {library}, which belongs to {home}");
        }
    }
}

#[test]
fn no_command_carries_an_async_runtime() {
    for (package, _) in ARROWS {
        assert!(!tree(package).contains("tokio"), "{package} carries tokio");
    }
}

#[test]
fn send_ack_and_exec_never_open_the_ledger() {
    for package in ["send", "ack", "exec"] {
        for source in sources(&root().join("crates").join(package)) {
            assert!(!source.text.contains("dispatch_ledger"), "{} names the ledger", source.shown());
        }
    }
    // What they share with the others may not hand it to them either.
    for source in sources(&root().join("crates/node")) {
        assert!(!source.shipped().contains("dispatch_ledger::Ledger"), "{} opens the ledger", source.shown());
    }
}

/// It makes their pages and completions; whatever else it did with them would be a second way in.
#[test]
fn dispatchctl_knows_of_the_other_commands_their_command_lines_alone() {
    for source in sources(&root().join("crates/ctl")) {
        for door in ["send", "ack", "watch", "exec"] {
            let named = source.text.matches(&format!("dispatch_{door}::")).count();
            let allowed = source.text.matches(&format!("dispatch_{door}::command()")).count();
            assert_eq!(named, allowed, "{} uses dispatch-{door}", source.shown());
            assert!(!source.text.contains(&format!("use dispatch_{door}")), "{}", source.shown());
        }
    }
}

#[test]
fn every_shipped_crate_obeys_the_lints_of_the_workspace() {
    for manifest in shipped_members() {
        let text = std::fs::read_to_string(manifest.join("Cargo.toml")).unwrap();
        assert!(
            text.replace(char::is_whitespace, "").contains("[lints]workspace=true"),
            "{} has lints of its own",
            manifest.display()
        );
    }
}

#[test]
fn no_source_file_is_a_dumping_ground() {
    let long: Vec<String> = shipped_sources()
        .filter_map(|source| {
            let lines = source.shipped().lines().count();
            (lines > FILE_LINES_MAX).then(|| format!("{} has {lines} lines", source.shown()))
        })
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn exceptions_from_lints_are_expected_with_a_reason() {
    for source in shipped_sources() {
        for (number, line) in source.text.lines().enumerate() {
            let attribute = line.trim_start();
            assert!(
                !attribute.starts_with("#[allow") && !attribute.starts_with("#![allow"),
                "{}:{} allows where it must expect",
                source.shown(),
                number + 1
            );
        }
    }
}

#[test]
fn only_the_node_crate_reads_the_environment() {
    for source in shipped_sources() {
        if source.path.starts_with(root().join("crates/node"))
            || source.path.starts_with(root().join("crates/testkit"))
        {
            continue;
        }
        for word in ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("] {
            assert!(!source.shipped().contains(word), "{} reads the environment ({word})", source.shown());
        }
    }
}

#[test]
fn shipped_code_holds_no_switch_for_tests() {
    for source in shipped_sources() {
        for word in ["cfg!(test)", "cfg(not(test))", "feature = \"test", "feature = \"fault", "DISPATCH_TEST"]
        {
            assert!(!source.text.contains(word), "{} holds {word}", source.shown());
        }
    }
}

/// The directory of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The directories of the crates that are shipped: tests and their kit have a shorter list of lints.
fn shipped_members() -> Vec<PathBuf> {
    let crates = std::fs::read_dir(root().join("crates")).unwrap();
    crates.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("testkit")).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn metadata() -> Value {
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"])).unwrap()
}

fn shipped(metadata: &Value) -> Vec<String> {
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| package["name"].as_str().unwrap().to_owned())
        .collect()
}

/// What `package` names under `[dependencies]`.
fn normal_dependencies(metadata: &Value, package: &str) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let found =
        packages.iter().find(|one| one["name"] == package).unwrap_or_else(|| panic!("no package {package}"));
    found["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Everything that ends up in `package` as shipped.
fn tree(package: &str) -> BTreeSet<String> {
    let text =
        cargo(&["tree", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    text.lines().filter_map(|line| line.split_whitespace().next()).map(ToOwned::to_owned).collect()
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn shown(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    /// The text before the file's own tests.
    fn shipped(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod ").next().unwrap_or("")
    }
}

fn shipped_sources() -> impl Iterator<Item = Source> {
    sources(&root().join("crates")).into_iter()
}

/// Every Rust file of a `src` directory below `dir`, files that hold nothing but tests apart.
fn sources(dir: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "tests", "benches"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if name.ends_with(".rs")
                && !name.ends_with("tests.rs")
                && path.components().any(|c| c.as_os_str() == "src")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {}", dir.display());
    found
}
