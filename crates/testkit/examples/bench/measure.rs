//! Clocks, floors and what the kernel says of a process.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Samples of one thing, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Takes one.
    pub fn push(&mut self, ms: f64) {
        self.0.push(ms);
    }

    /// The value below which `share` (0 to 1) of them lie.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What the machine itself costs in one directory.
pub struct Floor {
    dir: PathBuf,
    agent: PathBuf,
    /// Write of 1 KiB, fsync, rename, fsync of the directory.
    pub sync: Samples,
    /// Spawn and wait of a program that does nothing.
    pub spawn: Samples,
}

impl Floor {
    /// A floor to be measured in `dir`.
    #[must_use]
    pub fn new(dir: &Path, agent: &Path) -> Self {
        let dir = dir.join("floor");
        fs::create_dir_all(&dir).unwrap();
        Self { dir, agent: agent.to_path_buf(), sync: Samples::default(), spawn: Samples::default() }
    }

    /// Takes one sample of each.
    pub fn sample(&mut self) {
        let start = Instant::now();
        let (new, name) = (self.dir.join("new"), self.dir.join("name"));
        let mut file = File::create(&new).unwrap();
        file.write_all(&[b'x'; 1024]).unwrap();
        file.sync_all().unwrap();
        fs::rename(&new, &name).unwrap();
        File::open(&self.dir).unwrap().sync_all().unwrap();
        self.sync.push(ms(start.elapsed()));
        let start = Instant::now();
        let mut command = Command::new(&self.agent);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
        self.spawn.push(ms(start.elapsed()));
    }

    /// One sync and one spawn.
    #[must_use]
    pub fn both(&self) -> f64 {
        self.sync.median() + self.spawn.median()
    }
}

/// A duration in milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The monotonic clock, in nanoseconds: the same for every process.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// Time a process has had on a processor, all its threads together, in milliseconds.
#[must_use]
pub fn cpu_ms(pid: i32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ns = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    ns.sum::<f64>() / 1e6
}

/// How much memory a process has, or had at most.
#[derive(Clone, Copy)]
pub enum Memory {
    /// Resident now.
    Now,
    /// Resident at most, since it began.
    Peak,
}

/// Resident memory of a process, in MB; none when it has gone.
#[must_use]
pub fn resident_mb(pid: i32, memory: Memory) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let name = match memory {
        Memory::Now => "VmRSS:",
        Memory::Peak => "VmHWM:",
    };
    let kib: f64 =
        status.lines().find_map(|line| line.strip_prefix(name)?.trim().split(' ').next()?.parse().ok())?;
    Some(kib * 1024.0 / 1e6)
}

/// A process is still once it has had no processor for so long.
const STILL: Duration = Duration::from_millis(40);

/// What one burst of work of a process took.
pub struct Burst {
    /// From its beginning to when it was still, in milliseconds.
    pub wall_ms: f64,
    /// On processors, in milliseconds.
    pub cpu_ms: f64,
}

/// Wakes a still process by `wake` and waits until it is still again.
pub fn burst(pid: i32, wake: impl Fn()) -> Burst {
    let (before, start) = (cpu_ms(pid), Instant::now());
    wake();
    let (mut last, mut changed) = (before, Duration::ZERO);
    while start.elapsed() < changed + STILL {
        let now = cpu_ms(pid);
        if now > last {
            (last, changed) = (now, start.elapsed());
        }
    }
    Burst { wall_ms: ms(changed), cpu_ms: last - before }
}

/// The load average.
#[must_use]
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// What this was measured on.
#[must_use]
pub fn machine(dir: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let canonical = fs::canonicalize(dir).unwrap();
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, at, kind, ..] = words.as_slice() else { return None };
            canonical.starts_with(at).then_some((at.len(), *kind))
        })
        .max_by_key(|(length, _)| *length);
    let kind = mount.map_or("unknown", |(_, kind)| kind);
    format!("{cores} cores, Linux {}, {kind}, load average at the start: {}", kernel.trim(), load())
}
