//! The points at which a command can die, told apart by what it was about to do.
//!
//! A command is run once under `strace` with every call noted that makes something durable, visible or alive. Each of
//! them is a point: killed as that call begins, the command has done everything before it and nothing from it on. So the
//! points of a commit are "right before" it, and the next point is "right after".
//!
//! `strace` counts calls for each thread apart, so a point says whose call it is: the main thread's (followed alone), or
//! that of the one thread that works in some directories (all threads followed, only calls on those directories counted).

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::trace::STEPS;

/// Calls that make a file, or put bytes into it: between them and its sync it may be half there. And the end, which
/// comes after the last of all.
const BESIDE_STEPS: [&str; 3] = ["openat", "write", "exit_group"];

/// Whose calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The main thread's.
    Main,
    /// Those of the thread that moves files in the lanes.
    Lanes,
    /// Those of the thread that writes heartbeats and the audit's copy.
    Root,
}

/// A step of "The path of a task" (architecture), or what is done beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// 1: sealed into the outbox, published, moved to `sent/`.
    Send,
    /// 3, 6, 10: a transaction of the ledger.
    Ledger,
    /// 4: filed in `processing/` or `pending-ack/`, gone from the inbox.
    File,
    /// 5: a decision is published.
    Decide,
    /// 7: the job directory, and the executor's birth.
    Launch,
    /// 8: the lock, `started.json`, the agent's birth.
    Start,
    /// 9: `outcome.json`.
    Outcome,
    /// 11: log, task and result in `done/`.
    Publish,
    /// Becoming the owner, heartbeats, the audit's copy.
    Own,
    /// Anything else.
    Beside,
}

impl Place {
    /// Every place.
    pub const ALL: [Place; 10] = [
        Place::Send,
        Place::Ledger,
        Place::File,
        Place::Decide,
        Place::Launch,
        Place::Start,
        Place::Outcome,
        Place::Publish,
        Place::Own,
        Place::Beside,
    ];

    /// Its step or steps in the architecture's table.
    #[must_use]
    pub const fn step(self) -> &'static str {
        match self {
            Place::Send => "1 seal and publish",
            Place::Ledger => "3, 6, 10 accept, lease, settle",
            Place::File => "4 file",
            Place::Decide => "5 a human decides",
            Place::Launch => "7 launch",
            Place::Start => "8 start",
            Place::Outcome => "9 outcome",
            Place::Publish => "11 publish",
            Place::Own => "- ownership, heartbeats, audit copy",
            Place::Beside => "- other",
        }
    }
}

/// One place to die.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Whose call.
    pub whose: Whose,
    /// The call.
    pub call: String,
    /// Which of that thread's, from 1.
    pub when: u32,
    /// What it did in the counted run.
    pub place: Place,
    /// The call's arguments in the counted run, for messages.
    pub shown: String,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {} ({}: {})", self.whose, self.call, self.when, self.place.step(), self.shown)
    }
}

/// The words that go before a command line so that its calls are written to `log`, with the paths of what they touch.
#[must_use]
pub fn counting(log: &Path) -> Vec<String> {
    let mut words = tracer(&log.display().to_string());
    words.extend(["-f", "-y", "-s", "64", "-e"].map(str::to_owned));
    words.push(format!("trace={},{}", STEPS.join(","), BESIDE_STEPS.join(",")));
    words
}

/// The words that go before a command line so that the command is killed at `point`, on the share `share`.
#[must_use]
pub fn killing(point: &Point, share: &Path) -> Vec<String> {
    signalling(point, share, "SIGKILL")
}

/// As [`killing`], with another signal: one that the command may answer.
#[must_use]
pub fn signalling(point: &Point, share: &Path, signal: &str) -> Vec<String> {
    let mut words = tracer("/dev/null");
    if point.whose != Whose::Main {
        words.push("-f".to_owned());
        for dir in directories(point.whose, share) {
            words.push("-P".to_owned());
            words.push(dir.display().to_string());
        }
    }
    words.push("-e".to_owned());
    words.push(format!("trace={}", point.call));
    words.push("-e".to_owned());
    words.push(format!("inject={}:signal={signal}:when={}", point.call, point.when));
    words
}

/// The tracer is a grandchild, so the command keeps its place as the child of whoever starts it; what it starts itself is
/// let go at its `execve`.
fn tracer(log: &str) -> Vec<String> {
    ["strace", "-D", "-qq", "-b", "execve", "-o", log].map(str::to_owned).to_vec()
}

