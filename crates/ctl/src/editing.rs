//! Changing files that people write: the configuration's key lists and the file of approvers.
//!
//! What a person wrote stays as it is, comments and order too; only the values that were asked for change. A text that does
//! not hold is never written, and what is written replaces the file as a whole, with the mode it had.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dispatch_core::protocol::names::NodeName;
use dispatch_node::config::{Config, Environment};
use dispatch_node::door::{AskError, Verb, ask};
use dispatch_node::files::{FileError, read_limited, replace_synced};
use dispatch_node::keys::Keys;
use dispatch_node::report::{Exit, Report, one_line};
use toml_edit::{Array, DocumentMut, Item, TableLike, Value};

use crate::context::Context;
use crate::verbs::door::ANSWER_WAIT;

/// Longest file that is changed.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A file as it was read, to be replaced only if it is still the same.
pub(crate) struct Edited {
    /// The file itself, where the name is a symlink.
    target: std::path::PathBuf,
    before: Vec<u8>,
    mode: u32,
}

impl Edited {
    pub(crate) fn read(path: &Path) -> Result<Edited, Report> {
        let target = fs::canonicalize(path).map_err(FileError::of("find", path))?;
        let before = read_limited(&target, FILE_BYTES_MAX)?;
        let facts = fs::metadata(&target).map_err(FileError::of("look at", &target))?;
        Ok(Edited { target, before, mode: facts.permissions().mode() & 0o7777 })
    }

    pub(crate) fn text(&self) -> Result<&str, Report> {
        std::str::from_utf8(&self.before).map_err(|error| {
            Report::new(Exit::Config, format!("`{}` is not UTF-8", self.target.display())).because(&error)
        })
    }

    /// Its path, for messages.
    pub(crate) fn shown(&self) -> String {
        self.target.display().to_string()
    }

    /// Puts another text in its place.
    pub(crate) fn replace(&self, text: &str) -> Result<(), Report> {
        if read_limited(&self.target, FILE_BYTES_MAX)? != self.before {
            let what = format!("`{}` was changed by somebody else meanwhile", self.target.display());
            return Err(Report::new(Exit::TryLater, what).help("run the command again"));
        }
        Ok(replace_synced(&self.target, text.as_bytes(), self.mode)?)
    }
}

/// The key files of a peer, as the configuration names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFiles {
    pub(crate) keys: Vec<String>,
    pub(crate) retired: Vec<String>,
}

/// The lists as they stand in the file.
pub(crate) fn key_files(text: &str, peer: &NodeName) -> Result<KeyFiles, Report> {
    let mut document = parse(text)?;
    let table = peer_table(&mut document, peer)?;
    let list = |key: &str| -> Vec<String> {
        let array = table.get(key).and_then(Item::as_array);
        array.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    Ok(KeyFiles { keys: list("keys"), retired: list("retired") })
}

/// The text with other lists for this peer.
pub(crate) fn with_key_files(text: &str, peer: &NodeName, files: &KeyFiles) -> Result<String, Report> {
    let mut document = parse(text)?;
    let table = peer_table(&mut document, peer)?;
    set_list(table, "keys", &files.keys);
    if !files.retired.is_empty() || table.contains_key("retired") {
        set_list(table, "retired", &files.retired);
    }
    Ok(document.to_string())
}

fn parse(text: &str) -> Result<DocumentMut, Report> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        Report::new(Exit::Config, "the configuration is not TOML").because(&error)
    })
}

fn peer_table<'d>(document: &'d mut DocumentMut, peer: &NodeName) -> Result<&'d mut dyn TableLike, Report> {
    let table = document
        .get_mut("peer")
        .and_then(Item::as_table_like_mut)
        .and_then(|peers| peers.get_mut(peer.as_str()))
        .and_then(Item::as_table_like_mut);
    table.ok_or_else(|| {
        Report::new(Exit::Usage, format!("no node `{peer}` is configured here"))
            .help("dispatchctl keys list shows the peers")
    })
}

