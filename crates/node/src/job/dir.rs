//! The directory itself.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_core::protocol::names::{NodeName, TaskId};

use super::door::AgentDoor;
use super::files::{Order, Outcome, Progress, Started, Stop};
use super::lock::{Locked, acquire};
use super::meter::NearCeiling;
use super::store::{self, JobError, Keep};

/// The directory of a lease, its task's and its sender's: those that hold a new name for every task.
const LEVELS_SYNCED: usize = 3;

/// Whether a file that only has to exist is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Presence {
    /// It is there, whatever it holds.
    Present,
    /// It is not.
    Absent,
}

/// The job directory of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobDir {
    path: PathBuf,
    from: NodeName,
    id: TaskId,
    epoch: u64,
}

/// The job directories below a state directory, and what else lies there.
#[derive(Debug, Default)]
pub struct JobListing {
    /// Job directories, by path.
    pub jobs: Vec<JobDir>,
    /// Names that no job directory has; they are left alone.
    pub strange: Vec<PathBuf>,
}

impl JobDir {
    /// Where the directory of a lease is: `<state>/jobs/<from>/<id>/<epoch>`.
    #[must_use]
    pub fn at(state: &Path, from: &NodeName, id: TaskId, epoch: u64) -> JobDir {
        let path = state.join("jobs").join(from.as_str()).join(id.to_string()).join(epoch.to_string());
        JobDir { path, from: from.clone(), id, epoch }
    }

    /// The directory that a path names by its last three parts.
    ///
    /// # Errors
    /// The path does not end like one of a job directory, or there is no directory.
    pub fn open(path: &Path) -> Result<JobDir, JobError> {
        let io = |source| JobError::Io { op: "open", path: path.to_owned(), source };
        let job = JobDir::named(path).ok_or_else(|| io(io::ErrorKind::InvalidInput.into()))?;
        let kind = fs::symlink_metadata(path).map_err(io)?;
        if kind.is_dir() { Ok(job) } else { Err(io(io::ErrorKind::NotADirectory.into())) }
    }

    fn named(path: &Path) -> Option<JobDir> {
        let mut parts = path.components().rev().map(|part| part.as_os_str().to_str());
        let epoch_text = parts.next()??;
        let id = TaskId::parse_any_version(parts.next()??).ok()?;
        let from = NodeName::new(parts.next()??).ok()?;
        let epoch: u64 = epoch_text.parse().ok()?;
        (epoch.to_string() == epoch_text).then(|| JobDir { path: path.to_owned(), from, id, epoch })
    }

    /// Makes the directory of a lease, with its order and the request. Once this returns, the executor may be spawned; what
    /// is below the sender's directory is synced by [`JobDir::write_started`], because before that nothing hangs on it: a
    /// lease whose directory a power cut takes came to no start. The request needs no sync: an attempt is never continued
    /// after a power cut.
    ///
    /// # Errors
    /// The disk fails, or the directory is there already (none is reused). What was made of it is then left for a later
    /// [`JobDir::remove`].
    pub fn create(state: &Path, order: &Order, request: &[u8]) -> Result<JobDir, JobError> {
        let job = JobDir::at(state, &order.from, order.task, order.epoch);
        let order_path = job.order_path();
        let bytes = store::encode(&order_path, order)?;
        for changed in make_parents(&job.path)? {
            store::sync_dir(&changed)?;
        }
        make_dir(&job.path)?;
        if order.token.is_some() {
            AgentDoor::of(&job).directories().iter().try_for_each(|dir| make_dir(dir))?;
        }
        drop(store::create_new(&job.file("stdin"), request)?);
        // Written in place: nobody reads it before the executor is spawned.
        drop(store::create_new(&order_path, &bytes)?);
        Ok(job)
    }

    /// The directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sender of the task.
    #[must_use]
    pub const fn from(&self) -> &NodeName {
        &self.from
    }

