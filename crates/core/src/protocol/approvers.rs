//! The people who may decide: an OpenSSH `allowed_signers` file (protocol section 2).
//!
//! A line that breaks a rule spoils itself only. Whatever is not understood is refused: an option we do not know may
//! narrow what the key is for.

use ssh_key::PublicKey;

use crate::protocol::limits::RSA_BITS_MIN;
use crate::protocol::sshsig::{NAMESPACE, SshSignature, key16};
use crate::protocol::time::Timestamp;

/// The rule that a line of the file breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Not `principals [options] keytype base64`.
    #[error("a line must be `principals [options] keytype base64`")]
    Shape,
    /// A principal that is a pattern, empty, or quoted in the middle.
    #[error("principals must be plain, without wildcards")]
    Principal,
    /// `cert-authority`.
    #[error("certificate authorities are not taken")]
    CertAuthority,
    /// An option of another kind, or one given twice.
    #[error("only `namespaces`, `valid-after` and `valid-before` are understood, each once")]
    Option,
    /// A date in another spelling, or an end before its beginning.
    #[error("a date must be YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with or without Z")]
    Date,
    /// A key for other namespaces only.
    #[error("the key is not for the namespace `{NAMESPACE}`")]
    Namespace,
    /// No public key, or one of a kind that is not taken.
    #[error("not a public key of a kind that is taken")]
    Key,
    /// An RSA key that is too short.
    #[error("RSA keys need at least {RSA_BITS_MIN} bits")]
    ShortRsa,
}

/// A line that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// The rule it breaks.
    pub problem: LineProblem,
}

/// A line that was taken: a key, whose it is, and when it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// Its line's number, from 1.
    pub line: usize,
    /// Who it is, one or more names.
    pub principals: Vec<String>,
    /// Valid from here on.
    pub valid_after: Option<Timestamp>,
    /// Valid until just before here.
    pub valid_before: Option<Timestamp>,
    key: PublicKey,
    key_blob: Vec<u8>,
}

impl Approver {
    /// First 16 digits of SHA-256(public key blob).
    #[must_use]
    pub fn key16(&self) -> String {
        key16(&self.key_blob)
    }

    /// OpenSSH's fingerprint, `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }

    /// What kind of key it is, in OpenSSH's word: `ssh-ed25519` …
    #[must_use]
    pub fn key_type(&self) -> String {
        self.key.algorithm().to_string()
    }

    /// True if the key is valid at that time.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.valid_after.is_none_or(|from| now >= from) && self.valid_before.is_none_or(|end| now < end)
    }
}

/// A key whose signature verified, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedApprover {
    /// First 16 digits of SHA-256(public key blob).
    pub key16: String,
    /// All principals of lines with this key that are valid now.
    pub principals: Vec<String>,
}

/// The people who may decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvers {
    lines: Vec<Approver>,
    bad: Vec<BadLine>,
}

impl Approvers {
    /// Reads the file's text. There is no error: a bad line is listed, and nobody can decide by it.
    #[must_use]
    pub fn parse(text: &str) -> Approvers {
        let mut approvers = Approvers::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = at.saturating_add(1);
            match read_line(line, number) {
                Ok(approver) => approvers.lines.push(approver),
                Err(problem) => approvers.bad.push(BadLine { line: number, problem }),
            }
        }
        approvers
    }

    /// The lines that were taken.
    #[must_use]
    pub fn lines(&self) -> &[Approver] {
        &self.lines
    }

    /// The lines that were not.
    #[must_use]
    pub fn bad_lines(&self) -> &[BadLine] {
        &self.bad
    }

    /// The principals of a key at that time; none if it may not decide.
    #[must_use]
    pub fn principals_of(&self, public_key_blob: &[u8], now: Timestamp) -> Vec<String> {
        self.valid_lines(public_key_blob, now).flat_map(|line| line.principals.iter().cloned()).collect()
    }

    fn valid_lines<'a>(&'a self, blob: &'a [u8], now: Timestamp) -> impl Iterator<Item = &'a Approver> {
        self.lines.iter().filter(move |line| line.key_blob == blob && line.is_valid_at(now))
    }

    /// Whose signature a raw SSHSIG blob over `message` is; `None` if it is no approver's, or none at all.
    #[must_use]
    pub fn verify(&self, message: &[u8], blob: &[u8], now: Timestamp) -> Option<VerifiedApprover> {
        let signature = SshSignature::from_blob(blob).ok()?;
        let line = self.valid_lines(signature.public_key_blob(), now).next()?;
        signature.is_of(&line.key, message).then(|| VerifiedApprover {
            key16: signature.key16(),
            principals: self.principals_of(signature.public_key_blob(), now),
        })
    }
}

