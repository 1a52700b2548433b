//! Where the configuration and the state directory are when nobody says.

use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::NodeName;

use super::environment::Environment;
use super::error::{ConfigError, Problem};

/// Name of the configuration file in its directory.
const FILE_NAME: &str = "dispatch.toml";
/// Where a system install keeps its configuration.
const SYSTEM_DIR: &str = "/etc/dispatch";

/// The configuration file to read: the option, `DISPATCH_CONFIG`, the user's, the system's.
///
/// The first two are taken as they are; of the other two the first that exists.
pub(super) fn find_config_file(
    option: Option<&Path>,
    environment: &Environment,
) -> Result<PathBuf, ConfigError> {
    if let Some(file) = option {
        return absolute(file);
    }
    if let Some(file) = environment.get("DISPATCH_CONFIG") {
        return absolute(Path::new(file));
    }
    let searched: Vec<PathBuf> = user_dir(environment)
        .into_iter()
        .chain([PathBuf::from(SYSTEM_DIR)])
        .map(|dir| dir.join(FILE_NAME))
        .collect();
    match searched.iter().find(|file| file.exists()) {
        Some(file) => Ok(file.clone()),
        None => {
            let file = searched.first().cloned().unwrap_or_else(|| PathBuf::from(FILE_NAME));
            Err(ConfigError { file, line: None, problem: Problem::NotFound { searched } })
        }
    }
}

/// Where `init` writes the configuration when it is told no other place: the file this process would read.
///
/// # Errors
/// Neither a home directory nor a place is known.
pub fn default_config_file(option: Option<&Path>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    match find_config_file(option, environment) {
        Err(ConfigError { file, problem: Problem::NotFound { .. }, .. }) => absolute(&file),
        found => found,
    }
}

/// The state directory when the file names none: `$STATE_DIRECTORY`, else the user's state directory.
#[must_use]
pub fn default_state_dir(node: &NodeName, environment: &Environment) -> Option<PathBuf> {
    if let Some(given) = environment.get("STATE_DIRECTORY") {
        // systemd joins several with colons; the first is the service's own.
        let text = given.to_string_lossy();
        return text.split(':').next().map(PathBuf::from).filter(|path| path.is_absolute());
    }
    let base = absolute_value(environment, "XDG_STATE_HOME")
        .or_else(|| absolute_value(environment, "HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("dispatch").join(node.as_str()))
}

fn user_dir(environment: &Environment) -> Option<PathBuf> {
    let base = absolute_value(environment, "XDG_CONFIG_HOME")
        .or_else(|| absolute_value(environment, "HOME").map(|home| home.join(".config")))?;
    Some(base.join("dispatch"))
}

fn absolute_value(environment: &Environment, name: &str) -> Option<PathBuf> {
    environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn absolute(file: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(file).map_err(|source| {
        let problem = Problem::Unreadable(crate::files::FileError {
            op: "find the place of",
            path: file.to_owned(),
            source,
        });
        ConfigError { file: file.to_owned(), line: None, problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Environment {
        Environment::empty().with("HOME", "/home/ann")
    }

    #[test]
    fn the_state_directory_is_the_services_or_the_users() {
        let node = NodeName::new("gpubox").unwrap();
        let place = |environment: &Environment| default_state_dir(&node, environment).unwrap();
        assert_eq!(place(&home()), Path::new("/home/ann/.local/state/dispatch/gpubox"));
        assert_eq!(place(&home().with("XDG_STATE_HOME", "/s")), Path::new("/s/dispatch/gpubox"));
        assert_eq!(
            place(&home().with("STATE_DIRECTORY", "/var/lib/dispatch:/x")),
            Path::new("/var/lib/dispatch")
        );
        assert_eq!(default_state_dir(&node, &Environment::empty()), None);
    }

    #[test]
    fn a_named_configuration_file_is_the_only_one_looked_at() {
        let environment = home().with("DISPATCH_CONFIG", "/c/d.toml");
        assert_eq!(find_config_file(Some(Path::new("/o.toml")), &environment).unwrap(), Path::new("/o.toml"));
        assert_eq!(find_config_file(None, &environment).unwrap(), Path::new("/c/d.toml"));
        assert_eq!(
            default_config_file(None, &Environment::empty().with("HOME", "/nonexistent")).unwrap(),
            Path::new("/nonexistent/.config/dispatch/dispatch.toml")
        );
    }
}