    /// The task.
    #[must_use]
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// The lease's fencing number.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn order_path(&self) -> PathBuf {
        self.file("order.json")
    }

    /// Where the agent's output goes.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.file("log")
    }

    /// Where the request's bytes are.
    #[must_use]
    pub fn stdin_path(&self) -> PathBuf {
        self.file("stdin")
    }

    /// The agent's working directory where the order names none.
    #[must_use]
    pub fn work_path(&self) -> PathBuf {
        self.file("work")
    }

    /// Where the agent asks for child tasks.
    #[must_use]
    pub fn door_path(&self) -> PathBuf {
        self.file("door")
    }

    /// Tries the lock until it is held or `wait` is over; never longer than [`super::LOCK_WAIT_MS_MAX`].
    ///
    /// # Errors
    /// The disk fails.
    pub fn try_lock(&self, wait: Duration) -> Result<Locked, JobError> {
        acquire(&self.file("lock"), wait)
    }

    /// The order.
    ///
    /// # Errors
    /// The disk fails, or the file is not valid, or there is none.
    pub fn read_order(&self) -> Result<Order, JobError> {
        let path = self.order_path();
        store::read(&path)?.ok_or_else(|| JobError::io("open", &path)(io::ErrorKind::NotFound.into()))
    }

    /// Whether `revoked` is there: then no executor starts anything here any more.
    ///
    /// # Errors
    /// The disk fails.
    pub fn revoked(&self) -> Result<Presence, JobError> {
        self.presence("revoked")
    }

    /// Whether `started.json` is there, whatever it holds: an agent may have been started. This, not
    /// [`JobDir::read_started`], is what decides.
    ///
    /// # Errors
    /// The disk fails.
    pub fn started(&self) -> Result<Presence, JobError> {
        self.presence("started.json")
    }

    /// Whether `outcome.json` is there, whatever it holds.
    ///
    /// # Errors
    /// The disk fails.
    pub fn outcome(&self) -> Result<Presence, JobError> {
        self.presence("outcome.json")
    }

    /// `started.json`, or `None`.
    ///
    /// # Errors
    /// The disk fails, or the file is not valid.
    pub fn read_started(&self) -> Result<Option<Started>, JobError> {
        store::read(&self.file("started.json"))
    }

    /// `stop.json`, or `None`.
    ///
    /// # Errors
    /// The disk fails, or the file is not valid.
    pub fn read_stop(&self) -> Result<Option<Stop>, JobError> {
        store::read(&self.file("stop.json"))
    }

    /// `progress.json`, or `None`.
    ///
    /// # Errors
    /// The disk fails, or the file is not valid.
    pub fn read_progress(&self) -> Result<Option<Progress>, JobError> {
        store::read(&self.file("progress.json"))
    }

    /// `near_ceiling.json`, or `None`.
    ///
    /// # Errors
    /// The disk fails, or the file is not valid.
    pub fn read_near_ceiling(&self) -> Result<Option<NearCeiling>, JobError> {
        store::read(&self.file("near_ceiling.json"))
    }

    /// `outcome.json`, or `None`.
    ///
    /// # Errors
    /// The disk fails, or the file is not valid.
    pub fn read_outcome(&self) -> Result<Option<Outcome>, JobError> {
        store::read(&self.file("outcome.json"))
    }

    /// Writes `started.json` and syncs it, the order, and the directories that lead to both. They are synced at the same
    /// time, so that a file system with a journal needs one commit for all: this is on the way of every task to its agent.
    ///
    /// # Errors
    /// The disk fails; then no agent may be started.
    pub fn write_started(&self, started: &Started) -> Result<(), JobError> {
        let path = self.file("started.json");
        let bytes = store::encode(&path, started)?;
        // Written in place: it counts by being there.
        let file = store::create_new(&path, &bytes)?;
        let above = self.path.ancestors().take(LEVELS_SYNCED).map(Path::to_owned);
        store::sync_together(&file, &path, &[self.order_path()].into_iter().chain(above).collect::<Vec<_>>())
    }

    /// Writes and syncs `stop.json`. `killed` may follow `cancelled`; the executor then uses the short ladder.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_stop(&self, stop: &Stop) -> Result<(), JobError> {
        store::replace(&self.file("stop.json"), stop, Keep::Synced)
    }

    /// Replaces `progress.json`, unsynced.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_progress(&self, progress: &Progress) -> Result<(), JobError> {
        store::replace(&self.file("progress.json"), progress, Keep::Unsynced)
    }

    /// Writes and syncs `near_ceiling.json`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_near_ceiling(&self, near: &NearCeiling) -> Result<(), JobError> {
        store::replace(&self.file("near_ceiling.json"), near, Keep::Synced)
    }

    /// Writes and syncs `outcome.json`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_outcome(&self, outcome: &Outcome) -> Result<(), JobError> {
        store::replace(&self.file("outcome.json"), outcome, Keep::Synced)
    }

    /// Writes and syncs `revoked`; only the holder of the lock may call it. Again is harmless.
    ///
    /// # Errors
    /// The disk fails.
    pub fn revoke(&self) -> Result<(), JobError> {
        store::replace_bytes(&self.file("revoked"), b"", Keep::Synced)
    }

    /// All job directories of a state directory, by path.
    ///
    /// # Errors
    /// The disk fails. No `jobs/` at all is an empty listing.
    pub fn list(state: &Path) -> Result<JobListing, JobError> {
        let mut listing = JobListing::default();
        for from in entries(&state.join("jobs"))? {
            for task in entries(&from)? {
                for epoch in entries(&task)? {
                    match JobDir::named(&epoch) {
                        Some(job) if is_dir(&epoch)? => listing.jobs.push(job),
                        _ => listing.strange.push(epoch),
                    }
                }
            }
        }
        Ok(listing)
    }

    /// Removes the directory with everything in it, what an agent left in `work/` included, and the task's directory with
    /// its last attempt. Absent is done.
    ///
    /// # Errors
    /// The disk fails, or something in it cannot be removed.
    pub fn remove(&self) -> Result<(), JobError> {
        let io = JobError::io("remove", &self.path);
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(&self.path)?;
                fs::remove_dir_all(&self.path).map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        }
        if let Some(task) = self.path.parent() {
            // Another attempt's directory keeps it.
            drop(fs::remove_dir(task));
        }
        Ok(())
    }

    fn presence(&self, name: &str) -> Result<Presence, JobError> {
        let path = self.file(name);
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(Presence::Present),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Presence::Absent),
            Err(error) => Err(JobError::io("look at", &path)(error)),
        }
    }
}

fn make_dir(path: &Path) -> Result<(), JobError> {
    DirBuilder::new().mode(0o700).create(path).map_err(JobError::io("create", path))
}

/// Makes what is missing above `path`, and answers the directories above the sender's whose own listing changed.
fn make_parents(path: &Path) -> Result<Vec<PathBuf>, JobError> {
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    for dir in missing.iter().rev() {
        match make_dir(dir) {
            Err(JobError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    let changed = path.ancestors().take(missing.len().saturating_add(2)).skip(LEVELS_SYNCED);
    Ok(changed.map(Path::to_owned).collect())
}

/// The entries of a directory by name; none where it is absent or something else than a directory.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, JobError> {
    let listed = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(JobError::io("list", dir))?,
    };
    let mut found = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(JobError::io("list", dir))?;
    found.sort();
    Ok(found)
}

fn is_dir(path: &Path) -> Result<bool, JobError> {
    Ok(fs::symlink_metadata(path).map_err(JobError::io("look at", path))?.is_dir())
}

/// Gives the owner back the rights on directories that an agent closed, without following links.
fn open_up(dir: &Path) -> Result<(), JobError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(JobError::io("open up", dir))?;
    for entry in entries(dir)? {
        if is_dir(&entry)? {
            open_up(&entry)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
