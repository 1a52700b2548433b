//! Who signs: the key, and whose it is by this node's list of approvers.

use std::fs;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::approvers::{Approver, Approvers, LineProblem};
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::config::{Config, Environment};
use dispatch_node::files::{FileError, read_limited};
use dispatch_node::keys::approvers_text;
use dispatch_node::report::Report;
use dispatch_spool::layout::Hex16;

use crate::error::KeyChoiceError;
use crate::sign;

/// Longest public key file.
const PUBLIC_KEY_BYTES_MAX: u64 = 64 * 1024;
/// Keys that are tried, in this order, when none is named.
const DEFAULT_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// A key that may decide, and who does.
#[derive(Debug)]
pub(crate) struct Signer {
    /// What `ssh-keygen` is given.
    pub(crate) file: PathBuf,
    /// OpenSSH's fingerprint.
    pub(crate) fingerprint: String,
    /// The digits in the decision's name.
    pub(crate) key16: Hex16,
    /// The principal who decides.
    pub(crate) author: String,
    /// The list that says so.
    pub(crate) approvers: Approvers,
}

/// A key file and its public half.
struct Candidate {
    file: PathBuf,
    public: Approver,
}

/// Chooses key and author: the option, else the configuration's key, else the first of the usual ones that is listed.
///
/// # Errors
/// No such key, or one that may not decide now.
pub(crate) fn choose(
    config: &Config,
    asked: Option<&Path>,
    principal: Option<&str>,
    now: Timestamp,
) -> Result<Signer, Report> {
    let approvers = Approvers::parse(&approvers_text(config)?);
    let candidate = match asked.or(config.approve.key.as_deref()) {
        Some(file) => candidate(file)?,
        None => first_listed(config, &approvers, now)?,
    };
    let author = author(config, &approvers, &candidate.public, principal, now)?;
    let key16 = Hex16::parse(&candidate.public.key16()).unwrap_or(Hex16::from_number(0));
    let fingerprint = candidate.public.fingerprint();
    Ok(Signer { file: candidate.file, fingerprint, key16, author, approvers })
}

fn first_listed(config: &Config, approvers: &Approvers, now: Timestamp) -> Result<Candidate, Report> {
    let dir = Environment::of_process().home().unwrap_or_default().join(".ssh");
    let mut any = false;
    for name in DEFAULT_KEYS {
        let file = dir.join(name);
        // Only keys with a public half beside them: looking must not ask for passphrases.
        if !public_file(&file).exists() {
            continue;
        }
        any = true;
        match candidate(&file) {
            Ok(found) if !principals(approvers, &found.public, now).is_empty() => return Ok(found),
            Ok(_) | Err(_) => {}
        }
    }
    if any {
        Err(KeyChoiceError::NoneListed { dir, approvers: config.approve.allowed_signers.clone() }.into())
    } else {
        Err(KeyChoiceError::NoneFound { dir }.into())
    }
}

fn author(
    config: &Config,
    approvers: &Approvers,
    public: &Approver,
    principal: Option<&str>,
    now: Timestamp,
) -> Result<String, KeyChoiceError> {
    let principals = principals(approvers, public, now);
    let Some(first) = principals.first() else {
        let fingerprint = public.fingerprint();
        let approvers_file = config.approve.allowed_signers.clone();
        let listed = approvers.lines().iter().any(|line| line.key16() == public.key16());
        return Err(match listed {
            true => KeyChoiceError::NotValidNow { fingerprint, approvers: approvers_file },
            false => KeyChoiceError::NotListed { fingerprint, approvers: approvers_file },
        });
    };
    match principal {
        None => Ok(first.clone()),
        Some(name) if principals.iter().any(|one| one == name) => Ok(name.to_owned()),
        Some(name) => Err(KeyChoiceError::OtherPrincipal { principal: name.to_owned(), principals }),
    }
}

/// Whose key it is now, in the order of the list.
fn principals(approvers: &Approvers, public: &Approver, now: Timestamp) -> Vec<String> {
    let lines = approvers.lines().iter();
    lines
        .filter(|line| line.key16() == public.key16() && line.is_valid_at(now))
        .flat_map(|line| line.principals.iter().cloned())
        .collect()
}

fn public_file(file: &Path) -> PathBuf {
    if file.extension().is_some_and(|ending| ending == "pub") {
        return file.to_owned();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// Reads a key's public half: from the file beside it, else `ssh-keygen` gets it out of the private one.
fn candidate(file: &Path) -> Result<Candidate, Report> {
    let beside = public_file(file);
    let text = if beside.exists() {
        // People keep keys in secret stores, behind symlinks.
        let real = fs::canonicalize(&beside).map_err(FileError::of("find", &beside))?;
        String::from_utf8_lossy(&read_limited(&real, PUBLIC_KEY_BYTES_MAX)?).into_owned()
    } else if file.exists() {
        sign::public_key(file)?
    } else {
        return Err(KeyChoiceError::Missing { path: file.to_owned() }.into());
    };
    let public =
        public_of(&text).map_err(|source| KeyChoiceError::NotAPublicKey { path: beside.clone(), source })?;
    Ok(Candidate { file: file.to_owned(), public })
}

/// A public key file's line, read by the rules that hold for approvers' keys.
fn public_of(text: &str) -> Result<Approver, LineProblem> {
    let words: Vec<&str> = text.lines().next().unwrap_or_default().split_ascii_whitespace().take(2).collect();
    let line = Approvers::parse(&format!("me {}", words.join(" ")));
    match (line.lines().first(), line.bad_lines().first()) {
        (Some(public), _) => Ok(public.clone()),
        (None, bad) => Err(bad.map_or(LineProblem::Shape, |bad| bad.problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHiL9rwsKK73BLbJFLkihA9H3AIFPHsaGmA2w9jnyTIS";

    #[test]
    fn a_public_key_file_holds_a_kind_and_a_key() {
        assert!(public_of(&format!("{KEY} ann@desk\n")).is_ok());
        assert_eq!(public_of("").unwrap_err(), LineProblem::Shape);
        assert_eq!(public_of("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA").unwrap_err(), LineProblem::Option);
    }

    #[test]
    fn a_key_is_whose_the_valid_lines_say() {
        let list = format!(
            "late@x valid-before=\"20260101\" {KEY}\nann@x,ann@y {KEY}\nben@x namespaces=\"dispatch-decision\" {KEY}"
        );
        let now = Timestamp::parse("2026-06-01T00:00:00.000Z").unwrap();
        let public = public_of(KEY).unwrap();
        assert_eq!(principals(&Approvers::parse(&list), &public, now), ["ann@x", "ann@y", "ben@x"]);
        assert!(principals(&Approvers::parse(""), &public, now).is_empty());
    }

    #[test]
    fn the_public_half_lies_beside_the_key() {
        assert_eq!(public_file(Path::new("/k/id_x.y")), Path::new("/k/id_x.y.pub"));
        assert_eq!(public_file(Path::new("/k/id.pub")), Path::new("/k/id.pub"));
    }
}
