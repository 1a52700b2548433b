//! The agents: whether each profile's program is there, on the search path it will get, and whether its version is run.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::Name;
use dispatch_node::agents::{CLAUDE_PROGRAM, OLDEST, UNKNOWN_FROM, Version, find_program, search_path};
use dispatch_node::config::{AgentKind, Config, Profile};

use super::Sheet;

/// How long a program may take to say its version.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;

pub(super) fn agents(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    for (name, profile) in &config.profiles {
        of_profile(&mut sheet, name, profile);
    }
    if config.profiles.is_empty() {
        sheet.ok("agents", "no profile: nothing is run here");
    }
    sheet
}

fn of_profile(sheet: &mut Sheet, name: &Name, profile: &Profile) {
    let kind = profile.agent.as_str();
    let program = match (profile.argv.first(), profile.agent) {
        (Some(program), _) => program.clone(),
        (None, AgentKind::Claude) => CLAUDE_PROGRAM.to_owned(),
        (None, AgentKind::Codex | AgentKind::Gemini | AgentKind::Command) => kind.to_owned(),
    };
    let path = search_path(&profile.set);
    let Some(file) = find_program(&program, &path) else {
        sheet.failed(
            "agents",
            format!("profile `{name}` ({kind}): `{program}` is not on the path {}", path.display()),
            "install it, or write its absolute path into `argv`; the watcher's own PATH counts, not your shell's",
        );
        return;
    };
    match profile.agent {
        AgentKind::Command => {
            sheet.ok("agents", format!("profile `{name}` ({kind}): {}", file.display()));
        }
        AgentKind::Claude => claude(sheet, name, &file, profile),
        AgentKind::Codex | AgentKind::Gemini => sheet.warning(
            "agents",
            format!("profile `{name}`: agents of kind `{kind}` are not run by this release"),
            "use agent = \"command\" or \"claude\"",
        ),
    }
}

fn claude(sheet: &mut Sheet, name: &Name, file: &Path, profile: &Profile) {
    let shown = format!("profile `{name}` (claude): {}", file.display());
    let Some(answer) = version_of(file, profile) else {
        sheet.failed(
            "agents",
            format!("{shown} does not say its version"),
            format!("run it by hand: {} --version", file.display()),
        );
        return;
    };
    match Version::parse(&answer) {
        None => sheet.warning(
            "agents",
            format!("{shown} says a version that cannot be read: {answer}"),
            format!("install a version from {OLDEST} on, below {UNKNOWN_FROM}"),
        ),
        Some(version) if version.is_too_old() => sheet.failed(
            "agents",
            format!("{shown} is {answer}, and {OLDEST} is the oldest that is run"),
            "install a newer one: older ones read files that a request names with `@`",
        ),
        Some(version) if version.is_unknown() => sheet.warning(
            "agents",
            format!("{shown} is {answer}, and nothing is known of versions from {UNKNOWN_FROM} on"),
            format!("try it with care, or install a version below {UNKNOWN_FROM}"),
        ),
        Some(_) => sheet.ok("agents", format!("{shown}, version {answer}")),
    }
}

/// The first line that `--version` prints; `None` when it fails or takes too long.
fn version_of(file: &Path, profile: &Profile) -> Option<String> {
    let mut command = Command::new(file);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("PATH", search_path(&profile.set)).envs(&profile.set);
    let mut child = command.spawn().ok()?;
    let out = child.stdout.take()?;
    let answer = thread::spawn(move || {
        let mut text = String::new();
        out.take(ANSWER_BYTES_MAX).read_to_string(&mut text).ok().map(|_| text)
    });
    let ended = wait(&mut child)?;
    let text = answer.join().ok()??;
    let first = text.lines().next().unwrap_or_default().trim().to_owned();
    (ended && !first.is_empty()).then_some(first)
}

/// Whether it ended well; `None` when it had to be ended.
fn wait(child: &mut Child) -> Option<bool> {
    let begun = Instant::now();
    while begun.elapsed() < ANSWER_WITHIN {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) => thread::sleep(PAUSE),
            Err(_) => return None,
        }
    }
    // Gone already is what was wanted.
    child.kill().unwrap_or_default();
    drop(child.wait());
    None
}

/// True where a file can be opened for reading by this user.
pub(super) fn readable(path: &Path) -> bool {
    File::open(path).is_ok()
}
