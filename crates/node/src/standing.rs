//! Standing approvals as they lie in the configuration: `<config>/standing/*.json`, one sealed file each. Their names are
//! free; what counts is who signed them, which is asked at every use.

use std::fs;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;

use crate::config::Config;
use crate::files::{FileError, read_limited};
use crate::report::one_line;

/// Files that are read; what lies beyond them answers for nobody.
const FILES_MAX: usize = 256;

/// One file.
#[derive(Clone, Debug)]
pub struct StandingFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes; nothing is known of them yet.
    pub bytes: Vec<u8>,
}

/// Every file, those whose names come last first; none where there is no directory. One that cannot be read answers for nobody.
///
/// # Errors
/// The directory cannot be listed.
pub fn files(config: &Config) -> Result<Vec<StandingFile>, FileError> {
    let dir = config.standing_dir();
    let listing = match fs::read_dir(&dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::of("list", &dir)(error)),
    };
    let mut paths: Vec<PathBuf> =
        listing.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| is_one(path)).collect();
    // The newest first, as `dispatch-ack --standing` names them: what is beyond the limit has most likely expired.
    paths.sort_unstable_by(|left, right| right.cmp(left));
    if paths.len() > FILES_MAX {
        tracing::warn!(dir = %dir.display(), read = FILES_MAX, "more standing approvals than are read: remove old ones");
    }
    paths.truncate(FILES_MAX);
    let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
    Ok(paths
        .into_iter()
        .filter_map(|path| match read_limited(&path, limit) {
            Ok(bytes) => Some(StandingFile { path, bytes }),
            Err(error) => {
                tracing::warn!(error = %one_line(&error), "a standing approval cannot be read and answers for nobody");
                None
            }
        })
        .collect())
}

fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "json")
}
