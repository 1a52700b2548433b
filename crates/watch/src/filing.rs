//! Moving a task's files: what the ledger says stands on the share, done again after a crash until it does.

use std::fs;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::{Digest, Lane};
use dispatch_ledger::{Filed, TaskKey};
use dispatch_spool::layout::File;
use dispatch_spool::share::{ErrorKind, Evidence, Published, SetAside, Share, ShareError, Standing};

/// How much is read of what stands at a name of ours: more than any message may have.
const FOREIGN_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Whether bytes that stand at a name of ours are ours all the same: the same verified payload, sealed another day.
pub(crate) type IsMine = Box<dyn Fn(&[u8]) -> WhatStands + Send>;
/// Whether bytes verify with a key that holds now.
pub(crate) type Holds = Box<dyn Fn(&[u8]) -> bool + Send>;

/// What stands at a name that this node writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhatStands {
    /// My message, whatever key sealed it.
    Mine,
    /// My message for that task, with another content: it stands, and is alarmed (protocol section 1).
    MineButOther,
    /// Somebody else's bytes.
    Foreign,
}

/// A task to be laid where its state says.
pub(crate) struct FileTask {
    pub(crate) key: TaskKey,
    pub(crate) lane: Lane,
    pub(crate) place: Filed,
    pub(crate) envelope: Vec<u8>,
    /// Sealed terms, for a task that waits for a person.
    pub(crate) terms: Option<Vec<u8>>,
}

/// A final task to be answered.
pub(crate) struct AnswerTask {
    pub(crate) key: TaskKey,
    pub(crate) lane: Lane,
    /// The sealed task, as it was received; none for what was refused without being kept.
    pub(crate) envelope: Vec<u8>,
    pub(crate) result: Vec<u8>,
    pub(crate) is_mine: IsMine,
    /// The log of the last attempt.
    pub(crate) log: Log,
}

/// What an attempt printed, as it lies in its job directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// Where; none where nothing was printed.
    pub(crate) path: Option<PathBuf>,
    /// How long it is.
    pub(crate) bytes: u64,
    /// Whose copy may stand on the share.
    pub(crate) mirrors: Mirrors,
}

/// Whose live copies of a log may have been written under a task's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirrors {
    /// Those of one attempt: a copy as long as its log is that log.
    OfOne,
    /// Those of several, and an earlier one's stays where the last one's got lost: no length tells them apart.
    OfSeveral,
}

/// What laying or answering came to.
#[derive(Debug)]
pub(crate) struct Laid {
    pub(crate) key: TaskKey,
    pub(crate) done: Result<Vec<Alarm>, ShareError>,
}

/// Something that a person should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Somebody else's bytes stood at a name of ours, and are evidence now.
    Squatted { file: File },
    /// A result of ours with another content stands there, and stays.
    ResultConflict,
}

/// Publishes an accepted task to where it waits, and removes it from where it came from.
pub(crate) fn lay(share: &dyn Share, task: &FileTask) -> Laid {
    Laid { key: task.key.clone(), done: lay_files(share, task) }
}

fn lay_files(share: &dyn Share, task: &FileTask) -> Result<Vec<Alarm>, ShareError> {
    let (lane, id) = (&task.lane, task.key.id);
    let mut alarms = Vec::new();
    match task.place {
        Filed::PendingAck => {
            if let Some(terms) = &task.terms {
                replace(share, &File::terms(lane, id), terms, &mut alarms)?;
            }
            publish(share, &File::pending(lane, id), &task.envelope, &foreign, &mut alarms)?;
        }
        Filed::Processing => {
            publish(share, &File::processing(lane, id), &task.envelope, &foreign, &mut alarms)?;
            remove(share, &[File::pending(lane, id), File::terms(lane, id)])?;
        }
    }
    clear_taken(share, &File::inbox(lane, id), &task.envelope)?;
    Ok(alarms)
}

/// Publishes a final task's log, its file, and last its result; then removes it from everywhere else.
pub(crate) fn answer(share: &dyn Share, task: &AnswerTask) -> Laid {
    Laid { key: task.key.clone(), done: answer_files(share, task) }
}

