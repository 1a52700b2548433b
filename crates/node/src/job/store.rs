//! Reading and writing one small file of a job directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest file of a job directory that a reader takes, in bytes (the log, the request and the work directory apart).
pub(super) const JOB_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The format written today.
const SCHEMA: u64 = 1;

/// A job directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The disk said no.
    #[error("cannot {op} `{}`", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it should be. After a power cut a file that was never synced may look like this.
    #[error("`{}` is not valid", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file is of a format that this release does not know.
    #[error("`{}` has schema {found}, and this release knows schema {SCHEMA}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// A file is larger than such a file can be.
    #[error("`{}` is larger than {JOB_FILE_BYTES_MAX} bytes or not a regular file", path.display())]
    NotAJobFile {
        /// The file.
        path: PathBuf,
    },
}

impl JobError {
    pub(super) fn io<'a>(op: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> JobError + 'a {
        move |source| JobError::Io { op, path: path.to_owned(), source }
    }

    /// True when the file is there and cannot be made sense of, as opposed to a disk that fails.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        match self {
            JobError::Malformed { .. } | JobError::Schema { .. } | JobError::NotAJobFile { .. } => true,
            JobError::Io { .. } => false,
        }
    }
}

#[derive(Serialize)]
struct Written<'a, T> {
    schema: u64,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u64,
}

/// The bytes of a value's file.
pub(super) fn encode<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, JobError> {
    serde_json::to_vec(&Written { schema: SCHEMA, value })
        .map_err(|source| JobError::Malformed { path: path.to_owned(), source })
}

/// The value in a file's bytes.
pub(super) fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, JobError> {
    let malformed = |source| JobError::Malformed { path: path.to_owned(), source };
    let SchemaOnly { schema } = serde_json::from_slice(bytes).map_err(malformed)?;
    match schema {
        SCHEMA => serde_json::from_slice::<FirstFormat<T>>(bytes).map(|read| read.0).map_err(malformed),
        found => Err(JobError::Schema { path: path.to_owned(), found }),
    }
}

/// A value of schema 1: its members beside `schema`, each once, no others.
struct FirstFormat<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for FirstFormat<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members(std::marker::PhantomData))
    }
}

struct Members<T>(std::marker::PhantomData<T>);

impl<'de, T: DeserializeOwned> serde::de::Visitor<'de> for Members<T> {
    type Value = FirstFormat<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
        let without = WithoutSchema { map, seen: false };
        T::deserialize(serde::de::value::MapAccessDeserializer::new(without)).map(FirstFormat)
    }
}

/// Hands on every member but the first `schema`, so that the value's own type refuses doubles and strangers.
struct WithoutSchema<M> {
    map: M,
    seen: bool,
}

impl<'de, M: serde::de::MapAccess<'de>> serde::de::MapAccess<'de> for WithoutSchema<M> {
    type Error = M::Error;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, M::Error> {
        let Some(mut key) = self.map.next_key::<String>()? else { return Ok(None) };
        if key == "schema" && !self.seen {
            self.seen = true;
            self.map.next_value::<u64>()?;
            match self.map.next_key::<String>()? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        seed.deserialize(serde::de::value::StringDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a file, or says that there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, JobError> {
    read_bytes(path)?.map(|bytes| decode(path, &bytes)).transpose()
}

/// The bytes of a small regular file, or `None` where there is none. Symbolic links are not followed.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, JobError> {
    let io = |op| JobError::io(op, path);
    let opened = OpenOptions::new().read(true).custom_flags(no_follow()).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io("open"))?,
    };
    if !file.metadata().map_err(io("look at"))?.is_file() {
        return Err(JobError::NotAJobFile { path: path.to_owned() });
    }
    let mut bytes = Vec::with_capacity(4096);
    file.take(JOB_FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(io("read"))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= JOB_FILE_BYTES_MAX) {
        Ok(Some(bytes))
    } else {
        Err(JobError::NotAJobFile { path: path.to_owned() })
    }
}

/// `O_NOFOLLOW | O_NONBLOCK` as the standard library wants it.
fn no_follow() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

/// Creates a file that must not be there yet, readable by its owner only, and hands back the handle unsynced.
pub(super) fn create_new(path: &Path, bytes: &[u8]) -> Result<File, JobError> {
    let io = |op| JobError::io(op, path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("create"))?;
    file.write_all(bytes).map_err(io("write"))?;
    Ok(file)
}

/// How long a written file must last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Through a power cut: file and directory are synced, in one journal commit where the file system can.
    Synced,
    /// Through a crash of the program.
    Unsynced,
}

/// Puts a whole file in place: temporary, sync, rename, sync of the directory. No reader ever sees half of it.
pub(super) fn replace<T: Serialize>(path: &Path, value: &T, keep: Keep) -> Result<(), JobError> {
    replace_bytes(path, &encode(path, value)?, keep)
}

/// The same for bytes.
pub(super) fn replace_bytes(path: &Path, bytes: &[u8], keep: Keep) -> Result<(), JobError> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let made = match create_new(&temporary, bytes) {
        // Left by a process of the same number that died here.
        Err(JobError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary).map_err(JobError::io("remove", &temporary))?;
            create_new(&temporary, bytes)
        }
        other => other,
    };
    let file = made.inspect_err(|_| forget(&temporary))?;
    let placed = match keep {
        Keep::Synced => file.sync_all().map_err(JobError::io("sync", &temporary)),
        Keep::Unsynced => Ok(()),
    }
    .and_then(|()| fs::rename(&temporary, path).map_err(JobError::io("rename to", path)));
    placed.inspect_err(|_| forget(&temporary))?;
    match (keep, path.parent()) {
        (Keep::Synced, Some(parent)) => sync_dir(parent),
        (Keep::Unsynced, _) | (_, None) => Ok(()),
    }
}

/// Removes what a failed write left; the failure that matters is already on its way to the caller.
fn forget(temporary: &Path) {
    drop(fs::remove_file(temporary));
}

/// Makes a new file last, and whatever lies at the other paths, all at the same time.
pub(super) fn sync_together(file: &File, path: &Path, others: &[PathBuf]) -> Result<(), JobError> {
    std::thread::scope(|scope| {
        let others: Vec<_> = others.iter().map(|other| scope.spawn(|| sync_path(other))).collect();
        let synced = file.sync_all().map_err(JobError::io("sync", path));
        let all = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        all.fold(synced, Result::and)
    })
}

fn sync_path(path: &Path) -> Result<(), JobError> {
    let handle = File::open(path).map_err(JobError::io("open", path))?;
    handle.sync_all().map_err(JobError::io("sync", path))
}

/// Makes the names in a directory last.
pub(super) fn sync_dir(dir: &Path) -> Result<(), JobError> {
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
        .open(dir)
        .map_err(JobError::io("open", dir))?;
    handle.sync_all().map_err(JobError::io("sync", dir))
}
