//! Processes of a scenario: how they ended, and which are still there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// What was run, for messages.
    pub shown: String,
    /// Exit code; 128 + signal when a signal ended it, as a shell says it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Runs `command` to its end, its standard input `input`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn of(mut command: Command, input: &[u8]) -> Self {
        use std::io::Write as _;
        let shown = shown(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|why| panic!("cannot start {shown}: {why}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // A command that does not read its input closes the pipe early: no failure of the test.
            drop(stdin.write_all(&input));
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Self::from_output(shown, &output)
    }

    pub(crate) fn from_output(shown: String, output: &Output) -> Self {
        Self {
            shown,
            code: code_of(output.status),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Itself, when it ended with 0.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Itself, when it ended with `code`.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n--- stdout\n{}\n--- stderr\n{}", self.shown, self.out, self.err);
        self
    }

    /// Itself, when its standard error holds `text`.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{} does not say `{text}`:\n{}", self.shown, self.err);
        self
    }
}

/// The exit code of a process as a shell says it.
#[must_use]
pub fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// The processes whose environment or command line holds `needle`, this one apart.
#[must_use]
pub fn holding(needle: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
        .filter(|name| {
            let process = Path::new("/proc").join(name);
            file_holds(&process.join("environ"), needle) || file_holds(&process.join("cmdline"), needle)
        })
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// Whether `pid` is there and not a zombie.
#[must_use]
pub fn alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Kills `pid`, if it is still there.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Gone already is what was wanted.
        kill_process(pid, Signal::KILL).ok();
    }
}

/// The command line of `pid`, its words separated by spaces; empty when it is gone.
#[must_use]
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn file_holds(path: &Path, needle: &str) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
}