/// The directories in which `whose` thread works.
fn directories(whose: Whose, share: &Path) -> Vec<PathBuf> {
    let top = ["heartbeats", "logs", "metrics", "tmp"];
    match whose {
        Whose::Main => Vec::new(),
        Whose::Root => top.iter().map(|name| share.join(name)).collect(),
        Whose::Lanes => {
            let mut dirs = Vec::new();
            for lane in crate::cluster::list(share) {
                if crate::cluster::name_of(&lane).contains("-to-") {
                    dirs.extend(crate::cluster::list(&lane).into_iter().filter(|path| path.is_dir()));
                }
            }
            dirs
        }
    }
}

/// Every point of a counted run on the share `share`, in the order in which they came.
///
/// # Panics
/// When the log cannot be read or is empty.
#[must_use]
pub fn points(log: &Path, share: &Path) -> Vec<Point> {
    let text = fs::read_to_string(log).unwrap();
    let lanes = directories(Whose::Lanes, share);
    let root = directories(Whose::Root, share);
    let mut main = None;
    let mut counts: BTreeMap<(String, Whose, String), u32> = BTreeMap::new();
    let (mut points, mut started) = (Vec::new(), false);
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        // The tracer's own start of the command, and its children's, are not the command's calls.
        if !(STEPS.contains(&call) || BESIDE_STEPS.contains(&call)) || call == "execve" {
            main.get_or_insert_with(|| thread.to_owned());
            continue;
        }
        let main = main.get_or_insert_with(|| thread.to_owned());
        let in_any =
            |dirs: &[PathBuf]| dirs.iter().any(|dir| arguments.contains(&format!("<{}>", dir.display())));
        let whose = if thread == main {
            Whose::Main
        } else if in_any(&lanes) {
            Whose::Lanes
        } else if in_any(&root) {
            Whose::Root
        } else {
            continue;
        };
        let count = counts.entry((thread.to_owned(), whose, call.to_owned())).or_insert(0);
        *count += 1;
        let shown: String =
            arguments.replace(&share.display().to_string(), "$SHARE").chars().take(140).collect();
        started |= arguments.contains("/started.json") && arguments.contains("O_CREAT");
        let place = if started && ends(call, arguments) { Place::Outcome } else { place(call, arguments) };
        let point = Point { whose, call: call.to_owned(), when: *count, place, shown };
        // Nothing happens between the writes of one transaction that the next one does not hide.
        let goes_on = call == "pwrite64";
        let before = points.iter_mut().rev().find(|before: &&mut Point| before.whose == whose);
        match before.filter(|before| {
            goes_on && before.call == call && file_of(&before.shown) == file_of(&point.shown)
        }) {
            Some(before) => *before = point,
            None if changes_nothing(call, arguments) => {}
            None => points.push(point),
        }
    }
    assert!(!points.is_empty(), "nothing was counted in {}", log.display());
    points
}

/// The open file that a call is about.
fn file_of(shown: &str) -> &str {
    shown.split(',').next().unwrap_or_default()
}

/// A call that failed left all as it was; so did the birth of a thread, a look into a file, and words to a person.
fn changes_nothing(call: &str, arguments: &str) -> bool {
    let failed = arguments.contains(" = -1 E");
    let thread = call.starts_with("clone") && arguments.contains("CLONE_THREAD");
    let look = call == "openat" && !arguments.contains("O_CREAT");
    let file = file_of(arguments);
    let words = call == "write" && (!file.contains("</") || file.contains(".log>"));
    failed || thread || look || words
}

/// What an executor does in its job directory after the agent's start is its end: the outcome goes there under another
/// name first.
fn ends(call: &str, arguments: &str) -> bool {
    call == "exit_group" || (arguments.contains("/jobs/") && !arguments.contains("/started.json"))
}

fn place(call: &str, arguments: &str) -> Place {
    let holds = |part: &str| arguments.contains(part);
    if holds("/outbox") || holds("/sent") || holds("/send/") {
        Place::Send
    } else if holds("/ledger.db") {
        Place::Ledger
    } else if holds(".ack") {
        Place::Decide
    } else if holds("outcome.json") {
        Place::Outcome
    } else if holds("started.json") || holds("/lock>") || holds("revoked") {
        Place::Start
    } else if holds("/jobs") || holds("order.json") {
        Place::Launch
    } else if holds("/done") || holds(".result.json") {
        Place::Publish
    } else if holds("/processing") || holds("/pending-ack") || holds("/inbox") {
        Place::File
    } else if holds("/heartbeats") || holds("/logs") || holds("watch.lock") {
        Place::Own
    } else if ["clone", "clone3", "vfork"].contains(&call) && !holds("CLONE_THREAD") {
        Place::Launch
    } else {
        Place::Beside
    }
}