fn answer_files(share: &dyn Share, task: &AnswerTask) -> Result<Vec<Alarm>, ShareError> {
    let (lane, id) = (&task.lane, task.key.id);
    let mut alarms = Vec::new();
    let log = File::log(lane, id);
    match (&task.log.path, task.log.mirrors) {
        (Some(path), _) => publish_log(share, &log, path, &task.log, &mut alarms)?,
        (None, Mirrors::OfSeveral) => clear(share, &log)?,
        (None, Mirrors::OfOne) => {}
    }
    let files =
        [(File::done(lane, id), task.envelope.clone()), (File::result(lane, id), task.result.clone())];
    let mut answers = share.publish_many(&files).into_iter();
    settle_publish(share, &files[0], answers.next(), &foreign, &mut alarms)?;
    settle_publish(share, &files[1], answers.next(), &*task.is_mine, &mut alarms)?;
    remove(
        share,
        &[
            File::processing(lane, id),
            File::progress(lane, id),
            File::pending(lane, id),
            File::terms(lane, id),
        ],
    )?;
    clear_taken(share, &File::inbox(lane, id), &task.envelope)?;
    Ok(alarms)
}

/// Removes an inbox file that was taken. Other bytes that came to its name meanwhile stay for the next look, which judges
/// them: the same payload sealed anew, or evidence.
fn clear_taken(share: &dyn Share, file: &File, taken: &[u8]) -> Result<(), ShareError> {
    match share.read(file, FOREIGN_BYTES_MAX) {
        Ok(bytes) if bytes != taken => Ok(()),
        Ok(_) | Err(_) => clear(share, file),
    }
}

/// A log that was mirrored whole stays; else it is written anew. What it should be, the result says.
fn publish_log(
    share: &dyn Share,
    file: &File,
    path: &Path,
    log: &Log,
    alarms: &mut Vec<Alarm>,
) -> Result<(), ShareError> {
    if log.mirrors == Mirrors::OfOne && share.stat(file).is_ok_and(|stat| stat.bytes == log.bytes) {
        return Ok(());
    }
    // A log whose local copy is gone (a day after it was published, or lost with the disk) cannot be written again.
    let Ok(mut local) = fs::File::open(path) else { return Ok(()) };
    match share.copy_out(&mut local, u64::MAX, file) {
        Ok(_) => Ok(()),
        Err(error) if squats(&error) || error.kind == ErrorKind::Io => {
            let evidence = share.set_aside(file, Evidence::Unread)?;
            if evidence == SetAside::Absent {
                return Err(error);
            }
            alarms.push(Alarm::Squatted { file: file.clone() });
            leave_reason(share, &evidence, "squatted")?;
            let Ok(mut local) = fs::File::open(path) else { return Ok(()) };
            share.copy_out(&mut local, u64::MAX, file).map(drop)
        }
        Err(error) => Err(error),
    }
}

fn settle_publish(
    share: &dyn Share,
    (file, bytes): &(File, Vec<u8>),
    first: Option<Result<Published, ShareError>>,
    is_mine: &dyn Fn(&[u8]) -> WhatStands,
    alarms: &mut Vec<Alarm>,
) -> Result<(), ShareError> {
    match first {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) if !squats(&error) => Err(error),
        Some(Err(_)) | None => publish(share, file, bytes, is_mine, alarms),
    }
}

/// Publishes once at a name of ours, and undoes squatting (protocol section 1).
fn publish(
    share: &dyn Share,
    file: &File,
    bytes: &[u8],
    is_mine: &dyn Fn(&[u8]) -> WhatStands,
    alarms: &mut Vec<Alarm>,
) -> Result<(), ShareError> {
    let error = match share.publish_once(file, bytes) {
        Ok(_) => return Ok(()),
        Err(error) if squats(&error) => error,
        Err(error) => return Err(error),
    };
    let standing = share.read(file, FOREIGN_BYTES_MAX).ok();
    match standing.as_deref().map_or(WhatStands::Foreign, is_mine) {
        WhatStands::Mine => return Ok(()),
        WhatStands::MineButOther => {
            alarms.push(Alarm::ResultConflict);
            return Ok(());
        }
        WhatStands::Foreign => {}
    }
    let by = if let ErrorKind::Conflict(Standing::Bytes { digest: Some(digest), .. }) = error.kind {
        Evidence::Bytes(digest)
    } else {
        Evidence::Unread
    };
    alarms.push(Alarm::Squatted { file: file.clone() });
    leave_reason(share, &share.set_aside(file, by)?, "squatted")?;
    share.publish_once(file, bytes).map(drop)
}

/// Replaces a file of ours; whatever cannot be replaced (a directory) is squatting.
fn replace(share: &dyn Share, file: &File, bytes: &[u8], alarms: &mut Vec<Alarm>) -> Result<(), ShareError> {
    match share.replace(file, bytes) {
        Err(error) if squats(&error) || error.kind == ErrorKind::Io => {
            let evidence = share.set_aside(file, Evidence::Unread)?;
            if evidence == SetAside::Absent {
                return Err(error);
            }
            alarms.push(Alarm::Squatted { file: file.clone() });
            leave_reason(share, &evidence, "squatted")?;
            share.replace(file, bytes)
        }
        other => other,
    }
}