fn read_line(line: &str, number: usize) -> Result<Approver, LineProblem> {
    let (principals, rest) = next_field(line)?;
    let principals = read_principals(principals)?;
    let (second, after) = next_field(rest)?;
    let (options, key_text) =
        if is_key_type(second) { (Options::default(), rest) } else { (Options::parse(second)?, after) };
    let (key, key_blob) = read_key(key_text)?;
    options.check()?;
    Ok(Approver {
        line: number,
        principals,
        valid_after: options.valid_after,
        valid_before: options.valid_before,
        key,
        key_blob,
    })
}

/// Splits the first field off: up to white space outside quotes.
fn next_field(text: &str) -> Result<(&str, &str), LineProblem> {
    let text = text.trim_start_matches([' ', '\t']);
    let mut quoted = false;
    let end = text
        .bytes()
        .position(|byte| {
            quoted ^= byte == b'"';
            !quoted && (byte == b' ' || byte == b'\t')
        })
        .unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((field, rest)) if !field.is_empty() => Ok((field, rest)),
        Some(_) | None => Err(LineProblem::Shape),
    }
}

fn is_key_type(field: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "rsa-"].into_iter().any(|start| field.starts_with(start))
}

fn read_principals(field: &str) -> Result<Vec<String>, LineProblem> {
    let field = unquoted(field).ok_or(LineProblem::Principal)?;
    let plain = |name: &str| !name.is_empty() && !name.contains(['*', '?', '!', '"']);
    let names: Vec<String> = field.split(',').map(str::to_owned).collect();
    if names.iter().all(|name| plain(name)) { Ok(names) } else { Err(LineProblem::Principal) }
}

/// The text without the quotes around it; `None` where a quote is not closed.
fn unquoted(text: &str) -> Option<&str> {
    match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(text),
    }
}

fn read_key(text: &str) -> Result<(PublicKey, Vec<u8>), LineProblem> {
    let mut fields = text.split_ascii_whitespace();
    let (Some(kind), Some(base64)) = (fields.next(), fields.next()) else { return Err(LineProblem::Shape) };
    let key = PublicKey::from_openssh(&format!("{kind} {base64}")).map_err(|_| LineProblem::Key)?;
    if key.key_data().is_other() || key.key_data().is_dsa() {
        return Err(LineProblem::Key);
    }
    if let Some(rsa) = key.key_data().rsa() {
        let bits = rsa.n.as_positive_bytes().map_or(0, bit_len);
        if bits < RSA_BITS_MIN {
            return Err(LineProblem::ShortRsa);
        }
    }
    let blob = key.to_bytes().map_err(|_| LineProblem::Key)?;
    Ok((key, blob))
}

/// Bits of a big-endian number.
fn bit_len(bytes: &[u8]) -> usize {
    let Some(start) = bytes.iter().position(|byte| *byte != 0) else { return 0 };
    let significant = bytes.get(start..).unwrap_or_default();
    let leading = significant.first().map_or(0, |first| first.leading_zeros());
    significant.len().saturating_mul(8).saturating_sub(usize::try_from(leading).unwrap_or(0))
}

/// The options of a line, each at most once.
#[derive(Debug, Default)]
struct Options {
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Options {
    fn parse(field: &str) -> Result<Options, LineProblem> {
        let mut options = Options::default();
        for option in split_outside_quotes(field) {
            let (name, value) =
                option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
            // OpenSSH takes option names in any case.
            let name = name.to_ascii_lowercase();
            if name == "cert-authority" {
                return Err(LineProblem::CertAuthority);
            }
            let value = value.and_then(|text| text.strip_prefix('"')).and_then(|text| text.strip_suffix('"'));
            let value = value.filter(|text| !text.contains('"')).ok_or(LineProblem::Option)?;
            match name.as_str() {
                "namespaces" => set_once(&mut options.namespaces, value.to_owned())?,
                "valid-after" => set_once(&mut options.valid_after, date(value)?)?,
                "valid-before" => set_once(&mut options.valid_before, date(value)?)?,
                _ => return Err(LineProblem::Option),
            }
        }
        Ok(options)
    }

    fn check(&self) -> Result<(), LineProblem> {
        if let (Some(after), Some(before)) = (self.valid_after, self.valid_before)
            && before <= after
        {
            return Err(LineProblem::Date);
        }
        match &self.namespaces {
            None => Ok(()),
            // A pattern may say more than a plain name, and less: `!dispatch-decision,*`.
            Some(list) if list.contains(['*', '?', '!']) => Err(LineProblem::Namespace),
            Some(list) if list.split(',').any(|name| name == NAMESPACE) => Ok(()),
            Some(_) => Err(LineProblem::Namespace),
        }
    }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), LineProblem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(LineProblem::Option),
    }
}