/// How many points each place has.
#[must_use]
pub fn by_place(points: &[Point]) -> BTreeMap<Place, usize> {
    let mut counts = BTreeMap::new();
    for point in points {
        *counts.entry(point.place).or_insert(0) += 1;
    }
    counts
}

/// At most `limit` points: as many from every place as it has, as far as that goes, evenly spread in each.
#[must_use]
pub fn sample(points: &[Point], limit: usize) -> Vec<Point> {
    let mut groups: BTreeMap<Place, Vec<&Point>> = BTreeMap::new();
    for point in points {
        groups.entry(point.place).or_default().push(point);
    }
    let mut groups: Vec<Vec<&Point>> = groups.into_values().collect();
    groups.sort_by_key(Vec::len);
    let (mut chosen, mut left) = (Vec::new(), groups.len());
    for group in groups {
        let share = (limit.saturating_sub(chosen.len()) / left.max(1)).min(group.len());
        for index in 0..share {
            // The first and the last among them.
            let at = if share == 1 { 0 } else { index * (group.len() - 1) / (share - 1) };
            chosen.push(group[at].clone());
        }
        left -= 1;
    }
    chosen
}

/// Runs `scenario` at every point, a few at a time, and names all those that it fails at.
///
/// # Panics
/// When it fails at any.
pub fn at_each(points: &[Point], scenario: impl Fn(&Point) + Sync) {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = std::panic::AssertUnwindSafe(|| scenario(point));
            if std::panic::catch_unwind(run).is_err() {
                eprintln!("FAILED when killed at {point}");
                failed.lock().unwrap().push(point.to_string());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(4) {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "fails at {} of {} points:\n{}",
        failed.len(),
        points.len(),
        failed.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
10 fsync(3</s/a-to-b/tmp>) = 0
10 pwrite64(4</h/ledger.db-wal>, \"a\", 24, 0) = 24
10 pwrite64(4</h/ledger.db-wal>, \"b\", 24, 24) = 24
10 fdatasync(4</h/ledger.db-wal>) = 0
10 unlinkat(4</h>, \"b\", 0) = -1 ENOENT (No such file or directory)
11 linkat(5</s/a-to-b/tmp>, \"x\", 6</s/a-to-b/done>, \"y.result.json\", 0) = 0
11 fsync(6</s/a-to-b/done>) = 0
11 fsync(7</elsewhere>) = 0
10 fdatasync(4</h/ledger.db-wal>) = 0
10 clone3({flags=CLONE_VM|CLONE_VFORK}) = 12
10 +++ exited with 0 +++
";

    fn counted() -> Vec<Point> {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path();
        for area in ["a-to-b/tmp", "a-to-b/done", "heartbeats"] {
            fs::create_dir_all(share.join(area)).unwrap();
        }
        let log = share.join("log");
        fs::write(&log, LOG.replace("/s/", &format!("{}/", share.display()))).unwrap();
        points(&log, share)
    }

    #[test]
    fn points_are_counted_for_each_thread_and_told_apart_by_what_they_touch() {
        let seen: Vec<_> =
            counted().into_iter().map(|point| (point.whose, point.call, point.when, point.place)).collect();
        let wanted = [
            (Whose::Main, "fsync", 1, Place::Beside),
            (Whose::Main, "pwrite64", 2, Place::Ledger),
            (Whose::Main, "fdatasync", 1, Place::Ledger),
            (Whose::Lanes, "linkat", 1, Place::Publish),
            (Whose::Lanes, "fsync", 1, Place::Publish),
            (Whose::Main, "fdatasync", 2, Place::Ledger),
            (Whose::Main, "clone3", 1, Place::Launch),
        ];
        assert_eq!(seen, wanted.map(|(whose, call, when, place)| (whose, call.to_owned(), when, place)));
    }

    #[test]
    fn a_sample_holds_every_place() {
        let points = counted();
        assert_eq!(by_place(&sample(&points, 8)).len(), 4);
        assert_eq!(sample(&points, 100).len(), points.len());
    }
}
