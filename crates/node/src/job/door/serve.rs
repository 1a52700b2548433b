//! The watcher's side of an agent's door.
//!
//! Every directory is opened without following links, and everything is done relative to that handle: an agent that
//! plants a link redirects neither reads nor writes. What is no regular file is never waited for.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::{TaskId, canonical_uuid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use uuid::Uuid;

use super::super::dir::JobDir;
use super::words::{ChildAnswer, ChildRequest, NotAChildRequest, decode_request};
use super::{CLOSED, OFFERED, REPLIES, REPLY_BYTES_MAX, REQUEST_FILE_BYTES_MAX, REQUESTS, RESULTS, TAKEN};
use crate::files::FileError;

/// Entries of the directory that are looked at in one pass. An agent that lays more of its own there keeps its own
/// requests from being found, nobody else's.
const LISTED_MAX: usize = 1_024;

/// A request that was taken: its asker waits for a reply and can no longer take it back.
#[derive(Debug)]
pub struct ChildClaim {
    /// The id in its file's name.
    pub id: Uuid,
    /// What it asks, or why it cannot be read: answer `malformed`.
    pub request: Result<ChildRequest, UnreadableChild>,
}

/// What a look at a door took.
#[derive(Debug, Default)]
pub struct Claims {
    /// Requests, those taken before first.
    pub claimed: Vec<ChildClaim>,
    /// More lie there than were to be taken.
    pub more: bool,
}

/// A request that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableChild {
    /// Its file cannot be, or is too long, or no regular file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It says something else.
    #[error("the request is not of its form")]
    Words(#[from] NotAChildRequest),
}

/// The door of one attempt, as its watcher has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDoor {
    path: PathBuf,
}

impl AgentDoor {
    /// The door in a job directory; nothing is touched.
    #[must_use]
    pub fn of(job: &JobDir) -> AgentDoor {
        AgentDoor { path: job.door_path() }
    }

    /// The directories of a door, its own first.
    pub(in crate::job) fn directories(&self) -> [PathBuf; 4] {
        let below = |name| self.path.join(name);
        [self.path.clone(), below(REQUESTS), below(REPLIES), below(RESULTS)]
    }

    /// Where requests appear: worth a hint when it changes.
    #[must_use]
    pub fn requests_dir(&self) -> PathBuf {
        self.path.join(REQUESTS)
    }

    /// Takes at most `max` of the requests that wait, those that a watcher took and did not answer first. A door that is
    /// closed, or never was, has none.
    ///
    /// # Errors
    /// The directory is there and cannot be listed.
    pub fn claim(&self, max: usize) -> Result<Claims, FileError> {
        let Some(dir) = self.open(REQUESTS)? else { return Ok(Claims::default()) };
        let path = self.requests_dir();
        let mut names = requests_in(&dir).map_err(error("list", &path))?;
        // Taken before offered, else by name; an offered one whose id was taken is the same request twice.
        names.sort_unstable_by_key(|(id, is_taken)| (!is_taken, *id));
        let more = names.len() > max;
        let mut claims = Claims { claimed: Vec::new(), more };
        for (id, is_taken) in names.into_iter().take(max) {
            if is_taken || take(&dir, id) {
                claims.claimed.push(ChildClaim { id, request: read_request(&dir, &path, id) });
            }
        }
        Ok(claims)
    }

    /// Answers a request; then it goes.
    ///
    /// # Errors
    /// The reply cannot be written; the request is then still there and comes again.
    pub fn reply(&self, id: Uuid, answer: &ChildAnswer) -> Result<(), FileError> {
        let path = self.path.join(REPLIES);
        let text = answer.to_text(id).map_err(io::Error::other).map_err(FileError::of("write", &path))?;
        self.put(REPLIES, &file_name(id, OFFERED), text.as_bytes())?;
        self.forget(id)
    }