fn split_outside_quotes(field: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    field.split(move |byte: char| {
        quoted ^= byte == '"';
        !quoted && byte == ','
    })
}

/// A date of OpenSSH; without `Z` it is UTC here too, so that a line means the same on every node.
fn date(text: &str) -> Result<Timestamp, LineProblem> {
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return Err(LineProblem::Date);
    }
    let padded = format!("{digits:0<14}");
    let part = |range: std::ops::Range<usize>| padded.get(range).unwrap_or_default();
    let text = format!(
        "{}-{}-{}T{}:{}:{}.000Z",
        part(0..4),
        part(4..6),
        part(6..8),
        part(8..10),
        part(10..12),
        part(12..14)
    );
    Timestamp::parse(&text).map_err(|_| LineProblem::Date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHiL9rwsKK73BLbJFLkihA9H3AIFPHsaGmA2w9jnyTIS";

    fn problem(line: &str) -> Option<LineProblem> {
        Approvers::parse(line).bad_lines().first().map(|bad| bad.problem)
    }

    #[test]
    fn a_line_means_what_openssh_says_or_nothing() {
        for (line, expected) in [
            (format!("a@x {KEY}"), None),
            (format!("a@x,b@x {KEY} a comment"), None),
            (format!("\"a@x\" {KEY}"), None),
            (format!("a@x NameSpaces=\"dispatch-decision\" {KEY}"), None),
            (format!("a@x namespaces=\"git, dispatch-decision\" {KEY}"), Some(LineProblem::Namespace)),
            (format!("a@x namespaces=\"git\" {KEY}"), Some(LineProblem::Namespace)),
            (format!("a@x namespaces=\"*\" {KEY}"), Some(LineProblem::Namespace)),
            (format!("a@x namespaces=dispatch-decision {KEY}"), Some(LineProblem::Option)),
            (
                format!("a@x namespaces=\"dispatch-decision\",namespaces=\"git\" {KEY}"),
                Some(LineProblem::Option),
            ),
            (format!("a@x valid-after=\"2026\" {KEY}"), Some(LineProblem::Date)),
            (format!("a@x valid-after=\"20260230\" {KEY}"), Some(LineProblem::Date)),
            (
                format!("a@x valid-after=\"20260301\",valid-before=\"20260201\" {KEY}"),
                Some(LineProblem::Date),
            ),
            (format!("a@x,*@y {KEY}"), Some(LineProblem::Principal)),
            (format!("a@x,!b@x {KEY}"), Some(LineProblem::Principal)),
            (format!("a@x, {KEY}"), Some(LineProblem::Principal)),
            (format!("a@x cert-authority {KEY}"), Some(LineProblem::CertAuthority)),
            (
                format!("a@x cert-authority,namespaces=\"dispatch-decision\" {KEY}"),
                Some(LineProblem::CertAuthority),
            ),
            (format!("a@x no-touch {KEY}"), Some(LineProblem::Option)),
            ("a@x".to_owned(), Some(LineProblem::Shape)),
            ("a@x ssh-ed25519".to_owned(), Some(LineProblem::Shape)),
            (
                "a@x ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIHiL9rwsKK73BLbJFLkihA9H3AIFPHsaGmA2w9jnyTIS".to_owned(),
                Some(LineProblem::Key),
            ),
        ] {
            assert_eq!(problem(&line), expected, "{line}");
        }
    }

    #[test]
    fn a_date_without_z_is_utc() {
        for (text, expected) in [
            ("20260102", "2026-01-02T00:00:00.000Z"),
            ("20260102Z", "2026-01-02T00:00:00.000Z"),
            ("202601020304", "2026-01-02T03:04:00.000Z"),
            ("20260102030405Z", "2026-01-02T03:04:05.000Z"),
        ] {
            assert_eq!(date(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_key_is_valid_from_its_first_instant_until_before_its_last() {
        let line = format!("a@x valid-after=\"20260101\",valid-before=\"20260201\" {KEY}");
        let approvers = Approvers::parse(&line);
        let valid = |text: &str| approvers.lines()[0].is_valid_at(Timestamp::parse(text).unwrap());
        assert!(!valid("2025-12-31T23:59:59.999Z") && valid("2026-01-01T00:00:00.000Z"));
        assert!(valid("2026-01-31T23:59:59.999Z") && !valid("2026-02-01T00:00:00.000Z"));
    }
}
