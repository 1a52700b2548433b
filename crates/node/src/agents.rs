//! What is known of agents before one runs: where their programs are looked for, and which versions are run.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The program of the kind `claude`, where the profile names none.
pub const CLAUDE_PROGRAM: &str = "claude";
/// Where programs are looked for when the executor has no `PATH`.
pub const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The search path that an agent of a profile gets, if the watcher has the same environment as this process.
#[must_use]
pub fn search_path(set: &BTreeMap<String, String>) -> OsString {
    match set.get("PATH") {
        Some(path) => path.into(),
        None => env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into()),
    }
}

/// The file that a program's name leads to on a search path, if it may be executed.
#[must_use]
pub fn find_program(program: &str, path: &OsString) -> Option<PathBuf> {
    let runs = |file: &Path| file.is_file() && accessat(CWD, file, Access::EXEC_OK, AtFlags::empty()).is_ok();
    if program.contains('/') {
        let file = PathBuf::from(program);
        return runs(&file).then_some(file);
    }
    env::split_paths(path).map(|dir| dir.join(program)).find(|file| runs(file))
}

/// A version as the agent tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64, u64, u64);

/// The oldest version that is run. Older ones read a file that a request names with `@`, wherever it is, into the prompt,
/// and nothing turns that off there.
pub const OLDEST: &str = "2.1.329";
const OLDEST_RUN: Version = Version(2, 1, 329);
/// The first version of which nothing is known.
pub const UNKNOWN_FROM: &str = "3.0.0";
const FIRST_UNKNOWN: Version = Version(3, 0, 0);

impl Version {
    /// Reads `major.minor.patch`, whatever follows it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split(['.', '-', '+', ' ']);
        let mut number = || parts.next()?.parse().ok();
        Some(Version(number()?, number()?, number()?))
    }

    /// True for versions that are not run.
    #[must_use]
    pub fn is_too_old(self) -> bool {
        self < OLDEST_RUN
    }

    /// True for versions that are run with a remark.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        self >= FIRST_UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_it_may_be_executed() {
        let path = OsString::from("/nonexistent:/usr/bin:/bin");
        assert!(find_program("sh", &path).is_some());
        assert_eq!(find_program("sh", &OsString::from("/nonexistent")), None);
        assert_eq!(find_program("/etc/passwd", &path), None, "no program");
        assert_eq!(find_program("/bin/sh", &path), Some(PathBuf::from("/bin/sh")));
        let set = BTreeMap::from([("PATH".to_owned(), "/opt/agents".to_owned())]);
        assert_eq!(search_path(&set), "/opt/agents");
    }

    #[test]
    fn the_range_is_what_it_says() {
        assert_eq!(Version::parse(OLDEST), Some(OLDEST_RUN));
        assert_eq!(Version::parse(UNKNOWN_FROM), Some(FIRST_UNKNOWN));
        for (text, too_old, unknown) in [
            ("2.1.197", true, false),
            ("2.1.328", true, false),
            ("2.1.329", false, false),
            ("2.1.1000-beta.1", false, false),
            ("2.10.0 (Claude Code)", false, false),
            ("3.0.0", false, true),
        ] {
            let version = Version::parse(text).unwrap();
            assert_eq!((version.is_too_old(), version.is_unknown()), (too_old, unknown), "{text}");
        }
        assert_eq!(Version::parse("latest"), None);
    }
}
