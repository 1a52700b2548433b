//! The texts that `init` writes: a configuration made of the reference, and lines of approvers.

use std::path::Path;

use dispatch_core::protocol::names::NodeName;
use dispatch_node::config::DEFAULT_FILE;
use dispatch_node::files::read_limited;
use dispatch_node::report::{Exit, Report};
use uuid::Uuid;

/// Longest public key file.
const PUBLIC_KEY_BYTES_MAX: u64 = 64 * 1024;
/// What an approver's key is for (protocol section 2).
const NAMESPACE: &str = "dispatch-decision";
/// Kinds of keys that OpenSSH signs with.
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The reference with this node's values in it.
pub(crate) fn of_new_node(root: &Path, node: &NodeName, peer: &NodeName, cluster: Uuid) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = String::with_capacity(DEFAULT_FILE.len());
    for line in DEFAULT_FILE.lines() {
        let line = match line.split(" = ").next() {
            Some("root") => format!("root = {}", quoted(&root.to_string_lossy())),
            Some("node") => format!("node = {}", quoted(node.as_str())),
            Some("cluster") => format!("cluster = {}", quoted(&cluster.to_string())),
            Some("#latch") => "latch = true".to_owned(),
            _ => line.replace("devbox", peer.as_str()),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The text with one more peer at its end.
pub(crate) fn with_peer(text: &str, peer: &NodeName) -> String {
    format!("{}\n\n[peer.{peer}]\nkeys = [\"keys/{peer}.key\"]\n", text.trim_end())
}

/// One person's key, as a line of `allowed_signers`.
pub(crate) struct Approver {
    pub(crate) principal: String,
    key_type: String,
    key: String,
}

impl Approver {
    /// Reads an OpenSSH public key file; the comment, else the file's name, becomes the principal.
    pub(crate) fn read(path: &Path) -> Result<Approver, Report> {
        let bytes = read_limited(path, PUBLIC_KEY_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&bytes);
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Approver::parse(&text, &stem).ok_or_else(|| {
            Report::new(Exit::Config, format!("`{}` is not an OpenSSH public key", path.display()))
                .help("name the .pub file; a new key: ssh-keygen -t ed25519")
        })
    }

    fn parse(text: &str, stem: &str) -> Option<Approver> {
        let mut words = text.lines().next()?.split_whitespace();
        let (key_type, key) = (words.next()?, words.next()?);
        let shaped = KEY_TYPES.contains(&key_type)
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        let principal = words.next().filter(|comment| is_principal(comment)).unwrap_or(stem);
        (shaped && is_principal(principal)).then(|| Approver {
            principal: principal.to_owned(),
            key_type: key_type.to_owned(),
            key: key.to_owned(),
        })
    }

    pub(crate) fn line(&self) -> String {
        format!("{} namespaces=\"{NAMESPACE}\" {} {}", self.principal, self.key_type, self.key)
    }

    /// True when the file holds this key already, under whatever name.
    pub(crate) fn is_in(&self, approvers: &str) -> bool {
        approvers
            .lines()
            .any(|line| !line.starts_with('#') && line.split_whitespace().any(|word| word == self.key))
    }
}

/// A principal without wildcards or lists, which `allowed_signers` here does not take.
fn is_principal(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text.chars().all(|ch| ch.is_ascii_alphanumeric() || "@._+-".contains(ch))
        && !text.starts_with(['-', '#'])
}

/// What stands at the top of a new file of approvers.
pub(crate) const APPROVERS_HEAD: &str = "# Who may decide on tasks that wait here: an OpenSSH allowed_signers file.\n# PRINCIPAL namespaces=\"dispatch-decision\" [valid-after=…] [valid-before=…] KEYTYPE KEY\n";

#[cfg(test)]
mod tests {
    use super::*;
    use dispatch_node::config::{Config, Environment};

    #[test]
    fn the_text_of_a_new_node_says_what_it_was_told() {
        let node = NodeName::new("a").unwrap();
        let peer = NodeName::new("b").unwrap();
        let text = of_new_node(Path::new("/s/\"q\""), &node, &peer, Uuid::nil());
        let environment = Environment::empty().with("HOME", "/h");
        let config = Config::check(Path::new("/c/dispatch.toml"), &text, &environment).unwrap();
        assert_eq!(config.root, Path::new("/s/\"q\""));
        assert_eq!(config.peer(&peer).unwrap().keys, [Path::new("/c/keys/b.key")]);
        assert!(text.contains("\nlatch = true\n"));
        let third = NodeName::new("c").unwrap();
        let config =
            Config::check(Path::new("/c/dispatch.toml"), &with_peer(&text, &third), &environment).unwrap();
        assert_eq!(config.peers.len(), 2);
    }

    #[test]
    fn a_public_key_becomes_a_line_for_its_person() {
        let approver = Approver::parse("ssh-ed25519 AAAAC3 ann@desk\n", "id").unwrap();
        assert_eq!(approver.line(), "ann@desk namespaces=\"dispatch-decision\" ssh-ed25519 AAAAC3");
        assert!(approver.is_in("x y ssh-ed25519 AAAAC3\n") && !approver.is_in("# ssh-ed25519 AAAAC3\n"));
        assert_eq!(Approver::parse("ssh-ed25519 AAAAC3 a*\n", "ann").unwrap().principal, "ann");
        assert!(Approver::parse("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "id").is_none());
        assert!(Approver::parse("", "id").is_none());
    }
}
