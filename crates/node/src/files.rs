//! Files on this node's own disk: written once or replaced as a whole, on disk before anyone is told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// An operation on a file of this node failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} `{}`", path.display())]
pub struct FileError {
    /// What was tried: a verb and its object.
    pub op: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl FileError {
    /// An error of this operation on this path, for `map_err`.
    pub fn of(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError { op, path, source }
    }
}

/// What a write that must not overwrite found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// The file is there now, synced.
    Created,
    /// Something of that name was there before and still is.
    AlreadyThere,
}

/// What a removal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Removed {
    /// It is gone now.
    Removed,
    /// It was not there.
    Absent,
}

/// Creates a directory and its missing parents, mode 0700 each.
///
/// # Errors
/// A file in the way, or the system's refusal.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::of("create the directory", path))
}

/// Writes a new file of this mode and syncs it and its directory; a file of that name is left as it is.
///
/// # Errors
/// The system's refusal; nothing half-written stays behind under the final name.
pub fn create_synced(path: &Path, bytes: &[u8], mode: u32) -> Result<Written, FileError> {
    let temporary = write_temporary(path, bytes, mode)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).map_err(FileError::of("remove", &temporary))?;
    match linked {
        Ok(()) => sync_parent(path).map(|()| Written::Created),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(Written::AlreadyThere),
        Err(source) => Err(FileError { op: "create", path: path.to_owned(), source }),
    }
}

/// Puts a whole new file of this mode in the place of whatever is there, and syncs it and its directory.
///
/// # Errors
/// The system's refusal; the old file is then still there.
pub fn replace_synced(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = write_temporary(path, bytes, mode)?;
    fs::rename(&temporary, path).map_err(FileError::of("replace", path))?;
    sync_parent(path)
}

/// Moves a file to another name in the same directory, replacing nothing it does not own; not synced.
///
/// # Errors
/// The system's refusal, an absent source apart.
pub fn rename_if_there(from: &Path, to: &Path) -> Result<Removed, FileError> {
    match fs::rename(from, to) {
        Ok(()) => Ok(Removed::Removed),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Removed::Absent),
        Err(source) => Err(FileError { op: "move", path: from.to_owned(), source }),
    }
}

/// Removes a file.
///
/// # Errors
/// The system's refusal, an absent file apart.
pub fn remove(path: &Path) -> Result<Removed, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Removed::Removed),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Removed::Absent),
        Err(source) => Err(FileError { op: "remove", path: path.to_owned(), source }),
    }
}

/// Reads a regular file of at most `bytes_max` bytes; a symlink, a directory or a FIFO in its place is an error.
///
/// # Errors
/// The system's refusal, another kind of file, or a longer one.
pub fn read_limited(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let op = "read";
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::of(op, path))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, "longer than any such file is");
        return Err(FileError { op, path: path.to_owned(), source });
    }
    Ok(bytes)
}

/// Opens a regular file for reading without following a symlink at its end and without waiting for a FIFO's writer.
///
/// # Errors
/// The system's refusal, or another kind of file.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|errno| FileError {
        op: "open",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let kind = file.metadata().map_err(FileError::of("look at", path))?;
    if kind.is_file() {
        return Ok(file);
    }
    let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    Err(FileError { op: "read", path: path.to_owned(), source })
}

/// Syncs the directory that holds `path`, so that the name survives a power cut too.
///
/// # Errors
/// The system's refusal.
pub fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(FileError::of("sync the directory", parent))
}

/// Device and inode of a file: which file it is, whatever its name.
///
/// # Errors
/// The system's refusal.
pub fn device_and_inode(file: &File, path: &Path) -> Result<(u64, u64), FileError> {
    let facts = file.metadata().map_err(FileError::of("look at", path))?;
    Ok((facts.dev(), facts.ino()))
}

/// A synced file under a name that nobody reads, beside its later place.
fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, FileError> {
    let unique = crate::ids::uuid_v4()
        .map_err(io::Error::other)
        .map_err(FileError::of("name a temporary file for", path))?;
    let temporary = path.with_file_name(format!(".tmp.{}", unique.simple()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    match written {
        Ok(()) => Ok(temporary),
        Err(source) => {
            // The first failure is the one to report; a leftover under this name is read by nobody.
            drop(fs::remove_file(&temporary));
            Err(FileError { op: "write", path: path.to_owned(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!(create_synced(&path, b"one", 0o600).unwrap(), Written::Created);
        assert_eq!(create_synced(&path, b"two", 0o600).unwrap(), Written::AlreadyThere);
        assert_eq!(read_limited(&path, 10).unwrap(), b"one");
        replace_synced(&path, b"three", 0o600).unwrap();
        assert_eq!(read_limited(&path, 10).unwrap(), b"three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_short_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"0123456789").unwrap();
        assert!(read_limited(&path, 9).is_err());
        assert_eq!(read_limited(&path, 10).unwrap().len(), 10);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_limited(&link, 10).is_err());
        assert!(read_limited(dir.path(), 10).is_err());
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        assert!(read_limited(&fifo, 10).is_err());
    }
}