/// Each value stays at its place with the comments and blanks around it; only what is more or less is added or goes.
fn set_list(table: &mut dyn TableLike, key: &str, wanted: &[String]) {
    if !table.get(key).is_some_and(Item::is_array) {
        table.insert(key, Item::Value(Value::Array(wanted.iter().collect::<Array>())));
        return;
    }
    let Some(array) = table.get_mut(key).and_then(Item::as_array_mut) else { return };
    while array.len() > wanted.len() {
        array.remove(array.len().saturating_sub(1));
    }
    for (at, text) in wanted.iter().enumerate() {
        match array.get(at) {
            Some(value) if value.as_str() == Some(text) => {}
            Some(_) => drop(array.replace(at, text.as_str())),
            None => array.push(text.as_str()),
        }
    }
}

/// Writes another configuration: only one that holds, with keys that can be read.
pub(crate) fn replace_config(config: &Config, edited: &Edited, text: &str) -> Result<Config, Report> {
    let changed = Config::check(&config.file, text, &Environment::of_process())?;
    Keys::load(&changed)?;
    edited.replace(text)?;
    Ok(changed)
}

/// A running watcher knows the configuration, keys and approvers as it last read them. What was changed and why is audited
/// there.
pub(crate) fn tell_the_watcher(config: &Config, reason: &str, context: &Context) -> Told {
    match ask(&config.state, Verb::Reload, reason, None, ANSWER_WAIT) {
        Ok(_) => Told::Yes,
        // One that starts later reads the files as they are.
        Err(AskError::NoWatcher) => Told::NoWatcher,
        Err(error) => {
            context.tell(&format!(
                "the watcher could not be told ({}): send it SIGHUP, or restart it",
                one_line(&error)
            ));
            Told::Failed
        }
    }
}

/// Whether a running watcher reads its files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It does, and has audited why.
    Yes,
    /// None runs.
    NoWatcher,
    /// It could not be told.
    Failed,
}

impl Told {
    /// The word in documents.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Told::Yes => "told",
            Told::NoWatcher => "none",
            Told::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\nroot = \"/s\"  # the share\n\n[peer.b]\n# two keys\nkeys = [\n  \"keys/b.key\", # old\n  \"keys/n.key\",\n]\ngate = \"always\"\n\n[exec]\nmax_parallel = 3 # enough\n";

    fn b() -> NodeName {
        NodeName::new("b").unwrap()
    }

    fn files(keys: &[&str], retired: &[&str]) -> KeyFiles {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        KeyFiles { keys: owned(keys), retired: owned(retired) }
    }

    #[test]
    fn only_the_lists_change_and_comments_and_order_stay() {
        assert_eq!(key_files(TEXT, &b()).unwrap(), files(&["keys/b.key", "keys/n.key"], &[]));
        let changed = with_key_files(TEXT, &b(), &files(&["keys/n.key", "keys/b.key"], &[])).unwrap();
        assert_eq!(
            changed,
            TEXT.replace(
                "\"keys/b.key\", # old\n  \"keys/n.key\"",
                "\"keys/n.key\", # old\n  \"keys/b.key\""
            )
        );
        let retired = with_key_files(TEXT, &b(), &files(&["keys/n.key"], &["keys/b.key"])).unwrap();
        assert_eq!(key_files(&retired, &b()).unwrap(), files(&["keys/n.key"], &["keys/b.key"]));
        for line in [
            "# mine",
            "root = \"/s\"  # the share",
            "# two keys",
            "gate = \"always\"",
            "max_parallel = 3 # enough",
        ] {
            assert!(retired.contains(line), "{line}: {retired}");
        }
        assert_eq!(with_key_files(TEXT, &b(), &key_files(TEXT, &b()).unwrap()).unwrap(), TEXT);
    }

    #[test]
    fn every_way_to_write_a_table_is_changed_where_it_stands() {
        for text in
            ["[peer]\nb = { keys = [\"k\"] }\n", "peer.b.keys = [\"k\"]\n", "[peer.b]\nkeys=[\"k\"]#x\n"]
        {
            let more = with_key_files(text, &b(), &files(&["k", "l"], &["m"])).unwrap();
            assert_eq!(key_files(&more, &b()).unwrap(), files(&["k", "l"], &["m"]), "{more}");
        }
        assert!(with_key_files("[peer.c]\nkeys=[]\n", &b(), &files(&[], &[])).is_err());
    }
}