    /// Lets a request go that is not answered.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(&self, id: Uuid) -> Result<(), FileError> {
        let Some(dir) = self.open(REQUESTS)? else { return Ok(()) };
        remove(&dir, &file_name(id, TAKEN)).map_err(error("remove a request in", &self.requests_dir()))
    }

    /// Puts the payload of a child's result, verified, where its agent waits for it. The same again is harmless.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_result(&self, child: TaskId, payload: &[u8]) -> Result<(), FileError> {
        self.put(RESULTS, &format!("{child}.{OFFERED}"), payload)
    }

    /// True where something lies at the name of a child's result.
    ///
    /// # Errors
    /// The directory cannot be looked at.
    pub fn has_result(&self, child: TaskId) -> Result<bool, FileError> {
        let Some(dir) = self.open(RESULTS)? else { return Ok(false) };
        match statat(&dir, format!("{child}.{OFFERED}"), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(error("look into", &self.path.join(RESULTS))(errno)),
        }
    }

    /// Closes the door: whoever asks from now on finds no place to ask at. Again is harmless.
    ///
    /// # Errors
    /// The requests cannot be moved away.
    pub fn close(&self) -> Result<(), FileError> {
        let Some(door) = self.open_door()? else { return Ok(()) };
        match renameat(&door, REQUESTS, &door, CLOSED) {
            // Where something of the agent's own lies there, the requests stay where they are, and nobody looks at them.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(error("close", &self.path)(errno)),
        }
    }

    /// Writes a whole file into one of the door's directories. It is not synced: an attempt does not outlive a power cut.
    fn put(&self, place: &str, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let path = self.path.join(place);
        let dir = self.open(place)?.ok_or_else(|| error("open", &path)(Errno::NOENT))?;
        let unique =
            crate::ids::uuid_v4().map_err(io::Error::other).map_err(FileError::of("write into", &path))?;
        let temporary = format!(".tmp.{}", unique.simple());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            openat(&dir, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(error("write into", &path))?;
        let written = File::from(made)
            .write_all(bytes)
            .and_then(|()| renameat(&dir, &temporary, &dir, name).map_err(io::Error::from));
        written.map_err(|source| {
            // The first failure is the one to report.
            unlinkat(&dir, &temporary, AtFlags::empty()).ok();
            FileError { op: "write into", path, source }
        })
    }

    fn open_door(&self) -> Result<Option<OwnedFd>, FileError> {
        opened(openat(rustix::fs::CWD, &self.path, directory(), Mode::empty()), &self.path)
    }

    fn open(&self, place: &str) -> Result<Option<OwnedFd>, FileError> {
        let Some(door) = self.open_door()? else { return Ok(None) };
        opened(openat(&door, place, directory(), Mode::empty()), &self.path.join(place))
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn error<'a>(op: &'static str, path: &'a Path) -> impl Fn(Errno) -> FileError + 'a {
    move |errno| FileError { op, path: path.to_owned(), source: errno.into() }
}

/// What is no directory, a link to one included, is no door.
fn opened(dir: Result<OwnedFd, Errno>, path: &Path) -> Result<Option<OwnedFd>, FileError> {
    match dir {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(error("open", path)(errno)),
    }
}

fn file_name(id: Uuid, kind: &str) -> String {
    format!("{id}.{kind}")
}

/// The requests in a directory, each id once, and whether it was taken already. Other names are the agent's own.
fn requests_in(dir: &OwnedFd) -> Result<Vec<(Uuid, bool)>, Errno> {
    let mut found: std::collections::BTreeMap<Uuid, bool> = std::collections::BTreeMap::new();
    for entry in rustix::fs::Dir::read_from(dir)?.take(LISTED_MAX) {
        let entry = entry?;
        let Some((id, kind)) = entry.file_name().to_str().ok().and_then(request_name) else { continue };
        // A directory could neither be read nor removed: it is no request.
        let is_directory = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        if !is_directory {
            let is_taken = found.entry(id).or_default();
            *is_taken |= kind == TAKEN;
        }
    }
    Ok(found.into_iter().collect())
}

fn request_name(name: &str) -> Option<(Uuid, &str)> {
    let (id, kind) = name.split_once('.')?;
    let id = canonical_uuid(id).ok()?;
    [OFFERED, TAKEN].contains(&kind).then_some((id, kind))
}

/// Takes a request from its asker; false where the asker was faster.
fn take(dir: &OwnedFd, id: Uuid) -> bool {
    let (offered, taken) = (file_name(id, OFFERED), file_name(id, TAKEN));
    match renameat(dir, &offered, dir, &taken) {
        Ok(()) => true,
        Err(Errno::NOENT) => false,
        Err(errno) => {
            // Where it cannot be taken it is not left to be found in every pass.
            tracing::debug!(%errno, request = %id, "a request of an agent cannot be taken");
            unlinkat(dir, &offered, AtFlags::empty()).ok();
            false
        }
    }
}

fn read_request(dir: &OwnedFd, path: &Path, id: Uuid) -> Result<ChildRequest, UnreadableChild> {
    let bytes = read(dir, &file_name(id, TAKEN)).map_err(FileError::of("read a request in", path))?;
    Ok(decode_request(path, id, &bytes)?)
}

fn read(dir: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, "longer than any request is");
    if facts.len() > REQUEST_FILE_BYTES_MAX {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(REQUEST_FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= REQUEST_FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(too_long())
    }
}

fn remove(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        // A directory was put there since it was taken: the next look passes it by.
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

const _: () = assert!(REPLY_BYTES_MAX < REQUEST_FILE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::ids;

    struct Lab {
        dir: tempfile::TempDir,
        door: AgentDoor,
    }

    impl Lab {
        fn new() -> Lab {
            let dir = tempfile::tempdir().unwrap();
            let door = AgentDoor { path: dir.path().join("door") };
            for below in door.directories() {
                fs::create_dir(below).unwrap();
            }
            Lab { dir, door }
        }

        fn offer(&self, bytes: &[u8]) -> (Uuid, PathBuf) {
            let id = ids::uuid_v4().unwrap();
            let path = self.door.requests_dir().join(file_name(id, OFFERED));
            fs::write(&path, bytes).unwrap();
            (id, path)
        }

        fn left(&self) -> usize {
            fs::read_dir(self.door.requests_dir()).unwrap().count()
        }
    }

    fn no() -> ChildAnswer {
        let error = crate::door::DoorError { code: "malformed".into(), text: "no".into(), help: None };
        ChildAnswer::Refused(error)
    }

    #[test]
    fn junk_is_handed_over_once_answered_and_gone() {
        let lab = Lab::new();
        let secret = lab.dir.path().join("secret");
        fs::write(&secret, "{}").unwrap();
        lab.offer(b"{}");
        let (_, link) = lab.offer(b"");
        fs::remove_file(&link).unwrap();
        symlink(&secret, &link).unwrap();
        let (_, fifo) = lab.offer(b"");
        fs::remove_file(&fifo).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (_, long) = lab.offer(b"");
        fs::OpenOptions::new().write(true).open(long).unwrap().set_len(REQUEST_FILE_BYTES_MAX + 1).unwrap();
        let claims = lab.door.claim(10).unwrap();
        assert_eq!((claims.claimed.len(), claims.more), (4, false));
        assert!(claims.claimed.iter().all(|claim| claim.request.is_err()));
        for claim in &claims.claimed {
            lab.door.reply(claim.id, &no()).unwrap();
        }
        assert_eq!((lab.left(), lab.door.claim(10).unwrap().claimed.len()), (0, 0));
        assert!(secret.exists());
    }

    #[test]
    fn a_directory_is_no_request_and_stops_no_other() {
        let lab = Lab::new();
        let (_, path) = lab.offer(b"");
        fs::remove_file(&path).unwrap();
        fs::create_dir_all(path.join("below")).unwrap();
        // At the name that taking would use.
        let (id, _) = lab.offer(b"{}");
        fs::create_dir(lab.door.requests_dir().join(file_name(id, TAKEN))).unwrap();
        let (good, _) = lab.offer(b"{}");
        let claims = lab.door.claim(10).unwrap();
        assert_eq!(claims.claimed.iter().map(|claim| claim.id).collect::<Vec<_>>(), [good]);
        lab.door.reply(good, &no()).unwrap();
        assert_eq!(lab.door.claim(10).unwrap().claimed.len(), 0);
    }

    #[test]
    fn no_more_are_taken_than_asked_for_and_what_was_taken_comes_first() {
        let lab = Lab::new();
        (0..5).for_each(|_| drop(lab.offer(b"{}")));
        let first = lab.door.claim(2).unwrap();
        assert_eq!((first.claimed.len(), first.more), (2, true));
        let again = lab.door.claim(2).unwrap();
        let ids = |claims: &Claims| claims.claimed.iter().map(|claim| claim.id).collect::<Vec<_>>();
        assert_eq!(ids(&first), ids(&again));
    }

    #[test]
    fn a_door_that_is_a_link_is_none() {
        let lab = Lab::new();
        let elsewhere = lab.dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for place in [REQUESTS, REPLIES, RESULTS] {
            fs::remove_dir(lab.door.path.join(place)).unwrap();
            symlink(&elsewhere, lab.door.path.join(place)).unwrap();
        }
        let id = ids::uuid_v4().unwrap();
        fs::write(elsewhere.join(file_name(id, OFFERED)), "{}").unwrap();
        assert_eq!(lab.door.claim(10).unwrap().claimed.len(), 0);
        assert!(lab.door.reply(id, &no()).is_err());
        let child = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        assert!(lab.door.put_result(child, b"x").is_err());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }

    #[test]
    fn a_link_at_the_name_of_a_reply_or_a_result_is_replaced_not_followed() {
        let lab = Lab::new();
        let victim = lab.dir.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let child = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        let place = lab.door.path.join(RESULTS).join(format!("{child}.json"));
        symlink(&victim, &place).unwrap();
        lab.door.put_result(child, b"result").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert_eq!(fs::read(&place).unwrap(), b"result");
        assert!(lab.door.has_result(child).unwrap());
    }

    #[test]
    fn a_closed_door_takes_nothing() {
        let lab = Lab::new();
        lab.offer(b"{}");
        lab.door.close().unwrap();
        lab.door.close().unwrap();
        assert!(!lab.door.requests_dir().exists());
        assert_eq!(lab.door.claim(10).unwrap().claimed.len(), 0);
    }
}