/// Replaces a file of this node outside any task; answers its name where somebody else's bytes stood in the way.
pub(crate) fn replace_own(share: &dyn Share, file: &File, bytes: &[u8]) -> Result<Vec<File>, ShareError> {
    let mut alarms = Vec::new();
    replace(share, file, bytes, &mut alarms)?;
    Ok(squatted(alarms))
}

/// Publishes a file of this node outside any task, unless it stands there; answers its name where somebody else's bytes
/// did.
pub(crate) fn keep_own(
    share: &dyn Share,
    file: &File,
    bytes: &[u8],
    is_mine: &dyn Fn(&[u8]) -> WhatStands,
) -> Result<Vec<File>, ShareError> {
    let standing = share.read(file, FOREIGN_BYTES_MAX).ok();
    if standing.as_deref().map(is_mine) == Some(WhatStands::Mine) {
        return Ok(Vec::new());
    }
    let mut alarms = Vec::new();
    publish(share, file, bytes, is_mine, &mut alarms)?;
    Ok(squatted(alarms))
}

/// As [`keep_own`]; where what stands is this node's, but none of the keys that hold now sealed it, it is replaced.
pub(crate) fn keep_sealed(
    share: &dyn Share,
    file: &File,
    bytes: &[u8],
    is_mine: &dyn Fn(&[u8]) -> WhatStands,
    holds: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<File>, ShareError> {
    let standing = share.read(file, FOREIGN_BYTES_MAX).ok();
    let is_old = |standing: &[u8]| is_mine(standing) == WhatStands::Mine && !holds(standing);
    if standing.as_deref().is_some_and(is_old) {
        return replace_own(share, file, bytes);
    }
    keep_own(share, file, bytes, is_mine)
}

/// Moves somebody else's bytes from a name of ours to the evidence.
pub(crate) fn set_aside_squatter(share: &dyn Share, file: &File, by: Evidence) -> Result<(), ShareError> {
    leave_reason(share, &share.set_aside(file, by)?, "squatted")
}

fn squatted(alarms: Vec<Alarm>) -> Vec<File> {
    alarms
        .into_iter()
        .filter_map(|alarm| match alarm {
            Alarm::Squatted { file } => Some(file),
            Alarm::ResultConflict => None,
        })
        .collect()
}

fn squats(error: &ShareError) -> bool {
    matches!(error.kind, ErrorKind::Conflict(_) | ErrorKind::NotRegular(_))
}

fn foreign(_: &[u8]) -> WhatStands {
    WhatStands::Foreign
}

fn remove(share: &dyn Share, files: &[File]) -> Result<(), ShareError> {
    for file in files {
        clear(share, file)?;
    }
    Ok(())
}

/// Removes a file of ours, whatever somebody put in its place.
fn clear(share: &dyn Share, file: &File) -> Result<(), ShareError> {
    match share.remove(file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind == ErrorKind::Absent => Ok(()),
        Err(error) if error.kind == ErrorKind::Unreachable => Err(error),
        // A directory, say: it is no message, and it goes to the evidence.
        Err(_) => leave_reason(share, &share.set_aside(file, Evidence::Unread)?, "not_a_regular_file"),
    }
}

/// A file to be refused without an answer.
pub(crate) struct Refuse {
    pub(crate) file: File,
    /// The digest of its bytes, if they were read.
    pub(crate) digest: Option<Digest>,
    pub(crate) code: &'static str,
}

/// Sets a refused file aside with its reason.
pub(crate) fn refuse(share: &dyn Share, refuse: &Refuse) -> Result<(), ShareError> {
    let by = refuse.digest.map_or(Evidence::Unread, Evidence::Bytes);
    leave_reason(share, &share.set_aside(&refuse.file, by)?, refuse.code)
}

fn leave_reason(share: &dyn Share, set_aside: &SetAside, code: &str) -> Result<(), ShareError> {
    let SetAside::Moved { evidence } = set_aside else { return Ok(()) };
    let Some(reason) = evidence.reason() else { return Ok(()) };
    let text = serde_json::json!({"schema": 1, "code": code, "file": evidence.name()});
    match share.publish_once(&reason, text.to_string().as_bytes()) {
        Ok(_) => Ok(()),
        // Somebody was here before with the same evidence: one reason is enough.
        Err(error) if squats(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes files that said all they had to say: replayed copies, recorded decisions and controls.
pub(crate) fn discard(share: &dyn Share, files: &[File]) -> Result<(), ShareError> {
    remove(share, files)
}
